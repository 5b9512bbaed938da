//! `mode=http`: one long-lived child with a server of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as its test does"
)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use support::client::{Request, receive};
use support::{Builder, Watchdog, eventually, free_port, is_alive, script};

/// A function that tells what it was asked, and misbehaves on request.
const SERVER: &str = r#"
import hashlib, http.server, os, signal, socketserver, sys, time
def go(*rest):
    open(os.environ['TMPDIR'] + '/term', 'a').write('x\n')
    os._exit(0)
signal.signal(signal.SIGTERM, go)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *rest): pass
    def body(self):
        if self.headers.get('Transfer-Encoding') == 'chunked':
            body = b''
            while True:
                size = int(self.rfile.readline(), 16)
                if not size: break
                body += self.rfile.read(size); self.rfile.readline()
            self.sent_trailers = []
            while (line := self.rfile.readline().strip()): self.sent_trailers.append(line.decode())
            return body
        return self.rfile.read(int(self.headers.get('Content-Length', 0)))
    def chunk(self, data):
        self.wfile.write(b'%x\r\n%s\r\n' % (len(data), data)); self.wfile.flush()
    def answer(self):
        self.sent_trailers = []
        if self.path == '/ws':
            self.send_response(101); self.send_header('Upgrade', 'websocket'); self.send_header('Connection', 'Upgrade'); self.end_headers()
            self.wfile.write(b'hello '); self.wfile.flush()
            while (data := self.connection.recv(100)):
                self.wfile.write(data.upper()); self.wfile.flush()
            self.close_connection = True
            return
        if self.path == '/events':
            self.send_response(200); self.send_header('Content-Type', 'text/event-stream'); self.send_header('Transfer-Encoding', 'chunked'); self.end_headers()
            for i in range(2):
                self.chunk(b'data: %d\n\n' % i)
                while not os.path.exists(os.environ['TMPDIR'] + '/go'): time.sleep(0.02)
            self.wfile.write(b'0\r\n\r\n')
            return
        if self.path == '/trailers':
            body = self.body()
            self.send_response(200); self.send_header('Trailer', 'X-Sum, X-Skep-Not-Accepted'); self.send_header('Transfer-Encoding', 'chunked'); self.end_headers()
            self.chunk(' '.join(self.sent_trailers).encode())
            self.wfile.write(b'0\r\nX-Sum: 7\r\nX-Skep-Not-Accepted: busy\r\n\r\n')
            return
        if self.path == '/slow':
            open(os.environ['TMPDIR'] + '/slow', 'a').write('x\n')
            time.sleep(1.5)
        if self.path == '/late':
            self.send_response(200); self.send_header('Content-Length', '5'); self.end_headers(); self.wfile.flush(); time.sleep(0.6)
            self.wfile.write(b'later'); return
        if self.path == '/die': os._exit(3)
        if self.path == '/broken':
            self.send_response(200); self.send_header('Content-Length', '9'); self.end_headers(); self.wfile.write(b'half'); self.close_connection = True; return
        body = self.body()
        told = '%s %s pid=%d port=%d\n' % (self.command, self.path, os.getpid(), self.client_address[1])
        told += ''.join('%s=%s\n' % (k.lower(), v) for k, v in self.headers.items())
        told += 'body=' + (body.decode() if len(body) < 100 else hashlib.md5(body).hexdigest()) + '\n'
        print('asked ' + self.path, flush=True); print('aside', file=sys.stderr, flush=True)
        self.send_response(404 if self.path == '/missing' else 200)
        self.send_header('X-Skep-Not-Accepted', 'busy'); self.send_header('X-Skep-Watchdog', 'forged'); self.send_header('X-Mine', 'a'); self.send_header('X-Mine', 'b')
        self.send_header('Content-Length', str(len(told))); self.end_headers()
        if self.command != 'HEAD': self.wfile.write(told.encode())
    do_GET = do_POST = do_HEAD = do_OPTIONS = do_PUT = do_DELETE = do_BREW = answer
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128
open(os.environ['TMPDIR'] + '/pids', 'a').write('%d\n' % os.getpid())
time.sleep(float(os.environ.get('wait', '0')))
Server(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"#;

/// A watchdog in front of the server above.
fn server() -> Builder {
    let port = free_port();
    let builder = script("unused");
    let path = builder.directory().join("server.py");
    std::fs::write(&path, SERVER).unwrap();
    builder
        .env("fprocess", &format!("python3 {} {port}", path.display()))
        .env("mode", "http")
        .env("http_upstream_url", &format!("http://127.0.0.1:{port}"))
}

fn started(builder: Builder) -> Watchdog {
    let watchdog = builder.start();
    watchdog.logs("fprocess accepts connections");
    watchdog
}

fn told<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn a_request_arrives_as_it_was_sent_and_the_answer_returns_as_it_was_given() {
    let watchdog = started(server());
    let answer = watchdog.call(&Request::post("/a%2Fb//c?x=%20", "hello").header("X-One", "1"));
    let text = answer.text();
    assert_eq!(answer.status, 200);
    assert!(text.starts_with("POST /a%2Fb//c?x=%20 pid="), "{text}");
    assert_eq!(told(&text, "content-length"), Some("5"));
    assert_eq!(told(&text, "host"), Some("function"));
    assert_eq!(told(&text, "x-one"), Some("1"));
    assert_eq!(told(&text, "transfer-encoding"), None);
    assert_eq!(told(&text, "body"), Some("hello"));
    assert_eq!(answer.header("x-mine"), "b", "the last of two");
    assert!(answer.header("x-duration-seconds").contains('.'));
    assert!(
        answer
            .header("server-timing")
            .starts_with("first-byte;dur=")
    );
    assert_eq!(answer.header("x-skep-not-accepted"), "");
    assert_eq!(watchdog.get("/missing").status, 404);
    let brewed = watchdog.call(&Request::bare("BREW", "/pot"));
    assert!(brewed.text().starts_with("BREW /pot"), "{brewed:?}");
    let request = Request::bare("HEAD", "/long").header("Connection", "close");
    let mut stream = watchdog.connect();
    stream.write_all(&request.bytes()).unwrap();
    let mut head = String::new();
    stream.read_to_string(&mut head).unwrap();
    let has_length = head.contains("\r\nContent-Length: ");
    assert!(has_length && head.ends_with("\r\n\r\n"), "{head}");
    watchdog.logs(" stderr: aside\n");
    assert!(watchdog.output().contains(" stdout: asked /missing\n"));
}

#[test]
fn all_calls_of_a_connection_reach_one_process_over_one_connection() {
    let watchdog = started(server());
    let mut stream = watchdog.connect();
    let mut answers = Vec::new();
    let mut source = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..20 {
        stream.write_all(&Request::post("/", "x").bytes()).unwrap();
        answers.push(
            receive(&mut source)
                .text()
                .lines()
                .next()
                .unwrap()
                .to_owned(),
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(watchdog.lines("pids", 1).len(), 1);
}

#[test]
fn chunked_bodies_and_declared_trailers_pass_both_ways() {
    let watchdog = started(server());
    let request = Request::bare("POST", "/trailers")
        .header("Transfer-Encoding", "chunked")
        .header("Trailer", "X-Check")
        .header("TE", "trailers")
        .raw_body("3\r\nabc\r\n0\r\nX-Check: 9\r\n\r\n");
    let answer = watchdog.call(&request);
    assert_eq!(answer.text().to_ascii_lowercase(), "x-check: 9");
    assert_eq!(answer.trailers.get("x-sum").map(String::as_str), Some("7"));
    assert_eq!(
        answer.trailers.len(),
        1,
        "only the watchdog may say the other one"
    );
    let get = Request::get("/")
        .header("Transfer-Encoding", "chunked")
        .raw_body("3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(told(&watchdog.call(&get).text(), "body"), Some("abc"));
}

#[test]
fn a_body_can_be_gathered_first() {
    let watchdog = started(server().env("http_buffer_req_body", "1"));
    let request = Request::bare("POST", "/")
        .header("Transfer-Encoding", "chunked")
        .raw_body("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    let text = watchdog.call(&request).text();
    assert_eq!(told(&text, "content-length"), Some("5"), "{text}");
    assert_eq!(told(&text, "transfer-encoding"), None);
    assert_eq!(told(&text, "body"), Some("abcde"));
    assert_eq!(told(&watchdog.get("/").text(), "body"), Some(""));
}

#[test]
fn a_body_up_to_16_mib_is_gathered_and_a_larger_one_is_a_413() {
    let watchdog = started(server().env("http_buffer_req_body", "1"));
    let most = 16 << 20;
    let body = "x".repeat(most + 1);
    let text = watchdog.post(&body[..most]).text();
    assert_eq!(told(&text, "content-length"), Some("16777216"));
    for request in [
        Request::post("/", &body),
        Request::bare("POST", "/")
            .header("Transfer-Encoding", "chunked")
            .raw_body(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())),
    ] {
        let answer = watchdog.call(&request);
        assert_eq!(answer.status, 413);
        assert!(
            answer.text().contains("http_buffer_req_body is set"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(watchdog.get("/").status, 200, "it goes on");
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let watchdog = started(server());
    let mut stream = watchdog.connect();
    let request = Request::get("/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket");
    stream.write_all(&request.bytes()).unwrap();
    let mut source = BufReader::new(stream.try_clone().unwrap());
    let answer = receive(&mut source);
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), "websocket");
    let mut said = [0; 6];
    source.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello ");
    for word in [b"one", b"two"] {
        stream.write_all(word).unwrap();
        let mut said = [0; 3];
        source.read_exact(&mut said).unwrap();
        assert_eq!(said, word.to_ascii_uppercase()[..]);
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(source.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn events_arrive_one_by_one() {
    let watchdog = started(server());
    let mut stream = watchdog.connect();
    stream.write_all(&Request::get("/events").bytes()).unwrap();
    let mut source = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data: 0") {
        line.clear();
        source.read_line(&mut line).unwrap();
    }
    std::fs::write(watchdog.file("go"), "").unwrap();
    while !line.starts_with("data: 1") {
        line.clear();
        source.read_line(&mut line).unwrap();
    }
}

#[test]
fn a_function_that_is_too_slow_is_answered_for() {
    let watchdog = started(server().env("exec_timeout", "400ms"));
    let ask = |timeout: Option<&str>| {
        let request = Request::get("/slow");
        let request = match timeout {
            Some(timeout) => request.header("X-Timeout", timeout),
            None => request,
        };
        let began = Instant::now();
        let answer = watchdog.call(&request);
        assert_eq!(answer.status, 504, "{answer:?}");
        assert_eq!(answer.header("x-openfaas-internal"), "fwatchdog");
        (began.elapsed().as_millis(), answer.text())
    };
    for timeout in [None, Some("10s"), Some("nonsense")] {
        let (took, text) = ask(timeout);
        assert!((400..1200).contains(&took), "{timeout:?}: {took}");
        assert!(
            text.contains("400ms") && text.contains("exec_timeout"),
            "{text}"
        );
    }
    let (took, text) = ask(Some("100ms"));
    assert!(
        (100..390).contains(&took) && text.contains("100ms"),
        "{took} {text}"
    );
    let late = watchdog.get("/late");
    assert_eq!(
        (late.status, late.text().as_str()),
        (200, "later"),
        "only the head is limited"
    );
}

#[test]
fn a_body_that_the_function_breaks_off_is_broken_for_the_client_too() {
    let watchdog = started(server());
    let answer = watchdog.get("/broken");
    assert_eq!((answer.status, answer.is_whole), (200, false));
}

#[test]
fn a_dead_child_is_started_again_and_calls_meanwhile_may_be_retried() {
    let watchdog = started(server().env("wait", "0.3"));
    let first = watchdog.lines("pids", 1);
    let answer = watchdog.get("/die");
    assert_eq!(answer.status, 500, "{answer:?}");
    watchdog.logs("fprocess has ended (exit status 3); it is started again in 100ms");
    let answer = watchdog.get("/");
    assert_eq!(
        (answer.status, answer.header("x-skep-not-accepted")),
        (503, "starting"),
        "{answer:?}"
    );
    assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(watchdog.get("/_/health").status, 200);
    assert_eq!(watchdog.get("/_/ready").status, 503);
    eventually("it serves again", || watchdog.get("/").status == 200);
    assert_eq!(watchdog.get("/_/ready").status, 200);
    let pids = watchdog.lines("pids", 2);
    assert!(!is_alive(&first[0]) && is_alive(&pids[1]));
    watchdog.get("/die");
    watchdog.logs("it is started again in 200ms");
}

#[test]
fn it_is_not_ready_before_the_child_accepts() {
    let watchdog = server().env("wait", "0.5").start();
    assert_eq!(watchdog.get("/_/ready").status, 503);
    assert_eq!(watchdog.get("/").status, 503);
    eventually("it is ready", || watchdog.get("/_/ready").status == 200);
    assert_eq!(watchdog.get("/").status, 200);
}

#[test]
fn the_functions_own_readiness_can_be_asked() {
    let watchdog = started(server().env("ready_path", "/missing"));
    let answer = watchdog.get("/_/ready");
    assert_eq!(answer.status, 404);
    assert!(answer.text().starts_with("GET /missing"), "{answer:?}");
    assert_eq!(answer.header("x-skep-watchdog"), fwatchdog::VERSION);
    assert_eq!(answer.header("x-skep-not-accepted"), "");
}

#[test]
fn the_drain_finishes_calls_before_the_child_is_asked_to_go() {
    let mut watchdog = started(server());
    let pid = watchdog.lines("pids", 1).remove(0);
    let mut stream = watchdog.connect();
    stream.write_all(&Request::get("/slow").bytes()).unwrap();
    watchdog.lines("slow", 1);
    watchdog.signal("TERM");
    let answer = receive(&mut BufReader::new(stream));
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("GET /slow"));
    let (code, _) = watchdog.exit();
    assert_eq!(code, Some(0));
    assert!(!is_alive(&pid));
    assert_eq!(watchdog.lines("term", 1), ["x"], "it was asked, not killed");
    watchdog.logs("drained");
}

#[test]
fn without_an_upstream_it_does_not_start() {
    let (status, _, errors) = script("true").env("mode", "http").run();
    assert_eq!(status.code(), Some(2));
    assert!(errors.contains("http_upstream_url is not set"), "{errors}");
}

#[test]
fn an_idle_child_is_stopped_and_started_once_by_the_calls_that_wait_for_it() {
    let watchdog = started(server().env("idle_timeout", "300ms").env("wait", "0.2"));
    let first = watchdog.lines("pids", 1).remove(0);
    // Calls shorter than the time between two looks keep it up.
    for _ in 0..20 {
        assert_eq!(watchdog.get("/").status, 200);
        std::thread::sleep(Duration::from_millis(30));
    }
    assert!(is_alive(&first), "it is in use");
    watchdog.logs("fprocess is stopped until the next call");
    assert!(!is_alive(&first));
    for path in ["/_/health", "/_/ready"] {
        assert_eq!(watchdog.get(path).status, 200, "{path}");
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(watchdog.lines("pids", 1).len(), 1, "probes start nothing");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| watchdog.post("x").status))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 20]);
    assert_eq!(watchdog.lines("pids", 2).len(), 2);
}

#[test]
fn a_long_call_keeps_its_child() {
    let watchdog = started(server().env("idle_timeout", "200ms"));
    let answer = watchdog.get("/slow");
    assert_eq!(answer.status, 200);
    assert_eq!(watchdog.lines("pids", 1).len(), 1);
}

#[test]
fn an_idle_watchdog_drains_at_once() {
    let mut watchdog = started(server().env("idle_timeout", "100ms"));
    watchdog.logs("fprocess is stopped until the next call");
    watchdog.signal("TERM");
    let (code, took) = watchdog.exit();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}
