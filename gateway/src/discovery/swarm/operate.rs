//! Changing functions on a Swarm: each change reads a service, changes its JSON and writes it back at the version that was read.

use std::future::Future;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::Value;
use tokio::sync::mpsc;

use super::Swarm;
use super::amounts::Bound;
use super::engine::EngineError;
use super::hardening;
use super::model::{Network, Service, Task};
use super::ownership;
use super::registry;
use super::spec::{self, Ground};
use super::translate;
use crate::discovery::operate::{
    Authority, Doing, Failed, LogLine, LogsAsked, Notes, Operator, Replica, SecretValue, Trouble,
    Wanted,
};
use crate::discovery::usage::Usage;
use crate::function::{FunctionName, SecretName};

/// How often a change is tried when somebody else changed the service in between.
const ATTEMPTS: usize = 8;

/// A service as the engine has it now.
pub(super) struct Current {
    pub(super) id: String,
    version: u64,
    pub(super) spec: Value,
}

impl From<Value> for Current {
    fn from(mut found: Value) -> Self {
        Self {
            id: found["ID"].as_str().unwrap_or_default().to_owned(),
            version: found["Version"]["Index"].as_u64().unwrap_or_default(),
            spec: found["Spec"].take(),
        }
    }
}

impl Operator for Arc<Swarm> {
    fn create(&self, wanted: Wanted, authority: Authority) -> Doing<'_, Notes> {
        Box::pin(self.make(wanted, authority))
    }

    fn update(&self, wanted: Wanted, authority: Authority) -> Doing<'_, Notes> {
        Box::pin(async move {
            let (network, _) = self.attached().await?;
            // One that is not there is told before a login that is wrong: clients make it then.
            let current = self.current(&wanted.name).await?;
            ownership::check(&current.spec, authority, &network.id)?;
            let ground = self.ground(&network, &wanted, authority).await?;
            let (login, mut notes) = self.log_in(&wanted).await?;
            let login = login.or_else(|| registry::forgotten(&current.spec, &wanted.spec.image));
            let change = |spec| {
                ownership::check(&spec, authority, &network.id)?;
                let mut spec = spec::update(spec, &wanted, &ground);
                ownership::mark(&mut spec);
                Ok(spec)
            };
            notes.extend(raised(&wanted));
            notes.extend(self.change(&wanted.name, login, change).await?);
            Ok(notes)
        })
    }

    fn scale(&self, name: FunctionName, replicas: u64, authority: Authority) -> Doing<'_, ()> {
        Box::pin(async move {
            let (network, _) = self.attached().await?;
            let change = |mut spec: Value| {
                ownership::check(&spec, authority, &network.id)?;
                if spec::scale(&mut spec, replicas) {
                    Ok(spec)
                } else {
                    Err(Failed::new(
                        Trouble::Conflict,
                        format!(
                            "function '{name}' runs once on each node (mode global): it cannot be scaled"
                        ),
                    ))
                }
            };
            self.change(&name, None, change).await.map(drop)
        })
    }

    fn remove(&self, name: FunctionName, authority: Authority) -> Doing<'_, ()> {
        Box::pin(async move {
            let (network, _) = self.attached().await?;
            let current = self.current(&name).await?;
            ownership::check(&current.spec, authority, &network.id)?;
            self.engine
                .delete(&format!("/services/{}", current.id))
                .await
                .map_err(|error| match error {
                    EngineError::Says(StatusCode::NOT_FOUND, _) => {
                        Failed::no_function(name.as_str())
                    }
                    error => self.failed(&error),
                })
        })
    }

    fn logs(&self, asked: LogsAsked) -> Doing<'_, mpsc::Receiver<LogLine>> {
        Box::pin(async move { self.read_logs(&asked).await })
    }

    fn replicas(&self, name: FunctionName) -> Doing<'_, Vec<Replica>> {
        Box::pin(async move { self.replicas_of(&name).await })
    }

    fn usage(&self, name: FunctionName) -> Doing<'_, Option<Usage>> {
        Box::pin(async move { self.usage_of(&name).await })
    }

    fn end_replica(&self, name: FunctionName, id: String, authority: Authority) -> Doing<'_, ()> {
        Box::pin(async move { self.end_one(&name, &id, authority).await })
    }

    fn end_replicas(&self, name: FunctionName, authority: Authority) -> Doing<'_, ()> {
        Box::pin(async move { self.replace_all(&name, authority).await })
    }

    fn secrets(&self) -> Doing<'_, Vec<String>> {
        Box::pin(self.secret_names())
    }

    fn create_secret(&self, name: SecretName, value: SecretValue) -> Doing<'_, ()> {
        Box::pin(async move { self.make_secret(&name, &value).await })
    }

    fn update_secret(&self, name: SecretName, value: SecretValue) -> Doing<'_, ()> {
        Box::pin(async move { self.change_secret(&name, &value).await })
    }

    fn remove_secret(&self, name: SecretName) -> Doing<'_, ()> {
        Box::pin(async move { self.remove_secret_of(&name).await })
    }
}

