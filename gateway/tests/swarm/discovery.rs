//! What the gateway sees of a Swarm, and how soon.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::client::{get, post, try_get};
use crate::support::{eventually, within};
use crate::world::{World, docker, task_states};

/// What Docker does may not reach callers later than this.
const PROMPT: Duration = Duration::from_millis(250);

#[test]
fn a_service_without_labels_is_routable_when_its_task_runs_and_gone_when_it_is_removed() {
    let Some(world) = World::new() else { return };
    // Two busy processors can delay anybody once; bench/discovery.sh counts every one of twenty on a quiet machine.
    let mut delays = Vec::new();
    while delays.len() < 3
        && !delays
            .iter()
            .any(|(come, go)| *come <= PROMPT && *go <= PROMPT)
    {
        delays.push(come_and_go(&world));
    }
    assert!(
        delays
            .iter()
            .any(|(come, go)| *come <= PROMPT && *go <= PROMPT),
        "after running, after rm: {delays:?}"
    );
}

/// Creates a service, calls it, removes it. Returns how long after Docker the gateway knew, each time.
fn come_and_go(world: &World) -> (Duration, Duration) {
    let cat = world.service("skep/catservice", &[]);
    let path = format!("/function/{cat}");
    within(Duration::from_secs(60), "the task runs", || {
        task_states(&cat)
            .iter()
            .any(|state| state.starts_with("Running"))
    });
    let come = within(Duration::from_secs(10), "the function answers", || {
        post(world.gateway, &path, "hi").status == 200
    });
    assert_eq!(post(world.gateway, &path, "hello").text(), "hello");
    let suggestion = get(world.gateway, &path[..path.len() - 4]);
    assert_eq!(suggestion.status, 404, "a prefix of a name is no name");
    assert!(
        suggestion
            .text()
            .contains(&format!("did you mean '{cat}'?")),
        "{}",
        suggestion.text()
    );
    world.remove(&cat);
    let go = within(Duration::from_secs(10), "the function is gone", || {
        get(world.gateway, &path).status == 404
    });
    (come, go)
}

#[test]
fn calls_are_spread_over_all_replicas_and_follow_the_scale() {
    let Some(world) = World::new() else { return };
    let node = world.service("skep/nodeinfo", &["--replicas", "3"]);
    let detail = |field: &str| world.number(&node, field);
    within(
        Duration::from_secs(60),
        "three replicas are available",
        || detail("availableReplicas") == 3,
    );
    let mut hosts = BTreeSet::new();
    for _ in 0..60 {
        let answer = get(world.gateway, &format!("/function/{node}"));
        assert_eq!(answer.status, 200);
        hosts.insert(answer.text().lines().next().unwrap().to_owned());
    }
    assert_eq!(hosts.len(), 3, "{hosts:?}");

    docker(&["service", "scale", "--detach", &format!("{node}=0")]);
    within(
        Duration::from_secs(5),
        "no replica is left in the table",
        || get(world.gateway, &format!("/function/{node}")).status == 503,
    );
    let asleep = get(world.gateway, &format!("/function/{node}"));
    assert!(
        asleep.text().contains(&format!("'{node}'")) && asleep.text().contains("scaled to 0"),
        "{}",
        asleep.text()
    );
    assert_eq!(detail("replicas"), 0);
    docker(&["service", "scale", "--detach", &format!("{node}=1")]);
    world.answers(&node);
}

#[test]
fn a_call_waits_for_a_replica_that_is_on_its_way() {
    let Some(world) = World::with(&[], &["--patience", "30s"]) else {
        return;
    };
    let cat = world.service("skep/catservice", &[]);
    within(Duration::from_secs(10), "it is listed", || {
        get(world.gateway, &format!("/system/function/{cat}")).status == 200
    });
    let called = Instant::now();
    let answer = post(world.gateway, &format!("/function/{cat}"), "early");
    // The task may have been created an instant after the call looked: then it is told so, and may come again.
    if answer.status == 503 {
        assert!(answer.header("retry-after").is_some(), "{}", answer.text());
        world.answers(&cat);
    } else {
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "early"),
            "after {:?}",
            called.elapsed()
        );
    }
}

#[test]
fn a_killed_task_costs_no_later_call() {
    let Some(world) = World::new() else { return };
    let cat = world.service("skep/catservice", &["--replicas", "2"]);
    let available = || world.number(&cat, "availableReplicas");
    within(
        Duration::from_secs(60),
        "two replicas are available",
        || available() == 2,
    );
    let containers = docker(&[
        "ps",
        "-q",
        "--filter",
        &format!("label=com.docker.swarm.service.name={cat}"),
    ]);
    docker(&["kill", containers.lines().next().unwrap()]);
    for call in 0..100 {
        assert_eq!(
            post(world.gateway, &format!("/function/{cat}"), "x").status,
            200,
            "call {call}"
        );
    }
    within(
        Duration::from_secs(60),
        "the replacement is available",
        || available() == 2,
    );
}

