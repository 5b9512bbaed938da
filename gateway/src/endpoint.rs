//! One place that takes calls: its state, its load and its connections.

mod pool;
mod turns;

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hyper::header::HeaderName;

use self::pool::Pool;
pub(crate) use self::turns::{Next, Turn};
use crate::connection::Connection;
use crate::duration;
use crate::function::{Address, Handling, Protocol};
use crate::life::{Event, Fault, State};
use crate::metrics::FunctionMetrics;

/// By this a watchdog of ours shows itself: on the first answer of each connection, on refusals, health and readiness.
pub(crate) const WATCHDOG: HeaderName = HeaderName::from_static("x-skep-watchdog");

/// So many calls without an answer, one after the other, eject an endpoint.
const RESETS: u32 = 3;

/// How long an endpoint that accepts connections and yet failed is left alone, the first time; doubled each time again.
const FIRST_HOLD: Duration = Duration::from_millis(100);
const LONGEST_HOLD: Duration = Duration::from_secs(10);

/// The least time between two doubts about one endpoint.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);

/// When and why an endpoint came into its present state.
#[derive(Clone, Debug)]
pub struct Moved {
    /// When.
    pub at: SystemTime,
    /// Why, in words.
    pub why: String,
    /// Why it is not to be called, if it was ejected.
    fault: Option<Fault>,
}

/// What labels say of the endpoints of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Settings {
    /// Asked for readiness; without one, a connection that is accepted is enough.
    ready_path: Option<Arc<str>>,
    protocol: Protocol,
}

impl Settings {
    fn of(handling: &Handling) -> Self {
        Self {
            ready_path: handling.probe_path().cloned(),
            protocol: handling.protocol,
        }
    }
}

/// One address that takes calls. Lives as long as it is listed, and as long as a call on it runs.
pub struct Endpoint {
    address: Address,
    /// What the function's labels say of it. Changes while the endpoint lives: `docker service update --label-add` makes no new task.
    settings: Mutex<Settings>,
    /// The container's own health check has passed, or there is none.
    is_healthy: AtomicBool,
    metrics: Arc<FunctionMetrics>,
    state: AtomicU8,
    moved: Mutex<Moved>,
    in_flight: AtomicUsize,
    /// Calls without an answer since the last one with an answer.
    resets: AtomicU32,
    /// Ejections since the last answer.
    ejections: AtomicU32,
    /// Whether it has shown itself to be our watchdog.
    is_watchdog: AtomicBool,
    /// Whether it may be asked for its health although it has not shown itself yet.
    expects_watchdog: AtomicBool,
    doubted: Mutex<Option<Instant>>,
    connections: Pool,
}

