//! What keeps a function in its place: asked for with every service, and looked for in what the engine keeps and runs. Pure.

use serde_json::{Value, json};

const CAPABILITIES: &str = "dropping all capabilities";
const PRIVILEGES: &str = "no-new-privileges";
const PROCESSES: &str = "the limit of processes";

/// Everything that an engine may leave out of a service, by its place in the service's JSON.
const ASKED: [(&str, &str); 6] = [
    ("/TaskTemplate/ContainerSpec/CapabilityDrop", CAPABILITIES),
    (
        "/TaskTemplate/ContainerSpec/Privileges/NoNewPrivileges",
        PRIVILEGES,
    ),
    (
        "/TaskTemplate/ContainerSpec/Privileges/Seccomp",
        "the seccomp profile",
    ),
    ("/TaskTemplate/Resources/Limits/Pids", PROCESSES),
    ("/TaskTemplate/ContainerSpec/ReadOnly", "the read-only root"),
    (
        "/TaskTemplate/ContainerSpec/Healthcheck/StartInterval",
        "frequent health checks at the start",
    ),
];

/// What was asked for and is not in the spec that the engine keeps: an older engine drops what it does not know.
pub(super) fn dropped(asked: &Value, kept: &Value) -> Vec<&'static str> {
    let has = |spec: &Value, place| spec.pointer(place).is_some_and(is_something);
    ASKED
        .into_iter()
        .filter(|(place, _)| has(asked, place) && !has(kept, place))
        .map(|(_, what)| what)
        .collect()
}

/// What a service as the engine keeps it runs without. The engine's own seccomp profile applies to all of them, whatever they say.
#[must_use]
pub fn missing_in_service(spec: &Value) -> Vec<&'static str> {
    ASKED
        .into_iter()
        .filter(|(_, what)| [CAPABILITIES, PRIVILEGES, PROCESSES].contains(what))
        .filter(|(place, _)| !spec.pointer(place).is_some_and(is_something))
        .map(|(_, what)| what)
        .collect()
}

/// What a container, as its engine runs it, is without.
#[must_use]
pub fn missing_in_container(host_config: &Value) -> Vec<&'static str> {
    let texts = |field: &str| {
        let list = host_config[field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).collect::<Vec<_>>()
    };
    let is_private =
        |option: &&str| option.starts_with("no-new-privileges") && !option.ends_with("false");
    let is_there = [
        (CAPABILITIES, texts("CapDrop").contains(&"ALL")),
        (PRIVILEGES, texts("SecurityOpt").iter().any(is_private)),
        (
            PROCESSES,
            host_config["PidsLimit"]
                .as_i64()
                .is_some_and(|most| most > 0),
        ),
    ];
    let missing = is_there.into_iter().filter(|(_, there)| !there);
    missing.map(|(what, _)| what).collect()
}

fn is_something(value: &Value) -> bool {
    ![json!(null), json!(false), json!(0), json!([])].contains(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_left_out_is_found_in_what_it_keeps() {
        let asked = json!({ "TaskTemplate": {
            "ContainerSpec": {
                "CapabilityDrop": ["ALL"], "ReadOnly": false, "Privileges": { "NoNewPrivileges": true, "Seccomp": { "Mode": "default" } },
            },
            "Resources": { "Limits": { "Pids": 1024 } },
        } });
        let kept = json!({ "TaskTemplate": {
            "ContainerSpec": { "CapabilityDrop": ["ALL"] }, "Resources": { "Limits": { "Pids": 1024 } },
        } });
        assert_eq!(dropped(&asked, &kept), [PRIVILEGES, "the seccomp profile"]);
        assert_eq!(dropped(&asked, &asked), [""; 0]);
        assert_eq!(missing_in_service(&kept), [PRIVILEGES]);
        assert_eq!(
            missing_in_service(&json!({})),
            [CAPABILITIES, PRIVILEGES, PROCESSES]
        );
    }

    #[test]
    fn what_counts_is_what_runs() {
        let plain = json!({ "CapDrop": null, "SecurityOpt": null, "PidsLimit": null });
        assert_eq!(
            missing_in_container(&plain),
            [CAPABILITIES, PRIVILEGES, PROCESSES]
        );
        let hard =
            json!({ "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "PidsLimit": 1024 });
        assert_eq!(missing_in_container(&hard), [""; 0]);
    }
}
