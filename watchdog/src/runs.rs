//! The runs that are going on, and the marker that says whose a process is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The number of a run; later runs have higher numbers.
pub(crate) type RunId = u64;

/// The runs of this watchdog.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Distinguishes our markers from those of a watchdog inside or outside of this one.
    nonce: String,
    last: AtomicU64,
    living: Mutex<BTreeSet<RunId>>,
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

    /// Begins a run.
    pub(crate) fn begin(&self) -> RunId {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.living().insert(id);
        id
    }

    /// Ends a run: what is left of its tree may go.
    pub(crate) fn end(&self, id: RunId) {
        self.living().remove(&id);
    }

    /// The marker of a run.
    pub(crate) fn marker(&self, id: RunId) -> String {
        format!("{}.{id}", self.nonce)
    }

    /// The highest number given out so far.
    pub(crate) fn last(&self) -> RunId {
        self.last.load(Ordering::Relaxed)
    }

    /// Whether an orphan may be ended: it bears the marker of a run that is over, or it bears none of ours and all
    /// runs that had begun when it was first seen are over.
    pub(crate) fn is_left_over(&self, marker: Option<&str>, seen_after: RunId) -> bool {
        let own = marker.and_then(|marker| {
            marker
                .strip_prefix(&self.nonce)?
                .strip_prefix('.')?
                .parse::<RunId>()
                .ok()
        });
        let living = self.living();
        match own {
            Some(id) => !living.contains(&id),
            None => living.first().is_none_or(|oldest| *oldest > seen_after),
        }
    }

    fn living(&self) -> std::sync::MutexGuard<'_, BTreeSet<RunId>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_process_lives_as_long_as_its_run() {
        let runs = Runs::new();
        let (first, second) = (runs.begin(), runs.begin());
        let marker = runs.marker(first);
        assert!(!runs.is_left_over(Some(&marker), runs.last()));
        runs.end(first);
        assert!(runs.is_left_over(Some(&marker), runs.last()));
        assert!(!runs.is_left_over(Some(&runs.marker(second)), runs.last()));
    }

    #[test]
    fn an_unmarked_process_goes_when_every_earlier_run_is_over() {
        let runs = Runs::new();
        let (first, second) = (runs.begin(), runs.begin());
        let seen_after = runs.last();
        let third = runs.begin();
        for marker in [None, Some("1.2.3"), Some("")] {
            assert!(!runs.is_left_over(marker, seen_after), "{marker:?}");
        }
        runs.end(second);
        assert!(!runs.is_left_over(None, seen_after));
        runs.end(first);
        assert!(runs.is_left_over(None, seen_after));
        runs.end(third);
        assert!(runs.is_left_over(None, seen_after));
    }
}
