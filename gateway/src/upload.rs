//! A request's body on its way to a function: streamed, and kept in part so that another endpoint can get it, too.
//!
//! The beginning of a body, up to [`KEPT`] bytes in [`MOST_PIECES`], is kept while it is sent. Until more than that has been sent the
//! body can begin anew on another connection; the one before then gets no more of it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::incoming::Incoming;
use crate::quantity;

/// So much of a body is kept. Clones of what was read: a body costs this memory only until its call is answered.
pub const KEPT: usize = 64 * 1024;
/// In so many pieces: each takes a place, and holds what was read along with it.
pub const MOST_PIECES: usize = 256;

/// What goes wrong while a body is on its way.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A body has more than this many bytes, and no function gets more.
#[derive(Debug)]
pub struct Overrun(pub u64);

impl std::fmt::Display for Overrun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the body has more than {}", quantity::show(self.0))
    }
}

impl std::error::Error for Overrun {}

/// A body that can be sent more than once, as long as it is short.
pub enum Source {
    /// There is none.
    Empty,
    /// It comes from a client.
    Client(Arc<Mutex<Shared>>),
}

/// What the sendings of one body share.
pub struct Shared {
    incoming: Incoming,
    kept: Vec<Piece>,
    kept_bytes: usize,
    /// More than can be kept has been sent: it cannot begin anew.
    is_past: bool,
    /// Which sending may go on.
    sending: usize,
    /// So many bytes may come.
    most: u64,
    strip: fn(&mut HeaderMap),
    received: u64,
    /// The function has got all that the client has sent so far.
    is_waiting: bool,
    /// Its end has come, or it broke off, or its connection sends no more of it.
    is_over: bool,
    /// The client broke it off, or sent more than it may.
    is_broken: bool,
    /// Its call is answered.
    is_answered: bool,
    /// When something of it came last since then.
    moved: Option<Instant>,
    /// The task that sends it, while that waits for the client.
    sender: Option<Waker>,
    /// The task that waits for its end.
    watcher: Option<Waker>,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Source {
    /// The body of a client's request, of so many bytes at most; `strip` leaves what may cross of its trailers.
    #[must_use]
    pub fn new(incoming: Incoming, most: u64, strip: fn(&mut HeaderMap)) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Client(Arc::new(Mutex::new(Shared {
            incoming,
            kept: Vec::new(),
            kept_bytes: 0,
            is_past: false,
            sending: 0,
            most,
            strip,
            received: 0,
            is_waiting: false,
            is_over: false,
            is_broken: false,
            is_answered: false,
            moved: None,
            sender: None,
            watcher: None,
        })))
    }

