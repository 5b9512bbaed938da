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

/// New functions come and go among a thousand; then nothing changes for a while.
fn among_a_thousand(new_ones: usize, may_be_late: usize, quiet: Duration) {
    let Some(engines) = asleep(FUNCTIONS) else {
        return;
    };
    let node = &engines.nodes[0];
    let delays: Vec<_> = (0..new_ones)
        .map(|at| comes(node, &format!("new{at}")))
        .collect();
    println!(
        "among {FUNCTIONS}, a new function answered {delays:?} after its task was seen running"
    );
    // The last task that was removed takes a while to go.
    within(Duration::from_secs(30), "no task is left", || {
        node.api("GET", "/tasks", "").1.trim() == "[]"
    });
    let share = engine_share(node, quiet);
    let resident = node.metric("process_resident_memory_bytes");
    println!(
        "the engine uses {:.1} % of a processor, the gateway {:.1} MB",
        share * 100.0,
        resident / 1e6
    );
    let late = delays.iter().filter(|delay| **delay > PROMPT).count();
    assert!(late <= may_be_late, "{delays:?}");
    assert!(share < QUIET_SHARE, "{share}");
    assert!(resident <= RESIDENT, "{resident}");
}

#[test]
fn among_a_thousand_functions_a_new_one_is_called_at_once_and_quiet_costs_little() {
    // Two processors that are busy with other tests can delay anybody once.
    among_a_thousand(3, 1, Duration::from_secs(10));
}

#[test]
#[ignore = "minutes: make soak"]
fn among_a_thousand_functions_each_of_twenty_new_ones_is_called_at_once() {
    among_a_thousand(20, 0, Duration::from_secs(60));
}
