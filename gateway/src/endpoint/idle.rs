//! Connections to one endpoint that carry no call at the moment.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

/// One stack per worker: a connection is driven by the runtime that opened it, and no worker waits for another.
pub(super) struct IdleConnections(Box<[Mutex<Vec<Idle>>]>);

impl IdleConnections {
    /// Empty stacks for so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Mutex::default()).collect())
    }

    /// A connection of this worker that can carry a call, the one used last.
    pub(super) fn take(&self, worker: usize, now: Instant) -> Option<Connection> {
        let mut stack = self.stack(worker);
        while let Some(Idle { connection, since }) = stack.pop() {
            if connection.is_ready() && now.saturating_duration_since(since) < LIMIT {
                if let Some(shared) = connection.shared() {
                    push(&mut stack, shared);
                }
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for this worker's next call, if `wanted` still says so once nobody can empty the stack.
    pub(super) fn keep(
        &self,
        worker: usize,
        connection: Connection,
        wanted: impl FnOnce() -> bool,
    ) {
        let mut stack = self.stack(worker);
        // Of those that calls share, one is enough.
        let is_needed = connection.shared().is_none() || stack.is_empty();
        if is_needed && stack.len() < MAX && wanted() {
            push(&mut stack, connection);
        }
    }

    /// Closes those that nobody used for a while.
    pub(super) fn sweep(&self) {
        for worker in 0..self.0.len() {
            self.stack(worker)
                .retain(|idle| idle.since.elapsed() < LIMIT && idle.connection.is_ready());
        }
    }

    /// Closes all.
    pub(super) fn close(&self) {
        for worker in 0..self.0.len() {
            self.stack(worker).clear();
        }
    }

    fn stack(&self, worker: usize) -> MutexGuard<'_, Vec<Idle>> {
        self.0[worker]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
