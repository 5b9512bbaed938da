//! HTTP/1.1 with one client (RFC 9112): requests one after the other, each answered before the next is read.
//!
//! The connection is one task without channels: whoever sends a request's body on reads it from the connection itself
//! (`wire.rs`), and an answer is written as it comes (docs/decisions/0033).

mod answer;
mod request;
mod wire;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(super) use self::answer::date;
use self::request::{About, Head, Wrong};
use self::wire::{Wire, Writer};
use super::{Answers, ConnectionLimits};
use crate::alarm::Alarm;
use crate::http1::writing::Writing;
use crate::incoming::{Incoming, One, Prefixed, Stream, Upgrade, Upgraded};
use crate::reply::Body;
use crate::told::Answered;

/// What is read of a body that nobody wants, so that the connection can carry another request.
const MOST_UNWANTED: usize = 64 * 1024;

/// What is read of further requests while one is answered.
const MOST_AHEAD: usize = 16 * 1024;
/// How often the kernel is asked whether the client is still there, while nothing is read on its connection.
const LOOK: Duration = Duration::from_secs(1);

/// One connection, from its first request to its last.
pub(super) struct Http1<I: Stream, S: Answers> {
    wire: Arc<Mutex<Wire<I>>>,
    writing: Writing<Body>,
    /// Until HTTP/2 takes it over.
    service: Option<S>,
    /// Its place stays for as long as the connection lives: made anew for each call it would be the largest piece of memory that a
    /// call takes, and by far the dearest.
    call: Pin<Box<Option<S::Answer>>>,
    state: State,
    /// What the present request said of itself.
    about: About,
    upgrade: Option<oneshot::Sender<Upgraded>>,
    limits: ConnectionLimits,
    alarm: Alarm,
    /// Until when the next head has to be there.
    due: Option<Instant>,
    /// When the kernel is asked next whether the client is still there.
    look: Option<Instant>,
    /// No request follows the present one.
    is_last: bool,
    /// What came is no request, and more of it may come.
    is_nonsense: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A request is to come.
    Head,
    /// Its answer is being made.
    Call,
    /// It goes out; whether it is one that hands the connection over.
    Answer { switches: bool },
    /// It has gone, and perhaps not all of the request has come.
    Rest,
    /// Nothing more is to be said; whether something may still come.
    Close { unread: bool },
}

/// What is left to do with a connection on which HTTP/1 has ended.
pub(super) enum End<I, S> {
    /// Nothing.
    Done,
    /// To wait until the client closes, too: it may be sending.
    Unread(I),
    /// To speak HTTP/2: the client began with its preface.
    Http2(Prefixed<I>, S),
}

/// What came of waiting for a request.
enum Next {
    Request(Head),
    Refused(Wrong),
    /// The client has closed, or is not wanted any longer.
    Ended,
    Http2,
}

impl<I: Stream, S: Answers> Drop for Http1<I, S> {
    fn drop(&mut self) {
        let is_answering = matches!(self.state, State::Answer { .. });
        if is_answering && self.writing.ends_with_connection() {
            // What has gone out would look whole, and is not.
            let wire = self.wire.lock();
            wire.unwrap_or_else(PoisonError::into_inner).cut();
        }
    }
}

