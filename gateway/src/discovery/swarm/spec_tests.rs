//! Services made and changed, the latter on JSON recorded from an engine (20.10.24).

use serde_json::{Value, json};

use super::*;
use crate::discovery::operate::RegistryLogin;
use crate::discovery::swarm::hardening::dropped;
use crate::discovery::swarm::model::Service;
use crate::function::{FunctionName, Spec};

fn ground() -> Ground<'static> {
    Ground {
        network: "net1",
        timeout: Duration::from_secs(60),
        secrets: vec![
            json!({ "SecretID": "s1", "SecretName": "key.1", "File": { "Name": "/var/openfaas/secrets/key" } }),
        ],
    }
}

fn wanted() -> Wanted {
    let text = |text: &str| Some(text.to_owned());
    let pairs = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    Wanted {
        name: FunctionName::new("cat").unwrap(),
        spec: Spec {
            image: "skep/cat:2".into(),
            env_process: text("cat -n"),
            env_vars: pairs(&[("A", "b=c")]),
            constraints: vec!["node.role==worker".into()],
            secrets: vec!["key".into()],
            labels: pairs(&[
                ("team", "x"),
                ("com.openfaas.scale.min", "2"),
                ("skep.timeout", "90s"),
            ]),
            annotations: pairs(&[("topic", "t")]),
            limits: Resources {
                memory: text("40m"),
                cpu: text("0.5"),
            },
            requests: Resources {
                memory: text("20Mi"),
                cpu: None,
            },
            read_only: true,
            created_at: None,
            notes: Vec::new(),
        },
        limits: Amounts {
            memory: Some(40 << 20),
            nano_cpus: Some(500_000_000),
        },
        requests: Amounts {
            memory: Some(20 << 20),
            nano_cpus: None,
        },
        registry: Some(RegistryLogin {
            user: "me".into(),
            password: "hunter2".into(),
        }),
    }
}

/// The same function, with nothing but an image.
fn bare() -> Wanted {
    Wanted {
        spec: Spec {
            image: "skep/cat:2".into(),
            ..Spec::default()
        },
        limits: Amounts::default(),
        requests: Amounts::default(),
        ..wanted()
    }
}

/// A service as the engine has it, with a health check and a mount that only an operator can have set.
fn recorded() -> Value {
    let services: Value =
        serde_json::from_str(include_str!("../../../tests/recorded/services.json")).unwrap();
    let mut spec = services[0]["Spec"].clone();
    assert_eq!(spec["Name"], "rec_echo");
    let container = &mut spec["TaskTemplate"]["ContainerSpec"];
    container["Healthcheck"] = json!({ "Test": ["CMD", "x"] });
    container["Mounts"] = json!([{ "Type": "volume", "Source": "data", "Target": "/data" }]);
    container["Secrets"] = json!([
        { "SecretID": "o", "SecretName": "other", "File": { "Name": "other" } },
        { "SecretID": "s0", "SecretName": "key.0", "File": { "Name": "/var/openfaas/secrets/key" } },
    ]);
    spec
}

/// What the service says when it is listed.
fn told(spec: &Value) -> Spec {
    let service = json!({ "ID": "x", "Spec": spec });
    serde_json::from_value::<Service>(service).unwrap().spec()
}

#[test]
fn a_new_service_has_everything_that_was_wanted() {
    let spec = create(&wanted(), &ground());
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["Image"], "skep/cat:2");
    assert_eq!(container["Env"], json!(["fprocess=cat -n", "A=b=c"]));
    assert_eq!(container["Secrets"][0]["SecretID"], "s1");
    assert_eq!(
        container["Mounts"],
        json!([{ "Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": { "SizeBytes": 64 << 20 } }])
    );
    assert_eq!(
        spec["TaskTemplate"]["Resources"]["Limits"],
        json!({ "MemoryBytes": 40 << 20, "NanoCPUs": 500_000_000, "Pids": 1024 })
    );
    assert_eq!(
        spec["TaskTemplate"]["Resources"]["Reservations"],
        json!({ "MemoryBytes": 20 << 20 })
    );
    assert_eq!(
        spec["TaskTemplate"]["Networks"],
        json!([{ "Target": "net1" }])
    );
    assert_eq!(spec["Mode"]["Replicated"]["Replicas"], 2);
    assert_eq!(
        (
            &spec["UpdateConfig"]["Order"],
            &spec["UpdateConfig"]["FailureAction"]
        ),
        (&json!("start-first"), &json!("rollback"))
    );
    assert_eq!(spec["EndpointSpec"]["Mode"], "dnsrr");
    assert!(
        !spec.to_string().contains("hunter2"),
        "a login is no part of a service"
    );
}

