//! One function's whole life through the management API: everything that an operator does to it, in one go.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{get, post};
use crate::support::steady::{Load, Steady};
use crate::support::within;
use crate::world::{Secret, World, deployment, docker, try_docker};

/// How soon a function sees a new value of its secret.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_function_lives_from_its_first_replica_to_its_removal() {
    let secret = Secret::named();
    let Some(world) = World::new() else { return };
    let key = &secret.0;
    set_secret(&world, "POST", key, "first");
    // It answers with its secret and what it was sent.
    let fields = |generation: &str| {
        json!({
            "secrets": [key], "envProcess": format!("cat /var/openfaas/secrets/{key} -"),
            "labels": { "com.openfaas.scale.min": "2" }, "envVars": { "write_debug": "true", "generation": generation },
        })
    };
    let name = world.create("skep/catservice", fields("1"));
    world.available(&name, 2);
    let path = format!("/function/{name}.openfaas-fn");
    let call = |body: &str| post(world.gateway, &path, body).text();
    assert_eq!(call(" and hello"), "first and hello");

    update_under_load(&world, &name, fields("2"));

    scale(&world, &name, 0);
    assert_eq!(get(world.gateway, &path).status, 503);
    scale(&world, &name, 3);

    call("words of the test\n");
    within(Duration::from_secs(30), "its logs have the words", || {
        let logs = get(world.gateway, &format!("/system/logs?name={name}"));
        logs.text().contains("words of the test")
    });

    set_secret(&world, "PUT", key, "second");
    within(SOON, "it sees the new value", || call("") == "second");

    let gone = json!({ "functionName": name, "namespace": "openfaas-fn" });
    let removed = world.send("DELETE", "/system/functions", &gone);
    assert_eq!(removed.status, 202, "{}", removed.text());
    assert_eq!(get(world.gateway, &path).status, 404, "at once");
    assert!(!try_docker(&["service", "inspect", &name]).status.success());
    let removed = world.send("DELETE", "/system/secrets", &json!({ "name": key }));
    assert_eq!(removed.status, 200, "{}", removed.text());
    for done in ["create function", "update function", "scale function to 3"] {
        world.gateway_logs(&format!("audit=\"{done}\""));
    }
}

fn set_secret(world: &World, method: &str, key: &str, value: &str) {
    let body = json!({ "name": key, "value": value });
    let answer = world.send(method, "/system/secrets", &body);
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
}

/// Scales, and waits until so many take calls; the description says so at once.
fn scale(world: &World, name: &str, replicas: u64) {
    let body = json!({ "serviceName": name, "replicas": replicas });
    let answer = world.send("POST", &format!("/system/scale-function/{name}"), &body);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let told = world.describe(name)["replicas"].as_u64().unwrap_or(0);
    assert_eq!(told, replicas);
    world.available(name, replicas);
}

/// Changes the function's environment while it is called: every call is answered, and replicas stay as many as they are.
fn update_under_load(world: &World, name: &str, fields: Value) {
    let echo = Load::echo(world.gateway, format!("/function/{name}"));
    let answer = echo
        .body
        .iter()
        .map(|body| [b"first", &body[..]].concat().into());
    let load = Load {
        rate: 50,
        count: u32::MAX,
        expected: answer.last(),
        ..echo.clone()
    };
    let calls = Steady::start(load, || ());
    let filter = "desired-state=running";
    let running = || docker(&["service", "ps", "-q", "--filter", filter, name]);
    let old = running();
    let wanted = deployment(name, "skep/catservice", fields);
    let answer = world.send("PUT", "/system/functions", &wanted);
    assert_eq!(answer.status, 202, "{}", answer.text());
    within(Duration::from_secs(120), "every task is replaced", || {
        let state = "{{.UpdateStatus.State}}";
        docker(&["service", "inspect", "--format", state, name]) == "completed"
            && running().lines().all(|task| !old.contains(task))
    });
    let tally = calls.stop();
    println!("{tally}");
    tally.assert_failed_at_most(0);
    let told = world.describe(name);
    assert_eq!(
        (&told["replicas"], &told["envVars"]["generation"]),
        (&json!(2), &json!("2"))
    );
}