impl<I: Stream + 'static, S: Answers> Http1<I, S> {
    pub(super) fn new(io: I, service: S, limits: ConnectionLimits) -> Self {
        Self {
            wire: Arc::new(Mutex::new(Wire::new(io))),
            writing: Writing::default(),
            service: Some(service),
            call: Box::pin(None),
            state: State::Head,
            about: About::default(),
            upgrade: None,
            limits,
            alarm: Alarm::default(),
            due: None,
            look: None,
            is_last: false,
            is_nonsense: false,
        }
    }

    /// Ends once the present request is answered, or at once if there is none.
    pub(super) fn finish(&mut self) {
        self.is_last = true;
    }

    fn wire(&self) -> MutexGuard<'_, Wire<I>> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next request, within its time.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let has_begun = {
            let wire = &mut *self.wire.lock().unwrap_or_else(PoisonError::into_inner);
            match request::poll(wire, self.limits, cx) {
                Poll::Ready(asked) => return Poll::Ready(asked),
                Poll::Pending => !request::is_empty(wire.reading.unread()),
            }
        };
        if self.is_last && !has_begun {
            return Poll::Ready(Next::Ended);
        }
        let limit = self.limits.read_timeout;
        let due = *self.due.get_or_insert_with(|| Instant::now() + limit);
        ready!(self.alarm.poll(cx, due));
        Poll::Ready(if has_begun {
            Next::Refused(Wrong::Late)
        } else {
            Next::Ended
        })
    }

    /// Has the request answered.
    fn call(&mut self, head: Head) {
        let Head {
            mut request, about, ..
        } = head;
        if about.has_body {
            let number = self.wire().request();
            *request.body_mut() = Incoming::One(One::of(self.wire.clone(), number));
        }
        if about.upgrades {
            let (sender, upgrade) = Upgrade::new();
            request.extensions_mut().insert(upgrade);
            self.upgrade = Some(sender);
        }
        self.about = about;
        let call = self.service.as_ref().map(|service| service.answer(request));
        self.call.set(call);
        self.look = None;
        self.state = State::Call;
    }

    /// Begins to answer.
    fn answer(&mut self, mut answered: Answered, cx: &mut Context<'_>) {
        answer::leave_unsent(&mut answered.response, self.about);
        let mut closes = self.is_last || !self.about.keeps;
        let late_go_ahead = {
            let mut wire = self.wire();
            // What has come of a body that nobody wants is thrown away. More of it is not waited for.
            closes |= !wire.is_over_or_held(cx);
            wire.forget_go_ahead()
        };
        let switches = answered.response.status() == StatusCode::SWITCHING_PROTOCOLS;
        // Who waits for that word in vain may send its body or the next request: nobody can tell which.
        closes |= late_go_ahead.is_none();
        self.is_last |= answer::begin(
            &mut self.writing,
            late_go_ahead.unwrap_or_default(),
            answered,
            self.about,
            closes,
        );
        self.state = State::Answer { switches };
    }

    /// Ready when the client has gone. The end is read where anything is; while a body is left unread or too much has come ahead, the
    /// kernel is asked now and then.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        {
            let wire = &mut *self.wire.lock().unwrap_or_else(PoisonError::into_inner);
            if wire.poll_gone(cx).is_ready() {
                return Poll::Ready(());
            }
            if wire.is_read() {
                return Poll::Pending;
            }
        }
        loop {
            let look = *self.look.get_or_insert_with(|| Instant::now() + LOOK);
            ready!(self.alarm.poll(cx, look));
            if self.wire().is_broken() {
                return Poll::Ready(());
            }
            self.look = None;
        }
    }

    /// What remains once an answer has gone out: to wait for whoever still takes the body, then the next request or the end.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<State> {
        let mut wire = self.wire();
        if wire.is_held() {
            wire.watch(cx);
            return Poll::Pending;
        }
        let is_over = wire.reading.is_over();
        if is_over && !self.is_last {
            wire.reading.begin();
            drop(wire);
            self.writing.release();
            self.due = None;
            return Poll::Ready(State::Head);
        }
        let unread = self.is_nonsense || !is_over || wire.reading.len() > 0;
        Poll::Ready(State::Close { unread })
    }

    /// Hands the connection over to another protocol.
    fn switch(&mut self) {
        let taken = self.wire().take();
        if let (Some((io, read)), Some(upgrade)) = (taken, self.upgrade.take()) {
            let io: Box<dyn Stream> = Box::new(io);
            // Whoever asked for it may have gone.
            let _ = upgrade.send(Prefixed { read, io });
        }
    }

    fn refuse(&mut self, wrong: Wrong, cx: &mut Context<'_>) {
        self.about = About::default();
        self.is_nonsense = true;
        self.answer(wrong.answer(), cx);
    }
}

impl<I: Stream + 'static, S: Answers> Future for Http1<I, S> {
    type Output = End<I, S>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<I, S>> {
        let this = self.get_mut();
        loop {
            match this.state {
                State::Head => match ready!(this.poll_request(cx)) {
                    Next::Request(head) => this.call(head),
                    Next::Refused(wrong) => this.refuse(wrong, cx),
                    Next::Ended => this.state = State::Close { unread: false },
                    Next::Http2 => {
                        let taken = this.wire().take();
                        let taken = taken.zip(this.service.take());
                        return Poll::Ready(taken.map_or(End::Done, |((io, read), service)| {
                            End::Http2(Prefixed { read, io }, service)
                        }));
                    }
                },
                State::Call => {
                    let Some(call) = this.call.as_mut().as_pin_mut() else {
                        return Poll::Ready(End::Done);
                    };
                    match call.poll(cx) {
                        Poll::Ready(answered) => {
                            this.call.set(None);
                            this.answer(answered, cx);
                        }
                        Poll::Pending => {
                            ready!(this.poll_gone(cx));
                            return Poll::Ready(End::Done);
                        }
                    }
                }
                State::Answer { switches } => {
                    match this.writing.poll(cx, &mut Writer(&this.wire)) {
                        Poll::Ready(Ok(())) if switches => {
                            this.switch();
                            return Poll::Ready(End::Done);
                        }
                        Poll::Ready(Ok(())) => this.state = State::Rest,
                        // Without a farewell: nobody should take what there is for the whole.
                        Poll::Ready(Err(halt)) => {
                            tracing::debug!("connection: {halt:?}");
                            return Poll::Ready(End::Done);
                        }
                        // The answer to what is no request goes out to a client that has sent half of one and ended.
                        Poll::Pending if this.is_nonsense => return Poll::Pending,
                        Poll::Pending => {
                            ready!(this.poll_gone(cx));
                            return Poll::Ready(End::Done);
                        }
                    }
                }
                State::Rest => this.state = ready!(this.poll_rest(cx)),
                State::Close { unread } => {
                    let mut writer = Writer(&this.wire);
                    let closed = ready!(Pin::new(&mut writer).poll_shutdown(cx));
                    let taken = this.wire().take().filter(|_| unread && closed.is_ok());
                    return Poll::Ready(taken.map_or(End::Done, |(io, _)| End::Unread(io)));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "http1_tests.rs"]
mod tests;
