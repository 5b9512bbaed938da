//! One place that takes calls: its state, its load and its idle connections.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;

use crate::function::Address;

/// How long a connection may lie idle. Shorter than any watchdog's own limit (of-watchdog's `read_timeout` is seldom
/// below five seconds), so that a request is rarely written to a connection that the other side is closing.
const IDLE_LIMIT: Duration = Duration::from_secs(4);

/// How many idle connections one worker keeps to one endpoint; more are closed.
const IDLE_MAX: usize = 512;

/// Where an endpoint is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Listed, but no connection to it has been made yet.
    Starting,
    /// Takes calls.
    Ready,
    /// Took calls and then refused a connection; probed until it accepts again.
    Ejected,
    /// No longer listed: takes no new call, finishes the ones it has.
    Gone,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [State; 4] = [State::Starting, State::Ready, State::Ejected, State::Gone];

    /// The state's name in metrics and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Ejected => "ejected",
            State::Gone => "gone",
        }
    }
}

/// A connection to an endpoint, ready to carry a request.
pub type Connection = SendRequest<Incoming>;

struct Idle {
    connection: Connection,
    since: Instant,
}

/// One address that takes calls. Lives as long as it is listed, and as long as a call on it runs.
pub struct Endpoint {
    address: Address,
    state: AtomicU8,
    in_flight: AtomicUsize,
    // One stack per worker: a connection is driven by the runtime that opened it, and no worker waits for another.
    idle: Box<[Mutex<Vec<Idle>>]>,
}

impl Endpoint {
    /// An endpoint nobody has spoken to yet, for a gateway of so many workers.
    #[must_use]
    pub fn new(address: Address, workers: usize) -> Self {
        Self {
            address,
            state: AtomicU8::new(State::Starting as u8),
            in_flight: AtomicUsize::new(0),
            idle: (0..workers).map(|_| Mutex::default()).collect(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::Acquire))]
    }

    /// Whether it takes calls.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state() == State::Ready
    }

    /// How many calls run on it.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A connection succeeded: Starting or Ejected → Ready. Says whether that changed anything.
    pub(crate) fn accepted(&self) -> bool {
        self.change(State::Starting, State::Ready) || self.change(State::Ejected, State::Ready)
    }

    /// A connection failed: Ready → Ejected. Says whether that changed anything.
    pub(crate) fn refused(&self) -> bool {
        let ejected = self.change(State::Ready, State::Ejected);
        if ejected {
            self.close_idle();
        }
        ejected
    }

    /// No longer listed: any state → Gone; its idle connections close.
    pub(crate) fn gone(&self) {
        self.state.store(State::Gone as u8, Ordering::Release);
        self.close_idle();
    }

    fn change(&self, from: State, to: State) -> bool {
        self.state
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// An idle connection of this worker, the one used last.
    pub(crate) fn take_idle(&self, worker: usize) -> Option<Connection> {
        let mut idle = self.idle(worker);
        while let Some(Idle { connection, since }) = idle.pop() {
            if connection.is_ready() && since.elapsed() < IDLE_LIMIT {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for this worker's next call.
    pub(crate) fn keep_idle(&self, worker: usize, connection: Connection) {
        let mut idle = self.idle(worker);
        // Checked under the lock that `gone` empties the stack under: nothing is kept after that.
        if self.is_ready() && idle.len() < IDLE_MAX {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    /// Closes connections that nobody used for a while.
    pub(crate) fn sweep(&self) {
        for worker in 0..self.idle.len() {
            self.idle(worker)
                .retain(|idle| idle.since.elapsed() < IDLE_LIMIT && !idle.connection.is_closed());
        }
    }

    fn close_idle(&self) {
        for worker in 0..self.idle.len() {
            self.idle(worker).clear();
        }
    }

    fn idle(&self, worker: usize) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle[worker]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place taken on an endpoint; it is given back when the lease is dropped, which is when the response body has ended.
pub struct Lease(Arc<Endpoint>);

impl Lease {
    /// Takes a place.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }

    /// The endpoint the place is on.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::new(
            Address {
                id: "t".into(),
                socket: ([127, 0, 0, 1], 1).into(),
            },
            1,
        )
    }

    #[test]
    fn lives_from_starting_to_gone() {
        let endpoint = endpoint();
        assert_eq!(endpoint.state(), State::Starting);
        assert!(
            !endpoint.refused(),
            "what never took calls cannot be ejected"
        );
        assert!(endpoint.accepted() && endpoint.is_ready());
        assert!(!endpoint.accepted(), "ready twice is once");
        assert!(endpoint.refused());
        assert_eq!(endpoint.state(), State::Ejected);
        assert!(endpoint.accepted());
        endpoint.gone();
        assert!(!endpoint.accepted(), "nothing comes back from gone");
        assert_eq!(endpoint.state(), State::Gone);
    }

    #[test]
    fn counts_a_call_as_long_as_its_lease_lives() {
        let endpoint = Arc::new(endpoint());
        let leases = [Lease::new(endpoint.clone()), Lease::new(endpoint.clone())];
        assert_eq!(endpoint.in_flight(), 2);
        drop(leases);
        assert_eq!(endpoint.in_flight(), 0);
    }
}
