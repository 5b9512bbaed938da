//! Changes that come at the same time, in great numbers, or while Docker is away.

use std::sync::Barrier;

use serde_json::{Value, json};

use crate::door::Door;
use crate::support::client::get;
use crate::world::{Secret, World, deployment, docker, own_name, try_docker};

#[test]
fn two_writers_at_once_both_get_through() {
    let Some(world) = World::new() else { return };
    let name = world.create("skep/catservice", json!({}));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (world, name) = (&world, &name);
                scope.spawn(move || {
                    let body = json!({ "replicas": writer });
                    (0..5)
                        .map(|_| {
                            world
                                .send("POST", &format!("/system/scale-function/{name}"), &body)
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

/// Fifty people make a function each at the same moment.
fn fifty(world: &World, fields: &Value) -> Vec<String> {
    let all_at_once = Barrier::new(50);
    std::thread::scope(|scope| {
        let makers = (0..50).map(|_| {
            scope.spawn(|| {
                all_at_once.wait();
                world.create("skep/catservice", fields.clone())
            })
        });
        let makers: Vec<_> = makers.collect();
        makers.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn fifty_functions_at_once_are_all_made() {
    let Some(world) = World::new() else { return };
    // Without replicas: this is about the API, not about fifty containers on this machine.
    fifty(
        &world,
        &json!({ "constraints": ["node.labels.nowhere == true"] }),
    );
    let listed = get(world.gateway, "/system/functions").json();
    assert_eq!(listed.as_array().unwrap().len(), 50);
}

#[test]
#[ignore = "fifty containers: make soak"]
fn fifty_functions_at_once_all_answer() {
    let Some(world) = World::new() else { return };
    for name in fifty(&world, &json!({})) {
        world.answers(&name);
    }
}

#[test]
fn without_docker_a_change_is_a_503_with_a_reason_and_nothing_is_half_done() {
    let (door, secret) = (Door::new(), Secret::named());
    let mount = format!("{}:/engine", door.folder.0.display());
    let Some(world) = World::with(
        &["-v", &mount, "-e", "DOCKER_HOST=unix:///engine/docker.sock"],
        &[],
    ) else {
        return;
    };
    let name = world.create("skep/catservice", json!({}));
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
        (
            "DELETE",
            format!("/system/function/{name}/replicas"),
            json!({}),
        ),
        (
            "POST",
            "/system/secrets".to_owned(),
            json!({ "name": secret.0, "value": "x" }),
        ),
    ] {
        let refused = world.send(method, &path, &body);
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
    assert_eq!(secret.stored(), [""; 0]);
}
