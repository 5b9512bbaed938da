//! What changed in the world: hints say when to look, listings say what is true.

pub mod local;
pub mod operate;
pub mod swarm;
pub mod usage;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::metrics::Metrics;
use crate::probe::Prober;
use crate::table::{Listing, Table, TableWriter};

/// How long a settled world may go without a listing: the repair of a lost event.
const SETTLED_PAUSE: Duration = Duration::from_secs(5);
/// The pause between listings while something changes.
const CHANGING_PAUSE: Duration = Duration::from_millis(100);
/// The same when the change does not come to an end, such as a task that cannot be placed.
const STUCK_PAUSE: Duration = Duration::from_millis(250);
/// When a change counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// The pause after a listing that failed: soon enough to be back within two seconds.
const FAILED_PAUSE: Duration = Duration::from_millis(500);
/// The least pause between two listings, whatever the hints say: at most 25 listings a second.
const LEAST_PAUSE: Duration = Duration::from_millis(40);

/// Somebody who knows which functions there are.
pub trait Provider: Send + Sync + 'static {
    /// Returns when something may have changed; hints may be early, late or too many.
    fn changed(&self) -> impl Future<Output = ()> + Send;

    /// Lists everything.
    fn list(&self) -> impl Future<Output = Result<Listing, Unlisted>> + Send;
}

/// What a caller is advised to do about a function, by its full name, in the provider's own commands.
#[derive(Clone, Copy, Debug)]
pub struct Remedies {
    /// It is scaled to zero.
    pub scaled_to_zero: fn(&str) -> String,
    /// It has no replica, and should have one.
    pub not_running: fn(&str) -> String,
    /// Its replicas run and accept no connections.
    pub not_accepting: fn(&str) -> String,
}

/// Why a listing failed: a sentence that says what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlisted(pub String);

/// How fresh the table is.
#[derive(Clone)]
pub struct Freshness(Arc<Freshly>);

struct Freshly {
    fresh: Mutex<Fresh>,
    /// When the listing that the table shows began: every change that was made before is in it.
    began: watch::Sender<Option<Instant>>,
}

impl Default for Freshness {
    fn default() -> Self {
        Self(Arc::new(Freshly {
            fresh: Mutex::default(),
            began: watch::Sender::new(None),
        }))
    }
}

#[derive(Default)]
struct Fresh {
    listed: Option<Instant>,
    trouble: Option<Unlisted>,
}

impl Freshness {
    /// How long ago the last good listing was; `None` before the first.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.lock().listed.map(|at| at.elapsed())
    }

    /// Why the latest listing failed, if it did.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.lock()
            .trouble
            .as_ref()
            .map(|unlisted| unlisted.0.clone())
    }

    /// Waits until the table shows every change that was made before now, as long as patience lasts.
    pub async fn shows_all_until_now(&self, patience: Duration) {
        let now = Instant::now();
        let mut began = self.0.began.subscribe();
        let shows = began.wait_for(|began| began.is_some_and(|began| began >= now));
        // Out of patience: the engine does not answer, or is slow. The change was made in any case.
        let _ = tokio::time::timeout(patience, shows).await;
    }

    fn published(&self, began: Instant) {
        self.record(Ok(()));
        self.0.began.send_replace(Some(began));
    }

    fn record(&self, result: Result<(), Unlisted>) {
        let mut fresh = self.lock();
        let old = fresh.trouble.take();
        match result {
            Ok(()) => {
                if old.is_some() || fresh.listed.is_none() {
                    tracing::info!("discovery: listing works");
                }
                fresh.listed = Some(Instant::now());
            }
            Err(unlisted) => {
                if old.as_ref() != Some(&unlisted) {
                    tracing::warn!("discovery: {}", unlisted.0);
                }
                fresh.trouble = Some(unlisted);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Fresh> {
        self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the loop works with.
pub struct Discovery<P> {
    /// Who knows.
    pub provider: P,
    /// Where it is published.
    pub writer: TableWriter,
    /// The same table, for its upkeep.
    pub table: Table,
    /// Who speaks to new endpoints first.
    pub prober: Prober,
    /// What `/readyz` says.
    pub freshness: Freshness,
    /// Counts of listings.
    pub metrics: Arc<Metrics>,
    /// A call just failed to connect: look now.
    pub nudge: Arc<Notify>,
}

impl<P: Provider> Discovery<P> {
    /// Lists, publishes, waits; for ever. A failed listing leaves the last table in place.
    pub async fn run(mut self) {
        let mut changing_since: Option<Instant> = None;
        let mut hinted: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let listed = self.provider.list().await;
            let took = began.elapsed();
            self.metrics.listed(took, listed.is_ok());
            let pause = match listed {
                Ok(listing) => {
                    let settled = listing.settled;
                    self.publish(listing, began);
                    if let Some(hinted) = hinted.take() {
                        self.metrics.published_after(hinted.elapsed());
                    }
                    changing_since = if settled {
                        None
                    } else {
                        changing_since.or(Some(began))
                    };
                    pause(changing_since.map(|since| since.elapsed()))
                }
                Err(unlisted) => {
                    self.freshness.record(Err(unlisted));
                    FAILED_PAUSE
                }
            };
            let rest = rest(took);
            tokio::time::sleep(rest).await;
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(rest)) => {}
                () = self.provider.changed() => hinted = Some(Instant::now()),
                () = self.nudge.notified() => {}
            }
        }
    }

    fn publish(&mut self, listing: Listing, began: Instant) {
        for endpoint in self.writer.publish(listing) {
            self.prober.watch(endpoint);
        }
        for function in self.table.snapshot().functions() {
            for endpoint in &function.endpoints {
                endpoint.sweep();
            }
        }
        self.freshness.published(began);
    }
}

/// How long to wait before the next listing, given for how long things have been changing. Pure.
fn pause(changing_for: Option<Duration>) -> Duration {
    match changing_for {
        None => SETTLED_PAUSE,
        Some(long) if long > STUCK_AFTER => STUCK_PAUSE,
        Some(_) => CHANGING_PAUSE,
    }
}

/// How long to let the provider rest after a listing that took so long, though hints wait: while a thousand things change at
/// once, no more than about half of its time goes to listings (docs/decisions/0014). Pure.
fn rest(took: Duration) -> Duration {
    took.clamp(LEAST_PAUSE, CHANGING_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_as_long_as_a_listing_took_but_never_so_long_that_a_change_comes_late() {
        let rested = [1, 70, 5000].map(|ms| rest(Duration::from_millis(ms)).as_millis());
        assert_eq!(rested, [40, 70, 100]);
    }

    #[test]
    fn looks_often_while_things_change_and_never_slower_than_promised() {
        assert_eq!(pause(None), Duration::from_secs(5));
        assert_eq!(
            pause(Some(Duration::from_secs(1))),
            Duration::from_millis(100)
        );
        assert_eq!(
            pause(Some(Duration::from_secs(3600))),
            Duration::from_millis(250)
        );
    }
}
