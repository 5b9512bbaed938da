//! The pause before a process that has ended is started again: doubled each time, up to the longest.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// A process that has lived this long did not fail at its start: its next pause is the first one again.
const STEADY: Duration = Duration::from_secs(10);

/// How long the next pause is.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Nothing has failed yet.
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause after a process that lived this long.
    pub(crate) fn pause_after(&mut self, lived: Duration) -> Duration {
        if lived >= STEADY {
            self.has_worked();
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }

    /// What failed before works again.
    pub(crate) fn has_worked(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_steady_life() {
        let mut backoff = Backoff::new();
        let mut pause = || backoff.pause_after(Duration::ZERO).as_millis();
        assert_eq!([pause(), pause(), pause()], [100, 200, 400]);
        assert_eq!((0..9).map(|_| pause()).last(), Some(10_000));
        assert_eq!(backoff.pause_after(STEADY), FIRST);
        backoff.pause_after(Duration::ZERO);
        backoff.has_worked();
        assert_eq!(backoff.pause_after(Duration::ZERO), FIRST);
    }
}
