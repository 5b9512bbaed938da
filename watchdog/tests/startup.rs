//! Configuration mistakes, warnings, flags, the log.

mod support;

use support::{bare, function, script};

#[test]
fn without_fprocess_it_refuses_to_start_and_says_what_to_set() {
    let (status, output, errors) = bare().run();
    assert_eq!((status.code(), output.as_str()), (Some(2), ""));
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("fprocess is not set"), "{errors}");
}

#[test]
fn every_mistake_is_reported_at_once_one_per_line() {
    let (status, _, errors) = bare()
        .env("mode", "afterburn")
        .env("jwt_auth", "true")
        .run();
    assert_eq!(status.code(), Some(2));
    assert_eq!(errors.lines().count(), 3, "{errors}");
    for name in ["fprocess", "mode=afterburn", "jwt_auth=true"] {
        assert!(errors.contains(name), "{name}: {errors}");
    }
}

#[test]
fn a_port_that_is_taken_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (status, _, errors) = function("cat").env("port", &port).run();
    assert_eq!(status.code(), Some(1));
    assert!(
        errors.lines().count() == 1 && errors.contains(&port),
        "{errors}"
    );
}

#[test]
fn values_that_are_not_used_are_warned_of_by_name() {
    let watchdog = function("cat")
        .env("exec_timeout", "soon")
        .env("write_debug", "1")
        .env("max_inflight", "x")
        .start();
    for name in ["exec_timeout=soon", "write_debug=1", "max_inflight=x"] {
        assert_eq!(
            watchdog.log().matches(&format!("warning: {name}")).count(),
            1,
            "{}",
            watchdog.log()
        );
    }
    assert_eq!(watchdog.post("hi").text(), "hi");
}

#[test]
fn flags_work_with_one_dash_and_with_two() {
    for flag in ["-version", "--version"] {
        let (status, output, _) = bare().arg(flag).run();
        assert_eq!(
            (status.code(), output),
            (Some(0), format!("fwatchdog {}\n", fwatchdog::VERSION))
        );
    }
    for flag in ["-help", "--help"] {
        let (status, output, _) = bare().arg(flag).run();
        assert_eq!(status.code(), Some(0));
        for name in ["fprocess", "exec_timeout", "max_inflight", "skep_inherit"] {
            assert!(output.contains(name), "{name}");
        }
    }
    let (status, _, errors) = bare().arg("-nonsense").run();
    assert_eq!(
        (status.code(), errors.lines().count()),
        (Some(2), 1),
        "{errors}"
    );
}

#[test]
fn each_run_is_logged_with_the_lines_that_readers_look_for() {
    let watchdog = function("cat").start();
    watchdog.post("hello");
    watchdog.logs("Wrote 5 Bytes - Duration: ");
    let log = watchdog.log();
    let line = log
        .lines()
        .find(|line| line.contains("Forking fprocess"))
        .unwrap();
    let (date, rest) = line.split_once(' ').unwrap();
    let (time, message) = rest.split_once(' ').unwrap();
    let shape = |text: &str| {
        text.chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect::<String>()
    };
    assert_eq!(
        (shape(date).as_str(), shape(time).as_str()),
        ("0000/00/00", "00:00:00")
    );
    assert!(message.starts_with("Forking fprocess"));
}

#[test]
fn write_debug_copies_the_output_to_stdout() {
    let watchdog = function("cat").env("write_debug", "true").start();
    watchdog.post("seen twice");
    support::eventually("the output is copied", || {
        watchdog.output().contains("seen twice")
    });
    watchdog.logs(" Duration: ");
    assert!(!watchdog.log().contains("Wrote"));
}

#[test]
fn a_stderr_that_nobody_reads_blocks_no_command() {
    let noise = "sh -c 'head -c 5000000 /dev/zero | tr \"\\0\" x >&2; echo done'";
    let (process, address) = support::handed_over(noise, &[("combine_output", "false")]);
    let stream = std::net::TcpStream::connect(address).unwrap();
    let answer = support::client::exchange(stream, &support::client::Request::get("/"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "done\n"));
    // Only now somebody reads it.
    let log = support::abandon(process);
    assert!(
        log.contains("fwatchdog: dropped "),
        "{} bytes of log",
        log.len()
    );
    assert!(log.len() < 1_000_000, "{} bytes of log", log.len());
}

#[test]
fn long_lines_of_stderr_arrive_whole_when_they_are_read() {
    let watchdog = script("head -c 100000 /dev/zero | tr '\\0' 'x' >&2; echo >&2 end")
        .env("combine_output", "false")
        .start();
    assert_eq!(watchdog.get("/").status, 200);
    watchdog.logs("xend\n");
    let line = watchdog
        .log()
        .lines()
        .find(|line| line.ends_with("xend"))
        .unwrap()
        .to_owned();
    assert_eq!(line.matches('x').count(), 100_000);
}
