//! Work within the limits of a call.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::time::Instant;

use crate::activity::Activity;
use crate::limits::{Limit, Limits};

/// Does `work` unless a limit is met before; the connection's timer sees to it that they are looked at in time.
pub(crate) async fn within<T>(
    connection: &Activity,
    limits: &Limits,
    has_whole_body: impl Fn() -> bool,
    work: impl Future<Output = T>,
) -> Result<T, Limit> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            connection.set_call_limit(None);
            return Poll::Ready(Ok(done));
        }
        let first = limits.first(has_whole_body());
        connection.set_call_limit(first.map(|(at, _)| at));
        match first {
            Some((at, limit)) if Instant::now() >= at => {
                connection.set_call_limit(None);
                Poll::Ready(Err(limit))
            }
            _ => Poll::Pending,
        }
    })
    .await
}
