//! A timer that is set far more often than it rings.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::asker::Asker;

/// Rings when something has taken too long. Setting it later costs nothing: the timer is left where it stands, and moved on
/// when it rings too soon, so that a thousand calls in a row on one connection set it but once.
#[derive(Default)]
pub struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    asker: Asker,
}

impl Alarm {
    /// Whether the time has come. The first poll makes the timer, which takes a runtime.
    pub fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        if self.asker.is(cx) && !timer.is_elapsed() {
            return Poll::Pending;
        }
        // Whatever else the task has done in this turn: a timer that puts it off has not noted whom to wake.
        while pin!(unconstrained(timer.as_mut())).poll(cx).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::task::{consume_budget, coop::has_budget_remaining};
    use tokio::time::timeout;

    use super::*;

    async fn ring(alarm: &mut Alarm, due: Instant) -> Duration {
        let began = Instant::now();
        poll_fn(|cx| alarm.poll(cx, due)).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn rings_for_a_task_that_has_done_all_it_may_in_a_turn() {
        let mut alarm = Alarm::default();
        let due = Instant::now() + Duration::from_millis(50);
        let rings = poll_fn(|cx| {
            while has_budget_remaining() {
                let _ = pin!(consume_budget()).poll(cx);
            }
            alarm.poll(cx, due)
        });
        let rings = timeout(Duration::from_secs(1), rings).await;
        rings.expect("it has noted whom to wake");
        assert!(due <= Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn rings_when_it_is_due_whatever_it_was_set_to_before() {
        let mut alarm = Alarm::default();
        for millis in [50, 200, 10, 10, 300] {
            let due = Instant::now() + Duration::from_millis(millis);
            let took = ring(&mut alarm, due).await;
            assert!(took.as_millis().abs_diff(millis.into()) <= 1, "{took:?}");
        }
        let mut set = |millis| {
            let due = Instant::now() + Duration::from_millis(millis);
            futures_util::FutureExt::now_or_never(ring(&mut alarm, due))
        };
        assert!(set(100).is_none() && set(5000).is_none() && set(40).is_none());
        let late = ring(&mut alarm, Instant::now() + Duration::from_millis(70)).await;
        assert!((69..=71).contains(&late.as_millis()), "{late:?}");
    }
}
