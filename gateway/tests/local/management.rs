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
    let line = gateway.line("scale function to 3");
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

#[test]
fn the_lines_that_a_local_function_writes_are_told_and_followed() {
    let gateway = Gateway::of(
        "  say:\n    fprocess: tee /dev/stderr\n    environment:\n      combine_output: false",
    );
    let lines = |query: &str| -> Vec<serde_json::Value> {
        let answer = get(gateway.address, &format!("/system/logs?name=say{query}"));
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/x-ndjson")),
            "{}",
            answer.text()
        );
        answer
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let says = |lines: &[serde_json::Value], text: &str| {
        lines
            .iter()
            .any(|line| line["text"].as_str().unwrap().contains(text))
    };
    crate::support::client::post(gateway.address, "/function/say", "first words");
    eventually("it is told", || {
        says(&lines(".openfaas-fn&tail=-1"), "first words")
    });
    let all = lines("");
    let last = all.last().unwrap();
    assert_eq!(
        (&last["name"], &last["namespace"]),
        (&json!("say"), &json!("openfaas-fn"))
    );
    assert!(
        last["instance"].as_str().unwrap().starts_with("say.1:")
            && last["timestamp"].as_str().unwrap().ends_with('Z'),
        "{last}"
    );
    assert_eq!(lines("&tail=1").len(), 1);
    assert!(lines("&since=2100-01-01T00:00:00%2B01:00").is_empty());
    assert!(lines("&instance=other").is_empty());

    let mut follower =
        std::io::BufReader::new(std::net::TcpStream::connect(gateway.address).unwrap());
    std::io::Write::write_all(
        follower.get_mut(),
        b"GET /system/logs?name=say&follow=true&tail=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .unwrap();
    crate::support::client::post(gateway.address, "/function/say", "later words");
    let mut told = String::new();
    while !told.contains("later words") {
        assert!(
            std::io::BufRead::read_line(&mut follower, &mut told).unwrap() > 0,
            "{told}"
        );
    }
    for (query, says) in [
        ("", "name: is missing"),
        ("?name=say&tail=x", "tail:"),
        ("?name=say&since=x", "since:"),
        ("?name=say&follow=x", "follow:"),
    ] {
        let answer = get(gateway.address, &format!("/system/logs{query}"));
        assert!(
            answer.status == 400 && answer.text().contains(says),
            "{}",
            answer.text()
        );
    }
    assert_eq!(get(gateway.address, "/system/logs?name=nobody").status, 404);
}

#[test]
fn local_replicas_are_told_and_replaced_one_or_all() {
    let gateway =
        Gateway::of("  cat:\n    fprocess: cat\n    labels:\n      com.openfaas.scale.min: 2");
    let running = || -> Vec<String> {
        let told = get(gateway.address, "/system/function/cat/replicas").json();
        let running = told
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["state"] == "running");
        running
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    };
    eventually("both run", || running().len() == 2);
    let before = running();
    let end = |path: &str| {
        request(
            gateway.address,
            "DELETE",
            &format!("/system/function/cat/replicas{path}"),
            &[],
            b"",
        )
        .status
    };
    assert_eq!(end(&format!("/{}", before[0])), 202);
    eventually("one is another", || {
        running().len() == 2 && !running().contains(&before[0]) && running().contains(&before[1])
    });
    assert_eq!(end("/cat.9:1"), 404);
    assert_eq!(end(""), 202);
    eventually("all are others", || {
        running().len() == 2 && !running().iter().any(|one| before.contains(one))
    });
}
