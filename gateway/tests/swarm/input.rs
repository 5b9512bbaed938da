//! What the management API refuses: each in words, each with nothing made.

use serde_json::json;

use crate::support::client::{get, request};
use crate::world::{World, deployment, own_name, try_docker};

#[test]
fn what_is_unknown_or_there_already_is_told_from_what_is_wrong() {
    let Some(world) = World::new() else { return };
    let nobody = own_name("nobody");
    let unknown = deployment(&nobody, "skep/catservice", json!({}));
    assert_eq!(
        world.send("PUT", "/system/functions", &unknown).status,
        404,
        "clients then make it"
    );
    assert_eq!(
        world
            .send(
                "DELETE",
                "/system/functions",
                &json!({ "functionName": nobody })
            )
            .status,
        404
    );
    assert_eq!(
        world
            .send(
                "POST",
                &format!("/system/scale-function/{nobody}"),
                &json!({ "replicas": 1 })
            )
            .status,
        404
    );
    assert_eq!(
        get(world.gateway, &format!("/system/function/{nobody}")).status,
        404
    );

    let name = world.create(
        "skep/catservice",
        json!({ "novelty": ["of a later client"] }),
    );
    // The same name in a namespace that is not here is somebody else's.
    let other = format!("{name}.other");
    for (method, path, body, status) in [
        ("GET", format!("/system/function/{other}"), json!({}), 404),
        (
            "POST",
            format!("/system/scale-function/{other}"),
            json!({ "replicas": 0 }),
            404,
        ),
        (
            "DELETE",
            "/system/functions".to_owned(),
            json!({ "functionName": other }),
            400,
        ),
        (
            "PUT",
            "/system/functions".to_owned(),
            deployment(&other, "skep/env", json!({})),
            400,
        ),
        (
            "GET",
            format!("/system/logs?name={name}&namespace=other"),
            json!({}),
            400,
        ),
    ] {
        let answer = world.send(method, &path, &body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    assert_eq!(world.describe(&name)["replicas"], 1);
    let again = world.send(
        "POST",
        "/system/functions",
        &deployment(&name, "skep/catservice", json!({})),
    );
    assert_eq!(again.status, 409, "{}", again.text());
    assert!(again.text().contains("there already"), "{}", again.text());
    let secret = world.send(
        "POST",
        "/system/functions",
        &deployment(&nobody, "skep/catservice", json!({ "secrets": ["nosuch"] })),
    );
    assert_eq!(secret.status, 400);
    assert!(
        secret
            .text()
            .starts_with("secrets: there is no secret 'nosuch'"),
        "{}",
        secret.text()
    );
    assert!(
        !try_docker(&["service", "inspect", &nobody])
            .status
            .success(),
        "nothing was made"
    );
}

#[test]
fn bad_input_is_a_4xx_that_names_the_field_and_makes_nothing() {
    let Some(world) = World::new() else { return };
    let name = own_name("bad");
    let refused = |method: &str, path: &str, body: &[u8], status: u16, says: &str| {
        let answer = request(world.gateway, method, path, &[], body);
        assert_eq!(
            answer.status,
            status,
            "{method} {path} {says}: {}",
            answer.text()
        );
        assert!(answer.text().contains(says), "{says}: {}", answer.text());
    };
    for (field, value, says) in [
        ("service", json!("n".repeat(64)), "service:"),
        ("service", json!("a.other-namespace"), "service:"),
        ("namespace", json!("kube-system"), "namespace:"),
        ("limits", json!({ "memory": "much" }), "limits.memory:"),
        (
            "labels",
            json!({ "com.openfaas.uid": "1" }),
            "labels.com.openfaas.uid:",
        ),
        ("envVars", json!([]), "envVars:"),
    ] {
        let mut body = deployment(&name, "skep/catservice", json!({}));
        body[field] = value;
        for method in ["POST", "PUT"] {
            refused(
                method,
                "/system/functions",
                body.to_string().as_bytes(),
                400,
                says,
            );
        }
    }
    let good = deployment(&name, "skep/catservice", json!({})).to_string();
    let twice = good.replace("{", r#"{"image":"other","#);
    let nested = good.replace(
        "{",
        &format!(r#"{{"x":{}1{},"#, "[".repeat(5000), "]".repeat(5000)),
    );
    let long = good.replace("{", &format!(r#"{{"x":"{}","#, "y".repeat(1 << 20)));
    refused(
        "POST",
        "/system/functions",
        twice.as_bytes(),
        400,
        "'image' is there twice",
    );
    refused(
        "POST",
        "/system/functions",
        nested.as_bytes(),
        400,
        "recursion limit",
    );
    refused(
        "POST",
        "/system/functions",
        long.as_bytes(),
        413,
        "1048576 bytes",
    );
    refused("POST", "/system/functions", b"", 400, "no JSON");
    refused(
        "POST",
        "/system/functions?namespace=other",
        good.as_bytes(),
        400,
        "namespace:",
    );
    refused(
        "DELETE",
        "/system/functions",
        b"{}",
        400,
        "functionName: is missing",
    );
    refused(
        "DELETE",
        "/system/functions",
        br#"{"functionName":"x","namespace":"other"}"#,
        400,
        "namespace:",
    );
    for (body, says) in [
        (r#"{"replicas":-1}"#, "replicas:"),
        (r#"{"replicas":"2"}"#, "replicas:"),
        (r#"{"replicas":1.5}"#, "replicas:"),
        ("{}", "replicas: is missing"),
        (r#"{"replicas":1000000}"#, "replicas:"),
        (r#"{"serviceName":"y","replicas":1}"#, "serviceName:"),
    ] {
        refused(
            "POST",
            "/system/scale-function/x",
            body.as_bytes(),
            400,
            says,
        );
    }
    refused(
        "PATCH",
        "/system/functions",
        good.as_bytes(),
        405,
        "GET, HEAD, POST, PUT, DELETE",
    );
    assert!(
        !try_docker(&["service", "inspect", &name]).status.success(),
        "nothing was made"
    );
    assert_eq!(get(world.gateway, "/system/functions").text(), "[]");
}
