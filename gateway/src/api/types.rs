//! The JSON of the management API, field by field as clients expect it (wire contract §4). Our own words stop here.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::Orchestration;
use super::route::RouteStatus;
use crate::discovery::usage::Usage;
use crate::endpoint::Endpoint;
use crate::function::{Deployment, ReplicaError, Resources, UpdateStatus};
use crate::table::{Function, Routes};

/// What Go clients read as "unknown"; an empty text breaks them.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// One function (wire contract §4, FunctionStatus): empty fields are left out, labels and annotations never.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus<'a> {
    pub(super) name: &'a str,
    image: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_process: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env_vars: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    constraints: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    secrets: &'a [String],
    labels: BTreeMap<&'a str, &'a str>,
    annotations: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<FunctionResources<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<FunctionResources<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    read_only_root_filesystem: bool,
    #[serde(skip_serializing_if = "is_zero")]
    invocation_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    replicas: u64,
    #[serde(skip_serializing_if = "is_zero")]
    available_replicas: u64,
    created_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastError<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_status: Option<Update<'a>>,
}

/// Why a replica failed or cannot start: no field of the contract.
#[derive(Serialize)]
struct LastError<'a> {
    message: &'a str,
    since: &'a str,
    task: &'a str,
    node: &'a str,
}

impl<'a> From<&'a ReplicaError> for LastError<'a> {
    fn from(error: &'a ReplicaError) -> Self {
        Self {
            message: &error.message,
            since: &error.since,
            task: &error.task,
            node: &error.node,
        }
    }
}

/// How far the last update has come: no field of the contract.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Update<'a> {
    state: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<&'a str>,
}

impl<'a> From<&'a UpdateStatus> for Update<'a> {
    fn from(update: &'a UpdateStatus) -> Self {
        Self {
            state: &update.state,
            message: &update.message,
            started_at: update.started_at.as_deref(),
            completed_at: update.completed_at.as_deref(),
        }
    }
}

impl<'a> FunctionStatus<'a> {
    /// A function of this namespace as clients see it.
    #[must_use]
    pub fn of(function: &'a Function, namespace: &'a str) -> Self {
        let deployment = &function.deployment;
        let spec = &deployment.spec;
        Self {
            name: deployment.name.as_str(),
            image: &spec.image,
            namespace,
            env_process: spec.env_process.as_deref(),
            env_vars: &spec.env_vars,
            constraints: &spec.constraints,
            secrets: &spec.secrets,
            labels: labels(deployment),
            annotations: &spec.annotations,
            limits: FunctionResources::of(&spec.limits),
            requests: FunctionResources::of(&spec.requests),
            read_only_root_filesystem: spec.read_only,
            invocation_count: function.calls(),
            replicas: deployment.replicas.desired,
            available_replicas: function.available() as u64,
            created_at: spec.created_at.as_deref().unwrap_or(NO_TIME),
            last_error: deployment.rollout.last_error.as_ref().map(LastError::from),
            update_status: deployment.rollout.update.as_ref().map(Update::from),
        }
    }
}

/// Its labels, with its name among them, as clients of the first faas look for it.
fn labels(deployment: &Deployment) -> BTreeMap<&str, &str> {
    let own = deployment.spec.labels.iter();
    let mut labels: BTreeMap<_, _> = own
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    labels.insert("faas_function", deployment.name.as_str());
    labels
}

/// One function by itself: what the list says of it, and its endpoints, which no client of the contract looks for.
#[derive(Serialize)]
pub struct Description<'a> {
    #[serde(flatten)]
    status: FunctionStatus<'a>,
    /// What is in force other than as it was written.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<RouteStatus<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageStatus>,
    endpoints: Vec<EndpointStatus<'a>>,
}

/// What its replicas use together (wire contract §4): thousandths of a processor, and bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageStatus {
    cpu: f64,
    total_memory_bytes: f64,
}

