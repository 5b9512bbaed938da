//! Lock file, health, readiness, and the limits that they and a connection have.

mod support;

use std::io::{BufReader, Read, Write};

use support::client::{Request, receive};
use support::{bare, eventually, function, script};

/// A command that answers once a file appears.
const WAITING: &str =
    "echo $$ >> $TMPDIR/up; while [ ! -e $TMPDIR/go ]; do sleep 0.02; done; echo done";

#[test]
fn a_running_watchdog_is_healthy_and_ready_and_says_who_it_is() {
    let watchdog = function("cat").start();
    for path in ["/_/health", "/_/ready"] {
        let answer = watchdog.get(path);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "OK"),
            "{path}"
        );
        assert_eq!(answer.header("x-skep-watchdog"), fwatchdog::VERSION);
        assert_eq!(
            watchdog.call(&Request::post(path, "")).status,
            405,
            "{path}"
        );
    }
    assert!(watchdog.log().lines().count() > 3 && !watchdog.log().contains("/_/health\n"));
}

#[test]
fn the_first_answer_of_a_connection_says_who_it_is_and_no_other_one() {
    let watchdog = script("echo hello").start();
    for _ in 0..2 {
        let mut connection = BufReader::new(watchdog.connect());
        for seen in [fwatchdog::VERSION, "", ""] {
            let request = Request::post("/", "").bytes();
            connection.get_mut().write_all(&request).unwrap();
            let answer = receive(&mut connection);
            assert_eq!(answer.text(), "hello\n");
            assert_eq!(answer.header("x-skep-watchdog"), seen);
        }
    }
}

#[test]
fn every_answer_about_health_says_who_it_is() {
    let modes = [
        bare().env("fprocess", "cat"),
        bare().env("fprocess", "cat").env("mode", "streaming"),
        bare().env("fprocess", "cat").env("mode", "serializing"),
        bare()
            .env("mode", "static")
            .env("static_path", "/nonexistent"),
        // Its child never accepts a connection.
        bare()
            .env("fprocess", "sleep 60")
            .env("mode", "http")
            .env("http_upstream_url", "http://127.0.0.1:1"),
    ];
    for builder in modes {
        let watchdog = builder.start();
        for path in ["/_/health", "/_/ready", "/_/health?a=b"] {
            for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
                let answer = watchdog.call(&Request::bare(method, path));
                let seen = (path, method, answer.status);
                assert_eq!(
                    answer.header("x-skep-watchdog"),
                    fwatchdog::VERSION,
                    "{seen:?}"
                );
                assert_eq!(answer.status == 405, method != "GET", "{seen:?}");
            }
        }
        std::fs::remove_file(watchdog.file(".lock")).unwrap();
        for path in ["/_/health", "/_/ready"] {
            let answer = watchdog.get(path);
            assert_eq!(
                (answer.status, answer.header("x-skep-watchdog")),
                (503, fwatchdog::VERSION)
            );
        }
    }
}

#[test]
fn the_lock_file_is_there_and_counts() {
    let watchdog = function("cat").start();
    let lock = watchdog.file(".lock");
    assert_eq!(std::fs::metadata(&lock).unwrap().len(), 0);
    std::fs::remove_file(&lock).unwrap();
    for path in ["/_/health", "/_/ready"] {
        let answer = watchdog.get(path);
        assert_eq!(
            (answer.status, answer.header("x-skep-watchdog")),
            (503, fwatchdog::VERSION),
            "{path}"
        );
    }
    assert_eq!(watchdog.post("calls go on").status, 200);
    std::fs::write(&lock, "").unwrap();
    assert_eq!(watchdog.get("/_/health").status, 200);
}

#[test]
fn without_a_lock_file_the_state_alone_counts() {
    let watchdog = function("cat").env("suppress_lock", "true").start();
    assert!(!watchdog.file(".lock").exists());
    assert_eq!(watchdog.get("/_/health").status, 200);
    let unwritable = function("cat")
        .env("TMPDIR", "/nonexistent/directory")
        .start();
    assert_eq!(unwritable.get("/_/health").status, 200);
    assert_eq!(unwritable.log().matches("warning: no lock file").count(), 1);
}

#[test]
fn the_lock_directory_can_be_set_apart_from_tmpdir() {
    let builder = function("env");
    let directory = builder.directory().join("locks");
    std::fs::create_dir(&directory).unwrap();
    let watchdog = builder
        .env("skep_lock_dir", directory.to_str().unwrap())
        .start();
    assert!(directory.join(".lock").exists() && !watchdog.file(".lock").exists());
    assert!(!watchdog.get("/").text().contains("skep_lock_dir"));
}

#[test]
fn run_healthcheck_looks_for_the_lock_file_and_needs_no_configuration() {
    let watchdog = function("cat").start();
    let lock = watchdog.file(".lock");
    for flag in ["-run-healthcheck", "--run-healthcheck"] {
        let (status, output, errors) = bare()
            .env("TMPDIR", lock.parent().unwrap().to_str().unwrap())
            .arg(flag)
            .run();
        assert_eq!(
            (status.code(), output.as_str(), errors.as_str()),
            (Some(0), "", "")
        );
        let (status, _, errors) = bare().arg(flag).run();
        assert_eq!(
            (status.code(), errors.lines().count()),
            (Some(1), 1),
            "{errors}"
        );
    }
}

