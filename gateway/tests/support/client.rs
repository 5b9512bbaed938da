//! A small HTTP/1.1 client that sends exactly what it is told, one connection a request.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Whether the body ended as its framing said it would.
    pub complete: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null if it is none, as of an error.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// `GET path`.
pub fn get(to: SocketAddr, path: &str) -> Answer {
    request(to, "GET", path, &[], b"")
}

/// `GET path` of a server that may still be starting, behind a proxy that accepts for it.
pub fn try_get(to: SocketAddr, path: &str) -> Option<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    TcpStream::connect(to).ok()?;
    raw(to, request.as_bytes())
}

/// `POST path` with a body.
pub fn post(to: SocketAddr, path: &str, body: impl AsRef<[u8]>) -> Answer {
    request(to, "POST", path, &[], body.as_ref())
}

/// Any request with a sized body.
pub fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    let head_only = method == "HEAD";
    read(send(to, &bytes), head_only)
}

/// Any bytes; reads one answer. `None`: the connection was closed without one.
pub fn raw(to: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut stream = send(to, bytes);
    let mut all = Vec::new();
    // A reset after the answer is as good as a close.
    let _ = stream.read_to_end(&mut all);
    (!all.is_empty()).then(|| parse(&all, false))
}

/// Opens a connection and sends these bytes on it, beside whoever reads: an echo answers before it has everything.
pub fn send(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    for limit in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        limit(&stream, Some(Duration::from_secs(30))).unwrap();
    }
    let (mut writer, bytes) = (stream.try_clone().unwrap(), bytes.to_vec());
    // The other side may refuse after the first bytes and close; its answer can still be read.
    std::thread::spawn(move || drop(writer.write_all(&bytes)));
    stream
}

/// A connection that comes from this address of ours.
pub fn connect_from(ip: impl Into<IpAddr>, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.into(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    socket.into()
}

/// Reads one answer from a connection that closes after it.
pub fn read(mut stream: TcpStream, head_only: bool) -> Answer {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    parse(&all, head_only)
}

fn parse(bytes: &[u8], head_only: bool) -> Answer {
    let end = find(bytes, b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    if status == 100 {
        return parse(&bytes[end + 4..], head_only);
    }
    let headers = fields(lines);
    let rest = &bytes[end + 4..];
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
        trailers: Vec::new(),
        complete: true,
    };
    if head_only {
        assert!(rest.is_empty(), "a body after HEAD");
    } else if answer.header("transfer-encoding") == Some("chunked") {
        dechunk(rest, &mut answer);
    } else {
        let length = answer
            .header("content-length")
            .map(|length| length.parse::<usize>().unwrap());
        answer.complete = length.is_none_or(|length| length == rest.len());
        answer.body = rest.to_vec();
    }
    answer
}

fn dechunk(mut rest: &[u8], answer: &mut Answer) {
    answer.complete = false;
    while let Some(end) = find(rest, b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            answer.complete = true;
            answer.trailers = fields(String::from_utf8_lossy(rest).split("\r\n"));
            return;
        }
        if rest.len() < size + 2 {
            answer.body.extend_from_slice(rest);
            return;
        }
        answer.body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let pairs = lines.filter_map(|line| line.split_once(": "));
    pairs
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect()
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