#[test]
fn a_new_service_is_hardened() {
    let spec = create(&wanted(), &ground());
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["CapabilityDrop"], json!(["ALL"]));
    assert_eq!(container["Privileges"]["NoNewPrivileges"], true);
    assert_eq!(container["ReadOnly"], true);
    assert_eq!(dropped(&spec, &spec), [""; 0]);
    let mut kept = spec.clone();
    kept["TaskTemplate"]["ContainerSpec"]["Privileges"] = json!({ "SELinuxContext": null });
    kept["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = json!({});
    assert_eq!(
        dropped(&spec, &kept),
        [
            "no-new-privileges",
            "the seccomp profile",
            "frequent health checks at the start"
        ]
    );
}

#[test]
fn what_was_wanted_is_told_back_in_the_same_words() {
    let told = told(&create(&wanted(), &ground()));
    assert_eq!(told, wanted().spec);
}

#[test]
fn an_amount_that_was_changed_behind_our_back_is_told_as_it_is() {
    let mut spec = create(&wanted(), &ground());
    spec["TaskTemplate"]["Resources"]["Limits"]["MemoryBytes"] = json!(64 << 20);
    assert_eq!(told(&spec).limits.memory.as_deref(), Some("64Mi"));
}

#[test]
fn an_update_replaces_what_was_wanted_and_keeps_what_others_set() {
    let before = recorded();
    let spec = update(before.clone(), &wanted(), &ground());
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["Env"], json!(["fprocess=cat -n", "A=b=c"]));
    assert_eq!(spec["UpdateConfig"]["Order"], "start-first");
    assert_eq!(
        container["Healthcheck"],
        json!({ "Test": ["CMD", "x"] }),
        "a client of bollard's would delete it"
    );
    assert_eq!(container["Mounts"][0]["Target"], "/data");
    let secrets: Vec<_> = container["Secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|secret| secret["SecretID"].as_str().unwrap())
        .collect();
    assert_eq!(
        secrets,
        ["o", "s1"],
        "the old version goes, the operator's own stays"
    );
    assert!(
        container["CapabilityDrop"].is_null(),
        "hardening is asked for when a service is made"
    );
    assert_eq!(
        spec["Labels"]["com.docker.stack.namespace"], "rec",
        "the stack still knows its service"
    );
    assert_eq!(
        spec["Labels"]["skep.port"], "nonsense",
        "it is the stack file's, as no gateway has set it"
    );
    assert_eq!(spec["Labels"]["skep.timeout"], "90s");
    assert_eq!(spec["Mode"], before["Mode"], "replicas stay");
    assert_eq!(
        spec["TaskTemplate"]["Networks"],
        before["TaskTemplate"]["Networks"]
    );
    assert_eq!(
        spec["TaskTemplate"]["ForceUpdate"], 1,
        "the same tag may name another image"
    );
}

#[test]
fn what_is_no_longer_wanted_goes() {
    let full = create(&wanted(), &ground());
    let bare = bare();
    let nothing = Ground {
        secrets: Vec::new(),
        ..ground()
    };
    let spec = update(full, &bare, &nothing);
    assert_eq!(told(&spec), bare.spec);
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Env"], json!([]));
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Mounts"], json!([]));
    assert_eq!(
        spec["TaskTemplate"]["Resources"]["Limits"],
        json!({ "Pids": 1024 })
    );
}

#[test]
fn a_task_is_given_the_time_of_its_longest_call_to_end() {
    let grace = |timeout: Option<&str>, exec: Option<&str>| {
        let mut wanted = wanted();
        wanted.spec.labels = timeout
            .map(|time| ("skep.timeout".to_owned(), time.to_owned()))
            .into_iter()
            .collect();
        wanted.spec.env_vars = exec
            .map(|time| ("exec_timeout".to_owned(), time.to_owned()))
            .into_iter()
            .collect();
        create(&wanted, &ground())["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"]
            .as_u64()
            .unwrap()
            / 1_000_000_000
    };
    assert_eq!(grace(None, None), 65);
    assert_eq!(grace(Some("10s"), None), 15);
    assert_eq!(grace(Some("10s"), Some("2m")), 125);
    assert_eq!(grace(None, Some("0")), 65, "no limit of its own");
}

#[test]
fn only_a_replicated_service_is_scaled() {
    let mut spec = recorded();
    assert!(scale(&mut spec, 0));
    assert_eq!(spec["Mode"]["Replicated"]["Replicas"], 0);
    spec["Mode"] = json!({ "Global": {} });
    assert!(!scale(&mut spec, 1));
}

