//! Services that are updated, scaled and killed while calls come at a constant rate: what callers notice of it, which is nothing.
//!
//! Each test has a short form here and a long one that `make soak` runs; docs/reliability.md has the long ones' last results.

use std::time::Duration;

use bytes::Bytes;

use crate::support::client::{get, read, send};
use crate::support::steady::{Load, Steady, Tally};
use crate::support::within;
use crate::world::{World, docker, own_name, try_docker};

/// How much is enough.
struct Amount {
    /// Calls a second; half of them on connections of their own, half on kept ones.
    rate: u32,
    /// So many changes of the service at least,
    changes: u32,
    /// and so many calls.
    calls: u32,
}

const SHORT: Amount = Amount {
    rate: 100,
    changes: 2,
    calls: 0,
};
const LONG: Amount = Amount {
    rate: 500,
    changes: 10,
    calls: 100_000,
};
/// The same for calls that take two seconds each: so many of those run side by side as two processors can bear.
const LONG_OF_SLOW: Amount = Amount {
    rate: 50,
    changes: 10,
    calls: 10_000,
};

/// Calls of a function, with and without kept connections.
struct Callers([Steady; 2]);

impl Callers {
    fn start(load: &Load, rate: u32) -> Self {
        Self([true, false].map(|keep_alive| {
            let load = Load {
                keep_alive,
                rate: rate / 2,
                count: u32::MAX,
                ..load.clone()
            };
            Steady::start(load, || ())
        }))
    }

    fn made(&self) -> u32 {
        self.0.iter().map(Steady::made).sum()
    }

    fn stop(self) -> Tally {
        let [kept, own] = self.0.map(Steady::stop);
        println!("kept connections: {kept}own connections: {own}");
        kept.and(own)
    }
}

/// Changes the world again and again while calls run, until there was enough of both; calls run for two seconds before and after,
/// as long as the longest. Returns how the calls ended.
fn calls_while(load: &Load, amount: &Amount, mut change: impl FnMut(u32)) -> Tally {
    let callers = Callers::start(load, amount.rate);
    let calls_for_two_seconds = || {
        let enough = callers.made() + 2 * amount.rate;
        within(Duration::from_secs(30), "calls run", || {
            callers.made() >= enough
        });
    };
    calls_for_two_seconds();
    let mut changes = 0;
    while changes < amount.changes || callers.made() < amount.calls {
        change(changes);
        changes += 1;
    }
    calls_for_two_seconds();
    let tally = callers.stop();
    println!("{changes} changes");
    tally
}

/// A function that answers at once with what it was sent.
fn instant(world: &World, options: &[&str]) -> (String, Load) {
    let cat = world.service("skep/catservice", options);
    let load = Load::echo(world.gateway, format!("/function/{cat}"));
    (cat, load)
}

/// A function that takes two seconds.
fn two_seconds(world: &World, options: &[&str]) -> (String, Load) {
    let sleep = world.service("skep/sleep", options);
    let load = Load {
        body: None,
        expected: Some(Bytes::from_static(b"slept 2 s\n")),
        ..Load::echo(world.gateway, format!("/function/{sleep}?2"))
    };
    (sleep, load)
}

fn wait_for(world: &World, service: &str, replicas: u64) {
    let what = format!("{replicas} replicas of {service} take calls");
    within(Duration::from_secs(120), &what, || {
        world.number(service, "availableReplicas") == replicas
    });
}

/// Another name of an image, so that an update to it replaces every task.
struct Alias(String);

impl Alias {
    fn of(image: &str) -> Self {
        let alias = own_name("image");
        docker(&["tag", image, &alias]);
        Self(alias)
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        try_docker(&["rmi", &self.0]);
    }
}

type Make = fn(&World, &[&str]) -> (String, Load);

/// Updates three replicas in turn by force and by image.
fn updates_fail_no_call(make: Make, order: &str, amount: &Amount) {
    let Some(world) = World::new() else { return };
    let options = [
        "--replicas",
        "3",
        "--update-order",
        order,
        "--update-monitor",
        "1s",
    ];
    let (service, load) = make(&world, &options);
    wait_for(&world, &service, 3);
    let image = docker(&[
        "service",
        "inspect",
        "--format",
        "{{.Spec.TaskTemplate.ContainerSpec.Image}}",
        &service,
    ]);
    let alias = Alias::of(&image);
    let tally = calls_while(&load, amount, |number| {
        let by: &[&str] = match number % 3 {
            0 => &["--force"],
            1 => &["--image", &alias.0],
            _ => &["--image", &image],
        };
        update(&[by, &[&service]].concat());
    });
    drop(world);
    tally.assert_failed_at_most(0);
}

