//! Waits that a peer controls, each with the limit that ends it: docs/reliability.md has the table of all of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{Answer, get, post, read};
use crate::support::frames::{
    self, Client, DATA, END_HEADERS, END_STREAM, HEADERS, STATUS_200, WHOLE, frame, h2c_entry,
    post_to, window,
};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

const INITIAL_WINDOW: u16 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const CANCEL: u32 = 8;

const SIZED: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";

fn sum(gateway: &Gateway, name: &str, code: u16) -> f64 {
    gateway.metric(&format!(
        "gateway_function_invocation_total{{code=\"{code}\",function_name=\"{name}\"}}"
    ))
}

#[test]
fn streams_with_a_shut_window_are_reset_and_give_their_places_back() {
    let (sized, chunked) = (Upstream::says(SIZED), Upstream::says(CHUNKED));
    let functions = sized.entry("sized", "") + &chunked.entry("chunked", "");
    let gateway = Gateway::with(
        &functions,
        &["--max-in-flight", "20", "--write-timeout", "1500ms"],
    );
    // One that takes nothing, and one that takes a byte and stops there.
    for (room, taken) in [(0, ""), (1, "o")] {
        let mut client = Client::new(gateway.address, &[(INITIAL_WINDOW, room)]);
        let since = Instant::now();
        for n in 0..20 {
            let path = ["/function/sized", "/function/chunked"][n as usize % 2];
            client.send(&frame(HEADERS, WHOLE, 2 * n + 1, &post_to(path, &[])));
        }
        // A shut window of the client's own is no answer to it, but its pings are answered.
        client.send(&frame(frames::PING, 0, 0, &[7; 8]));
        let mut resets = 0;
        let mut data = Vec::new();
        while resets < 20 {
            let frame = client.next().expect("the connection stays");
            match frame.kind {
                frames::RST_STREAM => {
                    assert_eq!(frame.payload, CANCEL.to_be_bytes(), "{room}");
                    resets += 1;
                }
                DATA => data.extend_from_slice(&frame.payload),
                _ => assert_eq!(frame.flags & END_STREAM, 0, "{room}"),
            }
        }
        let took = since.elapsed();
        assert!(took > Duration::from_millis(1400), "{room}: {took:?}");
        assert_eq!(data, taken.repeat(20).as_bytes());
        // The connection itself goes on.
        client.send(
            &[
                frame(HEADERS, WHOLE, 99, &post_to("/function/sized", &[])),
                window(99, 9),
            ]
            .concat(),
        );
        assert_eq!(client.end_of(99).unwrap(), (b"ok".to_vec(), None));
    }
    eventually("all places are free", || {
        gateway.metric("skep_in_flight{function_name=\"sized\"}") < 0.5
            && gateway.metric("skep_in_flight{function_name=\"chunked\"}") < 0.5
    });
}

#[test]
fn one_connection_of_shut_windows_locks_nobody_out_for_longer_than_the_write_limit() {
    let gateway = Gateway::with(
        "  cat:\n    fprocess: head -c 100000 /dev/zero\n    environment:\n      mode: streaming",
        &[
            "--max-in-flight",
            "20",
            "--write-timeout",
            "2s",
            "--patience",
            "20s",
            "--log-level",
            "debug",
        ],
    );
    let mut client = Client::new(gateway.address, &[(INITIAL_WINDOW, 0)]);
    for n in 0..20 {
        client.send(&frame(HEADERS, WHOLE, 2 * n + 1, &frames::get_cat()));
    }
    within(Duration::from_secs(10), "all places are taken", || {
        gateway.metric("skep_in_flight{function_name=\"cat\"}") > 19.5
    });
    let since = Instant::now();
    let answer = get(gateway.address, "/function/cat");
    assert_eq!((answer.status, answer.body.len()), (200, 100_000));
    assert!(since.elapsed() < Duration::from_secs(8), "{since:?}");
    eventually("they are counted as their caller's", || {
        (sum(&gateway, "cat", 499) - 20.0).abs() < 0.5
    });
    assert!(gateway.metric("skep_broken_answers_total{function_name=\"cat\"}") < 0.5);
    gateway.logs("the client took nothing of its answer for 2s");
}

#[test]
fn a_stream_that_is_read_byte_by_byte_goes_on() {
    let upstream = Upstream::says("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nslowly");
    let gateway = Gateway::with(&upstream.entry("f", ""), &["--write-timeout", "1s"]);
    let mut client = Client::new(gateway.address, &[(INITIAL_WINDOW, 0)]);
    client.send(&frame(HEADERS, WHOLE, 1, &post_to("/function/f", &[])));
    let mut sender = client.0.try_clone().unwrap();
    std::thread::spawn(move || {
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(400));
            sender.write_all(&window(1, 1)).unwrap();
        }
    });
    assert_eq!(client.end_of(1).unwrap(), (b"slowly".to_vec(), None));
}

