//! The gateway from outside, over the local provider: real watchdogs, real child processes, real sockets.
#![allow(
    clippy::unwrap_used,
    reason = "a test stops where its world does not hold"
)]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod client;
mod commands;
mod early;
mod failures;
mod forwarding;
mod hostile;
mod http2;
mod limits;
mod login;
mod lookup;
mod management;
mod metrics;
mod openapi;
mod processes;
mod restarts;
mod retries;
mod samples;
mod slow;
mod smuggling;
mod soak;
mod structure;
mod upgrades;
