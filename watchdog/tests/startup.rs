//! Configuration mistakes, warnings, flags, the log.

mod support;

use support::{bare, function};

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
fn values_that_cannot_be_read_are_warned_of_by_name() {
    let unreadable = [
        ("exec_timeout", "soon"),
        ("read_timeout", "-5s"),
        ("write_timeout", "1.5"),
        ("healthcheck_interval", "never"),
        ("max_inflight", "x"),
        ("response_buffer", "64k"),
        ("write_debug", "1"),
        ("cgi_headers", "True"),
        ("marshal_request", "yes"),
        ("debug_headers", "1"),
        ("suppress_lock", "1"),
        ("combine_output", "TRUE"),
        ("jwt_auth", "1"),
        ("skep_workers", "0"),
        ("log_buffer_size", "-1"),
    ];
    let builder = function("cat");
    let watchdog = unreadable
        .iter()
        .fold(builder, |builder, (name, value)| builder.env(name, value))
        .start();
    for (name, value) in unreadable {
        let warning = format!("warning: {name}={value} is not ");
        let log = watchdog.log();
        assert_eq!(log.matches(&warning).count(), 1, "{warning}: {log}");
    }
    assert_eq!(watchdog.post("hi").text(), "hi");
}

/// The variables that the log warns of, with the values that were set.
fn warned_of(settings: &[(&str, &str)]) -> Vec<String> {
    let builder = function("cat");
    let watchdog = settings
        .iter()
        .fold(builder, |builder, (name, value)| builder.env(name, value))
        .start();
    let log = watchdog.log();
    let warnings = log.lines().filter_map(|line| {
        Some(
            line.split_once("warning: ")?
                .1
                .split(' ')
                .next()?
                .to_owned(),
        )
    });
    warnings.collect()
}

#[test]
fn what_the_mode_does_not_look_at_is_warned_of() {
    let classic = [
        ("prefix_logs", "true"),
        ("log_callid", "true"),
        ("idle_timeout", "5s"),
        ("stream_idle_timeout", "5s"),
        ("http_upstream_url", "http://127.0.0.1:1"),
        ("upstream_url", "http://127.0.0.1:1"),
        ("http_buffer_req_body", "true"),
        ("buffer_http", "true"),
        ("ready_path", "/ready"),
        ("static_path", "/tmp"),
        ("jwt_auth_debug", "true"),
        ("jwt_auth_local", "true"),
        ("log_call_id", "true"),
    ];
    let streaming = [
        ("combine_output", "true"),
        ("cgi_headers", "true"),
        ("response_buffer", "1"),
        ("marshal_request", "true"),
        ("write_debug", "true"),
    ];
    let of_files = [
        ("exec_timeout", "5s"),
        ("prefix_logs", "true"),
        ("log_buffer_size", "1000"),
        ("content_type", "a/b"),
        ("function_process", "cat"),
        ("fprocess", "cat"),
    ];
    let served = [("content_type", "a/b")];
    let upstream = ("http_upstream_url", "http://127.0.0.1:1");
    for (extra, unused) in [
        (&[][..], &classic[..]),
        (&[("mode", "streaming")], &streaming),
        (&[("mode", "static"), ("static_path", "/tmp")], &of_files),
        (&[("mode", "http"), upstream], &served),
    ] {
        let settings = [extra, unused].concat();
        let mut warned = warned_of(&settings);
        let mut expected: Vec<_> = unused
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        warned.sort_unstable();
        expected.sort_unstable();
        assert_eq!(warned, expected);
    }
}

#[test]
fn the_name_that_loses_against_its_other_name_is_warned_of() {
    let both = [("function_process", "wc"), ("fprocess", "cat")];
    assert_eq!(warned_of(&both), ["fprocess=cat"]);
    let same = [("function_process", "cat"), ("fprocess", "cat")];
    assert!(warned_of(&same).is_empty());
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
