//! Who may manage a Swarm's functions: a login by default, no function, and a deploy key only what the API made.

use std::time::Duration;

use serde_json::{Value, json};

use crate::names::dockers_secret;
use crate::support::client::{Answer, get, request};
use crate::support::within;
use crate::world::{World, deployment, docker, own_name, try_docker};

/// `admin:s3cret`.
const LOGIN: &str = "Basic YWRtaW46czNjcmV0";
const FLAGS: [&str; 3] = [
    "--basic-auth=true",
    "--basic-auth-user=admin",
    "--basic-auth-password=s3cret",
];

fn send(world: &World, method: &str, path: &str, by: &str, body: &Value) -> Answer {
    let headers = [("Authorization", by)];
    request(
        world.gateway,
        method,
        path,
        &headers,
        body.to_string().as_bytes(),
    )
}

#[test]
fn a_first_start_makes_a_password_that_its_container_shows() {
    let Some(world) = World::with(&["-e", "basic_auth="], &[]) else {
        return;
    };
    assert_eq!(get(world.gateway, "/system/functions").status, 401);
    world.gateway_logs("skep password");
    let password = docker(&["exec", &world.container, "skep", "password"]);
    assert!(password.len() >= 32 && !world.gateway_log().contains(&password));
    let url = format!("http://admin:{password}@{}", world.gateway);
    let listed = crate::support::gateway::run(&["ls", "--gateway", &url], &[]);
    assert!(listed.status.success(), "{listed:?}");
}

#[test]
fn functions_reach_each_other_through_the_gateway_and_nothing_of_its_operators() {
    let Some(world) = World::with(&[], &["--metrics-port", "8082"]) else {
        return;
    };
    let cat = world.service("skep/catservice", &[]);
    world.answers(&cat);
    let fetch = |world: &World, path: &str| {
        let url = format!("http://{}:{path}", world.container);
        let network = format!("--network={}", world.network);
        let output = try_docker(&[
            "run",
            "--rm",
            &network,
            "skep-test/busybox",
            "wget",
            "-q",
            "-O-",
            &url,
        ]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), told)
    };
    for path in ["8080/system/functions", "8080/metrics", "8082/metrics"] {
        let (worked, told) = fetch(&world, path);
        assert!(!worked && told.contains("403"), "{path}: {told}");
    }
    for path in [format!("8080/function/{cat}"), "8082/healthz".to_owned()] {
        let (worked, told) = fetch(&world, &path);
        assert!(worked, "{path}: {told}");
    }
    // Whoever comes by the published port is none.
    assert_eq!(get(world.gateway, "/system/functions").status, 200);
    docker(&["stop", &world.container]);
    let world = world.with_another_gateway(&["-e", "allow_system_from_functions=true"], &[]);
    within(Duration::from_secs(20), "it is allowed", || {
        fetch(&world, "8080/system/functions").0
    });
}

