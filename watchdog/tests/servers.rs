//! `mode=http` towards servers that start slowly, close early, stop sending, or answer in odd ways.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as its test does"
)]

mod support;

use std::io::{BufReader, Read, Write};
use std::time::{Duration, Instant};

use support::client::{Request, receive};
use support::{Builder, Watchdog, bare, eventually, free_port};

/// A server on bare sockets: what it does is in the path.
const SERVER: &str = r#"
import os, socket, sys, threading, time
def head(sock):
    data = b''
    while b'\r\n\r\n' not in data:
        more = sock.recv(65536)
        if not more: return None, b''
        data += more
    top, rest = data.split(b'\r\n\r\n', 1)
    return top, rest
def serve(sock):
    while True:
        top, body = head(sock)
        if top is None: break
        low = top.lower()
        if b'content-length: ' in low:
            size = int(low.split(b'content-length: ')[1].split(b'\r\n')[0])
            while len(body) < size: body += sock.recv(65536)
        path = top.split(b' ')[1]
        def say(text, fields=b''):
            sock.sendall(b'HTTP/1.1 200 OK\r\n' + fields + b'Content-Length: %d\r\n\r\n' % len(text) + text)
        if path == b'/closing':
            say(b'x')
            time.sleep(0.05)
            break
        elif path == b'/vanish':
            # The first call on a connection is answered; the second one gets nothing.
            say(b'first')
            top, body = head(sock)
            with open(os.environ['TMPDIR'] + '/vanished', 'a') as log: log.write('x\n')
            break
        elif path == b'/both':
            sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nchunks\r\n0\r\n\r\n')
        elif path == b'/many':
            say(b'many', b''.join(b'X-%d: 1\r\n' % i for i in range(200)))
        elif path == b'/blank':
            sock.sendall(b'\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx')
        elif path == b'/late':
            time.sleep(0.8)
            sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n')
            for i in range(4):
                sock.sendall(b'2\r\n%d\n\r\n' % i); time.sleep(0.2)
            sock.sendall(b'0\r\n\r\n')
        elif path == b'/pause':
            sock.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n')
            time.sleep(30)
        elif path == b'/silent':
            time.sleep(30)
        elif path == b'/drip':
            for byte in b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n':
                sock.sendall(bytes([byte])); time.sleep(0.2)
        elif path == b'/early':
            say(b'early')
            time.sleep(30)
        elif path == b'/ws':
            sock.sendall(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
            while True:
                more = sock.recv(65536)
                if not more: break
                sock.sendall(more)
            break
        elif path == b'/deaf':
            sock.sendall(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
            time.sleep(30)
        else:
            say(top + b'\r\n\r\n' + body)
    sock.close()
time.sleep(float(os.environ.get('wait', '0')))
server = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=128)
while True:
    sock = server.accept()[0]
    threading.Thread(target=serve, args=(sock,), daemon=True).start()
"#;

fn server() -> Builder {
    let port = free_port();
    let builder = bare();
    let path = builder.directory().join("server.py");
    std::fs::write(&path, SERVER).unwrap();
    builder
        .env("fprocess", &format!("python3 {} {port}", path.display()))
        .env("mode", "http")
        .env("http_upstream_url", &format!("http://127.0.0.1:{port}"))
        .env("skep_workers", "1")
}

fn started(builder: Builder) -> Watchdog {
    let watchdog = builder.start();
    watchdog.logs("fprocess accepts connections");
    watchdog
}

/// What the function has seen of a request.
fn seen(watchdog: &Watchdog, request: &[u8]) -> String {
    let mut stream = watchdog.connect();
    stream.write_all(request).unwrap();
    receive(&mut BufReader::new(stream)).text()
}

#[test]
fn a_call_before_the_child_accepts_says_that_it_was_not_accepted() {
    let watchdog = server().env("wait", "0.7").start();
    let ready = watchdog.get("/_/ready");
    assert_eq!(
        (ready.status, ready.header("x-skep-watchdog")),
        (503, fwatchdog::VERSION)
    );
    assert_eq!(watchdog.get("/_/health").status, 200);
    let answer = watchdog.post("x");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-skep-not-accepted"), "starting");
    assert_eq!(answer.header("x-skep-watchdog"), fwatchdog::VERSION);
    eventually("it is ready", || watchdog.get("/_/ready").status == 200);
    assert_eq!(watchdog.post("x").status, 200);
}

#[test]
fn a_connection_that_the_function_has_closed_costs_no_call() {
    let watchdog = started(server());
    let mut failures = Vec::new();
    let mut stream = watchdog.connect();
    let mut source = BufReader::new(stream.try_clone().unwrap());
    for turn in 0..120 {
        let request = match turn % 6 {
            5 => Request::post("/closing", "abc"),
            _ => Request::get("/closing"),
        };
        stream.write_all(&request.bytes()).unwrap();
        let answer = receive(&mut source);
        if answer.status != 200 {
            failures.push((turn, answer.status));
        }
        // Around the moment when the function closes.
        std::thread::sleep(Duration::from_millis(if turn % 6 == 4 {
            70
        } else {
            40 + turn % 21
        }));
    }
    assert_eq!(failures, []);
}

#[test]
fn a_call_that_got_no_answer_on_a_used_connection_is_made_again_where_the_method_allows_it() {
    let watchdog = started(server());
    assert_eq!(watchdog.get("/vanish").text(), "first");
    let put = watchdog.call(
        &Request::bare("PUT", "/")
            .header("Content-Length", "3")
            .raw_body("abc"),
    );
    assert!(put.text().ends_with("\r\n\r\nabc"), "{put:?}");
    watchdog.lines("vanished", 1);
    // The connection of the call above has been kept, and is used before: a new watchdog.
    let watchdog = started(server());
    assert_eq!(watchdog.get("/vanish").text(), "first");
    let post = watchdog.post("abc");
    assert_eq!(post.status, 500, "{post:?}");
    watchdog.lines("vanished", 1);
}

#[test]
fn an_old_connection_is_not_used_again() {
    let watchdog = started(server());
    assert_eq!(watchdog.get("/vanish").text(), "first");
    std::thread::sleep(Duration::from_millis(1600));
    assert_eq!(watchdog.post("abc").status, 200);
}

#[test]
fn a_target_reaches_the_function_byte_by_byte() {
    let watchdog = started(server());
    for target in [
        &b"/a?q={\"a\":1}"[..],
        b"/<>`|^\\{}\"",
        b"/\xff\xfe?\xe4",
        b"/%zz?%",
        b"//x",
    ] {
        let request = [
            b"GET ",
            target,
            b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        ]
        .concat();
        let mut stream = watchdog.connect();
        stream.write_all(&request).unwrap();
        let answer = receive(&mut BufReader::new(stream));
        let line = [b"GET ", target, b" HTTP/1.1\r\n"].concat();
        assert!(answer.body.starts_with(&line), "{}", answer.text());
    }
    // The connection is kept for targets of both kinds, one after the other.
    assert!(watchdog.get("/plain").text().starts_with("GET /plain "));
}

#[test]
fn a_body_that_is_not_there_has_a_length_and_the_host_of_the_target_wins() {
    let watchdog = started(server());
    for method in ["POST", "PUT", "PATCH"] {
        let text = watchdog.call(&Request::bare(method, "/")).text();
        assert!(
            text.to_lowercase().contains("content-length: 0\r\n"),
            "{text}"
        );
    }
    assert!(
        !watchdog
            .get("/")
            .text()
            .to_lowercase()
            .contains("content-length")
    );
    let text = seen(
        &watchdog,
        b"GET http://inner:81/p?q HTTP/1.1\r\nHost: outer\r\n\r\n",
    );
    assert!(text.starts_with("GET /p?q HTTP/1.1\r\n"), "{text}");
    assert!(
        text.contains("Host: inner:81\r\n") && !text.contains("outer"),
        "{text}"
    );
}

#[test]
fn chunks_win_over_a_length_and_many_fields_pass() {
    let watchdog = started(server());
    let both = watchdog.get("/both");
    assert_eq!((both.text().as_str(), both.is_whole), ("chunks", true));
    assert_eq!(both.header("content-length"), "");
    let many = watchdog.get("/many");
    assert_eq!((many.status, many.header("x-199")), (200, "1"));
    let blank = watchdog.get("/blank");
    assert_eq!(
        (blank.status, blank.header("x-openfaas-internal")),
        (500, "fwatchdog")
    );
}

#[test]
fn an_event_stream_is_not_cut_by_exec_timeout_but_by_silence() {
    let watchdog = started(
        server()
            .env("exec_timeout", "400ms")
            .env("stream_idle_timeout", "1s"),
    );
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let answer = watchdog.call(&Request::get("/late").header("Accept", accept));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "0\n1\n2\n3\n")
        );
        assert!(answer.is_whole);
    }
    assert_eq!(
        watchdog.get("/late").status,
        504,
        "an answer that is no stream"
    );
    let began = Instant::now();
    let answer = watchdog.get("/pause");
    assert_eq!((answer.status, answer.is_whole), (200, false));
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[test]
fn a_function_that_does_not_answer_or_drips_its_head_meets_exec_timeout() {
    let watchdog = started(server().env("exec_timeout", "500ms"));
    for path in ["/silent", "/drip"] {
        let began = Instant::now();
        assert_eq!(watchdog.get(path).status, 504, "{path}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_body_that_drips_on_behind_an_early_answer_ends_with_read_timeout() {
    let watchdog = started(
        server()
            .env("read_timeout", "700ms")
            .env("max_inflight", "1"),
    );
    let mut stream = watchdog.connect();
    let request = Request::bare("POST", "/early").header("Transfer-Encoding", "chunked");
    stream.write_all(&request.bytes()).unwrap();
    assert_eq!(
        receive(&mut BufReader::new(stream.try_clone().unwrap())).text(),
        "early"
    );
    let began = Instant::now();
    while stream.write_all(b"1\r\nx\r\n").is_ok() {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the connection is closed"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(watchdog.get("/").status, 200);
}

#[test]
fn a_tunnel_ends_when_nothing_flows_or_one_side_takes_nothing() {
    let watchdog = started(
        server()
            .env("stream_idle_timeout", "800ms")
            .env("write_timeout", "700ms"),
    );
    let open = |path: &str| {
        let mut stream = watchdog.connect();
        let request = Request::get(path)
            .header("Connection", "Upgrade")
            .header("Upgrade", "x");
        // The first bytes of the tunnel come with the request.
        stream
            .write_all(&[&request.bytes()[..], b"early"].concat())
            .unwrap();
        assert_eq!(
            receive(&mut BufReader::with_capacity(
                1,
                stream.try_clone().unwrap()
            ))
            .status,
            101
        );
        stream
    };
    let mut tunnel = open("/ws");
    let mut buffer = [0; 5];
    tunnel.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"early");
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(200));
        tunnel.write_all(b"again").unwrap();
        tunnel.read_exact(&mut buffer).unwrap();
    }
    let began = Instant::now();
    assert_eq!(tunnel.read(&mut buffer).unwrap_or(0), 0);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let mut tunnel = open("/deaf");
    let began = Instant::now();
    while tunnel.write_all(&[b'x'; 65536]).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(10), "the tunnel ends");
    }
}
