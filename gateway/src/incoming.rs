//! What a request brings beside its head: a body, whichever protocol it comes by, and the connection itself, where that is to
//! become another protocol's.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::CONTENT_LENGTH;
use hyper::{HeaderMap, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::server::TlsStream;

use crate::reply::BodyError;

/// A request, in one place from its first byte to its last: it is handed on many times.
pub type Asked = Box<Request<Incoming>>;

/// What a client sends along with the head of a request.
#[derive(Debug, Default)]
pub enum Incoming {
    /// Nothing.
    #[default]
    Empty,
    /// A body on a connection that carries one request at a time.
    One(One),
    /// A body beside others, over HTTP/2.
    Many(Many),
}

/// The side of a connection that brings the body of the request that is on it. Whoever has the body of an earlier one gets nothing,
/// and changes nothing.
pub(crate) trait Bringing: Send {
    /// The next piece, or the end. Whoever asks first has the client told that it may send, if it waits for that.
    fn poll_frame(
        &mut self,
        request: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;
    /// Whether all of it has been taken.
    fn is_over(&self, request: u64) -> bool;
    /// How much is to come.
    fn size_hint(&self, request: u64) -> SizeHint;
    /// Nobody wants any more of it.
    fn leave(&mut self, request: u64);
}

/// The body of the one request on a connection; whoever holds it reads the connection itself.
pub struct One {
    connection: Arc<Mutex<dyn Bringing>>,
    /// Which of the connection's requests it belongs to.
    request: u64,
}

impl One {
    pub(crate) fn of(connection: Arc<Mutex<dyn Bringing>>, request: u64) -> Self {
        Self {
            connection,
            request,
        }
    }

    fn lock(&self) -> MutexGuard<'_, dyn Bringing + 'static> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("One")
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.lock().leave(self.request);
    }
}

/// The body of one of the requests on a connection. It ends where its stream says so and nowhere else: a stream that is reset, with
/// NO_ERROR too, and a connection that ends leave it broken off (RFC 9113 §8.1).
#[derive(Debug)]
pub struct Many {
    stream: RecvStream,
    /// How much is to come, if that was announced; h2 holds the stream to it.
    left: Option<u64>,
    /// What is left are trailers, or nothing.
    is_past_data: bool,
}

impl Many {
    pub(crate) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            stream,
            left: length,
            is_past_data: false,
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.is_past_data {
            if let Some(data) = ready!(self.stream.poll_data(cx)).transpose()? {
                // Fails for streams that have ended, and then there is no window.
                let _ = self.stream.flow_control().release_capacity(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.is_past_data = true;
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None if self.stream.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

/// A reset with NO_ERROR broke the body off like any other. As it is, it would be passed on and taken for a good end.
fn broken_off(error: h2::Error) -> BodyError {
    match error.reason() {
        Some(Reason::NO_ERROR) => "the client gave its stream up before the end".into(),
        _ => error.into(),
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::One(one) => one.lock().poll_frame(one.request, cx),
            Self::Many(many) => many.poll_frame(cx).map_err(broken_off),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::One(one) => one.lock().is_over(one.request),
            Self::Many(many) => many.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::One(one) => one.lock().size_hint(one.request),
            Self::Many(many) => many.size_hint(),
        }
    }
}

/// More than rustls keeps of what it has decrypted.
const DECRYPTED: u64 = 64 * 1024;

/// A connection, whatever it is made of.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Nobody shall take its end for an orderly one: it is about to be dropped.
    fn cut(&self);
    /// What the kernel knows of the other side, beyond what has been read. Costs system calls.
    fn far_end(&self) -> FarEnd;
}

/// What the other side of a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FarEnd {
    /// It may send more.
    Open,
    /// It has ended what it sends; at most so many bytes of that are still to be read.
    Ended(u64),
    /// The connection is broken.
    Broken,
}

impl FarEnd {
    /// Looks at a socket. One that cannot be looked at is left to those who read it.
    fn of(stream: &TcpStream) -> Self {
        let flags = PollFlags::IN | PollFlags::RDHUP;
        let mut polled = [PollFd::new(stream, flags)];
        let at_once = Timespec::default();
        if poll(&mut polled, Some(&at_once)).is_err() {
            return Self::Open;
        }
        let is = |flag| polled[0].revents().intersects(flag);
        if is(PollFlags::ERR | PollFlags::HUP) {
            Self::Broken
        } else if is(PollFlags::RDHUP) {
            Self::Ended(ioctl_fionread(stream).unwrap_or(u64::MAX))
        } else {
            Self::Open
        }
    }
}

impl Stream for TcpStream {
    fn cut(&self) {
        // With a reset. If that cannot be had, the connection has gone.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    fn far_end(&self) -> FarEnd {
        FarEnd::of(self)
    }
}

impl Stream for TlsStream<TcpStream> {
    fn cut(&self) {
        // The end of TLS is a word of its own, which is not said then.
    }

    fn far_end(&self) -> FarEnd {
        match FarEnd::of(self.get_ref().0) {
            // What has been decrypted and not been read counts as well: more than rustls keeps.
            FarEnd::Ended(left) => FarEnd::Ended(left.saturating_add(DECRYPTED)),
            other => other,
        }
    }
}

/// A connection that another protocol has taken over.
pub(crate) type Upgraded = Prefixed<Box<dyn Stream>>;

/// The connection of a request that asks for another protocol, once its answer has agreed to that.
#[derive(Clone)]
pub struct Upgrade(Arc<Mutex<Option<oneshot::Receiver<Upgraded>>>>);

impl Upgrade {
    /// Beside its sender.
    pub(crate) fn new() -> (oneshot::Sender<Upgraded>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(Arc::new(Mutex::new(Some(receiver)))))
    }

    /// Takes it out of the request that asks.
    pub(crate) fn of<B>(request: &mut Request<B>) -> Option<Self> {
        request.extensions_mut().remove()
    }

    /// Waits for the connection; `None` if there is none after all.
    pub(crate) async fn upgraded(self) -> Option<Upgraded> {
        let receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        receiver?.await.ok()
    }
}

/// A connection of which something has been read already.
pub(crate) struct Prefixed<I> {
    pub(crate) read: Bytes,
    pub(crate) io: I,
}

impl<I: AsyncRead + Unpin> AsyncRead for Prefixed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, into);
        }
        let fits = self.read.len().min(into.remaining());
        into.put_slice(&self.read[..fits]);
        self.read.advance(fits);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Prefixed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }
}
