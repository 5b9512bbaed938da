//! Functions made, changed and removed through the management API.

use std::time::Duration;

use serde_json::{Value, json};

use crate::door::Door;
use crate::support::client::{Answer, get, post, request};
use crate::support::steady::{Load, Steady};
use crate::support::within;
use crate::world::{World, docker, own_name, try_docker};

fn send(world: &World, method: &str, path: &str, body: &Value) -> Answer {
    request(
        world.gateway,
        method,
        path,
        &[("Content-Type", "application/json")],
        body.to_string().as_bytes(),
    )
}

/// Makes a function with these fields besides name and image; it goes with the world.
fn create(world: &World, image: &str, fields: Value) -> String {
    let name = own_name("fn");
    world.adopt(&name);
    let answer = send(
        world,
        "POST",
        "/system/functions",
        &deployment(&name, image, fields),
    );
    assert_eq!(answer.status, 202, "{}", answer.text());
    name
}

fn deployment(name: &str, image: &str, mut fields: Value) -> Value {
    fields["service"] = json!(name);
    fields["image"] = json!(image);
    fields
}

fn describe(world: &World, name: &str) -> Value {
    get(world.gateway, &format!("/system/function/{name}")).json()
}

fn available(world: &World, name: &str, replicas: u64) {
    within(
        Duration::from_secs(90),
        &format!("{name} has {replicas} replicas"),
        || world.number(name, "availableReplicas") == replicas,
    );
}

#[test]
fn a_function_is_made_called_updated_under_load_scaled_and_removed() {
    let Some(world) = World::new() else { return };
    let name = create(
        &world,
        "skep/catservice",
        json!({ "labels": { "com.openfaas.scale.min": "2" } }),
    );
    assert_eq!(
        describe(&world, &name)["replicas"],
        2,
        "it is listed before the answer"
    );
    available(&world, &name, 2);
    let path = format!("/function/{name}.openfaas-fn");
    assert_eq!(post(world.gateway, &path, "hello").text(), "hello");

    update_under_load(&world, &name);

    let scale = |replicas: u64| {
        let body = json!({ "serviceName": name, "replicas": replicas });
        let answer = send(
            &world,
            "POST",
            &format!("/system/scale-function/{name}"),
            &body,
        );
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(
            describe(&world, &name)["replicas"].as_u64().unwrap_or(0),
            replicas
        );
        available(&world, &name, replicas);
    };
    scale(0);
    assert_eq!(get(world.gateway, &path).status, 503);
    scale(3);

    let removed = send(
        &world,
        "DELETE",
        "/system/functions",
        &json!({ "functionName": name, "namespace": "openfaas-fn" }),
    );
    assert_eq!(removed.status, 202, "{}", removed.text());
    assert_eq!(get(world.gateway, &path).status, 404, "at once");
    assert!(!try_docker(&["service", "inspect", &name]).status.success());
}

/// Changes the function's environment while it is called: every call is answered, and replicas stay as many as they are.
fn update_under_load(world: &World, name: &str) {
    let load = Load {
        rate: 50,
        count: u32::MAX,
        ..Load::echo(world.gateway, format!("/function/{name}"))
    };
    let calls = Steady::start(load, || ());
    let running = || {
        docker(&[
            "service",
            "ps",
            "-q",
            "--filter",
            "desired-state=running",
            name,
        ])
    };
    let old = running();
    let wanted = deployment(
        name,
        "skep/catservice",
        json!({ "envVars": { "generation": "2" } }),
    );
    let answer = send(world, "PUT", "/system/functions", &wanted);
    assert_eq!(answer.status, 202, "{}", answer.text());
    within(Duration::from_secs(120), "every task is replaced", || {
        let state = docker(&[
            "service",
            "inspect",
            "--format",
            "{{.UpdateStatus.State}}",
            name,
        ]);
        state == "completed" && running().lines().all(|task| !old.contains(task))
    });
    let tally = calls.stop();
    println!("{tally}");
    tally.assert_failed_at_most(0);
    let told = describe(world, name);
    assert_eq!(
        (&told["replicas"], &told["envVars"]["generation"]),
        (&json!(2), &json!("2"))
    );
}

