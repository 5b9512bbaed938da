//! HTTP/1.1 by hand: what is sent and received is exactly what the test says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// A request as it goes over the wire.
pub struct Request {
    head: String,
    body: Vec<u8>,
}

/// An answer, decoded.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// By lowercase name.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub trailers: BTreeMap<String, String>,
    /// The body ended as it should.
    pub is_whole: bool,
}

impl Request {
    pub fn get(path: &str) -> Self {
        Self::bare("GET", path)
    }

    pub fn post(path: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut request =
            Self::bare("POST", path).header("Content-Length", &body.len().to_string());
        request.body = body.to_vec();
        request
    }

    /// A request without a body.
    pub fn bare(method: &str, path: &str) -> Self {
        Self {
            head: format!("{method} {path} HTTP/1.1\r\nHost: function\r\n"),
            body: Vec::new(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    /// Exactly these bytes after the head.
    pub fn raw_body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), b"\r\n", &self.body].concat()
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The value of a variable in the output of `env`.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.text()
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    }
}

/// Sends a request while the answer is read, as large bodies need it.
pub fn exchange(stream: TcpStream, request: &Request) -> Answer {
    let mut sender = stream.try_clone().unwrap();
    let bytes = request.bytes();
    std::thread::scope(|scope| {
        // A watchdog may answer and close before everything is sent.
        scope.spawn(move || drop(sender.write_all(&bytes)));
        receive(&mut BufReader::new(stream))
    })
}

/// Reads one answer.
pub fn receive(source: &mut impl BufRead) -> Answer {
    let status_line = line(source).expect("an answer begins");
    let status = status_line.split(' ').nth(1).unwrap().parse().unwrap();
    let headers = fields(source);
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
        trailers: BTreeMap::new(),
        is_whole: true,
    };
    if answer.header("transfer-encoding") == "chunked" {
        answer.is_whole = read_chunks(source, &mut answer).is_some();
    } else if let Ok(length) = answer.header("content-length").parse::<usize>() {
        source
            .take(length as u64)
            .read_to_end(&mut answer.body)
            .unwrap();
        answer.is_whole = answer.body.len() == length;
    }
    answer
}

fn read_chunks(source: &mut impl BufRead, answer: &mut Answer) -> Option<()> {
    loop {
        let size = u64::from_str_radix(&line(source)?, 16).ok()?;
        if size == 0 {
            answer.trailers = fields(source);
            return Some(());
        }
        let before = answer.body.len();
        source.take(size).read_to_end(&mut answer.body).ok()?;
        if (answer.body.len() - before) as u64 != size || !line(source)?.is_empty() {
            return None;
        }
    }
}

fn fields(source: &mut impl BufRead) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some(line) = line(source).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        fields.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    fields
}

fn line(source: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let count = source.read_line(&mut line).ok()?;
    (count > 0 && line.ends_with("\r\n")).then(|| line.trim_end_matches("\r\n").to_owned())
}

/// The data of a chunked answer, without keeping it.
pub struct Chunks<'a> {
    source: BufReader<&'a mut TcpStream>,
    left: u64,
}

impl<'a> Chunks<'a> {
    pub fn after_head(stream: &'a mut TcpStream) -> Self {
        let mut chunks = Self {
            source: BufReader::new(stream),
            left: 0,
        };
        assert_eq!(chunks.line(), "HTTP/1.1 200 OK");
        while !chunks.line().is_empty() {}
        chunks
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.source.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            self.left = u64::from_str_radix(&self.line(), 16).unwrap();
            if self.left == 0 {
                return Ok(0);
            }
        }
        let count = (&mut self.source).take(self.left).read(buffer)?;
        self.left -= count as u64;
        if self.left == 0 {
            assert_eq!(self.line(), "");
        }
        Ok(count)
    }
}
