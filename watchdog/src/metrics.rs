//! What is counted of calls, runs and waits: one method for each event, atomics behind it, no lock and no allocation.

mod calls;
mod families;
mod histogram;
mod text;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use hyper::{Method, StatusCode};

use calls::Calls;
use histogram::Histogram;

pub(crate) use text::render;

/// The value of the pool's size while there is no pool.
const NO_POOL: usize = usize::MAX;

/// Everything that is counted since the start.
///
/// Two additions for a call, contended only by as many threads as serve: that is some 70 ns of the tens of microseconds
/// that a call takes, so that a copy for each thread would buy nothing.
#[derive(Debug)]
pub(crate) struct Metrics {
    started: SystemTime,
    calls: Calls,
    spawns: Histogram,
    waits: Histogram,
    broken: AtomicU64,
    kills: [AtomicU64; Kill::ALL.len()],
    pool: AtomicUsize,
}

/// Why a run was ended before its command had exited by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    /// `exec_timeout`.
    ExecTimeout,
    /// `read_timeout` while the body arrived.
    ReadTimeout,
    /// `write_timeout` before there was an answer, or in a pause of it.
    WriteTimeout,
    /// The body broke off.
    BodyBroken,
    /// The client went away.
    ClientGone,
    /// `idle_timeout`: nobody called the child of `mode=http`.
    IdleTimeout,
    /// `max_cpu_seconds`, by the kernel.
    CpuLimit,
    /// `prefork_idle`: nobody called, so that nobody is kept waiting.
    PreforkIdle,
}

impl Kill {
    const ALL: [Self; 8] = [
        Self::ExecTimeout,
        Self::ReadTimeout,
        Self::WriteTimeout,
        Self::BodyBroken,
        Self::ClientGone,
        Self::IdleTimeout,
        Self::CpuLimit,
        Self::PreforkIdle,
    ];

    /// Its label.
    fn name(self) -> &'static str {
        match self {
            Self::ExecTimeout => "exec_timeout",
            Self::ReadTimeout => "read_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::BodyBroken => "body_broken",
            Self::ClientGone => "client_gone",
            Self::IdleTimeout => "idle_timeout",
            Self::CpuLimit => "max_cpu_seconds",
            Self::PreforkIdle => "prefork_idle",
        }
    }
}

impl Metrics {
    /// Nothing has happened yet.
    pub(crate) fn new() -> Self {
        Self {
            started: SystemTime::now(),
            calls: Calls::new(),
            spawns: Histogram::default(),
            waits: Histogram::default(),
            broken: AtomicU64::new(0),
            kills: [const { AtomicU64::new(0) }; Kill::ALL.len()],
            pool: AtomicUsize::new(NO_POOL),
        }
    }

    /// A call is over: its answer's body has ended, or its client has gone.
    pub(crate) fn call_ended(&self, method: &Method, status: StatusCode, took: Duration) {
        self.calls.of(method, status).record(calls::BOUNDS, took);
    }

    /// An answer broke off after its head: what its status says is not true.
    pub(crate) fn answer_broke(&self) {
        self.broken.fetch_add(1, Ordering::Relaxed);
    }

    /// A process has been started, and that took so long.
    pub(crate) fn process_started(&self, took: Duration) {
        self.spawns.record(histogram::SHORT, took);
    }

    /// A call has waited for a process that was to be there already.
    pub(crate) fn call_waited(&self, took: Duration) {
        self.waits.record(histogram::LONG, took);
    }

    /// A run, or the child of `mode=http`, is ended.
    pub(crate) fn killed(&self, reason: Kill) {
        self.kills[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// So many processes stand ready for calls; shown from the first time on.
    pub(crate) fn pool_has(&self, children: usize) {
        self.pool.store(children, Ordering::Relaxed);
    }

    fn pool(&self) -> Option<usize> {
        Some(self.pool.load(Ordering::Relaxed)).filter(|size| *size != NO_POOL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kill_has_its_place_and_its_own_label() {
        let metrics = Metrics::new();
        for (place, kill) in Kill::ALL.into_iter().enumerate() {
            metrics.killed(kill);
            assert_eq!(kill as usize, place);
            assert_eq!(metrics.kills[place].load(Ordering::Relaxed), 1);
        }
        let mut names = Kill::ALL.map(Kill::name).to_vec();
        names.dedup();
        assert_eq!(names.len(), Kill::ALL.len());
    }

    #[test]
    fn a_pool_is_shown_once_its_size_is_told() {
        let metrics = Metrics::new();
        assert_eq!(metrics.pool(), None);
        metrics.pool_has(0);
        assert_eq!(metrics.pool(), Some(0));
    }
}
