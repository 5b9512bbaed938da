//! A function as wanted → the JSON of a Swarm service. Pure. A service that exists is changed field by field, so that what we do not
//! know of stays as it is, and so does what an operator has set by hand (`applied.rs`): of that, a change replaces what it names.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::amounts::{Bound, asked_label};
use super::applied::Applied;
use super::read_only;
use super::translate::SECRETS;
use crate::discovery::operate::{ANNOTATION, Amounts, PIDS, SCALE_MIN, Wanted};
use crate::duration;
use crate::function::Resources;

/// Processes that a function may have at once, unless the label [`PIDS`] says otherwise: far above what calls need, far below what
/// hurts a machine.
const MOST_PIDS: i64 = 1024;
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
    let mut spec = json!({
        "Name": wanted.name.as_str(),
        "TaskTemplate": {
            "ContainerSpec": {
                "CapabilityDrop": ["ALL"],
                "Privileges": { "NoNewPrivileges": true, "Seccomp": { "Mode": "default" } },
                // No test of its own: the image's, asked often while a task starts.
                "Healthcheck": { "StartPeriod": nanos(Duration::from_secs(10)), "StartInterval": nanos(Duration::from_millis(250)) },
            },
            "RestartPolicy": { "Condition": "any", "Delay": nanos(RESTART_DELAY) },
            "Networks": [{ "Target": ground.network }],
        },
        "Mode": { "Replicated": { "Replicas": label_number(wanted, SCALE_MIN).unwrap_or(1).max(1) } },
        // Calls go to the tasks' own addresses; a virtual one would only be allocated.
        "EndpointSpec": { "Mode": "dnsrr" },
    });
    let mut applied = Applied::before(&spec);
    set_pids(&mut spec, Some(MOST_PIDS), wanted, &mut applied);
    fill(&mut spec, wanted, ground, applied);
    spec
}

/// The service of an existing function, made what is wanted now. Replicas, networks, mounts, health checks and whatever else an
/// operator has set stay.
pub(super) fn update(mut spec: Value, wanted: &Wanted, ground: &Ground<'_>) -> Value {
    let mut applied = Applied::before(&spec);
    let pids = &spec["TaskTemplate"]["Resources"]["Limits"]["Pids"];
    let default = (applied.is_known() && applied.was_set("pids", pids)).then_some(MOST_PIDS);
    set_pids(&mut spec, default, wanted, &mut applied);
    fill(&mut spec, wanted, ground, applied);
    roll(&mut spec);
    spec
}

