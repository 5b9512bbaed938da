//! WebSockets and other upgrades: a tunnel as soon as the function agrees, until one side or time ends it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client::{get, post};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const AGREED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Agrees and sends everything back.
fn echo(stream: &mut TcpStream, _head: &str) {
    stream.write_all(AGREED).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

/// Asks for an upgrade, with the first bytes of the tunnel right behind; returns the connection and the answer's head.
fn ask(gateway: &Gateway, name: &str, protocol: &str, early: &[u8]) -> (TcpStream, String) {
    let request = format!(
        "GET /function/{name} HTTP/1.1\r\nHost: t\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
        .write_all(&[request.as_bytes(), early].concat())
        .unwrap();
    let head = head(&mut stream);
    (stream, head)
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn open(gateway: &Gateway, name: &str) -> TcpStream {
    let (stream, head) = ask(gateway, name, "websocket", b"");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

fn says(stream: &mut TcpStream, expected: &[u8]) {
    let mut seen = vec![0; expected.len()];
    stream.read_exact(&mut seen).unwrap();
    assert_eq!(seen, expected);
}

/// A close frame from a server, 1001.
fn assert_goodbye(bytes: &[u8]) {
    assert!(
        bytes.len() > 4 && bytes[0] == 0x88 && bytes[2..4] == 1001_u16.to_be_bytes(),
        "{bytes:?}"
    );
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn bytes_pass_both_ways_once_the_function_has_agreed() {
    let upstream = Upstream::new(|stream, head| {
        // A word of its own right behind the agreement, in one piece with it.
        stream.write_all(&[AGREED, b"hello"].concat()).unwrap();
        assert!(
            head.to_lowercase().contains("upgrade: my-protocol"),
            "{head}"
        );
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..read]).unwrap();
        }
        stream.write_all(b"bye").unwrap();
    });
    let gateway = Gateway::of(&upstream.entry("tunnel", ""));
    let (mut stream, head) = ask(&gateway, "tunnel", "my-protocol", b"early");
    let lower = head.to_lowercase();
    assert!(
        head.starts_with("HTTP/1.1 101 ")
            && lower.contains("connection: upgrade")
            && lower.contains("upgrade: websocket")
            && lower.contains("x-call-id: "),
        "{head}"
    );
    says(&mut stream, b"helloearly");
    let in_flight = "skep_in_flight{function_name=\"tunnel\"}";
    assert!((gateway.metric(in_flight) - 1.0).abs() < f64::EPSILON);
    for n in 0..50_u8 {
        stream.write_all(&[n; 100]).unwrap();
        says(&mut stream, &[n; 100]);
    }
    // A tunnel of a protocol that is not known may end one way first.
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut stream), b"bye");
    eventually("the call has ended", || gateway.metric(in_flight) < 0.5);
    let ended = "gateway_function_invocation_total{code=\"101\",function_name=\"tunnel\"}";
    assert!((gateway.metric(ended) - 1.0).abs() < f64::EPSILON);
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer_and_the_connection_goes_on() {
    let refuses = Upstream::says("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let gateway = Gateway::of(&(refuses.entry("refuses", "") + "  cat:\n    fprocess: cat"));
    let (mut stream, head) = ask(&gateway, "refuses", "websocket", b"");
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    says(&mut stream, b"no");
    stream
        .write_all(b"POST /function/cat HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi")
        .unwrap();
    assert!(self::head(&mut stream).starts_with("HTTP/1.1 200 "));
    says(&mut stream, b"hi");
    // One process for each call knows of no upgrades.
    let (_, head) = ask(&gateway, "cat", "websocket", b"");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[test]
fn another_http_is_not_tunnelled_and_an_unasked_switch_is_an_error() {
    let upstream = Upstream::says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::of(&upstream.entry("plain", ""));
    let (_, head) = ask(&gateway, "plain", "h2c", b"");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let seen = upstream.saw().to_lowercase();
    assert!(!seen.contains("upgrade"), "{seen}");
}

#[test]
fn nobody_switches_in_the_middle_of_a_request() {
    let hasty = Upstream::new(echo);
    let gateway = Gateway::of(&hasty.entry("hasty", ""));
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let request = "POST /function/hasty HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhe";
    stream.write_all(request.as_bytes()).unwrap();
    let head = head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
}

#[test]
fn only_silence_ends_a_tunnel() {
    let upstream = Upstream::new(echo);
    let limits = ["--upstream-timeout", "1s", "--idle-timeout", "2s"];
    let gateway = Gateway::with(&upstream.entry("echo", ""), &limits);
    let mut stream = open(&gateway, "echo");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        stream.write_all(&[0x82, 1, 7]).unwrap();
        says(&mut stream, &[0x82, 1, 7]);
        std::thread::sleep(Duration::from_millis(200));
    }
    let silent = Instant::now();
    assert_goodbye(&rest(&mut stream));
    assert!(silent.elapsed() > Duration::from_millis(1500));
}

#[test]
fn a_websocket_whose_function_is_gone_is_told_so() {
    let upstream = Upstream::new(|stream, _| {
        stream.write_all(&[AGREED, &[0x82, 1, 7]].concat()).unwrap();
        let _ = stream.read(&mut [0; 16]);
    });
    let gateway = Gateway::of(&upstream.entry("goes", ""));
    let mut stream = open(&gateway, "goes");
    says(&mut stream, &[0x82, 1, 7]);
    stream.write_all(&[0x81, 0]).unwrap();
    assert_goodbye(&rest(&mut stream));
}

#[test]
fn a_tunnel_holds_back_whoever_sends_faster_than_is_read() {
    let (go_on, wait) = channel::<()>();
    let (tell, told) = channel();
    let ends = Mutex::new((wait, tell));
    let upstream = Upstream::new(move |stream, _| {
        stream.write_all(AGREED).unwrap();
        let ends = ends.lock().unwrap();
        ends.0.recv().unwrap();
        let mut read = 0;
        let mut buffer = vec![0; 1 << 20];
        while let Ok(more @ 1..) = stream.read(&mut buffer) {
            read += more;
        }
        ends.1.send(read).unwrap();
    });
    let gateway = Gateway::of(&upstream.entry("slow", ""));
    let (mut stream, _) = ask(&gateway, "slow", "bytes", b"");
    stream.set_nonblocking(true).unwrap();
    let piece = vec![1; 1 << 16];
    let (mut written, mut moved) = (0, Instant::now());
    while moved.elapsed() < Duration::from_millis(500) {
        match stream.write(&piece) {
            Ok(more) => {
                written += more;
                moved = Instant::now();
                assert!(written < 64 << 20, "nobody reads, and all is taken");
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
    go_on.send(()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let read = told.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(read, written, "and nothing is lost");
}

#[test]
fn tunnels_go_on_while_the_gateway_drains_and_hear_a_goodbye_at_its_end() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = heard.clone();
    let upstream = Upstream::new(move |stream, _| {
        stream.write_all(AGREED).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            listener.lock().unwrap().extend_from_slice(&buffer[..read]);
            let _ = stream.write_all(&buffer[..read]);
        }
    });
    let mut gateway = Gateway::with(&upstream.entry("echo", ""), &["--drain-timeout", "3s"]);
    let mut websocket = open(&gateway, "echo");
    let mut ended = open(&gateway, "echo");
    gateway.signal("TERM");
    let began = Instant::now();
    eventually("the port is closed", || {
        TcpStream::connect(gateway.address).is_err()
    });
    for n in 0..8 {
        websocket.write_all(&[0x82, 1, n]).unwrap();
        says(&mut websocket, &[0x82, 1, n]);
        std::thread::sleep(Duration::from_millis(150));
    }
    ended.write_all(&[0x88, 0]).unwrap();
    says(&mut ended, &[0x88, 0]);
    assert_goodbye(&rest(&mut websocket));
    assert!(began.elapsed() > Duration::from_millis(2500));
    drop((websocket, ended));
    assert_eq!(gateway.ended(), Some(0));
    let heard = heard.lock().unwrap();
    let masked = heard
        .windows(2)
        .any(|pair| pair[0] == 0x88 && pair[1] & 0x80 != 0);
    assert!(masked, "the function hears it too: {heard:?}");
}

#[test]
fn calls_streams_and_tunnels_go_on_while_their_function_is_replaced() {
    let before = Upstream::new(|stream, head| {
        if head.starts_with("GET /slow") {
            std::thread::sleep(Duration::from_secs(3));
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbefore")
                .unwrap();
        } else if head.starts_with("GET /stream") {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .unwrap();
            for _ in 0..15 {
                stream.write_all(b"1\r\n.\r\n").unwrap();
                std::thread::sleep(Duration::from_millis(200));
            }
            stream.write_all(b"0\r\n\r\n").unwrap();
        } else {
            echo(stream, head);
        }
    });
    let after = Upstream::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafter");
    let gateway = Gateway::of(&before.entry("long", ""));
    let mut websocket = open(&gateway, "long");
    let address = gateway.address;
    let [slow, stream] = ["/function/long/slow", "/function/long/stream"]
        .map(|path| std::thread::spawn(move || get(address, path)));
    let in_flight = "skep_in_flight{function_name=\"long\"}";
    eventually("all run", || gateway.metric(in_flight) > 2.5);
    gateway.change(&after.entry("long", ""));
    eventually("new calls go to the new one", || {
        post(address, "/function/long", "x").text() == "after"
    });
    websocket.write_all(&[0x82, 1, 7]).unwrap();
    says(&mut websocket, &[0x82, 1, 7]);
    assert_eq!(slow.join().unwrap().text(), "before");
    let stream = stream.join().unwrap();
    assert!(
        stream.complete && stream.text() == ".".repeat(15),
        "{stream:?}"
    );
    websocket.write_all(&[0x82, 1, 8]).unwrap();
    says(&mut websocket, &[0x82, 1, 8]);
}
