//! The answer's body on its way from the function's own server to the client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::HeaderName;
use tokio::time::Instant;

use crate::chunks::is_forbidden;
use crate::refusal::NOT_ACCEPTED;
use crate::upstream::Link;
use crate::watchdog::Counted;

/// A body that the function is sending; while it lives, the call goes on.
#[derive(Debug)]
pub(crate) struct Download {
    body: Incoming,
    /// Kept for the next call when this one is over.
    link: Option<Link>,
    /// How long nothing may come.
    pause_limit: Option<Duration>,
    /// When that is over; `None` while something comes.
    until: Option<Instant>,
    /// Why the body is to be broken, as soon as what was passed on before has been written.
    failure: Option<String>,
    _slot: Counted,
}

impl Download {
    /// The body that comes over `link`, which is given if it can be kept.
    pub(crate) fn new(
        body: Incoming,
        link: Option<Link>,
        slot: Counted,
        pause_limit: Option<Duration>,
    ) -> Self {
        Self {
            body,
            link,
            pause_limit,
            until: None,
            failure: None,
            _slot: slot,
        }
    }

    /// When it is to be broken off if nothing comes.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The next piece, trailers included.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(io::Error::other(failure))));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.until = match frame {
            Poll::Ready(_) => None,
            Poll::Pending => self
                .until
                .or_else(|| Instant::now().checked_add(self.pause_limit?)),
        };
        match frame {
            // An error at once would make hyper drop what it has not written yet, even the head: it gets one turn.
            Poll::Ready(Some(Err(error))) => {
                self.failure = Some(error.to_string());
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    trailers.remove(NOT_ACCEPTED);
                    let forbidden = |name: &&HeaderName| is_forbidden(name);
                    let names: Vec<_> = trailers.keys().filter(forbidden).cloned().collect();
                    for name in names {
                        trailers.remove(name);
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether nothing more comes.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.failure.is_none() && self.body.is_end_stream()
    }

    /// Its length, if the function has said it.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.keep();
        }
    }
}
