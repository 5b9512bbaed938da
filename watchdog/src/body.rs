//! The body of every answer: bytes at hand, or the output of a run that goes on.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::connection::Activity;
use crate::stream::Stream;

/// A response body; while it lives, its connection is in a call.
#[derive(Debug)]
pub(crate) struct Body {
    content: Content,
    call: Option<Rc<Activity>>,
}

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Streamed(Box<Stream>),
}

impl Body {
    /// A body that is complete already.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self {
            content: Content::Whole(bytes.into()),
            call: None,
        }
    }

    /// A body that a run is still writing.
    pub(crate) fn streamed(stream: Stream) -> Self {
        Self {
            content: Content::Streamed(Box::new(stream)),
            call: None,
        }
    }

    /// Ties the body to its connection, which is idle again once the body is gone.
    pub(crate) fn on(mut self, connection: Rc<Activity>) -> Self {
        self.call = Some(connection);
        self
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(connection) = &self.call {
            connection.call_is_over();
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Streamed(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(_) => SizeHint::default(),
        }
    }
}

/// What a service that answers everything itself returns.
pub(crate) type Answer = Result<hyper::Response<Body>, Infallible>;
