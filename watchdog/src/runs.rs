//! The runs that are going on, and the marker that says whose a process is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Pid;

/// Counts the beginnings of runs.
pub(crate) type Number = u64;

/// A run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunId {
    /// What its processes bear.
    marker: Number,
    /// `None` while its child waits for a call.
    began: Option<Number>,
}

/// The runs of this watchdog.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Distinguishes our markers from those of a watchdog inside or outside of this one.
    nonce: String,
    last: AtomicU64,
    living: Mutex<Living>,
}

#[derive(Debug, Default)]
struct Living {
    /// When each run that goes on began.
    begun: BTreeSet<Number>,
    /// The runs whose child was started ahead, by marker, with that child. Until its call comes such a run has not begun,
    /// so that it holds up nothing; what bears its marker is spared all the same. So is the child itself: for a moment
    /// after its start the kernel does not show its environment.
    ahead: BTreeMap<Number, Pid>,
}

impl Runs {
    /// No runs yet.
    pub(crate) fn new() -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let nonce = format!("{:x}.{now:x}", std::process::id());
        Self {
            nonce,
            last: AtomicU64::new(0),
            living: Mutex::default(),
        }
    }

    /// Begins a run. To be called before its process is started.
    pub(crate) fn begin(&self) -> RunId {
        let number = self.next();
        self.living().begun.insert(number);
        RunId {
            marker: number,
            began: Some(number),
        }
    }

    /// Takes the beginning back: the child that was started waits for a call.
    pub(crate) fn wait(&self, id: RunId, child: Pid) -> RunId {
        let mut living = self.living();
        living.ahead.insert(id.marker, child);
        if let Some(number) = id.began {
            living.begun.remove(&number);
        }
        RunId { began: None, ..id }
    }

    /// The call has come: the run begins.
    pub(crate) fn take(&self, id: RunId) -> RunId {
        let number = self.next();
        self.living().begun.insert(number);
        RunId {
            began: Some(number),
            ..id
        }
    }

    /// Ends a run: what is left of its tree may go.
    pub(crate) fn end(&self, id: RunId) {
        let mut living = self.living();
        living.ahead.remove(&id.marker);
        if let Some(number) = id.began {
            living.begun.remove(&number);
        }
    }

    fn next(&self) -> Number {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The marker of a run.
    pub(crate) fn marker(&self, id: RunId) -> String {
        format!("{}.{}", self.nonce, id.marker)
    }

    /// The highest number given out so far.
    pub(crate) fn last(&self) -> Number {
        self.last.load(Ordering::Relaxed)
    }

    /// Whether an orphan may be ended: it bears the marker of a run that is over, or it bears none of ours and all
    /// runs that had begun when it was first seen are over.
    pub(crate) fn is_left_over(&self, pid: i32, marker: Option<&str>, seen_after: Number) -> bool {
        let own = marker.and_then(|marker| {
            marker
                .strip_prefix(&self.nonce)?
                .strip_prefix('.')?
                .parse::<Number>()
                .ok()
        });
        let living = self.living();
        let mut ahead = living.ahead.values();
        if ahead.any(|child| child.as_raw_nonzero().get() == pid) {
            return false;
        }
        match own {
            Some(id) => !living.begun.contains(&id) && !living.ahead.contains_key(&id),
            None => living
                .begun
                .first()
                .is_none_or(|oldest| *oldest > seen_after),
        }
    }

    fn living(&self) -> MutexGuard<'_, Living> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORPHAN: i32 = 77;

    #[test]
    fn a_marked_process_lives_as_long_as_its_run() {
        let runs = Runs::new();
        let (first, second) = (runs.begin(), runs.begin());
        let marker = runs.marker(first);
        assert!(!runs.is_left_over(ORPHAN, Some(&marker), runs.last()));
        runs.end(first);
        assert!(runs.is_left_over(ORPHAN, Some(&marker), runs.last()));
        assert!(!runs.is_left_over(ORPHAN, Some(&runs.marker(second)), runs.last()));
    }

    #[test]
    fn an_unmarked_process_goes_when_every_earlier_run_is_over() {
        let runs = Runs::new();
        let (first, second) = (runs.begin(), runs.begin());
        let seen_after = runs.last();
        let third = runs.begin();
        for marker in [None, Some("1.2.3"), Some("")] {
            assert!(!runs.is_left_over(ORPHAN, marker, seen_after), "{marker:?}");
        }
        runs.end(second);
        assert!(!runs.is_left_over(ORPHAN, None, seen_after));
        runs.end(first);
        assert!(runs.is_left_over(ORPHAN, None, seen_after));
        runs.end(third);
        assert!(runs.is_left_over(ORPHAN, None, seen_after));
    }

    #[test]
    fn a_waiting_child_is_spared_and_holds_up_nothing() {
        let runs = Runs::new();
        let child = Pid::from_raw(78).unwrap();
        let ahead = runs.wait(runs.begin(), child);
        let marker = runs.marker(ahead);
        let seen_after = runs.last();
        assert!(!runs.is_left_over(ORPHAN, Some(&marker), seen_after));
        assert!(!runs.is_left_over(78, None, seen_after), "the child itself");
        assert!(runs.is_left_over(ORPHAN, None, seen_after));
        let taken = runs.take(ahead);
        assert_eq!(runs.marker(taken), marker);
        assert!(!runs.is_left_over(ORPHAN, Some(&marker), seen_after));
        assert!(
            !runs.is_left_over(ORPHAN, None, runs.last()),
            "the run goes on"
        );
        assert!(
            runs.is_left_over(ORPHAN, None, seen_after),
            "it began later"
        );
        runs.end(taken);
        assert!(runs.is_left_over(ORPHAN, Some(&marker), seen_after));
        assert!(runs.is_left_over(78, None, runs.last()));
    }
}
