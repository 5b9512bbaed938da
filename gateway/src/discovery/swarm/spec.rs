//! A function as wanted → the JSON of a Swarm service. Pure. A service that exists is changed field by field, so that what we do not
//! know of stays as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::amounts::{Bound, asked_label};
use super::translate::SECRETS;
use crate::discovery::operate::{ANNOTATION, Amounts, PIDS, SCALE_MIN, Wanted};
use crate::duration;
use crate::function::Resources;

/// Processes that a function may have at once, unless the label [`PIDS`] says otherwise: far above what calls need, far below what
/// hurts a machine.
const MOST_PIDS: i64 = 1024;
/// The prefix of the labels that Docker itself adds, by which a stack knows its services.
const DOCKERS: &str = "com.docker.";
/// How long a task may take to end beyond its longest call.
const GRACE_MARGIN: Duration = Duration::from_secs(5);
/// How long a failed task waits before it is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// What a service's JSON takes from its surroundings.
pub(super) struct Ground<'a> {
    /// The id of the network that calls are routed on.
    pub(super) network: &'a str,
    /// The longest call of a function that sets no limit.
    pub(super) timeout: Duration,
    /// The references to the function's secrets.
    pub(super) secrets: Vec<Value>,
}

/// The service of a new function.
pub(super) fn create(wanted: &Wanted, ground: &Ground<'_>) -> Value {
    let pids = label_number(wanted, PIDS).unwrap_or(MOST_PIDS);
    let mut spec = json!({
        "Name": wanted.name.as_str(),
        "TaskTemplate": {
            "ContainerSpec": {
                "CapabilityDrop": ["ALL"],
                "Privileges": { "NoNewPrivileges": true, "Seccomp": { "Mode": "default" } },
                // No test of its own: the image's, asked often while a task starts.
                "Healthcheck": { "StartPeriod": nanos(Duration::from_secs(10)), "StartInterval": nanos(Duration::from_millis(250)) },
            },
            "Resources": { "Limits": { "Pids": pids } },
            "RestartPolicy": { "Condition": "any", "Delay": nanos(RESTART_DELAY) },
            "Networks": [{ "Target": ground.network }],
        },
        "Mode": { "Replicated": { "Replicas": label_number(wanted, SCALE_MIN).unwrap_or(1).max(1) } },
        // Calls go to the tasks' own addresses; a virtual one would only be allocated.
        "EndpointSpec": { "Mode": "dnsrr" },
    });
    fill(&mut spec, wanted, ground);
    spec
}

/// The service of an existing function, made what is wanted now. Replicas, networks, mounts, health checks and whatever else an
/// operator has set stay.
pub(super) fn update(mut spec: Value, wanted: &Wanted, ground: &Ground<'_>) -> Value {
    fill(&mut spec, wanted, ground);
    if let Some(pids) = label_number(wanted, PIDS) {
        spec["TaskTemplate"]["Resources"]["Limits"]["Pids"] = json!(pids);
    }
    roll(&mut spec);
    spec
}

/// Has all tasks replaced, though nothing else may have changed: the same tag can name another image by now.
pub(super) fn roll(spec: &mut Value) {
    let force = &mut spec["TaskTemplate"]["ForceUpdate"];
    *force = json!(force.as_u64().unwrap_or(0).wrapping_add(1));
}

/// Sets the number of replicas; `false` if the service has none to set.
pub(super) fn scale(spec: &mut Value, replicas: u64) -> bool {
    let Some(replicated) = spec["Mode"].get_mut("Replicated") else {
        return false;
    };
    *replicated = json!({ "Replicas": replicas });
    true
}

fn fill(spec: &mut Value, wanted: &Wanted, ground: &Ground<'_>) {
    let labels = labels(wanted);
    set_labels(
        &mut spec["Labels"],
        labels.clone().into_iter().chain(asked(wanted)).collect(),
    );
    let task = &mut spec["TaskTemplate"];
    fill_container(&mut task["ContainerSpec"], wanted, ground, labels);
    let resources = &mut task["Resources"];
    set_amounts(&mut resources["Limits"], Bound::Limits.taken(wanted.limits));
    set_amounts(
        &mut resources["Reservations"],
        Bound::Requests.taken(wanted.requests),
    );
    task["Placement"]["Constraints"] = json!(wanted.spec.constraints);
    spec["UpdateConfig"] = json!({
        "Parallelism": 1, "Order": "start-first", "FailureAction": "rollback", "Monitor": nanos(Duration::from_secs(5)),
    });
    spec["RollbackConfig"] =
        json!({ "Parallelism": 1, "Order": "start-first", "FailureAction": "pause" });
}

