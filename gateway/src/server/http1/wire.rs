//! The connection itself, which two may be at: the one who answers, and the one who takes the body of the request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::io::AsyncWrite;

use super::{MOST_AHEAD, MOST_UNWANTED};
use crate::http1::reading::{Broken, Reading, Rest};
use crate::incoming::{Bringing, FarEnd, Stream};
use crate::reply::BodyError;

/// Tells a client that waits for it to send its body (RFC 9110 §10.1.1).
const GO_AHEAD: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// One connection, and what has been read on it.
pub(super) struct Wire<I> {
    /// Until something else takes it over.
    io: Option<I>,
    pub(super) reading: Reading,
    /// What is left to say to a client that waits for the word to send; said when somebody asks for the body.
    go_ahead: &'static [u8],
    /// Who waits until it has been said.
    sayer: Option<Waker>,
    /// Which request is the present one.
    request: u64,
    /// Somebody has the body of the present request.
    is_held: bool,
    /// Who is to be told when nobody has it any longer.
    watcher: Option<Waker>,
}

impl<I: Stream> Wire<I> {
    pub(super) fn new(io: I) -> Self {
        let mut reading = Reading::default();
        reading.begin();
        Self {
            io: Some(io),
            reading,
            go_ahead: &[],
            sayer: None,
            request: 0,
            is_held: false,
            watcher: None,
        }
    }

    /// A head has been taken; this body follows.
    pub(super) fn expect(&mut self, rest: Rest, waits_for_word: bool) {
        self.reading.expect(rest);
        self.request += 1;
        self.is_held = !self.reading.is_over();
        self.go_ahead = if self.is_held && waits_for_word {
            GO_AHEAD
        } else {
            &[]
        };
    }

    /// Which request is the present one.
    pub(super) fn request(&self) -> u64 {
        self.request
    }

    /// Reads what there is of a head; 0 is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else {
            return Poll::Ready(Ok(0));
        };
        self.reading.poll_read(cx, io)
    }

    /// Ready when the client has gone. What it sends meanwhile, such as its next requests, is read up to a limit, so that the end
    /// behind it is seen. [`Self::is_read`] says whether that is so.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.reading.is_over() {
            self.watch(cx);
            return Poll::Pending;
        }
        while self.reading.len() < MOST_AHEAD {
            match ready!(self.poll_read(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Whether reading goes on, and with it the end is seen. Not while somebody else reads a body, or leaves it unread, nor once too
    /// much has come ahead.
    pub(super) fn is_read(&self) -> bool {
        self.reading.is_over() && self.reading.len() < MOST_AHEAD
    }

    /// Whether the client has gone while nothing is read. One that has ended what it sends behind a whole body may still wait for
    /// its answer: that is seen when the body has been read.
    pub(super) fn is_broken(&self) -> bool {
        let Some(io) = &self.io else { return false };
        match io.far_end() {
            FarEnd::Open => false,
            FarEnd::Broken => true,
            FarEnd::Ended(left) => {
                let came = self.reading.len() as u64 + left;
                self.reading.is_over() || came < self.reading.size_hint().lower()
            }
        }
    }

    /// Has the connection's task told when the body is over, or left.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) {
        match &mut self.watcher {
            Some(watcher) => watcher.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Whether somebody has the body, and it goes on.
    pub(super) fn is_held(&self) -> bool {
        self.is_held && !self.reading.is_over()
    }

    /// Whether the next request can follow, now or once somebody has taken the rest of the body. A short rest that nobody wants
    /// and that is there is thrown away.
    pub(super) fn is_over_or_held(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_held || self.reading.is_over() {
            return true;
        }
        let mut left = MOST_UNWANTED;
        while self.go_ahead.is_empty()
            && let Some(io) = &mut self.io
            && let Poll::Ready(Some(Ok(frame))) = self.reading.poll_frame(cx, io)
        {
            let length = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(length);
            if left == 0 {
                break;
            }
        }
        self.reading.is_over()
    }

    /// The answer comes first: the word to send is not given any more. Gives what is left of it if it has begun; `None` if a
    /// client waits for it in vain.
    pub(super) fn forget_go_ahead(&mut self) -> Option<&'static [u8]> {
        let left = std::mem::take(&mut self.go_ahead);
        // The connection remembers only the last one who waits to write on it: from now on that is who answers.
        if let Some(sayer) = self.sayer.take() {
            sayer.wake();
        }
        (left.len() < GO_AHEAD.len()).then_some(left)
    }

    /// The connection, and what has been read on it and not been taken; once.
    pub(super) fn take(&mut self) -> Option<(I, Bytes)> {
        Some((self.io.take()?, self.reading.take_rest().freeze()))
    }

    /// See [`Stream::cut`].
    pub(super) fn cut(&self) {
        if let Some(io) = &self.io {
            io.cut();
        }
    }

    fn poll_go_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.go_ahead.is_empty() && self.sayer.is_none() {
            return Poll::Ready(Ok(()));
        }
        let said = self.poll_say(cx);
        self.sayer = said.is_pending().then(|| cx.waker().clone());
        said
    }

    fn poll_say(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else {
            return Poll::Ready(Ok(()));
        };
        while !self.go_ahead.is_empty() {
            let wrote = ready!(Pin::new(&mut *io).poll_write(cx, self.go_ahead))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.go_ahead = &self.go_ahead[wrote..];
        }
        Pin::new(io).poll_flush(cx)
    }
}

impl<I: Stream> Bringing for Wire<I> {
    fn poll_frame(
        &mut self,
        request: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over(request) {
            return Poll::Ready(None);
        }
        if let Err(error) = ready!(self.poll_go_ahead(cx)) {
            return Poll::Ready(Some(Err(error.into())));
        }
        let Some(io) = &mut self.io else {
            let error = "the connection has become another protocol's";
            return Poll::Ready(Some(Err(error.into())));
        };
        let polled = self.reading.poll_frame(cx, io);
        if self.reading.is_over()
            && let Some(watcher) = self.watcher.take()
        {
            watcher.wake();
        }
        polled.map_err(|broken| match broken {
            Broken::Nonsense(what) => what.into(),
            Broken::Closed(None) => "the client closed its connection before the end".into(),
            Broken::Closed(Some(error)) => error.into(),
        })
    }

    fn is_over(&self, request: u64) -> bool {
        self.request != request || self.reading.is_over()
    }

    fn size_hint(&self, request: u64) -> SizeHint {
        if self.request == request {
            self.reading.size_hint()
        } else {
            SizeHint::with_exact(0)
        }
    }

    fn leave(&mut self, request: u64) {
        if self.request != request {
            return;
        }
        self.is_held = false;
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }
}

/// Writes on the connection. Who has the body is let at it in between.
pub(super) struct Writer<'a, I>(pub(super) &'a Mutex<Wire<I>>);

impl<I: Stream> Writer<'_, I> {
    fn wire(&self) -> MutexGuard<'_, Wire<I>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(Pin<&mut I>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut self.wire().io {
            Some(io) => act(Pin::new(io)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<I: Stream> AsyncWrite for Writer<'_, I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|io| io.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|io| io.poll_write_vectored(cx, pieces))
    }
}
