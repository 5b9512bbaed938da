//! Replicas that are paused: their kernel takes connections and bytes for them, and nothing answers.

use std::time::{Duration, Instant};

use crate::support::client::{get, post};
use crate::support::eventually;
use crate::support::gateway::{Gateway, children, signal};
use crate::support::steady::{Load, Steady};

/// A process that stands still until its holder goes.
struct Paused(u32);

impl Paused {
    fn new(pid: u32) -> Self {
        signal(pid, "STOP");
        Self(pid)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

fn states(gateway: &Gateway) -> Vec<String> {
    let told = get(gateway.address, "/system/function/cat").json();
    let endpoints = told["endpoints"].as_array().unwrap();
    let states = endpoints
        .iter()
        .map(|one| one["state"].as_str().unwrap().to_owned());
    states.collect()
}

fn silent(gateway: &Gateway) -> f64 {
    gateway.metric("skep_endpoint_events_total{event=\"silent\",function_name=\"cat\"}")
}

/// Two replicas, both known to be watchdogs, because both have answered.
fn two_replicas(fprocess: &str) -> Gateway {
    let entry =
        format!("  cat:\n    fprocess: {fprocess}\n    labels:\n      com.openfaas.scale.min: 2");
    let gateway = Gateway::of(&entry);
    eventually("both take calls", || states(&gateway) == ["ready", "ready"]);
    for _ in 0..20 {
        assert_eq!(post(gateway.address, "/function/cat", "x").status, 200);
    }
    gateway
}

#[test]
fn calls_go_on_without_a_replica_that_is_paused_and_only_those_on_it_wait() {
    let gateway = two_replicas("cat");
    let load = Load {
        rate: 50,
        count: u32::MAX,
        ..Load::echo(gateway.address, "/function/cat")
    };
    let calls = Steady::start(load, || ());
    let paused = Paused::new(children(gateway.pid())[0]);
    eventually("it is left out", || {
        let mut now = states(&gateway);
        now.sort();
        now == ["ejected", "ready"]
    });
    let without = Instant::now();
    let made = calls.made();
    eventually("a hundred more calls were made", || {
        calls.made() >= made + 100
    });
    gateway.logs("says nothing");
    drop(paused);
    eventually("it takes calls again", || {
        states(&gateway) == ["ready", "ready"]
    });
    let tally = calls.stop();
    println!("{tally}");
    tally.assert_failed_at_most(0);
    // Had it still been called, those calls would have waited until it went on.
    let slow = tally.slow_since(without, Duration::from_secs(1));
    assert_eq!(slow, 0, "calls that began when it was left out:\n{tally}");
}

#[test]
fn a_replica_that_is_slow_or_stands_still_for_a_moment_is_not_left_out() {
    let gateway = two_replicas("sh -c 'sleep 0.8; cat'");
    let call = || {
        let address = gateway.address;
        std::thread::spawn(move || post(address, "/function/cat", "x").status)
    };
    let slow: Vec<_> = (0..6).map(|_| call()).collect();
    assert!(slow.into_iter().all(|call| call.join().unwrap() == 200));
    assert_eq!(silent(&gateway), 0.0, "slow");

    let began = Instant::now();
    let paused: Vec<_> = children(gateway.pid())
        .into_iter()
        .map(Paused::new)
        .collect();
    let calls: Vec<_> = (0..6).map(|_| call()).collect();
    // Longer than the first question waits, and shorter than the second.
    std::thread::sleep(Duration::from_millis(800));
    drop(paused);
    let took = began.elapsed();
    assert!(calls.into_iter().all(|call| call.join().unwrap() == 200));
    assert!(
        silent(&gateway) == 0.0 || took > Duration::from_millis(1200),
        "after {took:?}"
    );
}