fn set_pids(spec: &mut Value, default: Option<i64>, wanted: &Wanted, applied: &mut Applied) {
    if let Some(pids) = label_number(wanted, PIDS).or(default) {
        let pids = json!(pids);
        applied.set("pids", &pids);
        spec["TaskTemplate"]["Resources"]["Limits"]["Pids"] = pids;
    }
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

fn fill(spec: &mut Value, wanted: &Wanted, ground: &Ground<'_>, mut applied: Applied) {
    let grace = grace(spec, wanted, ground, &applied);
    let labels = labels(wanted);
    let container_labels = spec["TaskTemplate"]["ContainerSpec"]["Labels"].clone();
    let service_labels = spec["Labels"].clone();
    applied.set_labels(
        "container:",
        &mut spec["TaskTemplate"]["ContainerSpec"]["Labels"],
        &service_labels,
        labels.clone(),
    );
    applied.set_labels(
        "label:",
        &mut spec["Labels"],
        &container_labels,
        labels.into_iter().chain(asked(wanted)).collect(),
    );
    let task = &mut spec["TaskTemplate"];
    fill_container(&mut task["ContainerSpec"], wanted, ground, &mut applied);
    if let Some(grace) = grace {
        applied.set("grace", &grace);
        task["ContainerSpec"]["StopGracePeriod"] = grace;
    }
    let resources = &mut task["Resources"];
    for (name, bound, amounts) in [
        ("Limits", Bound::Limits, wanted.limits),
        ("Reservations", Bound::Requests, wanted.requests),
    ] {
        set_amounts(
            &mut resources[name],
            name,
            bound.taken(amounts),
            &mut applied,
        );
    }
    let constraints = wanted.spec.constraints.iter().map(|text| json!(text));
    applied.set_list(
        "constraint:",
        &mut task["Placement"]["Constraints"],
        constraints.collect(),
        |one| one.as_str().unwrap_or_default().to_owned(),
        Value::clone,
    );
    set_default(
        &mut spec["UpdateConfig"],
        json!({
            "Parallelism": 1, "Order": "start-first", "FailureAction": "rollback", "Monitor": nanos(Duration::from_secs(5)),
        }),
    );
    set_default(
        &mut spec["RollbackConfig"],
        json!({ "Parallelism": 1, "Order": "start-first", "FailureAction": "pause" }),
    );
    applied.write(spec);
}

/// Sets what no deployment names, where nobody has.
fn set_default(place: &mut Value, default: Value) {
    if place.is_null() {
        *place = default;
    }
}

/// How long tasks are given to end, unless an operator has said it.
fn grace(spec: &Value, wanted: &Wanted, ground: &Ground<'_>, applied: &Applied) -> Option<Value> {
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    let there = &container["StopGracePeriod"];
    let is_ours = if applied.is_known() {
        applied.was_set("grace", there)
    } else {
        // A gateway that did not say what it had set went by the same labels and variables.
        let variable = container["Env"].as_array().into_iter().flatten();
        let variable = variable
            .filter_map(Value::as_str)
            .find_map(|pair| pair.strip_prefix("exec_timeout="));
        let before = longest([spec["Labels"]["skep.timeout"].as_str(), variable]);
        let before = before.unwrap_or(ground.timeout) + GRACE_MARGIN;
        applied.was_set("grace", there) && *there == json!(nanos(before))
    };
    let now = longest_call(wanted, ground.timeout) + GRACE_MARGIN;
    (there.is_null() || is_ours).then(|| json!(nanos(now)))
}

fn fill_container(
    container: &mut Value,
    wanted: &Wanted,
    ground: &Ground<'_>,
    applied: &mut Applied,
) {
    let spec = &wanted.spec;
    container["Image"] = json!(spec.image);
    let fprocess = spec
        .env_process
        .as_ref()
        .map(|command| format!("fprocess={command}"));
    let variables = spec
        .env_vars
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let variables = fprocess.into_iter().chain(variables);
    applied.set_list(
        "env:",
        &mut container["Env"],
        variables.map(Value::from).collect(),
        |pair| {
            let pair = pair.as_str().unwrap_or_default();
            pair.split_once('=')
                .map_or(pair, |(name, _)| name)
                .to_owned()
        },
        Value::clone,
    );
    read_only::set(container, wanted, applied);
    let path = |secret: &Value| {
        secret["File"]["Name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let is_ours = |secret: &&Value| path(secret).starts_with(SECRETS);
    let all = container["Secrets"].as_array().cloned().unwrap_or_default();
    let (ours, others): (Vec<_>, Vec<_>) = all.iter().partition(is_ours);
    let mut ours: Value = ours.into_iter().cloned().collect();
    // Another version of a secret is still the same one.
    let name = |secret: &Value| json!(path(secret));
    applied.set_list("secret:", &mut ours, ground.secrets.clone(), path, name);
    let ours = ours.as_array().into_iter().flatten();
    container["Secrets"] = others.into_iter().chain(ours).cloned().collect();
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

fn set_amounts(place: &mut Value, kind: &str, amounts: Amounts, applied: &mut Applied) {
    for (name, amount) in [
        ("MemoryBytes", amounts.memory),
        ("NanoCPUs", amounts.nano_cpus),
    ] {
        let key = format!("{kind}:{name}");
        match amount {
            Some(amount) => {
                place[name] = json!(amount);
                applied.set(&key, &place[name]);
            }
            None if applied.was_set(&key, &place[name]) => {
                drop(place.as_object_mut().map(|place| place.remove(name)));
            }
            None => {}
        }
    }
}

/// How long a call of this function may run: tasks that end must be given as much.
fn longest_call(wanted: &Wanted, default: Duration) -> Duration {
    let spec = &wanted.spec;
    let named = [
        spec.labels.get("skep.timeout").map(String::as_str),
        spec.env_vars.get("exec_timeout").map(String::as_str),
    ];
    longest(named).unwrap_or(default)
}

fn longest(named: [Option<&str>; 2]) -> Option<Duration> {
    let read = named
        .into_iter()
        .flatten()
        .filter_map(|text| duration::parse(text).ok());
    read.max().filter(|time| !time.is_zero())
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
