//! Functions whose replicas are on several nodes.

use std::collections::BTreeSet;

use crate::engines::Engines;
use crate::support::client::get;
use crate::support::steady::{Load, Steady};

#[test]
fn every_gateway_reaches_the_replicas_of_all_nodes() {
    let Some(engines) = Engines::three() else {
        return;
    };
    engines.service("node", "skep/nodeinfo", &["--mode", "global"]);
    engines.wait_for_replicas(&[0, 1, 2], "node", 3);
    for node in &engines.nodes {
        let hosts: BTreeSet<String> = node.inside(|| {
            let calls = (0..60).map(|_| get(node.gateway(), "/function/node"));
            let hosts = calls.map(|answer| {
                assert_eq!(answer.status, 200, "{}", answer.text());
                answer.text().lines().next().unwrap().to_owned()
            });
            hosts.collect()
        });
        assert_eq!(hosts.len(), 3, "by the gateway on {}: {hosts:?}", node.name);
    }
}

#[test]
fn an_update_across_nodes_fails_no_call_through_any_gateway() {
    let Some(engines) = Engines::three() else {
        return;
    };
    let options = [
        "--replicas",
        "3",
        "--update-order",
        "start-first",
        "--update-monitor",
        "1s",
    ];
    engines.service("cat", "skep/catservice", &options);
    engines.wait_for_replicas(&[0, 1, 2], "cat", 3);
    let steady = engines.nodes.iter().map(|node| {
        let load = Load::echo(node.gateway(), "/function/cat");
        Steady::start(
            Load {
                rate: 30,
                count: 100_000,
                ..load
            },
            node.enter(),
        )
    });
    let steady: Vec<_> = steady.collect();
    for order in ["start-first", "stop-first"] {
        let update = [
            "service",
            "update",
            "--force",
            "--no-resolve-image",
            "--update-order",
            order,
            "cat",
        ];
        engines.nodes[0].docker(&update);
    }
    for steady in steady {
        let tally = steady.stop();
        println!("{tally}");
        tally.assert_failed_at_most(0);
    }
}
