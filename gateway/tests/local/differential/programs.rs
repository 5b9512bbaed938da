//! Our programs between a client that sends anything and a server that answers anything.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::gateway::{Folder, Gateway, skep};

/// A client that has waited so long for a program that waits for it hangs up.
const SILENCE: Duration = Duration::from_millis(250);
/// What functions and paths are called, so that no small change of one leads to another one.
const NAMES: [&str; 12] = [
    "alpha", "bravo", "carrot", "dogma", "eclair", "fiction", "galaxy", "honest", "ideal",
    "joyful", "kettle", "lantern",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Gateway,
    Watchdog,
}

/// What came out of a program, and its word to whoever sent what did not.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) messages: Vec<Message>,
    pub(super) refusal: String,
}

/// A message as it came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Of a request its method and target, of an answer its status.
    pub(super) first: String,
    /// Its `X-Id`.
    pub(super) id: Option<String>,
    /// In hexadecimal digits.
    pub(super) body: String,
}

impl Program {
    /// What the paths of a case begin with.
    pub(super) fn path(self, lane: usize, case: usize) -> String {
        match self {
            Self::Gateway => format!("/function/{}/c{case}", NAMES[lane]),
            Self::Watchdog => format!("/c{case}"),
        }
    }

    /// The target that the server behind the program sees.
    pub(super) fn passed(self, lane: usize, target: &str) -> String {
        let path = match target.split_once("://") {
            Some((_, rest)) if !target.starts_with('/') => {
                let at = rest.find(['/', '?']).unwrap_or(rest.len());
                &rest[at..]
            }
            _ => target,
        };
        let rest = match self {
            // hyper cuts a fragment off, which no reader takes for a part of the target.
            Self::Watchdog => path.split('#').next().unwrap_or_default(),
            Self::Gateway => {
                let after = path.strip_prefix("/function/");
                let after = after.and_then(|after| after.strip_prefix(NAMES[lane]));
                after.unwrap_or("(not a function's)")
            }
        };
        match rest.starts_with('/') {
            true => rest.to_owned(),
            false => format!("/{rest}"),
        }
    }
}

/// A gateway, and a watchdog and a server for each lane.
pub(super) struct World {
    gateway: Gateway,
    lanes: Vec<Lane>,
}

struct Lane {
    server: Server,
    watchdog: Watchdog,
}

struct Watchdog {
    address: SocketAddr,
    child: Child,
    _folder: Folder,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    pub(super) fn new(lanes: usize) -> Self {
        let lanes: Vec<_> = (0..lanes)
            .map(|_| {
                let server = Server::new();
                let watchdog = watchdog(server.address);
                Lane { server, watchdog }
            })
            .collect();
        let entries = lanes.iter().zip(NAMES).map(|(lane, name)| {
            let address = lane.server.address;
            format!("  {name}:\n    annotations:\n      skep.upstream: http://{address}\n")
        });
        let entries: String = entries.collect();
        let gateway = Gateway::with(&entries, &["--workers", "1", "--read-timeout", "300ms"]);
        for lane in &lanes {
            eventually("a watchdog is ready", || {
                let request = b"GET /_/ready HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
                exchange(lane.watchdog.address, request).starts_with(b"HTTP/1.1 200")
            });
        }
        Self { gateway, lanes }
    }

    fn address(&self, program: Program, lane: usize) -> SocketAddr {
        match program {
            Program::Gateway => self.gateway.address,
            Program::Watchdog => self.lanes[lane].watchdog.address,
        }
    }

    /// The requests that come out when a client sends this.
    pub(super) fn asked(&self, program: Program, lane: usize, case: usize, text: &[u8]) -> Outcome {
        let server = &self.lanes[lane].server;
        server.lock().clear();
        let to = self.address(program, lane);
        let heard = exchange(to, text);
        let messages = server.lock().clone();
        // One of a case before may come late.
        let is_of_others = |message: &Message| {
            let number = message.first.split_once("/c").map(|(_, after)| {
                let digits = after.find(|c: char| !c.is_ascii_digit());
                &after[..digits.unwrap_or(after.len())]
            });
            let number = number.and_then(|number| number.parse().ok());
            number.is_some_and(|number: usize| number != case)
        };
        Outcome {
            messages: messages
                .into_iter()
                .filter(|message| !is_of_others(message))
                .collect(),
            refusal: refusal(&heard),
        }
    }

    /// The answer that comes out when the server sends this.
    pub(super) fn answered(&self, program: Program, lane: usize, text: &[u8]) -> Outcome {
        self.lanes[lane].server.say(Some(text.to_vec()));
        let path = match program {
            Program::Gateway => format!("/function/{}/", NAMES[lane]),
            Program::Watchdog => "/".to_owned(),
        };
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: close\r\n\r\n");
        let heard = exchange(self.address(program, lane), request.as_bytes());
        self.lanes[lane].server.say(None);
        let head = String::from_utf8_lossy(&heard).to_lowercase();
        // An answer of our own is none of the server's.
        if head.contains("\r\nx-openfaas-internal:") {
            return Outcome {
                messages: Vec::new(),
                refusal: refusal(&heard),
            };
        }
        let refusal = "an answer that breaks off".to_owned();
        let mut reader = Reader(heard);
        let messages = reader.next().into_iter().collect();
        Outcome { messages, refusal }
    }
}

