//! A function's answer on its way to the caller: streamed, counted, under the idle limit; at its end the connection is kept.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::connection::Connection;
use crate::duration;
use crate::endpoint::Lease;
use crate::metrics::Call;
use crate::reply::BodyError;

/// A response body that holds what its call holds: the lease, the connection, the clock of its metrics.
pub struct Answer {
    body: Incoming,
    held: Option<Held>,
    call: Call,
    idle: Duration,
    // Made when the function first makes us wait: most answers come in one piece and need no timer.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

struct Held {
    lease: Lease,
    connection: Connection,
    worker: usize,
}

impl Answer {
    /// Takes over what the call holds until the body has ended.
    #[must_use]
    pub fn new(
        body: Incoming,
        lease: Lease,
        connection: Connection,
        worker: usize,
        call: Call,
        idle: Duration,
    ) -> Self {
        let held = Some(Held {
            lease,
            connection,
            worker,
        });
        let mut answer = Self {
            body,
            held,
            call,
            idle,
            timer: None,
            waiting: false,
        };
        if answer.body.is_end_stream() {
            answer.finish();
        }
        answer
    }

    /// The body has ended as it should: the connection can carry another call.
    fn finish(&mut self) {
        if let Some(Held {
            lease,
            connection,
            worker,
        }) = self.held.take()
        {
            lease.endpoint().keep_idle(worker, connection);
        }
    }

    /// The body broke off: the connection is closed, and the caller's too, so that nobody takes the piece for the whole.
    fn break_off(&mut self, cause: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(held) = self.held.take() {
            self.call.function().broke();
            tracing::warn!(endpoint = %held.lease.endpoint().address().socket, %cause, "answer broke off");
        }
        Poll::Ready(Some(Err(cause)))
    }

    fn has_waited_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.idle;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + idle);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waiting = false;
                if this.body.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => this.break_off(error.into()),
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending if this.has_waited_too_long(cx) => {
                let limit = duration::show(this.idle);
                this.break_off(format!("nothing for {limit}: raise the label skep.idle-timeout or the gateway's idle_timeout").into())
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // The server stops asking once it has as many bytes as were announced.
        if self.body.is_end_stream() {
            self.finish();
        }
    }
}
