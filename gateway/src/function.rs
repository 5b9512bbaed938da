//! The words everyone speaks: names, deployments, limits, replicas, addresses. Values only: no I/O, no clock.

pub mod labels;
mod name;
pub mod route;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::name::{FunctionName, MAX_NAME, NotAName, SecretName, is_name};
use self::route::{NotARoute, OwnRoute};
use crate::{duration, quantity};

/// The most replicas that a function can be given: a typing error shall not fill a cluster with tasks.
pub const MAX_REPLICAS: u64 = 1000;

/// The port a watchdog listens on unless `skep.port` says otherwise.
pub const DEFAULT_PORT: u16 = 8080;

/// Where a function answers when it is ready (wire contract §4).
const READY_PATH: &str = "com.openfaas.ready.http.path";

/// Which calls may be tried again although they may have run.
const RETRY: &str = "skep.retry";

/// Names what a function's replicas speak.
const PROTOCOL: &str = "skep.protocol";

/// Whether callers need a key.
const AUTH: &str = "skep.auth";

/// The limits that a function sets for itself by label; `None` means the gateway's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// From the request to the response head (`skep.timeout`).
    pub timeout: Option<Duration>,
    /// Between two chunks of a response body (`skep.idle-timeout`).
    pub idle_timeout: Option<Duration>,
    /// Bytes of a request body (`skep.max-body`).
    pub max_body: Option<u64>,
    /// Calls that run side by side (`skep.max-in-flight`); there is no default.
    pub max_in_flight: Option<usize>,
}

impl Limits {
    /// Reads the limits from a function's labels. A broken label is ignored; `warn` is told its name and why.
    pub fn read<'a>(
        label: impl Fn(&str) -> Option<&'a str>,
        mut warn: impl FnMut(&'static str, String),
    ) -> Self {
        let mut labels = Labels {
            label,
            warn: &mut warn,
        };
        Self {
            timeout: labels.get("skep.timeout", duration::parse),
            idle_timeout: labels.get("skep.idle-timeout", duration::parse),
            max_body: labels.get("skep.max-body", quantity::bytes),
            max_in_flight: labels.get("skep.max-in-flight", |text| {
                let count = text.trim().parse();
                count.map_err(|_| format!("'{text}' is no number of calls"))
            }),
        }
    }
}

/// The labels that are limits: each more than nothing.
struct Labels<'w, L, W> {
    label: L,
    warn: &'w mut W,
}

impl<'a, L, W> Labels<'_, L, W>
where
    L: Fn(&str) -> Option<&'a str>,
    W: FnMut(&'static str, String),
{
    fn get<T: Default + PartialEq>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let why = match parse((self.label)(name)?) {
            Ok(limit) if limit != T::default() => return Some(limit),
            Ok(_) => "it must be more than nothing".to_owned(),
            Err(why) => why,
        };
        (self.warn)(name, why);
        None
    }
}

/// How the gateway deals with a function's replicas, as the function's labels say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handling {
    /// Answers with success when a replica takes calls (`com.openfaas.ready.http.path`).
    pub ready_path: Option<Arc<str>>,
    /// Calls that may have run are tried again if their method is idempotent (`skep.retry=idempotent`).
    pub retries_idempotent: bool,
    /// What its replicas speak (`skep.protocol`).
    pub protocol: Protocol,
    /// Callers need an API key (`skep.auth=key`).
    pub asks_key: bool,
    /// Its image most likely has a watchdog: `/_/health` can be asked without running the function.
    pub expects_watchdog: bool,
}

/// What a function's replicas speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
}

impl Handling {
    /// Reads the labels; a broken one is ignored, but for the one that locks, and `warn` is told its name and why.
    pub fn read<'a>(
        label: impl Fn(&str) -> Option<&'a str>,
        mut warn: impl FnMut(&'static str, String),
    ) -> Self {
        let ready_path = label(READY_PATH).and_then(|path| {
            let is_usable =
                path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_usable {
                warn(
                    READY_PATH,
                    format!("'{path}' is not a path: write one that begins with /"),
                );
            }
            is_usable.then(|| path.into())
        });
        let retries_idempotent = match label(RETRY) {
            None => false,
            Some("idempotent") => true,
            Some(other) => {
                warn(
                    RETRY,
                    format!("'{other}' is not known: the only value is idempotent"),
                );
                false
            }
        };
        let protocol = match label(PROTOCOL) {
            None | Some("h1") => Protocol::Http1,
            Some("h2c") => Protocol::H2c,
            Some(other) => {
                warn(PROTOCOL, format!("'{other}' is not known: write h1 or h2c"));
                Protocol::Http1
            }
        };
        let asks_key = match label(AUTH) {
            None => false,
            Some("key") => true,
            Some(other) => {
                // Whoever wrote it wanted a lock.
                warn(
                    AUTH,
                    format!("'{other}' is not known, and taken for key: the only value is key"),
                );
                true
            }
        };
        Self {
            ready_path,
            retries_idempotent,
            protocol,
            asks_key,
            // The provider knows.
            expects_watchdog: false,
        }
    }

    /// The path that is asked whether a replica takes calls. Nothing is asked over HTTP/2: there a connection is enough.
    #[must_use]
    pub fn probe_path(&self) -> Option<&Arc<str>> {
        let is_asked = self.protocol == Protocol::Http1;
        self.ready_path.as_ref().filter(|_| is_asked)
    }
}