#[test]
fn a_service_off_the_network_is_a_404_that_says_how_to_attach_it() {
    let Some(world) = World::new() else { return };
    let lonely = world.service_off_network("skep/catservice", &[]);
    let path = format!("/function/{lonely}");
    within(Duration::from_secs(10), "the gateway knows of it", || {
        get(world.gateway, &path).text().contains("--network-add")
    });
    let answer = get(world.gateway, &path);
    assert_eq!(answer.status, 404);
    let command = format!(
        "docker service update --network-add {} {lonely}",
        world.network
    );
    assert!(answer.text().contains(&command), "{}", answer.text());
    let words: Vec<_> = command
        .split(' ')
        .skip(1)
        .chain(["--detach", "--no-resolve-image"])
        .collect();
    docker(&words);
    world.answers(&lonely);
}

#[test]
fn labels_opt_out_and_in_and_a_broken_one_is_ignored_with_a_warning() {
    let Some(world) = World::with(&[], &["--require-label", "true"]) else {
        return;
    };
    let silent = world.service("skep/catservice", &[]);
    let out = world.service(
        "skep/catservice",
        &[
            "--label",
            "com.openfaas.function=x",
            "--label",
            "skep.enable=false",
        ],
    );
    let marked = world.service(
        "skep/catservice",
        &[
            "--label",
            "com.openfaas.function=x",
            "--label",
            "skep.timeout=soon",
        ],
    );
    world.answers(&marked);
    for hidden in [&silent, &out] {
        assert_eq!(
            get(world.gateway, &format!("/function/{hidden}")).status,
            404
        );
    }
    world.gateway_logs("label ignored");
    let log = world.gateway_log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("label ignored"))
        .collect();
    assert_eq!(warnings.len(), 1, "told once: {log}");
    assert!(
        warnings[0].contains(&marked)
            && warnings[0].contains("skep.timeout")
            && warnings[0].contains("'soon'"),
        "{}",
        warnings[0]
    );
}

#[test]
fn a_gateway_that_is_a_service_never_routes_to_itself() {
    let Some(world) = World::new() else { return };
    let network = format!("network={}", world.network);
    let socket = "type=bind,source=/var/run/docker.sock,target=/var/run/docker.sock";
    let own = world.service(
        "skep/gateway",
        &[
            "--env",
            &network,
            "--env",
            "basic_auth=false",
            "--mount",
            socket,
            "--publish",
            "mode=host,target=8080",
        ],
    );
    within(Duration::from_secs(60), "it runs", || {
        task_states(&own)
            .iter()
            .any(|state| state.starts_with("Running"))
    });
    let container = docker(&[
        "ps",
        "-q",
        "--filter",
        &format!("label=com.docker.swarm.service.name={own}"),
    ]);
    let port = docker(&["port", &container, "8080"]);
    let port = port
        .lines()
        .next()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let itself = format!("127.0.0.1:{port}").parse().unwrap();
    within(Duration::from_secs(20), "it is ready", || {
        try_get(itself, "/readyz").is_some_and(|answer| answer.status == 200)
    });
    assert_eq!(get(itself, &format!("/function/{own}")).status, 404);
    assert_eq!(get(itself, "/system/functions").text(), "[]");
}

#[test]
fn a_gateway_on_the_wrong_network_starts_and_says_what_to_do() {
    let Some(world) = World::new() else { return };
    let container = crate::world::own_name("stray");
    docker(&[
        "run",
        "-d",
        "--name",
        &container,
        "-p",
        "127.0.0.1::8080",
        "-v",
        "/var/run/docker.sock:/var/run/docker.sock",
        "-e",
        &format!("network={}", world.network),
        "skep/gateway",
    ]);
    let stray = docker(&["port", &container, "8080"])
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    eventually("it says so", || {
        let told = try_get(stray, "/readyz").map(|answer| answer.text());
        told.is_some_and(|told| told.contains("is not attached to the network"))
    });
    assert_eq!(
        (get(stray, "/readyz").status, get(stray, "/healthz").status),
        (503, 200)
    );
    docker(&["network", "connect", &world.network, &container]);
    within(
        Duration::from_secs(10),
        "attached, it becomes ready",
        || get(stray, "/readyz").status == 200,
    );
    docker(&["rm", "-f", &container]);
}
