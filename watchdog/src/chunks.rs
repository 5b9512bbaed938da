//! Follows a chunked body byte by byte, and refuses what another reader could delimit in another way; pure.

use hyper::header::HeaderName;

/// Bytes that sizes with their extensions, and trailers, may take one by one.
const LONGEST_LINE: usize = 16 * 1024;

/// Digits of a chunk's size; more do not fit into what hyper counts with.
const MOST_DIGITS: usize = 15;

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeEnd,
    Data(u64),
    DataCr,
    DataLf,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastEnd,
}

/// A chunked body on its way.
#[derive(Debug)]
pub(crate) struct Chunks {
    at: At,
    size: u64,
    digits: usize,
    /// Bytes of the line, or of the trailers, so far.
    taken: usize,
    /// The beginning of a trailer line.
    name: Vec<u8>,
}

impl Chunks {
    /// Before the first chunk.
    pub(crate) fn new() -> Self {
        Self {
            at: At::Size,
            size: 0,
            digits: 0,
            taken: 0,
            name: Vec::new(),
        }
    }

    /// How many of these bytes belong to the body, and whether it ends with them; an error is what is wrong.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), &'static str> {
        let mut at = 0;
        while at < bytes.len() {
            if let At::Data(left) = self.at {
                let some = left.min((bytes.len() - at) as u64);
                at += some as usize;
                self.at = if some == left {
                    At::DataCr
                } else {
                    At::Data(left - some)
                };
                continue;
            }
            let is_end = self.step(bytes[at])?;
            at += 1;
            if is_end {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Takes one byte that is not data; true if the body ends with it.
    fn step(&mut self, byte: u8) -> Result<bool, &'static str> {
        self.taken += 1;
        if self.taken > LONGEST_LINE {
            return Err("a chunk's extension or the trailers are too long");
        }
        let digit = char::from(byte).to_digit(16);
        self.at = match (self.at, byte) {
            (At::Size, _) if digit.is_some() && self.digits < MOST_DIGITS => {
                self.digits += 1;
                self.size = self.size * 16 + u64::from(digit.unwrap_or(0));
                At::Size
            }
            (At::Size, b'\r') if self.digits > 0 => At::SizeEnd,
            (At::Size, b';') if self.digits > 0 => At::Extension,
            (At::Size, _) => return Err("a chunk's size is not a hexadecimal number"),
            (At::Extension, b'\r') => At::SizeEnd,
            (At::Extension, byte) if byte >= b' ' && byte != 0x7f || byte == b'\t' => At::Extension,
            (At::Extension, _) => return Err("a chunk's extension has a control character"),
            (At::SizeEnd, b'\n') => {
                let size = std::mem::take(&mut self.size);
                (self.digits, self.taken) = (0, 0);
                if size == 0 {
                    At::TrailerName
                } else {
                    At::Data(size)
                }
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.taken = 0;
                At::Size
            }
            (At::TrailerName, b'\r') if self.name.is_empty() => At::LastEnd,
            (At::TrailerName, b':') => {
                check_trailer(&std::mem::take(&mut self.name))?;
                At::TrailerValue
            }
            (At::TrailerName, byte) if byte > b' ' && byte != 0x7f => {
                self.name.push(byte);
                At::TrailerName
            }
            (At::TrailerName, _) => return Err("a trailer has no name"),
            (At::TrailerValue, b'\r') => At::TrailerEnd,
            (At::TrailerValue, byte) if byte >= b' ' && byte != 0x7f || byte == b'\t' => {
                At::TrailerValue
            }
            (At::TrailerValue, _) => return Err("a trailer has a control character"),
            (At::TrailerEnd, b'\n') => At::TrailerName,
            (At::LastEnd, b'\n') => return Ok(true),
            (
                At::SizeEnd | At::DataCr | At::DataLf | At::TrailerEnd | At::LastEnd | At::Data(_),
                _,
            ) => {
                return Err(
                    "a chunk does not end where its size says, or with another line end than CR LF",
                );
            }
        };
        Ok(false)
    }
}

/// What says how a message is framed, where it goes, or who sends it must stand in its head.
fn check_trailer(name: &[u8]) -> Result<(), &'static str> {
    let name = HeaderName::from_bytes(name).map_err(|_| "a trailer has a name that is none")?;
    match is_forbidden(&name) {
        true => Err("a field must not be a trailer (framing, routing, authentication)"),
        false => Ok(()),
    }
}

/// Whether a field must not be a trailer (RFC 9110, 6.5.1).
pub(crate) fn is_forbidden(name: &HeaderName) -> bool {
    const FORBIDDEN: [&str; 22] = [
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "max-forwards",
        "pragma",
        "proxy",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    FORBIDDEN.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Result<(usize, bool), &'static str> {
        let whole = Chunks::new().advance(body);
        // However it is cut.
        let (mut chunks, mut end) = (Chunks::new(), Ok((0, false)));
        for (at, byte) in body.iter().enumerate() {
            end = chunks.advance(&[*byte]).map(|(_, end)| (at + 1, end));
            if !matches!(end, Ok((_, false))) {
                break;
            }
        }
        assert_eq!(whole, end);
        whole
    }

    #[test]
    fn a_body_ends_where_its_chunks_say() {
        assert_eq!(read(b"0\r\n\r\nGET"), Ok((5, true)));
        assert_eq!(
            read(b"3;a=\"b\"\r\nabc\r\n00\r\nX-A: 1\r\n\r\n."),
            Ok((28, true))
        );
        assert_eq!(read(b"A\r\n0123456789\r\n0"), Ok((16, false)));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for body in [
            &b"1 0\r\n"[..],
            b" 5\r\n",
            b"5 ;ext\r\n",
            b"5\t\r\n",
            b"5 \r\n",
            b"0x5\r\n",
            b"+5\r\n",
            b"5\n",
            b"5\r\r\n",
            b";\r\n",
            b"\r\n",
            b"5;a\nb\r\n",
            b"5;a\x00\r\n",
            b"1000000000000000000\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"0\r\nContent-Length: 1\r\n\r\n",
            b"0\r\nHost: h\r\n\r\n",
            b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"0\r\nX A: 1\r\n\r\n",
            b"0\r\n folded: 1\r\n\r\n",
            b"0\r\n: 1\r\n\r\n",
            b"0\r\nX: 1\n\r\n",
            b"0\r\n\n",
        ] {
            assert!(read(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }
}
