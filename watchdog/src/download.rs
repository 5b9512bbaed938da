//! The answer's body on its way from the function's own server to the client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::refusal::NOT_ACCEPTED;
use crate::upstream::Link;
use crate::watchdog::Counted;

/// A body that the function is sending; while it lives, the call goes on.
#[derive(Debug)]
pub(crate) struct Download {
    body: Incoming,
    /// Kept for the next call when this one is over.
    link: Option<Link>,
    /// Why the body is to be broken, as soon as what was passed on before has been written.
    failure: Option<String>,
    _slot: Counted,
}

impl Download {
    /// The body that comes over `link`, which is given if it can be kept.
    pub(crate) fn new(body: Incoming, link: Option<Link>, slot: Counted) -> Self {
        Self {
            body,
            link,
            failure: None,
            _slot: slot,
        }
    }

    /// The next piece, trailers included.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(io::Error::other(failure))));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            // An error at once would make hyper drop what it has not written yet, even the head: it gets one turn.
            Poll::Ready(Some(Err(error))) => {
                self.failure = Some(error.to_string());
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    trailers.remove(NOT_ACCEPTED);
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