#[test]
fn a_deploy_key_changes_what_the_api_made_and_no_service_of_an_operator() {
    let Some(world) = World::with(&[], &FLAGS) else {
        return;
    };
    let key = |scope: &str| {
        let made = send(
            &world,
            "POST",
            "/system/keys",
            LOGIN,
            &json!({ "scopes": [scope] }),
        );
        format!("Bearer {}", made.json()["key"].as_str().unwrap())
    };
    let (deploy, admin) = (key("deploy"), key("admin"));
    let plain = world.service("skep/catservice", &[]);
    let mounted = world.service(
        "skep/catservice",
        &[
            "--mount",
            "type=bind,src=/etc/hostname,dst=/host",
            "--label",
            "team=x",
        ],
    );
    let listed = |name: &str| {
        send(
            &world,
            "GET",
            &format!("/system/function/{name}"),
            LOGIN,
            &Value::Null,
        )
        .status
    };
    for name in [&plain, &mounted] {
        within(Duration::from_secs(60), "it is listed", || {
            listed(name) == 200
        });
        let wanted = deployment(name, "skep/env", json!({}));
        let image = || {
            docker(&[
                "service",
                "inspect",
                "-f",
                "{{.Spec.TaskTemplate.ContainerSpec.Image}}",
                name,
            ])
        };
        for (method, path, body) in [
            ("PUT", "/system/functions".to_owned(), wanted),
            (
                "POST",
                format!("/system/scale-function/{name}"),
                json!({ "replicas": 0 }),
            ),
            (
                "DELETE",
                "/system/functions".to_owned(),
                json!({ "functionName": name }),
            ),
            (
                "DELETE",
                format!("/system/function/{name}/replicas"),
                Value::Null,
            ),
            (
                "DELETE",
                format!("/system/function/{name}/replicas/x"),
                Value::Null,
            ),
        ] {
            let answer = send(&world, method, &path, &deploy, &body);
            assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
            assert!(
                answer.text().contains("was not made through this API"),
                "{}",
                answer.text()
            );
            assert_eq!(answer.text().contains("has mounts"), name == &mounted);
        }
        assert!(image().starts_with("skep/catservice"), "{}", image());
    }

    let made = own_name("made");
    world.adopt(&made);
    let wanted = deployment(&made, "skep/catservice", json!({}));
    let forged = deployment(
        &made,
        "skep/catservice",
        json!({ "labels": { "skep.managed": "api" } }),
    );
    assert_eq!(
        send(&world, "POST", "/system/functions", &deploy, &forged).status,
        400
    );
    assert_eq!(
        send(&world, "POST", "/system/functions", &deploy, &wanted).status,
        202
    );
    assert_eq!(
        send(&world, "PUT", "/system/functions", &deploy, &wanted).status,
        202
    );
    let path = format!("/system/scale-function/{made}");
    assert_eq!(
        send(&world, "POST", &path, &deploy, &json!({ "replicas": 2 })).status,
        202
    );
    // What an operator gives it later is not the key's.
    docker(&[
        "service",
        "update",
        "--detach",
        "--mount-add",
        "type=bind,src=/etc/hostname,dst=/host",
        &made,
    ]);
    let taken = send(&world, "PUT", "/system/functions", &deploy, &wanted);
    assert!(
        taken.status == 403 && taken.text().contains("has mounts"),
        "{}",
        taken.text()
    );
    docker(&[
        "service",
        "update",
        "--detach",
        "--mount-rm",
        "/host",
        &made,
    ]);
    assert_eq!(
        send(&world, "PUT", "/system/functions", &deploy, &wanted).status,
        202
    );

    // An administrator may, and hands over what has nothing of an operator's.
    for name in [&plain, &mounted] {
        let wanted = deployment(name, "skep/catservice", json!({}));
        assert_eq!(
            send(&world, "PUT", "/system/functions", &admin, &wanted).status,
            202
        );
        let again = send(&world, "PUT", "/system/functions", &deploy, &wanted).status;
        assert_eq!(again, if name == &plain { 202 } else { 403 });
    }
    let mount = docker(&[
        "service",
        "inspect",
        "-f",
        "{{json .Spec.TaskTemplate.ContainerSpec.Mounts}}",
        &mounted,
    ]);
    assert!(mount.contains("/etc/hostname"), "{mount}");
    let remove = json!({ "functionName": made });
    assert_eq!(
        send(&world, "DELETE", "/system/functions", &deploy, &remove).status,
        202
    );
}

#[test]
fn what_docker_does_not_take_is_a_400_in_its_words() {
    let Some(world) = World::new() else { return };
    let name = own_name("bad");
    for (field, value, says) in [
        (
            "constraints",
            json!(["node.role == worker; x"]),
            "value 'worker; x' is invalid",
        ),
        (
            "constraints",
            json!(["no$de == worker"]),
            "key 'no$de' is invalid",
        ),
        ("image", json!("UPPER"), "is not a valid repository/tag"),
        ("labels", json!({ "big": "x".repeat(900_000) }), "too large"),
    ] {
        let mut wanted = deployment(&name, "skep/catservice", json!({}));
        wanted[field] = value;
        let answer = world.send("POST", "/system/functions", &wanted);
        assert_eq!(answer.status, 400, "{says}: {}", answer.text());
        assert!(answer.text().contains(says), "{says}: {}", answer.text());
        let log = world.gateway_log();
        assert!(log.lines().all(|line| !line.is_empty()), "{log}");
    }
    assert!(!try_docker(&["service", "inspect", &name]).status.success());
}

#[test]
fn a_deploy_key_gives_no_function_a_secret_of_dockers_own() {
    if !try_docker(&["secret", "ls"]).status.success() {
        return;
    }
    let secret = dockers_secret("an operator's");
    let Some(world) = World::with(&[], &FLAGS) else {
        return;
    };
    let key = |scope: &str| {
        let scopes = json!({ "scopes": [scope] });
        let made = send(&world, "POST", "/system/keys", LOGIN, &scopes);
        format!("Bearer {}", made.json()["key"].as_str().unwrap())
    };
    let name = own_name("reader");
    world.adopt(&name);
    let wanted = deployment(&name, "skep/env", json!({ "secrets": [secret.0] }));
    let refused = send(&world, "POST", "/system/functions", &key("deploy"), &wanted);
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(refused.text().contains("scope admin"), "{}", refused.text());
    let made = send(&world, "POST", "/system/functions", &key("admin"), &wanted);
    assert_eq!(made.status, 202, "{}", made.text());
}
