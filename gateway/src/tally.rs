//! How often functions were called, over restarts. Pure; `counts.rs` keeps it.
//!
//! What is kept of a function is a sum to which every gateway adds the calls that it has seen since it last did. Nobody writes
//! a number that another one has counted, so that two gateways at once, as during a hand-over, count no call twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// More functions than this are not kept.
const MOST: usize = 10_000;

/// The calls of each function, as they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    functions: BTreeMap<String, Count>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    calls: u64,
    /// When the function was made, if that is known: one that is made again is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
}

/// What a gateway has to add to a function's count.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'a> {
    /// Its full name.
    pub name: &'a str,
    /// When it was made, if that is known.
    pub created_at: Option<&'a str>,
    /// Calls that were not added yet.
    pub calls: u64,
}

impl Counted {
    /// The calls of a function, if this one is meant and not another one that had its name.
    #[must_use]
    pub fn calls(&self, name: &str, created_at: Option<&str>) -> Option<u64> {
        let count = self.functions.get(name)?;
        (count.created_at.as_deref() == created_at).then_some(count.calls)
    }

    /// The same, and forgets it.
    pub(crate) fn take(&mut self, name: &str, created_at: Option<&str>) -> u64 {
        let calls = self.calls(name, created_at).unwrap_or(0);
        self.functions.remove(name);
        calls
    }

    /// Whether there are functions in it that are not among these.
    #[must_use]
    pub fn has_others_than(&self, present: &[Addition<'_>]) -> bool {
        let names: BTreeSet<_> = present.iter().map(|one| one.name).collect();
        let mut known = self.functions.keys();
        known.any(|name| !names.contains(name.as_str()))
    }

    /// Adds to the functions that there are, and forgets all others.
    pub fn add(&mut self, present: &[Addition<'_>]) {
        let names: BTreeSet<_> = present.iter().map(|one| one.name).collect();
        self.functions
            .retain(|name, _| names.contains(name.as_str()));
        for one in present {
            let before = self.calls(one.name, one.created_at).unwrap_or(0);
            let is_new = !self.functions.contains_key(one.name);
            if is_new && (one.calls == 0 || self.functions.len() >= MOST) {
                continue;
            }
            let count = Count {
                calls: before.saturating_add(one.calls),
                created_at: one.created_at.map(str::to_owned),
            };
            self.functions.insert(one.name.to_owned(), count);
        }
    }
}

/// One function's part: what this process has counted and not added yet, and what the sum was.
#[derive(Debug)]
pub struct Tally {
    /// Of the calls that this process has counted, those that are in the sum.
    added: AtomicU64,
    /// The sum without those. May be less than nothing, as far as that goes around.
    others: AtomicU64,
}

impl Tally {
    /// The function begins with so many calls of before; `counted` is what this process has counted under its name until now.
    #[must_use]
    pub fn new(before: u64, counted: u64) -> Self {
        Self {
            added: AtomicU64::new(counted),
            others: AtomicU64::new(before.wrapping_sub(counted)),
        }
    }

    /// All its calls, where this process has counted so many.
    #[must_use]
    pub fn calls(&self, counted: u64) -> u64 {
        counted.wrapping_add(self.others.load(Ordering::Relaxed))
    }

    /// How many of them are not in the sum yet.
    #[must_use]
    pub fn to_add(&self, counted: u64) -> u64 {
        counted.saturating_sub(self.added.load(Ordering::Relaxed))
    }

    /// So many were added, and that is the sum now.
    pub fn added(&self, calls: u64, sum: u64) {
        let added = self.added.fetch_add(calls, Ordering::Relaxed) + calls;
        self.others
            .store(sum.wrapping_sub(added), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addition(name: &str, calls: u64) -> Addition<'_> {
        Addition {
            name,
            created_at: Some("monday"),
            calls,
        }
    }

    #[test]
    fn two_gateways_count_no_call_twice() {
        let mut kept = Counted::default();
        kept.add(&[addition("cat", 10)]);
        let before = kept.calls("cat", Some("monday")).unwrap();
        let (old, new) = (Tally::new(0, 0), Tally::new(before, 0));
        old.added(10, before);
        // The old one finishes what it has, while the new one begins.
        let (by_old, by_new) = (13, 2);
        assert_eq!((old.calls(by_old), new.calls(by_new)), (13, 12));
        for (tally, counted) in [(&old, by_old), (&new, by_new), (&new, by_new)] {
            let calls = tally.to_add(counted);
            kept.add(&[addition("cat", calls)]);
            tally.added(calls, kept.calls("cat", Some("monday")).unwrap());
        }
        assert_eq!(kept.calls("cat", Some("monday")), Some(15));
        assert_eq!((new.calls(by_new), new.calls(by_new + 1)), (15, 16));
    }

    #[test]
    fn a_function_that_is_made_again_begins_at_nothing() {
        let mut kept = Counted::default();
        kept.add(&[addition("cat", 10), addition("dog", 1)]);
        assert_eq!(kept.calls("cat", Some("tuesday")), None);
        assert_eq!(kept.clone().take("cat", Some("tuesday")), 0);
        let again = Addition {
            created_at: Some("tuesday"),
            ..addition("cat", 2)
        };
        assert!(kept.has_others_than(&[again]));
        kept.add(&[again]);
        assert_eq!(kept.calls("cat", Some("tuesday")), Some(2));
        assert_eq!(kept.calls("dog", Some("monday")), None, "it is gone");
        // In one process: ten calls under the name before, and none since.
        assert_eq!(Tally::new(0, 10).calls(10), 0);
        assert_eq!(Tally::new(0, 10).to_add(12), 2);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let names: Vec<_> = (0..=MOST).map(|number| number.to_string()).collect();
        let all: Vec<_> = names.iter().map(|name| addition(name, 1)).collect();
        let mut kept = Counted::default();
        kept.add(&all);
        kept.add(&all);
        assert_eq!(kept.functions.len(), MOST);
        assert!(kept.functions.values().all(|count| count.calls == 2));
    }
}