/// Sends a byte now and then, for as long as it is taken.
fn drip(mut to: TcpStream, bytes: impl Fn() -> Vec<u8> + Send + 'static) -> Arc<AtomicBool> {
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    std::thread::spawn(move || {
        while to.write_all(&bytes()).is_ok() && !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
    });
    is_over
}

/// Functions that answer at once and go on reading: over HTTP/1.1, and over HTTP/2.
fn hasty() -> (Upstream, SocketAddr) {
    let one = Upstream::new(|stream, head| {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer.as_bytes()).unwrap();
        if !head.starts_with("GET") {
            let _ = std::io::copy(stream, &mut std::io::sink());
        }
    });
    let two = frames::server(&[], |stream, asked| {
        let answer = [
            frame(HEADERS, END_HEADERS, asked.stream, STATUS_200),
            frame(DATA, END_STREAM, asked.stream, b"ok"),
        ];
        if asked.kind == HEADERS {
            stream.write_all(&answer.concat()).unwrap();
        }
    });
    (one, two)
}

#[test]
fn an_upload_that_outlasts_its_answer_keeps_its_place_and_ends_in_time() {
    let (one, two) = hasty();
    let labels = [("skep.idle-timeout", "1500ms"), ("skep.max-in-flight", "1")];
    let written: String = labels
        .iter()
        .map(|(label, value)| format!("      {label}: \"{value}\"\n"))
        .collect();
    let functions =
        one.entry("one", &format!("    labels:\n{written}")) + &h2c_entry("two", two, &labels);
    let gateway = Gateway::of(&functions);
    let place_is_free_after = |name: &str, since: Instant| {
        assert_eq!(
            get(gateway.address, &format!("/function/{name}")).status,
            200
        );
        since.elapsed()
    };
    for name in ["one", "two"] {
        // From a client of HTTP/1.1 ...
        let mut caller = TcpStream::connect(gateway.address).unwrap();
        let head = format!(
            "POST /function/{name} HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\nx"
        );
        caller.write_all(head.as_bytes()).unwrap();
        let since = Instant::now();
        let is_over = drip(caller.try_clone().unwrap(), || b"x".to_vec());
        let mut answer = vec![0; 4096];
        let read = caller.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 "), "{name}");
        let took = place_is_free_after(name, since);
        assert!(
            took > Duration::from_secs(1),
            "{name}: its place is kept: {took:?}"
        );
        assert!(took < Duration::from_secs(6), "{name}: {took:?}");
        is_over.store(true, Ordering::Relaxed);
        drop(caller);
        // ... and of HTTP/2.
        let mut caller = Client::new(gateway.address, &[]);
        let path = format!("/function/{name}");
        caller.send(&frame(HEADERS, END_HEADERS, 1, &post_to(&path, &[])));
        let since = Instant::now();
        let is_over = drip(caller.0.try_clone().unwrap(), || frame(DATA, 0, 1, b"x"));
        assert_eq!(caller.end_of(1).unwrap(), (b"ok".to_vec(), None), "{name}");
        let took = place_is_free_after(name, since);
        assert!(
            took > Duration::from_secs(1),
            "{name}: its place is kept: {took:?}"
        );
        assert!(took < Duration::from_secs(6), "{name}: {took:?}");
        // The client is asked to send no more: NO_ERROR, the answer was whole.
        assert_eq!(caller.end_of(1).unwrap().1, Some(0), "{name}");
        is_over.store(true, Ordering::Relaxed);
    }
    assert!(gateway.metric("skep_broken_answers_total{function_name=\"one\"}") < 0.5);
    assert!(gateway.metric("skep_broken_answers_total{function_name=\"two\"}") < 0.5);
}

/// Begins to answer at the head of the request; ends the answer at the end of the request.
fn patient() -> (Upstream, SocketAddr) {
    let one = Upstream::new(|stream, _| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut body = Vec::new();
        let mut byte = [0];
        while !body.ends_with(b"0\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            body.push(byte[0]);
        }
        let _ = stream.write_all(b"3\r\nend\r\n0\r\n\r\n");
    });
    let two = frames::server(&[], |stream, asked| {
        let begin = [
            frame(HEADERS, END_HEADERS, asked.stream, STATUS_200),
            frame(DATA, 0, asked.stream, b"."),
        ];
        if asked.kind == HEADERS {
            stream.write_all(&begin.concat()).unwrap();
        }
        if asked.flags & END_STREAM != 0 {
            stream
                .write_all(&frame(DATA, END_STREAM, asked.stream, b"end"))
                .unwrap();
        }
    });
    (one, two)
}

