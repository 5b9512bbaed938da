//! How many calls may run side by side, and how many more may wait for room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets so many calls in; as many more may wait, in the order in which they came.
#[derive(Debug)]
pub struct Turnstile {
    most: usize,
    room: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Room for one call, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _room: OwnedSemaphorePermit,
}

impl Turnstile {
    /// A turnstile for so many calls.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            room: Arc::new(Semaphore::new(most)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// How many calls may run.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// Room, if there is some at once.
    #[must_use]
    pub fn enter_now(&self) -> Option<Place> {
        let room = self.room.clone().try_acquire_owned().ok()?;
        Some(Place { _room: room })
    }

    /// Room, at once or when another call ends; `None` if too many wait already, or patience is over.
    pub async fn enter(&self, patience: Duration) -> Option<Place> {
        if let Some(place) = self.enter_now() {
            return Some(place);
        }
        let _waiting = Waiting::among(&self.waiting, self.most)?;
        let room = tokio::time::timeout(patience, self.room.clone().acquire_owned());
        let room = room.await.ok()?.ok()?;
        Some(Place { _room: room })
    }
}

/// One of those who wait; counted until it has room, or gives up, or its caller goes away.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_run_as_many_wait_and_the_rest_is_sent_away() {
        let turnstile = Turnstile::new(2);
        let patience = Duration::from_secs(1);
        let enter = || turnstile.enter(patience);
        let running = [enter().await.unwrap(), enter().await.unwrap()];
        let mut waiting = [Box::pin(enter()), Box::pin(enter())];
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(enter().await.is_none(), "at once");
        let [first, mut second] = waiting;
        drop(first);
        let third = Box::pin(enter());
        drop(running);
        assert!(second.as_mut().now_or_never().flatten().is_some());
        assert!(third.await.is_some(), "who gave up made room in the queue");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_longer_than_patience() {
        let turnstile = Turnstile::new(1);
        let _running = turnstile.enter(Duration::ZERO).await.unwrap();
        assert!(turnstile.enter(Duration::from_secs(1)).await.is_none());
    }
}
