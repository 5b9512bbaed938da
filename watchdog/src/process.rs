//! One life of the long-lived child: from its start to its exit, its output passed on.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::cgi;
use crate::exit::Exit;
use crate::lines::Lines;
use crate::logs::Sink;
use crate::metrics::Kill;
use crate::pipes::{self, Found, Reader};
use crate::quota::Quota;
use crate::runs::RunId;
use crate::service::{LOOK, STOP_PATIENCE, Service};
use crate::spawn::{self, Child, ChildEnds, Program, signal_group};
use crate::strings::Strings;
use crate::watchdog::Watchdog;

/// A running child.
pub(crate) struct Process {
    id: RunId,
    child: Child,
    outlets: [Outlet; 2],
}

impl Process {
    /// Starts it, and the run that its tree belongs to.
    pub(crate) fn start(watchdog: &Watchdog) -> io::Result<Self> {
        let runs = &watchdog.orders.runs;
        let id = runs.begin();
        let started = Self::try_start(watchdog, id);
        if started.is_err() {
            runs.end(id);
        }
        started
    }

    fn try_start(watchdog: &Watchdog, id: RunId) -> io::Result<Self> {
        let marker = watchdog.orders.runs.marker(id);
        let environment = cgi::environment(&watchdog.inherited, &marker, &Strings::default());
        let (stdout, child_stdout) = pipes::out_of_command()?;
        let (stderr, child_stderr) = pipes::out_of_command()?;
        let (stdout, stderr) = (Reader::new(stdout)?, Reader::new(stderr)?);
        let ends = ChildEnds {
            stdin: File::open("/dev/null")?.into(),
            stdout: child_stdout,
            stderr: Some(child_stderr),
            note: None,
        };
        let program = Program {
            path: watchdog.command.path()?,
            arguments: watchdog.command.arguments(),
            environment: &environment,
            quota: Quota::default(),
            resident_limit: watchdog.orders.runs.limit(id),
        };
        watchdog.log.line(format_args!(
            "starting fprocess: {}",
            watchdog.config.command.join(" ")
        ));
        let began = Instant::now();
        let child = spawn::spawn(&program, &ends)?;
        watchdog.metrics.process_started(began.elapsed());
        let longest = watchdog.config.longest_line;
        let prefix = |name| watchdog.config.prefix_logs.then_some(name);
        let out = watchdog.debug.as_ref().unwrap_or(&watchdog.log);
        Ok(Self {
            id,
            child,
            outlets: [
                Outlet::new(stdout, Lines::of(prefix("stdout"), longest), out.clone()),
                Outlet::new(
                    stderr,
                    Lines::of(prefix("stderr"), longest),
                    watchdog.log.clone(),
                ),
            ],
        })
    }

    /// Until its exit: passes its output on, says when it accepts, and hands on the order to stop.
    pub(crate) async fn live(mut self, watchdog: &Watchdog, service: &Service) -> Exit {
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
            service.accepts();
            watchdog
                .log
                .line(format_args!("fprocess accepts connections"));
            service.becomes_idle(watchdog).await;
            watchdog.metrics.killed(Kill::IdleTimeout);
            signal_group(pid, Signal::TERM);
            sleep(STOP_PATIENCE).await;
            signal_group(pid, Signal::KILL);
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
    fn new(reader: Reader, lines: Lines, sink: Sink) -> Self {
        Self {
            reader: Some(reader),
            lines,
            sink,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        while let Some(reader) = &mut self.reader {
            match reader.poll_read(cx, self.lines.buffer()) {
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
