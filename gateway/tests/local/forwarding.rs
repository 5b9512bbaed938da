//! What crosses the gateway, field by field, seen by an upstream that shows what it was sent.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{get, raw, read, request, send};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn field<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let pairs = head.lines().filter_map(|line| line.split_once(": "));
    pairs
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn method_path_query_and_headers_arrive_as_they_were_sent() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::of(&upstream.entry("echo", ""));
    let headers = [
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("Authorization", "Bearer t"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Proxy", "evil"),
        ("X_Under", "1"),
    ];
    let answer = request(
        gateway.address,
        "PATCH",
        "/function/echo/a%2Fb/..//c?x=%20y",
        &headers,
        b"",
    );
    assert_eq!(answer.status, 200);
    let head = upstream.saw();
    assert!(
        head.starts_with("PATCH /a%2Fb/..//c?x=%20y HTTP/1.1\r\n"),
        "{head}"
    );
    assert_eq!(field(&head, "x-twice"), ["1", "2"]);
    assert_eq!(field(&head, "authorization"), ["Bearer t"]);
    assert_eq!(field(&head, "host"), ["test"], "the caller's own");
    for gone in ["x-hop", "proxy", "x_under", "connection"] {
        assert!(field(&head, gone).is_empty(), "{gone} in {head}");
    }
}

#[test]
fn ids_and_forwarding_headers_say_what_the_connection_shows() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::of(&upstream.entry("echo", ""));
    let lies = [
        ("X-Forwarded-For", "1.2.3.4"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil"),
        ("Forwarded", "for=1.2.3.4"),
    ];
    let answer = request(gateway.address, "GET", "/function/echo", &lies, b"");
    let head = upstream.saw();
    assert_eq!(field(&head, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(
        (
            field(&head, "x-forwarded-proto"),
            field(&head, "x-forwarded-host")
        ),
        (vec!["http"], vec!["test"])
    );
    assert!(field(&head, "forwarded").is_empty());
    assert_eq!(
        field(&head, "x-call-id"),
        [answer.header("x-call-id").unwrap()]
    );
    assert_eq!(
        field(&head, "x-start-time"),
        [answer.header("x-start-time").unwrap()]
    );
    assert!(answer.header("x-served-by").unwrap().starts_with("skep/"));

    let kept = request(
        gateway.address,
        "GET",
        "/function/echo",
        &[("X-Call-Id", "order-17")],
        b"",
    );
    assert_eq!(kept.header("x-call-id"), Some("order-17"));
    assert_eq!(field(&upstream.saw(), "x-call-id"), ["order-17"]);
    let replaced = request(
        gateway.address,
        "GET",
        "/function/echo",
        &[("X-Call-Id", "a b")],
        b"",
    );
    assert_eq!(replaced.header("x-call-id").unwrap().len(), 36);
    let error = get(gateway.address, "/function/nosuch");
    let id = error.header("x-call-id").unwrap().to_owned();
    assert!(error.text().contains(&id), "an error names its call");
}

#[test]
fn status_repeated_headers_and_framing_come_back() {
    let sized = Upstream::says(
        "HTTP/1.1 418 Odd\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nX-Skep-Not-Accepted: busy\r\nKeep-Alive: x\r\nLocation: /there\r\nContent-Length: 3\r\n\r\nabc",
    );
    let chunked = Upstream::says(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
    );
    let gateway = Gateway::of(&(sized.entry("sized", "") + &chunked.entry("chunked", "")));
    let answer = get(gateway.address, "/function/sized");
    assert_eq!(
        (
            answer.status,
            answer.text().as_str(),
            answer.header("content-length")
        ),
        (418, "abc", Some("3"))
    );
    let cookies: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(cookies, ["a", "b"]);
    assert!(
        answer.header("x-skep-not-accepted").is_none() && answer.header("keep-alive").is_none()
    );
    assert_eq!(
        answer.header("location"),
        Some("/there"),
        "redirects are the caller's business"
    );
    let head = request(gateway.address, "HEAD", "/function/sized", &[], b"");
    assert_eq!(
        (head.status, head.header("content-length")),
        (418, Some("3"))
    );
    let answer = get(gateway.address, "/function/chunked");
    assert_eq!(
        (answer.text().as_str(), answer.header("transfer-encoding")),
        ("abcdef", Some("chunked"))
    );
}

/// Reads a chunked body to its end, trailers too.
fn drain(stream: &mut std::net::TcpStream) -> String {
    let mut all = String::new();
    let mut byte = [0];
    while !(all.contains("0\r\n") && all.ends_with("\r\n\r\n"))
        && matches!(stream.read(&mut byte), Ok(1))
    {
        all.push(byte[0] as char);
    }
    all
}

/// One head, or one answer of five bytes, from a connection that stays open.
fn up_to(stream: &mut TcpStream, end: &[u8]) -> Option<String> {
    let mut all = Vec::new();
    while !all.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        all.push(byte[0]);
    }
    String::from_utf8(all).ok()
}

#[test]
fn an_answer_that_comes_early_costs_neither_side_its_connection() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    // Answers what it has not read, and reads it then.
    let upstream = Upstream::new(move |stream, head| {
        count.fetch_add(1, Ordering::Relaxed);
        let mut head = head.to_owned();
        loop {
            let early = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
            stream.write_all(early).unwrap();
            let mut body = vec![0; field(&head, "content-length")[0].parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            let Some(next) = up_to(stream, b"\r\n\r\n") else {
                return;
            };
            head = next;
        }
    });
    let gateway = Gateway::of(&upstream.entry("hasty", ""));
    let mut caller = TcpStream::connect(gateway.address).unwrap();
    let sizes = [3_000_000, 5, 300_000, 70_000, 1_000_000];
    for size in sizes {
        let head = format!(
            "POST /function/hasty HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\nbegin"
        );
        caller.write_all(head.as_bytes()).unwrap();
        let answer = up_to(&mut caller, b"early").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{size}: {answer}");
        caller.write_all(&vec![b'x'; size - 5]).unwrap();
    }
    // A call may come before the rest of the one before has gone out; not all of them.
    assert!(connections.load(Ordering::Relaxed) < sizes.len());
}

#[test]
fn chunked_bodies_and_declared_trailers_pass_both_ways() {
    let upstream = Upstream::new(|stream, _| {
        let body = drain(stream);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n{:x}\r\n{body}\r\n0\r\nX-Sum: 42\r\n\r\n",
            body.len()
        );
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let gateway = Gateway::of(&upstream.entry("sum", ""));
    let request = "POST /function/sum HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTE: trailers\r\nTrailer: X-In\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-In: 7\r\nX-Forwarded-For: 8\r\n\r\n";
    let answer = read(send(gateway.address, request.as_bytes()), false);
    assert_eq!(answer.status, 200);
    assert!(
        answer.text().contains("abc") && answer.text().to_lowercase().contains("x-in: 7"),
        "{}",
        answer.text()
    );
    assert!(
        !answer.text().to_lowercase().contains("x-forwarded-for"),
        "what was not declared is not passed on: {}",
        answer.text()
    );
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    let head = upstream.saw().to_lowercase();
    assert!(
        head.contains("trailer: x-in")
            && head.contains("te: trailers")
            && head.contains("transfer-encoding: chunked"),
        "{head}"
    );
}

#[test]
fn a_get_with_a_chunked_body_keeps_it() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let request = "GET /function/cat HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(
        raw(gateway.address, request.as_bytes()).unwrap().text(),
        "abc"
    );
}