/// The sentence of the last answer, without what differs from one to the next.
fn refusal(heard: &[u8]) -> String {
    let text = latin(heard);
    let is_status = |at: &usize| {
        let code = text[*at..].split(' ').nth(1).unwrap_or_default();
        code.len() == 3 && code.chars().all(|c| c.is_ascii_digit())
    };
    let lines = text.match_indices("HTTP/1.").map(|(at, _)| at);
    let Some(last) = lines.filter(is_status).last() else {
        return "silence".to_owned();
    };
    let status = text[last..].split(' ').nth(1).unwrap_or_default();
    let body = text[last..].split("\r\n\r\n").nth(1).unwrap_or_default();
    let sentence = body.split(" (call ").next().unwrap_or_default();
    let plain: Vec<_> = sentence.trim().split('\'').step_by(2).collect();
    format!("{status} {}", plain.join("..."))
}

fn watchdog(upstream: SocketAddr) -> Watchdog {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = Folder::new();
    let child = skep()
        .arg("watchdog")
        .env("skep_inherit", "stdin")
        .env("skep_workers", "1")
        .env("skep_lock_dir", &folder.0)
        .env("metrics_port", "off")
        .env("mode", "http")
        .env("upstream_url", format!("http://{upstream}"))
        .env("fprocess", "sleep 1000")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Watchdog {
        address,
        child,
        _folder: folder,
    }
}

/// Sends this and hears until the other side closes or is silent.
fn exchange(to: SocketAddr, text: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    let Ok(mut stream) = TcpStream::connect(to) else {
        return heard;
    };
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    if stream.write_all(text).is_ok() {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            heard.extend_from_slice(&buffer[..read]);
        }
    }
    heard
}

/// A server that notes what it is asked, and answers as a case has it.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
    says: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let says = Arc::new(Mutex::new(None));
        let server = Self {
            address,
            seen: seen.clone(),
            says: says.clone(),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, says) = (seen.clone(), says.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &seen, &says));
            }
        });
        server
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Message>> {
        self.seen.lock().unwrap()
    }

    fn say(&self, text: Option<Vec<u8>>) {
        *self.says.lock().unwrap() = text;
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Message>>, says: &Mutex<Option<Vec<u8>>>) {
    let mut reader = Reader(Vec::new());
    let mut buffer = [0; 4096];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(600) {
        while let Some(message) = reader.next() {
            seen.lock().unwrap().push(message);
            let says = says.lock().unwrap().clone();
            let answer = says
                .as_deref()
                .unwrap_or(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(answer);
            if says.is_some() {
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
        match stream.read(&mut buffer) {
            Ok(read @ 1..) => reader.0.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
}

/// Reads messages that are framed as our programs frame them, and as simply as can be.
struct Reader(Vec<u8>);

impl Reader {
    fn next(&mut self) -> Option<Message> {
        let end = find(&self.0, b"\r\n\r\n")?;
        let head = latin(&self.0[..end]);
        let mut lines = head.split("\r\n");
        let first = lines.next()?.to_owned();
        let mut message = Message {
            first: match first.strip_prefix("HTTP/1.") {
                Some(status) => status.split(' ').nth(1).unwrap_or_default().to_owned(),
                None => first.rsplit_once(' ')?.0.to_owned(),
            },
            id: None,
            body: String::new(),
        };
        let (mut length, mut is_chunked) = (None, false);
        for line in lines {
            let (name, value) = line.split_once(':')?;
            let value = value.trim_matches([' ', '\t']);
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse().expect("one length")),
                "transfer-encoding" => is_chunked = value == "chunked",
                "x-id" => {
                    message.id = Some(match message.id.take() {
                        Some(id) => format!("{id},{value}"),
                        None => value.to_owned(),
                    });
                }
                _ => {}
            }
        }
        let body = &self.0[end + 4..];
        let (taken, body) = if is_chunked {
            dechunked(body)?
        } else {
            let length: usize = length.unwrap_or_default();
            (length, body.get(..length)?.to_vec())
        };
        self.0.drain(..end + 4 + taken);
        if message.first.starts_with("100") {
            return self.next();
        }
        message.body = body.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(message)
    }
}

fn dechunked(text: &[u8]) -> Option<(usize, Vec<u8>)> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let line = find(text.get(at..)?, b"\r\n")?;
        let size = usize::from_str_radix(&latin(&text[at..at + line]), 16).ok()?;
        at += line + 2;
        if size == 0 {
            break;
        }
        body.extend(text.get(at..at + size)?);
        at += size + 2;
    }
    loop {
        let line = find(text.get(at..)?, b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some((at, body));
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Each byte as a character, as h11's bytes are told.
fn latin(text: &[u8]) -> String {
    text.iter().map(|byte| char::from(*byte)).collect()
}
