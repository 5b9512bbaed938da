//! A task that is paused: its kernel takes connections for it, and nothing answers.

use std::time::{Duration, Instant};

use crate::support::client::{get, post};
use crate::support::steady::{Load, Steady};
use crate::support::within;
use crate::world::{World, docker, try_docker};

/// A container that stands still until its holder goes: while it does, nobody can remove it.
struct Paused(String);

impl Paused {
    fn new(container: &str) -> Self {
        docker(&["pause", container]);
        Self(container.to_owned())
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        try_docker(&["unpause", &self.0]);
    }
}

#[test]
fn calls_go_on_while_a_task_is_paused() {
    let Some(world) = World::new() else { return };
    let name = world.service("skep/catservice", &["--replicas", "2"]);
    let available = |number: u64| {
        within(
            Duration::from_secs(60),
            &format!("{number} take calls"),
            || world.number(&name, "availableReplicas") == number,
        );
    };
    available(2);
    let path = format!("/function/{name}");
    for _ in 0..20 {
        assert_eq!(post(world.gateway, &path, "x").status, 200);
    }
    let load = Load {
        rate: 50,
        count: u32::MAX,
        ..Load::echo(world.gateway, path)
    };
    let calls = Steady::start(load, || ());
    let label = format!("label=com.docker.swarm.service.name={name}");
    let containers = docker(&["ps", "-q", "--filter", &label]);
    let paused = Paused::new(containers.lines().next().unwrap());
    available(1);
    let without = Instant::now();
    let told = get(world.gateway, &format!("/system/function/{name}")).text();
    assert!(told.contains("says nothing"), "{told}");
    let made = calls.made();
    within(
        Duration::from_secs(20),
        "a hundred more calls were made",
        || calls.made() >= made + 100,
    );
    drop(paused);
    available(2);
    let tally = calls.stop();
    println!("{tally}");
    tally.assert_failed_at_most(0);
    assert_eq!(
        tally.slow_since(without, Duration::from_secs(1)),
        0,
        "{tally}"
    );
}