#[test]
fn expect_is_answered_here_and_http_1_0_works() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::of(&(upstream.entry("echo", "") + "  cat:\n    fprocess: cat"));
    let expecting = "POST /function/cat HTTP/1.1\r\nHost: t\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(
        raw(gateway.address, expecting.as_bytes()).unwrap().text(),
        "hi"
    );
    let refused = "POST /function/nosuch HTTP/1.1\r\nHost: t\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut text = String::new();
    send(gateway.address, refused.as_bytes())
        .read_to_string(&mut text)
        .unwrap();
    assert!(
        text.starts_with("HTTP/1.1 404"),
        "a refusal comes before any 100: {text}"
    );
    let old = raw(gateway.address, b"GET /function/echo HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((old.status, old.text().as_str()), (200, "ok"));
    let head = upstream.saw();
    assert!(
        head.contains("HTTP/1.1\r\n") && field(&head, "host").len() == 1,
        "{head}"
    );
}

#[test]
fn the_first_piece_of_a_stream_arrives_while_the_function_still_writes() {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::new(move |stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n").unwrap();
        wait.lock().unwrap().recv().unwrap();
        stream.write_all(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n").unwrap();
    });
    let gateway = Gateway::of(&upstream.entry("events", ""));
    let mut stream = send(
        gateway.address,
        b"GET /function/events HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    );
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !String::from_utf8_lossy(&seen).contains("data: 1") {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0);
        seen.extend_from_slice(&buffer[..read]);
    }
    go_on.send(()).unwrap();
    stream.read_to_end(&mut seen).unwrap();
    assert!(String::from_utf8_lossy(&seen).contains("data: 2"));
}

#[test]
fn connections_to_the_function_are_kept_and_used_again() {
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = connections.clone();
    let upstream = Upstream::new(move |stream, _| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut buffer = [0; 4096];
        stream.write_all(OK.as_bytes()).unwrap();
        while matches!(stream.read(&mut buffer), Ok(1..)) {
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    let gateway = Gateway::with(&upstream.entry("kept", ""), &["--workers", "1"]);
    for _ in 0..50 {
        assert_eq!(get(gateway.address, "/function/kept").text(), "ok");
    }
    assert!(
        connections.load(std::sync::atomic::Ordering::SeqCst) <= 2,
        "{connections:?} connections for 50 calls"
    );
}
