//! The long-lived child of `mode=http`: kept running, and its output kept apart from ours.
//!
//! It lives on a thread of its own, because the kernel ends it with the thread that started it, and because its exit
//! must not be taken by the main thread's reaper. Its tree is a run's tree: marked, and ended when the child is gone.

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::Signal;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::cgi;
use crate::duration::show;
use crate::exit::Exit;
use crate::logs::{Lines, Sink};
use crate::pipes::{self, Found, Reader};
use crate::spawn::{self, Child, ChildEnds, signal_group};
use crate::upstream::Upstream;
use crate::watchdog::Watchdog;

/// The pause before a child that has ended is started again: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A child that has lived this long did not fail at its start: its next pause is the first one again.
const STEADY: Duration = Duration::from_secs(10);

/// Between two looks whether a starting child accepts connections.
const LOOK: Duration = Duration::from_millis(10);

/// One read of the child's output.
const READ_SIZE: usize = 4 * 1024;

const THREAD_STACK: usize = 256 * 1024;

/// Where the child is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Started, but does not accept connections yet.
    Starting,
    /// Accepts.
    Ready,
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
}

impl Service {
    /// A child that is not started yet.
    pub(crate) fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            state: watch::Sender::new(State::Starting),
            is_stopping: watch::Sender::new(false),
        }
    }

    /// `None` if it takes calls, else the seconds after which a caller may try again.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match *self.state.borrow() {
            State::Ready => None,
            State::Starting | State::Gone => Some(1),
            State::Down(until) => {
                let left = until.saturating_duration_since(Instant::now());
                Some(left.as_secs() + 1)
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

    async fn stopping(&self) {
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
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        service.state.send_replace(State::Starting);
        let end = match Process::start(watchdog) {
            Ok(process) => process.live(watchdog, service).await.to_string(),
            Err(error) => format!("cannot start {}: {error}", watchdog.command.name()),
        };
        if *service.is_stopping.borrow() {
            break;
        }
        if began.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        watchdog.log.line(format_args!(
            "error: fprocess has ended ({end}); it is started again in {}",
            show(pause)
        ));
        service
            .state
            .send_replace(State::Down(Instant::now() + pause));
        let mut stopping = pin!(service.stopping());
        let mut rest = pin!(sleep(pause));
        poll_fn(|cx| match stopping.as_mut().poll(cx) {
            Poll::Pending => rest.as_mut().poll(cx),
            done => done,
        })
        .await;
        if *service.is_stopping.borrow() {
            break;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    service.state.send_replace(State::Gone);
}

/// A running child.
struct Process {
    id: crate::runs::RunId,
    child: Child,
    outlets: [Outlet; 2],
}

impl Process {
    fn start(watchdog: &Watchdog) -> io::Result<Self> {
        let runs = &watchdog.orders.runs;
        let id = runs.begin();
        let started = Self::try_start(watchdog, id);
        if started.is_err() {
            runs.end(id);
        }
        started
    }

    fn try_start(watchdog: &Watchdog, id: crate::runs::RunId) -> io::Result<Self> {
        let marker = watchdog.orders.runs.marker(id);
        let environment = cgi::environment(&watchdog.inherited, &marker, None)
            .map_err(|cgi::TooLong(name)| io::Error::other(format!("{name} is too long")))?;
        let (stdout, child_stdout) = pipes::out_of_command()?;
        let (stderr, child_stderr) = pipes::out_of_command()?;
        let ends = ChildEnds {
            stdin: File::open("/dev/null")?.into(),
            stdout: child_stdout,
            stderr: Some(child_stderr),
        };
        let path = watchdog.command.path()?;
        watchdog.log.line(format_args!(
            "starting fprocess: {}",
            watchdog.config.command.join(" ")
        ));
        let child = spawn::spawn(path, watchdog.command.arguments(), &environment, &ends)?;
        let out = watchdog.debug.as_ref().unwrap_or(&watchdog.log);
        Ok(Self {
            id,
            child,
            outlets: [
                Outlet::new(stdout, out.clone()),
                Outlet::new(stderr, watchdog.log.clone()),
            ],
        })
    }

    /// Until its exit: passes its output on, says when it accepts, and hands on the order to stop.
    async fn live(mut self, watchdog: &Watchdog, service: &Service) -> Exit {
        let pid = self.child.pid();
        let mut stopping = pin!(async {
            service.stopping().await;
            signal_group(pid, Signal::TERM);
            std::future::pending::<()>().await;
        });
        let mut accepting = pin!(async {
            while service.upstream.dial().await.is_err() {
                sleep(LOOK).await;
            }
            service.state.send_replace(State::Ready);
            watchdog
                .log
                .line(format_args!("fprocess accepts connections"));
            std::future::pending::<()>().await;
        });
        let exit = poll_fn(|cx| {
            self.outlets.iter_mut().for_each(|outlet| outlet.poll(cx));
            let _ = stopping.as_mut().poll(cx);
            if let Poll::Ready(exit) = self.child.poll_exit(cx) {
                return Poll::Ready(exit);
            }
            let _ = accepting.as_mut().poll(cx);
            Poll::Pending
        })
        .await;
        self.outlets.iter_mut().for_each(Outlet::finish);
        watchdog.orders.run_ended(self.id);
        exit
    }
}

/// One of the child's two output streams on its way to ours.
struct Outlet {
    /// `None` at its end.
    reader: Option<Reader>,
    lines: Lines,
    sink: Sink,
}

impl Outlet {
    fn new(reader: Reader, sink: Sink) -> Self {
        Self {
            reader: Some(reader),
            lines: Lines::default(),
            sink,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        while let Some(reader) = &mut self.reader {
            match reader.poll_read(cx, self.lines.buffer(), READ_SIZE) {
                Poll::Ready(Ok(Found::Bytes(_))) => self.lines.pass_on(&self.sink),
                Poll::Ready(Ok(Found::End) | Err(_)) => self.reader = None,
                Poll::Pending => return,
            }
        }
    }

    /// What the child has left in the pipe.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let waiting = reader.waiting();
            reader.take(self.lines.buffer(), waiting);
        }
        self.lines.pass_on(&self.sink);
        self.lines.finish(&self.sink);
    }
}
