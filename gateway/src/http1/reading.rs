//! What is read on one connection: the buffer, and how far the message in it has come (RFC 9112 §6.3).

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use httparse::Header;
use hyper::body::{Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use tokio::io::AsyncRead;

use super::chunks::{Chunks, Found};

/// How much is read at once: more while it comes in full. A message begins with what those before it needed, and most need so
/// little that malloc has it at hand.
const SMALLEST_READ: usize = 1000;
const LARGEST_FIRST_READ: usize = 4 * SMALLEST_READ;
const LARGEST_READ: usize = 64 * 1024;
/// As many fields as nearly every head has; more of them cost an allocation.
const USUAL_FIELDS: usize = 32;

/// What was read on one connection, and how much of a body is to come.
#[derive(Default)]
pub(crate) struct Reading {
    read: BytesMut,
    /// How much is read at once, and the most that came since the message began.
    room: usize,
    came: usize,
    rest: Rest,
    /// So much of an unfinished head has been looked through for its end.
    seen: usize,
    /// So many bytes of empty lines stood before the head.
    skipped: usize,
}

/// What is to come of a body.
#[derive(Default)]
pub(crate) enum Rest {
    /// So much.
    Exact(u64),
    /// Chunks.
    Chunked(Chunks),
    /// Everything until the connection is closed.
    ToClose,
    /// Nobody knows: this is wrong with what came. Nothing of it is read a second time.
    Wrong(&'static str),
    /// Nothing.
    #[default]
    Over,
}

/// Why there is no more.
#[derive(Debug)]
pub(crate) enum Broken {
    /// What came is not HTTP as we read it.
    Nonsense(&'static str),
    /// The connection ended, or broke.
    Closed(Option<io::Error>),
}

impl Rest {
    /// A body of so many bytes.
    pub(crate) fn exactly(length: u64) -> Self {
        match length {
            0 => Self::Over,
            length => Self::Exact(length),
        }
    }

    /// A chunked body.
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunks::begin())
    }
}

impl Reading {
    /// Begins with a message: its head is to come.
    pub(crate) fn begin(&mut self) {
        if self.came < self.room / 4 {
            self.room /= 2;
        }
        self.room = self.room.clamp(SMALLEST_READ, LARGEST_FIRST_READ);
        (self.came, self.seen, self.skipped) = (0, 0, 0);
    }

    /// The head has been taken; this is to follow. A body whose length is known is read in as few pieces as can be.
    pub(crate) fn expect(&mut self, rest: Rest) {
        if let Rest::Exact(length) = rest {
            let length = usize::try_from(length).unwrap_or(LARGEST_READ);
            self.room = self.room.max(length.min(LARGEST_READ));
        }
        self.rest = rest;
    }

    /// Whether all of the body has been taken.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.rest, Rest::Over)
    }

    /// How many bytes have been read and not been taken.
    pub(crate) fn len(&self) -> usize {
        self.read.len()
    }

    /// What has been read and not been taken.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.read
    }

    /// How much of the body is to come.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.rest {
            Rest::Over => SizeHint::with_exact(0),
            Rest::Exact(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }

    /// Takes what has been read beyond the message.
    pub(crate) fn take_rest(&mut self) -> BytesMut {
        std::mem::take(&mut self.read)
    }

    /// Reads what there is; 0 is the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        let spare = |read: &BytesMut| read.capacity() - read.len();
        // What is left of a buffer is used first: pieces of a body hold theirs, and each byte of a client that sends them one by one
        // would hold one of its own.
        if spare(&self.read) < self.room / 4 {
            self.read.reserve(self.room);
        }
        let spare = spare(&self.read);
        let read = ready!(poll_read(cx, io, &mut self.read))?;
        self.came = self.came.max(read);
        if read == spare {
            self.room = (self.room * 2).min(LARGEST_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// Gives the buffer back if there is nothing in it: whoever lies idle needs none.
    pub(crate) fn release(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
    }

    /// Leaves out empty lines, which may stand before a request (RFC 9112 §2.2). Each of them is looked at once, however many come.
    pub(crate) fn skip_empty_lines(&mut self) {
        loop {
            let length = match &self.read[..] {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                _ => return,
            };
            self.read.advance(length);
            self.seen = self.seen.saturating_sub(length);
            self.skipped += length;
        }
    }

    /// How many bytes of empty lines stood before the head.
    pub(crate) fn skipped(&self) -> usize {
        self.skipped
    }

    /// Whether it is worth while to look for a head: at what has come first, and again when an empty line has come.
    pub(crate) fn may_have_a_head(&mut self) -> bool {
        if self.seen == 0 {
            return !self.read.is_empty();
        }
        let new = &self.read[self.seen.saturating_sub(2).min(self.read.len())..];
        let may = new.windows(2).any(|two| two == b"\n\n")
            || new.windows(3).any(|three| three == b"\n\r\n");
        if !may {
            // However small the pieces are, each of them is looked at once.
            self.has_no_head();
        }
        may
    }

    /// All of it has been looked at, and there is no whole head.
    pub(crate) fn has_no_head(&mut self) {
        self.seen = self.read.len();
    }

    /// Takes a head of this length.
    pub(crate) fn take(&mut self, length: usize) -> Bytes {
        self.seen = 0;
        self.read.split_to(length).freeze()
    }

    /// The next piece of the body, or its end.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin),
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match &mut self.rest {
                Rest::Wrong(what) => return Poll::Ready(Some(Err(Broken::Nonsense(what)))),
                Rest::Over | Rest::Exact(0) => {
                    self.rest = Rest::Over;
                    return Poll::Ready(None);
                }
                Rest::Exact(left) if !self.read.is_empty() => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let data = self.read.split_to(most.min(self.read.len())).freeze();
                    *left -= data.len() as u64;
                    if *left == 0 {
                        self.rest = Rest::Over;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Rest::ToClose if !self.read.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(self.read.split().freeze()))));
                }
                Rest::Chunked(chunks) => match chunks.next(&mut self.read) {
                    Ok(Found::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Found::End(trailers)) => {
                        self.rest = Rest::Over;
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                    }
                    Ok(Found::Nothing) => {}
                    Err(what) => {
                        self.rest = Rest::Wrong(what);
                        continue;
                    }
                },
                Rest::Exact(_) | Rest::ToClose => {}
            }
            match ready!(self.poll_read(cx, io)) {
                Ok(0) if matches!(self.rest, Rest::ToClose) => self.rest = Rest::Over,
                Ok(0) => return Poll::Ready(Some(Err(Broken::Closed(None)))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(Broken::Closed(Some(error))))),
            }
        }
    }
}

