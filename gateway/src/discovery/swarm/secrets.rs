//! Secrets on a Swarm. Docker's secrets never change, so each value is a Docker secret of its own, `<name>.<version>`; functions see
//! the newest one under a path that stays. An old version is removed once no service can come to need it.

mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use serde_json::{Value, json};

use self::versions::{
    NAME, NETWORK, OWNER, Stored, VERSION, Versions, by_name, needed, next_number, rolled,
};

use super::Swarm;
use super::TASKS;
use super::engine::EngineError;
use super::model::{Service, Task};
use super::operate::Current;
use crate::discovery::operate::{Authority, Failed, SecretValue, Trouble};
use crate::function::SecretName;

/// How often a new version is tried whose number somebody else took first.
const ATTEMPTS: usize = 8;
/// How long functions may take to be rolled to a new version before its predecessors are left to the next change.
const SWEEP_FOR: Duration = Duration::from_secs(300);
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

impl Swarm {
    async fn stored(&self) -> Result<Vec<Stored>, Failed> {
        let stored = self.engine.get("/secrets").await;
        stored.map_err(|error| self.failed(&error))
    }

    async fn all_secrets(&self) -> Result<BTreeMap<String, Versions>, Failed> {
        Ok(by_name(&self.stored().await?, &self.network))
    }

    async fn all_services(&self) -> Result<Vec<Value>, Failed> {
        self.engine
            .get("/services")
            .await
            .map_err(|error| self.failed(&error))
    }

    async fn versions(&self, name: &SecretName) -> Result<Versions, Failed> {
        let unknown = || {
            Failed::new(
                Trouble::Unknown,
                format!("secret '{name}' not found; list them with GET /system/secrets"),
            )
        };
        self.all_secrets()
            .await?
            .remove(name.as_str())
            .ok_or_else(unknown)
    }

    /// The names of all secrets.
    pub(super) async fn secret_names(&self) -> Result<Vec<String>, Failed> {
        Ok(self.all_secrets().await?.into_keys().collect())
    }

