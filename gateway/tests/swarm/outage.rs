//! The Docker socket goes away and comes back: calls go on, readiness tells, recovery is quick.

use std::io::{BufRead, BufReader, copy};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::client::{get, post};
use crate::support::gateway::{Folder, signal, skep};
use crate::support::within;
use crate::world::World;

/// A socket in a folder of its own that leads to the real engine, and can be taken away.
struct Door {
    folder: Folder,
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Door {
    fn open(&self) {
        let listener = UnixListener::bind(self.folder.0.join("docker.sock")).unwrap();
        let open = self.open.clone();
        std::thread::spawn(move || {
            for inside in listener.incoming() {
                let (Ok(inside), Ok(engine)) =
                    (inside, UnixStream::connect("/var/run/docker.sock"))
                else {
                    return;
                };
                let mut held = open.lock().unwrap();
                for (from, to) in [(&inside, &engine), (&engine, &inside)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    held.push(from.try_clone().unwrap());
                    std::thread::spawn(move || {
                        // Either side may close first.
                        let _ = copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
    }

    /// Takes the socket away and cuts every connection through it.
    fn close(&self) {
        std::fs::remove_file(self.folder.0.join("docker.sock")).unwrap();
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn the_engine_can_be_reached_over_tcp_as_behind_a_socket_proxy() {
    let Some(world) = World::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for inside in listener.incoming() {
            let (inside, engine) = (
                inside.unwrap(),
                UnixStream::connect("/var/run/docker.sock").unwrap(),
            );
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

#[test]
fn calls_go_on_while_the_docker_socket_is_gone_and_the_gateway_is_back_within_two_seconds() {
    let door = Door {
        folder: Folder::new(),
        open: Arc::default(),
    };
    door.open();
    let mount = format!("{}:/engine", door.folder.0.display());
    let Some(world) = World::with(
        &["-v", &mount, "-e", "DOCKER_HOST=unix:///engine/docker.sock"],
        &[],
    ) else {
        return;
    };
    let cat = world.service("skep/catservice", &[]);
    world.answers(&cat);

    door.close();
    let ready = || get(world.gateway, "/readyz").json();
    within(Duration::from_secs(10), "readiness says stale", || {
        ready()["stale_seconds"].as_f64().unwrap() > 0.0
    });
    for _ in 0..20 {
        assert_eq!(
            post(world.gateway, &format!("/function/{cat}"), "x").status,
            200,
            "the last known table serves"
        );
    }
    let stale = ready();
    assert!(
        stale["ready"] == true
            && stale["reason"]
                .as_str()
                .unwrap()
                .contains("does not answer"),
        "{stale}"
    );
    let other = world.service("skep/catservice", &[]);
    assert_eq!(
        get(world.gateway, &format!("/function/{other}")).status,
        404,
        "nobody could tell the gateway"
    );

    door.open();
    let took = within(Duration::from_secs(10), "the gateway sees again", || {
        ready()["stale_seconds"].as_f64() == Some(0.0)
            && get(world.gateway, &format!("/system/function/{other}")).status == 200
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
    world.answers(&other);
}
