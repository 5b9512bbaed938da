//! The engine behind the Docker socket, and the Swarm it belongs to: version, manager, nodes, clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{APART, Finding, clock, functions, network};
use crate::config::Config;
use crate::discovery::swarm::engine::Engine;

pub(super) async fn look(config: &Config, names: &[String], findings: &mut Vec<Finding>) {
    let engine = Engine::new(config.docker_host.clone());
    let info: Value = match engine.get("/info").await {
        Ok(info) => info,
        Err(error) => {
            let advice = "run this where the engine's socket is, or name it with --docker-host";
            let found = format!("{} {error}", config.docker_host);
            findings.push(Finding::bad("engine", found, advice));
            return;
        }
    };
    findings.extend(of_info(&info));
    let theirs = time(&info["SystemTime"]);
    findings
        .extend(theirs.and_then(|theirs| clock("the engine's clock", theirs, SystemTime::now())));
    let lists = tokio::join!(
        engine.get("/nodes"),
        engine.get("/services"),
        engine.get("/tasks")
    );
    // No manager has none of them, and was told so.
    let (nodes, services, tasks): (Vec<Value>, Vec<Value>, Vec<Value>) = (
        lists.0.unwrap_or_default(),
        lists.1.unwrap_or_default(),
        lists.2.unwrap_or_default(),
    );
    findings.extend(of_nodes(&nodes));
    findings.extend(of_clocks(&nodes, &tasks));
    findings.push(network::look(&engine, &config.network, &services, &tasks).await);
    findings.extend(functions::look(&engine, names, &services).await);
}

fn time(value: &Value) -> Option<SystemTime> {
    humantime::parse_rfc3339(value.as_str()?).ok()
}

fn of_info(info: &Value) -> Vec<Finding> {
    let version = info["ServerVersion"].as_str().unwrap_or("unknown");
    let found = format!(
        "version {version}, storage {}",
        info["Driver"].as_str().unwrap_or("unknown")
    );
    let engine = if is_old(version) {
        let advice = "one of version 25 or newer keeps no-new-privileges, the seccomp profile and frequent health checks at the start; this one leaves them out of services";
        Finding::fair("engine", found, advice)
    } else {
        Finding::good("engine", found)
    };
    let swarm = &info["Swarm"];
    let swarm = if swarm["ControlAvailable"] == true {
        let found = format!(
            "a manager, one of {}, of {} node(s)",
            swarm["Managers"], swarm["Nodes"]
        );
        match swarm["Managers"].as_u64() {
            Some(2) => Finding::fair(
                "swarm",
                found,
                "with two managers nothing can be changed when either is gone: have one or three",
            ),
            _ => Finding::good("swarm", found),
        }
    } else {
        Finding::bad(
            "swarm",
            "this engine is no manager of a Swarm",
            "docker swarm init, or use a manager's socket",
        )
    };
    let options = info["SecurityOptions"].as_array().into_iter().flatten();
    let mut options = options.filter_map(Value::as_str);
    let is_confined =
        options.any(|option| option.contains("seccomp") && !option.contains("unconfined"));
    let seccomp = (!is_confined).then(|| {
        let advice =
            "take the seccomp-profile from its daemon.json, or use a kernel that has seccomp";
        Finding::fair(
            "seccomp",
            "this engine lets functions make any system call",
            advice,
        )
    });
    [engine, swarm].into_iter().chain(seccomp).collect()
}

fn is_old(version: &str) -> bool {
    let major = version.split('.').next();
    major
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| major < 25)
}

fn name_of(node: &Value) -> &str {
    let name = &node["Description"]["Hostname"];
    name.as_str().unwrap_or("a node without a name")
}

fn of_nodes(nodes: &[Value]) -> Vec<Finding> {
    let away = nodes
        .iter()
        .filter(|node| node["Status"]["State"] != "ready");
    let away: Vec<_> = away.map(name_of).collect();
    let mut findings = Vec::new();
    if !away.is_empty() {
        let advice = "start its engine again; docker node rm --force takes a node out that will not come back";
        findings.push(Finding::bad(
            "nodes",
            format!("not there: {}", away.join(", ")),
            advice,
        ));
    }
    let versions = nodes
        .iter()
        .filter_map(|node| node["Description"]["Engine"]["EngineVersion"].as_str());
    let versions: BTreeSet<_> = versions.collect();
    if versions.len() > 1 {
        let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
        let advice = "upgrade the older ones: each leaves out what it does not know";
        findings.push(Finding::fair(
            "nodes",
            format!("have engines of different versions: {versions}"),
            advice,
        ));
    }
    findings
}