    /// The references of a service to the newest versions of these secrets.
    pub(super) async fn references(
        &self,
        names: &[String],
        authority: Authority,
    ) -> Result<Vec<Value>, Failed> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self.stored().await?;
        let all = by_name(&stored, &self.network);
        let mut references = Vec::new();
        for name in names {
            // Docker's own, which an operator has made, counts where a gateway has made none of this name.
            let dockers = || {
                stored
                    .iter()
                    .find(|one| one.spec.name == *name && !one.is_owned())
            };
            let reference = match all.get(name).and_then(|versions| versions.last()) {
                Some(newest) => newest.reference(name),
                None => match dockers() {
                    // A key for deploying could print any of them.
                    Some(_) if authority != Authority::All => {
                        return Err(Failed::new(
                            Trouble::Forbidden,
                            format!(
                                "secrets: '{name}' is a secret of Docker's own: a key needs the scope admin to give it to a function"
                            ),
                        ));
                    }
                    Some(secret) => {
                        self.check_free(secret).await?;
                        secret.reference(name)
                    }
                    None => {
                        return Err(Failed::new(
                            Trouble::Invalid,
                            format!(
                                "secrets: there is no secret '{name}'; make it with POST /system/secrets, or docker secret create"
                            ),
                        ));
                    }
                },
            };
            references.push(reference);
        }
        Ok(references)
    }

    /// A secret of Docker's that something else than functions has, such as this gateway or a database, is not for functions.
    async fn check_free(&self, secret: &Stored) -> Result<(), Failed> {
        let (network, own_address) = self.attached().await?;
        let services = self.all_services().await?;
        let tasks: Vec<Task> = self
            .engine
            .get(TASKS)
            .await
            .map_err(|error| self.failed(&error))?;
        for service in &services {
            if !needed(service).contains(secret.id.as_str()) {
                continue;
            }
            let read = serde_json::from_value::<Service>(service.clone()).ok();
            let is_function = read.is_some_and(|read| {
                let is_own = tasks.iter().any(|task| {
                    task.service_id == read.id && task.address_on(&network.id) == Some(own_address)
                });
                !is_own && read.is_function(self.require_label) && read.is_on(&network)
            });
            if !is_function {
                let (name, user) = (&secret.spec.name, &service["Spec"]["Name"]);
                return Err(Failed::new(
                    Trouble::Invalid,
                    format!(
                        "secrets: '{name}' belongs to the service {user}, which is no function: make another secret for functions"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Makes a secret.
    pub(super) async fn make_secret(
        &self,
        name: &SecretName,
        value: &SecretValue,
    ) -> Result<(), Failed> {
        let taken = || {
            Failed::new(
                Trouble::Conflict,
                format!("secret '{name}' is there already: change it with PUT"),
            )
        };
        for _ in 0..ATTEMPTS {
            let stored = self.stored().await?;
            if by_name(&stored, &self.network).contains_key(name.as_str()) {
                return Err(taken());
            }
            // Of two who make it at once, the engine lets one take the number.
            let number = next_number(&stored, name.as_str());
            if self.store(name, number, value).await? {
                return Ok(());
            }
        }
        Err(taken())
    }

    /// Gives a secret a new value, and every function that has it the new version.
    pub(super) async fn change_secret(
        self: &Arc<Self>,
        name: &SecretName,
        value: &SecretValue,
    ) -> Result<(), Failed> {
        self.store_next(name, value).await?;
        self.roll_to_newest(name).await?;
        let (swarm, name) = (self.clone(), name.clone());
        tokio::spawn(async move { swarm.sweep(&name).await });
        Ok(())
    }

    /// Removes a secret that no service has.
    pub(super) async fn remove_secret_of(&self, name: &SecretName) -> Result<(), Failed> {
        let versions = self.versions(name).await?;
        let services = self.all_services().await?;
        let users = services.iter().filter(|service| {
            versions
                .iter()
                .any(|version| needed(service).contains(version.id.as_str()))
        });
        let users: Vec<_> = users
            .filter_map(|service| service["Spec"]["Name"].as_str())
            .collect();
        if !users.is_empty() {
            let hint = "remove it from them first";
            return Err(Failed::new(
                Trouble::Conflict,
                format!("secret '{name}' is used by {}: {hint}", users.join(", ")),
            ));
        }
        for version in &versions {
            self.engine
                .delete(&format!("/secrets/{}", version.id))
                .await
                .map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    async fn store_next(&self, name: &SecretName, value: &SecretValue) -> Result<(), Failed> {
        for _ in 0..ATTEMPTS {
            // One that is not there is not made.
            self.versions(name).await?;
            let number = next_number(&self.stored().await?, name.as_str());
            if self.store(name, number, value).await? {
                return Ok(());
            }
        }
        Err(Failed::new(
            Trouble::Conflict,
            format!(
                "secret '{name}' was changed by somebody else {ATTEMPTS} times in a row: try again"
            ),
        ))
    }

    /// Stores a version; `false` if somebody else has taken its number.
    async fn store(
        &self,
        name: &SecretName,
        version: u64,
        value: &SecretValue,
    ) -> Result<bool, Failed> {
        let secret = json!({
            "Name": format!("{name}.{version}"),
            "Labels": { OWNER.0: OWNER.1, NAME: name.as_str(), VERSION: version.to_string(), NETWORK: self.network },
            "Data": STANDARD.encode(value.bytes()),
        });
        match self.engine.post("/secrets/create", &secret, None).await {
            Ok(_) => Ok(true),
            Err(EngineError::Says(StatusCode::CONFLICT, _)) => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn roll_to_newest(&self, name: &SecretName) -> Result<(), Failed> {
        let versions = self.versions(name).await?;
        let mut left = Vec::new();
        for service in self.all_services().await? {
            let Some(id) = service["ID"].as_str() else {
                continue;
            };
            if rolled(service["Spec"].clone(), name.as_str(), &versions).is_none() {
                continue;
            }
            let change =
                |spec: Value| Ok(rolled(spec.clone(), name.as_str(), &versions).unwrap_or(spec));
            let current = || async { self.read_service(id).await.map(Current::from) };
            if let Err(failed) = self.write(current, None, change).await {
                let service = service["Spec"]["Name"].as_str().unwrap_or(id);
                left.push(format!("{service} ({})", failed.sentence));
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let hint = "send it again";
        Err(Failed::new(
            Trouble::Refused,
            format!(
                "secret '{name}' has its new value, but not every function that uses it: {}; {hint}",
                left.join(", ")
            ),
        ))
    }

    /// Removes old versions as services come to need them no longer.
    async fn sweep(&self, name: &SecretName) {
        let swept = async {
            while self.sweep_once(name).await.is_ok_and(|left| left > 0) {
                tokio::time::sleep(SWEEP_PAUSE).await;
            }
        };
        if tokio::time::timeout(SWEEP_FOR, swept).await.is_err() {
            tracing::warn!(secret = %name, "an old version is still in use: it goes with the next change of the secret");
        }
    }

    /// Removes what can go now. Returns how many old versions are left.
    async fn sweep_once(&self, name: &SecretName) -> Result<usize, Failed> {
        let mut versions = self.versions(name).await?;
        versions.pop();
        let services = self.all_services().await?;
        let needed: BTreeSet<&str> = services.iter().flat_map(needed).collect();
        let mut left = 0;
        for old in &versions {
            let gone = !needed.contains(old.id.as_str())
                && self
                    .engine
                    .delete(&format!("/secrets/{}", old.id))
                    .await
                    .is_ok();
            left += usize::from(!gone);
        }
        Ok(left)
    }
}
