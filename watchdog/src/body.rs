//! The body of every answer: bytes at hand, or the output of a run that goes on.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::activity::Activity;
use crate::download::Download;
use crate::excerpt::Excerpt;
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
    Proxied(Box<Download>),
    File(Box<Excerpt>),
}

impl Body {
    /// A body that is complete already.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::of(Content::Whole(bytes.into()))
    }

    /// A body that a run is still writing.
    pub(crate) fn streamed(stream: Stream) -> Self {
        Self::of(Content::Streamed(Box::new(stream)))
    }

    /// A body that the function's own server is sending.
    pub(crate) fn proxied(download: Download) -> Self {
        Self::of(Content::Proxied(Box::new(download)))
    }

    /// A body that lies in a file.
    pub(crate) fn file(excerpt: Excerpt) -> Self {
        Self::of(Content::File(Box::new(excerpt)))
    }

    fn of(content: Content) -> Self {
        Self {
            content,
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
        let Self { content, call } = &mut *self;
        let next = match content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Streamed(stream) => stream.poll_frame(cx),
            Content::Proxied(download) => {
                let next = download.poll_frame(cx);
                if let Some(call) = &call {
                    call.set_call_limit(download.until());
                }
                next
            }
            Content::File(excerpt) => Poll::Ready(excerpt.next()),
        };
        if let (Poll::Ready(Some(next)), Some(call)) = (&next, &call) {
            match next {
                Ok(frame) => call.passes_on(frame.data_ref().map_or(0, Bytes::len)),
                Err(_) => call.breaks_off(),
            }
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Streamed(_) => false,
            Content::Proxied(download) => download.is_end_stream(),
            Content::File(excerpt) => excerpt.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(_) => SizeHint::default(),
            Content::Proxied(download) => download.size_hint(),
            Content::File(excerpt) => SizeHint::with_exact(excerpt.left()),
        }
    }
}

/// What a service that answers everything itself returns.
pub(crate) type Answer = Result<hyper::Response<Body>, Infallible>;