/// Nodes whose clocks differ from the managers': a node notes when its task began to run, and a manager, a moment later, when it
/// heard that.
fn of_clocks(nodes: &[Value], tasks: &[Value]) -> Vec<Finding> {
    let mut least: BTreeMap<&str, Duration> = BTreeMap::new();
    let run = tasks
        .iter()
        .filter(|task| task["Status"]["State"] == "running" && task["DesiredState"] == "running");
    for task in run {
        let times = time(&task["Status"]["Timestamp"]).zip(time(&task["UpdatedAt"]));
        let Some((node, (begun, heard))) = task["NodeID"].as_str().zip(times) else {
            continue;
        };
        let apart = heard
            .duration_since(begun)
            .unwrap_or_else(|error| error.duration());
        // Other things than the clock can only make it more.
        let known = least.entry(node).or_insert(apart);
        *known = apart.min(*known);
    }
    let off = nodes.iter().filter_map(|node| {
        let apart = least.get(node["ID"].as_str()?)?;
        (*apart > APART).then(|| {
            Finding::fair(
                "clock",
                format!("of {} may be {} s off the managers'", name_of(node), apart.as_secs()),
                "have all nodes ask a time server: certificates, logs and Swarm itself go by the time",
            )
        })
    });
    off.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_engine_that_is_no_manager_is_told_how_to_become_one() {
        let seccomp = json!(["name=seccomp,profile=default"]);
        let good = of_info(
            &json!({ "ServerVersion": "29.0.1", "Driver": "overlay2", "SecurityOptions": seccomp, "Swarm": { "ControlAvailable": true, "Nodes": 3, "Managers": 1 } }),
        );
        assert!(good.iter().all(|one| one.good && one.advice.is_none()));
        let old = of_info(
            &json!({ "ServerVersion": "20.10.24", "Swarm": { "ControlAvailable": false } }),
        );
        assert!(
            old[0].good
                && old[0]
                    .advice
                    .as_ref()
                    .unwrap()
                    .contains("no-new-privileges")
        );
        assert!(!old[1].good && old[2].what == "seccomp");
        let two = json!({ "ServerVersion": "29.0.1", "Swarm": { "ControlAvailable": true, "Managers": 2 } });
        assert!(of_info(&two)[1].advice.is_some());
    }

    fn node(id: &str, state: &str, version: &str) -> Value {
        json!({ "ID": id, "Description": { "Hostname": format!("host-{id}"), "Engine": { "EngineVersion": version } }, "Status": { "State": state } })
    }

    #[test]
    fn nodes_that_are_away_or_older_are_named() {
        let same = [node("a", "ready", "29.0.1"), node("b", "ready", "29.0.1")];
        assert_eq!(of_nodes(&same), []);
        let told = of_nodes(&[node("a", "ready", "29.0.1"), node("b", "down", "20.10.24")]);
        assert!(
            !told[0].good && told[0].found.contains("host-b"),
            "{told:?}"
        );
        assert!(
            told[1].good && told[1].found.contains("20.10.24, 29.0.1"),
            "{told:?}"
        );
    }

    #[test]
    fn a_node_whose_clock_is_off_shows_in_all_its_tasks() {
        let task = |node: &str, begun: &str| {
            json!({
                "NodeID": node, "DesiredState": "running", "UpdatedAt": "2026-11-24T10:00:00.5Z",
                "Status": { "State": "running", "Timestamp": begun },
            })
        };
        let tasks = [
            task("a", "2026-11-24T10:00:00.3Z"),
            // Something else was changed of this one, long after.
            task("a", "2026-11-24T09:00:00Z"),
            task("b", "2026-11-24T10:01:00Z"),
        ];
        let nodes = [
            node("a", "ready", ""),
            node("b", "ready", ""),
            node("c", "ready", ""),
        ];
        let told = of_clocks(&nodes, &tasks);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].found, "of host-b may be 59 s off the managers'");
    }
}
