//! A chunked body (RFC 9112 §7.1), decoded strictly: what two readers could read differently is an error.

use bytes::{Buf, Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

/// The bytes of a chunk's extension, which nobody reads.
const LONGEST_EXTENSION: usize = 4096;
/// The bytes that trailers may have, and how many of them there may be.
const LARGEST_TRAILERS: usize = 16 * 1024;
const MOST_TRAILERS: usize = 64;

/// Where in a chunked body we are.
#[derive(Debug, Default)]
pub(crate) enum Chunks {
    /// In a size, of so many digits so far.
    Size(u64, u8),
    /// Blanks behind a size, so many; only an extension or the end of the line may follow.
    Blanks(u64, usize),
    /// In an extension; so many bytes between the size and the end of its line so far.
    Extension(u64, usize),
    /// Its line's CR has come.
    SizeEnd(u64),
    /// So many bytes of a chunk are to come.
    Data(u64),
    /// After a chunk: CR, then LF.
    DataEnd,
    DataLineFeed,
    /// After the last chunk.
    Trailers,
    #[default]
    Over,
}

/// What was found.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// Of the body.
    Data(Bytes),
    /// Its end.
    End(Option<HeaderMap>),
    /// Not enough yet.
    Nothing,
}

impl Chunks {
    pub(super) fn begin() -> Self {
        Self::Size(0, 0)
    }

    /// Takes the next piece of the body out of what was read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn next(&mut self, read: &mut BytesMut) -> Result<Found, &'static str> {
        loop {
            match *self {
                Self::Over => return Ok(Found::Nothing),
                Self::Trailers => return self.trailers(read),
                Self::Data(left) => {
                    if read.is_empty() {
                        return Ok(Found::Nothing);
                    }
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(read.len());
                    let left = left - here as u64;
                    *self = if left == 0 {
                        Self::DataEnd
                    } else {
                        Self::Data(left)
                    };
                    return Ok(Found::Data(read.split_to(here).freeze()));
                }
                _ => {
                    let Some(&byte) = read.first() else {
                        return Ok(Found::Nothing);
                    };
                    read.advance(1);
                    *self = self.after(byte)?;
                }
            }
        }
    }

    /// One byte of framing.
    fn after(&self, byte: u8) -> Result<Self, &'static str> {
        Ok(match (self, byte) {
            (&Self::Size(size, digits), _) if byte.is_ascii_hexdigit() => {
                if digits == 16 {
                    return Err("the size of a chunk is too large");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Self::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (Self::Size(_, 0), _) => return Err("a chunk has no size"),
            (&(Self::Size(size, _) | Self::Blanks(size, _) | Self::Extension(size, _)), b'\r') => {
                Self::SizeEnd(size)
            }
            (&Self::Size(size, _), b' ' | b'\t') => Self::Blanks(size, 0),
            (&Self::Size(size, _), b';') => Self::Extension(size, 0),
            (&Self::Blanks(size, length), b' ' | b'\t') if length < LONGEST_EXTENSION => {
                Self::Blanks(size, length + 1)
            }
            (&Self::Blanks(size, length), b';') => Self::Extension(size, length),
            (&Self::Extension(size, length), _)
                if (byte == b'\t' || !byte.is_ascii_control()) && length < LONGEST_EXTENSION =>
            {
                Self::Extension(size, length + 1)
            }
            (Self::SizeEnd(0), b'\n') => Self::Trailers,
            (&Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataEnd, b'\r') => Self::DataLineFeed,
            (Self::DataLineFeed, b'\n') => Self::begin(),
            _ => return Err("a chunk is not framed as it should be"),
        })
    }

    fn trailers(&mut self, read: &mut BytesMut) -> Result<Found, &'static str> {
        if read.starts_with(b"\r\n") {
            read.advance(2);
            *self = Self::Over;
            return Ok(Found::End(None));
        }
        let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
        let (length, trailers) = match httparse::parse_headers(read, &mut fields) {
            // The parser would take a bare LF for the end of a line; then another reader sees other trailers, or another end.
            Ok(httparse::Status::Complete((length, fields)))
                if length <= LARGEST_TRAILERS && has_whole_line_ends(&read[..length]) =>
            {
                (length, gathered(fields)?)
            }
            Ok(httparse::Status::Partial) if read.len() < LARGEST_TRAILERS => {
                return Ok(Found::Nothing);
            }
            _ => return Err("its trailers are malformed, or too many"),
        };
        read.advance(length);
        *self = Self::Over;
        Ok(Found::End(Some(trailers)))
    }
}

