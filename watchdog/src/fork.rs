//! One run of the command: started in its own group, fed and read at the same time, ended with its whole tree.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::activity::Activity;
use crate::cgi;
use crate::exit::Exit;
use crate::feed::{Feed, discard};
use crate::limits::Limits;
use crate::lines::Lines;
use crate::metrics::Kill;
use crate::note::Note;
use crate::pipes::{Found, Reader, Writer};
use crate::refusal::Refusal;
use crate::report;
use crate::runs::RunId;
use crate::spawn::Child;
use crate::start::Started;
use crate::strings::Strings;
use crate::timing::Timing;
use crate::watchdog::{Counted, Watchdog};

/// Output from which on it is read in large pieces; most are smaller.
const LARGE: usize = 4 * 1024;

/// One large read.
const LARGE_READ: usize = 64 * 1024;

/// A run, from its start until its direct child has exited and its output is taken. Dropped before, it is ended.
#[derive(Debug)]
pub(crate) struct Run {
    watchdog: Arc<Watchdog>,
    connection: Rc<Activity>,
    id: RunId,
    /// `None` once reaped.
    child: Option<Child>,
    exit: Option<Exit>,
    feed: Feed,
    /// `None` at its end.
    stdout: Option<Reader>,
    /// Bytes that lay in the pipe when the child exited and are still to be taken.
    remaining: usize,
    stderr: Option<Reader>,
    stderr_lines: Lines,
    limits: Limits,
    /// Why it is ended, if it is dropped before its command has exited.
    kill: Kill,
    timing: Timing,
    /// `None` when it is written, or there is none.
    note: Option<Note>,
    /// Whether the output has proved large: further reads are, too.
    is_large: bool,
    /// Output that nobody has taken yet.
    output: BytesMut,
    /// Output that was taken.
    written: usize,
    /// Counts the call as long as the run lives.
    _slot: Counted,
}

/// An admitted call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) connection: Rc<Activity>,
    pub(crate) slot: Counted,
}

/// How far a run is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is as much output as was asked for.
    Full,
    /// The run is over, and all output is there.
    Over(Exit),
}

/// What a run is given of its request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) headers: &'a HeaderMap,
    /// The head as the command gets it.
    pub(crate) described: Strings,
    /// The arguments, if they differ from those of `fprocess`.
    pub(crate) arguments: Option<Strings>,
    /// The body, if it goes into the command.
    pub(crate) body: Option<Incoming>,
}

impl Run {
    /// Begins a run for one request: takes a waiting child, or starts one.
    pub(crate) fn start(
        call: Call,
        request: Request<'_>,
    ) -> Result<Self, (Refusal, Option<Incoming>)> {
        let watchdog = call.watchdog;
        let began = Instant::now();
        let ready = match Ready::obtain(&watchdog, &request) {
            Ok(ready) => ready,
            Err(refusal) => return Err((refusal, request.body)),
        };
        let config = &watchdog.config;
        let started = Instant::now();
        if watchdog.pool.is_some() {
            watchdog.metrics.call_waited(started - began);
        }
        let limits = Limits::new(started, config);
        let prefix = config.prefix_logs.then_some("stderr");
        let stderr_lines = Lines::of(prefix, config.longest_line);
        let feed = match request.body {
            None => Feed::empty(ready.stdin),
            Some(body) if config.marshal_request => {
                Feed::marshalled(request.headers, body, ready.stdin)
            }
            Some(body) => Feed::plain(body, ready.stdin),
        };
        let note = ready.note.map(|pipe| Note::new(&request.described, pipe));
        Ok(Self {
            watchdog,
            connection: call.connection,
            id: ready.id,
            child: Some(ready.child),
            exit: None,
            feed,
            stdout: Some(ready.stdout),
            remaining: 0,
            stderr: ready.stderr,
            stderr_lines,
            limits,
            kill: Kill::ClientGone,
            timing: Timing::new(began, started, ready.is_ahead),
            note,
            is_large: false,
            output: BytesMut::new(),
            written: 0,
            _slot: call.slot,
        })
    }