/// Where the fields of a head stand in what was read. Values are pieces of that, not copies; so their places are noted until the
/// head has been cut off.
#[derive(Default)]
pub(crate) struct Places(SmallVec<[(Place, Place); USUAL_FIELDS]>);

/// First byte, and the one after the last.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place(u32, u32);

impl Place {
    /// Where a piece of it stands.
    pub(crate) fn within(whole: &[u8], piece: &[u8]) -> Self {
        let start = piece.as_ptr().addr() - whole.as_ptr().addr();
        let at = |index: usize| u32::try_from(index).expect("a head is smaller than 4 GiB");
        Self(at(start), at(start + piece.len()))
    }

    /// What stands there.
    pub(crate) fn of(self, text: &Bytes) -> Bytes {
        text.slice(self.0 as usize..self.1 as usize)
    }
}

impl Places {
    /// Notes them.
    pub(crate) fn note(&mut self, whole: &[u8], fields: &[Header<'_>]) {
        let place = |field: &Header<'_>| {
            let name = Place::within(whole, field.name.as_bytes());
            (name, Place::within(whole, field.value))
        };
        self.0.extend(fields.iter().map(place));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The fields themselves, in their order; `None` for one that is none.
    pub(crate) fn fields<'a>(
        &'a self,
        text: &'a Bytes,
    ) -> impl Iterator<Item = Option<(HeaderName, HeaderValue)>> + 'a {
        self.0.iter().map(|&(name, value)| {
            let name = HeaderName::from_bytes(&text[name.0 as usize..name.1 as usize]);
            let value = HeaderValue::from_maybe_shared(value.of(text));
            name.ok().zip(value.ok())
        })
    }
}

/// Whether a list has this token.
pub(crate) fn says(list: &HeaderValue, token: &str) -> bool {
    let tokens = list.as_bytes().split(|byte| *byte == b',');
    tokens
        .map(<[u8]>::trim_ascii)
        .any(|one| one.eq_ignore_ascii_case(token.as_bytes()))
}

/// The length that all `Content-Length` fields agree on.
pub(crate) fn agreed(before: Option<u64>, value: &HeaderValue) -> Result<u64, &'static str> {
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err("its Content-Length is no number");
    }
    let length = value.to_str().ok().and_then(|digits| digits.parse().ok());
    match (before, length) {
        (_, None) => Err("its Content-Length is too large"),
        (Some(before), Some(length)) if before != length => Err("it has two lengths"),
        (_, Some(length)) => Ok(length),
    }
}

/// Reads what there is, into what is spare; 0 is the end.
fn poll_read(
    cx: &mut Context<'_>,
    io: &mut (impl AsyncRead + Unpin),
    into: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    use tokio::io::AsyncReadExt;
    let mut read = std::pin::pin!(io.read_buf(into));
    Future::poll(read.as_mut(), cx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_of_a_head_is_looked_at_once() {
        let mut reading = Reading::default();
        let head = b"GET / HTTP/1.1\r\na: b\r\n\r\n";
        for (at, byte) in head.iter().enumerate() {
            reading.read.extend_from_slice(&[*byte]);
            let is_worth_while = at == 0 || at + 1 == head.len();
            assert_eq!(reading.may_have_a_head(), is_worth_while, "{at}");
            if at == 0 {
                reading.has_no_head();
            } else if !is_worth_while {
                assert_eq!(reading.seen, at + 1);
            }
        }
    }
}
