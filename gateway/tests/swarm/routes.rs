//! Hosts that are services' own: who has one, who is refused, and what a gateway does that has just started.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::door::{Door, Trouble};
use crate::support::client::{Answer, get, raw, request};
use crate::support::within;
use crate::world::{World, own_name};

const HOST: &str = "skep.route.host=shop.example";

/// `GET /` of the host.
fn ask(world: &World) -> Option<Answer> {
    TcpStream::connect(world.gateway).ok()?;
    raw(
        world.gateway,
        b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n",
    )
}

/// What the function at the host says of itself.
fn answers(world: &World, says: &str) {
    within(Duration::from_secs(60), &format!("{says} answers"), || {
        ask(world).is_some_and(|answer| answer.status == 200 && answer.text().trim() == says)
    });
}

fn service(world: &World, says: &str) -> String {
    let command = format!("fprocess=echo {says}");
    world.service("skep/catservice", &["--label", HOST, "--env", &command])
}

fn route(world: &World, name: &str) -> serde_json::Value {
    let told = get(world.gateway, &format!("/system/function/{name}")).json();
    told["route"].clone()
}

#[test]
fn the_older_of_two_services_has_the_host_until_it_goes() {
    let door = Door::new();
    let mount = format!("{}:/engine", door.folder.0.display());
    let options = ["-v", &mount, "-e", "DOCKER_HOST=unix:///engine/docker.sock"];
    let Some(mut world) = World::with(&options, &[]) else {
        return;
    };
    let older = service(&world, "older");
    answers(&world, "older");
    let younger = service(&world, "younger");
    world.answers(&younger);
    let told = route(&world, &younger);
    assert_eq!(told["state"], "taken");
    assert!(told["reason"].as_str().unwrap().contains(&older), "{told}");
    assert_eq!(route(&world, &older)["state"], "active");

    let name = own_name("fn");
    world.adopt(&name);
    let mut wanted = json!({
        "service": name, "image": "skep/catservice", "labels": { "skep.route.host": "shop.example" },
    });
    let deploy = |body: &serde_json::Value| {
        let body = body.to_string();
        request(
            world.gateway,
            "POST",
            "/system/functions",
            &[],
            body.as_bytes(),
        )
    };
    let clash = deploy(&wanted);
    assert!(
        clash.status == 409 && clash.text().contains(&older),
        "{}",
        clash.text()
    );
    wanted["labels"]["skep.route.path"] = json!("/system");
    let broken = deploy(&wanted);
    assert!(
        broken.status == 400 && broken.text().starts_with("labels.skep.route.path"),
        "{}",
        broken.text()
    );
    wanted["labels"]["skep.route.path"] = json!("/cart");
    assert_eq!(deploy(&wanted).status, 202);
    assert_eq!(route(&world, &name)["state"], "active");

    // Whoever answers first after a restart is the function: no page of the gateway's is ever seen there.
    door.set(Trouble::Late(Duration::from_secs(1)));
    world.restart_gateway();
    let mut first = None;
    within(Duration::from_secs(30), "somebody answers", || {
        first = ask(&world);
        first.is_some()
    });
    let first = first.unwrap();
    assert_eq!(first.text().trim(), "older", "{first:?}");
    door.set(Trouble::No);

    world.remove(&older);
    answers(&world, "younger");
    assert_eq!(route(&world, &younger)["state"], "active");
}