fn fill_container(
    container: &mut Value,
    wanted: &Wanted,
    ground: &Ground<'_>,
    labels: BTreeMap<String, String>,
) {
    let spec = &wanted.spec;
    container["Image"] = json!(spec.image);
    set_labels(&mut container["Labels"], labels);
    let fprocess = spec
        .env_process
        .as_ref()
        .map(|command| format!("fprocess={command}"));
    let variables = spec
        .env_vars
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    container["Env"] = fprocess.into_iter().chain(variables).collect();
    container["ReadOnly"] = json!(spec.read_only);
    set_tmp(&mut container["Mounts"], spec.read_only);
    container["StopGracePeriod"] =
        json!(nanos(longest_call(wanted, ground.timeout) + GRACE_MARGIN));
    let is_ours = |secret: &Value| {
        secret["File"]["Name"]
            .as_str()
            .is_some_and(|name| name.starts_with(SECRETS))
    };
    let others = container["Secrets"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|secret| !is_ours(secret));
    container["Secrets"] = others
        .cloned()
        .chain(ground.secrets.iter().cloned())
        .collect();
}

/// Everything that the operator may look for on a service or a container (wire contract §5.1).
fn labels(wanted: &Wanted) -> BTreeMap<String, String> {
    let mut labels = wanted.spec.labels.clone();
    labels.insert(
        "com.openfaas.function".to_owned(),
        wanted.name.as_str().to_owned(),
    );
    labels.insert("function".to_owned(), "true".to_owned());
    let annotations = wanted.spec.annotations.iter();
    labels.extend(annotations.map(|(name, value)| (format!("{ANNOTATION}{name}"), value.clone())));
    labels
}

/// Amounts in the operator's own words.
fn asked(wanted: &Wanted) -> BTreeMap<String, String> {
    let texts = |bound: Bound, resources: &Resources| {
        let pairs = [
            ("memory", resources.memory.clone()),
            ("cpu", resources.cpu.clone()),
        ];
        pairs
            .into_iter()
            .filter_map(move |(what, text)| Some((asked_label(bound, what), text?)))
    };
    texts(Bound::Limits, &wanted.spec.limits)
        .chain(texts(Bound::Requests, &wanted.spec.requests))
        .collect()
}

/// Replaces all labels but Docker's own.
fn set_labels(labels: &mut Value, wanted: BTreeMap<String, String>) {
    let dockers = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with(DOCKERS));
    let dockers: Map<String, Value> = dockers
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let wanted = wanted
        .into_iter()
        .map(|(name, value)| (name, Value::from(value)));
    *labels = Value::Object(wanted.chain(dockers).collect());
}

fn set_amounts(place: &mut Value, amounts: Amounts) {
    for (name, amount) in [
        ("MemoryBytes", amounts.memory),
        ("NanoCPUs", amounts.nano_cpus),
    ] {
        match amount {
            Some(amount) => place[name] = json!(amount),
            None => drop(place.as_object_mut().map(|place| place.remove(name))),
        }
    }
}

/// A root that cannot be written to leaves a function `/tmp`; the watchdog keeps its lock file there.
fn set_tmp(mounts: &mut Value, read_only: bool) {
    let ours = json!({ "Type": "tmpfs", "Target": "/tmp" });
    let has_tmp = |mount: &Value| mount["Target"] == "/tmp";
    let mut all: Vec<Value> = mounts
        .as_array()
        .into_iter()
        .flatten()
        .filter(|mount| **mount != ours)
        .cloned()
        .collect();
    if read_only && !all.iter().any(has_tmp) {
        all.push(ours);
    }
    *mounts = Value::Array(all);
}

/// How long a call of this function may run: tasks that end must be given as much.
fn longest_call(wanted: &Wanted, default: Duration) -> Duration {
    let spec = &wanted.spec;
    let named = [
        spec.labels.get("skep.timeout"),
        spec.env_vars.get("exec_timeout"),
    ];
    let read = named
        .into_iter()
        .flatten()
        .filter_map(|text| duration::parse(text).ok());
    read.max().filter(|time| !time.is_zero()).unwrap_or(default)
}

/// Labels that hold numbers were checked when they came.
fn label_number(wanted: &Wanted, name: &str) -> Option<i64> {
    wanted.spec.labels.get(name)?.parse().ok()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX >> 1)
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
