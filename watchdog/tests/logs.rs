//! The log: the lines that its readers look for, whose words may be in them, and that it is in no function's way.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as its test does"
)]

mod support;

use std::time::Duration;

use support::client::Request;
use support::{Builder, Watchdog, bare, eventually, free_port, function, script};

const DROPPED: &str = "fwatchdog_log_dropped_bytes_total{stream=\"stderr\"}";

/// The messages that hold this text, without their time.
fn messages(watchdog: &Watchdog, text: &str) -> Vec<String> {
    let log = watchdog.log();
    let lines = log.lines().filter(|line| line.contains(text));
    lines
        .map(|line| line.get(20..).unwrap_or("").to_owned())
        .collect()
}

/// The one message that holds this text, once it is there.
fn message(watchdog: &Watchdog, text: &str) -> String {
    watchdog.logs(text);
    let messages = messages(watchdog, text);
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages[0].clone()
}

/// Whether a message is these words, a duration with four decimals, and these.
fn is_line(message: &str, begin: &str, end: &str) -> bool {
    let seconds = message
        .strip_prefix(begin)
        .and_then(|rest| rest.strip_suffix(end))
        .and_then(|rest| rest.strip_prefix(" (")?.strip_suffix("s)"));
    seconds.is_some_and(|seconds| {
        let decimals = seconds.split_once('.').map_or(0, |(_, rest)| rest.len());
        decimals == 4 && seconds.parse::<f64>().is_ok()
    })
}

#[test]
fn the_other_modes_tell_each_call_in_one_line() {
    for mode in ["streaming", "serializing"] {
        let watchdog = script("cat; exit 0").env("mode", mode).start();
        watchdog.call(&Request::post("/a%20b?c=d", "hello").header("X-Call-Id", "id-1"));
        let line = message(&watchdog, "POST /a");
        assert!(
            is_line(&line, "POST /a%20b?c=d - 200 - ContentLength: 5B", ""),
            "{line}"
        );
        let log = watchdog.log();
        assert!(!log.contains("Forking") && !log.contains("Wrote"), "{log}");
    }
}

#[test]
fn a_failed_run_has_the_line_of_its_call_and_one_that_says_why() {
    let watchdog = script("head -c 1234 /dev/zero; exit 3")
        .env("mode", "serializing")
        .start();
    assert_eq!(watchdog.get("/").status, 500);
    let line = message(&watchdog, "GET /");
    assert!(
        is_line(&line, "GET / - 500 - ContentLength: 14B", ""),
        "{line}"
    );
    let reason = message(&watchdog, "Failed: ");
    assert!(reason.starts_with("Failed: exit status 3"), "{reason}");
}

#[test]
fn a_served_function_and_its_files_are_told_alike() {
    let builder = bare();
    let directory = builder.directory().to_str().unwrap().to_owned();
    std::fs::write(builder.directory().join("page"), vec![b'x'; 1500]).unwrap();
    let port = free_port();
    let server = builder
        .env("mode", "http")
        .env(
            "fprocess",
            &format!("python3 -m http.server --bind 127.0.0.1 --directory {directory} {port}"),
        )
        .env("http_upstream_url", &format!("http://127.0.0.1:{port}"))
        .start();
    server.logs("fprocess accepts connections");
    assert_eq!(server.get("/page").status, 200);
    let line = message(&server, "GET /page - ");
    assert!(
        is_line(&line, "GET /page - 200 OK - ContentLength: 1.5kB", ""),
        "{line}"
    );
    let files = bare()
        .env("mode", "static")
        .env("static_path", &directory)
        .start();
    assert_eq!(files.get("/page").status, 200);
    let line = message(&files, "GET /page");
    assert!(
        is_line(&line, "GET /page - 200 - ContentLength: 1.5kB", ""),
        "{line}"
    );
}

#[test]
fn the_callers_name_for_a_call_is_told_if_wanted() {
    let watchdog = function("cat")
        .env("mode", "streaming")
        .env("log_callid", "T")
        .start();
    watchdog.call(&Request::get("/one").header("X-Call-Id", "id-1"));
    watchdog.get("/two");
    let named = message(&watchdog, "GET /one");
    assert!(
        is_line(&named, "GET /one - 200 - ContentLength: 0B", " [id-1]"),
        "{named}"
    );
    let nameless = message(&watchdog, "GET /two");
    assert!(
        is_line(&nameless, "GET /two - 200 - ContentLength: 0B", " [none]"),
        "{nameless}"
    );
}

