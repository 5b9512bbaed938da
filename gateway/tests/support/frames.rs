//! HTTP/2's frames, byte by byte: what no client library would send, and what comes back.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
/// The flag of a HEADERS frame with a priority in it.
pub const WITH_PRIORITY: u8 = 0x20;
/// A head that is whole, of a request without a body.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

/// A frame: its type, flags and stream, and what is in it.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head, stream.to_be_bytes().as_slice(), payload].concat()
}

/// A SETTINGS frame with these values.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let each = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(
        SETTINGS,
        0,
        0,
        &values.iter().flat_map(each).collect::<Vec<_>>(),
    )
}

/// A field as a literal that nobody keeps (RFC 7541 §6.2.2); name and value below 127 bytes.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let sized = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    [vec![0], sized(name), sized(value)].concat()
}

/// `GET /function/cat`, in the static table's words.
pub fn get_cat() -> Vec<u8> {
    let path = b"/function/cat";
    let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
    block.extend_from_slice(path);
    block.extend_from_slice(&[0x41, 1, b't']);
    block
}

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Reads the next frame; `None` where the connection ends, by a reset, too.
pub fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; 9];
    let mut payload = Vec::new();
    let came = from.read_exact(&mut head).and_then(|()| {
        payload.resize(
            u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize,
            0,
        );
        from.read_exact(&mut payload)
    });
    match came {
        Ok(()) => Ok(Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..].try_into().unwrap()) & 0x7fff_ffff,
            payload,
        })),
        Err(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(None),
            _ => Err(error),
        },
    }
}

/// `POST` to a path below 127 bytes, with more fields, as literals.
pub fn post_to(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x41, 1, b't']);
    for (name, value) in more {
        block.extend(field(name, value));
    }
    block
}

/// `:status: 200`, in the static table's words.
pub const STATUS_200: &[u8] = &[0x88];

/// An RST_STREAM frame.
pub fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

/// A GOAWAY frame without an error, which gives up what is above this stream.
pub fn go_away(last: u32) -> Vec<u8> {
    let payload = [last.to_be_bytes(), [0; 4]].concat();
    frame(GOAWAY, 0, 0, &payload)
}

/// A WINDOW_UPDATE frame.
pub fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// A client of frames: it acknowledges what HTTP/2 has it acknowledge, and does nothing else by itself.
pub struct Client(pub TcpStream);

impl Client {
    /// Connects, with these settings.
    pub fn new(to: SocketAddr, values: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).unwrap();
        let mut client = Self(stream);
        client.send(&[PREFACE, &settings(values)].concat());
        client
    }

    pub fn send(&mut self, frames: &[u8]) {
        self.0.write_all(frames).unwrap();
    }

    /// The next frame that is about a stream; `None` where the connection ends.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = read(&mut self.0).unwrap()?;
            acknowledge(&mut self.0, &frame);
            if frame.stream > 0 && frame.kind != WINDOW_UPDATE {
                return Some(frame);
            }
        }
    }

    /// How a stream ends: the data that came, and what it was reset with, if it was. `None` where the connection ends before.
    pub fn end_of(&mut self, stream: u32) -> Option<(Vec<u8>, Option<u32>)> {
        let mut data = Vec::new();
        loop {
            let frame = self.next()?;
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                DATA => data.extend_from_slice(&frame.payload),
                RST_STREAM => {
                    let reason = u32::from_be_bytes(frame.payload.try_into().unwrap());
                    return Some((data, Some(reason)));
                }
                _ => {}
            }
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                return Some((data, None));
            }
        }
    }
}

fn acknowledge(to: &mut TcpStream, frame: &Frame) {
    if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
        let payload = if frame.kind == PING {
            frame.payload.as_slice()
        } else {
            &[]
        };
        // It may have gone.
        let _ = to.write_all(&self::frame(frame.kind, ACK, 0, payload));
    }
}

/// A function that speaks HTTP/2 by frames: `answer` gets each frame about a stream. It acknowledges what it has to.
pub fn server(
    values: &[(u16, u32)],
    answer: impl Fn(&mut TcpStream, &Frame) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (begin, answer) = (settings(values), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, begin, answer) = (stream.unwrap(), begin.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut preface = [0; PREFACE.len()];
                // A probe closes at once.
                if stream.read_exact(&mut preface).is_err() {
                    return;
                }
                stream.write_all(&begin).unwrap();
                while let Ok(Some(frame)) = read(&mut stream) {
                    acknowledge(&mut stream, &frame);
                    if frame.stream > 0 {
                        answer(&mut stream, &frame);
                    }
                }
            });
        }
    });
    address
}

/// The stack file entry of a function that speaks HTTP/2 there.
pub fn h2c_entry(name: &str, at: SocketAddr, labels: &[(&str, &str)]) -> String {
    let labels: String = labels
        .iter()
        .map(|(label, value)| format!("      {label}: \"{value}\"\n"))
        .collect();
    format!(
        "  {name}:\n    annotations:\n      skep.upstream: http://{at}\n    labels:\n      skep.protocol: h2c\n{labels}"
    )
}
