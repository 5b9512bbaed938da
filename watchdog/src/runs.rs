//! The runs that are going on, and the two marks that say whose a process is.
//!
//! One is the variable `SKEP_RUN`. Whoever clears the environment loses it, so that there is another one: the soft limit
//! of the resident set, which Linux has not enforced since 2.4.30 and which every child inherits whatever it executes. Its hard
//! limit is the same, so that a process without CAP_SYS_RESOURCE can only lower it: to the mark of an earlier run, or to none of
//! ours. A process can therefore copy a mark, but no chain of copies outlives the runs that began before its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};

use crate::tree::{self, Ticks};

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
    /// The hard limit of its resident set.
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
    /// Whether every process of a run gets the limit, so that one without it has lowered it.
    is_limit_set: bool,
    /// Whether /proc tells the start of a process on the clock that we read.
    has_clock: bool,
    living: Mutex<Living>,
}

#[derive(Debug, Default)]
struct Living {
    /// The runs that go on.
    begun: BTreeMap<Number, Ticks>,
    /// The marks of those whose child was started ahead. Until its call comes such a run has not begun, so that it holds
    /// up the end of nothing; what bears its mark is spared all the same.
    ahead: BTreeMap<Number, Ticks>,
}

impl Runs {
    /// No runs yet.
    pub(crate) fn new() -> Self {
        let highest = getrlimit(Resource::Rss).maximum.unwrap_or(u64::MAX);
        Self::below(highest, tree::has_clock())
    }