    /// How it goes on, now that its call is answered; `None` if all of it has been sent.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let Self::Client(client) = self else {
            return None;
        };
        let mut shared = lock(client);
        shared.is_answered = true;
        (!shared.is_over || shared.is_broken).then(|| Progress(client.clone()))
    }

    /// Whether the client is the one who is waited for.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Client(shared) => lock(shared).is_waiting,
        }
    }

    /// What the client did wrong with it, if it broke it off or sent more than it may.
    #[must_use]
    pub fn fault(&self) -> Option<Error> {
        let Self::Client(shared) = self else {
            return None;
        };
        let shared = lock(shared);
        if shared.received > shared.most {
            return Some(Box::new(Overrun(shared.most)));
        }
        let what = "the caller broke it off";
        shared.is_broken.then(|| what.into())
    }

    /// Whether all of it can be sent from the beginning.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(shared) => !lock(shared).is_past,
        }
    }

    /// The body from its beginning, for the next connection; an earlier sending gets no more of it.
    #[must_use]
    pub fn send(&self) -> Upload {
        match self {
            Self::Empty => Upload(None),
            Self::Client(shared) => {
                let sending = {
                    let mut shared = lock(shared);
                    shared.sending += 1;
                    (shared.is_over, shared.is_answered) = (false, false);
                    // The task of an earlier sending, which gets no more of it and is to see that.
                    if let Some(earlier) = shared.sender.take() {
                        earlier.wake();
                    }
                    shared.sending
                };
                Upload(Some(Sending {
                    shared: shared.clone(),
                    sending,
                    next: 0,
                }))
            }
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body that is sent on while its call is being answered, and perhaps after that.
pub struct Progress(Arc<Mutex<Shared>>);

impl Progress {
    /// When something of it came last beside the answer.
    pub(crate) fn moved(&self) -> Option<Instant> {
        lock(&self.0).moved
    }

    /// Whether the client broke it off, or sent more than it may.
    pub(crate) fn is_broken(&self) -> bool {
        lock(&self.0).is_broken
    }

    /// Waits until all of it has come, or no more of it will.
    pub(crate) async fn over(&self) {
        poll_fn(|cx| {
            let mut shared = lock(&self.0);
            if shared.is_over {
                return Poll::Ready(());
            }
            note(&mut shared.watcher, cx);
            Poll::Pending
        })
        .await;
    }

    /// Whether more of it may be sent.
    pub(crate) fn goes_on(&self) -> bool {
        !lock(&self.0).is_over
    }

    /// No more of it is taken from the client, nor sent.
    pub(crate) fn end(&self) {
        end(&self.0);
    }
}

/// No more of it is taken from the client, nor sent. A connection that calls share may keep its `Upload` for longer than that.
fn end(shared: &Mutex<Shared>) {
    let (left, sender) = {
        let mut shared = lock(shared);
        shared.sending += 1;
        shared.is_over = true;
        (std::mem::take(&mut shared.incoming), shared.sender.take())
    };
    drop(left);
    if let Some(sender) = sender {
        sender.wake();
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // The call has no answer, and will have none.
        if let Self::Client(client) = self {
            let shared = lock(client);
            let is_left = !shared.is_answered && !shared.is_over;
            drop(shared);
            if is_left {
                end(client);
            }
        }
    }
}

/// Notes the task to wake.
fn note(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}

/// The body of one request to one endpoint.
pub struct Upload(Option<Sending>);

struct Sending {
    shared: Arc<Mutex<Shared>>,
    sending: usize,
    /// The piece to send next; past the kept ones it comes from the client.
    next: usize,
}

impl Upload {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(None)
    }
}

impl Shared {
    /// The next piece from the client, kept if there is room.
    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        let received = self.next_piece(cx);
        self.is_waiting = received.is_pending();
        match &received {
            Poll::Pending => note(&mut self.sender, cx),
            Poll::Ready(Some(Ok(_))) if self.is_answered => self.moved = Some(Instant::now()),
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(end) => {
                self.is_over = true;
                self.is_broken = end.is_some();
                if let Some(watcher) = self.watcher.take() {
                    watcher.wake();
                }
            }
        }
        received
    }

    fn next_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.incoming).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        let strip = self.strip;
        let piece = match frame?.into_data() {
            Ok(data) => Piece::Data(data),
            // A frame is one or the other.
            Err(frame) => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                strip(&mut trailers);
                Piece::Trailers(trailers)
            }
        };
        if let Piece::Data(data) = &piece {
            self.kept_bytes += data.len();
            self.received += data.len() as u64;
            if self.received > self.most {
                return Poll::Ready(Some(Err(Box::new(Overrun(self.most)))));
            }
        }
        self.is_past |= self.kept_bytes > KEPT || self.kept.len() == MOST_PIECES;
        if self.is_past {
            self.kept = Vec::new();
        } else {
            self.kept.push(piece.clone());
        }
        Poll::Ready(Some(Ok(piece)))
    }

    fn left_from(&self, next: usize) -> &[Piece] {
        self.kept.get(next..).unwrap_or_default()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        if shared.sending != self.sending {
            return;
        }
        shared.is_over = true;
        if let Some(watcher) = shared.watcher.take() {
            watcher.wake();
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(this) = &mut self.get_mut().0 else {
            return Poll::Ready(None);
        };
        let mut shared = lock(&this.shared);
        if shared.sending != this.sending {
            return Poll::Ready(Some(Err("no more of it is sent here".into())));
        }
        let piece = match shared.left_from(this.next).first() {
            Some(kept) => kept.clone(),
            None => match ready!(shared.receive(cx)) {
                Some(piece) => piece?,
                None => return Poll::Ready(None),
            },
        };
        this.next += 1;
        Poll::Ready(Some(Ok(match piece {
            Piece::Data(data) => Frame::data(data),
            Piece::Trailers(trailers) => Frame::trailers(trailers),
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|this| {
            let shared = lock(&this.shared);
            shared.left_from(this.next).is_empty() && shared.incoming.is_end_stream()
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(this) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        let shared = lock(&this.shared);
        let left = shared.left_from(this.next).iter().map(|piece| match piece {
            Piece::Data(data) => data.len() as u64,
            Piece::Trailers(_) => 0,
        });
        let left: u64 = left.sum();
        let coming = shared.incoming.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = coming.upper() {
            hint.set_upper(upper + left);
        }
        hint.set_lower(coming.lower() + left);
        hint
    }
}
