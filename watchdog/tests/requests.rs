//! What a client sends: targets in raw bytes, heads and bodies that can be read in two ways, and clients that leave.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as its test does"
)]

mod support;

use std::io::{BufReader, Read, Write};
use std::time::{Duration, Instant};

use support::client::{Answer, Request, receive};
use support::{Watchdog, eventually, function, script};

fn send(watchdog: &Watchdog, bytes: &[u8]) -> Answer {
    let mut stream = watchdog.connect();
    stream.write_all(bytes).unwrap();
    receive(&mut BufReader::new(stream))
}

/// Refused with a sentence, and the connection is closed.
fn refused(watchdog: &Watchdog, bytes: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let mut stream = watchdog.connect();
    stream.write_all(bytes).unwrap();
    let mut source = BufReader::new(stream);
    let answer = receive(&mut source);
    assert_eq!(answer.status, status, "{shown:?}: {answer:?}");
    assert_eq!(
        answer.header("x-openfaas-internal"),
        "fwatchdog",
        "{shown:?}"
    );
    assert!(
        answer.text().ends_with('\n') && answer.text().len() > 10,
        "{answer:?}"
    );
    assert_eq!(source.read(&mut [0]).unwrap_or(0), 0, "{shown:?} closes");
}

#[test]
fn raw_characters_in_a_target_reach_the_command() {
    let watchdog = function("env").start();
    let answer = watchdog.get("/{a}<b>`|^\"?q={\"a\":1}");
    assert_eq!(
        answer.variable("Http_Path").as_deref(),
        Some("/{a}<b>`|^\"")
    );
    assert_eq!(
        answer.variable("Http_Query").as_deref(),
        Some("q={\"a\":1}")
    );
    let answer = send(&watchdog, b"GET /\xff%20?\xfe HTTP/1.1\r\nHost: h\r\n\r\n");
    let has = |line: &[u8]| {
        answer
            .body
            .split(|byte| *byte == b'\n')
            .any(|one| one == line)
    };
    assert!(
        has(b"Http_Path=/\xff ") && has(b"Http_Query=\xfe"),
        "{answer:?}"
    );
}

#[test]
fn heads_that_can_be_read_in_two_ways_are_refused_with_a_sentence() {
    for mode in ["classic", "streaming"] {
        let watchdog = function("cat").env("mode", mode).start();
        for target in [
            "/a#b",
            "/a\x01",
            "/a\x7f",
            "/a b",
            "/a\tb",
            "a",
            "http://a,b/",
            "http://u@h/",
            "http://h:x/",
        ] {
            refused(
                &watchdog,
                format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(),
                400,
            );
        }
        for field in [
            "Host: a,b",
            "Host: a:b",
            "Host: a:99999",
            "Host: u@a",
            "Content-Length: +1",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
        ] {
            refused(
                &watchdog,
                format!("POST / HTTP/1.1\r\n{field}\r\n\r\n").as_bytes(),
                400,
            );
        }
        let long = "x".repeat(70_000);
        refused(
            &watchdog,
            format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(),
            414,
        );
        let many = "A: b\r\n".repeat(101);
        refused(
            &watchdog,
            format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes(),
            431,
        );
        assert_eq!(watchdog.get("/").status, 200);
    }
}

#[test]
fn chunks_that_can_be_read_in_two_ways_are_refused() {
    let watchdog = function("cat").start();
    for body in [
        "1 0\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "5 ;ext\r\nabcde\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "0\r\nContent-Length: 1\r\n\r\n",
        "0\r\nHost: h\r\n\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        refused(&watchdog, format!("{head}{body}").as_bytes(), 400);
    }
    let whole = Request::bare("POST", "/")
        .header("Transfer-Encoding", "chunked")
        .raw_body("5;ext=1\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n");
    assert_eq!(watchdog.call(&whole).text(), "abcde");
}

#[test]
fn requests_sent_at_once_are_answered_in_their_order() {
    let watchdog = function("cat").start();
    let mut stream = watchdog.connect();
    let one = |body: &str| Request::post("/", body).bytes();
    let chunked = Request::bare("POST", "/")
        .header("Transfer-Encoding", "chunked")
        .raw_body("2\r\nbb\r\n0\r\n\r\n");
    let all = [one("a"), chunked.bytes(), one("cc"), one("d")].concat();
    stream.write_all(&all).unwrap();
    let mut source = BufReader::new(stream);
    for body in ["a", "bb", "cc", "d"] {
        assert_eq!(receive(&mut source).text(), body);
    }
}

#[test]
fn a_caller_who_leaves_is_noticed_behind_bytes_of_a_next_request() {
    for mode in ["classic", "streaming", "serializing"] {
        for behind in [1, 100_000] {
            let watchdog = script("echo x >> $TMPDIR/begun; exec sleep 30")
                .env("mode", mode)
                .env("exec_timeout", "0")
                .start();
            let mut stream = watchdog.connect();
            stream.write_all(&Request::get("/").bytes()).unwrap();
            watchdog.lines("begun", 1);
            stream.write_all(&vec![b'G'; behind]).unwrap();
            drop(stream);
            let began = Instant::now();
            eventually(&format!("the run is ended: {mode}, {behind} bytes"), || {
                let children = format!("/proc/{0}/task/{0}/children", watchdog.pid());
                let mut tasks = std::fs::read_to_string(children).unwrap_or_default();
                for task in std::fs::read_dir(format!("/proc/{}/task", watchdog.pid())).unwrap() {
                    let path = task.unwrap().path().join("children");
                    tasks += &std::fs::read_to_string(path).unwrap_or_default();
                }
                tasks.trim().is_empty()
            });
            assert!(began.elapsed() < Duration::from_secs(5), "{mode} {behind}");
        }
    }
}

#[test]
fn cookies_are_joined_as_cookies() {
    let request = Request::get("/")
        .header("Cookie", "a=1")
        .header("Cookie", "b=2, 3");
    let answer = function("env").start().call(&request);
    assert_eq!(
        answer.variable("Http_Cookie").as_deref(),
        Some("a=1; b=2, 3")
    );
}

#[test]
fn a_client_that_sends_its_head_slowly_meets_read_timeout() {
    let watchdog = function("cat").env("read_timeout", "500ms").start();
    let mut stream = watchdog.connect();
    let began = Instant::now();
    while stream.write_all(b"G").is_ok() {
        assert!(began.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_that_does_not_read_its_answer_meets_write_timeout() {
    let watchdog = script("echo $$ >> $TMPDIR/begun; exec cat /dev/zero")
        .env("write_timeout", "500ms")
        .start();
    let mut stream = watchdog.connect();
    stream.write_all(&Request::get("/").bytes()).unwrap();
    let pid = watchdog.lines("begun", 1).remove(0);
    let began = Instant::now();
    eventually("the run is ended", || !support::is_alive(&pid));
    assert!(began.elapsed() < Duration::from_secs(8));
}
