//! HTTP/2 without TLS, for whoever begins with its preface ("prior knowledge"): gRPC, and clients that share a connection.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::server::conn::http2::Builder;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::{Answers, ConnectionLimits};
use crate::drain::{Guest, Phase};
use crate::incoming::{Incoming, Prefixed, Stream};
use crate::reply::{Body, BodyError};

/// What a client that knows begins with (RFC 9113 §3.4). An HTTP/1 parser fails on it and has taken nothing of it.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Calls side by side on one connection; a client waits with the next one.
const MOST_STREAMS: u32 = 256;
/// Streams that a client may open and take back before anybody looked at them; past that it is no client of ours.
const MOST_TAKEN_BACK: usize = 64;
/// After so many calls it is asked how many of them their client took back. Each has cost a function a connection and a run.
const LOOKED_AT: usize = 100;
/// A call that ran for longer was wanted when it began: that is how a client ends a stream of events.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What of an answer waits for a client's window, for each of its calls.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a client may take to say that it has understood the end, once it has no call left.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a client that is silent may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves one connection to its end.
pub(super) async fn serve<I, S>(
    io: Prefixed<I>,
    service: S,
    limits: ConnectionLimits,
    mut guest: Guest,
) -> hyper::Result<()>
where
    I: Stream + 'static,
    S: Answers,
{
    let calls = Calls::default();
    let counted = counted(service, calls.clone());
    let io = TokioIo::new(io);
    let mut connection = pin!(protocol(limits).serve_connection(io, counted));
    let mut next = Phase::Leaving;
    loop {
        let seen = calls.begun();
        tokio::select! {
            biased;
            () = calls.misused() => {
                if next == Phase::Over {
                    return Ok(());
                }
                // A client that means no harm goes on elsewhere, and loses nothing.
                connection.as_mut().graceful_shutdown();
                next = Phase::Over;
            }
            ended = connection.as_mut() => return ended,
            () = guest.reached(next) => {
                if next == Phase::Over {
                    return Ok(());
                }
                // Better than HTTP/1's word: the client knows which of its calls were taken.
                connection.as_mut().graceful_shutdown();
                next = Phase::Over;
            }
            () = sleep(limits.read_timeout), if next == Phase::Leaving => {
                if calls.none_since(seen) {
                    connection.as_mut().graceful_shutdown();
                    next = Phase::Over;
                }
            }
            () = sleep(FAREWELL), if next == Phase::Over => {
                if calls.none_since(seen) {
                    return Ok(());
                }
            }
        }
    }
}

fn protocol(limits: ConnectionLimits) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    let head = u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_pending_accept_reset_streams(MOST_TAKEN_BACK)
        .max_header_list_size(head)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.read_timeout)
        .keep_alive_timeout(PING_TIMEOUT);
    http
}

/// The calls of one connection.
#[derive(Clone, Default)]
struct Calls(Arc<Counts>);

#[derive(Default)]
struct Counts {
    running: AtomicUsize,
    begun: AtomicUsize,
    ended: AtomicUsize,
    /// Those of the last [`LOOKED_AT`] that their client took back at once.
    taken_back: AtomicUsize,
    misused: Notify,
}

impl Calls {
    fn begin(&self) -> Running {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Running {
            calls: self.clone(),
            began: Instant::now(),
            is_answered: false,
        }
    }

    fn begun(&self) -> usize {
        self.0.begun.load(Ordering::Relaxed)
    }

    fn none_since(&self, begun: usize) -> bool {
        self.0.running.load(Ordering::Relaxed) == 0 && self.begun() == begun
    }

    fn end(&self, is_taken_back: bool) {
        let counts = &*self.0;
        counts.running.fetch_sub(1, Ordering::Relaxed);
        if is_taken_back {
            counts.taken_back.fetch_add(1, Ordering::Relaxed);
        }
        let ended = counts.ended.fetch_add(1, Ordering::Relaxed) + 1;
        if ended.is_multiple_of(LOOKED_AT)
            && counts.taken_back.swap(0, Ordering::Relaxed) > LOOKED_AT / 2
        {
            counts.misused.notify_one();
        }
    }

    /// Waits until more than half of so many calls were taken back: nobody needs that.
    async fn misused(&self) {
        self.0.misused.notified().await;
    }
}

/// One of them, until it is dropped.
struct Running {
    calls: Calls,
    began: Instant,
    /// Whether it came to an end of its own.
    is_answered: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.calls
            .end(!self.is_answered && self.began.elapsed() < AT_ONCE);
    }
}

/// The service, with each call counted until its answer's body has ended.
fn counted<S: Answers>(
    service: S,
    calls: Calls,
) -> impl Service<
    Request<hyper::body::Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Send + 'static,
> {
    service_fn(move |request: Request<hyper::body::Incoming>| {
        let running = calls.begin();
        let answer = service.answer(Box::new(request.map(Incoming::Many)));
        async move {
            let answer = answer.await;
            let answer = answer.whole();
            Ok(answer.map(|body| Body::stream(Held { body, running })))
        }
    })
}

struct Held {
    body: Body,
    running: Running,
}

impl Drop for Held {
    fn drop(&mut self) {
        // A body that is known to have ended is not asked again.
        self.running.is_answered |= self.body.is_end_stream();
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // Nobody asks again after trailers.
        self.running.is_answered |= match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers(),
            Poll::Ready(_) => true,
            Poll::Pending => false,
        };
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