fn has_whole_line_ends(lines: &[u8]) -> bool {
    let mut lines = lines.split_inclusive(|byte| *byte == b'\n');
    lines.all(|line| line.ends_with(b"\r\n"))
}

fn gathered(fields: &[httparse::Header<'_>]) -> Result<HeaderMap, &'static str> {
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err("a trailer is malformed");
        };
        trailers.append(name, value);
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and its trailers, whichever way it is cut into pieces of `step` bytes; and what is left.
    fn decode(
        text: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, Option<HeaderMap>, usize), &'static str> {
        let mut chunks = Chunks::begin();
        let (mut read, mut body) = (BytesMut::new(), Vec::new());
        let mut pieces = text.chunks(step);
        loop {
            match chunks.next(&mut read)? {
                Found::Data(data) => body.extend_from_slice(&data),
                Found::End(trailers) => {
                    let left = read.len() + pieces.map(<[u8]>::len).sum::<usize>();
                    return Ok((body, trailers, left));
                }
                Found::Nothing => match pieces.next() {
                    Some(piece) => read.extend_from_slice(piece),
                    None => return Err("unfinished"),
                },
            }
        }
    }

    #[test]
    fn bodies_are_the_same_however_they_are_cut() {
        for (text, body, left) in [
            ("0\r\n\r\n", "", 0),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", 0),
            ("5\r\nhello\r\n0\r\n\r\nHTTP/1.1", "hello", 8),
            (
                "005;a=\"b\";c\r\nhello\r\n1 \r\n!\r\n00\r\n\r\n",
                "hello!",
                0,
            ),
            ("A\r\n0123456789\r\n0;x\r\n\r\n", "0123456789", 0),
        ] {
            for step in [1, 2, 3, 7, 1000] {
                let decoded = decode(text.as_bytes(), step).unwrap();
                assert_eq!((decoded.0.as_slice(), decoded.2), (body.as_bytes(), left));
                assert!(decoded.1.is_none());
            }
        }
    }

    #[test]
    fn trailers_come_at_the_end() {
        for step in [1, 5, 1000] {
            let (body, trailers, left) =
                decode(b"1\r\nx\r\n0\r\nx-sum: 7\r\nx-sum: 8\r\n\r\n", step).unwrap();
            assert_eq!((body.as_slice(), left), (&b"x"[..], 0));
            assert_eq!(trailers.unwrap().get_all("x-sum").iter().count(), 2);
        }
    }

    #[test]
    fn nothing_is_guessed() {
        let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(LONGEST_EXTENSION + 1));
        let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MOST_TRAILERS + 1));
        let endless = format!("0\r\na: {}", "b".repeat(LARGEST_TRAILERS));
        let large = format!("{endless}\r\n\r\n");
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\nx",
            "+5\r\nhello",
            "0x5\r\nhello",
            " 5\r\nhello",
            "5 0\r\nhello",
            "5\t5\r\nhello",
            "5 x;a\r\nhello",
            "5;a\0\r\nhello",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\r\nhello",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5;a\nb\r\nhello",
            "10000000000000000\r\n",
            "1\r\nx\r\n0\r\nbad name: 1\r\n\r\n",
            "0\r\n\n",
            "0\r\na: b\n\r\n",
            "0\r\na: b\r\n\n",
            &long,
            &many,
            &endless,
            &large,
        ] {
            for step in [1 + text.len() / 100, 1000, 100_000] {
                let decoded = decode(text.as_bytes(), step);
                assert!(
                    decoded.as_ref().is_err_and(|why| *why != "unfinished"),
                    "{text:.60}: {decoded:?}"
                );
            }
        }
        assert_eq!(decode(b"5\r\nhel", 2), Err("unfinished"));
    }
}