    /// The same for a watchdog whose own hard limit is `highest`: among the processes of another watchdog's run it is that run's mark.
    fn below(highest: u64, has_clock: bool) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let nonce = format!("{:x}.{now:x}", std::process::id());
        // Microseconds differ for watchdogs that were started one after the other; the upper bits are cut off.
        let own = (now / 1000) as u64 ^ u64::from(std::process::id());
        let own = own & ((LIMIT_BASE >> RUN_BITS) - 1);
        let outer = highest.saturating_sub(LIMIT_BASE) >> RUN_BITS;
        let own = if own < outer { own } else { own % outer.max(1) };
        let limit_base = LIMIT_BASE | own << RUN_BITS;
        Self {
            nonce,
            limit_base,
            last: AtomicU64::new(0),
            is_limit_set: limit_base | ((1 << RUN_BITS) - 1) <= highest,
            has_clock,
            living: Mutex::default(),
        }
    }

    /// Begins a run. To be called before its process is started.
    pub(crate) fn begin(&self) -> RunId {
        let number = self.next();
        self.living().begun.insert(number, tree::now());
        RunId {
            mark: number,
            began: Some(number),
        }
    }

    /// Takes the beginning back: the child that was started waits for a call.
    pub(crate) fn wait(&self, id: RunId) -> RunId {
        let mut living = self.living();
        if let Some(number) = id.began {
            let began = living.begun.remove(&number).unwrap_or_default();
            living.ahead.insert(id.mark, began);
        }
        RunId { began: None, ..id }
    }

    /// The call has come: the run begins.
    pub(crate) fn take(&self, id: RunId) -> RunId {
        let number = self.next();
        self.living().begun.insert(number, tree::now());
        RunId {
            began: Some(number),
            ..id
        }
    }

    /// Ends a run: what is left of its tree may go.
    pub(crate) fn end(&self, id: RunId) {
        let mut living = self.living();
        living.ahead.remove(&id.mark);
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

    /// The run whose limit this is, if it is one of ours.
    fn by_limit(&self, marks: &Marks) -> Option<Number> {
        let is_own = |limit: &u64| limit >> RUN_BITS == self.limit_base >> RUN_BITS;
        Some(marks.limit.filter(is_own)? & ((1 << RUN_BITS) - 1))
    }

    /// The run that the variable names, if it is one of ours.
    fn by_marker(&self, marks: &Marks) -> Option<Number> {
        let own = marks.marker.as_deref()?.strip_prefix(&self.nonce)?;
        own.strip_prefix('.')?.parse().ok()
    }

    /// The number that marks like these stand for, if it is one of ours.
    pub(crate) fn number_of(&self, marks: &Marks) -> Option<Number> {
        self.by_limit(marks).or_else(|| self.by_marker(marks))
    }

    /// The highest number given out so far.
    pub(crate) fn last(&self) -> Number {
        self.last.load(Ordering::Relaxed)
    }

    /// Whether an orphan that started then may be ended.
    ///
    /// - One of its marks is that of a run that is over, or that began after the process: then it was copied.
    /// - Else the limit says whose it is. The variable, which any process can set, says so only where there can be no limit.
    /// - A process without a mark that counts goes when all runs that had begun when it was first seen are over.
    pub(crate) fn is_left_over(&self, marks: &Marks, started: Ticks, seen_after: Number) -> bool {
        let (by_limit, by_marker) = (self.by_limit(marks), self.by_marker(marks));
        let living = self.living();
        let is_foreign = |mark: Number| match living.began(mark) {
            None => true,
            Some(began) => self.has_clock && started < began,
        };
        if by_limit.into_iter().chain(by_marker).any(is_foreign) {
            return true;
        }
        if by_limit.is_some() || (by_marker.is_some() && !self.is_limit_set) {
            return false;
        }
        living
            .begun
            .first_key_value()
            .is_none_or(|(oldest, _)| *oldest > seen_after)
    }

    fn living(&self) -> MutexGuard<'_, Living> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Living {
    /// When the mark of a run that is not over was made.
    fn began(&self, mark: Number) -> Option<Ticks> {
        self.ahead
            .get(&mark)
            .or_else(|| self.begun.get(&mark))
            .copied()
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
                .map(|marks| runs.is_left_over(marks, Ticks::MAX, runs.last()))
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
                .filter(|marks| runs.is_left_over(marks, Ticks::MAX, seen_after));
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
    fn a_mark_that_is_younger_than_its_process_was_copied() {
        let runs = Runs::below(u64::MAX, true);
        let run = runs.begin();
        let began = runs.living().began(run.mark).unwrap();
        for marks in [
            limit(runs.limit(run)),
            Marks {
                limit: Some(runs.limit(run)),
                ..marker(&runs.marker(run))
            },
            marker(&runs.marker(run)),
        ] {
            assert!(runs.is_left_over(&marks, began - 1, runs.last()));
            assert!(!runs.is_left_over(&marks, began, runs.last()));
        }
        let without_clock = Runs::below(u64::MAX, false);
        let run = without_clock.begin();
        let mark = limit(without_clock.limit(run));
        assert!(!without_clock.is_left_over(&mark, 0, without_clock.last()));
    }

    #[test]
    fn two_marks_that_differ_are_those_of_the_run_that_is_over_first() {
        let runs = Runs::new();
        let (first, second) = (runs.begin(), runs.begin());
        let mixed = |one, other| Marks {
            limit: Some(runs.limit(one)),
            ..marker(&runs.marker(other))
        };
        let all = [mixed(first, second), mixed(second, first)];
        runs.end(first);
        assert!(
            all.iter()
                .all(|marks| runs.is_left_over(marks, Ticks::MAX, runs.last()))
        );
    }

    #[test]
    fn the_variable_alone_counts_only_where_there_can_be_no_limit() {
        for (highest, counts) in [(u64::MAX, false), (1 << 40, true)] {
            let runs = Runs::below(highest, false);
            let seen_after = runs.last();
            let run = runs.begin();
            let copied = Marks {
                limit: Some(1 << 30),
                ..marker(&runs.marker(run))
            };
            assert_eq!(runs.is_left_over(&copied, Ticks::MAX, seen_after), !counts);
        }
    }

    #[test]
    fn the_limits_of_an_inner_watchdog_are_below_its_own() {
        let outer = Runs::new();
        let highest = outer.limit(outer.begin());
        let inner = Runs::below(highest, false);
        assert!(
            !inner.is_limit_set
                || inner.limit(RunId {
                    mark: u64::MAX,
                    began: None
                }) < highest
        );
        assert_ne!(inner.limit_base, outer.limit_base);
    }

    #[test]
    fn a_waiting_child_is_spared_and_holds_up_nothing() {
        let runs = Runs::new();
        let ahead = runs.wait(runs.begin());
        let mark = limit(runs.limit(ahead));
        let unmarked = Marks::default();
        let seen_after = runs.last();
        assert!(!runs.is_left_over(&mark, Ticks::MAX, seen_after));
        assert!(runs.is_left_over(&unmarked, Ticks::MAX, seen_after));
        let taken = runs.take(ahead);
        assert_eq!(runs.limit(taken), runs.limit(ahead));
        assert!(!runs.is_left_over(&mark, Ticks::MAX, seen_after));
        assert!(
            !runs.is_left_over(&unmarked, Ticks::MAX, runs.last()),
            "the run goes on"
        );
        assert!(
            runs.is_left_over(&unmarked, Ticks::MAX, seen_after),
            "it began later"
        );
        runs.end(taken);
        assert!(runs.is_left_over(&mark, Ticks::MAX, seen_after));
    }
}