#[test]
fn probes_leave_no_line() {
    let watchdog = function("cat").env("mode", "streaming").start();
    watchdog.call(&Request::get("/probe").header("User-Agent", "kube-probe/1.31"));
    watchdog.call(&Request::get("/call").header("User-Agent", "curl/8"));
    message(&watchdog, "GET /call");
    assert!(!watchdog.log().contains("/probe"), "{}", watchdog.log());
}

#[test]
fn no_client_can_begin_a_line_of_its_own() {
    let watchdog = function("cat")
        .env("mode", "streaming")
        .env("log_callid", "true")
        .env("debug_headers", "true")
        .start();
    let evil = "a\tb\u{85}2025/01/01 00:00:00 forged";
    watchdog.call(&Request::get("/one%0Atwo").header("X-Call-Id", evil));
    let line = message(&watchdog, "GET /one");
    assert!(
        line.ends_with(" [a\\tb\\u{85}2025/01/01 00:00:00 forged]"),
        "{line}"
    );
    assert!(line.starts_with("GET /one%0Atwo - 200"), "{line}");
    eventually("the headers are printed", || {
        watchdog.output().contains("[out]")
    });
    let output = watchdog.output();
    assert!(output.contains("X-Call-Id=[a\\tb\\u{85}2025"), "{output}");
    // What hyper refuses never becomes a call, and so never a line.
    for target in ["/a\u{1}b", "/a\u{b}b", "/a\rb"] {
        assert_eq!(watchdog.get(target).status, 400);
    }
    watchdog.call(&Request::get(&format!("/{}", "y".repeat(50_000))));
    let long = message(&watchdog, "GET /yyy");
    assert!(long.len() < 1200, "{} bytes", long.len());
}

/// Writes this file to stderr, whatever it is asked.
fn writer(name: &str, content: &[u8]) -> Builder {
    let builder = script(&format!("cat $TMPDIR/{name} >&2; cat"));
    std::fs::write(builder.directory().join(name), content).unwrap();
    builder.env("mode", "streaming").env("metrics_port", "0")
}

#[test]
fn a_long_line_comes_in_pieces_of_the_size_that_was_set() {
    let watchdog = writer("text", &[b'Q'; 10_000])
        .env("log_buffer_size", "1000")
        .start();
    assert_eq!(watchdog.get("/").status, 200);
    let count = || watchdog.log().matches('Q').count();
    eventually("all of it is there", || count() == 10_000);
    let pieces = messages(&watchdog, "stderr: ");
    // A read may bring up to four kilobytes more than the size.
    assert!((2..=10).contains(&pieces.len()), "{} pieces", pieces.len());
    assert!(pieces.iter().all(|piece| piece.starts_with("stderr: QQ")));
    let whole = writer("text", &[b'Q'; 10_000]).start();
    assert_eq!(whole.get("/").status, 200);
    eventually("all of it is there", || {
        whole.log().matches('Q').count() == 10_000
    });
    assert_eq!(messages(&whole, "stderr: ").len(), 1);
}

#[test]
fn a_size_of_lines_that_is_no_number_is_a_mistake_and_one_out_of_bounds_is_warned_of() {
    let (status, _, errors) = function("cat").env("log_buffer_size", "64k").run();
    assert_eq!(
        (status.code(), errors.lines().count()),
        (Some(2), 1),
        "{errors}"
    );
    assert!(errors.contains("log_buffer_size=64k"), "{errors}");
    for (asked, used) in [("-1", "131072"), ("1000000", "131072"), ("0", "256")] {
        let watchdog = function("cat").env("log_buffer_size", asked).start();
        let warning = message(&watchdog, "warning: log_buffer_size");
        assert!(warning.ends_with(&format!("using {used}")), "{warning}");
    }
}

#[test]
fn bytes_of_any_kind_arrive_as_they_were_written() {
    let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at * 7 / 3) as u8).collect();
    let watchdog = writer("bytes", &bytes).env("prefix_logs", "false").start();
    assert_eq!(watchdog.post("answer").text(), "answer");
    let is_there = |log: &[u8]| log.windows(bytes.len()).any(|part| part == bytes);
    eventually("they are in the log", || {
        watchdog.log_bytes().len() > bytes.len()
    });
    eventually("they are unchanged", || is_there(&watchdog.log_bytes()));
}

