//! The request's body on its way to the function's own server.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// The most of a body that is kept to be sent once more.
const MOST_KEPT: usize = 16 * 1024;

/// A body: passed on as it arrives, or gathered before. One of several that send the same source, one after the other.
#[derive(Debug)]
pub(crate) struct Upload {
    source: Rc<Source>,
    /// How many of the kept pieces this one has sent.
    sent: usize,
}

/// Where the body comes from, and how far it is; seen by the call while the connection drives the body.
#[derive(Debug)]
pub(crate) struct Source {
    content: RefCell<Content>,
    /// What has been sent, to be sent once more; `None` if that is not possible.
    kept: RefCell<Option<Vec<Bytes>>>,
    is_whole: Cell<bool>,
    failure: RefCell<Option<String>>,
}

#[derive(Debug)]
enum Content {
    Arriving(Incoming),
    Whole(Bytes),
}

impl Source {
    /// A body that is passed on while it arrives; kept for once more if it is small and `is_kept`.
    pub(crate) fn arriving(body: Incoming, is_kept: bool) -> Rc<Self> {
        let is_whole = body.is_end_stream();
        Self::new(Content::Arriving(body), is_whole, is_kept)
    }

    /// A body that is there.
    pub(crate) fn whole(bytes: Bytes, is_kept: bool) -> Rc<Self> {
        Self::new(Content::Whole(bytes), true, is_kept)
    }

    fn new(content: Content, is_whole: bool, is_kept: bool) -> Rc<Self> {
        Rc::new(Self {
            content: RefCell::new(content),
            kept: RefCell::new(is_kept.then(Vec::new)),
            is_whole: Cell::new(is_whole),
            failure: RefCell::default(),
        })
    }

    /// The body from its beginning; only the first time, or while it can be repeated.
    pub(crate) fn upload(self: &Rc<Self>) -> Upload {
        Upload {
            source: Rc::clone(self),
            sent: 0,
        }
    }

    /// Whether all of it can be sent once more.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.kept.borrow().is_some() && self.failure.borrow().is_none()
    }

    /// Whether all of it has arrived.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole.get()
    }

    /// Why it broke off, if the client is to blame.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    fn keep(&self, frame: &Frame<Bytes>) {
        let mut kept = self.kept.borrow_mut();
        let Some(pieces) = &mut *kept else { return };
        let before: usize = pieces.iter().map(Bytes::len).sum();
        match frame.data_ref() {
            Some(data) if before + data.len() <= MOST_KEPT => pieces.push(data.clone()),
            _ => *kept = None,
        }
    }

    fn next_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut content = self.content.borrow_mut();
        let frame = match &mut *content {
            Content::Whole(bytes) if bytes.is_empty() => None,
            Content::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Content::Arriving(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        match &frame {
            None => self.is_whole.set(true),
            Some(Err(error)) => *self.failure.borrow_mut() = Some(error.to_string()),
            Some(Ok(frame)) => {
                self.keep(frame);
                self.is_whole.set(content.is_end());
            }
        }
        Poll::Ready(frame)
    }
}

impl Content {
    fn is_end(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Arriving(body) => body.is_end_stream(),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let again = match &*self.source.kept.borrow() {
            Some(kept) => kept.get(self.sent).cloned(),
            None => None,
        };
        if let Some(again) = again {
            self.sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(again))));
        }
        let frame = ready!(self.source.next_frame(cx));
        self.sent += 1;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.source.kept.borrow();
        let is_behind = kept.as_ref().is_some_and(|kept| kept.len() > self.sent);
        !is_behind && self.source.content.borrow().is_end()
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.source.kept.borrow();
        let pieces = kept.as_ref().and_then(|kept| kept.get(self.sent..));
        let again: usize = pieces.into_iter().flatten().map(Bytes::len).sum();
        let rest = match &*self.source.content.borrow() {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Arriving(body) => body.size_hint(),
        };
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(rest + again as u64),
            None => SizeHint::default(),
        }
    }
}
