//! A log line for something that may fail many times a second: one a minute, with the number of those left out.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two lines.
const PAUSE: Duration = Duration::from_secs(60);

/// Says whether a line may be written. Shared by all workers; only failures take its lock.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    latest: Option<Instant>,
    left_out: usize,
}

/// How many lines were left out before this one; empty text if none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeftOut(usize);

impl Throttle {
    /// `None` if the line is to be left out.
    pub(crate) fn admit(&self) -> Option<LeftOut> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<LeftOut> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .latest
            .is_some_and(|latest| now.duration_since(latest) < PAUSE)
        {
            state.left_out += 1;
            return None;
        }
        state.latest = Some(now);
        Some(LeftOut(std::mem::take(&mut state.left_out)))
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} more since the last such line)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_says_how_many_were_left_out() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let at = |seconds| throttle.admit_at(start + Duration::from_secs(seconds));
        assert_eq!(at(0).unwrap().to_string(), "");
        assert_eq!((at(1), at(59)), (None, None));
        let line = at(60).unwrap().to_string();
        assert_eq!(line, " (2 more since the last such line)");
        assert_eq!((at(61), at(120)), (None, Some(LeftOut(1))));
    }
}
