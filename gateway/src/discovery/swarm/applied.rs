//! What the gateway has set on a service, so that a later change replaces that and leaves alone what an operator has set by hand. Pure.

use std::collections::BTreeMap;
use std::hash::Hasher;

use fnv::FnvHasher;
use serde_json::{Map, Value, json};

use crate::discovery::operate::ASKED;

/// The prefix of the labels that Docker itself adds, by which a stack knows its services.
const DOCKERS: &str = "com.docker.";

/// What was set before, and what is set now: digests of values by their place.
pub(super) struct Applied {
    before: Before,
    now: BTreeMap<String, String>,
}

enum Before {
    /// The gateway said what it had set.
    Known(BTreeMap<String, String>),
    /// A gateway made the service and did not say: what it sets is its own.
    Unsaid,
    /// Somebody else made the service.
    Nothing,
}

impl Applied {
    /// What was set on this service.
    pub(super) fn before(spec: &Value) -> Self {
        let labels = &spec["Labels"];
        let record = labels[&label()].as_str();
        let is_made_here = |labels: &Value| {
            labels["com.openfaas.function"] == spec["Name"] && labels["function"] == "true"
        };
        let container = &spec["TaskTemplate"]["ContainerSpec"];
        let before = match record.and_then(|text| serde_json::from_str(text).ok()) {
            Some(known) => Before::Known(known),
            None if is_made_here(labels) && is_made_here(&container["Labels"]) => Before::Unsaid,
            None => Before::Nothing,
        };
        Self {
            before,
            now: BTreeMap::new(),
        }
    }

    /// Whether the gateway has set this value there.
    pub(super) fn was_set(&self, place: &str, value: &Value) -> bool {
        match &self.before {
            Before::Known(known) => known
                .get(place)
                .is_some_and(|known| *known == digest(value)),
            Before::Unsaid => true,
            Before::Nothing => false,
        }
    }

    /// Whether the service has a gateway's word on what was set.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.before, Before::Known(_))
    }

    /// The gateway sets this value there.
    pub(super) fn set(&mut self, place: &str, value: &Value) {
        self.now.insert(place.to_owned(), digest(value));
    }

    /// Sets these labels. Of those that are there, Docker's own and an operator's stay.
    pub(super) fn set_labels(
        &mut self,
        place: &str,
        labels: &mut Value,
        elsewhere: &Value,
        wanted: BTreeMap<String, String>,
    ) {
        let is_kept = |(name, value): &(&String, &Value)| {
            if name.starts_with(ASKED) {
                return false;
            }
            // A gateway that did not say so set each label on the service and on its containers.
            let is_ours = match self.before {
                Before::Unsaid => elsewhere[name.as_str()] == **value,
                _ => self.was_set(&format!("{place}{name}"), value),
            };
            name.starts_with(DOCKERS) || !is_ours
        };
        let there = labels.as_object().into_iter().flatten().filter(is_kept);
        let mut all: Map<String, Value> = there
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        for (name, value) in wanted {
            let value = json!(value);
            self.set(&format!("{place}{name}"), &value);
            all.insert(name, value);
        }
        *labels = Value::Object(all);
    }

    /// Sets these elements of a list, each known by its key. Of those that are there, an operator's stay, unless one of the same key is
    /// set.
    pub(super) fn set_list(
        &mut self,
        place: &str,
        list: &mut Value,
        wanted: Vec<Value>,
        key: impl Fn(&Value) -> String,
        what: impl Fn(&Value) -> Value,
    ) {
        let named: Vec<String> = wanted.iter().map(&key).collect();
        let there = list.as_array().into_iter().flatten();
        let kept: Vec<Value> = there
            .filter(|one| {
                let key = key(one);
                !named.contains(&key) && !self.was_set(&format!("{place}{key}"), &what(one))
            })
            .cloned()
            .collect();
        for (one, key) in wanted.iter().zip(&named) {
            self.set(&format!("{place}{key}"), &what(one));
        }
        *list = wanted.into_iter().chain(kept).collect();
    }

    /// Writes down what is set now.
    pub(super) fn write(self, spec: &mut Value) {
        spec["Labels"][label()] = json!(json!(self.now).to_string());
    }
}

/// Reserved and not shown, as all labels of this prefix.
fn label() -> String {
    format!("{ASKED}set")
}

/// Short, and the same in every version of the gateway.
fn digest(value: &Value) -> String {
    let mut hasher = FnvHasher::default();
    hasher.write(value.to_string().as_bytes());
    format!("{:08x}", hasher.finish() as u32)
}