#[test]
fn a_description_says_what_was_deployed_and_nothing_else() {
    let Some(world) = World::new() else { return };
    let fields = json!({
        "envProcess": "cat", "envVars": { "A": "b=c" }, "constraints": ["node.role == manager"],
        "labels": { "team": "x" }, "annotations": { "topic": "t" },
        "limits": { "memory": "40m", "cpu": "0.5" }, "requests": { "memory": "20Mi", "cpu": "100m" },
        "readOnlyRootFilesystem": true,
    });
    let name = create(&world, "skep/catservice", fields.clone());
    available(&world, &name, 1);
    let mut told = describe(&world, &name);
    let created = told["createdAt"].as_str().unwrap().to_owned();
    assert!(
        created.starts_with("20") && created.ends_with('Z'),
        "{created}"
    );
    let told = told.as_object_mut().unwrap();
    for (field, value) in [
        ("name", json!(name)),
        ("image", json!("skep/catservice")),
        ("namespace", json!("openfaas-fn")),
    ] {
        assert_eq!(told.remove(field), Some(value));
    }
    for counted in ["createdAt", "replicas", "availableReplicas"] {
        assert!(told.remove(counted).is_some(), "{counted}");
    }
    for (field, value) in fields.as_object().unwrap() {
        assert_eq!(told.remove(field).as_ref(), Some(value), "{field}");
    }
    told.remove("endpoints");
    assert!(told.is_empty(), "{told:?}");

    let bare = send(
        &world,
        "PUT",
        "/system/functions",
        &deployment(&name, "skep/catservice", json!({})),
    );
    assert_eq!(bare.status, 202, "{}", bare.text());
    within(
        Duration::from_secs(10),
        "what was dropped is dropped",
        || describe(&world, &name).get("envVars").is_none(),
    );
    let told = describe(&world, &name);
    for dropped in [
        "envProcess",
        "envVars",
        "constraints",
        "limits",
        "requests",
        "readOnlyRootFilesystem",
    ] {
        assert!(told.get(dropped).is_none(), "{dropped} in {told}");
    }
    assert_eq!(
        (&told["labels"], &told["annotations"]),
        (&json!({}), &json!({}))
    );
}

#[test]
fn a_function_is_hardened_and_the_answer_says_what_the_engine_left_out() {
    let Some(world) = World::new() else { return };
    let name = own_name("fn");
    world.adopt(&name);
    let answer = send(
        &world,
        "POST",
        "/system/functions",
        &deployment(
            &name,
            "skep/catservice",
            json!({ "readOnlyRootFilesystem": true }),
        ),
    );
    assert_eq!(answer.status, 202, "{}", answer.text());
    let spec: Value = serde_json::from_str(&docker(&[
        "service",
        "inspect",
        "--format",
        "{{json .Spec}}",
        &name,
    ]))
    .unwrap();
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["CapabilityDrop"], json!(["ALL"]));
    assert_eq!(container["ReadOnly"], true);
    assert_eq!(spec["TaskTemplate"]["Resources"]["Limits"]["Pids"], 1024);
    let has = container["Privileges"]["NoNewPrivileges"] == true;
    assert_eq!(
        has,
        !answer.text().contains("no-new-privileges"),
        "{}",
        answer.text()
    );
    world.answers(&name);
}

