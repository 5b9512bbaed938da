//! Connections to one endpoint that carry no call at the moment, and the calls that wait for one.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::connection::Connection;

/// How long a connection may lie idle. Shorter than any watchdog's own limit (of-watchdog's `read_timeout` is seldom
/// below five seconds), so that a request is rarely written to a connection that the other side is closing.
const LIMIT: Duration = Duration::from_secs(4);

/// How many idle connections one worker keeps to one endpoint; more are closed.
const MAX: usize = 512;

struct Idle {
    connection: Connection,
    since: Instant,
}

fn push(stack: &mut Vec<Idle>, connection: Connection) {
    stack.push(Idle {
        connection,
        since: Instant::now(),
    });
}

/// What a call gets that found no idle connection.
pub(super) enum Given {
    /// One that another call is done with.
    Connection(Connection),
    /// Its turn to make one.
    Turn,
}

/// What one worker has of an endpoint. While anybody waits nothing lies idle and all turns are taken.
#[derive(Default)]
pub(super) struct Share {
    idle: Vec<Idle>,
    /// Turns that are taken.
    pub(super) connecting: usize,
    /// In the order in which they came.
    pub(super) waiting: VecDeque<oneshot::Sender<Given>>,
}

impl Share {
    /// Gives it to the first who still waits, or back.
    fn give(&mut self, mut given: Given) -> Option<Given> {
        while let Some(first) = self.waiting.pop_front() {
            match first.send(given) {
                Ok(()) => return None,
                Err(back) => given = back,
            }
        }
        Some(given)
    }

    fn keep(&mut self, connection: Connection) {
        if connection.shared().is_some() {
            for waiting in self.waiting.drain(..) {
                if let Some(shared) = connection.shared() {
                    // Whoever is gone needs none.
                    let _ = waiting.send(Given::Connection(shared));
                }
            }
            // Of those that calls share, one is enough.
            if self.idle.is_empty() {
                push(&mut self.idle, connection);
            }
        } else if let Some(Given::Connection(connection)) = self.give(Given::Connection(connection))
            && self.idle.len() < MAX
        {
            push(&mut self.idle, connection);
        }
    }

    /// Gives a turn to the first who waits, unless calls that were taken back hold too many.
    pub(super) fn end_turn(&mut self, most: usize) {
        if self.connecting > most || self.give(Given::Turn).is_some() {
            self.connecting -= 1;
        }
    }
}

/// One share for each worker: a connection is driven by the runtime that opened it, and no worker waits for another.
pub(super) struct Pool(Box<[Mutex<Share>]>);

impl Pool {
    /// Nothing yet, for so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Mutex::default()).collect())
    }

    /// A connection of this worker that can carry a call, the one used last.
    pub(super) fn take(&self, worker: usize) -> Option<Connection> {
        let stack = &mut self.share(worker).idle;
        while let Some(Idle { connection, since }) = stack.pop() {
            if connection.is_ready() && since.elapsed() < LIMIT {
                if let Some(shared) = connection.shared() {
                    push(stack, shared);
                }
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the call of this worker that waits first, or else for its next one, if `wanted` still says so once
    /// nobody can empty the share.
    pub(super) fn keep(
        &self,
        worker: usize,
        connection: Connection,
        wanted: impl FnOnce() -> bool,
    ) {
        let mut share = self.share(worker);
        if wanted() {
            share.keep(connection);
        }
    }

    /// Closes those that nobody used for a while.
    pub(super) fn sweep(&self) {
        for worker in 0..self.0.len() {
            self.share(worker)
                .idle
                .retain(|idle| idle.since.elapsed() < LIMIT && idle.connection.is_ready());
        }
    }

    /// Closes all that lie idle, and sends away who waits.
    pub(super) fn close(&self) {
        for worker in 0..self.0.len() {
            let mut share = self.share(worker);
            share.idle.clear();
            share.waiting.clear();
        }
    }

    /// What this worker has.
    pub(super) fn share(&self, worker: usize) -> MutexGuard<'_, Share> {
        self.0[worker]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
