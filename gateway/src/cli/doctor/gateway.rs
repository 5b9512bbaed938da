//! The gateway as a client sees it: reached, certificate, readiness, login, clock; and each function that lacks replicas.

use std::time::{Duration, SystemTime};

use hyper::Method;
use serde_json::Value;

use super::super::gateway::{Answer, Gateway};
use super::{Finding, clock};

/// A certificate that ends sooner should have been renewed.
const RENEWED: Duration = Duration::from_secs(14 * 24 * 3600);

/// What the gateway serves, as far as it says so.
#[derive(Default)]
pub(super) struct Served {
    /// Local processes: then there is no engine to look at.
    pub(super) is_local: bool,
    pub(super) functions: Vec<String>,
}

pub(super) async fn look(gateway: &Gateway, findings: &mut Vec<Finding>) -> Served {
    let health = match gateway.ask(Method::GET, "/healthz", None).await {
        Ok(answer) => answer,
        Err(why) => {
            let advice = "start it, or say where it is with --gateway";
            findings.push(Finding::bad("gateway", why, advice));
            return Served::default();
        }
    };
    findings.push(Finding::good(
        "gateway",
        format!(
            "skep {} answers at {}",
            json(&health)["version"]
                .as_str()
                .unwrap_or("of another make"),
            gateway.address()
        ),
    ));
    findings.extend(certificate(gateway).await);
    findings.extend(readiness(gateway).await);
    let info = gateway.ask(Method::GET, "/system/info", None).await;
    let is_local = info
        .as_ref()
        .is_ok_and(|info| json(info)["provider"]["orchestration"] == "local");
    if let Ok(info) = &info {
        findings.extend(ports(&json(info)));
    }
    findings.push(login(gateway, info, is_local).await);
    let theirs = health.date;
    findings
        .extend(theirs.and_then(|theirs| clock("the gateway's clock", theirs, SystemTime::now())));
    let listed = gateway.ask(Method::GET, "/system/functions", None).await;
    let listed = listed.map(|answer| json(&answer)).unwrap_or_default();
    findings.extend(lacking(gateway, &listed).await);
    let names = listed.as_array().into_iter().flatten();
    Served {
        is_local,
        functions: names
            .filter_map(|function| function["name"].as_str().map(str::to_owned))
            .collect(),
    }
}

/// A finding for each function that has fewer ready replicas than it should, with what its last task failed of.
async fn lacking(gateway: &Gateway, listed: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for function in listed.as_array().into_iter().flatten() {
        let number = |field: &str| function[field].as_u64().unwrap_or(0);
        let (ready, desired) = (number("availableReplicas"), number("replicas"));
        let Some(name) = function["name"].as_str().filter(|_| ready < desired) else {
            continue;
        };
        let path = format!("/system/function/{name}/replicas");
        let error = match gateway.ask(Method::GET, &path, None).await {
            Ok(answer) => last_error(&json(&answer)),
            Err(_) => None,
        };
        let why = error.map(|error| format!(": {error}")).unwrap_or_default();
        let found = format!("{name}: {ready} of {desired} replicas ready{why}");
        let advice = format!("skep describe {name} and skep logs {name} say more");
        findings.push(match ready {
            0 => Finding::bad("function", found, advice),
            _ => Finding::fair("function", found, advice),
        });
    }
    findings
}

fn last_error(replicas: &Value) -> Option<String> {
    let replicas = replicas.as_array().into_iter().flatten();
    let mut errors = replicas.filter_map(|replica| replica["error"].as_str());
    errors.next().map(str::to_owned)
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// Where it listens, and for whom.
fn ports(info: &Value) -> Vec<Finding> {
    let ports = info["ports"].as_array().into_iter().flatten();
    let shown = ports.filter_map(|port| {
        let (url, serves) = (port["url"].as_str()?, port["serves"].as_str()?);
        Some(Finding::good("port", format!("{url} for {serves}")))
    });
    shown.collect()
}

async fn certificate(gateway: &Gateway) -> Option<Finding> {
    let ends = gateway.certificate_ends().await.ok()??;
    let left = ends.duration_since(SystemTime::now()).unwrap_or_default();
    let found = format!("valid for {} more days", left.as_secs() / 86_400);
    Some(if left > RENEWED {
        Finding::good("certificate", found)
    } else {
        let advice = "renew it: clients refuse a certificate that has expired";
        Finding::fair("certificate", found, advice)
    })
}

async fn readiness(gateway: &Gateway) -> Option<Finding> {
    let answer = gateway.ask(Method::GET, "/readyz", None).await.ok()?;
    let ready = json(&answer);
    let reason = ready["reason"].as_str();
    Some(match (answer.status.is_success(), reason) {
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
        (false, reason) => Finding::bad("readiness", "not ready", reason.unwrap_or("see its log")),
    })
}

/// Whether the management API asks for a login, and takes ours.
async fn login(gateway: &Gateway, ours: Result<Answer, String>, is_local: bool) -> Finding {
    let status = match ours {
        Ok(answer) => answer.status.as_u16(),
        Err(why) => return Finding::bad("login", why, "see the gateway's log"),
    };
    match status {
        200 => {}
        401 => {
            let advice = "run skep login, or give an API key with --key";
            let found = "the management API asks for another login";
            return Finding::bad("login", found, advice);
        }
        404 => {
            let found = "the management API is not on this port";
            let advice = "it has one of its own (system_port): name that one with --gateway";
            return Finding::bad("login", found, advice);
        }
        status => {
            let found = format!("the management API answers {status}");
            return Finding::bad("login", found, "see the gateway's log");
        }
    }
    if !gateway.asks_for_a_login().await {
        let found = "the management API is open to everybody who reaches the port";
        return match is_local {
            true => Finding::good("login", found),
            false => Finding::fair(
                "login",
                found,
                "start the gateway with basic_auth=true, or publish its port to nobody else: who can ask it can run anything on the Swarm",
            ),
        };
    }
    let found = "the management API asks for a login, and takes this one";
    if gateway.is_overheard() {
        let advice = "it crosses the network in the clear: use https, or a tunnel";
        Finding::fair("login", found, advice)
    } else {
        Finding::good("login", found)
    }
}
