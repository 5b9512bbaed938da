//! Secrets: made, read by a function, changed under it, removed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Answer, get, post, request};
use crate::support::within;
use crate::world::{Secret, World, docker, own_name};

/// How soon a function sees a new value.
const SOON: Duration = Duration::from_secs(10);

fn send(world: &World, method: &str, body: &Value) -> Answer {
    request(
        world.gateway,
        method,
        "/system/secrets",
        &[],
        body.to_string().as_bytes(),
    )
}

fn names(world: &World) -> Vec<Value> {
    get(world.gateway, "/system/secrets")
        .json()
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn a_secret_is_made_read_changed_under_a_function_and_removed() {
    let secret = Secret::named();
    let Some(world) = World::new() else { return };
    let key = &secret.0;
    assert_eq!(
        send(&world, "PUT", &json!({ "name": key, "value": "early" })).status,
        404
    );
    let made = send(
        &world,
        "POST",
        &json!({ "name": key, "namespace": "openfaas-fn", "value": "first-value" }),
    );
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(
        send(&world, "POST", &json!({ "name": key, "value": "again" })).status,
        409
    );
    assert!(names(&world).contains(&json!({ "name": key, "namespace": "openfaas-fn" })));

    let name = own_name("fn");
    world.adopt(&name);
    let function = json!({ "service": name, "image": "skep/catservice", "secrets": [key], "envProcess": format!("cat /var/openfaas/secrets/{key}") });
    let answer = post(world.gateway, "/system/functions", function.to_string());
    assert_eq!(answer.status, 202, "{}", answer.text());
    world.answers(&name);
    let told = || get(world.gateway, &format!("/function/{name}")).text();
    assert_eq!(told(), "first-value");
    assert_eq!(
        get(world.gateway, &format!("/system/function/{name}")).json()["secrets"],
        json!([key])
    );

    let changed = Instant::now();
    assert_eq!(
        send(
            &world,
            "PUT",
            &json!({ "name": key, "value": "trimmed", "rawValue": "c2Vjb25kLXZhbHVlCg==" })
        )
        .status,
        200
    );
    within(
        SOON.saturating_sub(changed.elapsed()),
        "the function sees the new value",
        || told() == "second-value\n",
    );
    within(Duration::from_secs(60), "the old version is gone", || {
        secret.stored() == [format!("{key}.2")]
    });

    let used = send(&world, "DELETE", &json!({ "name": key }));
    assert_eq!(used.status, 409);
    assert!(used.text().contains(&name), "{}", used.text());
    request(
        world.gateway,
        "DELETE",
        "/system/functions",
        &[],
        json!({ "functionName": name }).to_string().as_bytes(),
    );
    assert_eq!(send(&world, "DELETE", &json!({ "name": key })).status, 200);
    assert_eq!(send(&world, "DELETE", &json!({ "name": key })).status, 404);
    assert!(!names(&world).iter().any(|listed| listed["name"] == *key));
    world.gateway_logs("update secret");
    let log = world.gateway_log();
    assert!(
        !log.contains("-value") && !log.contains("c2Vjb25k"),
        "{log}"
    );
}

#[test]
fn a_secret_that_no_gateway_made_is_neither_listed_nor_changed_nor_removed() {
    let Some(world) = World::new() else { return };
    let name = own_name("own");
    docker(&["secret", "create", &name, "/etc/hostname"]);
    let (changed, removed) = (
        send(&world, "PUT", &json!({ "name": name, "value": "x" })),
        send(&world, "DELETE", &json!({ "name": name })),
    );
    let listed = names(&world);
    docker(&["secret", "rm", &name]);
    assert_eq!((changed.status, removed.status), (404, 404));
    assert!(!listed.iter().any(|listed| listed["name"] == *name));
}

#[test]
fn a_bad_secret_is_a_400_that_names_the_field() {
    let Some(world) = World::new() else { return };
    for (body, says) in [
        (json!({ "value": "x" }), "name: is missing"),
        (json!({ "name": "a/b", "value": "hunter2" }), "name:"),
        (
            json!({ "name": "n".repeat(55), "value": "hunter2" }),
            "name:",
        ),
        (json!({ "name": "a" }), "value: is missing"),
        (json!({ "name": "a", "rawValue": "hunter2!" }), "rawValue:"),
        (
            json!({ "name": "a", "value": "x".repeat(512_000) }),
            "value:",
        ),
        (
            json!({ "name": "a", "value": "hunter2", "namespace": "other" }),
            "namespace:",
        ),
    ] {
        let answer = send(&world, "POST", &body);
        assert_eq!(answer.status, 400, "{says}: {}", answer.text());
        assert!(
            answer.text().contains(says) && !answer.text().contains("hunter2"),
            "{}",
            answer.text()
        );
    }
}
