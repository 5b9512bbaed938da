//! How a worker ends: the phases that everything on it follows, and the wait for the last of them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::sync::watch;
use tokio::task::unconstrained;

use crate::asker::Asker;

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
        let since = self.0.clone();
        // Whatever else the task has done in this turn: a wait that puts it off has not noted whom to wake.
        let mut reached = pin!(unconstrained(self.0.wait_for(|now| *now >= phase)));
        let mut asker = Asker::default();
        poll_fn(|cx| {
            if asker.is(cx) && matches!(since.has_changed(), Ok(false)) {
                return Poll::Pending;
            }
            // Nobody is left who could begin a phase: then it is over.
            reached.as_mut().poll(cx).map(drop)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::task::{consume_budget, coop::has_budget_remaining};

    use super::*;

    #[tokio::test]
    async fn a_guest_hears_of_a_phase_whatever_its_task_has_done_in_a_turn() {
        let drain = Drain::default();
        let mut guest = drain.guest();
        let guest = tokio::spawn(async move {
            let mut reached = pin!(guest.reached(Phase::Finishing));
            let mut turns = 0;
            poll_fn(|cx| {
                while has_budget_remaining() {
                    let _ = pin!(consume_budget()).poll(cx);
                }
                turns += 1;
                assert!(turns < 100, "it puts it off");
                reached.as_mut().poll(cx)
            })
            .await;
        });
        for phase in [Phase::Leaving, Phase::Finishing] {
            tokio::task::yield_now().await;
            assert!(!guest.is_finished(), "before {phase:?}");
            drain.enter(phase);
        }
        guest.await.unwrap();
    }

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
