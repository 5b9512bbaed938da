//! Functions made, changed, described and removed through the management API.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::within;
use crate::world::{World, deployment, docker, own_name, try_docker};

#[test]
fn a_description_says_what_was_deployed_and_nothing_else() {
    let Some(world) = World::new() else { return };
    let fields = json!({
        "envProcess": "cat", "envVars": { "A": "b=c" }, "constraints": ["node.role == manager"],
        "labels": { "team": "x" }, "annotations": { "topic": "t" },
        "limits": { "memory": "40m", "cpu": "0.5" }, "requests": { "memory": "20Mi", "cpu": "100m" },
        "readOnlyRootFilesystem": true,
    });
    let name = world.create("skep/catservice", fields.clone());
    world.available(&name, 1);
    let mut told = world.describe(&name);
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

    let bare = world.send(
        "PUT",
        "/system/functions",
        &deployment(&name, "skep/catservice", json!({})),
    );
    assert_eq!(bare.status, 202, "{}", bare.text());
    within(
        Duration::from_secs(10),
        "what was dropped is dropped",
        || world.describe(&name).get("envVars").is_none(),
    );
    let told = world.describe(&name);
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
    let answer = world.send(
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
    world.available(&plain, 1);

    let scale = |name: &str| {
        world
            .send(
                "POST",
                &format!("/system/scale-function/{name}"),
                &json!({ "replicas": 2 }),
            )
            .status
    };
    assert_eq!(scale(&plain), 202);
    world.available(&plain, 2);
    let updated = world.send(
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
            world
                .send(
                    "DELETE",
                    "/system/functions",
                    &json!({ "functionName": other })
                )
                .status,
            404
        );
        assert_eq!(
            world
                .send(
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
        world
            .send(
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
fn memory_that_docker_does_not_take_is_raised_and_told_back_as_it_was_written() {
    let Some(world) = World::new() else { return };
    let (name, memory) = (own_name("fn"), json!({ "memory": "5Mi" }));
    world.adopt(&name);
    let fields = json!({ "limits": memory, "requests": { "memory": "1M" } });
    let wanted = deployment(&name, "skep/catservice", fields);
    let answer = world.send("POST", "/system/functions", &wanted);
    let note = "limits.memory: 5Mi is less than Docker takes: 6Mi is in force";
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(answer.text().contains(note), "{}", answer.text());
    world.gateway_logs(note);
    world.answers(&name);
    let told = world.describe(&name);
    assert_eq!(
        (&told["limits"], &told["requests"]["memory"]),
        (&memory, &json!("1M"))
    );
    assert_eq!(told["notes"][0], note);
    assert_eq!(told["notes"].as_array().unwrap().len(), 2, "{told}");
    let in_force = docker(&[
        "service",
        "inspect",
        "--format",
        "{{.Spec.TaskTemplate.Resources.Limits.MemoryBytes}} {{.Spec.TaskTemplate.Resources.Reservations.MemoryBytes}}",
        &name,
    ]);
    assert_eq!(in_force, "6291456 4194304");
}