    /// Drives everything until there are more than `wanted` bytes of output, the run is over, or it failed.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<Progress, Refusal>> {
        if self.exit.is_none() {
            // Before the body: a command that has read its input has had the chance to read this.
            if self
                .note
                .as_mut()
                .is_some_and(|note| note.poll(cx).is_ready())
            {
                self.note = None;
            }
            if let Poll::Ready(Err(error)) = self.feed.poll(cx) {
                self.kill = Kill::BodyBroken;
                return Poll::Ready(Err(Refusal::broken(&error)));
            }
            self.read_output(cx, wanted);
            if self.output.len() > wanted {
                return Poll::Ready(Ok(Progress::Full));
            }
            self.read_stderr(cx);
            match self.poll_exit(cx) {
                Poll::Ready(exit) => self.has_exited(exit),
                Poll::Pending => return self.check_limits(),
            }
        }
        self.take_remaining(wanted);
        match self.exit {
            Some(exit) if self.remaining == 0 => Poll::Ready(Ok(Progress::Over(exit))),
            _ => Poll::Ready(Ok(Progress::Full)),
        }
    }

    /// The output that has come since the last call.
    pub(crate) fn take_output(&mut self) -> Bytes {
        if !self.output.is_empty() {
            self.limits
                .answer_goes_on(self.watchdog.config.write_timeout);
        }
        self.written += self.output.len();
        self.output.split().freeze()
    }

    /// The output so far.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }

    /// When what happened.
    pub(crate) fn timing(&self) -> &Timing {
        &self.timing
    }

    /// The watchdog it belongs to.
    pub(crate) fn watchdog(&self) -> &Arc<Watchdog> {
        &self.watchdog
    }

    fn read_output(&mut self, cx: &mut Context<'_>, wanted: usize) {
        while let Some(stdout) = &mut self.stdout {
            if self.output.len() > wanted {
                return;
            }
            let before = self.output.len();
            let found = if self.is_large {
                stdout.poll_read_much(cx, &mut self.output, LARGE_READ)
            } else {
                stdout.poll_read(cx, &mut self.output)
            };
            match found {
                Poll::Ready(Ok(Found::Bytes(_))) => {
                    self.is_large |= self.output.len() >= LARGE;
                    self.timing.has_output();
                    copy_for_debugging(&self.watchdog, &self.output[before..]);
                }
                Poll::Ready(Ok(Found::End) | Err(_)) => self.stdout = None,
                Poll::Pending => return,
            }
        }
    }

    fn read_stderr(&mut self, cx: &mut Context<'_>) {
        while let Some(stderr) = &mut self.stderr {
            match stderr.poll_read(cx, self.stderr_lines.buffer()) {
                Poll::Ready(Ok(Found::Bytes(_))) => self.stderr_lines.pass_on(&self.watchdog.log),
                Poll::Ready(Ok(Found::End) | Err(_)) => self.stderr = None,
                Poll::Pending => return,
            }
        }
    }

    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        match &mut self.child {
            Some(child) => child.poll_exit(cx),
            None => Poll::Ready(Exit::Unknown),
        }
    }

    /// The direct child is gone and reaped: what is in the pipes now is all that counts, whoever else holds them.
    fn has_exited(&mut self, exit: Exit) {
        self.child = None;
        self.note = None;
        if matches!(exit, Exit::CpuLimit { .. }) {
            self.watchdog.metrics.killed(Kill::CpuLimit);
        }
        self.exit = Some(exit);
        self.remaining = self.stdout.as_ref().map_or(0, Reader::waiting);
        if let Some(stderr) = self.stderr.take() {
            let waiting = stderr.waiting();
            stderr.take(self.stderr_lines.buffer(), waiting);
        }
        self.stderr_lines.pass_on(&self.watchdog.log);
        self.stderr_lines.finish(&self.watchdog.log);
        self.watchdog.orders.run_ended(self.id);
        if let Some(rest) = self.feed.take_rest() {
            discard(rest, self.limits.body);
        }
    }

    /// The connection's timer sees to it that this is called in time.
    fn check_limits(&mut self) -> Poll<Result<Progress, Refusal>> {
        let first = self.limits.first(self.feed.has_whole_body());
        self.connection.set_call_limit(first.map(|(at, _)| at));
        match first {
            Some((at, limit)) if Instant::now() >= at => {
                self.connection.set_call_limit(None);
                self.kill = limit.kill();
                Poll::Ready(Err(limit.refusal(&self.watchdog.config)))
            }
            _ => Poll::Pending,
        }
    }

    fn take_remaining(&mut self, wanted: usize) {
        while self.remaining > 0 && self.output.len() <= wanted {
            let before = self.output.len();
            let some = self.remaining.min(LARGE_READ);
            let count = self
                .stdout
                .as_ref()
                .map_or(0, |stdout| stdout.take(&mut self.output, some));
            if count > 0 {
                self.timing.has_output();
            }
            copy_for_debugging(&self.watchdog, &self.output[before..]);
            self.remaining = if count == 0 {
                0
            } else {
                self.remaining.saturating_sub(count)
            };
        }
    }
}

