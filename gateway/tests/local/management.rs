//! The management API over local functions: scaled here, made and changed in the stack file.

use serde_json::json;

use crate::support::client::{get, request};
use crate::support::eventually;
use crate::support::gateway::Gateway;

fn send(
    gateway: &Gateway,
    method: &str,
    path: &str,
    body: &serde_json::Value,
) -> crate::support::client::Answer {
    request(
        gateway.address,
        method,
        path,
        &[],
        body.to_string().as_bytes(),
    )
}

#[test]
fn a_local_function_is_scaled_to_none_and_to_three() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let described = |field: &str| {
        get(gateway.address, "/system/function/cat").json()[field]
            .as_u64()
            .unwrap_or(0)
    };
    eventually("it runs", || described("availableReplicas") == 1);
    for replicas in [3, 0, 1] {
        let answer = send(
            &gateway,
            "POST",
            "/system/scale-function/cat.openfaas-fn",
            &json!({ "serviceName": "cat", "replicas": replicas }),
        );
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(
            described("replicas"),
            replicas,
            "the table knows before the answer"
        );
        eventually("as many are available", || {
            described("availableReplicas") == replicas
        });
    }
    let log = gateway.log();
    let line = log
        .lines()
        .find(|line| line.contains("scale function to 3"))
        .unwrap_or_else(|| panic!("no audit line in {log}"));
    for part in ["audit", "cat", "127.0.0.1", "done"] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn what_the_stack_file_says_is_changed_there() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let deployment = |name: &str| json!({ "service": name, "image": "x" });
    for (method, body) in [
        ("POST", deployment("dog")),
        ("PUT", deployment("cat")),
        ("DELETE", json!({ "functionName": "cat" })),
    ] {
        let answer = send(&gateway, method, "/system/functions", &body);
        assert_eq!(answer.status, 501, "{method}: {}", answer.text());
        assert!(answer.text().contains("stack.yml"), "{}", answer.text());
    }
    assert_eq!(
        send(&gateway, "PUT", "/system/functions", &deployment("dog")).status,
        404
    );
    let many = send(
        &gateway,
        "POST",
        "/system/scale-function/cat",
        &json!({ "replicas": 65 }),
    );
    assert_eq!(many.status, 400);
    assert!(many.text().starts_with("replicas:"), "{}", many.text());
}

#[test]
fn errors_are_json_for_those_who_ask_for_it() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let answer = request(
        gateway.address,
        "POST",
        "/system/functions",
        &[("Accept", "application/json"), ("X-Call-Id", "me-1")],
        b"[]",
    );
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (400, Some("application/problem+json"))
    );
    assert_eq!(
        answer.json(),
        json!({ "title": "Bad Request", "status": 400, "detail": "the body must be a JSON object", "call_id": "me-1" })
    );
    let plain = request(gateway.address, "POST", "/system/functions", &[], b"[]");
    assert!(
        plain
            .text()
            .starts_with("the body must be a JSON object (call "),
        "{}",
        plain.text()
    );
}
