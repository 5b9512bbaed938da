//! The long-lived child of `mode=http`: kept running, stopped while nobody calls, started again when it has ended.
//!
//! It lives on a thread of its own, because the kernel ends it with the thread that started it, and because its exit
//! must not be taken by the main thread's reaper. Its tree is a run's tree: marked, and ended when the child is gone.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::duration::show;
use crate::exit::Exit;
use crate::process::Process;
use crate::upstream::Upstream;
use crate::watchdog::Watchdog;

/// Between two looks whether a starting child accepts connections.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// How long a child may take to end after TERM.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// For a server that puts itself into the background.
const DAEMON_HINT: &str = "; if it is a server that becomes a daemon, start it in the foreground (such as nginx -g 'daemon off;')";

const THREAD_STACK: usize = 256 * 1024;

/// Where the child is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Started, but does not accept connections yet.
    Starting,
    /// Accepts.
    Ready,
    /// Stopped, or being stopped, because nobody called; the next call starts it again.
    Idle,
    /// Has ended, and is started again then.
    Down(Instant),
    /// Has ended for good, because the watchdog does.
    Gone,
}

/// The child as everybody else sees it.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) upstream: Upstream,
    state: watch::Sender<State>,
    is_stopping: watch::Sender<bool>,
    idle_timeout: Option<Duration>,
    /// Calls so far, so that a short one is seen between two looks.
    asked: AtomicU64,
    /// Rung by a call that finds the child idle.
    wanted: Notify,
}

impl Service {
    /// A child that is not started yet.
    pub(crate) fn new(upstream: Upstream, idle_timeout: Option<Duration>) -> Self {
        Self {
            upstream,
            state: watch::Sender::new(State::Starting),
            is_stopping: watch::Sender::new(false),
            idle_timeout,
            asked: AtomicU64::new(0),
            wanted: Notify::new(),
        }
    }

    /// `None` if it takes calls, else the seconds after which a caller may try again.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match *self.state.borrow() {
            State::Ready | State::Idle => None,
            State::Starting | State::Gone => Some(1),
            State::Down(until) => {
                let left = until.saturating_duration_since(Instant::now());
                Some(left.as_secs() + 1)
            }
        }
    }

    /// The child accepts connections from now on.
    pub(crate) fn accepts(&self) {
        self.state.send_replace(State::Ready);
    }

    /// Whether the child is stopped until somebody calls.
    pub(crate) fn is_idle(&self) -> bool {
        *self.state.borrow() == State::Idle
    }

    /// What an admitted call does first: starts an idle child, however many calls find it so, and waits while it
    /// starts; an error is the seconds after which the caller may try again. The call must be counted already.
    pub(crate) async fn ask(&self) -> Result<(), u64> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.idle_timeout.is_some() {
            if self.is_idle() {
                self.wanted.notify_one();
            }
            let mut state = self.state.subscribe();
            let is_decided = |state: &State| !matches!(state, State::Idle | State::Starting);
            let _ = state.wait_for(is_decided).await;
        }
        self.retry_after().map_or(Ok(()), Err)
    }

    /// Waits until nobody has called for the idle time, and marks the child as idle. A call counts itself before it
    /// looks at the state, and we look at the count after we have set it: one of the two sees the other.
    pub(crate) async fn becomes_idle(&self, watchdog: &Watchdog) {
        let Some(limit) = self.idle_timeout else {
            return std::future::pending().await;
        };
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let asked = self.asked.load(Ordering::SeqCst);
            if asked != seen || watchdog.calls.count() > 0 {
                (seen, since) = (asked, Instant::now());
            } else if since.elapsed() >= limit {
                self.state.send_replace(State::Idle);
                if watchdog.calls.count() == 0 {
                    return;
                }
                self.state.send_replace(State::Ready);
            }
            sleep((limit / 8).clamp(LOOK, Duration::from_secs(1))).await;
        }
    }

    /// Waits until a call needs the child, or the watchdog stops. A ring without a call is an old one.
    async fn is_wanted(&self, watchdog: &Watchdog) {
        loop {
            either(self.wanted.notified(), self.stopping()).await;
            if watchdog.calls.count() > 0 || *self.is_stopping.borrow() {
                return;
            }
        }
    }

    /// Asks the child to end (TERM), and waits for it; who does not obey in time is the reaper's.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.is_stopping.send_replace(true);
        let mut state = self.state.subscribe();
        let gone = state.wait_for(|state| *state == State::Gone);
        let _ = tokio::time::timeout(patience, gone).await;
    }

    /// Waits for the order to stop.
    pub(crate) async fn stopping(&self) {
        // An error means that the watchdog is gone, which ends the thread anyway.
        let _ = self.is_stopping.subscribe().wait_for(|stop| *stop).await;
    }
}

/// Starts the thread that keeps the child running, if the mode has one.
pub(crate) fn start(watchdog: &Arc<Watchdog>) -> io::Result<()> {
    if watchdog.service.is_none() {
        return Ok(());
    }
    let watchdog = Arc::clone(watchdog);
    let body = move || {
        let built = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build_local(LocalOptions::default());
        match (built, &watchdog.service) {
            (Ok(runtime), Some(service)) => runtime.block_on(keep(&watchdog, service)),
            (Err(error), _) => watchdog
                .log
                .line(format_args!("error: cannot start fprocess: {error}")),
            _ => {}
        }
    };
    std::thread::Builder::new()
        .name("service".to_owned())
        .stack_size(THREAD_STACK)
        .spawn(body)?;
    Ok(())
}

/// Starts the child again and again until the watchdog stops.
async fn keep(watchdog: &Watchdog, service: &Service) {
    let mut backoff = Backoff::new();
    loop {
        let began = Instant::now();
        let mut has_left = false;
        service.state.send_replace(State::Starting);
        let end = match Process::start(watchdog) {
            Ok(process) => {
                let exit = process.live(watchdog, service).await;
                if service.is_idle() && !*service.is_stopping.borrow() {
                    watchdog.log.line(format_args!(
                        "fprocess is stopped until the next call ({exit})"
                    ));
                    service.is_wanted(watchdog).await;
                    if *service.is_stopping.borrow() {
                        break;
                    }
                    continue;
                }
                // Nothing to complain of, and yet it is gone: what it forked goes with it.
                has_left = exit == Exit::Status(0);
                let explained = watchdog.memory.explains(exit);
                explained.unwrap_or_else(|| exit.to_string())
            }
            Err(error) => format!("cannot start {}: {error}", watchdog.command.name()),
        };
        if *service.is_stopping.borrow() {
            break;
        }
        let pause = backoff.pause_after(began.elapsed());
        let hint = if has_left { DAEMON_HINT } else { "" };
        watchdog.log.line(format_args!(
            "error: fprocess has ended ({end}); it is started again in {}{hint}",
            show(pause)
        ));
        service
            .state
            .send_replace(State::Down(Instant::now() + pause));
        either(service.stopping(), sleep(pause)).await;
        if *service.is_stopping.borrow() {
            break;
        }
    }
    service.state.send_replace(State::Gone);
}

/// Until one of the two is ready.
async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Pending => other.as_mut().poll(cx),
        done => done,
    })
    .await;
}
