//! Which services may be changed by somebody who has no more than a key for deploying: those made through the management API, and
//! only as long as they have nothing that the API could not have given them. Pure.

use serde_json::{Value, json};

use super::translate::SECRETS;
use crate::discovery::operate::{Authority, Failed, MADE_HERE, Trouble};

/// Notes that a service is made, or was changed by an administrator, through the management API.
pub(super) fn mark(spec: &mut Value) {
    spec["Labels"][MADE_HERE] = json!("api");
}

/// Refuses a change of a service that is beyond this authority.
pub(super) fn check(spec: &Value, authority: Authority, network: &str) -> Result<(), Failed> {
    if authority == Authority::All {
        return Ok(());
    }
    let mut why = foreign(spec, network);
    if spec["Labels"][MADE_HERE] != "api" {
        why.insert(0, "was not made through this API");
    }
    if why.is_empty() {
        return Ok(());
    }
    let name = spec["Name"].as_str().unwrap_or_default();
    let sentence = format!(
        "function '{name}' is beyond a key without the scope admin: it {}",
        why.join(", ")
    );
    Err(Failed::new(Trouble::Forbidden, sentence))
}

/// What a service has that only an operator can have given it: another image would come to all of it.
fn foreign(spec: &Value, network: &str) -> Vec<&'static str> {
    let task = &spec["TaskTemplate"];
    let container = &task["ContainerSpec"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_tmp = |mount: &Value| mount["Type"] == "tmpfs" && mount["Target"] == "/tmp";
    let is_api_secret = |secret: &Value| {
        let name = secret["File"]["Name"].as_str();
        name.is_some_and(|name| name.starts_with(SECRETS))
    };
    let privileges = &container["Privileges"];
    let networks = [list(&task["Networks"]), list(&spec["Networks"])].concat();
    let findings = [
        ("has mounts", !list(&container["Mounts"]).iter().all(is_tmp)),
        ("has configs", !list(&container["Configs"]).is_empty()),
        (
            "has secrets that are not this API's",
            !list(&container["Secrets"]).iter().all(is_api_secret),
        ),
        (
            "has added capabilities",
            !list(&container["CapabilityAdd"]).is_empty(),
        ),
        (
            "has privileges",
            ["CredentialSpec", "SELinuxContext"]
                .iter()
                .any(|field| !privileges[field].is_null())
                || privileges["Seccomp"]["Mode"] == "unconfined"
                || privileges["AppArmor"]["Mode"] == "disabled",
        ),
        (
            "is on other networks",
            networks.iter().any(|one| one["Target"] != network),
        ),
        (
            "publishes ports",
            !list(&spec["EndpointSpec"]["Ports"]).is_empty(),
        ),
    ];
    let found = findings.into_iter().filter(|(_, is_so)| *is_so);
    found.map(|(what, _)| what).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Value {
        let mut spec = json!({
            "Name": "cat", "Labels": { "com.openfaas.function": "cat" },
            "TaskTemplate": {
                "ContainerSpec": {
                    "Mounts": [{ "Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": { "SizeBytes": 1 } }],
                    "Secrets": [{ "File": { "Name": format!("{SECRETS}key") } }],
                    "Privileges": { "CredentialSpec": null, "SELinuxContext": null, "Seccomp": { "Mode": "default" } },
                },
                "Networks": [{ "Target": "net" }],
            },
        });
        mark(&mut spec);
        spec
    }

    #[test]
    fn a_limited_key_changes_what_the_api_made_and_nothing_else() {
        let limited = |spec: &Value| check(spec, Authority::Api, "net");
        assert_eq!(limited(&made()), Ok(()));
        let mut unmarked = made();
        unmarked["Labels"] = json!({ "com.openfaas.function": "cat", "function": "true" });
        let told = limited(&unmarked).unwrap_err();
        assert_eq!(told.kind, Trouble::Forbidden);
        assert!(told.sentence.contains("was not made through this API"));
        for (pointer, value, says) in [
            (
                "/TaskTemplate/ContainerSpec/Mounts",
                json!([{ "Type": "bind", "Source": "/etc", "Target": "/tmp" }]),
                "has mounts",
            ),
            (
                "/TaskTemplate/ContainerSpec/Configs",
                json!([{ "ConfigID": "c" }]),
                "has configs",
            ),
            (
                "/TaskTemplate/ContainerSpec/Secrets",
                json!([{ "File": { "Name": "own" } }]),
                "secrets",
            ),
            (
                "/TaskTemplate/ContainerSpec/CapabilityAdd",
                json!(["CAP_SYS_ADMIN"]),
                "capabilities",
            ),
            (
                "/TaskTemplate/ContainerSpec/Privileges",
                json!({ "Seccomp": { "Mode": "unconfined" } }),
                "privileges",
            ),
            (
                "/TaskTemplate/Networks",
                json!([{ "Target": "net" }, { "Target": "database" }]),
                "networks",
            ),
            (
                "/EndpointSpec",
                json!({ "Ports": [{ "PublishedPort": 80 }] }),
                "ports",
            ),
        ] {
            let mut spec = made();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[field] = value;
            let told = limited(&spec).unwrap_err();
            assert!(told.sentence.contains(says), "{}", told.sentence);
            assert_eq!(check(&spec, Authority::All, "net"), Ok(()));
        }
    }
}
