//! How a worker ends: the phases that everything on it follows, and the wait for the last of them.

use tokio::sync::watch;

/// How far the end has come. A worker passes through these in order and never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything is as usual.
    Serving,
    /// Requests are answered, each with the word that it was the last on its connection.
    Leaving,
    /// Idle connections close; calls and tunnels go on.
    Finishing,
    /// Time is over: tunnels say goodbye, calls are cut.
    Over,
}

/// The end of one worker, in the hands of whoever brings it about.
#[derive(Clone, Debug)]
pub struct Drain(watch::Sender<Phase>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }
}

impl Drain {
    /// Something runs here from now on, and is waited for until its guest is dropped.
    #[must_use]
    pub fn guest(&self) -> Guest {
        Guest(self.0.subscribe())
    }

    /// The next phase begins.
    pub fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    /// Waits until nothing runs here any more.
    pub async fn empty(&self) {
        self.0.closed().await;
    }
}

/// Held by everything that a worker has to wait for.
#[derive(Debug)]
pub struct Guest(watch::Receiver<Phase>);

impl Guest {
    /// Whether this phase has begun.
    #[must_use]
    pub fn has_reached(&self, phase: Phase) -> bool {
        *self.0.borrow() >= phase
    }

    /// Waits until this phase has begun.
    pub async fn reached(&mut self, phase: Phase) {
        // Nobody is left who could begin a phase: then it is over.
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn guests_follow_the_phases_and_the_end_waits_for_the_last() {
        let drain = Drain::default();
        let mut guests = [drain.guest(), drain.guest()];
        let mut reached = |phase| guests[0].reached(phase).now_or_never().is_some();
        assert!(!reached(Phase::Leaving));
        drain.enter(Phase::Finishing);
        assert!(reached(Phase::Leaving), "it is past that");
        assert!(!reached(Phase::Over));
        let [first, second] = guests;
        drop(first);
        assert!(drain.empty().now_or_never().is_none());
        drop(second);
        assert!(drain.empty().now_or_never().is_some());
    }
}
