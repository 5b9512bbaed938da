//! `mode=http` in front of servers that do as they like with HTTP.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as its test does"
)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use support::client::Request;
use support::{Watchdog, function};

/// A watchdog in front of a server of the test's own: its command only has to live.
fn before(
    answer: impl Fn(&mut TcpStream, usize) + Send + Sync + 'static,
) -> (Watchdog, Receiver<String>) {
    before_with(&[], answer)
}

fn before_with(
    settings: &[(&str, &str)],
    answer: impl Fn(&mut TcpStream, usize) + Send + Sync + 'static,
) -> (Watchdog, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, heads) = channel();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (tell, answer) = (tell.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                // The number of the request on its connection.
                for number in 0.. {
                    let head = head(&mut stream);
                    if head.is_empty() {
                        return;
                    }
                    // The test may have ended.
                    let _ = tell.send(head);
                    answer(&mut stream, number);
                }
            });
        }
    });
    let mut builder = function("sleep 1000")
        .env("mode", "http")
        .env("http_upstream_url", &url);
    for (name, value) in settings {
        builder = builder.env(name, value);
    }
    let watchdog = builder.start();
    watchdog.logs("fprocess accepts connections");
    (watchdog, heads)
}

fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

fn says(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn chunks_win_over_a_length_and_such_a_connection_is_not_used_again() {
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (watchdog, heads) = before(move |stream, number| {
        assert_eq!(number, 0, "the connection is used again");
        says(stream, both);
    });
    for _ in 0..3 {
        let answer = watchdog.get("/");
        assert_eq!(
            (answer.status, answer.text().as_str(), answer.is_whole),
            (200, "ok", true)
        );
        assert_eq!(answer.header("content-length"), "");
    }
    assert_eq!(heads.try_iter().count(), 3);
}

#[test]
fn a_kept_connection_that_the_server_closes_costs_no_idempotent_call() {
    let (watchdog, _heads) = before(|stream, number| match number {
        0 => says(stream, OK),
        _ => drop(stream.shutdown(std::net::Shutdown::Both)),
    });
    for _ in 0..50 {
        let answer = watchdog.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }
    let statuses: Vec<_> = (0..10).map(|_| watchdog.post("x").status).collect();
    assert!(
        statuses.contains(&200) && statuses.contains(&500),
        "{statuses:?}"
    );
}

#[test]
fn a_method_that_may_have_a_body_says_that_it_has_none() {
    let (watchdog, heads) = before(|stream, _| says(stream, OK));
    for (method, length) in [
        ("POST", true),
        ("PUT", true),
        ("PATCH", true),
        ("GET", false),
        ("DELETE", false),
    ] {
        assert_eq!(watchdog.call(&Request::bare(method, "/")).status, 200);
        let head = heads.recv().unwrap();
        assert_eq!(head.contains("\r\ncontent-length: 0\r\n"), length, "{head}");
    }
}

#[test]
fn the_host_of_an_absolute_target_counts_and_cookies_are_one_line() {
    let (watchdog, heads) = before(|stream, _| says(stream, OK));
    let request = Request::bare("GET", "http://right.example:81/a?b")
        .header("Cookie", "a=1")
        .header("Cookie", "b=2");
    assert_eq!(watchdog.call(&request).status, 200);
    let head = heads.recv().unwrap();
    assert!(head.starts_with("get /a?b http/1.1\r\n"), "{head}");
    assert!(
        head.contains("\r\nhost: right.example:81\r\n") && !head.contains("function"),
        "{head}"
    );
    assert!(head.contains("\r\ncookie: a=1; b=2\r\n"), "{head}");
}

#[test]
fn answers_with_hundreds_of_fields_pass() {
    let fields: String = (0..400)
        .map(|number| format!("X-{number}: {number}\r\n"))
        .collect();
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok");
    let (watchdog, _heads) = before(move |stream, _| says(stream, &text));
    let answer = watchdog.get("/");
    assert_eq!((answer.status, answer.header("x-399")), (200, "399"));
}

#[test]
fn a_stream_of_events_is_not_cut_by_the_limit_of_a_run() {
    for kind in ["text/event-stream", "application/x-ndjson"] {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let (watchdog, _heads) = before_with(&[("exec_timeout", "300ms")], move |stream, _| {
            says(stream, &head);
            for _ in 0..4 {
                says(stream, "2\r\nx\n\r\n");
                std::thread::sleep(Duration::from_millis(200));
            }
            says(stream, "0\r\n\r\n");
        });
        let answer = watchdog.get("/");
        assert_eq!(
            (answer.text().as_str(), answer.is_whole),
            ("x\nx\nx\nx\n", true),
            "{kind}"
        );
    }
}

#[test]
fn a_host_that_is_none_is_refused() {
    let (watchdog, heads) = before(|stream, _| says(stream, OK));
    for target in ["http://a,b/", "http://u@a/"] {
        assert_eq!(
            watchdog.call(&Request::bare("GET", target)).status,
            400,
            "{target}"
        );
    }
    for host in ["a,b", "a:b", "a:99999", "u@a"] {
        let mut stream = watchdog.connect();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("host"),
            "{host}: {answer}"
        );
    }
    assert!(heads.try_recv().is_err());
}