impl From<Usage> for UsageStatus {
    fn from(usage: Usage) -> Self {
        Self {
            cpu: (usage.millicores * 1000.0).round() / 1000.0,
            total_memory_bytes: usage.memory_bytes,
        }
    }
}

/// Where a function can be called, and how that place is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointStatus<'a> {
    /// The task, or the local process.
    id: &'a str,
    address: std::net::SocketAddr,
    state: &'static str,
    since: String,
    why: String,
    in_flight: usize,
}

impl<'a> Description<'a> {
    /// A function of this namespace, with the state of its own route and of its endpoints, and what these use, if that was asked.
    #[must_use]
    pub fn of(
        function: &'a Function,
        namespace: &'a str,
        routes: &Routes,
        usage: Option<Usage>,
    ) -> Self {
        Self {
            status: FunctionStatus::of(function, namespace),
            notes: &function.deployment.spec.notes,
            route: RouteStatus::of(function, routes),
            usage: usage.map(UsageStatus::from),
            endpoints: function
                .all_endpoints()
                .map(|one| EndpointStatus::of(one))
                .collect(),
        }
    }
}

impl<'a> EndpointStatus<'a> {
    fn of(endpoint: &'a Endpoint) -> Self {
        let moved = endpoint.moved();
        Self {
            id: &endpoint.address().id,
            address: endpoint.address().socket,
            state: endpoint.state().name(),
            since: humantime::format_rfc3339_millis(moved.at).to_string(),
            why: moved.why,
            in_flight: endpoint.in_flight(),
        }
    }
}

/// Memory and processor (wire contract §4, FunctionResources).
#[derive(Serialize)]
struct FunctionResources<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<&'a str>,
}

impl<'a> FunctionResources<'a> {
    fn of(resources: &'a Resources) -> Option<Self> {
        let (memory, cpu) = (resources.memory.as_deref(), resources.cpu.as_deref());
        (memory.is_some() || cpu.is_some()).then_some(Self { memory, cpu })
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Who provides and what this is (wire contract §3.2); clients panic where a part is missing.
#[derive(Serialize)]
pub struct Info {
    provider: ProviderInfo,
    version: Version,
    arch: &'static str,
    ports: Vec<Port>,
}

/// An open port, and what it is for.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// Where it is, as a client writes it.
    pub url: String,
    /// What is answered there.
    pub serves: Serves,
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "&'static str")]
pub enum Serves {
    /// Calls, and all that is the operators'.
    Everything,
    /// Calls alone.
    Calls,
    /// What is the operators' alone.
    System,
    /// Metrics and health alone.
    Metrics,
}

impl Serves {
    /// Whether functions can be called there.
    #[must_use]
    pub fn calls(self) -> bool {
        matches!(self, Self::Everything | Self::Calls)
    }
}

impl From<Serves> for &'static str {
    fn from(serves: Serves) -> Self {
        match serves {
            Serves::Everything => "calls, /system and pages",
            Serves::Calls => "calls",
            Serves::System => "/system and pages",
            Serves::Metrics => "metrics and health",
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.url, <&str>::from(self.serves))
    }
}

#[derive(Serialize)]
struct ProviderInfo {
    provider: &'static str,
    version: Version,
    orchestration: &'static str,
}

#[derive(Serialize)]
struct Version {
    commit_message: &'static str,
    sha: &'static str,
    release: &'static str,
}

impl Info {
    /// What this gateway says of itself.
    #[must_use]
    pub fn of(orchestration: Orchestration, ports: &[Port]) -> Self {
        let version = || Version {
            commit_message: crate::GIT_SUBJECT,
            sha: crate::GIT_SHA,
            release: crate::VERSION,
        };
        let (provider, orchestration) = match orchestration {
            Orchestration::Swarm => ("skep-swarm", "swarm"),
            Orchestration::Local => ("skep-local", "local"),
        };
        Self {
            provider: ProviderInfo {
                provider,
                version: version(),
                orchestration,
            },
            version: version(),
            arch: std::env::consts::ARCH,
            ports: ports.to_vec(),
        }
    }
}