impl Endpoint {
    /// An endpoint nobody has spoken to yet, for a gateway of so many workers.
    #[must_use]
    pub fn new(
        address: Address,
        handling: &Handling,
        metrics: Arc<FunctionMetrics>,
        workers: usize,
    ) -> Self {
        let moved = Moved {
            at: SystemTime::now(),
            why: "listed".to_owned(),
            fault: None,
        };
        Self {
            address,
            settings: Mutex::new(Settings::of(handling)),
            is_healthy: AtomicBool::new(true),
            metrics,
            state: AtomicU8::new(State::Starting as u8),
            moved: Mutex::new(moved),
            in_flight: AtomicUsize::new(0),
            resets: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            is_watchdog: AtomicBool::new(false),
            expects_watchdog: AtomicBool::new(handling.expects_watchdog),
            doubted: Mutex::default(),
            connections: Pool::new(workers),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The name of its function.
    #[must_use]
    pub fn function(&self) -> &str {
        self.metrics.label()
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::Acquire))]
    }

    /// Whether its watchdog has said that it is about to end, or is not ready yet, and nothing else has happened since: soon
    /// another replica takes its place, or it takes calls itself.
    #[must_use]
    pub fn is_in_transition(&self) -> bool {
        let fault = || self.last_move().fault;
        self.state() == State::Ejected && matches!(fault(), Some(Fault::Draining | Fault::NotReady))
    }

    /// Whether its container's own health check has passed, or it has none.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    /// Follows what the provider lists of it now. Says whether it has to be probed again: calls wait for that.
    pub(crate) fn follow(&self, handling: &Handling, is_healthy: bool) -> bool {
        self.is_healthy.store(is_healthy, Ordering::Relaxed);
        let settings = Settings::of(handling);
        if *self.settings() == settings {
            return false;
        }
        *self.settings() = settings;
        self.meet(Event::Relabelled, "its function's labels have changed")
    }

    /// Whether it takes calls.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state() == State::Ready
    }

    /// Since when and why it is in its state.
    #[must_use]
    pub fn moved(&self) -> Moved {
        self.last_move().clone()
    }

    /// How many calls run on it.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Moves it on, if the event leads anywhere from its state, and says whether it did. The one place where an
    /// endpoint's state changes; every change is logged and counted with its cause.
    pub(crate) fn meet(&self, event: Event, why: impl Display) -> bool {
        let next = |state: u8| {
            let to = State::ALL[usize::from(state)].after(event)?;
            Some(to as u8)
        };
        let moved = self
            .state
            // Here and where a lease is dropped: each side writes one of state and in_flight and then reads the other, so
            // that one of the two sees that a draining endpoint has no call left. That takes sequential consistency;
            // with less, both may read the old value, and the endpoint would drain for ever.
            .fetch_update(Ordering::SeqCst, Ordering::Acquire, next);
        let Ok(from) = moved else { return false };
        let state = self.state();
        let why = why.to_string();
        let function = self.metrics.label();
        let (endpoint, from) = (self.address.socket, State::ALL[usize::from(from)].name());
        let fault = match event {
            Event::Failed(fault) => {
                self.ejections.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(function, %endpoint, from, why, "endpoint ejected");
                Some(fault)
            }
            _ => {
                tracing::info!(function, %endpoint, from, why, "endpoint {}", state.name());
                None
            }
        };
        self.metrics.endpoint_met(event);
        *self.last_move() = Moved {
            at: SystemTime::now(),
            why,
            fault,
        };
        if state != State::Ready {
            self.connections.close();
        }
        if state == State::Draining && self.in_flight.load(Ordering::SeqCst) == 0 {
            self.meet(Event::Emptied, "no call runs on it");
        }
        true
    }

    /// It gave an answer: whatever was held against it is forgotten.
    pub(crate) fn answered(&self) {
        // Nearly always nothing is, and then nothing is written, so that workers do not take each other's cache line.
        if self.resets.load(Ordering::Relaxed) > 0 {
            self.resets.store(0, Ordering::Relaxed);
        }
        if self.ejections.load(Ordering::Relaxed) > 0 {
            self.ejections.store(0, Ordering::Relaxed);
        }
    }

    /// A call on it ended without an answer. Says whether that was one too many.
    pub(crate) fn has_broken_too_often(&self) -> bool {
        self.resets.fetch_add(1, Ordering::Relaxed) + 1 >= RESETS
    }

    /// Whether it has shown itself to be our watchdog, so that its health and readiness can be asked for.
    pub(crate) fn is_watchdog(&self) -> bool {
        self.is_watchdog.load(Ordering::Relaxed)
    }

    /// It has shown itself to be our watchdog, or not to be one after all: others pass a watchdog's answers on.
    pub(crate) fn shows_watchdog(&self, is_watchdog: bool) {
        if self.is_watchdog() != is_watchdog {
            self.is_watchdog.store(is_watchdog, Ordering::Relaxed);
        }
    }

    /// Whether it most likely has a watchdog, ours or another, that answers for its health without running the function.
    pub(crate) fn expects_watchdog(&self) -> bool {
        self.expects_watchdog.load(Ordering::Relaxed)
    }

    /// Its siblings have a watchdog, or it has been asked and is none of ours.
    pub(crate) fn set_expects_watchdog(&self, expects: bool) {
        self.expects_watchdog.store(expects, Ordering::Relaxed);
    }

    /// The path that a label names for readiness.
    pub(crate) fn ready_path(&self) -> Option<Arc<str>> {
        self.settings().ready_path.clone()
    }

    /// What it speaks.
    pub(crate) fn protocol(&self) -> Protocol {
        self.settings().protocol
    }

    /// How long it is left alone before it is probed: not at all if nobody has ejected it.
    pub(crate) fn hold(&self) -> Duration {
        hold(self.ejections.load(Ordering::Relaxed))
    }

    /// Whether to look after it because a call has heard nothing from it for a while; not more than once a second.
    pub(crate) fn is_to_be_doubted(&self) -> bool {
        if !self.is_ready() || self.in_flight() == 0 {
            return false;
        }
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = doubted.is_none_or(|at| at.elapsed() >= DOUBT_PAUSE);
        if is_due {
            *doubted = Some(Instant::now());
        }
        is_due
    }

    /// An idle connection of this worker, the one used last.
    pub(crate) fn take_idle(&self, worker: usize) -> Option<Connection> {
        self.connections.take(worker)
    }

    /// Keeps a connection for the call of this worker that waits for one, or for its next call.
    pub(crate) fn keep_idle(&self, worker: usize, connection: Connection) {
        // A call that began before the label changed brings a connection of the old protocol back.
        let protocol = connection.protocol();
        self.connections.keep(worker, connection, || {
            self.is_ready() && self.settings().protocol == protocol
        });
    }

    /// For a call of this worker that found no idle connection: what comes first, one that another call is done with or its turn to
    /// make one.
    ///
    /// # Errors
    /// It is not to be called any more, or neither has come within the limit: what happened.
    pub(crate) async fn next_connection(
        self: &Arc<Self>,
        worker: usize,
        protocol: Protocol,
        limit: Duration,
    ) -> Result<Next, String> {
        let next = turns::next(self, worker, protocol);
        let to = self.address.socket;
        match tokio::time::timeout(limit, next).await {
            Ok(Some(next)) => Ok(next),
            Ok(None) => Err(format!("connect {to}: {}", self.last_move().why)),
            Err(_elapsed) => Err(format!(
                "connect {to}: no turn within {}: too many connections to it are being made",
                duration::show(limit)
            )),
        }
    }

    /// Closes connections that nobody used for a while.
    pub(crate) fn sweep(&self) {
        self.connections.sweep();
    }

    fn settings(&self) -> std::sync::MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_move(&self) -> std::sync::MutexGuard<'_, Moved> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Doubles with each ejection that no answer came between.
