//! Functions made, changed, described and removed through the management API.

use serde_json::{Value, json};

use crate::support::client::get;
use crate::world::{World, deployment, docker, own_name, try_docker};

#[test]
fn a_description_says_what_was_deployed_and_nothing_else() {
    let Some(world) = World::new() else { return };
    let mut fields = json!({
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
    let labels = json!({ "team": "x", "faas_function": name });
    assert_eq!(told.remove("labels"), Some(labels));
    fields.as_object_mut().unwrap().remove("labels");
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
        (&json!({ "faas_function": name }), &json!({}))
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

#[test]
fn a_read_after_a_write_shows_it() {
    let Some(world) = World::new() else { return };
    let name = world.create("skep/catservice", json!({}));
    assert_eq!(world.describe(&name)["name"], json!(name));
    for round in 0..40 {
        let value = format!("{round}");
        let fields = json!({ "envVars": { "ROUND": value } });
        let changed = deployment(&name, "skep/catservice", fields);
        assert_eq!(world.send("PUT", "/system/functions", &changed).status, 202);
        assert_eq!(world.describe(&name)["envVars"]["ROUND"], json!(value));
        let scale = format!("/system/scale-function/{name}");
        let replicas = json!({ "replicas": round % 2 });
        assert_eq!(world.send("POST", &scale, &replicas).status, 202);
        assert_eq!(world.number(&name, "replicas"), round % 2);
    }
    let gone = json!({ "functionName": name });
    assert_eq!(world.send("DELETE", "/system/functions", &gone).status, 202);
    let path = format!("/system/function/{name}");
    assert_eq!(get(world.gateway, &path).status, 404);
}

#[test]
fn a_deployment_leaves_what_an_operator_has_set_by_hand() {
    let Some(world) = World::new() else { return };
    let fields = json!({ "envVars": { "A": "1" }, "labels": { "team": "x" } });
    let name = world.create("skep/catservice", fields);
    world.available(&name, 1);
    docker(&[
        "service",
        "update",
        "--detach",
        "--no-resolve-image",
        "--stop-grace-period",
        "305s",
        "--update-parallelism",
        "3",
        "--update-order",
        "stop-first",
        "--update-failure-action",
        "continue",
        "--restart-condition",
        "on-failure",
        "--limit-memory",
        "64M",
        "--label-add",
        "by-hand=1",
        "--env-add",
        "HAND=1",
        "--constraint-add",
        "node.role==manager",
        "--log-driver",
        "json-file",
        "--mount-add",
        "type=tmpfs,destination=/data",
        &name,
    ]);
    let spec = || -> Value {
        let printed = docker(&["service", "inspect", "--format", "{{json .Spec}}", &name]);
        serde_json::from_str(&printed).unwrap()
    };
    let by_hand = spec();
    let fields = json!({ "envVars": { "B": "2" } });
    let changed = deployment(&name, "skep/catservice", fields);
    let answer = world.send("PUT", "/system/functions", &changed);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let now = spec();
    for place in [
        "/UpdateConfig",
        "/RollbackConfig",
        "/EndpointSpec",
        "/Labels/by-hand",
        "/TaskTemplate/RestartPolicy",
        "/TaskTemplate/Resources",
        "/TaskTemplate/Placement/Constraints",
        "/TaskTemplate/LogDriver",
        "/TaskTemplate/ContainerSpec/StopGracePeriod",
        "/TaskTemplate/ContainerSpec/Mounts",
        "/TaskTemplate/ContainerSpec/Healthcheck",
    ] {
        assert!(by_hand.pointer(place).is_some(), "{place} in {by_hand}");
        assert_eq!(now.pointer(place), by_hand.pointer(place), "{place}");
    }
    let container = &now["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["StopGracePeriod"], 305_000_000_000_u64);
    assert_eq!(container["Env"], json!(["B=2", "HAND=1"]));
    assert!(now["Labels"]["team"].is_null(), "the gateway had set it");
}
