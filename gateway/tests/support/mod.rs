//! What the suites share: a gateway to start, a client that sends any bytes, a wait for a condition.
#![allow(
    clippy::unwrap_used,
    reason = "a test stops where its world does not hold"
)]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each suite uses its part of the support"
)]

pub mod authority;
pub mod client;
pub mod crowd;
pub mod frames;
pub mod gateway;
pub mod steady;
pub mod upstream;

use std::time::{Duration, Instant};

/// Waits until `holds`, at most ten seconds; then says what was waited for.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    within(Duration::from_secs(10), what, &mut holds);
}

/// Waits until `holds`, at most so long. Returns how long it took.
pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}
