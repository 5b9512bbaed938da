//! How durations are distributed: how many lie below each bound, and their sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds of one histogram.
pub(super) const BOUNDS: usize = 11;

/// The upper ends of the buckets, each with its label; longer ones fall into a last bucket without an end.
pub(super) type Bounds = [(Duration, &'static str); BOUNDS];

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// For what takes as long as a call. These are the contract's.
pub(super) const LONG: &Bounds = &[
    (millis(5), "0.005"),
    (millis(10), "0.01"),
    (millis(25), "0.025"),
    (millis(50), "0.05"),
    (millis(100), "0.1"),
    (millis(250), "0.25"),
    (millis(500), "0.5"),
    (millis(1000), "1"),
    (millis(2500), "2.5"),
    (millis(5000), "5"),
    (millis(10_000), "10"),
];

/// For the start of a process, which is a matter of microseconds.
pub(super) const SHORT: &Bounds = &[
    (Duration::from_micros(50), "0.00005"),
    (Duration::from_micros(100), "0.0001"),
    (Duration::from_micros(250), "0.00025"),
    (Duration::from_micros(500), "0.0005"),
    (millis(1), "0.001"),
    (Duration::from_micros(2500), "0.0025"),
    (millis(5), "0.005"),
    (millis(10), "0.01"),
    (millis(25), "0.025"),
    (millis(100), "0.1"),
    (millis(1000), "1"),
];

/// Durations that were recorded.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// How many fell between the bound before and this one.
    buckets: [AtomicU64; BOUNDS + 1],
    /// 64 bits of nanoseconds are 584 years.
    nanos: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    /// How many were as long as each bound or shorter; the last counts all.
    pub(super) up_to: [u64; BOUNDS + 1],
    pub(super) sum: Duration,
}

impl Histogram {
    /// Counts one.
    pub(super) fn record(&self, bounds: &Bounds, took: Duration) {
        let place = bounds.iter().position(|(bound, _)| took <= *bound);
        self.buckets[place.unwrap_or(BOUNDS)].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What there is so far.
    pub(super) fn read(&self) -> Recorded {
        let mut sum = 0;
        let up_to = self.buckets.each_ref().map(|bucket| {
            sum += bucket.load(Ordering::Relaxed);
            sum
        });
        Recorded {
            up_to,
            sum: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

impl Recorded {
    /// How many were recorded.
    pub(super) fn count(&self) -> u64 {
        self.up_to[BOUNDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_at_its_bound_and_at_all_above() {
        let histogram = Histogram::default();
        for millis in [5, 6, 60_000] {
            histogram.record(LONG, Duration::from_millis(millis));
        }
        let recorded = histogram.read();
        assert_eq!(recorded.up_to, [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3]);
        assert_eq!(
            (recorded.count(), recorded.sum),
            (3, Duration::from_millis(60_011))
        );
    }

    #[test]
    fn bounds_grow_and_are_what_their_labels_say() {
        for bounds in [LONG, SHORT] {
            assert!(bounds.is_sorted());
            for (bound, label) in bounds {
                let seconds: f64 = label.parse().unwrap();
                assert!((bound.as_secs_f64() - seconds).abs() < 1e-9, "{label}");
            }
        }
    }
}
