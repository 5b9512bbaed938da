//! What callers may take of the gateway and of a function, and what they are told past that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::support::client::{get, post, raw, send};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

fn chunked(name: &str, bytes: usize) -> Vec<u8> {
    let head = format!(
        "POST /function/{name} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{bytes:x}\r\n"
    );
    let body = vec![b'x'; bytes];
    [head.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()
}

#[test]
fn a_body_past_the_limit_is_413_and_nothing_is_forwarded_where_its_length_is_known() {
    let upstream = Upstream::new(|stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let small = upstream.entry("small", "    labels:\n      skep.max-body: 1Ki");
    let cats = "  cat:\n    fprocess: cat\n  large:\n    fprocess: cat\n    labels:\n      skep.max-body: 1Mi";
    let gateway = Gateway::with(&(small + cats), &["--max-body", "4Ki"]);
    let answer = post(gateway.address, "/function/small", vec![0; 1025]);
    assert_eq!(answer.status, 413);
    assert!(
        answer.text().contains("more than 1 KiB") && answer.text().contains("skep.max-body"),
        "{}",
        answer.text()
    );
    let expecting = b"POST /function/small HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n";
    let mut told = String::new();
    send(gateway.address, expecting)
        .read_to_string(&mut told)
        .unwrap();
    assert!(told.starts_with("HTTP/1.1 413 "), "before any 100: {told}");
    assert!(upstream.saw_nothing());
    for (name, bytes, status) in [
        ("small", 5000, 413),
        ("cat", 4097, 413),
        ("cat", 4096, 200),
        ("large", 1 << 20, 200),
        ("large", (1 << 20) + 1, 413),
    ] {
        let answer = raw(gateway.address, &chunked(name, bytes)).expect("an answer");
        assert_eq!(answer.status, status, "{name} {bytes}: {}", answer.text());
    }
}

#[test]
fn a_caller_that_does_not_send_its_body_is_408_and_the_function_is_not_blamed() {
    let gateway = Gateway::with("  cat:\n    fprocess: cat", &["--upstream-timeout", "1s"]);
    let part = b"POST /function/cat HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nonly this";
    let began = Instant::now();
    let answer = raw(gateway.address, part).unwrap();
    assert_eq!(answer.status, 408, "{}", answer.text());
    assert!(
        answer.text().contains("did not arrive within 1s"),
        "{}",
        answer.text()
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(post(gateway.address, "/function/cat", "x").text(), "x");
}

#[test]
fn a_caller_that_does_not_read_is_cut_off() {
    let upstream = Upstream::new(|stream, _| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
        let piece = [b"10000\r\n".as_slice(), &vec![b'x'; 0x10000], b"\r\n"].concat();
        while stream.write_all(&piece).is_ok() {}
    });
    let gateway = Gateway::with(&upstream.entry("endless", ""), &["--write-timeout", "2s"]);
    let mut deaf = TcpStream::connect(gateway.address).unwrap();
    deaf.write_all(b"GET /function/endless HTTP/1.1\r\nHost: t\r\n\r\n")
        .unwrap();
    let in_flight = "skep_in_flight{function_name=\"endless\"}";
    eventually("the call runs", || gateway.metric(in_flight) > 0.5);
    within(Duration::from_secs(30), "the call ends", || {
        gateway.metric(in_flight) < 0.5
    });
    drop(deaf);
}

#[test]
fn a_caller_that_reads_slowly_is_not_cut_off() {
    let upstream = Upstream::new(|stream, _| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 12 << 20);
        stream.write_all(head.as_bytes()).unwrap();
        let _ = stream.write_all(&vec![b'x'; 12 << 20]);
    });
    let gateway = Gateway::with(&upstream.entry("large", ""), &["--write-timeout", "1s"]);
    let mut slow = TcpStream::connect(gateway.address).unwrap();
    slow.write_all(b"GET /function/large HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        read += slow.read(&mut buffer[..1 << 18]).unwrap();
        std::thread::sleep(Duration::from_millis(250));
    }
    while let more @ 1.. = slow.read(&mut buffer).unwrap() {
        read += more;
    }
    assert!(read > 12 << 20, "{read}");
}

/// Calls `count` times at once, and says how often each status came, with the answer's `Retry-After`.
fn statuses(gateway: &Gateway, path: &'static str, count: usize) -> Vec<(u16, Option<String>)> {
    let address = gateway.address;
    let calls: Vec<_> = (0..count)
        .map(|_| std::thread::spawn(move || get(address, path)))
        .collect();
    let answers = calls.into_iter().map(|call| call.join().unwrap());
    let seen = answers.map(|answer| {
        let again = answer.header("retry-after").map(str::to_owned);
        (answer.status, again)
    });
    seen.collect()
}

