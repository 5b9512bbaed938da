//! Engines that die or are cut off, gateways that restart: who notices, and for how long.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::engines::{Engines, Node};
use crate::support::client::{get, try_get};
use crate::support::steady::{Load, Steady};
use crate::support::within;

/// Calls a second, by one caller.
const RATE: u32 = 50;
/// A call that takes longer is slow: far above what the function needs on a busy machine, far below a connect time-out.
const SLOW: Duration = Duration::from_millis(150);
/// How many calls may be slow when an engine goes: as many as come in 250 ms.
const SLOW_CALLS: usize = RATE as usize / 4;

/// Three engines with one replica of a function each.
fn one_replica_on_each() -> Option<Engines> {
    let engines = Engines::three()?;
    let options = ["--replicas", "3", "--replicas-max-per-node", "1"];
    engines.service("cat", "skep/catservice", &options);
    engines.wait_for_replicas(&[0, 1, 2], "cat", 3);
    Some(engines)
}

/// Calls of the function through this engine's gateway.
fn calls(engines: &Engines, through: usize) -> Steady {
    let node = &engines.nodes[through];
    let load = Load {
        rate: RATE,
        count: u32::MAX,
        limit: Duration::from_secs(90),
        ..Load::echo(node.gateway(), "/function/cat")
    };
    Steady::start(load, node.enter())
}

/// Kills an engine while calls run through the gateway on another one.
fn an_engine_dies(victim: usize, through: usize) {
    let Some(mut engines) = one_replica_on_each() else {
        return;
    };
    let steady = calls(&engines, through);
    within(Duration::from_secs(10), "calls run", || {
        steady.made() > 2 * RATE
    });
    let killed = Instant::now();
    engines.nodes[victim].kill();
    within(Duration::from_secs(10), "its replica is left out", || {
        engines.nodes[through].replicas("cat") == 2
    });
    let made = steady.made();
    within(Duration::from_secs(30), "more calls run", || {
        steady.made() > made + 3 * RATE
    });
    let tally = steady.stop();
    let slow = tally.slow_since(killed, SLOW);
    println!("{tally}{slow} slow");
    tally.assert_failed_at_most(2);
    assert!(slow <= SLOW_CALLS, "{slow} were slow");
}

#[test]
fn an_engine_that_dies_costs_only_the_calls_that_ran_on_it() {
    an_engine_dies(2, 0);
}

#[test]
fn the_swarm_s_leader_that_dies_costs_only_the_calls_that_ran_on_it() {
    an_engine_dies(0, 2);
}

#[test]
fn a_node_that_is_cut_off_is_left_out_and_comes_back_when_it_is_healed() {
    let Some(engines) = one_replica_on_each() else {
        return;
    };
    let steady = calls(&engines, 0);
    within(Duration::from_secs(10), "calls run", || {
        steady.made() > 2 * RATE
    });
    let cut = Instant::now();
    engines.cut(2, true);
    let node = &engines.nodes[0];
    // Long before Swarm misses the node: a call that hears nothing is reason to look.
    let ejected = within(Duration::from_secs(10), "its endpoint is left out", || {
        node.replicas("cat") == 2
    });
    std::thread::sleep(Duration::from_secs(2));
    engines.cut(2, false);
    let back = within(Duration::from_secs(60), "its endpoint is back", || {
        node.replicas("cat") == 3
    });
    let tally = steady.stop();
    let slow = tally.slow_since(cut, SLOW);
    println!("{tally}{slow} slow, ejected after {ejected:?}, back after {back:?}");
    tally.assert_failed_at_most(2);
    assert!(slow <= SLOW_CALLS, "{slow} were slow");
}

#[test]
fn an_engine_that_restarts_is_read_again_at_once_and_not_more_than_before() {
    let Some(mut engines) = one_replica_on_each() else {
        return;
    };
    // On a node that stays, because a gateway goes with the engine that it runs on.
    let far = SocketAddr::from((engines.nodes[0].address, 8081));
    engines.nodes[0].start_gateway("far", far.port(), &engines.nodes[1]);
    let enter = engines.nodes[0].enter();
    let stale_seconds = |engines: &Engines| {
        let answer = engines.nodes[0].inside(|| try_get(far, "/readyz"))?;
        answer.json()["stale_seconds"]
            .as_f64()
            .filter(|_| answer.status == 200)
    };
    within(Duration::from_secs(30), "it is ready", || {
        stale_seconds(&engines) == Some(0.0)
    });
    let load = Load::echo(far, "/function/cat");
    let calls = Steady::start(
        Load {
            rate: RATE,
            count: u32::MAX,
            ..load
        },
        enter,
    );
    engines.nodes[1].kill();
    within(Duration::from_secs(15), "it says stale", || {
        stale_seconds(&engines) > Some(3.0)
    });
    engines.nodes[1].start_again();
    let listings = |engines: &Engines| {
        let page = engines.nodes[0].inside(|| get(far, "/metrics").text());
        let of = |line: &str| {
            line.strip_prefix("skep_discovery_listings_total{")?
                .rsplit(' ')
                .next()?
                .parse::<f64>()
                .ok()
        };
        page.lines().filter_map(of).sum::<f64>()
    };
    let (before, began) = (listings(&engines), Instant::now());
    let back = within(Duration::from_secs(10), "it is up to date", || {
        stale_seconds(&engines) == Some(0.0)
    });
    std::thread::sleep(Duration::from_secs(5));
    let each_second = (listings(&engines) - before) / began.elapsed().as_secs_f64();
    let tally = calls.stop();
    println!("{tally}back after {back:?}, {each_second:.1} listings a second");
    tally.assert_failed_at_most(2);
    assert!(back < Duration::from_secs(2), "{back:?}");
    assert!(each_second <= 25.0, "{each_second}");
}

/// Restarts two gateways in turn, so often each, while callers who know both go on calling.
fn restarts_fail_no_call(rounds: usize) {
    let Some(engines) = one_replica_on_each() else {
        return;
    };
    let load = Load {
        to: engines.nodes[..2].iter().map(Node::gateway).collect(),
        rate: RATE,
        count: u32::MAX,
        ..Load::echo(engines.nodes[0].gateway(), "/function/cat")
    };
    let callers = [true, false].map(|keep_alive| {
        let load = Load {
            keep_alive,
            ..load.clone()
        };
        Steady::start(load, engines.nodes[2].enter())
    });
    for node in engines.nodes[..2].iter().cycle().take(2 * rounds) {
        let enough = callers[0].made() + RATE;
        within(Duration::from_secs(10), "calls run", || {
            callers[0].made() > enough
        });
        node.docker(&["restart", "gateway"]);
        node.wait_for_gateway();
    }
    let [kept, own] = callers.map(Steady::stop);
    let tally = kept.and(own);
    println!("{tally}");
    tally.assert_failed_at_most(0);
}

#[test]
fn a_gateway_that_restarts_fails_no_call_while_another_one_serves() {
    restarts_fail_no_call(2);
}

#[test]
#[ignore = "minutes: make soak"]
fn forty_restarts_of_two_gateways_fail_no_call() {
    restarts_fail_no_call(20);
}
