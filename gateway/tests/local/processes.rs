//! What `skep local` starts, replaces and ends.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::{get, post, read, send, try_get};
use crate::support::gateway::{Gateway, children, gone, processes};
use crate::support::{eventually, within};

#[test]
fn term_lets_running_calls_finish_and_ends_everything_it_started() {
    let mut gateway = Gateway::of(
        "  slow:\n    fprocess: sh -c \"sleep 1.7042; echo finished\"\n  cat:\n    fprocess: cat",
    );
    let stream = send(
        gateway.address,
        b"GET /function/slow HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    );
    eventually("the call runs", || !processes("sleep 1.7042").is_empty());
    let started = children(gateway.pid());
    assert_eq!(started.len(), 2);
    gateway.signal("TERM");
    eventually("nothing new is accepted", || {
        std::net::TcpStream::connect(gateway.address).is_err()
    });
    let answer = read(stream, false);
    assert_eq!((answer.status, answer.text().as_str()), (200, "finished\n"));
    assert_eq!(gateway.ended(), Some(0));
    eventually("the watchdogs are gone", || {
        started
            .iter()
            .all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    });
}

#[test]
fn ctrl_c_with_nothing_running_ends_at_once() {
    let mut gateway = Gateway::of("  cat:\n    fprocess: cat");
    assert_eq!(post(gateway.address, "/function/cat", "x").status, 200);
    gateway.signal("INT");
    let took = within(Duration::from_secs(10), "it ends", || {
        !std::path::Path::new(&format!("/proc/{}/exe", gateway.pid())).exists()
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(gateway.ended(), Some(0));
}

#[test]
fn the_drain_limit_cuts_what_does_not_finish() {
    let mut gateway = Gateway::with(
        "  forever:\n    fprocess: sleep 4712.5",
        &["--drain-timeout", "300ms"],
    );
    let _stream = send(
        gateway.address,
        b"GET /function/forever HTTP/1.1\r\nHost: t\r\n\r\n",
    );
    eventually("the call runs", || !processes("sleep 4712.5").is_empty());
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(0));
    gone("sleep 4712.5");
}

#[test]
fn a_second_signal_waits_for_nobody_and_still_ends_everything() {
    let mut gateway = Gateway::of(
        "  deaf:\n    fprocess: sh -c \"trap '' TERM INT; sleep 4714.5; sleep 4714.5\"",
    );
    let _stream = send(
        gateway.address,
        b"GET /function/deaf HTTP/1.1\r\nHost: t\r\n\r\n",
    );
    eventually("the call runs", || !processes("sleep 4714.5").is_empty());
    gateway.signal("INT");
    gateway.logs("finishing running calls");
    gateway.signal("INT");
    let took = within(Duration::from_secs(10), "it ends", || {
        !std::path::Path::new(&format!("/proc/{}/exe", gateway.pid())).exists()
    });
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(gateway.ended(), Some(1), "cut calls are no clean end");
    gone("sleep 4714.5");
}

#[test]
fn requests_that_wait_to_be_accepted_are_answered_before_the_end() {
    let mut gateway = Gateway::with("  cat:\n    fprocess: cat", &["--workers", "1"]);
    assert_eq!(post(gateway.address, "/function/cat", "x").status, 200);
    gateway.signal("STOP");
    let request = b"POST /function/cat HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    let waiting: Vec<_> = (0..10).map(|_| send(gateway.address, request)).collect();
    gateway.signal("TERM");
    gateway.signal("CONT");
    for stream in waiting {
        assert_eq!(read(stream, false).status, 200);
    }
    assert_eq!(gateway.ended(), Some(0));
}

/// A connection that is made, but not used before the gateway is told to end.
fn ended_before_the_first_request(between: impl FnOnce(&Gateway, &mut dyn FnMut())) {
    let mut gateway = Gateway::of("  cat:\n    fprocess: cat");
    assert_eq!(post(gateway.address, "/function/cat", "x").status, 200);
    let young = std::net::TcpStream::connect(gateway.address).unwrap();
    // Accepted: a later one was answered.
    assert_eq!(get(gateway.address, "/healthz").status, 200);
    gateway.signal("TERM");
    eventually("it is about to end", || gateway.log().contains("TERM"));
    let request = b"POST /function/cat HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx";
    between(&gateway, &mut || (&young).write_all(request).unwrap());
    let answer = read(young, false);
    assert_eq!((answer.status, answer.text().as_str()), (200, "x"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(gateway.ended(), Some(0));
}

#[test]
fn connections_made_before_the_end_get_an_answer_and_are_told_that_it_is_the_last() {
    ended_before_the_first_request(|_, send| send());
}

#[test]
fn a_request_that_comes_while_the_ending_gateway_is_held_up_is_answered() {
    ended_before_the_first_request(|gateway, send| {
        gateway.signal("STOP");
        send();
        // Longer than it lingers.
        std::thread::sleep(Duration::from_secs(1));
        gateway.signal("CONT");
    });
}

#[test]
fn a_gateway_that_is_killed_takes_its_functions_along() {
    let mut gateway = Gateway::of("  stay:\n    fprocess: sleep 4713.5");
    let stream = send(
        gateway.address,
        b"GET /function/stay HTTP/1.1\r\nHost: t\r\n\r\n",
    );
    eventually("the call runs", || !processes("sleep 4713.5").is_empty());
    let watchdogs = children(gateway.pid());
    gateway.signal("KILL");
    assert_eq!(gateway.ended(), None);
    drop(stream);
    gone("sleep 4713.5");
    eventually("no watchdog is left", || {
        watchdogs
            .iter()
            .all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    });
}

#[test]
fn a_changed_stack_file_is_applied_and_a_broken_one_is_not() {
    let gateway = Gateway::of("  one:\n    fprocess: echo first\n  same:\n    fprocess: cat");
    assert_eq!(get(gateway.address, "/function/one").text(), "first\n");
    let same = get(gateway.address, "/system/function/same").json();
    gateway.change(
        "  one:\n    fprocess: echo second\n  two:\n    fprocess: cat\n  same:\n    fprocess: cat",
    );
    eventually("the new function answers", || {
        post(gateway.address, "/function/two", "x").status == 200
    });
    eventually("the changed one too", || {
        get(gateway.address, "/function/one").text() == "second\n"
    });
    gateway.change("  one:\n    fprocess: nosuchcommand");
    gateway.logs("'nosuchcommand' was not found");
    assert_eq!(get(gateway.address, "/function/one").text(), "second\n");
    assert_eq!(
        get(gateway.address, "/system/function/same").json()["createdAt"],
        same["createdAt"]
    );
    gateway.change("  same:\n    fprocess: cat");
    eventually("what is gone is gone", || {
        get(gateway.address, "/function/one").status == 404
    });
    assert_eq!(post(gateway.address, "/function/same", "x").text(), "x");
}

#[test]
fn a_function_is_replaced_without_a_failed_call() {
    let gateway =
        Gateway::of("  f:\n    fprocess: sh -c \"cat; sleep 0.05\"\n    environment:\n      V: 0");
    let address = gateway.address;
    let (tell, told) = std::sync::mpsc::channel();
    // Calls until nobody listens any more.
    let caller =
        std::thread::spawn(
            move || while tell.send(post(address, "/function/f", "x").status).is_ok() {},
        );
    for version in ["1", "2", "3"] {
        gateway.change(&format!(
            "  f:\n    fprocess: sh -c \"cat; sleep 0.05\"\n    environment:\n      V: {version}"
        ));
        eventually("the new version is in force", || {
            get(address, "/system/function/f").json()["envVars"]["V"] == version
        });
        for status in told
            .try_iter()
            .collect::<Vec<_>>()
            .into_iter()
            .chain(told.iter().take(5))
        {
            assert_eq!(status, 200, "version {version}");
        }
    }
    drop(told);
    caller.join().unwrap();
}

#[test]
fn a_functions_log_is_shown_behind_its_name() {
    let gateway = Gateway::of(
        "  talk:\n    fprocess: sh -c \"echo to the log >&2\"\n    environment:\n      combine_output: 'false'",
    );
    assert_eq!(get(gateway.address, "/function/talk").status, 200);
    eventually("the line is shown", || {
        gateway
            .log()
            .lines()
            .any(|line| line.starts_with("talk | ") && line.contains("to the log"))
    });
}

#[test]
fn the_gateways_own_environment_is_not_the_functions() {
    let gateway = Gateway::of("  env:\n    fprocess: env\n    environment:\n      MINE: '1'");
    let env = get(gateway.address, "/function/env").text();
    assert!(env.contains("MINE=1\n") && env.contains("PATH="), "{env}");
    for ours in ["skep_", "CARGO", "DOCKER_HOST"] {
        assert!(
            !env.lines().any(|line| line.starts_with(ours)),
            "{ours} in {env}"
        );
    }
}

#[test]
fn local_watchdogs_have_no_metrics_port_to_fight_for() {
    let stack = "  env:\n    fprocess: env\n    environment:\n      metrics_port: '0'";
    let gateway = Gateway::of(stack);
    let env = get(gateway.address, "/function/env").text();
    assert!(env.contains("metrics_port=off\n"), "{env}");
    assert!(!gateway.log().contains("metrics port"), "{}", gateway.log());
}

#[test]
fn the_gateway_takes_all_the_descriptors_it_may_have_and_its_functions_do_not() {
    let gateway = Gateway::under("-Sn 100", "  limit:\n    fprocess: sh -c 'ulimit -Sn'");
    let held: Vec<_> = (0..300)
        .map(|_| TcpStream::connect(gateway.address).unwrap())
        .collect();
    assert_eq!(get(gateway.address, "/function/limit").text(), "100\n");
    eventually("all have been let in", || {
        gateway.metric("skep_connections") > 300.5
    });
    assert!(
        !gateway.log().contains("files may be open"),
        "there are enough"
    );
    drop(held);
    let narrow = Gateway::under("-n 500", "  cat:\n    fprocess: cat");
    narrow.logs("only 500 files may be open");
}

#[test]
fn accepts_that_fail_are_logged_now_and_then() {
    let gateway = Gateway::under("-n 100", "  cat:\n    fprocess: cat");
    assert_eq!(post(gateway.address, "/function/cat", "up").text(), "up");
    let held: Vec<_> = (0..150)
        .map(|_| TcpStream::connect(gateway.address).unwrap())
        .collect();
    gateway.logs("accept: ");
    // Twenty times a second each worker tries again.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(gateway.log().matches("accept: ").count(), 1);
    drop(held);
    eventually("connections are accepted again", || {
        try_get(gateway.address, "/healthz").is_some_and(|answer| answer.status == 200)
    });
}
