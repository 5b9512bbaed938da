//! Counts of calls, kept: read at the start, added to while the gateway runs and at its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::state::{Document, State};
use crate::table::Table;
use crate::tally::{Addition, Counted};

const VERSION: u32 = 1;

/// The counts that outlive the gateway.
pub struct Counts {
    document: Document<Counted>,
    /// Only one at a time adds what is to be added.
    turn: Mutex<()>,
    is_failing: AtomicBool,
}

impl Counts {
    /// The counts as they were left.
    #[must_use]
    pub fn open(state: &State) -> Self {
        Self {
            document: state.document("counts", VERSION),
            turn: Mutex::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    /// What was counted before this process.
    #[must_use]
    pub fn before(&self) -> Counted {
        self.document.value()
    }

    /// Adds what was counted since the last time, and learns what others have. Blocks.
    pub fn save(&self, table: &Table) {
        if !self.document.is_kept() || !table.is_published() {
            return;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let others_added = self.document.refreshed().is_some();
        let snapshot = table.snapshot();
        let functions: Vec<_> = snapshot.functions().collect();
        let additions: Vec<_> = functions
            .iter()
            .map(|function| Addition {
                name: function.deployment.name.as_str(),
                created_at: function.deployment.spec.created_at.as_deref(),
                calls: function.tally.to_add(function.metrics.calls()),
            })
            .collect();
        let is_news = others_added
            || additions.iter().any(|one| one.calls > 0)
            || self.document.value().has_others_than(&additions);
        if !is_news {
            return;
        }
        let saved = self.document.change(|counted| counted.add(&additions));
        let failed = saved.as_ref().err();
        if self.is_failing.swap(failed.is_some(), Ordering::Relaxed) != failed.is_some() {
            match failed {
                Some(error) => tracing::warn!(
                    "counts of calls could not be kept, and are added when they can be: {error}"
                ),
                None => tracing::info!("counts of calls are kept again"),
            }
        }
        let Ok((counted, ())) = saved else { return };
        for (function, one) in functions.iter().zip(&additions) {
            if let Some(sum) = counted.calls(one.name, one.created_at) {
                function.tally.added(one.calls, sum);
            }
        }
    }
}
