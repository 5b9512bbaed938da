//! The metrics of one function, and the guard that counts one call of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use prometheus::{Histogram, IntCounter};

use super::PerFunction;
use crate::life::Event;
use crate::turnstile::Place;

/// The status under which a call is counted whose caller went away before there was an answer (nginx's number for it).
const CLIENT_GONE: u16 = 499;

/// The code that stands for all that HTTP does not know.
const OTHER_CODE: u16 = 999;

/// Why a call is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    /// A kept connection was closed before it took the request.
    Closed,
    /// No connection could be made.
    Unconnected,
    /// The watchdog is about to end and did not take it.
    Draining,
    /// The watchdog has as many calls as it may have and did not take it.
    Busy,
    /// The watchdog's function does not accept connections yet.
    NotReady,
    /// It got no answer; its method is idempotent and the function allows it.
    Broken,
}

impl Retried {
    const ALL: [Self; 6] = [
        Self::Closed,
        Self::Unconnected,
        Self::Draining,
        Self::Busy,
        Self::NotReady,
        Self::Broken,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Unconnected => "unconnected",
            Self::Draining => "draining",
            Self::Busy => "busy",
            Self::NotReady => "not_ready",
            Self::Broken => "broken",
        }
    }
}

/// One function's handles, bound once so that a call looks no label up.
pub struct FunctionMetrics {
    label: String,
    vecs: Arc<PerFunction>,
    started: IntCounter,
    connect_failures: IntCounter,
    broken: IntCounter,
    // One entry for each status seen so far: few, read on every call, extended rarely.
    outcomes: ArcSwap<Vec<Outcome>>,
}

#[derive(Clone)]
struct Outcome {
    code: u16,
    total: IntCounter,
    seconds: Histogram,
}

impl FunctionMetrics {
    pub(super) fn new(label: &str, vecs: Arc<PerFunction>) -> Self {
        let labels = [label];
        Self {
            started: vecs.started.with_label_values(&labels),
            connect_failures: vecs.connect_failures.with_label_values(&labels),
            broken: vecs.broken.with_label_values(&labels),
            outcomes: ArcSwap::default(),
            label: label.to_owned(),
            vecs,
        }
    }

    /// The value of the label `function_name`.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How many calls run now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        // In this order: a call that ends in between has begun.
        let ended = self.calls();
        self.started().saturating_sub(ended)
    }

    /// How many calls have ended. Added up for whoever asks: a count of its own would be one more that all workers write for
    /// each call.
    #[must_use]
    pub fn calls(&self) -> u64 {
        let outcomes = self.outcomes.load();
        outcomes.iter().map(|outcome| outcome.total.get()).sum()
    }

    /// A connection to one of its endpoints failed.
    pub fn connect_failed(&self) {
        self.connect_failures.inc();
    }

    /// How many calls have begun.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.started.get()
    }

    /// A call is tried again, on another connection or endpoint.
    pub fn retried(&self, cause: Retried) {
        self.vecs
            .retries
            .with_label_values(&[self.label.as_str(), cause.name()])
            .inc();
    }

    /// Something moved one of its endpoints on.
    pub fn endpoint_met(&self, event: Event) {
        self.vecs
            .endpoint_events
            .with_label_values(&[self.label.as_str(), event.name()])
            .inc();
    }

    /// An answer broke off.
    pub fn broke(&self) {
        self.broken.inc();
    }

    /// Counts a call that ended. Codes that HTTP does not know are counted as one: a function may send any number.
    fn ended(&self, code: u16, took: Duration) {
        let code = if (100..=599).contains(&code) {
            code
        } else {
            OTHER_CODE
        };
        let known = self.outcomes.load();
        match known.iter().find(|outcome| outcome.code == code) {
            Some(outcome) => outcome.count(took),
            None => self.first_of(code).count(took),
        }
    }

    fn first_of(&self, code: u16) -> Outcome {
        let text = code.to_string();
        let labels = [self.label.as_str(), text.as_str()];
        let fresh = Outcome {
            code,
            total: self.vecs.invocations.with_label_values(&labels),
            seconds: self.vecs.seconds.with_label_values(&labels),
        };
        self.outcomes.rcu(|outcomes| {
            let mut outcomes = Vec::clone(outcomes);
            if !outcomes.iter().any(|outcome| outcome.code == code) {
                outcomes.push(fresh.clone());
            }
            outcomes
        });
        fresh
    }
}

impl Outcome {
    fn count(&self, took: Duration) {
        self.total.inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

impl Drop for FunctionMetrics {
    fn drop(&mut self) {
        let label = [self.label.as_str()];
        for vec in [
            &self.vecs.started,
            &self.vecs.connect_failures,
            &self.vecs.broken,
        ] {
            let _ = vec.remove_label_values(&label);
        }
        for cause in Retried::ALL {
            let labels = [self.label.as_str(), cause.name()];
            let _ = self.vecs.retries.remove_label_values(&labels);
        }
        for event in Event::ALL {
            let labels = [self.label.as_str(), event.name()];
            let _ = self.vecs.endpoint_events.remove_label_values(&labels);
        }
        for outcome in self.outcomes.load().iter() {
            let code = outcome.code.to_string();
            let _ = self
                .vecs
                .invocations
                .remove_label_values(&[self.label.as_str(), &code]);
            let _ = self
                .vecs
                .seconds
                .remove_label_values(&[self.label.as_str(), &code]);
        }
    }
}

/// A running call: counted as started now, and as ended with its status and time when dropped.
pub struct Call {
    function: Arc<FunctionMetrics>,
    began: Instant,
    code: u16,
    places: [Option<Place>; 2],
}

impl Call {
    /// A call of this function begins.
    #[must_use]
    pub fn begin(function: Arc<FunctionMetrics>) -> Self {
        function.started.inc();
        Self {
            function,
            began: Instant::now(),
            code: CLIENT_GONE,
            places: [None, None],
        }
    }

    /// Keeps room at the function's turnstile and at the gateway's, where there are such, until the call has ended.
    pub fn keep(&mut self, places: [Option<Place>; 2]) {
        self.places = places;
    }

    /// Gives up the room that it keeps, to be held by what goes on after it.
    pub fn release(&mut self) -> [Option<Place>; 2] {
        std::mem::take(&mut self.places)
    }

    /// The caller has gone, or broke its request off, before its answer has ended.
    pub fn left(&mut self) {
        self.code = CLIENT_GONE;
    }

    /// The status that the caller is told. Without one the caller went away before.
    pub fn answered(&mut self, code: u16) {
        self.code = code;
    }

    /// The function's handles.
    #[must_use]
    pub fn function(&self) -> &FunctionMetrics {
        &self.function
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.function.ended(self.code, self.began.elapsed());
    }
}