impl Swarm {
    async fn make(&self, wanted: Wanted, authority: Authority) -> Result<Notes, Failed> {
        let (network, _) = self.attached().await?;
        let ground = self.ground(&network, &wanted, authority).await?;
        let (registry, mut notes) = self.log_in(&wanted).await?;
        let mut asked = spec::create(&wanted, &ground);
        ownership::mark(&mut asked);
        let made = self.engine.post("/services/create", &asked, registry).await;
        let made = made.map_err(|error| match error {
            EngineError::Says(StatusCode::CONFLICT, _) => {
                let hint = "change it with PUT, or choose another name";
                Failed::new(
                    Trouble::Conflict,
                    format!("service: '{}' is there already: {hint}", wanted.name),
                )
            }
            error => self.failed(&error),
        })?;
        notes.extend(raised(&wanted));
        let id = made["ID"].as_str().unwrap_or_default();
        notes.extend(self.lost(id, &asked).await);
        Ok(notes)
    }

    /// What this engine did not keep of what we asked for; nothing if it cannot be asked any more.
    async fn lost(&self, id: &str, asked: &Value) -> Notes {
        let Ok(kept) = self.engine.get::<Value>(&format!("/services/{id}")).await else {
            return Notes::new();
        };
        let lost = hardening::dropped(asked, &kept["Spec"]);
        if lost.is_empty() {
            return Notes::new();
        }
        vec![format!(
            "this engine is too old for, and left out: {}",
            lost.join(", ")
        )]
    }

