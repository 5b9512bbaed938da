//! What tasks use of processor and memory, told to those who ask.

use std::time::Duration;

use crate::support::client::{get, post, read, send};
use crate::support::within;
use crate::world::World;

#[test]
fn a_busy_service_is_told_from_an_idle_one() {
    let Some(world) = World::new() else { return };
    let busy = "fprocess=sh -c 'while read x; do :; done </dev/zero'";
    let busy = world.service(
        "skep/catservice",
        &["--env", busy, "--env", "exec_timeout=15s"],
    );
    let idle = world.service("skep/catservice", &["--replicas", "2"]);
    world.answers(&idle);
    let used = |name: &str, field: &str| {
        let told = get(world.gateway, &format!("/system/function/{name}?usage=1")).json();
        told["usage"][field].as_f64().unwrap_or(-1.0)
    };
    within(
        Duration::from_secs(60),
        "the busy one takes connections",
        || world.number(&busy, "availableReplicas") == 1,
    );
    let call = format!("GET /function/{busy} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let call = send(world.gateway, call.as_bytes());
    within(Duration::from_secs(12), "the loop shows", || {
        used(&busy, "cpu") > 50.0
    });
    assert_eq!(read(call, false).status, 408, "its own limit ends it");

    let cpu = used(&idle, "cpu");
    assert!(
        (0.0..50.0).contains(&cpu),
        "{cpu} millicores of two that sleep"
    );
    assert!(used(&idle, "totalMemoryBytes") > 200_000.0);
    let plain = get(world.gateway, &format!("/system/function/{idle}")).json();
    assert!(plain.get("usage").is_none(), "{plain}");
    post(
        world.gateway,
        &format!("/system/scale-function/{idle}"),
        r#"{"replicas": 0}"#,
    );
    within(
        Duration::from_secs(60),
        "nothing runs and nothing is said",
        || used(&idle, "cpu") < 0.0,
    );
}
