//! A Swarm with a thousand functions: what it costs to know them all, and how soon one more is known.

use std::time::{Duration, Instant};

use crate::engines::{Engines, Node};
use crate::support::client::get;
use crate::support::within;

const FUNCTIONS: usize = 1000;
/// What Docker does may not reach callers later than this.
const PROMPT: Duration = Duration::from_millis(250);
/// The share of a processor that the engine may use when nothing changes.
const QUIET_SHARE: f64 = 0.05;
/// What the gateway may keep in memory.
const RESIDENT: f64 = 30e6;

/// Creates a service through the engine's API: without a virtual address, which the network would not have for all.
fn create(node: &Node, name: &str, replicas: usize) {
    let spec = format!(
        r#"{{"Name":"{name}","Labels":{{"com.openfaas.function":"{name}"}},"EndpointSpec":{{"Mode":"dnsrr"}},
        "Mode":{{"Replicated":{{"Replicas":{replicas}}}}},"TaskTemplate":{{"Networks":[{{"Target":"functions"}}],
        "ContainerSpec":{{"Image":"skep/catservice","Env":["fprocess=cat","exec_timeout=10s"]}}}}}}"#
    );
    let (status, told) = node.api("POST", "/services/create", &spec);
    assert_eq!(status, 201, "{told}");
}

/// A Swarm of so many functions that sleep.
fn asleep(count: usize) -> Option<Engines> {
    let engines = Engines::one()?;
    let node = &engines.nodes[0];
    std::thread::scope(|scope| {
        for part in 0..2 {
            scope.spawn(move || {
                (part..count)
                    .step_by(2)
                    .for_each(|at| create(node, &format!("sleeper{at}"), 0))
            });
        }
    });
    within(Duration::from_secs(30), "all are known", || {
        node.metric("skep_functions") == count as f64
    });
    Some(engines)
}

/// How long after the task of a new function ran it could be called: from the moment that the engine's list said so.
fn comes(node: &Node, name: &str) -> Duration {
    let tasks = format!(r#"/tasks?filters={{"service":["{name}"]}}"#)
        .replace('"', "%22")
        .replace('{', "%7B")
        .replace('}', "%7D");
    let path = format!("/function/{name}");
    let answered = std::thread::scope(|scope| {
        let answered = scope.spawn(|| {
            node.inside(|| {
                within(Duration::from_secs(60), "it answers", || {
                    get(node.gateway(), &path).status == 200
                });
                Instant::now()
            })
        });
        create(node, name, 1);
        within(Duration::from_secs(60), "its task runs", || {
            node.api("GET", &tasks, "")
                .1
                .contains(r#""State":"running","Message":"started""#)
        });
        let runs = Instant::now();
        answered.join().unwrap().saturating_duration_since(runs)
    });
    let (status, told) = node.api("DELETE", &format!("/services/{name}"), "");
    assert_eq!(status, 200, "{told}");
    answered
}

/// The share of a processor that the engine uses.
fn engine_share(node: &Node, long: Duration) -> f64 {
    let (before, began) = (node.engine_ticks(), Instant::now());
    std::thread::sleep(long);
    (node.engine_ticks() - before) as f64 / 100.0 / began.elapsed().as_secs_f64()
}

fn among_a_thousand(long: Duration, new_ones: usize) {
    let Some(engines) = asleep(FUNCTIONS) else {
        return;
    };
    let node = &engines.nodes[0];
    let delays: Vec<_> = (0..new_ones)
        .map(|at| comes(node, &format!("new{at}")))
        .collect();
    println!("among {FUNCTIONS}, after its task ran a function answered within {delays:?}");
    // Docker keeps the last task of what was removed for a moment.
    std::thread::sleep(Duration::from_secs(5));
    let with = engine_share(node, long);
    let resident = node.metric("process_resident_memory_bytes");
    node.docker(&["stop", "gateway"]);
    let without = engine_share(node, long);
    println!(
        "the engine uses {:.1} % of a processor, without a gateway {:.1} %",
        with * 100.0,
        without * 100.0
    );
    println!("the gateway keeps {:.1} MB", resident / 1e6);
    // Two busy processors can delay anybody once.
    let late = delays.iter().filter(|delay| **delay > PROMPT).count();
    assert!(late <= new_ones / 3, "{delays:?}");
    assert!(with < QUIET_SHARE, "{with}");
    assert!(resident <= RESIDENT, "{resident}");
}

#[test]
fn among_a_thousand_functions_a_new_one_is_called_at_once_and_quiet_costs_little() {
    among_a_thousand(Duration::from_secs(15), 3);
}

#[test]
#[ignore = "minutes: make soak"]
fn among_a_thousand_functions_each_of_twenty_new_ones_is_called_at_once() {
    among_a_thousand(Duration::from_secs(60), 20);
}
