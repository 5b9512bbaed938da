//! The gateway on a Swarm of three real engines, which the tests start, hurt and remove: functions on several nodes, engines that
//! die or are cut off, updates across nodes, several gateways.
//!
//! Needs root, dockerd, and the machine's engine with the project's images. Without them each test says so in one line and
//! passes; with `CI` set it fails.
#![allow(
    clippy::unwrap_used,
    reason = "a test stops where its world does not hold"
)]

#[path = "../support/mod.rs"]
mod support;

mod engines;
mod failures;
mod logs;
mod many;
mod spread;
