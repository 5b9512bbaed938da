//! How many calls of a function may be tried again: a share of its calls, so that retries never become the load.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One retry for so many calls.
const CALLS_PER_RETRY: u64 = 5;
/// And so many a second, for functions that are seldom called.
const A_SECOND: f64 = 10.0;
/// The budget looks back over one to two of these: a replica that dies breaks the calls of some seconds at once.
const SPAN: Duration = Duration::from_secs(5);

/// The retry budget of one function. Costs a call nothing: it is asked only when something is to be tried again.
#[derive(Debug)]
pub struct Budget(Mutex<Spans>);

/// The present span and the one before.
#[derive(Clone, Copy, Debug)]
struct Spans {
    before: Span,
    now: Span,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    began: Instant,
    /// How many calls the function had had when it began.
    calls: u64,
    /// Retries within it.
    spent: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self(Mutex::new(Spans::new(Instant::now())))
    }
}

impl Budget {
    /// Takes one retry out of the budget of a function that has had so many calls in all, if there is one left.
    pub fn spend(&self, calls: u64) -> bool {
        self.with(calls, |spans, now| {
            let is_left = spans.left(now, calls) >= 1.0;
            spans.now.spent += u64::from(is_left);
            is_left
        })
    }

    /// How many retries are left.
    #[must_use]
    pub fn left(&self, calls: u64) -> f64 {
        self.with(calls, |spans, now| spans.left(now, calls))
    }

    fn with<T>(&self, calls: u64, work: impl FnOnce(&mut Spans, Instant) -> T) -> T {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        spans.turn(now, calls);
        work(&mut spans, now)
    }
}

impl Spans {
    /// Those of a function that begins now.
    fn new(now: Instant) -> Self {
        let span = Span {
            began: now,
            calls: 0,
            spent: 0,
        };
        Self {
            before: span,
            now: span,
        }
    }

    /// Begins a new span when the present one is over. Nobody has looked since the last turn; if that is long ago, the
    /// calls since then count as spread evenly over the time.
    fn turn(&mut self, now: Instant, calls: u64) {
        let age = now.saturating_duration_since(self.now.began);
        if age < SPAN {
            return;
        }
        self.before = self.now;
        if age >= 2 * SPAN {
            let fresh = calls.saturating_sub(self.now.calls);
            let lately = (fresh as f64 * SPAN.div_duration_f64(age)) as u64;
            self.before = Span {
                began: now.checked_sub(SPAN).unwrap_or(now),
                calls: calls - lately,
                spent: 0,
            };
        }
        self.now = Span {
            began: now,
            calls,
            spent: 0,
        };
    }

    fn left(&self, now: Instant, calls: u64) -> f64 {
        let calls = calls.saturating_sub(self.before.calls);
        let seconds = now
            .saturating_duration_since(self.before.began)
            .max(Duration::from_secs(1))
            .as_secs_f64();
        let spent = self.before.spent + self.now.spent;
        (calls / CALLS_PER_RETRY) as f64 + A_SECOND * seconds - spent as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Retries that are granted if one is asked for with each of so many calls a second, for so many seconds.
    fn granted(rate: u64, seconds: u64) -> u64 {
        let start = Instant::now();
        let mut spans = Spans::new(start);
        let mut granted = 0;
        for call in 1..=rate * seconds {
            let now = start + Duration::from_secs(1).mul_f64(call as f64 / rate as f64);
            spans.turn(now, call);
            if spans.left(now, call) >= 1.0 {
                spans.now.spent += 1;
                granted += 1;
            }
        }
        granted
    }

    #[test]
    fn grants_a_fifth_of_the_calls_and_ten_a_second() {
        for (rate, seconds) in [(1000, 30), (50, 30), (5, 30)] {
            let most = rate * seconds / 5 + 10 * (seconds + 1);
            let granted = granted(rate, seconds);
            assert!(granted <= most, "{granted} of {most} at {rate}/s");
            let least = (rate * seconds / 5 + 10 * seconds).min(rate * seconds);
            assert!(
                granted * 10 >= least * 9,
                "{granted} of {least} at {rate}/s"
            );
        }
    }

    #[test]
    fn remembers_the_calls_of_the_last_seconds_even_if_nobody_asked_meanwhile() {
        let start = Instant::now();
        let mut spans = Spans::new(start);
        let later = start + 100 * SPAN;
        let rate = 20;
        let calls = rate * 100 * SPAN.as_secs();
        spans.turn(later, calls);
        let expected = (rate as f64 / 5.0 + A_SECOND) * SPAN.as_secs_f64();
        assert!((spans.left(later, calls) - expected).abs() < 2.0);
    }

    #[test]
    fn a_new_function_has_ten_at_once() {
        let start = Instant::now();
        let mut spans = Spans::new(start);
        assert!((spans.left(start, 0) - 10.0).abs() < 0.01);
        spans.now.spent = 10;
        assert!(spans.left(start, 0) < 1.0);
    }
}
