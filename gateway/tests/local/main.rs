//! The gateway from outside, over the local provider: real watchdogs, real child processes, real sockets.
#![allow(
    clippy::unwrap_used,
    reason = "a test stops where its world does not hold"
)]

#[path = "../support/mod.rs"]
mod support;

mod abandoned;
mod calls;
mod certificates;
mod client;
mod commands;
mod conformance;
mod connections;
mod connects;
mod counts;
mod cut_off;
mod differential;
mod early;
mod failures;
mod floods;
mod forwarding;
mod handover;
mod hostile;
mod http2;
mod https;
mod keys;
mod large;
mod limits;
mod locked;
mod login;
mod lookup;
mod management;
mod metrics;
mod openapi;
mod operators;
mod paused;
mod ports;
mod processes;
mod proxies;
mod proxy_protocol;
mod readiness;
mod restarts;
mod retries;
mod routes;
mod samples;
mod slow;
mod smuggling;
mod soak;
mod stackfiles;
mod startup;
mod structure;
mod targets;
mod tls;
mod trailers;
mod upgrades;
mod usage;
mod waits;