/// A server that answers when told to.
fn held() -> (Upstream, impl Fn()) {
    let (go_on, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::new(move |stream, _| {
        wait.lock().unwrap().recv().unwrap();
        stream.write_all(OK).unwrap();
    });
    (upstream, move || go_on.send(()).unwrap())
}

#[test]
fn calls_past_a_functions_limit_wait_and_past_its_queue_they_are_429() {
    let (upstream, let_one_go) = held();
    let entry = upstream.entry("narrow", "    labels:\n      skep.max-in-flight: 2");
    // Whoever waits does so for longer than it takes to see it.
    let gateway = Gateway::with(
        &(entry + "  cat:\n    fprocess: cat"),
        &["--patience", "60s"],
    );
    std::thread::scope(|scope| {
        let calls = scope.spawn(|| statuses(&gateway, "/function/narrow", 7));
        let refused = "gateway_function_invocation_total{code=\"429\",function_name=\"narrow\"}";
        eventually("two run, two wait, three are sent away", || {
            (gateway.metric(refused) - 3.0).abs() < f64::EPSILON
        });
        assert_eq!(post(gateway.address, "/function/cat", "x").text(), "x");
        (0..4).for_each(|_| let_one_go());
        let mut seen = calls.join().unwrap();
        seen.sort();
        let (fine, sent_away) = seen.split_at(4);
        assert!(fine.iter().all(|(status, _)| *status == 200), "{seen:?}");
        let expected = (429, Some("1".to_owned()));
        assert!(sent_away.iter().all(|one| *one == expected), "{seen:?}");
    });
}

#[test]
fn calls_past_the_gateways_limit_wait_and_past_its_queue_they_are_503() {
    let (upstream, let_one_go) = held();
    let gateway = Gateway::with(
        &upstream.entry("held", ""),
        &["--max-in-flight", "1", "--patience", "30s"],
    );
    std::thread::scope(|scope| {
        let calls = scope.spawn(|| statuses(&gateway, "/function/held", 3));
        let refused = "gateway_function_invocation_total{code=\"503\",function_name=\"held\"}";
        eventually("one is sent away", || gateway.metric(refused) > 0.5);
        (0..2).for_each(|_| let_one_go());
        let mut seen = calls.join().unwrap();
        seen.sort();
        let expected = [(200, None), (200, None), (503, Some("1".to_owned()))];
        assert_eq!(seen, expected);
    });
}

#[test]
fn the_time_in_line_is_part_of_a_calls_time() {
    let (upstream, let_one_go) = held();
    let labels = "    labels:\n      skep.max-in-flight: 1\n      skep.timeout: 1s";
    let gateway = Gateway::with(&upstream.entry("narrow", labels), &["--patience", "60s"]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| get(gateway.address, "/function/narrow"));
        let in_flight = "skep_in_flight{function_name=\"narrow\"}";
        eventually("one runs", || gateway.metric(in_flight) > 0.5);
        // It is let in when the first one has run into its limit, with no time left.
        let began = Instant::now();
        let second = get(gateway.address, "/function/narrow");
        let took = began.elapsed();
        assert_eq!(second.status, 504, "{}", second.text());
        assert!(took < Duration::from_millis(1800), "{took:?}");
        let says = second.text();
        assert!(
            says.contains("within 1s") && says.contains("in line"),
            "{says}"
        );
        assert_eq!(first.join().unwrap().status, 504);
    });
    (0..2).for_each(|_| let_one_go());
}

#[test]
fn one_connection_too_many_is_turned_away_and_the_next_one_finds_room() {
    let gateway = Gateway::with(
        "  cat:\n    fprocess: cat",
        &["--max-connections", "3", "--metrics-port", "0"],
    );
    let metrics = gateway.port_for("metrics and health");
    let shows = |line: &str| get(metrics, "/metrics").text().contains(line);
    let mut kept: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(gateway.address).unwrap())
        .collect();
    eventually("all are counted", || shows("skep_connections 3"));
    let mut told = String::new();
    let mut fourth = TcpStream::connect(gateway.address).unwrap();
    fourth.read_to_string(&mut told).unwrap();
    assert!(
        told.starts_with("HTTP/1.1 503 ") && told.contains("Retry-After: 1"),
        "{told}"
    );
    assert!(shows("skep_refused_total{reason=\"connections\"} 1"));
    kept.pop();
    eventually("there is room", || shows("skep_connections 2"));
    assert_eq!(post(gateway.address, "/function/cat", "x").text(), "x");
}