impl Drop for Run {
    /// Nobody waits for the answer any more: the run is ended with its whole tree.
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            self.watchdog.metrics.killed(self.kill);
            // The other ends have been reported with their refusal.
            if self.kill == Kill::ClientGone {
                report::failed(
                    self,
                    self.written,
                    "the caller has left, and the run was ended",
                );
            }
            self.watchdog.orders.end_tree(self.id, child, None);
        }
    }
}

/// A process that is there for a request, with our ends of its pipes.
struct Ready {
    id: RunId,
    child: Child,
    stdin: Writer,
    stdout: Reader,
    stderr: Option<Reader>,
    note: Option<Writer>,
    /// It was started before the request came.
    is_ahead: bool,
}

impl Ready {
    /// Takes a waiting child, or starts one.
    fn obtain(watchdog: &Watchdog, request: &Request<'_>) -> Result<Self, Refusal> {
        let pool = watchdog.pool.as_ref();
        let taken = pool.and_then(|pool| pool.take(&watchdog.orders.runs));
        let is_ahead = taken.is_some();
        let (id, started) = match taken {
            Some(taken) => taken,
            None => start(watchdog, request)?,
        };
        let Started { child, pipes } = started;
        match register(pipes.stdout, pipes.stderr) {
            Ok((stdout, stderr)) => Ok(Self {
                id,
                child,
                stdin: pipes.stdin,
                stdout,
                stderr,
                note: pipes.note,
                is_ahead,
            }),
            Err(error) => {
                watchdog.orders.end_tree(id, child, None);
                Err(cannot_start(watchdog, &error))
            }
        }
    }
}

/// Starts the command for this request alone.
fn start(watchdog: &Watchdog, request: &Request<'_>) -> Result<(RunId, Started), Refusal> {
    let runs = &watchdog.orders.runs;
    let id = runs.begin();
    let environment = cgi::environment(&watchdog.inherited, &runs.marker(id), &request.described);
    let command = &watchdog.command;
    let arguments = request.arguments.as_ref().unwrap_or(command.arguments());
    let began = Instant::now();
    match watchdog
        .setup
        .start(command, arguments, &environment, runs.limit(id))
    {
        Ok(started) => {
            watchdog.metrics.process_started(began.elapsed());
            Ok((id, started))
        }
        Err(error) => {
            runs.end(id);
            Err(cannot_start(watchdog, &error))
        }
    }
}

/// Makes readers of our ends on the thread that will read.
fn register(stdout: OwnedFd, stderr: Option<OwnedFd>) -> io::Result<(Reader, Option<Reader>)> {
    Ok((Reader::new(stdout)?, stderr.map(Reader::new).transpose()?))
}

fn cannot_start(watchdog: &Watchdog, error: &io::Error) -> Refusal {
    let is_too_big = error.raw_os_error() == Some(libc::E2BIG);
    if is_too_big && watchdog.config.has_arguments {
        return Refusal::ArgumentsTooLong;
    }
    if is_too_big {
        return Refusal::HeadTooLarge {
            variable: "the request's head".to_owned(),
        };
    }
    Refusal::CannotStart {
        command: watchdog.command.name().to_owned(),
        error: error.to_string(),
    }
}

fn copy_for_debugging(watchdog: &Watchdog, output: &[u8]) {
    if let Some(debug) = watchdog
        .debug
        .as_ref()
        .filter(|_| watchdog.config.write_debug && !output.is_empty())
    {
        debug.chunk(output);
    }
}
