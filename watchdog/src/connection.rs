//! One client connection: its socket, its time limits between and within calls, its end when the watchdog drains.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::activity::Activity;
use crate::handler;
use crate::intake::LARGEST_HEAD;
use crate::socket::{READ_SIZE, Socket};
use crate::watchdog::Watchdog;

/// How long a draining watchdog still listens on idle connections: a call that is on its way gets a clear "not
/// accepted" and not a reset, which its sender could not tell from a call that has run. Long enough for a sender on a busy
/// machine to have heard it once.
const LINGER: Duration = Duration::from_millis(400);

/// Serves one connection to its end.
pub(crate) async fn serve(stream: TcpStream, watchdog: Arc<Watchdog>) {
    // Answers are written at once as a whole; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let activity = Rc::new(Activity::new());
    let stall_limit = watchdog.config.write_timeout;
    let socket = Socket::of_client(stream, Rc::clone(&activity), stall_limit);
    let mut drain = watchdog.drain.subscribe();
    let mut drained = pin!(async move {
        // An error means that the watchdog is gone, which ends the thread anyway.
        let _ = drain.wait_for(|is_draining| *is_draining).await;
        tokio::time::sleep(LINGER).await;
    });
    let read_limit = watchdog.config.read_timeout;
    let per_call = Rc::clone(&activity);
    let service = service_fn(move |request| {
        // Boxed, because hyper gives the socket of an upgrade back only from futures that can be moved.
        Box::pin(handler::answer(
            Arc::clone(&watchdog),
            Rc::clone(&per_call),
            request,
        ))
    });
    let mut protocol = http1::Builder::new();
    protocol
        // An escaped target is longer than it came.
        .max_header_size(LARGEST_HEAD * 2)
        .max_buf_size(LARGEST_HEAD * 2 + READ_SIZE)
        .title_case_headers(true);
    let mut connection = protocol.serve_connection(socket, service);
    let mut alarm = Alarm::default();
    let mut is_draining = false;
    poll_fn(|cx| {
        if !is_draining && drained.as_mut().poll(cx).is_ready() {
            is_draining = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        // Twice, because a limit may pass between the two looks: a call that has met its limit answers for itself,
        // and only if it cannot, because the client takes nothing, the connection is closed.
        for _ in 0..2 {
            // Errors are the client's: it went away, or did not speak HTTP.
            if connection.poll_without_shutdown(cx).is_ready() {
                return Poll::Ready(());
            }
            if alarm.poll(cx, activity.limit(read_limit)).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    })
    .await;
    if let Some(tunnel) = activity.take_tunnel() {
        let parts = connection.into_parts();
        let (stream, held) = parts.io.into_parts();
        let early = [&parts.read_buf[..], &held].concat();
        tunnel.run(stream, early.into()).await;
    }
}

/// One timer for all limits of a connection. It is only ever set to an earlier time: while it is early enough it is
/// left alone, and set anew when it rings too soon. Limits move with every call; a timer that moved with them would
/// wake its own thread each time.
#[derive(Debug, Default)]
struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready once `at` has passed; never if there is none.
    fn poll(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let Some(at) = at else { return Poll::Pending };
        if Instant::now() >= at {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
        Poll::Pending
    }
}
