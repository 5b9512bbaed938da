//! The functions network: is it there, does it span the nodes, and how many addresses has it left?

use std::collections::BTreeSet;

use hyper::StatusCode;
use serde_json::Value;

use super::Finding;
use crate::discovery::swarm::engine::{Engine, EngineError};

/// Fewer free addresses than this are few.
const FEW: u64 = 20;
/// The states of tasks that have given their addresses back.
const ENDED: [&str; 6] = [
    "complete", "failed", "shutdown", "rejected", "orphaned", "remove",
];

pub(super) async fn look(
    engine: &Engine,
    name: &str,
    services: &[Value],
    tasks: &[Value],
) -> Finding {
    let network: Value = match engine.get(&format!("/networks/{name}")).await {
        Ok(network) => network,
        Err(error) => return missing(name, &error),
    };
    found(name, &network, services, tasks)
}

fn missing(name: &str, error: &EngineError) -> Finding {
    match error {
        EngineError::Says(StatusCode::NOT_FOUND, _) => Finding::bad(
            "network",
            format!("there is no network '{name}'"),
            format!("docker network create --driver overlay --attachable {name}"),
        ),
        error => Finding::bad(
            "network",
            format!("'{name}': {error}"),
            "see the engine's log",
        ),
    }
}

fn found(name: &str, network: &Value, services: &[Value], tasks: &[Value]) -> Finding {
    if network["Driver"] != "overlay" {
        let advice = "functions need one that spans the nodes: docker network create --driver overlay --attachable";
        let found = format!("'{name}' is of the driver {}", network["Driver"]);
        return Finding::bad("network", found, advice);
    }
    let configs = network["IPAM"]["Config"].as_array().into_iter().flatten();
    let subnets: Vec<_> = configs
        .filter_map(|config| config["Subnet"].as_str())
        .collect();
    let room = subnets
        .iter()
        .filter_map(|subnet| addresses(subnet))
        .fold(0_u64, u64::saturating_add);
    let free = room.saturating_sub(used(network, services, tasks));
    let found = format!(
        "'{name}' has about {free} of {room} addresses left in {}",
        subnets.join(", ")
    );
    let advice = format!(
        "each replica takes one, and an update one more: stop what is not needed, or move to a larger network, which cannot grow later: docker network create --driver overlay --attachable --subnet 10.64.0.0/16 {name}-large"
    );
    match free {
        0 => Finding::bad("network", found, advice),
        few if few < FEW => Finding::fair("network", found, advice),
        _ => Finding::good("network", found),
    }
}

/// How many addresses somebody has: tasks, virtual addresses of services, containers of this node, and one more on each other node.
fn used(network: &Value, services: &[Value], tasks: &[Value]) -> u64 {
    let id = &network["Id"];
    let live = tasks.iter().filter(|task| {
        let state = task["Status"]["State"].as_str();
        !state.is_some_and(|state| ENDED.contains(&state))
    });
    let of_tasks = live
        .filter_map(|task| task["NetworksAttachments"].as_array())
        .flatten()
        .filter(|attachment| attachment["Network"]["ID"] == *id)
        .filter_map(|attachment| attachment["Addresses"].as_array())
        .flatten();
    let of_services = services
        .iter()
        .filter_map(|service| service["Endpoint"]["VirtualIPs"].as_array())
        .flatten()
        .filter(|address| address["NetworkID"] == *id)
        .map(|address| &address["Addr"]);
    let containers = network["Containers"].as_object().into_iter().flatten();
    let of_containers = containers.map(|(_, container)| &container["IPv4Address"]);
    let all = of_tasks.chain(of_services).chain(of_containers);
    let different: BTreeSet<_> = all
        .filter_map(Value::as_str)
        .filter_map(|address| address.split('/').next())
        .collect();
    let nodes = network["Peers"].as_array().map_or(0, Vec::len);
    (different.len() + nodes.saturating_sub(1)) as u64
}

/// How many addresses of a subnet can be given out: not its first, its last and its gateway's.
fn addresses(subnet: &str) -> Option<u64> {
    let bits: u32 = subnet.split_once('/')?.1.parse().ok()?;
    let host_bits = if subnet.contains(':') { 128_u32 } else { 32 }.checked_sub(bits)?;
    Some(
        1_u64
            .checked_shl(host_bits)
            .unwrap_or(u64::MAX)
            .saturating_sub(3),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn overlay() -> Value {
        json!({
            "Id": "n1", "Driver": "overlay", "IPAM": { "Config": [{ "Subnet": "10.0.1.0/24" }] },
            "Peers": [{}, {}, {}],
            "Containers": { "a": { "IPv4Address": "10.0.1.4/24" }, "lb-functions": { "IPv4Address": "10.0.1.2/24" } },
        })
    }

    fn task(state: &str, network: &str, address: &str) -> Value {
        json!({
            "Status": { "State": state },
            "NetworksAttachments": [{ "Network": { "ID": network }, "Addresses": [address] }],
        })
    }

    #[test]
    fn a_network_is_there_and_spans_the_nodes_or_there_is_advice() {
        let absent = EngineError::Says(StatusCode::NOT_FOUND, String::new());
        let told = missing("functions", &absent);
        assert!(told.advice.unwrap().contains("docker network create"));
        assert!(!found("bridge", &json!({ "Driver": "bridge" }), &[], &[]).good);
    }

    #[test]
    fn addresses_are_counted_once_and_those_that_were_given_back_not_at_all() {
        let tasks = [
            task("running", "n1", "10.0.1.3/24"),
            // The same as a container of this node.
            task("running", "n1", "10.0.1.4/24"),
            task("preparing", "n1", "10.0.1.5/24"),
            task("shutdown", "n1", "10.0.1.6/24"),
            task("running", "other", "10.0.2.7/24"),
        ];
        let service = json!({ "Endpoint": { "VirtualIPs": [{ "NetworkID": "n1", "Addr": "10.0.1.8/24" }, { "NetworkID": "other", "Addr": "10.0.2.8/24" }] } });
        let told = found("functions", &overlay(), &[service], &tasks);
        // Five different ones, and one on each of two other nodes.
        assert!(told.found.contains("about 246 of 253"), "{told:?}");
        assert!(told.good && told.advice.is_none());
    }

    #[test]
    fn few_addresses_are_told_before_there_are_none() {
        let tasks = |count: u32| -> Vec<_> {
            let addresses = (0..count).map(|n| format!("10.0.1.{n}/24"));
            addresses
                .map(|address| task("running", "n1", &address))
                .collect()
        };
        let few = found("functions", &overlay(), &[], &tasks(240));
        assert!(
            few.good && few.advice.unwrap().contains("--subnet"),
            "{}",
            few.found
        );
        assert!(!found("functions", &overlay(), &[], &tasks(255)).good);
    }
}
