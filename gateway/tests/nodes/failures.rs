//! Engines that die or are cut off, gateways that restart: who notices, and for how long.

use std::time::{Duration, Instant};

use crate::engines::Engines;
use crate::support::steady::{Load, Steady};
use crate::support::within;

/// Calls a second, by one caller.
const RATE: u32 = 50;
/// A call that takes longer is slow: far above what the function needs on a busy machine, far below a connect time-out.
const SLOW: Duration = Duration::from_millis(150);
/// For how long calls may be slow when an engine goes.
const SLOW_FOR: Duration = Duration::from_millis(250);

/// Three engines with one replica of a function each.
fn one_replica_on_each() -> Option<Engines> {
    let engines = Engines::start()?;
    let options = ["--replicas", "3", "--replicas-max-per-node", "1"];
    engines.service("cat", "skep/catservice", &options);
    engines.wait_for_replicas(&[0, 1, 2], "cat", 3);
    Some(engines)
}

/// Calls of the function through the first engine's gateway.
fn calls(engines: &Engines) -> Steady {
    let node = &engines.nodes[0];
    let load = Load::echo(node.gateway(), "/function/cat");
    let limit = Duration::from_secs(90);
    Steady::start(
        Load {
            rate: RATE,
            count: 100_000,
            limit,
            ..load
        },
        node.enter(),
    )
}

#[test]
fn an_engine_that_dies_costs_only_the_calls_that_ran_on_it() {
    let Some(mut engines) = one_replica_on_each() else {
        return;
    };
    let steady = calls(&engines);
    std::thread::sleep(Duration::from_secs(2));
    let killed = Instant::now();
    engines.nodes[2].kill();
    std::thread::sleep(Duration::from_secs(5));
    let tally = steady.stop();
    println!("{tally}slow for {:?}", tally.slow_for(killed, SLOW));
    tally.assert_failed_at_most(2);
    assert!(
        tally.slow_for(killed, SLOW) <= SLOW_FOR,
        "{:?}",
        tally.slow_for(killed, SLOW)
    );
}

#[test]
fn a_node_that_is_cut_off_is_left_out_and_comes_back_when_it_is_healed() {
    let Some(engines) = one_replica_on_each() else {
        return;
    };
    let steady = calls(&engines);
    std::thread::sleep(Duration::from_secs(2));
    let cut = Instant::now();
    engines.cut(2, true);
    let node = &engines.nodes[0];
    let ejected = within(Duration::from_secs(10), "its endpoint is ejected", || {
        node.replicas("cat") == 2
    });
    std::thread::sleep(Duration::from_secs(2));
    engines.cut(2, false);
    let back = within(Duration::from_secs(20), "its endpoint is back", || {
        node.replicas("cat") == 3
    });
    let tally = steady.stop();
    println!(
        "{tally}ejected after {ejected:?}, back after {back:?}, slow for {:?}",
        tally.slow_for(cut, SLOW)
    );
    tally.assert_failed_at_most(2);
    assert!(
        tally.slow_for(cut, SLOW) <= SLOW_FOR,
        "{:?}",
        tally.slow_for(cut, SLOW)
    );
}

#[test]
fn a_gateway_that_restarts_fails_no_call_while_another_one_serves() {
    let Some(engines) = one_replica_on_each() else {
        return;
    };
    let to: Vec<_> = engines.nodes[..2]
        .iter()
        .map(|node| node.gateway())
        .collect();
    let load = Load {
        to,
        rate: RATE,
        count: 100_000,
        ..Load::echo(engines.nodes[0].gateway(), "/function/cat")
    };
    let steady = [true, false].map(|keep_alive| {
        Steady::start(
            Load {
                keep_alive,
                ..load.clone()
            },
            engines.nodes[2].enter(),
        )
    });
    for node in &engines.nodes[..2] {
        node.docker(&["restart", "gateway"]);
        node.wait_for_gateway();
    }
    for steady in steady {
        let tally = steady.stop();
        println!("{tally}");
        tally.assert_failed_at_most(0);
    }
}
