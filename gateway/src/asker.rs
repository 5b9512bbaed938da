//! The task that was promised to be woken.

use std::task::{Context, Waker};

/// Who asked a future last. As long as it is the same task and the future has not woken it, it needs not be asked again: that takes
/// locks, and a connection's task is woken by what comes on it far more often than by a timer or the end.
#[derive(Debug, Default)]
pub(crate) struct Asker(Option<Waker>);

impl Asker {
    /// Whether it asked last; it has from now on.
    pub(crate) fn is(&mut self, cx: &Context<'_>) -> bool {
        let waker = cx.waker();
        let is_same = self.0.as_ref().is_some_and(|last| last.will_wake(waker));
        if !is_same {
            self.0 = Some(waker.clone());
        }
        is_same
    }
}
