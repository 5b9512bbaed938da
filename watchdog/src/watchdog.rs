//! What all workers share: configuration, command, health, limits, logs, and the orders for the reaper.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::cgi::Inherited;
use crate::command::Command;
use crate::config::Config;
use crate::health::Health;
use crate::logs::Sink;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::reaper::Orders;
use crate::service::Service;
use crate::start::Setup;

/// The watchdog as its workers see it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    pub(crate) config: Config,
    pub(crate) command: Command,
    pub(crate) inherited: Inherited,
    pub(crate) setup: Setup,
    /// Children that were started ahead of their calls.
    pub(crate) pool: Option<Pool>,
    pub(crate) health: Health,
    /// The long-lived child of `mode=http`.
    pub(crate) service: Option<Service>,
    pub(crate) orders: Orders,
    /// Calls that are being served.
    pub(crate) calls: Counter,
    /// Open connections of each worker.
    pub(crate) connections: Vec<Counter>,
    pub(crate) metrics: Metrics,
    /// What the kernel says of the container's memory limit.
    pub(crate) memory: Memory,
    /// Turns true when the drain begins.
    pub(crate) drain: watch::Sender<bool>,
    /// Turns true when no connection is to be taken any more.
    pub(crate) closed: watch::Sender<bool>,
    /// Workers that still take connections.
    pub(crate) accepting: Counter,
    /// stderr: our lines, and those of the commands.
    pub(crate) log: Sink,
    /// stdout, opened only when an option writes there.
    pub(crate) debug: Option<Sink>,
}

impl Watchdog {
    /// Stops taking calls: not healthy, not ready, idle connections closed, children that wait for calls ended.
    pub(crate) fn start_draining(&self) {
        self.health.start_draining();
        if let Some(pool) = &self.pool {
            pool.stop();
        }
        self.drain.send_replace(true);
    }

    /// Whether nothing is being served any more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.calls.count() == 0 && self.connections.iter().all(|worker| worker.count() == 0)
    }
}

/// A count that goes down when what was counted is dropped.
#[derive(Debug, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

/// One that is counted.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counter {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Counts one more, unless there are `limit` already.
    pub(crate) fn enter(&self, limit: usize) -> Option<Counted> {
        let more = |count: usize| (count < limit).then_some(count + 1);
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .ok()?;
        Some(Counted(Arc::clone(&self.0)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_admits_up_to_its_limit_and_again_after_a_drop() {
        let counter = Counter::default();
        let first = counter.enter(2).unwrap();
        let _second = counter.enter(2).unwrap();
        assert!(counter.enter(2).is_none());
        drop(first);
        assert!(counter.enter(2).is_some());
        assert_eq!(counter.count(), 1);
    }
}
