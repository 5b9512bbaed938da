//! The gateway on a real Swarm: the machine's Docker engine, images of ours, services of our own making.
//!
//! Without an engine each test says so in one line and passes; with `CI` set it fails. Names, networks and ports are the
//! tests' own; nothing that was there before is touched.
#![allow(
    clippy::unwrap_used,
    reason = "a test stops where its world does not hold"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod client;
mod discovery;
mod doctor;
mod documents;
mod door;
mod functions;
mod input;
mod journey;
mod keys;
mod logs;
mod names;
mod outage;
mod paused;
mod registry;
mod routes;
mod secrets;
mod stack;
mod tasks;
mod transcript;
mod updates;
mod usage;
mod world;
mod writers;
