//! Is everything in order? The gateway, the engine, the network, looked at one after the other; where something is wrong, what to do.

use hyper::Method;
use serde::Serialize;
use serde_json::Value;

use super::client::tell;
use super::gateway::Gateway;
use crate::config::Config;
use crate::discovery::swarm::engine::{Engine, EngineError};

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    what: &'static str,
    good: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            good: true,
            found: found.into(),
            advice: None,
        }
    }

    fn bad(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            what,
            good: false,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }
}

/// Looks at everything and tells it.
///
/// # Errors
/// How many things are not in order.
pub(super) async fn examine(
    gateway: &Gateway,
    config: &Config,
    as_json: bool,
) -> Result<(), String> {
    let mut findings = Vec::new();
    let is_local = ask_gateway(gateway, &mut findings).await;
    if !is_local {
        ask_engine(config, &mut findings).await;
    }
    if as_json {
        tell(&format!(
            "{}\n",
            serde_json::to_string(&findings).unwrap_or_default()
        ));
    } else {
        findings.iter().for_each(|finding| tell(&shown(finding)));
    }
    match findings.iter().filter(|finding| !finding.good).count() {
        0 => Ok(()),
        1 => Err("one thing is not in order".to_owned()),
        count => Err(format!("{count} things are not in order")),
    }
}

fn shown(finding: &Finding) -> String {
    let mark = if finding.good { "ok " } else { "BAD" };
    let advice = finding
        .advice
        .iter()
        .map(|advice| format!("     {:12} {advice}\n", ""));
    std::iter::once(format!("{mark}  {:12} {}\n", finding.what, finding.found))
        .chain(advice)
        .collect()
}

/// Returns whether the gateway serves local processes: then there is no engine to look at.
async fn ask_gateway(gateway: &Gateway, findings: &mut Vec<Finding>) -> bool {
    let get = async |path: &str| {
        let answer = gateway.ask(Method::GET, path, None).await?;
        Ok::<_, String>((
            answer.status,
            serde_json::from_slice::<Value>(&answer.body).unwrap_or_default(),
        ))
    };
    let (_, health) = match get("/healthz").await {
        Ok(answer) => answer,
        Err(why) => {
            findings.push(Finding::bad(
                "gateway",
                why,
                "start it, or say where it is with --gateway",
            ));
            return false;
        }
    };
    let version = health["version"].as_str().unwrap_or("of another make");
    findings.push(Finding::good(
        "gateway",
        format!("skep {version} answers at {}", gateway.address()),
    ));
    if let Ok((status, ready)) = get("/readyz").await {
        let reason = ready["reason"].as_str();
        findings.push(match (status.is_success(), reason) {
            (true, None) => Finding::good(
                "readiness",
                format!("ready, {} functions", ready["functions"]),
            ),
            (true, Some(reason)) => Finding::bad(
                "readiness",
                format!(
                    "ready, but what it knows is {} s old",
                    ready["stale_seconds"]
                ),
                reason,
            ),
            (false, reason) => {
                Finding::bad("readiness", "not ready", reason.unwrap_or("see its log"))
            }
        });
    }
    let info = get("/system/info").await;
    let (status, info) = info.unwrap_or_default();
    let ports = info["ports"].as_array().into_iter().flatten();
    findings.extend(ports.filter_map(|port| {
        let (url, serves) = (port["url"].as_str()?, port["serves"].as_str()?);
        Some(Finding::good("port", format!("{url} for {serves}")))
    }));
    findings.push(match status.as_u16() {
        200 => Finding::good("login", "the management API answers"),
        404 => Finding::bad(
            "login",
            "the management API is not on this port",
            "it has one of its own (system_port): name that one with --gateway",
        ),
        401 => Finding::bad(
            "login",
            "the management API asks for a login",
            "write it into the address: --gateway http://user:password@host:port",
        ),
        status => Finding::bad(
            "login",
            format!("the management API answers {status}"),
            "see the gateway's log",
        ),
    });
    info["provider"]["orchestration"] == "local"
}

