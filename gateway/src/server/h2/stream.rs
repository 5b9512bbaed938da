//! One stream of an HTTP/2 connection: its answer is made, and sent no faster than the client's windows allow.
//!
//! No more is handed to the connection than the windows have room for, so that each byte the client takes is seen here: a client
//! that takes none for `write_timeout` has its stream reset, whatever else it does on its connection.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use hyper::body::{Body as _, Frame};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, DATE, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::response::Parts;
use hyper::{HeaderMap, Response, StatusCode};
use tokio::time::Instant;

use super::Running;
use crate::alarm::Alarm;
use crate::duration;
use crate::reply::{Body, BodyError};
use crate::server::http1::date;
use crate::told::Answered;

/// Fields of one HTTP/1.1 connection, which HTTP/2 does not have (RFC 9113 §8.2.2).
const CONNECTION_FIELDS: [HeaderName; 6] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A request that has come, whose answer is to be sent.
pub(super) struct Stream {
    pub(super) respond: SendResponse<Bytes>,
    pub(super) running: Running,
    pub(super) is_head: bool,
    pub(super) write_timeout: Duration,
}

/// Why an answer is not sent to its end.
enum Halt {
    /// The client has reset the stream, or its connection has gone.
    Gone,
    /// The client has taken nothing for too long.
    Stalled,
    /// The answer broke off.
    Broken(BodyError),
}

impl From<h2::Error> for Halt {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

impl Stream {
    /// Makes the answer, unless the client resets the stream before, and sends it.
    pub(super) async fn answer(mut self, answer: impl Future<Output = Answered>) {
        let answered = {
            let mut answer = std::pin::pin!(answer);
            let respond = &mut self.respond;
            let made = poll_fn(|cx| match answer.as_mut().poll(cx) {
                Poll::Ready(answered) => Poll::Ready(Some(answered)),
                Poll::Pending => respond.poll_reset(cx).map(|_| None),
            });
            made.await
        };
        let Some(answered) = answered else { return };
        let (mut head, body) = answered.whole().into_parts();
        let has_none = has_none(head.status, self.is_head, &body);
        frame(&mut head, &body, has_none && !self.is_head);
        let sent = self
            .respond
            .send_response(Response::from_parts(head, ()), has_none);
        let Ok(stream) = sent else {
            // An answer that HTTP/2 cannot carry, or the client has gone.
            self.respond.send_reset(Reason::INTERNAL_ERROR);
            return;
        };
        if has_none {
            self.running.is_answered = true;
            return;
        }
        let mut sending = Sending {
            stream,
            body,
            limit: self.write_timeout,
            alarm: Alarm::default(),
        };
        let sent = sending.run().await;
        self.running.is_answered = !matches!(sent, Err(Halt::Gone));
        match sent {
            Ok(()) | Err(Halt::Gone) => {}
            Err(Halt::Stalled) => {
                let limit = duration::show(self.write_timeout);
                tracing::debug!("stream reset: the client took nothing of its answer for {limit}");
                sending.stream.send_reset(Reason::CANCEL);
            }
            Err(Halt::Broken(error)) => sending.stream.send_reset(reason(&*error)),
        }
    }
}

/// An answer's body on its way.
struct Sending {
    stream: SendStream<Bytes>,
    body: Body,
    limit: Duration,
    alarm: Alarm,
}

impl Sending {
    async fn run(&mut self) -> Result<(), Halt> {
        loop {
            let next = poll_fn(|cx| self.poll_frame(cx)).await?;
            let Some(frame) = next else {
                return Ok(self.stream.send_data(Bytes::new(), true)?);
            };
            match frame.into_data() {
                Ok(data) => {
                    let is_last = self.body.is_end_stream();
                    self.send(data, is_last).await?;
                    if is_last {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Ok(self.stream.send_trailers(trailers)?);
                }
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Halt>> {
        if self.stream.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Halt::Gone));
        }
        let next = Pin::new(&mut self.body).poll_frame(cx);
        next.map(|next| next.transpose().map_err(Halt::Broken))
    }

    /// Sends a piece in as many frames as the windows allow.
    async fn send(&mut self, mut data: Bytes, is_last: bool) -> Result<(), Halt> {
        while !data.is_empty() {
            self.stream.reserve_capacity(data.len());
            let mut due = None;
            let room = poll_fn(|cx| self.poll_room(cx, &mut due)).await?;
            let piece = data.split_to(room.min(data.len()));
            self.stream.send_data(piece, is_last && data.is_empty())?;
            if data.is_empty() {
                return Ok(());
            }
        }
        if is_last {
            self.stream.send_data(data, true)?;
        }
        Ok(())
    }

    /// How many bytes the windows have room for, once that is more than none.
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        due: &mut Option<Instant>,
    ) -> Poll<Result<usize, Halt>> {
        if self.stream.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Halt::Gone));
        }
        loop {
            let room = self.stream.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Err(Halt::Gone)),
                Poll::Pending => break,
            }
        }
        let due = *due.get_or_insert_with(|| Instant::now() + self.limit);
        self.alarm.poll(cx, due).map(|()| Err(Halt::Stalled))
    }
}

/// Whether the head is all of the answer.
fn has_none(status: StatusCode, is_head: bool, body: &Body) -> bool {
    let is_bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    is_head || is_bare || body.is_end_stream()
}

/// Adds what every head says, and removes what HTTP/2 says otherwise.
fn frame(head: &mut Parts, body: &Body, is_bare: bool) {
    let headers: &mut HeaderMap = &mut head.headers;
    for name in CONNECTION_FIELDS {
        headers.remove(name);
    }
    let length = body.size_hint().exact();
    if let Some(length) = length.filter(|length| *length > 0 && !is_bare) {
        headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    if let Ok(date) = HeaderValue::from_bytes(&date()) {
        headers.entry(DATE).or_insert(date);
    }
}

/// What the client is told of an answer that broke off: what the function's own stream was reset with, if that says that something
/// is wrong.
fn reason(error: &(dyn Error + 'static)) -> Reason {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref().and_then(h2::Error::reason) {
            return match reason {
                Reason::NO_ERROR => Reason::INTERNAL_ERROR,
                reason => reason,
            };
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
