//! One HTTP/1.1 connection to an endpoint, driven by the call that it carries; and what is read and written of HTTP/1.1 on either
//! side of the gateway.
//!
//! There is no task for a connection and no channel between it and its call: the call's own task writes and reads, so that
//! a call costs little more than its system calls (docs/decisions/0016). Request and answer overlap: an answer that comes
//! early is passed on while the rest of the body is still sent.

mod chunks;
pub(crate) mod reading;
mod receive;
mod send;
pub mod target;
pub(crate) mod writing;

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use hyper::{Method, Request, Response, StatusCode};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::receive::Receiving;
use self::writing::{Halt, Writing};
use crate::alarm::Alarm;
use crate::told::Told;
use crate::upload::{self, Upload};

/// One connection, with what is on its way in both directions.
pub struct Http1 {
    io: TcpStream,
    sending: Writing<Upload>,
    receiving: Receiving,
    alarm: Alarm,
    /// The socket's limit for what is not acknowledged, while it is lifted.
    lifted: Option<Duration>,
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// Nothing of it was sent.
    Unsent(io::Error),
    /// The caller's body broke off.
    Caller(upload::Error),
    /// What came is not HTTP as we read it.
    Nonsense(&'static str),
    /// The connection ended, or broke.
    Closed(Option<io::Error>),
}

impl Http1 {
    /// A connection that has carried nothing yet.
    #[must_use]
    pub fn new(io: TcpStream) -> Self {
        Self {
            io,
            sending: Writing::default(),
            receiving: Receiving::default(),
            alarm: Alarm::default(),
            lifted: None,
        }
    }

    /// Whether it can carry a request: the last answer has ended as it should, the other side has not closed, and nothing came
    /// that nobody asked for. Costs no system call unless something did come.
    #[must_use]
    pub fn is_free(&self) -> bool {
        let nothing_came = |error: io::Error| error.kind() == ErrorKind::WouldBlock;
        self.sending.is_done()
            && self.receiving.may_begin()
            && self.io.try_read(&mut [0]).is_err_and(nothing_came)
    }

    /// Begins a request, with what its function is told, if it is a call. It is sent while its answer is waited for.
    pub fn begin<B>(&mut self, head: &Request<B>, told: Option<&Told<'_>>, body: Upload) {
        if let Some(limit) = self.lifted.take() {
            // If that fails the connection has gone.
            let _ = SockRef::from(&self.io).set_tcp_user_timeout(Some(limit));
        }
        send::begin(&mut self.sending, head, told, body);
        self.receiving.begin(*head.method() == Method::HEAD);
    }

    /// Sends what was begun and waits for the head of the answer; `None` if it is not there in time, and may still come. The
    /// body is sent on with [`Self::poll_frame`] if the answer comes first.
    ///
    /// # Errors
    /// See [`Unanswered`]; after any of them the connection is of no use.
    pub async fn answer_by(&mut self, due: Instant) -> Option<Result<Response<()>, Unanswered>> {
        poll_fn(|cx| match self.poll_answer(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => self.alarm.poll(cx, due).map(|()| None),
        })
        .await
    }

    /// Sends what can be sent of the request.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Halt<upload::Error>>> {
        let sent = self.sending.poll(cx, &mut self.io);
        if sent.is_pending() && self.lifted.is_none() && !self.sending.is_written() {
            self.lift_limit();
        }
        sent
    }

    /// The function has no room for more of the request. To the kernel a host that lives and does not read is like one that has gone;
    /// here the call's own limits end the wait.
    fn lift_limit(&mut self) {
        let socket = SockRef::from(&self.io);
        self.lifted = socket.tcp_user_timeout().ok().flatten();
        if self.lifted.is_some() {
            let _ = socket.set_tcp_user_timeout(None);
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Unanswered>> {
        match self.poll_send(cx) {
            Poll::Ready(Err(Halt::Body(error))) => {
                return Poll::Ready(Err(Unanswered::Caller(error)));
            }
            Poll::Ready(Err(Halt::Closed(error))) if self.sending.sent() == 0 => {
                return Poll::Ready(Err(Unanswered::Unsent(error)));
            }
            // Whoever takes no more may have said why.
            Poll::Ready(_) | Poll::Pending => {}
        }
        let answer = ready!(self.receiving.poll_head(cx, &mut self.io));
        let switches = |head: &Response<()>| head.status() == StatusCode::SWITCHING_PROTOCOLS;
        if answer.as_ref().is_ok_and(switches) && !self.sending.is_done() {
            // RFC 9110 §7.8: the rest of the request would be taken for the other protocol.
            let what = "it switches protocols in the middle of a request";
            return Poll::Ready(Err(Unanswered::Nonsense(what)));
        }
        Poll::Ready(answer)
    }

    /// The next piece of the answer's body; also sends on what is left of the request.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unanswered>>> {
        if let Poll::Ready(Err(Halt::Body(error))) = self.poll_send(cx) {
            return Poll::Ready(Some(Err(Unanswered::Caller(error))));
        }
        self.receiving.poll_frame(cx, &mut self.io)
    }

    /// Whether the answer has ended before its request has, which can still be sent to the end.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.receiving.is_kept_after_all() && !self.sending.is_done() && !self.sending.has_failed()
    }

    /// Sends what is left of a request whose answer has ended, for so long at most: a caller that sends it byte by byte would hold
    /// its call for ever.
    pub async fn send_the_rest(&mut self, limit: Duration) {
        let due = Instant::now() + limit;
        poll_fn(|cx| match self.poll_send(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => self.alarm.poll(cx, due),
        })
        .await;
    }

    /// Whether all of the answer has been received.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        self.receiving.is_over()
    }

    /// How much of the answer is to come.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.receiving.size_hint()
    }

    /// The connection itself after a switch of protocols, and what has been read of the other one already.
    #[must_use]
    pub fn into_parts(mut self) -> (TcpStream, BytesMut) {
        let read = self.receiving.take_rest();
        (self.io, read)
    }
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsent(error) => write!(f, "nothing could be sent: {error}"),
            Self::Caller(error) => write!(f, "the caller's body broke off: {error}"),
            Self::Nonsense(what) => write!(f, "what it sent is not HTTP ({what})"),
            Self::Closed(None) => f.write_str("it closed the connection"),
            Self::Closed(Some(error)) => write!(f, "its connection broke ({error})"),
        }
    }
}

impl std::error::Error for Unanswered {}

#[cfg(test)]
mod tests;