async fn ask_engine(config: &Config, findings: &mut Vec<Finding>) {
    let engine = Engine::new(config.docker_host.clone());
    let info: Value = match engine.get("/info").await {
        Ok(info) => info,
        Err(error) => {
            let advice = "run this where the engine's socket is, or name it with --docker-host";
            findings.push(Finding::bad(
                "engine",
                format!("{} {error}", config.docker_host),
                advice,
            ));
            return;
        }
    };
    findings.extend(engine_findings(&info));
    let network = engine
        .get::<Value>(&format!("/networks/{}", config.network))
        .await;
    findings.push(network_finding(&config.network, network.as_ref()));
}

fn engine_findings(info: &Value) -> Vec<Finding> {
    let version = info["ServerVersion"].as_str().unwrap_or("unknown");
    let mut findings = vec![Finding::good(
        "engine",
        format!(
            "version {version}, storage {}",
            info["Driver"].as_str().unwrap_or("unknown")
        ),
    )];
    let is_manager = info["Swarm"]["ControlAvailable"] == true;
    findings.push(if is_manager {
        Finding::good(
            "swarm",
            format!("a manager of {} node(s)", info["Swarm"]["Nodes"]),
        )
    } else {
        Finding::bad(
            "swarm",
            "this engine is no manager of a Swarm",
            "docker swarm init, or use a manager's socket",
        )
    });
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < 25) {
        let left_out = "leaves out of services: no-new-privileges, the seccomp profile, frequent health checks at the start";
        findings.push(Finding::good(
            "hardening",
            format!("an engine this old {left_out}"),
        ));
    }
    findings
}

fn network_finding(name: &str, network: Result<&Value, &EngineError>) -> Finding {
    let network = match network {
        Ok(network) => network,
        Err(EngineError::Says(status, _)) if *status == 404 => {
            return Finding::bad(
                "network",
                format!("there is no network '{name}'"),
                format!("docker network create --driver overlay --attachable {name}"),
            );
        }
        Err(error) => {
            return Finding::bad(
                "network",
                format!("'{name}': {error}"),
                "see the engine's log",
            );
        }
    };
    if network["Driver"] != "overlay" {
        let advice = "functions need one that spans the nodes: docker network create --driver overlay --attachable";
        return Finding::bad(
            "network",
            format!("'{name}' is of the driver {}", network["Driver"]),
            advice,
        );
    }
    let subnets = network["IPAM"]["Config"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|config| config["Subnet"].as_str());
    let room: u64 = subnets.clone().filter_map(addresses).sum();
    Finding::good(
        "network",
        format!(
            "'{name}' has {room} addresses in {}",
            subnets.collect::<Vec<_>>().join(", ")
        ),
    )
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
    use hyper::StatusCode;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_engine_that_is_no_manager_is_told_how_to_become_one() {
        let good = engine_findings(
            &json!({ "ServerVersion": "29.0.1", "Driver": "overlay2", "Swarm": { "ControlAvailable": true, "Nodes": 3 } }),
        );
        assert!(good.iter().all(|finding| finding.good) && good.len() == 2);
        let old = engine_findings(
            &json!({ "ServerVersion": "20.10.24", "Swarm": { "ControlAvailable": false } }),
        );
        assert!(!old[1].good && old[2].found.contains("no-new-privileges"));
    }

    #[test]
    fn a_network_is_there_and_spans_the_nodes_or_there_is_advice() {
        let overlay =
            json!({ "Driver": "overlay", "IPAM": { "Config": [{ "Subnet": "10.0.1.0/24" }] } });
        assert!(
            network_finding("functions", Ok(&overlay))
                .found
                .contains("253 addresses")
        );
        let missing = EngineError::Says(StatusCode::NOT_FOUND, String::new());
        assert!(
            network_finding("functions", Err(&missing))
                .advice
                .unwrap()
                .contains("docker network create")
        );
        assert!(!network_finding("bridge", Ok(&json!({ "Driver": "bridge" }))).good);
    }
}
