//! Docker in trouble: calls go on, the gateway says how old its knowledge is, is soon up to date again, and asks no more often
//! than before.

use std::io::{BufRead, BufReader, copy};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::door::{Door, ENGINE, Trouble};
use crate::support::client::get;
use crate::support::gateway::{signal, skep};
use crate::support::steady::{Load, Steady};
use crate::support::within;
use crate::world::World;

/// The most requests to Docker in one second, whatever happens there: 25 listings of two lists each, the network, the events.
const CALM: usize = 55;
/// How soon the gateway is up to date again.
const BACK: Duration = Duration::from_secs(2);

/// A gateway that reads Docker through a door, and a function with two replicas that is called all the time.
struct Troubled {
    door: Door,
    function: String,
    calls: Steady,
    // Goes last: it takes the gateway away.
    world: World,
}

impl Troubled {
    fn start() -> Option<Self> {
        let door = Door::new();
        let mount = format!("{}:/engine", door.folder.0.display());
        let options = ["-v", &mount, "-e", "DOCKER_HOST=unix:///engine/docker.sock"];
        let world = World::with(&options, &[])?;
        let function = world.service("skep/catservice", &["--replicas", "2"]);
        within(Duration::from_secs(60), "two replicas", || {
            world.number(&function, "availableReplicas") == 2
        });
        let load = Load {
            rate: 50,
            count: u32::MAX,
            ..Load::echo(world.gateway, format!("/function/{function}"))
        };
        let calls = Steady::start(load, || ());
        Some(Self {
            door,
            function,
            calls,
            world,
        })
    }

    fn ready(&self) -> Value {
        get(self.world.gateway, "/readyz").json()
    }

    fn metric(&self, series: &str) -> f64 {
        let page = get(self.world.gateway, "/metrics").text();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap().parse().unwrap()
    }

    fn seconds_old(&self) -> f64 {
        self.metric("skep_discovery_age_seconds")
    }

    /// Waits until readiness says stale, for this reason, and the metric shows it; then stays like that for a while.
    fn is_stale_for(&self, long: Duration, because: &str) {
        let what = format!("readiness says stale, because '{because}'");
        within(Duration::from_secs(15), &what, || {
            let told = self.ready();
            told["ready"] == true
                && told["stale_seconds"].as_f64().unwrap() > 0.0
                && told["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.contains(because))
        });
        within(long + Duration::from_secs(5), "the table ages", || {
            self.seconds_old() >= long.as_secs_f64()
        });
    }

    /// A change that Docker makes now reaches callers in time, without more questions than ever; no call has failed.
    fn recovers(self, since: Instant) {
        let other = self.world.service_off_network("skep/catservice", &[]);
        // Docker may take its time to make it.
        let began = Instant::now();
        let listed = |name: &str| get(self.world.gateway, &format!("/function/{name}")).text();
        within(Duration::from_secs(20), "the gateway sees again", || {
            self.ready()["stale_seconds"].as_f64() == Some(0.0)
                && listed(&other).contains("--network-add")
        });
        let took = began.elapsed();
        assert!(took < BACK, "{took:?}");
        std::thread::sleep(Duration::from_secs(3));
        let most = self.door.most_requests_a_second(since);
        println!("back after {took:?}, at most {most} requests a second");
        assert!(most <= CALM, "{most} requests in one second");
        assert_eq!(self.world.number(&self.function, "availableReplicas"), 2);
        let tally = self.calls.stop();
        println!("{tally}");
        tally.assert_failed_at_most(0);
    }
}

/// Docker has this trouble for a while.
fn calls_go_on_through(trouble: Trouble, because: &str) {
    let Some(troubled) = Troubled::start() else {
        return;
    };
    let since = Instant::now();
    troubled.door.set(trouble);
    troubled.is_stale_for(Duration::from_secs(5), because);
    troubled.door.set(Trouble::No);
    troubled.recovers(since);
}

#[test]
fn calls_go_on_while_docker_answers_with_errors() {
    calls_go_on_through(Trouble::Errors, "answers 500");
}

#[test]
fn calls_go_on_while_docker_s_answers_are_truncated() {
    calls_go_on_through(Trouble::Truncated, "reading an answer");
}

#[test]
fn calls_go_on_while_docker_answers_garbage() {
    calls_go_on_through(Trouble::Garbage, "speaking HTTP");
}

#[test]
fn calls_go_on_while_docker_takes_five_seconds_for_each_answer() {
    let Some(troubled) = Troubled::start() else {
        return;
    };
    let since = Instant::now();
    troubled.door.set(Trouble::Late(Duration::from_secs(5)));
    // The network is asked for first, then the lists; nothing fails, all is late.
    within(Duration::from_secs(20), "the table ages", || {
        troubled.seconds_old() > 4.5
    });
    let other = troubled.world.service_off_network("skep/catservice", &[]);
    within(
        Duration::from_secs(30),
        "what changed is seen, late",
        || {
            get(troubled.world.gateway, &format!("/function/{other}"))
                .text()
                .contains("--network-add")
        },
    );
    troubled.door.set(Trouble::No);
    troubled.recovers(since);
}

#[test]
fn calls_go_on_while_docker_does_not_answer_at_all() {
    let Some(troubled) = Troubled::start() else {
        return;
    };
    troubled
        .door
        .set(Trouble::Late(Duration::from_secs(24 * 3600)));
    troubled.is_stale_for(Duration::from_secs(11), "nothing within 10s");
    troubled.door.set(Trouble::No);
    within(Duration::from_secs(15), "the engine is asked again", || {
        troubled.seconds_old() < 5.0
    });
    troubled.calls.stop().assert_failed_at_most(0);
}

/// The socket is not there for a while.
fn calls_go_on_while_the_socket_is_gone_for(long: Duration) {
    let Some(troubled) = Troubled::start() else {
        return;
    };
    let since = Instant::now();
    troubled.door.close();
    troubled.is_stale_for(long, "does not answer");
    troubled.door.open();
    troubled.recovers(since);
}

#[test]
fn calls_go_on_while_the_docker_socket_is_gone() {
    calls_go_on_while_the_socket_is_gone_for(Duration::from_secs(8));
}

#[test]
#[ignore = "more than a minute: make soak"]
fn calls_go_on_while_the_docker_socket_is_gone_for_a_minute() {
    calls_go_on_while_the_socket_is_gone_for(Duration::from_secs(60));
}

#[test]
fn the_engine_can_be_reached_over_tcp_as_behind_a_socket_proxy() {
    let Some(world) = World::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for inside in listener.incoming() {
            let (inside, engine) = (inside.unwrap(), UnixStream::connect(ENGINE).unwrap());
            let (mut from, mut to) = (inside.try_clone().unwrap(), engine.try_clone().unwrap());
            std::thread::spawn(move || copy(&mut from, &mut to));
            let (mut from, mut to) = (engine, inside);
            std::thread::spawn(move || copy(&mut from, &mut to));
        }
    });
    // On the host it is attached to no overlay network: that it can say so, by the network's name, is what it read.
    let args = [
        "--bind",
        "127.0.0.1",
        "--port",
        "0",
        "--metrics-port",
        "off",
        "--data-dir",
        "off",
        "--basic-auth",
        "false",
        "--network",
        &world.network,
        "--docker-host",
        &proxy,
    ];
    let mut child = skep().args(args).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("is not attached to the network") && log.read_line(&mut told).unwrap() > 0
    {
    }
    signal(child.id(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(
        told.contains(&format!(
            "is not attached to the network '{}'",
            world.network
        )),
        "{told}"
    );
}
