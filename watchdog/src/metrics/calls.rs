//! Calls by status and verb, in a table of fixed size.

use std::sync::atomic::{AtomicU32, Ordering};

use hyper::{Method, StatusCode};

use super::histogram::{Bounds, Histogram, LONG};

/// The contract's bounds.
pub(super) const BOUNDS: &Bounds = LONG;

/// Pairs of status and verb that are told apart. A function may answer any of 900 statuses; neither our memory nor
/// the one who stores our series may pay for one that makes use of it.
pub(super) const SERIES: usize = 64;

/// The verbs that have a label of their own; the first stands for all others.
const VERBS: [&str; 10] = [
    "unknown", "get", "put", "head", "post", "delete", "connect", "options", "trace", "patch",
];

/// The counts of all calls.
#[derive(Debug)]
pub(super) struct Calls {
    /// `SERIES` of them; boxed, because the stack that they would pass over on their way stays in memory.
    series: Box<[Series]>,
    /// Calls that found no free place.
    others: Histogram,
}

#[derive(Debug, Default)]
struct Series {
    /// Status and verb in one number; 0 while the place is free. Once taken it stays taken.
    key: AtomicU32,
    durations: Histogram,
}

impl Calls {
    /// No calls.
    pub(super) fn new() -> Self {
        Self {
            series: (0..SERIES).map(|_| Series::default()).collect(),
            others: Histogram::default(),
        }
    }

    /// Where a call with this answer is counted.
    pub(super) fn of(&self, method: &Method, status: StatusCode) -> &Histogram {
        let key = u32::from(status.as_u16()) * VERBS.len() as u32 + verb(method);
        let home = key as usize % SERIES;
        for place in (home..SERIES).chain(0..home) {
            let series = &self.series[place];
            let found = match series.key.load(Ordering::Relaxed) {
                0 => series
                    .key
                    .compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed)
                    .map_or_else(|taken| taken, |_| key),
                taken => taken,
            };
            if found == key {
                return &series.durations;
            }
        }
        &self.others
    }

    /// Every pair that has occurred, as labels, and its durations; those beyond the table last.
    pub(super) fn iter(&self) -> impl Iterator<Item = (String, &'static str, &Histogram)> {
        let named = self.series.iter().filter_map(|series| {
            let key = series.key.load(Ordering::Relaxed) as usize;
            let (code, verb) = (key / VERBS.len(), VERBS[key % VERBS.len()]);
            (key > 0).then(|| (code.to_string(), verb, &series.durations))
        });
        let is_full = self.others.read().count() > 0;
        let others = is_full.then(|| ("other".to_owned(), VERBS[0], &self.others));
        named.chain(others)
    }
}

fn verb(method: &Method) -> u32 {
    match *method {
        Method::GET => 1,
        Method::PUT => 2,
        Method::HEAD => 3,
        Method::POST => 4,
        Method::DELETE => 5,
        Method::CONNECT => 6,
        Method::OPTIONS => 7,
        Method::TRACE => 8,
        Method::PATCH => 9,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn count(calls: &Calls, method: &Method, status: u16) {
        let status = StatusCode::from_u16(status).unwrap();
        calls.of(method, status).record(BOUNDS, Duration::ZERO);
    }

    fn counts(calls: &Calls) -> Vec<(String, u64)> {
        let mut counts: Vec<_> = calls
            .iter()
            .map(|(code, verb, durations)| (format!("{code} {verb}"), durations.read().count()))
            .collect();
        counts.sort_unstable();
        counts
    }

    #[test]
    fn each_pair_has_its_own_count_and_odd_verbs_share_one() {
        let calls = Calls::new();
        let brew = Method::from_bytes(b"BREW").unwrap();
        for method in [&Method::GET, &Method::GET, &Method::PATCH, &brew] {
            count(&calls, method, 200);
        }
        count(&calls, &Method::GET, 500);
        let expected = [
            ("200 get", 2),
            ("200 patch", 1),
            ("200 unknown", 1),
            ("500 get", 1),
        ];
        assert_eq!(
            counts(&calls),
            expected.map(|(labels, count)| (labels.to_owned(), count))
        );
    }

    #[test]
    fn every_verb_has_the_label_that_is_its_name() {
        for name in &VERBS[1..] {
            let method = Method::from_bytes(name.to_ascii_uppercase().as_bytes()).unwrap();
            assert_eq!(VERBS[verb(&method) as usize], *name);
        }
    }

    #[test]
    fn a_function_with_all_statuses_fills_the_table_and_no_more() {
        let calls = Calls::new();
        for status in 100..=999 {
            count(&calls, &Method::GET, status);
        }
        let counts = counts(&calls);
        assert_eq!(counts.len(), SERIES + 1);
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 900);
        assert_eq!(counts.last().unwrap(), &("other unknown".to_owned(), 836));
    }

    #[test]
    fn threads_that_meet_a_new_pair_at_once_agree_on_its_place() {
        let calls = Calls::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (200..240).for_each(|status| count(&calls, &Method::GET, status)));
            }
        });
        let counts = counts(&calls);
        assert_eq!(counts.len(), 40);
        assert!(counts.iter().all(|(_, count)| *count == 4), "{counts:?}");
    }
}
