//! Keeps the pool filled: starts children ahead, replaces those that end unused, and lets them go when nobody calls.
//!
//! It has a thread of its own, which stays to the end, because the kernel ends a child with the thread that started it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::backoff::Backoff;
use crate::cgi;
use crate::duration::show;
use crate::metrics::Kill;
use crate::pool::{Pool, Waiting, Want};
use crate::strings::Strings;
use crate::watchdog::Watchdog;

/// How often ends are looked for where the kernel does not tell them (before 5.3).
const LOOK: Duration = Duration::from_secs(1);

/// How long a start lets the call go first that has taken a child, as long as others wait: it costs as much processor
/// time as many a call, and would compete with that one.
const COURTESY: Duration = Duration::from_millis(20);

const THREAD_STACK: usize = 128 * 1024;

/// Starts the thread, if there is a pool to be filled.
pub(crate) fn start(watchdog: &Arc<Watchdog>) -> io::Result<()> {
    if watchdog.pool.is_none() {
        return Ok(());
    }
    let watchdog = Arc::clone(watchdog);
    let body = move || {
        if let Some(pool) = &watchdog.pool {
            Filler::new(&watchdog, pool).work();
        }
    };
    std::thread::Builder::new()
        .name("prefork".to_owned())
        .stack_size(THREAD_STACK)
        .spawn(body)?;
    Ok(())
}

struct Filler<'a> {
    watchdog: &'a Watchdog,
    pool: &'a Pool,
    backoff: Backoff,
    /// No start before then, because the last one failed.
    paused_until: Option<Instant>,
    /// No start before then, because a call goes first.
    courteous_until: Option<Instant>,
    /// Calls that had found a child when we last looked.
    taken: u64,
}

impl<'a> Filler<'a> {
    fn new(watchdog: &'a Watchdog, pool: &'a Pool) -> Self {
        Self {
            watchdog,
            pool,
            backoff: Backoff::new(),
            paused_until: None,
            courteous_until: None,
            taken: 0,
        }
    }

    fn work(&mut self) -> ! {
        loop {
            self.replace_dead();
            let wake_at = match self.pool.want() {
                Want::More(missing, idle_at) => {
                    if self.next_start().is_none() {
                        self.fill(missing);
                    }
                    // A start that has failed has set it anew.
                    self.next_start().into_iter().chain(idle_at).min()
                }
                Want::Idle => {
                    let waiting = self.pool.remove(|_| true);
                    for _ in &waiting {
                        self.watchdog.metrics.killed(Kill::PreforkIdle);
                    }
                    self.dismiss(waiting);
                    None
                }
                Want::Stop => {
                    self.dismiss(self.pool.remove(|_| true));
                    None
                }
            };
            self.watchdog.metrics.pool_has(self.pool.waiting());
            self.sleep(wake_at);
        }
    }

    /// Says of which children the end came before a call.
    fn replace_dead(&mut self) {
        let taken = self.pool.taken();
        if std::mem::replace(&mut self.taken, taken) != taken {
            self.backoff.has_worked();
            let now = Instant::now();
            let until = self.courteous_until.filter(|until| *until > now);
            self.courteous_until =
                (self.pool.waiting() > 0).then(|| until.unwrap_or(now + COURTESY));
        }
        for dead in self
            .pool
            .remove(|waiting| waiting.started.child.has_ended())
        {
            let pause = self.pause(dead.since.elapsed());
            let log = &self.watchdog.log;
            if let Some(exit) = dead.started.child.try_reap() {
                log.line(format_args!(
                    "error: a waiting child has ended unused ({exit}); it is replaced in {}",
                    show(pause)
                ));
            }
            for line in String::from_utf8_lossy(&dead.started.pipes.last_words()).lines() {
                log.line(format_args!("fprocess: {line}"));
            }
            self.watchdog.orders.run_ended(dead.id);
        }
    }

    /// Children that fail together pause together.
    fn pause(&mut self, lived: Duration) -> Duration {
        let now = Instant::now();
        let until = self.paused_until.filter(|until| *until > now);
        let until = until.unwrap_or_else(|| now + self.backoff.pause_after(lived));
        self.paused_until = Some(until);
        // In whole milliseconds, as a person would say it.
        Duration::from_millis((until - now).as_millis() as u64)
    }

    /// When there may be a start again; `None`: now.
    fn next_start(&self) -> Option<Instant> {
        let now = Instant::now();
        let pauses = [self.paused_until, self.courteous_until];
        pauses
            .into_iter()
            .flatten()
            .filter(|until| *until > now)
            .max()
    }

    fn fill(&mut self, missing: usize) {
        for _ in 0..missing {
            match self.start_one() {
                Ok(waiting) => self.dismiss(self.pool.add(waiting)),
                Err(error) => {
                    let pause = self.pause(Duration::ZERO);
                    let name = self.watchdog.command.name();
                    self.watchdog.log.line(format_args!(
                        "error: cannot start {name} ahead of a call: {error}; tried again in {}",
                        show(pause)
                    ));
                    return;
                }
            }
        }
    }

    fn start_one(&self) -> io::Result<Waiting> {
        let Watchdog {
            command,
            inherited,
            setup,
            orders,
            ..
        } = self.watchdog;
        let id = orders.runs.begin();
        orders.run_began();
        let marker = orders.runs.marker(id);
        let environment = cgi::environment(inherited, &marker, &Strings::default());
        let began = Instant::now();
        let mark = orders.runs.limit(id);
        match setup.start(command, command.arguments(), &environment, mark) {
            Ok(started) => {
                self.watchdog.metrics.process_started(began.elapsed());
                Ok(Waiting {
                    id: orders.runs.wait(id),
                    started,
                    since: Instant::now(),
                })
            }
            Err(error) => {
                orders.runs.end(id);
                Err(error)
            }
        }
    }

    /// Ends children that nobody needs.
    fn dismiss(&self, children: impl IntoIterator<Item = Waiting>) {
        for Waiting { id, started, .. } in children {
            // The pipes stay open until the child is gone: the end of its input would be a call without a body.
            let pipes = Some(started.pipes);
            self.watchdog.orders.end_tree(id, started.child, pipes);
        }
    }

    /// Until the bell rings, a child ends, or the time has come.
    fn sleep(&self, wake_at: Option<Instant>) {
        let descriptors = self.pool.descriptors();
        let is_told = descriptors.len() >= self.pool.waiting();
        let look = (!is_told).then_some(LOOK);
        let left = wake_at.map(|at| at.saturating_duration_since(Instant::now()));
        let longest = left.into_iter().chain(look).min();
        let mut watched: Vec<_> = descriptors
            .iter()
            .map(|end| PollFd::new(end, PollFlags::IN))
            .collect();
        let bell = self.pool.bell();
        watched.push(PollFd::new(&bell, PollFlags::IN));
        let longest = longest.and_then(|longest| Timespec::try_from(longest).ok());
        // An interrupted sleep is a short one.
        let _ = poll(&mut watched, longest.as_ref());
        self.pool.silence();
    }
}
