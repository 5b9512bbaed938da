//! A message on its way out on one connection: head, body, framing (RFC 9112 §7.1).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::HeaderMap;
use hyper::body::{Body, Frame};
use hyper::header::{HeaderName, HeaderValue, TRAILER};
use tokio::io::AsyncWrite;

/// Pieces of a body are copied behind the framing as long as all of it is no longer than this, and go out as one: cheaper for the
/// kernel than several places to collect them from.
const COPIED: usize = 4 * 1024;
/// And so many of them: a body of which the other side has got nothing shall not be past what is kept of it (`upload.rs`).
const MOST_GATHERED: usize = 64;

/// What is still to be sent on one connection. Its buffer is used for one message after the other.
pub(crate) struct Writing<B> {
    /// Framing that goes before `data`, and how much of it has gone.
    framing: Vec<u8>,
    gone: usize,
    data: Bytes,
    body: Option<B>,
    length: Length,
    /// The trailers that the head has declared; no others are sent.
    declared: Vec<HeaderName>,
    /// How many bytes of the message have gone.
    sent: u64,
    has_failed: bool,
}

/// How a body says where it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Length {
    /// So much of it is to come.
    Exact(u64),
    /// In chunks.
    #[default]
    Chunked,
    /// In chunks, and the last one's line end is still owed.
    ChunkOpen,
    /// With the connection.
    ToClose,
}

/// Why no more is sent.
#[derive(Debug)]
pub(crate) enum Halt<E> {
    /// The body broke off.
    Body(E),
    /// The other side takes no more.
    Closed(io::Error),
}

impl<B> Default for Writing<B> {
    fn default() -> Self {
        Self {
            framing: Vec::new(),
            gone: 0,
            data: Bytes::new(),
            body: None,
            length: Length::default(),
            declared: Vec::new(),
            sent: 0,
            has_failed: false,
        }
    }
}

impl<B> Writing<B> {
    /// Begins with a message, whose head is to be written here.
    pub(crate) fn begin(&mut self) -> &mut Vec<u8> {
        self.framing.clear();
        self.gone = 0;
        (self.sent, self.has_failed) = (0, false);
        self.declared.clear();
        &mut self.framing
    }

    /// The trailers that may follow are those that this head declares.
    pub(crate) fn declare(&mut self, headers: &HeaderMap) {
        let names = headers.get_all(TRAILER).iter();
        let names = names.flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
        let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
        self.declared.extend(names);
    }

    /// Ends the head; this is to follow.
    pub(crate) fn follow(&mut self, length: Length, body: Option<B>) {
        self.framing.extend_from_slice(b"\r\n");
        (self.length, self.body) = (length, body);
    }

    /// Whether all has been sent.
    pub(crate) fn is_done(&self) -> bool {
        self.body.is_none() && self.is_written() && !self.has_failed
    }

    /// Whether nothing but the end of the connection says where this message ends.
    pub(crate) fn ends_with_connection(&self) -> bool {
        self.length == Length::ToClose
    }

    /// How many bytes of this message have been sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether no more will be sent, and some is missing.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Gives a buffer back that is larger than most messages need.
    pub(crate) fn release(&mut self) {
        if self.is_written() && self.framing.capacity() > COPIED {
            (self.framing, self.gone) = (Vec::new(), 0);
        }
    }

    /// Whether all that there is has been given to the connection: what is still to come is the body's.
    pub(crate) fn is_written(&self) -> bool {
        self.gone == self.framing.len() && self.data.is_empty()
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let framing = &self.framing[self.gone..];
        let wrote = if self.data.is_empty() {
            Pin::new(io).poll_write(cx, framing)
        } else if framing.is_empty() {
            Pin::new(io).poll_write(cx, &self.data)
        } else {
            let pieces = [IoSlice::new(framing), IoSlice::new(&self.data)];
            Pin::new(io).poll_write_vectored(cx, &pieces)
        };
        let wrote = ready!(wrote)?;
        if wrote == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.sent += wrote as u64;
        let of_framing = wrote.min(self.framing.len() - self.gone);
        self.gone += of_framing;
        self.data.advance(wrote - of_framing);
        Poll::Ready(Ok(()))
    }
}

