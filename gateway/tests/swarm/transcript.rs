//! What the client that people have sends (wire contract §7), byte for byte, in the order in which it sends it, and what it needs back.

use std::time::Duration;

use serde_json::json;

use crate::support::client::{Answer, raw};
use crate::support::within;
use crate::world::{Secret, World, own_name, try_docker};

/// A session of the client with one gateway.
struct Client<'a> {
    world: &'a World,
}

impl Client<'_> {
    /// A management request: the client's own name, an empty token because nobody logged in, JSON where there is a body.
    fn manage(&self, method: &str, path: &str, body: &str) -> Answer {
        let content = if body.is_empty() {
            String::new()
        } else {
            format!(
                "Content-Length: {}\r\nContent-Type: application/json\r\n",
                body.len()
            )
        };
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: faas-cli/0.17.8\r\n{content}Authorization: Bearer \r\n\
             Accept-Encoding: gzip\r\nConnection: close\r\n\r\n{body}"
        ))
    }

    fn send(&self, bytes: &str) -> Answer {
        raw(self.world.gateway, bytes.as_bytes()).unwrap()
    }

    fn status(&self, method: &str, path: &str, body: &str) -> u16 {
        self.manage(method, path, body).status
    }
}

#[test]
fn the_clients_requests_are_answered_as_it_needs_them() {
    let secret_of_ours = Secret::named();
    let Some(world) = World::new() else { return };
    let client = Client { world: &world };
    let (name, key) = (own_name("fn"), &secret_of_ours.0);
    world.adopt(&name);

    // `login` and `version`
    assert_eq!(
        client.manage("GET", "/system/functions", "").json(),
        json!([])
    );
    let info = client.manage("GET", "/system/info", "").json();
    for field in [
        "/provider/provider",
        "/provider/orchestration",
        "/provider/version/sha",
        "/version/release",
        "/version/sha",
        "/arch",
    ] {
        assert!(
            info.pointer(field)
                .is_some_and(|value| !value.as_str().unwrap().is_empty()),
            "{field} in {info}"
        );
    }

    // `secret create`, `secret list`: both values, the one as it is in the file and the other without its end
    let secret = format!(
        r#"{{"name":"{key}","namespace":"openfaas-fn","value":"s3cret","rawValue":"czNjcmV0Cg=="}}"#
    );
    assert_eq!(client.status("POST", "/system/secrets", &secret), 201);
    assert_eq!(
        client.status("POST", "/system/secrets", &secret),
        409,
        "then `--replace` puts it"
    );
    assert_eq!(client.status("PUT", "/system/secrets", &secret), 200);
    let secrets = client
        .manage("GET", "/system/secrets?namespace=openfaas-fn", "")
        .json();
    assert!(
        secrets
            .as_array()
            .unwrap()
            .contains(&json!({ "name": key, "namespace": "openfaas-fn" })),
        "{secrets}"
    );

    // `deploy`: an update first, and a new function if there is none
    let deployment = format!(
        r#"{{"service":"{name}","image":"skep/catservice","namespace":"openfaas-fn","envProcess":"cat","envVars":{{"write_debug":"true"}},"secrets":["{key}"],"labels":{{}},"annotations":{{}},"limits":{{"memory":"40Mi","cpu":"100m"}}}}"#
    );
    assert_eq!(client.status("PUT", "/system/functions", &deployment), 404);
    assert_eq!(client.status("POST", "/system/functions", &deployment), 202);

    // `ready`, `describe`, `list`
    let describe = format!("/system/function/{name}?namespace=openfaas-fn&usage=1");
    within(Duration::from_secs(60), "it is ready", || {
        client.manage("GET", &describe, "").json()["availableReplicas"] == 1
    });
    let told = client.manage("GET", &describe, "").json();
    assert_eq!(
        (&told["limits"], &told["secrets"]),
        (&json!({ "memory": "40Mi", "cpu": "100m" }), &json!([key]))
    );
    let listed = client
        .manage("GET", "/system/functions?namespace=openfaas-fn", "")
        .json();
    assert_eq!(
        (listed[0]["name"].as_str(), &listed[0]["replicas"]),
        (Some(name.as_str()), &json!(1))
    );

    // `invoke`: the namespace is always written, and no login is sent
    let invoke = format!(
        "POST /function/{name}.openfaas-fn HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: faas-cli/0.17.8 (openfaas; linux; amd64)\r\n\
         Content-Length: 5\r\nContent-Type: text/plain\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\nhello"
    );
    let answer = client.send(&invoke);
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));

    // `logs`
    let logs = format!(
        "/system/logs?follow=false&name={name}&namespace=openfaas-fn&since=2026-01-01T00%3A00%3A00%2B01%3A00&tail=-1"
    );
    within(Duration::from_secs(30), "the call is in the logs", || {
        client
            .manage("GET", &logs, "")
            .text()
            .contains("Forking fprocess")
    });

    // `deploy` again, now an update; `scale` by old clients
    assert_eq!(client.status("PUT", "/system/functions", &deployment), 202);
    let scale = format!(r#"{{"serviceName":"{name}","replicas":2}}"#);
    assert_eq!(
        client.status(
            "POST",
            &format!("/system/scale-function/{name}?namespace=openfaas-fn"),
            &scale
        ),
        202
    );

    // `namespace list`, `namespace get`, `namespace create`
    assert_eq!(
        client.manage("GET", "/system/namespaces", "").json(),
        json!(["openfaas-fn"])
    );
    assert_eq!(
        client
            .manage("GET", "/system/namespace/openfaas-fn", "")
            .json()["name"],
        "openfaas-fn"
    );
    assert_eq!(client.status("GET", "/system/namespace/other", ""), 404);
    assert_eq!(
        client.status("POST", "/system/namespace/", r#"{"name":"other"}"#),
        501
    );

    // `remove`, once in each of the two ways to say the namespace; `secret remove`
    let remove = format!(r#"{{"functionName":"{name}","namespace":"openfaas-fn"}}"#);
    assert_eq!(client.status("DELETE", "/system/functions", &remove), 202);
    let again = format!(r#"{{"functionName":"{name}"}}"#);
    assert_eq!(
        client.status("DELETE", "/system/functions?namespace=openfaas-fn", &again),
        404
    );
    assert!(!try_docker(&["service", "inspect", &name]).status.success());
    assert_eq!(
        client.status(
            "DELETE",
            "/system/secrets",
            &format!(r#"{{"name":"{key}"}}"#)
        ),
        200,
        "204 would be a failure to it"
    );
}

#[test]
fn an_alert_scales_up_and_its_end_scales_down() {
    let Some(world) = World::new() else { return };
    let client = Client { world: &world };
    let labels = ["com.openfaas.scale.max=4", "com.openfaas.scale.factor=50"];
    let cat = world.service(
        "skep/catservice",
        &["--label", labels[0], "--label", labels[1]],
    );
    within(Duration::from_secs(60), "it is listed", || {
        world.number(&cat, "replicas") == 1
    });
    let alert = |status: &str| {
        let alerts = format!(
            r#"{{"receiver":"scale-up","status":"{status}","alerts":[{{"status":"{status}","labels":{{"alertname":"APIHighInvocationRate","function_name":"{cat}.openfaas-fn"}}}},{{"status":"{status}","labels":{{"function_name":"nobody"}}}}],"version":"4"}}"#
        );
        client.status("POST", "/system/alert", &alerts)
    };
    for (status, replicas) in [("firing", 3), ("firing", 4), ("firing", 4), ("resolved", 1)] {
        assert_eq!(alert(status), 200);
        within(Duration::from_secs(10), "it is scaled", || {
            world.number(&cat, "replicas") == replicas
        });
    }
    assert_eq!(client.status("POST", "/system/alert", "{"), 400);
    assert_eq!(
        client.status("POST", "/system/alert", r#"{"alerts":{}}"#),
        400
    );
}

#[test]
fn replicas_are_told_and_ended_one_or_all() {
    let Some(world) = World::new() else { return };
    let client = Client { world: &world };
    let cat = world.service(
        "skep/catservice",
        &["--replicas", "2", "--update-order", "start-first"],
    );
    within(Duration::from_secs(60), "two replicas", || {
        world.number(&cat, "availableReplicas") == 2
    });
    let path = format!("/system/function/{cat}/replicas");
    let running = || -> Vec<String> {
        let told = client.manage("GET", &path, "").json();
        let running = told
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["state"] == "running" && one["desiredState"] == "running");
        running
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    };
    // Calls may come as soon as a container has started; for Docker it runs a moment later.
    within(Duration::from_secs(60), "both run", || running().len() == 2);
    let before = running();
    assert_eq!(
        client.status("DELETE", &format!("{path}/{}", before[0]), ""),
        202
    );
    within(
        Duration::from_secs(60),
        "another one took its place",
        || {
            let now = running();
            now.len() == 2 && !now.contains(&before[0]) && now.contains(&before[1])
        },
    );
    assert_eq!(client.status("DELETE", &format!("{path}/nosuch"), ""), 404);
    assert_eq!(client.status("DELETE", &path, ""), 202);
    within(Duration::from_secs(90), "all are other ones", || {
        let now = running();
        now.len() == 2 && now.iter().all(|one| !before.contains(one))
    });
}
