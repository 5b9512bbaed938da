//! Nobody calls: nothing wakes the watchdog, and it still does what a PID 1 has to.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as its test does"
)]

mod support;

use std::process::Command;
use std::time::Duration;

use support::{Builder, Watchdog, eventually, free_port, function, python, with_program};

/// Three times as long as a timer of a second needs to be seen.
const WINDOW: Duration = Duration::from_secs(3);

/// Waits for a time in which no thread of the watchdog has run: what a call has left to do is done soon.
fn falls_asleep(watchdog: &Watchdog, what: &str) {
    eventually(&format!("{what}: nothing wakes it"), || {
        let before = switches(watchdog);
        std::thread::sleep(WINDOW);
        switches(watchdog) == before
    });
}

/// How often each thread has waited for something so far.
fn switches(watchdog: &Watchdog) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", watchdog.pid())).unwrap();
    tasks
        .map(|task| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let mut lines = status.lines();
            let line = lines.find(|line| line.starts_with("voluntary_ctxt_switches"));
            line.unwrap().to_owned()
        })
        .collect()
}

fn stays_asleep_before_and_after_calls(builder: Builder, what: &str) {
    let watchdog = builder.start();
    falls_asleep(&watchdog, &format!("{what}, started"));
    for _ in 0..100 {
        assert_eq!(watchdog.post("x").text(), "x", "{what}");
    }
    falls_asleep(&watchdog, &format!("{what}, after 100 calls"));
}

#[test]
fn no_timer_ticks_before_the_first_call_and_after_the_last() {
    stays_asleep_before_and_after_calls(function("cat"), "classic");
}

#[test]
fn no_timer_ticks_while_children_wait_that_were_started_ahead() {
    stays_asleep_before_and_after_calls(function("cat").env("prefork", "2"), "prefork");
}

#[test]
fn no_timer_ticks_while_the_child_of_mode_http_waits() {
    let server = "import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *rest): pass
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.send_response(200); self.end_headers(); self.wfile.write(body)
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()";
    let port = free_port().to_string();
    let builder = python(server)
        .env("mode", "http")
        .env("PORT", &port)
        .env("http_upstream_url", &format!("http://127.0.0.1:{port}"));
    let watchdog = builder.start();
    watchdog.logs("fprocess accepts connections");
    assert_eq!(watchdog.post("x").text(), "x");
    falls_asleep(&watchdog, "http");
}

#[test]
fn who_dies_while_nobody_calls_is_reaped() {
    // A child from before the watchdog's time, as a `docker exec` may leave one, too.
    let mut shell = Command::new("sh");
    let elder = "(until test -e $TMPDIR/go; do sleep 0.02; done) &";
    let program = env!("CARGO_BIN_EXE_fwatchdog");
    shell.args(["-c", &format!("{elder} exec {program}")]);
    let watchdog = with_program(shell).env("fprocess", "cat").start();
    falls_asleep(&watchdog, "with a child of another");
    assert_eq!(watchdog.children().len(), 1);
    std::fs::write(watchdog.file("go"), "").unwrap();
    eventually("no zombie is left", || watchdog.children().is_empty());
}
