//! What a function's replicas use of processor and memory: each is read twice, and what lies between is its load. Pure.

use std::time::{Duration, SystemTime};

/// Between the two readings of one replica: long enough for a clock that counts hundredths of a second.
pub const APART: Duration = Duration::from_millis(500);

/// What replicas use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Thousandths of a processor.
    pub millicores: f64,
    /// Bytes of memory.
    pub memory_bytes: f64,
}

/// What one replica has used up to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When it was read.
    pub at: SystemTime,
    /// Processor time since its start.
    pub processor: Duration,
    /// Bytes of memory then.
    pub memory_bytes: u64,
}

impl Usage {
    /// What one replica used between two readings; `None` where no time went by.
    #[must_use]
    pub fn between(first: &Reading, second: &Reading) -> Option<Self> {
        let passed = second.at.duration_since(first.at).ok()?;
        let busy = second.processor.saturating_sub(first.processor);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a machine's memory is far below 2^52 bytes"
        )]
        let memory_bytes = second.memory_bytes as f64;
        (!passed.is_zero()).then(|| Self {
            millicores: busy.as_secs_f64() * 1000.0 / passed.as_secs_f64(),
            memory_bytes,
        })
    }

    /// All of these together; `None` of none: nobody knows is not nothing.
    #[must_use]
    pub fn sum(all: impl Iterator<Item = Self>) -> Option<Self> {
        all.reduce(|one, other| Self {
            millicores: one.millicores + other.millicores,
            memory_bytes: one.memory_bytes + other.memory_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: u64, processor: u64, memory_bytes: u64) -> Reading {
        Reading {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(at),
            processor: Duration::from_millis(processor),
            memory_bytes,
        }
    }

    #[test]
    fn the_load_is_what_lies_between_two_readings() {
        let used = |first, second| Usage::between(&first, &second);
        let half = Usage {
            millicores: 500.0,
            memory_bytes: 7.0,
        };
        assert_eq!(used(reading(0, 100, 5), reading(500, 350, 7)), Some(half));
        let began_anew = used(reading(0, 900, 5), reading(500, 10, 7)).unwrap();
        assert_eq!(began_anew.millicores, 0.0);
        assert_eq!(used(reading(5, 0, 5), reading(5, 10, 7)), None);
        assert_eq!(used(reading(9, 0, 5), reading(5, 10, 7)), None);
        assert_eq!(Usage::sum(std::iter::empty()), None);
        let both = Usage::sum([half, half].into_iter()).unwrap();
        assert_eq!((both.millicores, both.memory_bytes), (1000.0, 14.0));
    }
}
