//! `prefork`: children that were started ahead, each blocked on its input until a call takes it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::runs::{RunId, Runs};
use crate::start::Started;

/// The children that wait; workers take them, the filler replaces them.
#[derive(Debug)]
pub(crate) struct Pool {
    size: usize,
    idle_limit: Option<Duration>,
    state: Mutex<State>,
    /// Rung when a child was taken or wanted, and when there are to be no more.
    bell: OwnedFd,
}

#[derive(Debug)]
struct State {
    /// The oldest first: it is the most likely to be through with its start.
    waiting: VecDeque<Waiting>,
    last_call: Instant,
    /// Calls that found a child, so far.
    taken: u64,
    is_stopping: bool,
}

/// A child that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) id: RunId,
    pub(crate) started: Started,
    pub(crate) since: Instant,
}

/// What the pool wants of its filler.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// So many more children; the pool is idle at the given time unless there is a call.
    More(usize, Option<Instant>),
    /// No children: nobody calls.
    Idle,
    /// No children any more: the watchdog drains.
    Stop,
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(size: usize, idle_limit: Option<Duration>) -> io::Result<Self> {
        Ok(Self {
            size,
            idle_limit,
            state: Mutex::new(State {
                waiting: VecDeque::with_capacity(size),
                last_call: Instant::now(),
                taken: 0,
                is_stopping: false,
            }),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Takes a child for a call; its run begins. None is waiting if many calls come at once, or one after a long time.
    pub(crate) fn take(&self, runs: &Runs) -> Option<(RunId, Started)> {
        let taken = self.pop().map(|waiting| {
            let id = runs.take(waiting.id);
            (id, waiting.started)
        });
        self.ring();
        taken
    }

    /// Children that have ended unused are left to the filler.
    fn pop(&self) -> Option<Waiting> {
        let mut state = self.state();
        state.last_call = Instant::now();
        let at = state
            .waiting
            .iter()
            .position(|waiting| !waiting.started.child.has_ended())?;
        state.taken += 1;
        state.waiting.remove(at)
    }

    /// How many children wait.
    pub(crate) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// How many children there are to be.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// No more children from now on.
    pub(crate) fn stop(&self) {
        self.state().is_stopping = true;
        self.ring();
    }

    /// What is to be done now.
    pub(crate) fn want(&self) -> Want {
        let state = self.state();
        let idle_at = self.idle_limit.map(|limit| state.last_call + limit);
        if state.is_stopping {
            return Want::Stop;
        }
        if idle_at.is_some_and(|at| Instant::now() >= at) {
            return Want::Idle;
        }
        Want::More(self.size.saturating_sub(state.waiting.len()), idle_at)
    }

    /// Calls that have found a child so far.
    pub(crate) fn taken(&self) -> u64 {
        self.state().taken
    }

    /// Adds a child, unless it came too late and is handed back.
    pub(crate) fn add(&self, waiting: Waiting) -> Option<Waiting> {
        let mut state = self.state();
        if state.is_stopping {
            return Some(waiting);
        }
        state.waiting.push_back(waiting);
        None
    }

    /// Takes out the children that have ended, or all of them.
    pub(crate) fn remove(&self, is_removed: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut state = self.state();
        let (removed, kept) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition(|waiting| is_removed(waiting));
        state.waiting = kept;
        Vec::from(removed)
    }

    /// Descriptors that tell the ends of the children; fewer than there are children where the kernel has none.
    pub(crate) fn descriptors(&self) -> Vec<OwnedFd> {
        let state = self.state();
        let children = state.waiting.iter().map(|waiting| &waiting.started.child);
        children.filter_map(|child| child.descriptor()).collect()
    }

    /// Readable after the bell was rung, until it is silenced.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Forgets that the bell was rung.
    pub(crate) fn silence(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