/// What an operator does by hand to a service that a gateway has made.
fn changed_by_hand(spec: &mut Value) {
    spec["UpdateConfig"] =
        json!({ "Parallelism": 2, "Order": "stop-first", "FailureAction": "pause" });
    spec["RollbackConfig"]["Parallelism"] = json!(3);
    spec["Labels"]["by-hand"] = json!("1");
    spec["Labels"]["team"] = json!("y");
    spec["EndpointSpec"] = json!({ "Mode": "vip", "Ports": [{ "TargetPort": 8080 }] });
    let task = &mut spec["TaskTemplate"];
    task["RestartPolicy"] = json!({ "Condition": "on-failure" });
    task["LogDriver"] = json!({ "Name": "json-file" });
    task["Networks"] = json!([{ "Target": "net1" }, { "Target": "more" }]);
    task["Placement"]["Preferences"] =
        json!([{ "Spread": { "SpreadDescriptor": "node.labels.az" } }]);
    task["Placement"]["Constraints"]
        .as_array_mut()
        .unwrap()
        .push(json!("node.labels.ssd==1"));
    task["Resources"]["Limits"]["Pids"] = json!(77);
    task["Resources"]["Reservations"]["NanoCPUs"] = json!(1);
    let container = &mut task["ContainerSpec"];
    container["StopGracePeriod"] = json!(305_000_000_000_u64);
    container["Labels"]["by-hand"] = json!("2");
    container["Configs"] = json!([{ "ConfigID": "c" }]);
    container["Healthcheck"] = json!({ "Test": ["CMD", "x"] });
    container["Env"]
        .as_array_mut()
        .unwrap()
        .push(json!("HAND=1"));
    let mounts = container["Mounts"].as_array_mut().unwrap();
    mounts.push(json!({ "Type": "volume", "Source": "data", "Target": "/data" }));
    let secret = json!({ "SecretID": "h", "SecretName": "hand", "File": { "Name": "/var/openfaas/secrets/hand" } });
    container["Secrets"].as_array_mut().unwrap().push(secret);
}

#[test]
fn what_an_operator_has_set_by_hand_stays_whatever_is_deployed() {
    let made = create(&wanted(), &ground());
    let mut by_hand = made.clone();
    changed_by_hand(&mut by_hand);
    let mut other = wanted();
    other.spec.labels.remove("team");
    other.spec.labels.remove("skep.timeout");
    other.spec.env_vars.clear();
    other.spec.constraints.clear();
    other.requests = Amounts::default();
    other.spec.requests = Resources::default();
    let spec = update(by_hand.clone(), &other, &ground());
    for place in [
        "/UpdateConfig",
        "/RollbackConfig",
        "/EndpointSpec",
        "/Mode",
        "/Labels/by-hand",
        "/Labels/team",
        "/TaskTemplate/RestartPolicy",
        "/TaskTemplate/LogDriver",
        "/TaskTemplate/Networks",
        "/TaskTemplate/Placement/Preferences",
        "/TaskTemplate/Resources/Limits/Pids",
        "/TaskTemplate/Resources/Reservations/NanoCPUs",
        "/TaskTemplate/ContainerSpec/StopGracePeriod",
        "/TaskTemplate/ContainerSpec/Labels/by-hand",
        "/TaskTemplate/ContainerSpec/Configs",
        "/TaskTemplate/ContainerSpec/Healthcheck",
    ] {
        let (before, after) = (by_hand.pointer(place), spec.pointer(place));
        assert!(before.is_some() && before == after, "{place}: {after:?}");
    }
    let task = &spec["TaskTemplate"];
    assert_eq!(
        task["Placement"]["Constraints"],
        json!(["node.labels.ssd==1"])
    );
    let container = &task["ContainerSpec"];
    assert_eq!(container["Env"], json!(["fprocess=cat -n", "HAND=1"]));
    assert!(
        container["Labels"]["team"].is_null(),
        "it was the gateway's"
    );
    assert!(task["Resources"]["Reservations"]["MemoryBytes"].is_null());
    assert!(container["Mounts"].to_string().contains("/data"));
    assert_eq!(container["Secrets"].as_array().unwrap().len(), 2);

    // What is named is set, and what a gateway has set follows what is deployed.
    let named = update(by_hand, &wanted(), &ground());
    assert_eq!(named["Labels"]["team"], "x");
    let grace = |spec: &Value| spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"].as_u64();
    assert_eq!(
        grace(&update(made, &other, &ground())),
        Some(65_000_000_000)
    );
    let last = update(spec, &bare(), &ground());
    let container = &last["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["Env"], json!(["HAND=1"]));
    assert_eq!(grace(&last), Some(305_000_000_000));
    assert_eq!(container["ReadOnly"], false);
}

#[test]
fn a_service_of_a_gateway_that_did_not_say_what_it_set_is_changed_as_before() {
    let mut old = create(&wanted(), &ground());
    old["Labels"]
        .as_object_mut()
        .unwrap()
        .remove("skep.asked.set");
    old["Labels"]["by-hand"] = json!("1");
    let mut with_grace = old.clone();
    with_grace["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] = json!(305_000_000_000_u64);
    let bare = bare();
    let spec = update(old, &bare, &ground());
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["Env"], json!([]));
    assert!(spec["Labels"]["team"].is_null());
    assert_eq!(spec["Labels"]["by-hand"], "1");
    assert_eq!(container["StopGracePeriod"], 65_000_000_000_u64);
    let spec = update(with_grace, &bare, &ground());
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["StopGracePeriod"], 305_000_000_000_u64);
}
