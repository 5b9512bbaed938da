//! A request on its way to an endpoint: head, body, framing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::HeaderMap;
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRAILER, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use tokio::io::AsyncWrite;

use crate::told::Told;
use crate::upload::{self, Upload};

/// What is still to be sent on one connection. Its buffer is used for one request after the other.
#[derive(Default)]
pub(super) struct Sending {
    /// Framing that goes before `data`, and how much of it has gone.
    framing: Vec<u8>,
    gone: usize,
    data: Bytes,
    body: Option<Upload>,
    length: Length,
    /// The trailers that the head has declared; no others are sent.
    declared: Vec<HeaderName>,
    /// How many bytes of the request have gone.
    sent: u64,
    has_failed: bool,
}

/// How a body says where it ends.
#[derive(Default)]
enum Length {
    /// So much of it is to come.
    Exact(u64),
    /// In chunks; whether the last one's line end is still owed.
    #[default]
    Chunked,
    ChunkOpen,
}

/// Why no more is sent.
#[derive(Debug)]
pub(super) enum Halt {
    /// The caller's body broke off.
    Caller(upload::Error),
    /// The other side takes no more.
    Closed(io::Error),
}

impl Sending {
    /// Begins with a request; its head says how its body is framed, and that is said again in one way only.
    pub(super) fn begin(&mut self, head: &Parts, told: Option<&Told<'_>>, body: Upload) {
        self.framing.clear();
        self.gone = 0;
        (self.sent, self.has_failed) = (0, false);
        self.declared.clear();
        let names = head.headers.get_all(TRAILER).iter();
        let names = names.flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
        let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
        self.declared.extend(names);
        write_head(&mut self.framing, head, told);
        let is_chunked = head.headers.contains_key(TRANSFER_ENCODING);
        (self.length, self.body) = match length(&head.headers) {
            Some(length) if !is_chunked => {
                write_length(&mut self.framing, length);
                (Length::Exact(length), (length > 0).then_some(body))
            }
            None if !is_chunked && body.is_end_stream() => (Length::Exact(0), None),
            _ => {
                let chunked = HeaderValue::from_static("chunked");
                write_field(&mut self.framing, &TRANSFER_ENCODING, &chunked);
                (Length::Chunked, Some(body))
            }
        };
        self.framing.extend_from_slice(b"\r\n");
    }

    /// Whether all has been sent.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && self.is_written() && !self.has_failed
    }

    /// How many bytes of this request have been sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether no more will be sent, and some is missing.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    fn is_written(&self) -> bool {
        self.gone == self.framing.len() && self.data.is_empty()
    }

    /// Sends what can be sent; ready when that was all, and with nothing left to do after a failure.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Halt>> {
        loop {
            // Before anything is written: a head and the beginning of its body go out together.
            if self.data.is_empty()
                && let Some(body) = &mut self.body
            {
                match Pin::new(body).poll_frame(cx) {
                    Poll::Ready(next) => {
                        if let Err(error) = next.transpose().and_then(|next| self.frame(next)) {
                            return Poll::Ready(Err(self.halt(Halt::Caller(error))));
                        }
                    }
                    Poll::Pending if self.is_written() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            if self.is_written() {
                if self.body.is_none() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if let Err(error) = ready!(self.poll_write(cx, io)) {
                return Poll::Ready(Err(self.halt(Halt::Closed(error))));
            }
        }
    }

    fn halt(&mut self, halt: Halt) -> Halt {
        (self.body, self.data) = (None, Bytes::new());
        self.framing.clear();
        self.gone = 0;
        self.has_failed = true;
        halt
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

    /// Takes the next piece of the body, or its end.
    fn frame(&mut self, next: Option<Frame<Bytes>>) -> Result<(), upload::Error> {
        if self.gone == self.framing.len() {
            self.framing.clear();
            self.gone = 0;
        }
        let Some(frame) = next else {
            return self.end(&HeaderMap::new());
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => self.piece(data),
            Err(frame) => self.end(&frame.into_trailers().unwrap_or_default()),
        }
    }

    fn piece(&mut self, data: Bytes) -> Result<(), upload::Error> {
        match &mut self.length {
            Length::Exact(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or("the body is longer than its Content-Length")?;
            }
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
        self.data = data;
        // What is known to be all needs not be asked again.
        let is_over = self.body.as_ref().is_some_and(Body::is_end_stream);
        if is_over && matches!(self.length, Length::Exact(0)) {
            self.body = None;
        }
        Ok(())
    }

    fn end(&mut self, trailers: &HeaderMap) -> Result<(), upload::Error> {
        self.body = None;
        match self.length {
            Length::Exact(0) => Ok(()),
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

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn write_length(into: &mut Vec<u8>, length: u64) {
    // Into memory: never fails.
    let _ = io::Write::write_fmt(into, format_args!("{CONTENT_LENGTH}: {length}\r\n"));
}

/// The request line and the fields, then what the function is told; without what frames the body, and without the empty line.
fn write_head(into: &mut Vec<u8>, head: &Parts, told: Option<&Told<'_>>) {
    let target = head.uri.path_and_query();
    for piece in [
        head.method.as_str(),
        " ",
        target.map_or("/", |target| target.as_str()),
        " HTTP/1.1\r\n",
    ] {
        into.extend_from_slice(piece.as_bytes());
    }
    let mut host = None;
    for (name, value) in &head.headers {
        if name == HOST {
            host = Some(value);
        }
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            write_field(into, name, value);
        }
    }
    if let Some(told) = told {
        told.write(into, host);
    }
}

fn write_field(into: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        into.extend_from_slice(piece);
    }
}