#[test]
fn what_is_unknown_or_there_already_is_told_from_what_is_wrong() {
    let Some(world) = World::new() else { return };
    let nobody = own_name("nobody");
    let unknown = deployment(&nobody, "skep/catservice", json!({}));
    assert_eq!(
        send(&world, "PUT", "/system/functions", &unknown).status,
        404,
        "clients then make it"
    );
    assert_eq!(
        send(
            &world,
            "DELETE",
            "/system/functions",
            &json!({ "functionName": nobody })
        )
        .status,
        404
    );
    assert_eq!(
        send(
            &world,
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

    let name = create(&world, "skep/catservice", json!({}));
    let again = send(
        &world,
        "POST",
        "/system/functions",
        &deployment(&name, "skep/catservice", json!({})),
    );
    assert_eq!(again.status, 409, "{}", again.text());
    assert!(again.text().contains("there already"), "{}", again.text());
    let secret = send(
        &world,
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
fn a_plain_service_can_be_scaled_updated_and_removed_and_infrastructure_never() {
    let Some(world) = World::new() else { return };
    let plain = world.service(
        "skep/catservice",
        &[
            "--health-cmd",
            "/usr/bin/fwatchdog -run-healthcheck",
            "--health-interval",
            "1s",
        ],
    );
    let hidden = world.service("skep/catservice", &["--label", "skep.enable=false"]);
    let lonely = world.service_off_network("skep/catservice", &[]);
    available(&world, &plain, 1);

    let scale = |name: &str| {
        send(
            &world,
            "POST",
            &format!("/system/scale-function/{name}"),
            &json!({ "replicas": 2 }),
        )
        .status
    };
    assert_eq!(scale(&plain), 202);
    available(&world, &plain, 2);
    let updated = send(
        &world,
        "PUT",
        "/system/functions",
        &deployment(
            &plain,
            "skep/catservice",
            json!({ "envVars": { "A": "1" } }),
        ),
    );
    assert_eq!(updated.status, 202, "{}", updated.text());
    let health = docker(&[
        "service",
        "inspect",
        "--format",
        "{{json .Spec.TaskTemplate.ContainerSpec.Healthcheck.Test}}",
        &plain,
    ]);
    assert!(
        health.contains("-run-healthcheck"),
        "its health check is still there: {health}"
    );

    for other in [&hidden, &lonely] {
        assert_eq!(scale(other), 404, "{other}");
        assert_eq!(
            send(
                &world,
                "DELETE",
                "/system/functions",
                &json!({ "functionName": other })
            )
            .status,
            404
        );
        assert_eq!(
            send(
                &world,
                "PUT",
                "/system/functions",
                &deployment(other, "skep/catservice", json!({}))
            )
            .status,
            404
        );
        docker(&["service", "inspect", other]);
    }
    assert_eq!(
        send(
            &world,
            "DELETE",
            "/system/functions",
            &json!({ "functionName": plain })
        )
        .status,
        202
    );
    assert!(!try_docker(&["service", "inspect", &plain]).status.success());
}

#[test]
fn two_writers_at_once_both_get_through() {
    let Some(world) = World::new() else { return };
    let name = create(&world, "skep/catservice", json!({}));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (world, name) = (&world, &name);
                scope.spawn(move || {
                    let body = json!({ "replicas": writer });
                    (0..5)
                        .map(|_| {
                            send(
                                world,
                                "POST",
                                &format!("/system/scale-function/{name}"),
                                &body,
                            )
                            .status
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect()
    });
    assert!(
        statuses.iter().all(|status| matches!(status, 202 | 409)),
        "{statuses:?}"
    );
    assert!(
        statuses.iter().filter(|status| **status == 202).count() >= 10,
        "{statuses:?}"
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

#[test]
fn fifty_functions_at_once_are_all_made() {
    let Some(world) = World::new() else { return };
    let names: Vec<String> = (0..50).map(|_| own_name("many")).collect();
    names.iter().for_each(|name| world.adopt(name));
    // Without replicas: this is about the API, not about fifty containers on this machine.
    std::thread::scope(|scope| {
        for part in names.chunks(10) {
            let world = &world;
            scope.spawn(move || {
                for name in part {
                    let fields = json!({ "constraints": ["node.labels.nowhere == true"] });
                    let answer = send(
                        world,
                        "POST",
                        "/system/functions",
                        &deployment(name, "skep/catservice", fields),
                    );
                    assert_eq!(answer.status, 202, "{}", answer.text());
                }
            });
        }
    });
    let listed = get(world.gateway, "/system/functions").json();
    assert_eq!(listed.as_array().unwrap().len(), 50);
}

#[test]
fn without_docker_a_change_is_a_503_with_a_reason_and_nothing_is_half_done() {
    let door = Door::new();
    let mount = format!("{}:/engine", door.folder.0.display());
    let Some(world) = World::with(
        &["-v", &mount, "-e", "DOCKER_HOST=unix:///engine/docker.sock"],
        &[],
    ) else {
        return;
    };
    let name = create(&world, "skep/catservice", json!({}));
    door.close();
    let other = own_name("fn");
    for (method, path, body) in [
        (
            "POST",
            "/system/functions".to_owned(),
            deployment(&other, "skep/catservice", json!({})),
        ),
        (
            "PUT",
            "/system/functions".to_owned(),
            deployment(&name, "skep/env", json!({})),
        ),
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
    ] {
        let refused = send(&world, method, &path, &body);
        assert_eq!(refused.status, 503, "{method} {path}: {}", refused.text());
        assert!(
            refused.text().contains("nothing was changed"),
            "{}",
            refused.text()
        );
    }
    assert_eq!(
        get(world.gateway, &format!("/system/function/{name}")).status,
        200,
        "the last known functions are still told"
    );
    door.open();
    let image = docker(&[
        "service",
        "inspect",
        "--format",
        "{{.Spec.TaskTemplate.ContainerSpec.Image}} {{.Spec.Mode.Replicated.Replicas}}",
        &name,
    ]);
    assert_eq!(image, "skep/catservice 1");
    assert!(!try_docker(&["service", "inspect", &other]).status.success());
}
