//! The doctor on a Swarm: what is in order, what could be better, what is bad, and what to do.

use serde_json::{Value, json};

use crate::support::client::get;
use crate::support::gateway::{Folder, ask, told};
use crate::world::{Swarm, World, docker, own_name, remove_network};

/// What the doctor says of these things, each with whether it is good and whether there is advice.
fn findings(world: &World, args: &[&str]) -> Vec<(String, bool, bool, String)> {
    let output = ask(world.gateway, &[&["doctor", "--json"], args].concat(), "");
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let all_good = findings.iter().all(|one| one["good"] == true);
    assert_eq!(output.status.success(), all_good, "{findings:?}");
    let told = findings.into_iter().map(|one| {
        let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
        let said = format!("{} {}", text("found"), text("advice"));
        (
            text("what"),
            one["good"] == true,
            !text("advice").is_empty(),
            said,
        )
    });
    told.collect()
}

/// The findings about one thing.
fn about(all: &[(String, bool, bool, String)], what: &str) -> Vec<(bool, bool, String)> {
    let some = all.iter().filter(|(about, ..)| about == what);
    some.map(|(_, good, advice, said)| (*good, *advice, said.clone()))
        .collect()
}

#[test]
fn a_swarm_in_order_is_found_so_and_each_function_by_how_it_is_hardened() {
    let Some(world) = World::new() else { return };
    let plain = world.service("skep/catservice", &[]);
    let made = world.create("skep/catservice", json!({}));
    world.available(&plain, 1);
    world.available(&made, 1);
    let network = ["--network", world.network.as_str()];
    let text = told(world.gateway, &[&["doctor"], &network[..]].concat(), "");
    for part in [
        "ok   gateway",
        "ok   readiness",
        "see  login",
        "ok   swarm",
        "ok   network",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let all = findings(&world, &network);
    let [(.., addresses)] = &about(&all, "network")[..] else {
        panic!("{all:?}")
    };
    // Two functions, the gateway, and what Docker keeps for itself: not all, and not many.
    let left: u32 = addresses.split(' ').nth(3).unwrap().parse().unwrap();
    assert!((240..=250).contains(&left), "{addresses}");
    let hardening = about(&all, "hardening");
    let without = |name: &str| {
        let of = hardening.iter().find(|(.., said)| said.contains(name));
        of.unwrap_or_else(|| panic!("{name} in {hardening:?}"))
            .2
            .clone()
    };
    assert!(without(&plain).contains("dropping all capabilities"));
    assert!(!without(&made).contains("dropping all capabilities"));
    // What the engine left out is what it said when the function was made.
    let keeps = docker(&["service", "inspect", &made]).contains("\"NoNewPrivileges\": true");
    assert_eq!(without(&made).contains("no-new-privileges"), !keeps);
    assert!(
        !about(&all, "engine").is_empty() && about(&all, "seccomp").is_empty(),
        "{all:?}"
    );
}

#[test]
fn a_network_that_is_missing_small_or_of_one_node_is_told() {
    let Some(world) = World::new() else { return };
    let bad = findings(&world, &["--network", "nosuchnetwork"]);
    let [(false, true, said)] = &about(&bad, "network")[..] else {
        panic!("{bad:?}")
    };
    assert!(said.contains("docker network create"), "{said}");
    let bridge = findings(&world, &["--network", "bridge"]);
    assert!(!about(&bridge, "network")[0].0, "{bridge:?}");
    let small = Small::new();
    let few = findings(&world, &["--network", &small.name]);
    let [(true, true, said)] = &about(&few, "network")[..] else {
        panic!("{few:?}")
    };
    assert!(
        said.contains("--subnet") && said.contains("of 13 addresses"),
        "{said}"
    );
}

/// A network with few addresses, which goes with its holder.
struct Small {
    name: String,
    _swarm: Option<Swarm>,
}

impl Small {
    fn new() -> Self {
        let (swarm, name) = (Swarm::join(), own_name("small"));
        let subnet = format!("10.{}.{}.0/28", fastrand::u8(100..200), fastrand::u8(..));
        docker(&[
            "network", "create", "--driver", "overlay", "--subnet", &subnet, &name,
        ]);
        Self {
            name,
            _swarm: swarm,
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        remove_network(&self.name);
    }
}

#[test]
fn a_login_is_tried_and_an_engine_that_is_not_there_is_told() {
    let folder = Folder::new();
    folder.write("basic-auth-user", "admin");
    folder.write("basic-auth-password", "s3cret");
    let mount = format!("{}:/run/secrets", folder.0.display());
    let options = ["-v", &mount, "-e", "basic_auth=true"];
    let Some(world) = World::with(&options, &[]) else {
        return;
    };
    assert_eq!(get(world.gateway, "/system/functions").status, 401);
    let network = ["--network", world.network.as_str()];
    let without = findings(&world, &network);
    assert!(!about(&without, "login")[0].0, "{without:?}");
    let at = format!("http://admin:s3cret@{}", world.gateway);
    let with = findings(&world, &[&["--gateway", &at], &network[..]].concat());
    assert_eq!(
        about(&with, "login")[0],
        (
            true,
            false,
            "the management API asks for a login, and takes this one ".to_owned()
        )
    );
    let nowhere = ["--gateway", &at, "--docker-host", "unix:///nosuch.sock"];
    let alone = findings(&world, &nowhere);
    let [(false, true, said)] = &about(&alone, "engine")[..] else {
        panic!("{alone:?}")
    };
    assert!(said.contains("--docker-host"), "{said}");
}