/// How many copies of a function there should be and are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// How many the operator asked for.
    pub desired: u64,
    /// How many run, as the provider sees it.
    pub running: u64,
    /// How many are on their way: told to run, not running yet.
    pub starting: u64,
}

/// What the provider says of the replicas that failed and of the last update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// The last error of a replica, while it matters: the function has too few replicas, or its update has not completed.
    pub last_error: Option<ReplicaError>,
    /// The last update; `None` if the function was not changed since it was made.
    pub update: Option<UpdateStatus>,
}

/// Why a replica failed or cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaError {
    /// The provider's own sentence, cut where it is very long.
    pub message: String,
    /// When it failed, RFC 3339.
    pub since: String,
    /// The provider's id of the replica.
    pub task: String,
    /// The id of its node; empty if it has none.
    pub node: String,
}

/// How far an update has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateStatus {
    /// In the provider's words: `updating`, `paused`, `completed`, `rollback_started`, `rollback_paused`, `rollback_completed`.
    pub state: String,
    /// The provider's sentence.
    pub message: String,
    /// When it began, RFC 3339.
    pub started_at: Option<String>,
    /// When it ended, RFC 3339.
    pub completed_at: Option<String>,
}

/// Where one running copy of a function can be dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The provider's name of the copy: a task id, or a process of the local provider.
    pub id: Arc<str>,
    /// Its address on the functions network.
    pub socket: SocketAddr,
}

/// What the operator wrote about a function, kept for the management API in the contract's own words (§4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// The image reference, as deployed.
    pub image: String,
    /// The command (`fprocess`), where it is known.
    pub env_process: Option<String>,
    /// Environment variables other than `fprocess`.
    pub env_vars: BTreeMap<String, String>,
    /// Placement constraints.
    pub constraints: Vec<String>,
    /// Names of the secrets it may read.
    pub secrets: Vec<String>,
    /// Labels, without those the platform itself adds.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Upper bounds of memory and processor.
    pub limits: Resources,
    /// Reserved memory and processor.
    pub requests: Resources,
    /// Whether its root file system is read-only.
    pub read_only: bool,
    /// When it was created, RFC 3339; `None` if nobody knows.
    pub created_at: Option<String>,
    /// What is in force other than as it was written: one sentence each.
    pub notes: Vec<String>,
}

/// Memory and processor, as text with units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes with a unit, such as `40Mi`.
    pub memory: Option<String>,
    /// Processors, such as `500m`.
    pub cpu: Option<String>,
}

/// One function as a provider lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Its full name.
    pub name: FunctionName,
    /// A shorter name it would like to answer to as well (a stack's service without the stack's prefix).
    pub short_name: Option<FunctionName>,
    /// What the operator wrote.
    pub spec: Spec,
    /// Its own limits.
    pub limits: Limits,
    /// How its replicas are dealt with.
    pub handling: Handling,
    /// The host and path that it wants for itself, if any; or what is wrong with the labels that say so.
    pub route: Result<Option<OwnRoute>, NotARoute>,
    /// Wanted, running, on their way.
    pub replicas: Replicas,
    /// What failed, and how far the last update has come.
    pub rollout: Rollout,
    /// The copies that can be dialled.
    pub addresses: Vec<Address>,
    /// The ids of those whose own health check has not passed yet: they are called only if there is no other.
    pub unhealthy: Vec<Arc<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_how_replicas_are_dealt_with_and_broken_ones_are_named() {
        let read = |path: &'static str, retry: &'static str, protocol: &'static str, auth| {
            let mut warned = Vec::new();
            let label = |name: &str| match name {
                READY_PATH => Some(path),
                RETRY => Some(retry),
                PROTOCOL => Some(protocol),
                AUTH => auth,
                _ => None,
            };
            (Handling::read(label, |name, _| warned.push(name)), warned)
        };
        let (handling, warned) = read("/ready", "idempotent", "h1", Some("key"));
        assert_eq!(handling.probe_path().map(|path| &**path), Some("/ready"));
        assert!(handling.retries_idempotent && handling.asks_key && warned.is_empty());
        let (handling, warned) = read("/ready", "idempotent", "h2c", None);
        assert!(handling.protocol == Protocol::H2c && warned.is_empty());
        assert!(handling.probe_path().is_none(), "a connection is enough");
        let (handling, warned) = read("no path", "always", "grpc", Some("off"));
        let locked = Handling {
            asks_key: true,
            ..Handling::default()
        };
        assert_eq!(handling, locked, "a lock that is not understood is closed");
        assert_eq!(warned, [READY_PATH, RETRY, PROTOCOL, AUTH]);
    }

    #[test]
    fn limits_are_read_and_broken_ones_are_named() {
        let read = |body: &'static str, in_flight: &'static str| {
            let mut warned = Vec::new();
            let label = |name: &str| match name {
                "skep.max-body" => Some(body),
                "skep.max-in-flight" => Some(in_flight),
                _ => None,
            };
            (Limits::read(label, |name, _| warned.push(name)), warned)
        };
        let (limits, warned) = read("2Mi", "3");
        assert_eq!(
            (limits.max_body, limits.max_in_flight),
            (Some(2 << 20), Some(3))
        );
        assert!(warned.is_empty() && limits.timeout.is_none());
        let (limits, warned) = read("large", "0");
        assert_eq!(limits, Limits::default());
        assert_eq!(warned, ["skep.max-body", "skep.max-in-flight"]);
    }
}
