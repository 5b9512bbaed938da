//! The functions: what keeps each in its place, as its service says and as its container on this engine runs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Finding;
use crate::discovery::swarm::engine::Engine;
use crate::discovery::swarm::hardening::{missing_in_container, missing_in_service};

/// A task's container bears its service's name.
const CONTAINERS: &str =
    "/containers/json?filters=%7B%22label%22%3A%5B%22com.docker.swarm.service.name%22%5D%7D";
const SERVICE: &str = "com.docker.swarm.service.name";
/// So many containers are looked at, one of each function, and no more: each is a question to the engine.
const MOST: usize = 200;
/// So many functions are named.
const NAMED: usize = 5;

pub(super) async fn look(engine: &Engine, names: &[String], services: &[Value]) -> Vec<Finding> {
    let containers: Vec<Value> = engine.get(CONTAINERS).await.unwrap_or_default();
    let container_of: BTreeMap<&str, &str> = containers
        .iter()
        .filter_map(|one| one["Labels"][SERVICE].as_str().zip(one["Id"].as_str()))
        .collect();
    let mut without: BTreeMap<Vec<&'static str>, Vec<&str>> = BTreeMap::new();
    let mut asked = 0;
    for name in names {
        let Some(service) = services.iter().find(|one| one["Spec"]["Name"] == **name) else {
            continue;
        };
        let mut missing = missing_in_service(&service["Spec"]);
        if let Some(id) = container_of.get(name.as_str())
            && asked < MOST
        {
            asked += 1;
            // One that is gone by now says nothing.
            let path = format!("/containers/{id}/json");
            if let Ok(container) = engine.get::<Value>(&path).await {
                missing.extend(missing_in_container(&container["HostConfig"]));
            }
        }
        missing.sort_unstable();
        missing.dedup();
        without.entry(missing).or_default().push(name);
    }
    without
        .into_iter()
        .map(|(missing, names)| finding(&missing, &names))
        .collect()
}

fn finding(missing: &[&str], names: &[&str]) -> Finding {
    let named = names[..names.len().min(NAMED)].join(", ");
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if missing.is_empty() {
        return Finding::good("hardening", format!("all of it: {named}{more}"));
    }
    Finding::fair(
        "hardening",
        format!("without {}: {named}{more}", missing.join(", ")),
        "skep deploy asks for all of it, and engines of version 25 or newer keep it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_lack_the_same_are_told_together_and_not_all_named() {
        let all = finding(&[], &["cat"]);
        assert!(all.advice.is_none() && all.found.ends_with("cat"));
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let told = finding(&["no-new-privileges"], &names);
        assert_eq!(
            told.found,
            "without no-new-privileges: a, b, c, d, e and 2 more"
        );
        assert!(told.good && told.advice.is_some());
    }
}
