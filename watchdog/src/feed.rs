//! The request's body on its way into the command.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use crate::marshal::{self, Base64};
use crate::pipes::Writer;

/// Moves a body into a pipe, as fast as the command takes it.
#[derive(Debug)]
pub(crate) struct Feed {
    body: Option<Incoming>,
    pipe: Writer,
    waiting: Bytes,
    marshal: Option<Base64>,
}

impl Feed {
    /// A feed of the plain body.
    pub(crate) fn plain(body: Incoming, pipe: Writer) -> Self {
        Self {
            body: Some(body),
            pipe,
            waiting: Bytes::new(),
            marshal: None,
        }
    }

    /// Nothing.
    pub(crate) fn empty(pipe: Writer) -> Self {
        Self {
            body: None,
            pipe,
            waiting: Bytes::new(),
            marshal: None,
        }
    }

    /// A feed of the JSON object that holds headers and body.
    pub(crate) fn marshalled(headers: &HeaderMap, body: Incoming, pipe: Writer) -> Self {
        let waiting = Bytes::from(marshal::opening(headers));
        Self {
            body: Some(body),
            pipe,
            waiting,
            marshal: Some(Base64::default()),
        }
    }

    /// Whether the whole body has arrived.
    pub(crate) fn has_whole_body(&self) -> bool {
        self.body.is_none()
    }

    /// What is left of the body when the command has ended before it was all sent.
    pub(crate) fn take_rest(&mut self) -> Option<Incoming> {
        self.pipe.close();
        self.body.take()
    }

    /// Moves what can be moved; an error is the client's: its body broke off.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        loop {
            while !self.waiting.is_empty() {
                match ready!(self.pipe.poll_write(cx, &self.waiting)) {
                    Ok(count) => drop(self.waiting.split_to(count)),
                    // The command closed its input. That is its right; the rest of the body is read and dropped,
                    // because many clients look for the answer only after they have sent everything.
                    Err(_) => {
                        self.waiting = Bytes::new();
                        self.pipe.close();
                    }
                }
            }
            let Some(body) = &mut self.body else {
                self.pipe.close();
                return Poll::Ready(Ok(()));
            };
            // Also ends a body without bytes at once, without a turn through the connection.
            let frame = if body.is_end_stream() {
                None
            } else {
                ready!(Pin::new(body).poll_frame(cx))
            };
            match frame {
                Some(frame) => self.take_frame(frame?),
                None => self.end_body(),
            }
        }
    }

    fn take_frame(&mut self, frame: hyper::body::Frame<Bytes>) {
        // Trailers have no place in a command's input.
        let Ok(data) = frame.into_data() else { return };
        if matches!(self.pipe, Writer::Closed) {
            return;
        }
        self.waiting = match &mut self.marshal {
            Some(encoder) => Bytes::from(encoder.push(&data)),
            None => data,
        };
    }

    fn end_body(&mut self) {
        self.body = None;
        if let Some(mut encoder) = self.marshal.take() {
            let mut tail = encoder.finish();
            tail.extend_from_slice(marshal::TAIL);
            self.waiting = Bytes::from(tail);
        }
    }
}

/// Reads and drops the rest of a body in the background, so that the client can finish sending and then reads our
/// answer; the connection is closed if that takes beyond `until`.
pub(crate) fn discard(mut body: Incoming, until: Option<Instant>) {
    if body.is_end_stream() {
        return;
    }
    let drained = async move {
        while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
    };
    tokio::task::spawn_local(async move {
        match until {
            Some(until) => drop(tokio::time::timeout_at(until, drained).await),
            None => drained.await,
        }
    });
}