/// `docker service update`. Its client reads the service, then writes it: what Swarm itself wrote in between, such as the end
/// of the last update, makes it fail, and the next attempt has it.
fn update(args: &[&str]) {
    let command = ["service", "update", "--quiet", "--no-resolve-image"];
    within(Duration::from_secs(120), "the update is taken", || {
        let output = try_docker(&[&command, args].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        let again = told.contains("update out of sequence");
        assert!(output.status.success() || again, "{args:?}: {told}");
        output.status.success()
    });
}

/// Ten replicas, then one, then ten.
fn scaling_fails_no_call(amount: &Amount) {
    let Some(world) = World::new() else { return };
    let (cat, load) = instant(&world, &["--replicas", "10"]);
    wait_for(&world, &cat, 10);
    let tally = calls_while(&load, amount, |_| {
        for replicas in [1, 10] {
            let to = format!("{cat}={replicas}");
            docker(&["service", "scale", "--detach", &to]);
            wait_for(&world, &cat, replicas);
        }
    });
    tally.assert_failed_at_most(0);
}

/// Kills one of three replicas again and again. Returns how the calls ended, and how many were killed.
fn calls_while_tasks_are_killed(
    make: Make,
    labels: &[&str],
    amount: &Amount,
) -> Option<(Tally, u32)> {
    let world = World::new()?;
    let options = ["--replicas", "3", "--restart-delay", "1s"];
    let (service, load) = make(&world, &[&options[..], labels].concat());
    wait_for(&world, &service, 3);
    let mut killed = 0;
    let tally = calls_while(&load, amount, |_| {
        let of = format!("label=com.docker.swarm.service.name={service}");
        let containers = docker(&["ps", "-q", "--filter", &of]);
        docker(&["kill", containers.lines().next().unwrap()]);
        killed += 1;
        within(Duration::from_secs(20), "the gateway knows", || {
            world.number(&service, "availableReplicas") < 3
        });
        wait_for(&world, &service, 3);
    });
    Some((tally, killed))
}

/// The calls that can run on one of three replicas at once, were they spread evenly; doubled, because they are not quite.
fn on_one_of_three(rate: u32, took: Duration) -> usize {
    let side_by_side = f64::from(rate) * took.as_secs_f64();
    (side_by_side / 3.0 * 2.0).ceil() as usize
}

#[test]
fn an_update_that_starts_first_fails_no_call() {
    updates_fail_no_call(instant, "start-first", &SHORT);
}

#[test]
fn an_update_that_stops_first_fails_no_call() {
    updates_fail_no_call(instant, "stop-first", &SHORT);
}

#[test]
fn calls_of_two_seconds_end_well_across_an_update() {
    let few = Amount { rate: 20, ..SHORT };
    updates_fail_no_call(two_seconds, "stop-first", &few);
}

#[test]
fn scaling_from_ten_to_one_and_back_fails_no_call() {
    scaling_fails_no_call(&Amount {
        changes: 1,
        ..SHORT
    });
}

#[test]
fn a_task_that_is_killed_takes_only_the_calls_that_ran_on_it() {
    let few = Amount {
        rate: 20,
        changes: 1,
        ..SHORT
    };
    let Some((tally, killed)) = calls_while_tasks_are_killed(two_seconds, &[], &few) else {
        return;
    };
    let most = on_one_of_three(few.rate, Duration::from_secs(2));
    tally.assert_failed_at_most(killed as usize * most);
}

#[test]
fn a_task_that_is_killed_takes_no_call_of_a_function_that_may_be_tried_again() {
    // With two seconds for each, a third of forty break together.
    let few = Amount {
        rate: 20,
        changes: 1,
        ..SHORT
    };
    let label = ["--label", "skep.retry=idempotent"];
    let Some((tally, _)) = calls_while_tasks_are_killed(two_seconds, &label, &few) else {
        return;
    };
    tally.assert_failed_at_most(0);
}

#[test]
#[ignore = "a minute: make soak"]
fn a_call_of_thirty_five_seconds_ends_well_on_a_task_that_is_replaced_meanwhile() {
    let Some(world) = World::new() else { return };
    let options = [
        "--stop-grace-period=60s",
        "--update-order=start-first",
        "--label=skep.timeout=60s",
        "--env=write_timeout=50s",
        "--env=exec_timeout=50s",
    ];
    let sleep = world.service("skep/sleep", &options);
    wait_for(&world, &sleep, 1);
    let gateway = world.gateway;
    let request =
        format!("GET /function/{sleep}?35 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    let stream = send(gateway, request.as_bytes());
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let call = std::thread::spawn(move || read(stream, false));
    let runs = format!("skep_in_flight{{function_name=\"{sleep}\"}} 1");
    within(Duration::from_secs(10), "the call runs", || {
        get(gateway, "/metrics").text().contains(&runs)
    });
    docker(&["service", "update", "--force", "--detach=false", &sleep]);
    assert!(!call.is_finished(), "the update is over first");
    let answer = call.join().unwrap();
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "slept 35 s\n")
    );
}