impl<B> Writing<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: From<&'static str>,
{
    /// Sends what can be sent; ready when that was all, and with nothing left to do after a failure.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Halt<B::Error>>> {
        let (mut gathered, mut is_pending) = (0, false);
        loop {
            // Before anything is written: a head and the small pieces behind it that are there go out together.
            while !is_pending
                && gathered < MOST_GATHERED
                && self.data.is_empty()
                && self.framing.len() - self.gone <= COPIED
                && let Some(body) = &mut self.body
            {
                match Pin::new(body).poll_frame(cx) {
                    Poll::Ready(next) => {
                        if let Err(error) = next.transpose().and_then(|next| self.frame(next)) {
                            if gathered > 0 {
                                // As if it had gone out before the body was asked for more.
                                let _ = self.poll_write(cx, io);
                            }
                            return Poll::Ready(Err(self.halt(Halt::Body(error))));
                        }
                        // An empty piece is none: once there are so many, there is something to write.
                        gathered += usize::from(!self.is_written());
                    }
                    Poll::Pending => is_pending = true,
                }
            }
            if self.is_written() {
                // TLS keeps what it was given until it is told.
                if let Err(error) = ready!(Pin::new(&mut *io).poll_flush(cx)) {
                    return Poll::Ready(Err(self.halt(Halt::Closed(error))));
                }
                return if is_pending {
                    Poll::Pending
                } else {
                    Poll::Ready(Ok(()))
                };
            }
            if let Err(error) = ready!(self.poll_write(cx, io)) {
                return Poll::Ready(Err(self.halt(Halt::Closed(error))));
            }
            gathered = 0;
        }
    }

    fn halt(&mut self, halt: Halt<B::Error>) -> Halt<B::Error> {
        (self.body, self.data) = (None, Bytes::new());
        self.framing.clear();
        self.gone = 0;
        self.has_failed = true;
        halt
    }

    /// Takes the next piece of the body, or its end.
    fn frame(&mut self, next: Option<Frame<Bytes>>) -> Result<(), B::Error> {
        // However little goes out each time, the buffer does not grow with the body.
        self.framing.drain(..self.gone);
        self.gone = 0;
        let Some(frame) = next else {
            return self.end(&HeaderMap::new());
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => self.piece(data),
            Err(frame) => self.end(&frame.into_trailers().unwrap_or_default()),
        }
    }

    fn piece(&mut self, data: Bytes) -> Result<(), B::Error> {
        match &mut self.length {
            Length::Exact(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or("the body is longer than its Content-Length")?;
            }
            Length::ToClose => {}
            length => {
                let line_end = if matches!(length, Length::ChunkOpen) {
                    "\r\n"
                } else {
                    ""
                };
                *length = Length::ChunkOpen;
                let size = format_args!("{line_end}{:x}\r\n", data.len());
                let _ = io::Write::write_fmt(&mut self.framing, size);
            }
        }
        if self.framing.len() + data.len() <= COPIED {
            self.framing.extend_from_slice(&data);
        } else {
            self.data = data;
        }
        // What is known to be all needs not be asked again.
        if self.body.as_ref().is_some_and(Body::is_end_stream) {
            match self.length {
                Length::Exact(0) | Length::ToClose => self.body = None,
                Length::ChunkOpen if self.data.is_empty() => return self.end(&HeaderMap::new()),
                _ => {}
            }
        }
        Ok(())
    }

    fn end(&mut self, trailers: &HeaderMap) -> Result<(), B::Error> {
        self.body = None;
        match self.length {
            Length::Exact(0) | Length::ToClose => Ok(()),
            Length::Exact(_) => Err("the body is shorter than its Content-Length".into()),
            Length::Chunked | Length::ChunkOpen => {
                if matches!(self.length, Length::ChunkOpen) {
                    self.framing.extend_from_slice(b"\r\n");
                }
                self.framing.extend_from_slice(b"0\r\n");
                let is_declared = |name: &HeaderName| self.declared.contains(name);
                for (name, value) in trailers.iter().filter(|(name, _)| is_declared(name)) {
                    write_field(&mut self.framing, name, value);
                }
                self.framing.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

/// A field that says how long a body is.
pub(crate) fn write_length(into: &mut Vec<u8>, length: u64) {
    let mut digits = itoa::Buffer::new();
    for piece in ["content-length: ", digits.format(length), "\r\n"] {
        into.extend_from_slice(piece.as_bytes());
    }
}

/// One field.
pub(crate) fn write_field(into: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        into.extend_from_slice(piece);
    }
}

#[cfg(test)]
#[path = "writing_tests.rs"]
mod tests;
