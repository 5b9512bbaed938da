//! The runs that are going on, and the two marks that say whose a process is.
//!
//! One is the variable `SKEP_RUN`. Whoever clears the environment loses it, so that there is another one: the soft limit
//! of the resident set, which Linux has not enforced since 2.4.30 and which every child inherits whatever it executes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The number of a run; later runs have higher numbers.
pub(crate) type RunId = u64;

/// What a process shows of whose it is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The value of `SKEP_RUN` in its environment.
    pub(crate) marker: Option<String>,
    /// The soft limit of its resident set.
    pub(crate) limit: Option<u64>,
}

/// In every limit that is a mark. So many bytes are no limit to a program that believes the number.
const LIMIT_BASE: u64 = 1 << 62;

/// How much of such a limit is the run's number; the bits between it and the base are the watchdog's.
const RUN_BITS: u32 = 40;

/// The runs of this watchdog.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Distinguishes our markers from those of a watchdog inside or outside of this one.
    nonce: String,
    /// The same for limits: everything of them but the run's number.
    limit_base: u64,
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
        // Microseconds differ for watchdogs that were started one after the other; the upper bits are cut off.
        let own = (now / 1000) as u64 ^ u64::from(std::process::id());
        Self {
            nonce,
            limit_base: LIMIT_BASE | (own << RUN_BITS) & (LIMIT_BASE - 1),
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

    /// The limit of the resident set that marks the processes of a run.
    pub(crate) fn limit(&self, id: RunId) -> u64 {
        self.limit_base | id & ((1 << RUN_BITS) - 1)
    }

    /// The run that marks like these stand for, if it is one of ours.
    pub(crate) fn run_of(&self, marks: &Marks) -> Option<RunId> {
        let by_limit = marks
            .limit
            .filter(|limit| limit >> RUN_BITS == self.limit_base >> RUN_BITS)
            .map(|limit| limit & ((1 << RUN_BITS) - 1));
        by_limit.or_else(|| {
            let own = marks.marker.as_deref()?.strip_prefix(&self.nonce)?;
            own.strip_prefix('.')?.parse().ok()
        })
    }

    /// The highest number given out so far.
    pub(crate) fn last(&self) -> RunId {
        self.last.load(Ordering::Relaxed)
    }

    /// Whether an orphan may be ended: it bears the marker of a run that is over, or it bears none of ours and all
    /// runs that had begun when it was first seen are over.
    pub(crate) fn is_left_over(&self, marks: &Marks, seen_after: RunId) -> bool {
        let own = self.run_of(marks);
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

    fn marker(marker: &str) -> Marks {
        Marks {
            marker: Some(marker.to_owned()),
            limit: None,
        }
    }

    fn limit(limit: u64) -> Marks {
        Marks {
            marker: None,
            limit: Some(limit),
        }
    }

    #[test]
    fn a_marked_process_lives_as_long_as_its_run() {
        let runs = Runs::new();
        let (first, second) = (runs.begin(), runs.begin());
        let of_first = [marker(&runs.marker(first)), limit(runs.limit(first))];
        let of_second = [marker(&runs.marker(second)), limit(runs.limit(second))];
        let are_left_over = |marks: &[Marks; 2]| {
            marks
                .each_ref()
                .map(|marks| runs.is_left_over(marks, runs.last()))
        };
        assert_eq!(are_left_over(&of_first), [false; 2]);
        runs.end(first);
        assert_eq!(are_left_over(&of_first), [true; 2]);
        assert_eq!(are_left_over(&of_second), [false; 2]);
    }

    #[test]
    fn an_unmarked_process_goes_when_every_earlier_run_is_over() {
        let runs = Runs::new();
        let (first, second) = (runs.begin(), runs.begin());
        let seen_after = runs.last();
        let third = runs.begin();
        let unmarked = [
            Marks::default(),
            marker("1.2.3"),
            marker(""),
            limit(u64::MAX),
            limit(1 << 30),
            limit(runs.limit(first) ^ 1 << RUN_BITS),
        ];
        let left_over = |count: usize| {
            let found = unmarked
                .iter()
                .filter(|marks| runs.is_left_over(marks, seen_after));
            assert_eq!(found.count(), count);
        };
        left_over(0);
        runs.end(second);
        left_over(0);
        runs.end(first);
        left_over(unmarked.len());
        runs.end(third);
        left_over(unmarked.len());
    }

    #[test]
    fn the_limit_is_one_that_limits_nothing_and_can_be_set() {
        let runs = Runs::new();
        for id in [1, 1 << 39, u64::MAX] {
            assert!(runs.limit(id) >= 1 << 62 && runs.limit(id) < 1 << 63);
        }
    }
}
