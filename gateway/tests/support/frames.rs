//! HTTP/2's frames, byte by byte: what no client library would send, and what comes back.

use std::io::{self, Read};

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
