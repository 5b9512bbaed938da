//! The pages about the gateway: metrics, health, readiness, the read-only management API.

use std::io::{Read, Write};

use crate::support::client::{get, post, request};
use crate::support::eventually;
use crate::support::gateway::{Gateway, run};

#[test]
fn good_and_bad_calls_move_the_counters_by_exactly_their_number() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat\n  fail:\n    fprocess: 'false'");
    for _ in 0..3 {
        assert_eq!(post(gateway.address, "/function/cat", "x").status, 200);
    }
    assert_eq!(post(gateway.address, "/function/fail", "x").status, 500);
    for (series, expected) in [
        (
            "gateway_function_invocation_total{code=\"200\",function_name=\"cat\"}",
            3.0,
        ),
        (
            "gateway_function_invocation_total{code=\"500\",function_name=\"fail\"}",
            1.0,
        ),
        (
            "gateway_function_invocation_started{function_name=\"cat\"}",
            3.0,
        ),
        (
            "gateway_functions_seconds_count{code=\"200\",function_name=\"cat\"}",
            3.0,
        ),
        ("gateway_service_count{function_name=\"cat\"}", 1.0),
        ("skep_functions", 2.0),
    ] {
        eventually(&format!("{series} is {expected}"), || {
            (gateway.metric(series) - expected).abs() < f64::EPSILON
        });
    }
    let page = get(gateway.address, "/metrics/");
    assert_eq!(page.status, 200, "with a slash at its end too");
    assert!(page.text().contains("process_resident_memory_bytes"));
    assert_eq!(
        request(gateway.address, "POST", "/metrics", &[], b"x").status,
        405
    );
}

#[test]
fn a_function_that_is_gone_takes_its_series_along() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat\n  gone:\n    fprocess: cat");
    assert_eq!(post(gateway.address, "/function/gone", "x").status, 200);
    assert!(get(gateway.address, "/metrics").text().contains("\"gone\""));
    gateway.change("  cat:\n    fprocess: cat");
    eventually("no series of it", || {
        !get(gateway.address, "/metrics").text().contains("\"gone\"")
    });
}

#[test]
fn the_metrics_port_has_metrics_and_health_and_nothing_else() {
    let gateway = Gateway::with("  cat:\n    fprocess: cat", &["--metrics-port", "0"]);
    let address = gateway.port_for("metrics and health");
    for path in ["/metrics", "/metrics/", "/healthz", "/readyz"] {
        eventually(path, || get(address, path).status == 200);
    }
    for path in ["/function/cat", "/system/functions", "/"] {
        assert_eq!(get(address, path).status, 404, "{path}");
    }
}

#[test]
fn health_and_readiness_say_what_is_the_matter() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let health = get(gateway.address, "/healthz");
    assert_eq!(
        (health.status, health.json()["status"].as_str()),
        (200, Some("ok"))
    );
    assert!(!health.json()["sha"].as_str().unwrap().is_empty());
    eventually("ready", || get(gateway.address, "/readyz").status == 200);
    let ready = get(gateway.address, "/readyz").json();
    assert_eq!(
        (
            ready["ready"].as_bool(),
            ready["functions"].as_u64(),
            ready["stale_seconds"].as_f64()
        ),
        (Some(true), Some(1), Some(0.0))
    );
}

#[test]
fn without_a_docker_engine_the_gateway_serves_and_says_why_it_is_not_ready() {
    let mut child = crate::support::gateway::skep()
        .args([
            "--bind",
            "127.0.0.1",
            "--port",
            "0",
            "--metrics-port",
            "off",
            "--data-dir",
            "off",
            "--basic-auth",
            "false",
            "--docker-host",
            "unix:///nosuch/docker.sock",
        ])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = child.stderr.take().unwrap();
    let mut text = String::new();
    let mut byte = [0];
    while !(text.contains("listening on http://") && text.ends_with('\n')) {
        log.read_exact(&mut byte).unwrap();
        text.push(byte[0] as char);
    }
    let address = text
        .split("listening on http://")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let ready = get(address, "/readyz");
    assert_eq!((ready.status, get(address, "/healthz").status), (503, 200));
    eventually("the reason", || {
        get(address, "/readyz")
            .text()
            .contains("unix:///nosuch/docker.sock does not answer")
    });
    assert_eq!(
        get(address, "/system/functions").status,
        503,
        "an empty list would be a lie"
    );
    let call = get(address, "/function/cat");
    assert_eq!(call.status, 503);
    assert!(call.text().contains("does not answer"), "{}", call.text());
    crate::support::gateway::signal(child.id(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn functions_are_listed_and_described_as_clients_expect() {
    let gateway = Gateway::of(
        "  cat:\n    image: skep/cat\n    fprocess: cat\n    environment:\n      A: b\n    labels:\n      com.openfaas.scale.min: 2\n    annotations:\n      topic: x\n    limits:\n      memory: 40Mi\n  env:\n    fprocess: env",
    );
    eventually("both replicas", || {
        get(gateway.address, "/system/function/cat").json()["availableReplicas"] == 2
    });
    assert_eq!(post(gateway.address, "/function/cat", "x").status, 200);
    let list = get(gateway.address, "/system/functions").json();
    let names: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|function| function["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["cat", "env"]);
    let mut cat = get(gateway.address, "/system/function/cat.openfaas-fn").json();
    let endpoints = cat.as_object_mut().unwrap().remove("endpoints").unwrap();
    let endpoints = endpoints.as_array().unwrap();
    assert_eq!(endpoints.len(), 2);
    for endpoint in endpoints {
        assert_eq!(
            (&endpoint["state"], &endpoint["inFlight"]),
            (&"ready".into(), &0.into())
        );
        let why = endpoint["why"].as_str().unwrap();
        assert!(why.starts_with("reached after"), "{why}");
    }
    assert_eq!(cat, list[0], "one function has one description");
    let expected = serde_json::json!({
        "name": "cat", "image": "skep/cat", "namespace": "openfaas-fn", "envProcess": "cat", "envVars": {"A": "b"},
        "labels": {"com.openfaas.scale.min": "2", "faas_function": "cat"}, "annotations": {"topic": "x"}, "limits": {"memory": "40Mi"},
        "invocationCount": 1, "replicas": 2, "availableReplicas": 2, "createdAt": "0001-01-01T00:00:00Z"
    });
    assert_eq!(cat, expected);
    assert!(
        list[1].get("envVars").is_none() && list[1]["labels"].is_object(),
        "{}",
        list[1]
    );
    assert_eq!(get(gateway.address, "/system/function/nosuch").status, 404);
    let info = get(gateway.address, "/system/info").json();
    for field in [
        "/provider/provider",
        "/provider/orchestration",
        "/provider/version/sha",
        "/provider/version/release",
        "/version/sha",
        "/version/release",
        "/version/commit_message",
        "/arch",
    ] {
        assert!(
            info.pointer(field)
                .and_then(|value| value.as_str())
                .is_some_and(|text| !text.is_empty()),
            "{field} in {info}"
        );
    }
}

#[test]
fn the_root_is_a_help_page() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let help = get(gateway.address, "/");
    assert!(
        help.status == 200 && help.text().contains("/function/NAME"),
        "{}",
        help.text()
    );
}

#[test]
fn logs_are_text_or_json() {
    let output = run(&["local", "/nosuch.yml", "--log-format", "json"], &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read /nosuch.yml"));
    let gateway = Gateway::with("  cat:\n    fprocess: cat", &["--log-format", "json"]);
    let line = gateway.line("listening on");
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["level"], "INFO");
    std::io::stderr().flush().unwrap();
}
