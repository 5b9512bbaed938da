//! The versions of secrets, as Docker tells of them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::discovery::swarm::translate::SECRETS;

/// Marks secrets that functions may read, as the Swarm provider of old did. Others, such as the gateway's own login, stay out of reach.
pub(super) const OWNER: (&str, &str) = ("com.openfaas.owner", "openfaas");
/// The name that a version belongs to, and which one it is.
pub(super) const NAME: &str = "skep.secret";
pub(super) const VERSION: &str = "skep.secret.version";
/// The network of the gateway that made it: gateways of other networks neither see nor remove it. Those from before this label belong
/// to every gateway.
pub(super) const NETWORK: &str = "skep.secret.network";

/// A secret of Docker's.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Stored {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) spec: StoredSpec,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StoredSpec {
    pub(super) name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// The versions of one secret, oldest first; never empty.
pub(super) type Versions = Vec<Stored>;

impl Stored {
    /// The name that functions of this network know it by, if they may know it at all. One that was made by other means bears its own.
    fn known_as(&self, network: &str) -> Option<&str> {
        let is_here = self.label(NETWORK).is_none_or(|made| made == network);
        (self.is_owned() && is_here).then(|| self.label(NAME).unwrap_or(&self.spec.name))
    }

    /// Whether a gateway has made it.
    pub(super) fn is_owned(&self) -> bool {
        self.label(OWNER.0) == Some(OWNER.1)
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.spec.labels.as_ref()?.get(name).map(String::as_str)
    }

    pub(super) fn version(&self) -> u64 {
        let number = self.label(VERSION).and_then(|text| text.parse().ok());
        number.unwrap_or_default()
    }

    /// How a service refers to it.
    pub(super) fn reference(&self, name: &str) -> Value {
        json!({
            "SecretID": self.id, "SecretName": self.spec.name,
            "File": { "Name": format!("{SECRETS}{name}"), "UID": "0", "GID": "0", "Mode": 0o444 },
        })
    }
}

/// All secrets that functions of this network may read, by name. Pure.
pub(super) fn by_name(stored: &[Stored], network: &str) -> BTreeMap<String, Versions> {
    let mut all: BTreeMap<String, Versions> = BTreeMap::new();
    for secret in stored {
        if let Some(name) = secret.known_as(network) {
            all.entry(name.to_owned()).or_default().push(secret.clone());
        }
    }
    all.values_mut()
        .for_each(|versions| versions.sort_by_key(Stored::version));
    all
}

/// The number of the next version: above those that any gateway has taken, since Docker keeps each name once. Pure.
pub(super) fn next_number(stored: &[Stored], name: &str) -> u64 {
    let taken = stored.iter().filter_map(|secret| {
        let number = secret.spec.name.strip_prefix(name)?.strip_prefix('.')?;
        number.parse::<u64>().ok()
    });
    taken.max().unwrap_or_default() + 1
}

/// Leads every reference to one of these versions to the newest; `None` if there is nothing to change. Pure.
pub(super) fn rolled(mut spec: Value, name: &str, versions: &Versions) -> Option<Value> {
    let newest = versions.last()?;
    let mut changed = false;
    for secret in spec["TaskTemplate"]["ContainerSpec"]["Secrets"].as_array_mut()? {
        let is_old = versions.iter().any(|old| secret["SecretID"] == *old.id)
            && secret["SecretID"] != *newest.id;
        if is_old && secret["File"]["Name"] == format!("{SECRETS}{name}") {
            *secret = newest.reference(name);
            changed = true;
        }
    }
    changed.then_some(spec)
}

/// The ids of the secrets that a service needs, or will if its running update is rolled back. Pure.
pub(super) fn needed(service: &Value) -> BTreeSet<&str> {
    let is_rolling = matches!(
        service["UpdateStatus"]["State"].as_str(),
        Some("updating" | "paused" | "rollback_started" | "rollback_paused")
    );
    let specs = [
        Some(&service["Spec"]),
        is_rolling.then(|| &service["PreviousSpec"]),
    ];
    let secrets = specs
        .into_iter()
        .flatten()
        .filter_map(|spec| spec["TaskTemplate"]["ContainerSpec"]["Secrets"].as_array());
    secrets
        .flatten()
        .filter_map(|secret| secret["SecretID"].as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(id: &str, docker_name: &str, labels: &[(&str, &str)]) -> Stored {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Stored {
            id: id.into(),
            spec: StoredSpec {
                name: docker_name.into(),
                labels: Some(labels),
            },
        }
    }

    fn version(id: &str, number: &str) -> Stored {
        stored(
            id,
            &format!("key.{number}"),
            &[OWNER, (NAME, "key"), (VERSION, number)],
        )
    }

    fn service(secrets: &[(&str, &str)]) -> Value {
        let secret = |(id, path): &(&str, &str)| json!({ "SecretID": id, "SecretName": "x", "File": { "Name": path } });
        json!({ "TaskTemplate": { "ContainerSpec": { "Secrets": secrets.iter().map(secret).collect::<Vec<_>>() } } })
    }

    #[test]
    fn only_marked_secrets_are_known_and_the_newest_version_counts() {
        let stored = [
            version("b", "10"),
            version("a", "9"),
            stored("l", "legacy", &[OWNER]),
            stored("x", "basic-auth-password", &[]),
            stored("n", "here.1", &[OWNER, (NAME, "here"), (NETWORK, "net")]),
            stored("m", "key.12", &[OWNER, (NAME, "key"), (NETWORK, "other")]),
        ];
        let all = by_name(&stored, "net");
        assert_eq!(all.keys().collect::<Vec<_>>(), ["here", "key", "legacy"]);
        assert_eq!(all["key"].last().unwrap().id, "b");
        assert_eq!(next_number(&stored, "key"), 13, "another gateway has 12");
        assert_eq!(next_number(&stored, "new"), 1);
        assert_eq!(
            all["legacy"][0].reference("legacy")["File"]["Name"],
            "/var/openfaas/secrets/legacy"
        );
    }

    #[test]
    fn references_to_old_versions_are_led_to_the_newest_and_nothing_else_is() {
        let versions = vec![version("a", "1"), version("b", "2")];
        let path = "/var/openfaas/secrets/key";
        let changed = rolled(
            service(&[("a", path), ("z", "/run/secrets/z")]),
            "key",
            &versions,
        )
        .unwrap();
        let secrets = &changed["TaskTemplate"]["ContainerSpec"]["Secrets"];
        assert_eq!(
            (&secrets[0]["SecretID"], &secrets[1]["SecretID"]),
            (&json!("b"), &json!("z"))
        );
        for untouched in [
            service(&[("b", path)]),
            service(&[("z", path)]),
            service(&[("a", "/elsewhere")]),
            json!({}),
        ] {
            assert_eq!(rolled(untouched, "key", &versions), None);
        }
    }

    #[test]
    fn a_version_is_needed_as_long_as_an_update_can_be_rolled_back_to_it() {
        let service = |state: &str| json!({ "Spec": service(&[("b", "p")]), "PreviousSpec": service(&[("a", "p")]), "UpdateStatus": { "State": state } });
        assert_eq!(needed(&service("updating")), BTreeSet::from(["a", "b"]));
        assert_eq!(needed(&service("completed")), BTreeSet::from(["b"]));
    }
}
