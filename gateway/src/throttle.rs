//! Bounds how many lines of one kind reach the log where clients or functions decide how often their cause occurs.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts the lines of one kind.
pub struct Throttle {
    most: u32,
    every: Duration,
    counts: Mutex<Counts>,
}

struct Counts {
    /// When the present window began.
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

/// How many lines were left out before this one; written behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut(u64);

impl Throttle {
    /// So many lines in each window of this length.
    #[must_use]
    pub const fn new(most: u32, every: Duration) -> Self {
        Self {
            most,
            every,
            counts: Mutex::new(Counts {
                began: None,
                written: 0,
                left_out: 0,
            }),
        }
    }

    /// Whether a line may be written now. One that may not is counted, and told with the next one that may.
    pub fn admit(&self) -> Option<LeftOut> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<LeftOut> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |began| now.saturating_duration_since(began) >= self.every;
        if counts.began.is_none_or(is_new) {
            (counts.began, counts.written) = (Some(now), 0);
        }
        if counts.written == self.most {
            counts.left_out += 1;
            return None;
        }
        counts.written += 1;
        Some(LeftOut(std::mem::take(&mut counts.left_out)))
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            lines => write!(f, " ({lines} lines of this kind were left out before)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_are_written_in_a_window_and_the_others_are_counted() {
        let throttle = Throttle::new(2, Duration::from_secs(10));
        let begin = Instant::now();
        let at = |seconds| throttle.admit_at(begin + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1)], [Some(LeftOut(0)); 2]);
        assert_eq!([at(2), at(9)], [None; 2]);
        assert_eq!(at(10), Some(LeftOut(2)));
        assert_eq!(at(11).unwrap().to_string(), "");
        assert_eq!(at(12), None);
        let said = at(30).unwrap().to_string();
        assert_eq!(said, " (1 lines of this kind were left out before)");
    }
}