#[test]
fn an_answer_waits_for_as_long_as_its_request_flows_and_no_longer() {
    let (one, two) = patient();
    let functions = one.entry("one", "") + &h2c_entry("two", two, &[]);
    let gateway = Gateway::with(&functions, &["--idle-timeout", "1s"]);
    for name in ["one", "two"] {
        let begin = || {
            let mut caller = TcpStream::connect(gateway.address).unwrap();
            let head = format!(
                "POST /function/{name} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            );
            caller.write_all(head.as_bytes()).unwrap();
            caller
        };
        let mut caller = begin();
        for _ in 0..6 {
            caller.write_all(b"1\r\nx\r\n").unwrap();
            std::thread::sleep(Duration::from_millis(400));
        }
        caller.write_all(b"0\r\n\r\n").unwrap();
        let answer = read(caller, false);
        assert!(answer.complete, "{name}: {answer:?}");
        assert_eq!(answer.text(), ".end", "{name}");
        let since = Instant::now();
        let mut caller = begin();
        caller.write_all(b"1\r\nx\r\n").unwrap();
        let answer = read(caller, false);
        assert!(!answer.complete, "{name}: {answer:?}");
        let took = since.elapsed();
        assert!(took > Duration::from_millis(900), "{name}: {took:?}");
        assert!(took < Duration::from_secs(5), "{name}: {took:?}");
    }
}

#[test]
fn a_caller_that_breaks_off_its_request_beside_the_answer_is_not_the_functions_fault() {
    let (one, two) = patient();
    let functions = one.entry("one", "") + &h2c_entry("two", two, &[]);
    let gateway = Gateway::of(&functions);
    for name in ["one", "two"] {
        // It leaves, or what it sends is no chunk.
        for last in ["", "no chunk\r\n"] {
            let mut caller = TcpStream::connect(gateway.address).unwrap();
            let request = format!(
                "POST /function/{name} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
            );
            caller.write_all(request.as_bytes()).unwrap();
            let mut answer = vec![0; 4096];
            let read = caller.read(&mut answer).unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200 "), "{name}");
            caller.write_all(last.as_bytes()).unwrap();
            if last.is_empty() {
                drop(caller);
            } else {
                let _ = caller.read_to_end(&mut answer);
            }
        }
        // By a reset of its stream.
        let mut caller = Client::new(gateway.address, &[]);
        let path = format!("/function/{name}");
        caller.send(&frame(HEADERS, END_HEADERS, 1, &post_to(&path, &[])));
        while caller.next().unwrap().kind != DATA {}
        caller.send(&frames::reset(1, CANCEL));
        eventually("each is counted as its caller's", || {
            (sum(&gateway, name, 499) - 3.0).abs() < 0.5
        });
        let broken = format!("skep_broken_answers_total{{function_name=\"{name}\"}}");
        assert!(gateway.metric(&broken) < 0.5, "{name}");
    }
    assert!(!gateway.log().contains("WARN"), "{}", gateway.log());
}

#[test]
fn a_function_over_http_2_that_takes_no_request_or_no_body_is_504_in_time() {
    let silent = frames::server(&[(MAX_CONCURRENT_STREAMS, 0)], |_, _| {});
    let shut = frames::server(&[(INITIAL_WINDOW, 0)], |_, _| {});
    let functions = h2c_entry("silent", silent, &[]) + &h2c_entry("shut", shut, &[]);
    let gateway = Gateway::with(
        &functions,
        &["--upstream-timeout", "1s", "--max-in-flight", "1"],
    );
    for name in ["silent", "shut"] {
        for _ in 0..2 {
            let since = Instant::now();
            let body = [b'x'; 1000];
            let path = format!("/function/{name}");
            let answer = post(gateway.address, &path, body);
            assert_eq!(answer.status, 504, "{name}: {}", answer.text());
            let took = since.elapsed();
            assert!(took < Duration::from_secs(4), "{name}: {took:?}");
        }
    }
}

#[test]
fn a_function_over_http_2_that_stops_taking_the_body_breaks_its_answer_off_in_time() {
    let shut = frames::server(&[(INITIAL_WINDOW, 0)], |stream, asked| {
        if asked.kind == HEADERS {
            let head = frame(HEADERS, END_HEADERS, asked.stream, STATUS_200);
            stream.write_all(&head).unwrap();
        }
    });
    let gateway = Gateway::with(&h2c_entry("shut", shut, &[]), &["--idle-timeout", "1s"]);
    let since = Instant::now();
    let answer = post(gateway.address, "/function/shut", [b'x'; 1000]);
    assert!(answer.status == 200 && !answer.complete, "{answer:?}");
    assert!(since.elapsed() < Duration::from_secs(5), "{since:?}");
    eventually("it is over", || {
        gateway.metric("skep_in_flight{function_name=\"shut\"}") < 0.5
    });
}

#[test]
fn a_function_that_sends_its_head_byte_by_byte_is_504_in_time() {
    let upstream = Upstream::new(|stream, _| {
        let begun = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Slow: ");
        while begun.is_ok() && stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let gateway = Gateway::with(&upstream.entry("f", ""), &["--upstream-timeout", "1s"]);
    let since = Instant::now();
    assert_eq!(get(gateway.address, "/function/f").status, 504);
    let took = since.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

/// Sends a large body for as long as it is taken, and reads the answer.
fn pour(to: SocketAddr, path: &str, length: usize) -> Answer {
    let stream = TcpStream::connect(to).unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream.set_write_timeout(limit).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    std::thread::spawn(move || {
        let sent = sender.write_all(head.as_bytes());
        sent.and_then(|()| sender.write_all(&vec![b'x'; length]))
    });
    read(stream, false)
}

/// Larger than what all kernels on the way keep.
const LARGE: usize = 24 << 20;

#[test]
fn a_function_that_does_not_read_the_request_body_ends_in_time() {
    let deaf = Upstream::new(|_, _| std::thread::sleep(Duration::from_secs(8)));
    let begins = Upstream::new(|stream, _| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_secs(8));
    });
    let functions = deaf.entry("deaf", "") + &begins.entry("begins", "");
    let limits = ["--upstream-timeout", "1s", "--idle-timeout", "1s"];
    let gateway = Gateway::with(&functions, &limits);
    let since = Instant::now();
    assert_eq!(pour(gateway.address, "/function/deaf", LARGE).status, 504);
    let answer = pour(gateway.address, "/function/begins", LARGE);
    assert!(answer.status == 200 && !answer.complete, "{answer:?}");
    let took = since.elapsed();
    assert!(took < Duration::from_secs(7), "{took:?}");
}

#[test]
fn a_function_may_begin_late_to_read_the_request_body() {
    let late = Upstream::new(|stream, _| {
        std::thread::sleep(Duration::from_secs(7));
        let read = std::io::copy(&mut stream.take(LARGE as u64), &mut std::io::sink()).unwrap();
        let answer =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\n{read}");
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let gateway = Gateway::of(&late.entry("late", ""));
    let answer = pour(gateway.address, "/function/late", LARGE);
    assert_eq!((answer.status, answer.text()), (200, LARGE.to_string()));
}

#[test]
fn a_function_may_begin_late_to_read_its_tunnel() {
    let late = Upstream::new(|stream, _| {
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_secs(7));
        let read = std::io::copy(&mut stream.take(LARGE as u64), &mut std::io::sink());
        stream
            .write_all(read.unwrap().to_string().as_bytes())
            .unwrap();
    });
    let gateway = Gateway::of(&late.entry("late", ""));
    let mut caller = TcpStream::connect(gateway.address).unwrap();
    let limit = Some(Duration::from_secs(20));
    caller.set_read_timeout(limit).unwrap();
    let head =
        "GET /function/late HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    caller.write_all(head.as_bytes()).unwrap();
    assert!(caller.read(&mut [0; 4096]).unwrap() > 0);
    caller.write_all(&vec![b'x'; LARGE]).unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, LARGE.to_string());
}

#[test]
fn a_function_over_http_2_that_answers_no_ping_loses_its_connection() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        // It keeps every connection, and reads nothing of it.
        let all: Vec<_> = listener.incoming().collect();
        drop(all);
    });
    let gateway = Gateway::of(&h2c_entry("f", address, &[]));
    let since = Instant::now();
    assert_eq!(get(gateway.address, "/function/f").status, 502);
    let took = since.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn the_operators_port_ends_slow_heads_and_bodies_too() {
    let gateway = Gateway::with(
        "  cat:\n    fprocess: cat",
        &["--system-port", "0", "--read-timeout", "1s"],
    );
    let to = gateway.port_for("/system and pages");
    let limit = Some(Duration::from_secs(20));
    for (begin, status, least) in [
        ("GET /healthz HTTP/1.1\r\nX-Slow: ", 408, 900),
        (
            "POST /system/functions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
            400,
            9_000,
        ),
    ] {
        let mut caller = TcpStream::connect(to).unwrap();
        caller.set_read_timeout(limit).unwrap();
        caller.write_all(begin.as_bytes()).unwrap();
        let since = Instant::now();
        let is_over = drip(caller.try_clone().unwrap(), || b"x".to_vec());
        let answer = read(caller, false);
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(answer.status, status, "{begin}: {answer:?}");
        let took = since.elapsed();
        assert!(took > Duration::from_millis(least), "{begin}: {took:?}");
        assert!(took < Duration::from_secs(14), "{begin}: {took:?}");
    }
}