fn hold(ejections: u32) -> Duration {
    match ejections {
        0 => Duration::ZERO,
        more => (FIRST_HOLD * 2u32.saturating_pow(more.min(16) - 1)).min(LONGEST_HOLD),
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
        // See `meet` for the order of these two.
        let was_last = self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1;
        let state = || State::ALL[usize::from(self.0.state.load(Ordering::SeqCst))];
        if was_last && state() == State::Draining {
            self.0.meet(Event::Emptied, "its last call has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    /// One that nobody has spoken to yet.
    pub(super) fn endpoint() -> Arc<Endpoint> {
        let address = Address {
            id: "t".into(),
            socket: ([127, 0, 0, 1], 1).into(),
        };
        let metrics = Metrics::new().function("f");
        Arc::new(Endpoint::new(address, &Handling::default(), metrics, 1))
    }

    #[test]
    fn drains_until_its_last_call_has_ended() {
        let endpoint = endpoint();
        assert!(endpoint.meet(Event::Accepted, "connected"));
        let leases = [Lease::new(endpoint.clone()), Lease::new(endpoint.clone())];
        assert_eq!(endpoint.in_flight(), 2);
        assert!(endpoint.meet(Event::Unlisted, "told to stop"));
        assert_eq!(endpoint.state(), State::Draining);
        drop(leases);
        assert_eq!((endpoint.in_flight(), endpoint.state()), (0, State::Gone));
        assert_eq!(endpoint.moved().why, "its last call has ended");
        assert!(
            !endpoint.meet(Event::Accepted, "connected"),
            "nothing comes back from gone"
        );
    }

    #[test]
    fn one_without_calls_is_gone_at_once() {
        let endpoint = endpoint();
        endpoint.meet(Event::Unlisted, "told to stop");
        assert_eq!(endpoint.state(), State::Gone);
    }

    #[test]
    fn is_left_alone_for_longer_each_time_until_it_answers() {
        let endpoint = endpoint();
        endpoint.meet(Event::Accepted, "connected");
        let mut holds = Vec::new();
        for _ in 0..9 {
            endpoint.meet(Event::Failed(Fault::Reset), "broken");
            holds.push(endpoint.hold().as_millis());
            endpoint.meet(Event::Accepted, "connected");
        }
        assert_eq!(
            holds,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        endpoint.answered();
        assert_eq!(endpoint.hold(), Duration::ZERO);
    }

    #[test]
    fn breaks_count_only_one_after_the_other() {
        let endpoint = endpoint();
        assert!(!endpoint.has_broken_too_often() && !endpoint.has_broken_too_often());
        endpoint.answered();
        assert!(!endpoint.has_broken_too_often() && !endpoint.has_broken_too_often());
        assert!(endpoint.has_broken_too_often());
    }
}
