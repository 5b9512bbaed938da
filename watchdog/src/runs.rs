//! The runs that are going on, and the two marks that say whose a process is.
//!
//! One is the variable `SKEP_RUN`. Whoever clears the environment loses it, so that there is another one: the soft limit
//! of the resident set, which Linux has not enforced since 2.4.30 and which every child inherits whatever it executes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Counts the beginnings of runs.
pub(crate) type Number = u64;

/// A run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunId {
    /// What its processes bear.
    mark: Number,
    /// `None` while its child waits for a call.
    began: Option<Number>,
}

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

/// The clock of `/proc/<pid>/stat`, in its unit, which is a hundredth of a second on every machine that we run on.
fn clock_ticks() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 100 + now.tv_nsec.cast_unsigned() / 10_000_000
}

/// The runs of this watchdog.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Distinguishes our markers from those of a watchdog inside or outside of this one.
    nonce: String,
    /// The same for limits: everything of them but the run's number.
    limit_base: u64,
    last: AtomicU64,
    living: Mutex<Living>,
}

#[derive(Debug, Default)]
struct Living {
    /// When each run that goes on began.
    begun: BTreeSet<Number>,
    /// When each mark was made, in clock ticks since boot: a process that bears it is not older. Also those of children that
    /// were started ahead. Until its call comes such a run has not begun, so that it holds up the end of nothing; what
    /// bears its mark is spared all the same.
    made: BTreeMap<Number, u64>,
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

    /// Begins a run. To be called before its process is started.
    pub(crate) fn begin(&self) -> RunId {
        let number = self.next();
        let now = clock_ticks();
        let mut living = self.living();
        living.begun.insert(number);
        living.made.insert(number, now);
        RunId {
            mark: number,
            began: Some(number),
        }
    }

    /// Takes the beginning back: the child that was started waits for a call.
    pub(crate) fn wait(&self, id: RunId) -> RunId {
        let mut living = self.living();
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
        living.made.remove(&id.mark);
        if let Some(number) = id.began {
            living.begun.remove(&number);
        }
    }

    fn next(&self) -> Number {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The marker of a run.
    pub(crate) fn marker(&self, id: RunId) -> String {
        format!("{}.{}", self.nonce, id.mark)
    }

    /// The limit of the resident set that marks the processes of a run.
    pub(crate) fn limit(&self, id: RunId) -> u64 {
        self.limit_base | id.mark & ((1 << RUN_BITS) - 1)
    }

    /// The number that marks like these stand for, if it is one of ours.
    pub(crate) fn number_of(&self, marks: &Marks) -> Option<Number> {
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
    pub(crate) fn last(&self) -> Number {
        self.last.load(Ordering::Relaxed)
    }

    /// Whether an orphan may be ended: it bears the marker of a run that is over, or one that was made after it was started
    /// and that it must have copied, or it bears none of ours and all runs that had begun when it was first seen are over.
    pub(crate) fn is_left_over(&self, marks: &Marks, started: u64, seen_after: Number) -> bool {
        let own = self.number_of(marks);
        let living = self.living();
        match own {
            Some(mark) => living.made.get(&mark).is_none_or(|made| started < *made),
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
                .map(|marks| runs.is_left_over(marks, u64::MAX, runs.last()))
        };
        assert_eq!(are_left_over(&of_first), [false; 2]);
        runs.end(first);
        assert_eq!(are_left_over(&of_first), [true; 2]);
        assert_eq!(are_left_over(&of_second), [false; 2]);
    }

    #[test]
    fn a_process_that_is_older_than_its_mark_has_copied_it() {
        let runs = Runs::new();
        let id = runs.begin();
        let made = clock_ticks();
        for marks in [marker(&runs.marker(id)), limit(runs.limit(id))] {
            assert!(!runs.is_left_over(&marks, made, runs.last()));
            assert!(runs.is_left_over(&marks, made - 100, runs.last()));
        }
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
                .filter(|marks| runs.is_left_over(marks, u64::MAX, seen_after));
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
        for mark in [1, 1 << 39, u64::MAX] {
            let limit = runs.limit(RunId { mark, began: None });
            assert!((1 << 62..1 << 63).contains(&limit));
        }
    }

    #[test]
    fn a_waiting_child_is_spared_and_holds_up_nothing() {
        let runs = Runs::new();
        let ahead = runs.wait(runs.begin());
        let mark = limit(runs.limit(ahead));
        let unmarked = Marks::default();
        let seen_after = runs.last();
        assert!(!runs.is_left_over(&mark, u64::MAX, seen_after));
        assert!(runs.is_left_over(&unmarked, u64::MAX, seen_after));
        let taken = runs.take(ahead);
        assert_eq!(runs.limit(taken), runs.limit(ahead));
        assert!(!runs.is_left_over(&mark, u64::MAX, seen_after));
        assert!(
            !runs.is_left_over(&unmarked, u64::MAX, runs.last()),
            "the run goes on"
        );
        assert!(
            runs.is_left_over(&unmarked, u64::MAX, seen_after),
            "it began later"
        );
        runs.end(taken);
        assert!(runs.is_left_over(&mark, u64::MAX, seen_after));
    }
}