#[test]
fn max_inflight_refuses_further_calls_as_not_accepted() {
    let watchdog = script(WAITING).env("max_inflight", "1").start();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| watchdog.get("/"));
        watchdog.lines("up", 1);
        let answer = watchdog.get("/");
        assert_eq!(
            (answer.status, answer.header("x-skep-not-accepted")),
            (429, "busy")
        );
        assert_eq!(
            (
                answer.header("x-openfaas-internal"),
                answer.header("content-type")
            ),
            ("fwatchdog", "text/plain; charset=utf-8")
        );
        assert!(answer.text().contains("max_inflight"), "{}", answer.text());
        assert_eq!(
            watchdog.call(&Request::bare("OPTIONS", "/")).status,
            429,
            "the limit comes before the verb"
        );
        let ready = watchdog.get("/_/ready");
        assert_eq!(
            (ready.status, ready.header("x-skep-watchdog")),
            (429, fwatchdog::VERSION)
        );
        assert_eq!(watchdog.get("/_/health").status, 200);
        std::fs::write(watchdog.file("go"), "").unwrap();
        assert_eq!(first.join().unwrap().status, 200);
    });
    assert_eq!(watchdog.get("/").status, 200);
    assert_eq!(watchdog.get("/_/ready").status, 200);
}

#[test]
fn a_busy_watchdog_refuses_a_large_body_so_that_the_client_can_read_why() {
    let watchdog = script(WAITING).env("max_inflight", "1").start();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| watchdog.get("/"));
        watchdog.lines("up", 1);
        let mut stream = watchdog.connect();
        stream
            .write_all(&Request::post("/", vec![b'x'; 4 << 20]).bytes())
            .unwrap();
        assert_eq!(receive(&mut BufReader::new(&mut stream)).status, 429);
        std::fs::write(watchdog.file("go"), "").unwrap();
        assert_eq!(first.join().unwrap().status, 200);
    });
}

#[test]
fn idle_connections_outlive_a_short_read_timeout() {
    let watchdog = function("cat").env("read_timeout", "200ms").start();
    let mut idle = watchdog.connect();
    idle.write_all(&Request::post("/", "one").bytes()).unwrap();
    assert_eq!(receive(&mut BufReader::new(&mut idle)).text(), "one");
    // A head that begins and does not go on is what the limit is for; when that one has been closed, the idle
    // connection, which is older, has outlived it.
    let mut slow = watchdog.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
    assert_eq!(slow.read(&mut [0; 16]).unwrap(), 0);
    idle.write_all(&Request::post("/", "two").bytes()).unwrap();
    assert_eq!(receive(&mut BufReader::new(&mut idle)).text(), "two");
}

#[test]
fn a_slow_body_is_408_and_names_read_timeout() {
    let watchdog = script("echo $$ > $TMPDIR/up; cat")
        .env("read_timeout", "300ms")
        .start();
    let mut stream = watchdog.connect();
    let request = Request::bare("POST", "/")
        .header("Content-Length", "10")
        .raw_body("half");
    stream.write_all(&request.bytes()).unwrap();
    let answer = receive(&mut BufReader::new(stream));
    assert_eq!(
        (answer.status, answer.header("x-openfaas-internal")),
        (408, "fwatchdog")
    );
    assert!(answer.text().contains("read_timeout"), "{}", answer.text());
    let pid = watchdog.lines("up", 1);
    eventually("the run is ended", || !support::is_alive(&pid[0]));
}

#[test]
fn no_answer_within_write_timeout_is_504_and_names_it() {
    let watchdog = script("echo $$ > $TMPDIR/up; sleep 100")
        .env("write_timeout", "300ms")
        .start();
    let answer = watchdog.get("/");
    assert_eq!(
        (answer.status, answer.header("x-openfaas-internal")),
        (504, "fwatchdog")
    );
    assert!(answer.text().contains("write_timeout"), "{}", answer.text());
    let pid = watchdog.lines("up", 1);
    eventually("the run is ended", || !support::is_alive(&pid[0]));
}

#[test]
fn a_pause_longer_than_write_timeout_breaks_an_answer_that_has_begun() {
    let watchdog = script("head -c 100000 /dev/zero; sleep 100")
        .env("write_timeout", "300ms")
        .start();
    let answer = watchdog.get("/");
    assert_eq!((answer.status, answer.is_whole), (200, false));
}

#[test]
fn a_client_that_reads_nothing_does_not_hold_its_run_for_ever() {
    let watchdog = script("echo $$ > $TMPDIR/up; exec cat /dev/zero")
        .env("write_timeout", "300ms")
        .start();
    let mut stream = watchdog.connect();
    stream.write_all(&Request::get("/").bytes()).unwrap();
    let pid = watchdog.lines("up", 1);
    eventually("the run is ended", || !support::is_alive(&pid[0]));
}
