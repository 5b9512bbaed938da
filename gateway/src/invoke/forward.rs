//! A function's answer on its way to the caller: streamed, counted, under the idle limit; at its end the connection is kept.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::headers::strip_answer_trailers;
use crate::alarm::Alarm;
use crate::connection::{After, Connection, Received};
use crate::duration;
use crate::endpoint::Lease;
use crate::metrics::Call;
use crate::reply::BodyError;
use crate::throttle::Throttle;
use crate::upload::Progress;

/// Whoever calls a function that breaks off decides how often.
static BROKEN: Throttle = Throttle::new(100, Duration::from_secs(10));

/// A response body that holds what its call holds: the lease, the connection, the clock of its metrics.
pub struct Answer {
    /// Until it has ended.
    coming: Option<Coming>,
    worker: usize,
    call: Call,
    idle: Duration,
    /// Rings when a wait takes too long; most answers come in one piece, and nobody waits.
    alarm: Alarm,
    /// Until when we wait for the next piece, if we do.
    due: Option<Instant>,
    /// Why it broke off, until the caller's connection is told.
    broken: Option<BodyError>,
}

struct Coming {
    body: Received,
    lease: Lease,
    /// The request's body, which may go on beside the answer.
    upload: Option<Progress>,
}

impl Coming {
    /// Whether all of the answer has come. One whose length was announced needs no end of its stream for that.
    fn is_whole(&self) -> bool {
        self.body.is_end_stream() || self.body.size_hint().exact() == Some(0)
    }

    fn is_broken_by_caller(&self) -> bool {
        self.upload.as_ref().is_some_and(Progress::is_broken)
    }

    /// The caller gets no more of the answer, and the function no more of the request.
    fn give_up(self) {
        if let Some(upload) = &self.upload {
            upload.end();
        }
    }
}

impl Answer {
    /// Takes over what the call holds until the body has ended.
    #[must_use]
    pub fn new(
        body: Received,
        lease: Lease,
        upload: Option<Progress>,
        worker: usize,
        call: Call,
        idle: Duration,
    ) -> Self {
        let coming = Coming {
            body,
            lease,
            upload,
        };
        let mut answer = Self {
            coming: Some(coming),
            worker,
            call,
            idle,
            alarm: Alarm::default(),
            due: None,
            broken: None,
        };
        answer.finish_if_over();
        answer
    }

    /// Once the body has ended as it should, the connection can carry another call, as soon as all of this one's request has gone
    /// out. That keeps the call's room, and may take as long as an answer may be silent.
    fn finish_if_over(&mut self) {
        let is_over = |coming: &mut Coming| coming.body.is_end_stream();
        let Some(coming) = self.coming.take_if(is_over) else {
            return;
        };
        let Coming {
            body,
            lease,
            upload,
        } = coming;
        match body.after() {
            After::Free(connection) => lease.endpoint().keep_idle(self.worker, connection),
            After::Ahead(mut connection) => {
                // Both sides would have to be closed otherwise.
                let (worker, idle) = (self.worker, self.idle);
                let room = self.call.release();
                go_on(async move {
                    connection.send_the_rest(idle).await;
                    if connection.is_free() {
                        let endpoint = lease.endpoint();
                        endpoint.keep_idle(worker, Connection::One(connection));
                    }
                    drop(room);
                });
            }
            After::Shared => {
                let Some(upload) = upload.filter(Progress::goes_on) else {
                    return;
                };
                let (idle, held) = (self.idle, (lease, self.call.release()));
                go_on(async move {
                    // Ended or not: what is left of it is not sent.
                    let _ = timeout(idle, upload.over()).await;
                    upload.end();
                    drop(held);
                });
            }
            After::Spent => {}
        }
    }

    /// The body broke off: the connection is closed, and the caller's too, so that nobody takes the piece for the whole. Not at
    /// once: what has come before is sent first.
    fn break_off(
        &mut self,
        cause: BodyError,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(coming) = self.coming.take() {
            let endpoint = coming.lease.endpoint().address().socket;
            if coming.is_broken_by_caller() {
                self.call.left();
                tracing::debug!(%endpoint, %cause, "the caller broke its request off, and so its answer ends");
            } else {
                self.call.function().broke();
                if let Some(left_out) = BROKEN.admit() {
                    tracing::warn!(%endpoint, %cause, "answer broke off{left_out}");
                }
            }
            coming.give_up();
        }
        self.broken = Some(cause);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether nothing has moved for too long, in either direction.
    fn has_waited_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.idle;
        let due = self.due.get_or_insert_with(|| Instant::now() + idle);
        while self.alarm.poll(cx, *due).is_ready() {
            let upload = self
                .coming
                .as_ref()
                .and_then(|coming| coming.upload.as_ref());
            match upload.and_then(Progress::moved) {
                Some(moved) if moved + idle > *due => *due = moved + idle,
                _ => return true,
            }
        }
        false
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
        let Some(coming) = &mut this.coming else {
            return Poll::Ready(this.broken.take().map(Err));
        };
        match Pin::new(&mut coming.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    strip_answer_trailers(trailers);
                }
                this.due = None;
                this.finish_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => this.break_off(error, cx),
            Poll::Ready(None) => {
                this.finish_if_over();
                Poll::Ready(None)
            }
            Poll::Pending if this.has_waited_too_long(cx) => {
                let limit = duration::show(this.idle);
                this.break_off(format!("nothing for {limit}: raise the label skep.idle-timeout or the gateway's idle_timeout").into(), cx)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.coming.is_none() && self.broken.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.coming {
            Some(coming) => coming.body.size_hint(),
            None if self.broken.is_some() => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // The server stops asking once it has as many bytes as were announced.
        self.finish_if_over();
        if let Some(coming) = self.coming.take() {
            if !coming.is_whole() {
                self.call.left();
            }
            coming.give_up();
        }
    }
}

/// Has something done after a call. Without a runtime we are at an end.
fn go_on(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(work);
    }
}
