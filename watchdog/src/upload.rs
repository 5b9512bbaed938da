//! The request's body on its way to the function's own server.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// A body: passed on as it arrives, or gathered before.
#[derive(Debug)]
pub(crate) struct Upload {
    content: Content,
    progress: Rc<Progress>,
}

/// How far it is; seen by the call while the connection drives the body.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    is_whole: Cell<bool>,
    failure: RefCell<Option<String>>,
}

#[derive(Debug)]
enum Content {
    Arriving(Incoming),
    Whole(Bytes),
}

impl Default for Upload {
    /// No body.
    fn default() -> Self {
        Self::whole(Bytes::new())
    }
}

impl Upload {
    /// A body that is passed on while it arrives.
    pub(crate) fn arriving(body: Incoming) -> Self {
        let progress = Rc::<Progress>::default();
        progress.is_whole.set(body.is_end_stream());
        Self {
            content: Content::Arriving(body),
            progress,
        }
    }

    /// A body that is there.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        let progress = Rc::<Progress>::default();
        progress.is_whole.set(true);
        Self {
            content: Content::Whole(bytes),
            progress,
        }
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
    }
}

impl Progress {
    /// Whether all of it has arrived.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole.get()
    }

    /// Why it broke off, if the client is to blame.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => None,
            Content::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Content::Arriving(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        match &frame {
            None => self.progress.is_whole.set(true),
            Some(Err(error)) => *self.progress.failure.borrow_mut() = Some(error.to_string()),
            Some(Ok(_)) => self.progress.is_whole.set(self.is_end_stream()),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Arriving(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Arriving(body) => body.size_hint(),
        }
    }
}