    async fn ground<'a>(
        &self,
        network: &'a Network,
        wanted: &Wanted,
        authority: Authority,
    ) -> Result<Ground<'a>, Failed> {
        Ok(Ground {
            network: &network.id,
            timeout: self.longest_call,
            secrets: self.references(&wanted.spec.secrets, authority).await?,
        })
    }

    /// Changes a function's service.
    async fn change(
        &self,
        name: &FunctionName,
        registry: Option<HeaderValue>,
        change: impl Fn(Value) -> Result<Value, Failed>,
    ) -> Result<Notes, Failed> {
        self.write(|| self.current(name), registry, change).await
    }

    /// Changes a service. Whoever changes it at the same time is not overwritten: the change is made again on what they wrote.
    pub(super) async fn write<F: Future<Output = Result<Current, Failed>>>(
        &self,
        current: impl Fn() -> F,
        registry: Option<HeaderValue>,
        change: impl Fn(Value) -> Result<Value, Failed>,
    ) -> Result<Notes, Failed> {
        // Without a login of its own an update keeps the one that the service was made with.
        let login = if registry.is_some() {
            ""
        } else {
            "&registryAuthFrom=spec"
        };
        for _ in 0..ATTEMPTS {
            let Current { id, version, spec } = current().await?;
            let spec = change(spec)?;
            let path = format!("/services/{id}/update?version={version}{login}");
            match self.engine.post(&path, &spec, registry.clone()).await {
                Ok(_) => return Ok(self.lost(&id, &spec).await),
                Err(error) if error.is_stale() => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        let why = format!("somebody else changed it {ATTEMPTS} times in a row: try again");
        Err(Failed::new(Trouble::Conflict, why))
    }

    /// The service of a function: one that calls can be routed to. Infrastructure and the gateway itself are none.
    pub(super) async fn current(&self, name: &FunctionName) -> Result<Current, Failed> {
        let (network, own_address) = self.attached().await?;
        let found = self.read_service(name.as_str()).await?;
        let unreadable = |error: serde_json::Error| {
            Failed::new(
                Trouble::Refused,
                format!("the engine's description of '{name}': {error}"),
            )
        };
        let service: Service = serde_json::from_value(found.clone()).map_err(unreadable)?;
        let filter = format!(
            "/tasks?filters=%7B%22service%22%3A%5B%22{}%22%5D%2C%22desired-state%22%3A%5B%22running%22%5D%7D",
            service.id
        );
        let tasks: Vec<Task> = self
            .engine
            .get(&filter)
            .await
            .map_err(|error| self.failed(&error))?;
        let is_own = tasks
            .iter()
            .any(|task| task.address_on(&network.id) == Some(own_address));
        // The engine also finds a service by its id.
        if service.spec.name != name.as_str() || is_own || !service.is_function(self.require_label)
        {
            return Err(Failed::no_function(name.as_str()));
        }
        if !service.is_on(&network) {
            return Err(Failed::new(
                Trouble::Unknown,
                translate::not_attached(name.as_str(), &network.name),
            ));
        }
        Ok(Current::from(found))
    }

    /// The engine's own description of a service.
    pub(super) async fn read_service(&self, name: &str) -> Result<Value, Failed> {
        self.engine
            .get(&format!("/services/{name}"))
            .await
            .map_err(|error| match error {
                EngineError::Says(StatusCode::NOT_FOUND, _) => Failed::no_function(name),
                error => self.failed(&error),
            })
    }

    /// The network that calls are routed on, and our address there.
    pub(super) async fn attached(&self) -> Result<(Network, std::net::IpAddr), Failed> {
        self.place().await.map_err(|unlisted| {
            Failed::new(
                Trouble::Away,
                format!("nothing was changed: {}", unlisted.0),
            )
        })
    }

    /// What an engine's error means to whoever asked for a change.
    pub(super) fn failed(&self, error: &EngineError) -> Failed {
        let told = self.unlisted(error).0;
        let kind = error.trouble();
        let sentence = match (kind, error) {
            (Trouble::Away, _) => format!("nothing was changed: {told}"),
            (Trouble::Invalid, EngineError::Says(_, message)) => {
                format!("Docker does not take it: {}", description(message))
            }
            _ => told,
        };
        Failed::new(kind, sentence)
    }
}

/// Amounts that are more in force than was written.
fn raised(wanted: &Wanted) -> impl Iterator<Item = String> {
    let limits = Bound::Limits.note(&wanted.spec.limits);
    limits
        .into_iter()
        .chain(Bound::Requests.note(&wanted.spec.requests))
}

/// What is behind `rpc error: code = … desc = `.
fn description(message: &str) -> &str {
    let behind = message
        .strip_prefix("rpc error: code = ")
        .and_then(|rest| rest.split_once(" desc = "));
    behind.map_or(message, |(_, description)| description)
}

impl EngineError {
    /// Whose mistake it is. Swarm says of constraints and of too large services with a 500 that they are invalid.
    fn trouble(&self) -> Trouble {
        let Self::Says(status, message) = self else {
            return match self {
                Self::Away(_) => Trouble::Away,
                _ => Trouble::Refused,
            };
        };
        let is_invalid = message.starts_with("rpc error: code = InvalidArgument ")
            || message.starts_with("rpc error: code = Unknown ")
                && (message.ends_with(" is invalid") || message.contains("too large"));
        match *status {
            StatusCode::CONFLICT => Trouble::Conflict,
            StatusCode::NOT_FOUND => Trouble::Unknown,
            StatusCode::SERVICE_UNAVAILABLE => Trouble::Away,
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => Trouble::Invalid,
            _ if is_invalid => Trouble::Invalid,
            _ => Trouble::Refused,
        }
    }

    /// Somebody else wrote first. Engines say so with a 500 (docs/decisions/0021).
    fn is_stale(&self) -> bool {
        matches!(self, Self::Says(_, message) if message.contains("out of sequence"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_does_not_take_is_told_from_a_docker_that_fails() {
        let says = |status: u16, message: &str| {
            EngineError::Says(StatusCode::from_u16(status).unwrap(), message.into())
        };
        for (status, message, kind) in [
            (
                400,
                "rpc error: code = InvalidArgument desc = ContainerSpec: no",
                Trouble::Invalid,
            ),
            (
                500,
                "rpc error: code = InvalidArgument desc = x",
                Trouble::Invalid,
            ),
            (
                500,
                "rpc error: code = Unknown desc = value 'worker; x' is invalid",
                Trouble::Invalid,
            ),
            (
                500,
                "rpc error: code = Unknown desc = raft: raft message is too large and can't be sent",
                Trouble::Invalid,
            ),
            (422, "x", Trouble::Invalid),
            (404, "service x not found", Trouble::Unknown),
            (409, "x", Trouble::Conflict),
            (403, "this proxy allows no changes", Trouble::Refused),
            (
                500,
                "rpc error: code = Unknown desc = no space left",
                Trouble::Refused,
            ),
            (500, "a value is invalid", Trouble::Refused),
            (503, "This node is not a swarm manager", Trouble::Away),
        ] {
            assert_eq!(says(status, message).trouble(), kind, "{status} {message}");
        }
        let message = "rpc error: code = Unknown desc = key 'a' is invalid";
        assert_eq!(description(message), "key 'a' is invalid");
        assert_eq!(description("as it is"), "as it is");
    }

    #[test]
    fn a_version_conflict_is_known_by_its_words() {
        let stale = "rpc error: code = Unknown desc = update out of sequence";
        assert!(EngineError::Says(StatusCode::INTERNAL_SERVER_ERROR, stale.into()).is_stale());
        assert!(
            !EngineError::Says(StatusCode::INTERNAL_SERVER_ERROR, "no space left".into())
                .is_stale()
        );
    }
}
