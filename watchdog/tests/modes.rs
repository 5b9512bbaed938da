//! The modes with one process per request that the classic watchdog does not have.

mod support;

use std::io::{BufReader, Read, Write};
use std::time::{Duration, Instant};

use support::client::{Request, receive};
use support::{bare, function, script};

#[test]
fn streaming_begins_with_the_first_byte_and_knows_any_verb() {
    let watchdog = script("echo first; until test -e $TMPDIR/go; do sleep 0.02; done; echo last")
        .env("mode", "streaming")
        .start();
    let mut stream = watchdog.connect();
    stream
        .write_all(
            &Request::bare("OPTIONS", "/")
                .header("TE", "trailers")
                .bytes(),
        )
        .unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 512];
    while !seen.ends_with(b"6\r\nfirst\n\r\n") {
        let count = stream.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..count]);
    }
    std::fs::write(watchdog.file("go"), "").unwrap();
    let answer = receive(&mut BufReader::new(seen.chain(&mut stream)));
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "first\nlast\n")
    );
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert!(answer.is_whole && answer.trailers.contains_key("x-duration-seconds"));
}

#[test]
fn streaming_says_a_failure_before_the_first_byte_and_breaks_off_after_it() {
    let failing = script("exit 3").env("mode", "streaming").start();
    let answer = failing.get("/");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (500, "exit status 3\n")
    );
    // Whether the exit is seen together with the output or after it must not matter.
    for pause in ["", "sleep 0.1;"] {
        let breaking = script(&format!("echo some; {pause} exit 3"))
            .env("mode", "streaming")
            .start();
        for _ in 0..20 {
            let answer = breaking.get("/");
            assert_eq!((answer.status, answer.is_whole), (200, false), "{answer:?}");
        }
    }
    let missing = function("/no/such/program")
        .env("mode", "streaming")
        .start();
    assert_eq!(missing.get("/").status, 500);
}

#[test]
fn each_mode_has_its_status_at_the_deadline() {
    for (mode, status) in [("streaming", 504), ("serializing", 500), ("classic", 408)] {
        let watchdog = function("sleep 30")
            .env("mode", mode)
            .env("exec_timeout", "200ms")
            .start();
        let began = Instant::now();
        let answer = watchdog.get("/");
        assert_eq!(answer.status, status, "{mode}");
        assert!(answer.text().contains("exec_timeout"), "{}", answer.text());
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    let late = script("echo some; sleep 30")
        .env("mode", "streaming")
        .env("exec_timeout", "200ms")
        .start();
    let answer = late.get("/");
    assert_eq!((answer.status, answer.is_whole), (200, false));
}

#[test]
fn serializing_holds_everything_back_until_the_status_is_known() {
    let watchdog = script("head -c 300000 /dev/zero; exit $(cat)")
        .env("mode", "serializing")
        .start();
    let answer = watchdog.post("0");
    assert_eq!((answer.status, answer.body.len()), (200, 300_000));
    assert_eq!(answer.header("content-length"), "300000");
    assert!(answer.header("x-duration-seconds").contains('.'));
    let answer = watchdog.post("4");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (500, "exit status 4\n"),
        "the output of a failed run is not shown"
    );
}

#[test]
fn the_head_is_in_the_environment_without_host_and_computed_length() {
    for mode in ["streaming", "serializing"] {
        let watchdog = function("env")
            .env("mode", mode)
            .env("cgi_headers", "false")
            .start();
        let answer = watchdog.call(&Request::get("/a%20b?q=1").header("X-One", "1"));
        let variable = |name: &str| answer.variable(name);
        assert_eq!(variable("Http_Path").as_deref(), Some("/a b"), "{mode}");
        assert_eq!(variable("Http_Query").as_deref(), Some("q=1"));
        assert_eq!(variable("Http_X_One").as_deref(), Some("1"));
        for absent in ["Http_Host", "Http_ContentLength", "Http_Content_Length"] {
            assert_eq!(variable(absent), None, "{mode}: {absent}");
        }
        let answer = watchdog.post("four");
        assert_eq!(answer.variable("Http_Content_Length").as_deref(), Some("4"));
        watchdog.logs(&format!("cgi_headers=false is not used in mode={mode}"));
    }
}

#[test]
fn stderr_is_apart_from_the_answer() {
    let watchdog = script("echo out; echo aside >&2")
        .env("mode", "serializing")
        .start();
    assert_eq!(watchdog.get("/").text(), "out\n");
    watchdog.logs(" stderr: aside\n");
    let plain = script("echo aside >&2; printf last >&2")
        .env("mode", "serializing")
        .env("prefix_logs", "f")
        .start();
    plain.get("/");
    plain.logs("\naside\nlast\n");
}

#[test]
fn what_is_not_offered_is_refused_by_name() {
    for (name, value) in [
        ("mode", "afterburn"),
        ("mode", "inproc"),
        ("jwt_auth", "1"),
        ("write_timeout", "0"),
    ] {
        let mut builder = bare().env("fprocess", "cat").env(name, value);
        if name != "mode" {
            builder = builder.env("mode", "streaming");
        }
        let (status, _, errors) = builder.run();
        assert_eq!(status.code(), Some(2), "{name}={value}");
        assert!(
            errors.contains(name) && errors.lines().count() == 1,
            "{errors}"
        );
    }
}
