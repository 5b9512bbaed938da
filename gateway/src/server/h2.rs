//! HTTP/2 with one client (RFC 9113), without TLS by prior knowledge: gRPC, and clients that share a connection.
//!
//! Each stream has a task of its own that makes the answer and sends it (`h2/stream.rs`); this file accepts streams and ends the
//! connection.

mod stream;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, Connection};
use h2::{Ping, PingPong};
use hyper::Method;
use tokio::sync::Notify;
use tokio::time::{self, sleep, timeout};

use self::stream::Stream;
use super::{Answers, ConnectionLimits};
use crate::alarm::Alarm;
use crate::drain::{Guest, Phase};
use crate::incoming::{self, Incoming, Many, Prefixed};

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
/// What a client may send of request bodies before it is read: on one stream, and on all streams of the connection together.
const RECEIVE_WINDOW: u32 = 1024 * 1024;
/// How long a client may take to say that it has understood the end, once it has no call left.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a client may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves one connection to its end.
pub(super) async fn serve<I, S>(
    io: Prefixed<I>,
    service: S,
    limits: ConnectionLimits,
    mut guest: Guest,
) -> Result<(), h2::Error>
where
    I: incoming::Stream + 'static,
    S: Answers,
{
    let handshake = timeout(limits.read_timeout, protocol(limits).handshake(io));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = guest.reached(Phase::Over) => return Ok(()),
    };
    let Ok(connection) = shaken else {
        return Ok(());
    };
    let calls = Calls::default();
    let mut accepting = Accepting::new(connection?, service, calls.clone(), limits);
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
                accepting.connection.graceful_shutdown();
                next = Phase::Over;
            }
            ended = &mut accepting => return ended,
            () = guest.reached(next) => {
                if next == Phase::Over {
                    return Ok(());
                }
                // Better than HTTP/1's word: the client knows which of its calls were taken.
                accepting.connection.graceful_shutdown();
                next = Phase::Over;
            }
            () = sleep(limits.read_timeout), if next == Phase::Leaving => {
                if calls.none_since(seen) {
                    accepting.connection.graceful_shutdown();
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

fn protocol(limits: ConnectionLimits) -> Builder {
    let mut http = Builder::new();
    let head = u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX);
    http.max_concurrent_streams(MOST_STREAMS)
        .max_pending_accept_reset_streams(MOST_TAKEN_BACK)
        .max_header_list_size(head)
        .max_send_buffer_size(SEND_BUFFER)
        .initial_window_size(RECEIVE_WINDOW)
        .initial_connection_window_size(RECEIVE_WINDOW);
    http
}

/// Accepts the streams of one connection and gives each a task; drives the connection.
struct Accepting<I, S> {
    connection: Connection<Prefixed<I>, Bytes>,
    service: S,
    calls: Calls,
    keep_alive: Option<KeepAlive>,
    write_timeout: Duration,
}

impl<I: incoming::Stream, S: Answers> Accepting<I, S> {
    fn new(
        mut connection: Connection<Prefixed<I>, Bytes>,
        service: S,
        calls: Calls,
        limits: ConnectionLimits,
    ) -> Self {
        let pings = connection.ping_pong();
        Self {
            connection,
            service,
            calls,
            keep_alive: pings.map(|pings| KeepAlive::new(pings, limits.read_timeout)),
            write_timeout: limits.write_timeout,
        }
    }
}

impl<I: incoming::Stream, S: Answers> Future for Accepting<I, S> {
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if let Some(keep_alive) = &mut this.keep_alive {
                let is_silent = keep_alive.poll(cx).is_ready();
                if is_silent {
                    return Poll::Ready(Ok(()));
                }
            }
            let Some(accepted) = ready!(this.connection.poll_accept(cx)) else {
                return Poll::Ready(Ok(()));
            };
            let (request, respond) = accepted?;
            let running = this.calls.begin();
            let is_head = *request.method() == Method::HEAD;
            let (head, body) = request.into_parts();
            let body = Incoming::Many(Many::new(body, &head.headers));
            let answer = this
                .service
                .answer(Box::new(hyper::Request::from_parts(head, body)));
            let stream = Stream {
                respond,
                running,
                is_head,
                write_timeout: this.write_timeout,
            };
            tokio::spawn(stream.answer(answer));
        }
    }
}

/// Pings a client, so that one that is gone does not keep its connection.
struct KeepAlive {
    pings: PingPong,
    interval: Duration,
    is_asked: bool,
    due: time::Instant,
    alarm: Alarm,
}

impl KeepAlive {
    fn new(pings: PingPong, interval: Duration) -> Self {
        Self {
            pings,
            interval,
            is_asked: false,
            due: time::Instant::now() + interval,
            alarm: Alarm::default(),
        }
    }

    /// Ready when a ping was not answered in time.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_asked && self.pings.poll_pong(cx).is_ready() {
                // An error is the connection's own, and ends it.
                self.is_asked = false;
                self.due = time::Instant::now() + self.interval;
            }
            ready!(self.alarm.poll(cx, self.due));
            if self.is_asked {
                return Poll::Ready(());
            }
            self.is_asked = self.pings.send_ping(Ping::opaque()).is_ok();
            let wait = if self.is_asked {
                PING_TIMEOUT
            } else {
                self.interval
            };
            self.due = time::Instant::now() + wait;
        }
    }
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
    /// Whether it came to an end that is not the client's taking it back.
    is_answered: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.calls
            .end(!self.is_answered && self.began.elapsed() < AT_ONCE);
    }
}

#[cfg(test)]
#[path = "h2_tests.rs"]
mod tests;
