//! What the processes of a run may use, and that the limit which ends a run is named.

mod support;

use std::io::{BufReader, Write};
use std::process::Command;
use std::time::Duration;

use support::client::{Request, receive};
use support::{function, python, script, with_program};

const SPIN: &str = "while :; do :; done";

#[test]
fn a_run_that_uses_up_its_processor_time_is_a_500_that_names_the_limit() {
    for mode in ["classic", "streaming", "serializing"] {
        let watchdog = script(SPIN)
            .env("mode", mode)
            .env("max_cpu_seconds", "1")
            .start();
        let answer = watchdog.get("/");
        assert_eq!(answer.status, 500, "{mode}");
        let text = answer.text();
        assert!(
            text.contains("cpu limit") && text.contains("raise max_cpu_seconds"),
            "{text}"
        );
        watchdog.logs("Failed: cpu limit: a process of the run used 1s of processor time");
    }
}

#[test]
fn after_the_first_byte_the_body_breaks_off_and_the_log_names_the_limit() {
    let watchdog = script(&format!("echo some; {SPIN}"))
        .env("mode", "streaming")
        .env("max_cpu_seconds", "1")
        .start();
    let answer = watchdog.get("/");
    assert_eq!((answer.status, answer.is_whole), (200, false), "{answer:?}");
    watchdog.logs("raise max_cpu_seconds");
}

#[test]
fn waiting_costs_no_processor_time_and_other_ends_are_called_what_they_are() {
    let watchdog = script("sleep 1.5; exit $(cat)")
        .env("max_cpu_seconds", "1")
        .start();
    assert_eq!(watchdog.post("0").status, 200);
    assert_eq!(watchdog.post("3").text(), "exit status 3\n");
    let killed = script("kill -9 $$").env("max_cpu_seconds", "1").start();
    assert_eq!(killed.get("/").text(), "signal: killed\n");
}

#[test]
fn a_process_that_waited_for_its_call_has_the_limits_too() {
    let watchdog = script(&format!("read x; ulimit -n; {SPIN}"))
        .env("prefork", "1")
        .env("max_cpu_seconds", "1")
        .env("max_open_files", "50")
        .start();
    support::eventually("one waits", || watchdog.children().len() == 1);
    let answer = watchdog.call(&Request::post("/", "go\n"));
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().contains("max_cpu_seconds"),
        "{}",
        answer.text()
    );
    assert!(answer.text().ends_with("\n50\n"), "{}", answer.text());
}

#[test]
fn descriptors_run_out_at_the_limit_and_the_watchdog_keeps_its_own() {
    let program = "import os\nfiles = []\n\
                   try:\n    while True: files.append(os.open('/dev/null', 0))\n\
                   except OSError as error: print(files[-1], error.strerror)";
    let watchdog = python(program).env("max_open_files", "20").start();
    assert_eq!(watchdog.get("/").text(), "19 Too many open files\n");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", watchdog.pid())).unwrap();
    let own = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    assert!(!own.unwrap().contains(" 20 "), "{own:?}");
}

#[test]
fn a_limit_above_the_watchdogs_own_is_lowered_with_a_warning() {
    let mut shell = std::process::Command::new("sh");
    let program = env!("CARGO_BIN_EXE_fwatchdog");
    shell.args(["-c", &format!("ulimit -n 200; exec {program}")]);
    let watchdog = support::with_program(shell)
        .env("fprocess", "sh -c 'ulimit -n'")
        .env("max_open_files", "1000")
        .start();
    watchdog.logs(
        "warning: max_open_files=1000 is above the limit that the watchdog has itself; using 200",
    );
    assert_eq!(watchdog.get("/").text(), "200\n");
}

#[test]
fn modes_without_a_process_for_each_call_say_that_they_have_no_such_limits() {
    let watchdog = function("")
        .env("mode", "static")
        .env("max_cpu_seconds", "1")
        .env("prefork", "2")
        .start();
    watchdog.logs("warning: max_cpu_seconds=1 is not used in mode=static");
    watchdog.logs("warning: prefork=2 is not used in mode=static");
}

#[test]
fn accepts_that_fail_all_the_time_are_one_line_and_cost_no_running_call() {
    let mut shell = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_fwatchdog");
    shell.args(["-c", &format!("ulimit -n 40; exec {program}")]);
    let mut watchdog = with_program(shell)
        .script("echo $$ >> $TMPDIR/up; while [ ! -e $TMPDIR/go ]; do sleep 0.02; done; echo done")
        .env("skep_workers", "2")
        .start();
    let mut running = watchdog.connect();
    running.write_all(&Request::get("/").bytes()).unwrap();
    watchdog.lines("up", 1);
    let crowd: Vec<_> = (0..60).map(|_| watchdog.connect()).collect();
    watchdog.logs("cannot accept a connection: Too many open files");
    // Twenty further ones at each worker.
    std::thread::sleep(Duration::from_secs(1));
    let lines = watchdog.log().matches("open files").count();
    assert_eq!(lines, 1, "{}", watchdog.log());
    watchdog.signal("TERM");
    watchdog.logs("draining");
    std::fs::write(watchdog.file("go"), "").unwrap();
    let answer = receive(&mut BufReader::new(running));
    assert_eq!((answer.status, answer.text().as_str()), (200, "done\n"));
    drop(crowd);
    assert_eq!(watchdog.exit().0, Some(0));
}
