//! Logs of a function whose replicas are on several nodes, one of which is gone.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engines::{Engines, Node};
use crate::support::client::{get, post};
use crate::support::within;

/// How long an answer may take: ten seconds without a line, and what a busy machine adds.
const DEADLINE: Duration = Duration::from_secs(15);
const WORDS: &str = "words of the test\n";
const LOGS: &str = "/system/logs?name=cat";

/// What a node's gateway tells of the function's logs: lines of its replicas, and words of the gateway's own.
fn logs(node: &Node) -> (Vec<Value>, Vec<String>) {
    let began = Instant::now();
    let answer = node.inside(|| get(node.gateway(), LOGS));
    let took = began.elapsed();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.complete, "a clean end");
    assert!(took < DEADLINE, "{took:?}");
    let text = answer.text();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (own, lines): (Vec<Value>, Vec<Value>) = lines.partition(|line| line["instance"] == "");
    let own = own
        .iter()
        .map(|line| line["text"].as_str().unwrap().to_owned());
    println!("{} lines after {took:?}", lines.len());
    (lines, own.collect())
}

/// How many replicas wrote these lines.
fn writers(lines: &[Value]) -> usize {
    let writers = lines.iter().map(|line| line["instance"].as_str().unwrap());
    writers.collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn logs_of_the_nodes_that_are_left_are_told_and_that_some_are_missing() {
    let Some(mut engines) = Engines::three() else {
        return;
    };
    let options = [
        "--replicas",
        "3",
        "--replicas-max-per-node",
        "1",
        "--env",
        "write_debug=true",
    ];
    engines.service("cat", "skep/catservice", &options);
    engines.wait_for_replicas(&[0, 1, 2], "cat", 3);
    within(Duration::from_secs(60), "all three have written", || {
        let node = &engines.nodes[0];
        node.inside(|| post(node.gateway(), "/function/cat", WORDS));
        let (mut lines, own) = logs(node);
        lines.retain(|line| line["text"].as_str().unwrap().contains(WORDS.trim_end()));
        writers(&lines) == 3 && own.is_empty()
    });
    engines.cut(2, true);
    let incomplete = |node: &Node| {
        let (lines, own) = logs(node);
        assert_eq!(writers(&lines), 2, "those that are left");
        assert!(
            own.len() == 1 && own[0].contains("incomplete"),
            "and that others are missing: {own:?}"
        );
    };
    // At once, while Swarm still waits for the node to answer; as soon as its connections are gone; and after Swarm gave it up.
    incomplete(&engines.nodes[0]);
    engines.nodes[2].kill();
    incomplete(&engines.nodes[1]);
    let node = &engines.nodes[0];
    within(Duration::from_secs(60), "Swarm misses the node", || {
        node.docker(&["node", "ls", "--format", "{{.Status}}"])
            .contains("Down")
    });
    incomplete(node);
    let one = format!("{LOGS}&tail=3");
    let last = node.inside(|| get(node.gateway(), &one)).text();
    assert!(last.contains(WORDS.trim_end()), "{last}");
}
