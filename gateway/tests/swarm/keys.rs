//! Keys, locked functions and counts of calls on a Swarm, where the gateway's folder is a volume that outlives its container.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Answer, get, request};
use crate::support::within;
use crate::world::{World, docker, own_name, try_docker};

/// `admin:s3cret`.
const LOGIN: &str = "Basic YWRtaW46czNjcmV0";
const FLAGS: [&str; 6] = [
    "--basic-auth",
    "true",
    "--basic-auth-user",
    "admin",
    "--basic-auth-password",
    "s3cret",
];

/// A volume that goes with its holder.
struct Volume(String);

impl Drop for Volume {
    fn drop(&mut self) {
        try_docker(&["volume", "rm", "-f", &self.0]);
    }
}

fn send(world: &World, method: &str, path: &str, by: &str, body: &Value) -> Answer {
    let headers = [("Authorization", by)];
    let body = body.to_string();
    request(world.gateway, method, path, &headers, body.as_bytes())
}

fn call(world: &World, function: &str, key: &str) -> u16 {
    let path = format!("/function/{function}");
    send(world, "POST", &path, key, &json!("hi")).status
}

/// Waits until a function that asks for a key answers who has one.
fn answers(world: &World, function: &str, key: &str) {
    within(Duration::from_secs(60), "it answers", || {
        call(world, function, key) == 200
    });
}

/// How often the function was called, as soon as it is listed.
fn count(world: &World, function: &str) -> u64 {
    let path = format!("/system/function/{function}");
    let mut count = 0;
    within(Duration::from_secs(20), "it is listed", || {
        let answer = send(world, "GET", &path, LOGIN, &Value::Null);
        count = answer.json()["invocationCount"].as_u64().unwrap_or(0);
        answer.status == 200
    });
    count
}

#[test]
fn keys_and_counts_outlive_the_gateways_container() {
    let volume = Volume(own_name("state"));
    let mount = format!("{}:/var/lib/skep", volume.0);
    let options = ["-v", mount.as_str()];
    let Some(world) = World::with(&options, &FLAGS) else {
        return;
    };
    let lock = ["--label", "skep.auth=key"];
    let [kept, renewed] = [(); 2].map(|()| world.service("skep/catservice", &lock));
    let wish = json!({ "name": "till", "scopes": ["invoke"] });
    let made = send(&world, "POST", "/system/keys", LOGIN, &wish);
    assert_eq!((made.status, &made.json()["kept"]), (201, &true.into()));
    let key = format!("Bearer {}", made.json()["key"].as_str().unwrap());
    for function in [&kept, &renewed] {
        answers(&world, function, &key);
        let told = get(world.gateway, &format!("/function/{function}"));
        assert_eq!(told.status, 401, "{}", told.text());
    }
    // At least one each: those count, too, that came before a task ran.
    for function in [&kept, &renewed] {
        within(Duration::from_secs(20), "it is counted", || {
            count(&world, function) > 0
        });
    }
    let before = count(&world, &kept);

    docker(&["stop", &world.container]);
    // Made again while nobody looks: another function of the same name.
    docker(&["service", "rm", &renewed]);
    let create = ["service", "create", "--detach", "--no-resolve-image"];
    let named = ["--name", &renewed, "--network", &world.network];
    let all = [&create[..], &named, &lock, &["skep/catservice"]].concat();
    docker(&all);
    let world = world.with_another_gateway(&options, &FLAGS);
    assert_eq!(count(&world, &kept), before);
    assert_eq!(count(&world, &renewed), 0);
    answers(&world, &kept, &key);
    within(Duration::from_secs(20), "it is counted", || {
        count(&world, &kept) > before
    });

    let id = made.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/system/keys/{id}");
    assert_eq!(
        send(&world, "DELETE", &path, LOGIN, &Value::Null).status,
        200
    );
    assert_eq!(call(&world, &kept, &key), 401);
}

#[test]
fn a_gateway_that_may_write_nowhere_says_so_and_works() {
    let Some(world) = World::with(&["--read-only"], &[]) else {
        return;
    };
    let name = world.service("skep/catservice", &[]);
    world.answers(&name);
    world.gateway_logs("/var/lib/skep");
    let log = world.gateway_log();
    let warnings = log.lines().filter(|line| line.contains("/var/lib/skep"));
    assert_eq!(warnings.count(), 1, "{log}");
}