#[test]
#[ignore = "many minutes: make soak"]
fn a_hundred_thousand_calls_across_updates_that_start_first_all_succeed() {
    updates_fail_no_call(instant, "start-first", &LONG);
}

#[test]
#[ignore = "many minutes: make soak"]
fn a_hundred_thousand_calls_across_updates_that_stop_first_all_succeed() {
    updates_fail_no_call(instant, "stop-first", &LONG);
}

#[test]
#[ignore = "many minutes: make soak"]
fn ten_thousand_calls_of_two_seconds_across_updates_all_succeed() {
    for order in ["start-first", "stop-first"] {
        updates_fail_no_call(two_seconds, order, &LONG_OF_SLOW);
    }
}

#[test]
#[ignore = "many minutes: make soak"]
fn twenty_cycles_of_scaling_fail_no_call() {
    scaling_fails_no_call(&Amount {
        changes: 20,
        calls: 0,
        ..LONG
    });
}

#[test]
#[ignore = "many minutes: make soak"]
fn twenty_tasks_that_are_killed_take_only_the_calls_that_ran_on_them() {
    let amount = Amount {
        changes: 20,
        calls: 0,
        ..LONG
    };
    let Some((tally, killed)) = calls_while_tasks_are_killed(instant, &[], &amount) else {
        return;
    };
    let most = on_one_of_three(amount.rate, tally.quantile(0.99));
    tally.assert_failed_at_most(killed as usize * most);
}

/// A function with a server of its own that accepts connections three seconds after its start. It answers a GET with a list of files.
fn late_server(world: &World, options: &[&str]) -> (String, Load) {
    let environment = [
        "--env",
        "mode=http",
        "--env",
        "fprocess=sh -c 'sleep 3; exec python3 -m http.server --bind 127.0.0.1 5000'",
        "--env",
        "http_upstream_url=http://127.0.0.1:5000",
        "--no-healthcheck",
    ];
    let service = world.service("skep/pyhandler", &[&environment, options].concat());
    let load = Load {
        body: None,
        expected: None,
        ..Load::echo(world.gateway, format!("/function/{service}/"))
    };
    (service, load)
}

#[test]
fn updates_of_a_server_that_starts_slowly_fail_no_call() {
    let Some(world) = World::new() else { return };
    for (replicas, order) in [("1", "start-first"), ("2", "stop-first")] {
        let options = ["--replicas", replicas, "--update-order", order];
        let (service, load) = late_server(&world, &options);
        within(Duration::from_secs(30), "it is listed", || {
            get(world.gateway, &format!("/system/function/{service}")).status == 200
        });
        // The first call after a deployment as well.
        let first = get(world.gateway, &load.path);
        assert_eq!(first.status, 200, "{}", first.text());
        wait_for(&world, &service, replicas.parse().unwrap());
        let amount = Amount {
            rate: 20,
            changes: 1,
            calls: 0,
        };
        let tally = calls_while(&load, &amount, |_| {
            update(&["--force", "--update-monitor", "1s", &service]);
        });
        tally.assert_failed_at_most(0);
        try_docker(&["service", "rm", &service]);
    }
}
