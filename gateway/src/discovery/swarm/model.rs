//! Docker's JSON, as far as we read it. Unknown fields and values are no trouble: engines grow.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A service, as far as we read it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(default)]
    pub(super) created_at: String,
    pub(super) spec: ServiceSpec,
    #[serde(default)]
    pub(super) update_status: Option<UpdateStatus>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ServiceSpec {
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) task_template: TaskTemplate,
    #[serde(default)]
    pub(super) mode: Mode,
    #[serde(default)]
    pub(super) networks: Option<Vec<NetworkTarget>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct TaskTemplate {
    pub(super) container_spec: Option<ContainerSpec>,
    pub(super) resources: Option<ResourceSpec>,
    pub(super) placement: Option<Placement>,
    pub(super) networks: Option<Vec<NetworkTarget>>,
    pub(super) force_update: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ContainerSpec {
    pub(super) image: String,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) env: Option<Vec<String>>,
    pub(super) secrets: Option<Vec<SecretRef>>,
    pub(super) read_only: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct SecretRef {
    pub(super) secret_name: String,
    pub(super) file: Option<SecretFile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct SecretFile {
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ResourceSpec {
    pub(super) limits: Option<Amounts>,
    pub(super) reservations: Option<Amounts>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Amounts {
    #[serde(rename = "NanoCPUs")]
    pub(super) nano_cpus: i64,
    #[serde(rename = "MemoryBytes")]
    pub(super) memory_bytes: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Placement {
    pub(super) constraints: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkTarget {
    pub(super) target: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Mode {
    pub(super) replicated: Option<Replicated>,
    pub(super) global: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Replicated {
    pub(super) replicas: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UpdateStatus {
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) started_at: String,
    #[serde(default)]
    pub(super) completed_at: String,
}

/// A task, as far as we read it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Task {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "ServiceID", default)]
    pub(super) service_id: String,
    #[serde(rename = "NodeID", default)]
    pub(super) node_id: String,
    #[serde(default)]
    pub(super) spec: TaskVersion,
    pub(super) status: TaskStatus,
    pub(super) desired_state: String,
    #[serde(default)]
    pub(super) networks_attachments: Option<Vec<Attachment>>,
}

/// What tells the tasks of one version of a service from those of the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct TaskVersion {
    pub(super) container_spec: Option<TaskImage>,
    pub(super) force_update: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct TaskImage {
    pub(super) image: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TaskStatus {
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) timestamp: String,
    /// Why it failed, or why no node takes it.
    #[serde(default)]
    pub(super) err: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Attachment {
    #[serde(default)]
    pub(super) network: Option<AttachedNetwork>,
    #[serde(default)]
    pub(super) addresses: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct AttachedNetwork {
    #[serde(rename = "ID", default)]
    pub(super) id: String,
}

/// A network, as far as we read it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    #[serde(rename = "IPAM", default)]
    pub(super) ipam: Option<Ipam>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Ipam {
    #[serde(default)]
    pub(super) config: Option<Vec<IpamConfig>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct IpamConfig {
    #[serde(default)]
    pub(super) subnet: String,
}