#[test]
fn a_line_of_a_hundred_megabytes_costs_no_memory_and_harms_nobody() {
    const SIZE: usize = 100_000_000;
    let watchdog = script("read what; [ $what = flood ] && head -c 100000000 /dev/zero | tr '\\0' Q >&2; echo done $what")
        .env("mode", "streaming")
        .env("prefix_logs", "false")
        .env("metrics_port", "0")
        .start();
    watchdog.post("small\n");
    let before = watchdog.peak();
    assert_eq!(watchdog.post("flood\n").text(), "done flood\n");
    let peak = watchdog.peak();
    assert!(peak < before + 4096, "{before} KiB became {peak} KiB");
    // A line of ours may have been dropped with the rest: until one is there the log has not been read up.
    eventually("the log is read up", || {
        watchdog.call(&Request::post("/last", "small\n"));
        let log = watchdog.log_bytes();
        let tail = &log[log.len().saturating_sub(4096)..];
        String::from_utf8_lossy(tail).contains("POST /last")
    });
    let dropped = watchdog.metric(DROPPED) as usize;
    let log = watchdog.log_bytes();
    let kept = log.iter().filter(|byte| **byte == b'Q').count();
    let all = kept + dropped;
    assert!(
        all.abs_diff(SIZE) < 4096,
        "{kept} kept and {dropped} dropped"
    );
}

#[test]
fn ten_thousand_lines_in_a_second_all_arrive() {
    const WRITER: &str = "import sys, time
for batch in range(100):
    sys.stderr.write(''.join('line %d\\n' % (batch * 100 + at) for at in range(100)))
    sys.stderr.flush()
    time.sleep(0.01)
";
    let builder = bare().env("mode", "streaming").env("metrics_port", "0");
    let path = builder.directory().join("writer.py");
    std::fs::write(&path, WRITER).unwrap();
    let watchdog = builder
        .env("fprocess", &format!("python3 {}", path.display()))
        .start();
    assert_eq!(watchdog.get("/").status, 200);
    watchdog.logs("stderr: line 9999\n");
    let lines = messages(&watchdog, "stderr: line ");
    let expected: Vec<_> = (0..10_000).map(|at| format!("stderr: line {at}")).collect();
    assert!(lines == expected, "{} lines", lines.len());
    assert_eq!(watchdog.metric(DROPPED), 0.0);
}

#[test]
fn a_log_that_nobody_reads_stops_no_call_and_what_is_lost_is_counted_and_said() {
    const SIZE: usize = 200_000;
    const CALLS: usize = 40;
    let watchdog = writer("noise", &[b'x'; SIZE])
        .env("prefix_logs", "false")
        .start();
    watchdog.post("warm");
    let before = watchdog.peak();
    watchdog.read_stderr(false);
    let bodies: Vec<_> = (0..CALLS).map(|number| number.to_string()).collect();
    for body in &bodies {
        assert_eq!(watchdog.post(body).text(), *body);
    }
    assert!(watchdog.children().is_empty(), "nothing waits for the log");
    let peak = watchdog.peak();
    assert!(peak < before + 2048, "{before} KiB became {peak} KiB");
    let dropped = watchdog.metric(DROPPED) as usize;
    // 256 KiB wait, 64 KiB are in the pipe, and a piece or two is on its way.
    assert!(dropped > CALLS * SIZE - 700_000, "{dropped}");
    watchdog.read_stderr(true);
    watchdog.logs("fwatchdog: dropped ");
    watchdog.post("again");
    let log = watchdog.log();
    let told: Vec<usize> = log
        .split("fwatchdog: dropped ")
        .skip(1)
        .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(told.len(), 1, "one line says it: {told:?}");
    assert_eq!(told[0], dropped);
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_the_exit() {
    let mut watchdog = writer("noise", &[b'x'; 400_000]).start();
    watchdog.read_stderr(false);
    for _ in 0..3 {
        assert_eq!(watchdog.post("on").text(), "on");
    }
    watchdog.signal("TERM");
    let (code, took) = watchdog.exit();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn long_lines_of_stderr_arrive_whole_when_they_are_read() {
    let watchdog = script("head -c 100000 /dev/zero | tr '\\0' 'x' >&2; echo >&2 end")
        .env("combine_output", "false")
        .start();
    assert_eq!(watchdog.get("/").status, 200);
    watchdog.logs("xend\n");
    let log = watchdog.log();
    let line = log.lines().find(|line| line.ends_with("xend")).unwrap();
    assert_eq!(line.matches('x').count(), 100_000);
}
