//! A Swarm of real engines on this machine, each in namespaces of its own: processes, mounts, network. Dropping it takes all of
//! it away; a test that is killed takes its engines along and leaves only empty namespaces and a folder.
//!
//! The network has no way out: a namespace with nothing but a bridge connects the engines. So the machine's own addresses and
//! packet filter are left alone, and no engine can wait for a registry or a name server.

mod gateway;
mod namespace;
mod node;

use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::gateway::{NETWORK, PORT};
use self::namespace::Namespace;
pub(crate) use self::node::Node;
use crate::support::gateway::Folder;
use crate::support::within;

/// Room for more tasks than Docker's own choice has.
const SUBNET: &str = "10.9.0.0/20";
/// What every engine gets.
const IMAGES: [&str; 4] = [
    "skep/gateway",
    "skep/catservice",
    "skep/nodeinfo",
    "skep/sleep",
];
/// One Swarm at a time: three engines are enough for two processors.
static TURN: Mutex<()> = Mutex::new(());

/// Managers of one Swarm, each with a gateway.
pub(crate) struct Engines {
    pub(crate) nodes: Vec<Node>,
    hub: Namespace,
    // Dropped after the nodes, whose data it holds.
    _folder: Folder,
    _turn: MutexGuard<'static, ()>,
}

impl Engines {
    /// Three engines, a Swarm of which any two are enough, a network and a gateway on each. `None`, after a line that says
    /// why, where that cannot be had.
    pub(crate) fn three() -> Option<Self> {
        Self::start(3)
    }

    /// A Swarm of one.
    pub(crate) fn one() -> Option<Self> {
        Self::start(1)
    }

    fn start(count: u8) -> Option<Self> {
        if let Some(why) = missing() {
            assert!(
                std::env::var_os("CI").is_none(),
                "{why}, and in CI these must run"
            );
            eprintln!("SKIPPED: {why}, so nothing was tested on several engines");
            return None;
        }
        // A test that failed left nothing behind: its engines were dropped.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let id = format!("skt{:06x}", fastrand::u32(..1 << 24));
        let (folder, hub) = (Folder::new(), Namespace::new(format!("{id}-hub")));
        run(
            "ip",
            &["-n", &hub.0, "link", "add", "bridge", "type", "bridge"],
        );
        run("ip", &["-n", &hub.0, "link", "set", "bridge", "up"]);
        let nodes = (1..=count).map(|number| Node::start(number, &id, &hub, &folder.0));
        let engines = Self {
            nodes: nodes.collect(),
            hub,
            _folder: folder,
            _turn: turn,
        };
        engines.nodes.iter().for_each(Node::wait);
        engines.load_images();
        engines.join();
        engines.start_gateways();
        Some(engines)
    }

    fn load_images(&self) {
        let archive = self._folder.0.join("images.tar");
        let archive = archive.to_str().unwrap();
        run("docker", &[&["save", "-o", archive], &IMAGES[..]].concat());
        std::thread::scope(|scope| {
            for node in &self.nodes {
                scope.spawn(|| node.docker(&["load", "-q", "-i", archive]));
            }
        });
    }

    fn join(&self) {
        let [first, others @ ..] = &self.nodes[..] else {
            return;
        };
        let own = first.address.to_string();
        first.docker(&["swarm", "init", "--advertise-addr", &own]);
        let token = first.docker(&["swarm", "join-token", "-q", "manager"]);
        let manager = format!("{own}:2377");
        for node in others {
            node.docker(&["swarm", "join", "--token", &token, &manager]);
        }
        let options = [
            "--driver",
            "overlay",
            "--attachable",
            "--subnet",
            SUBNET,
            NETWORK,
        ];
        first.docker(&[&["network", "create"], &options[..]].concat());
    }

    fn start_gateways(&self) {
        std::thread::scope(|scope| {
            for node in &self.nodes {
                scope.spawn(|| node.start_gateway("gateway", PORT, node));
            }
        });
        for node in &self.nodes {
            node.wait_for_gateway();
        }
    }

    /// Creates a service on the network, by the first engine; does not wait.
    pub(crate) fn service(&self, name: &str, image: &str, options: &[&str]) {
        let create = ["service", "create", "--detach", "--no-resolve-image"];
        let named = ["--network", NETWORK, "--name", name];
        self.nodes[0].docker(&[&create, &named[..], options, &[image]].concat());
    }

    /// Waits until the gateway of every one of these nodes has so many replicas of a function that take calls.
    pub(crate) fn wait_for_replicas(&self, nodes: &[usize], function: &str, replicas: u64) {
        for at in nodes {
            let what = format!("{replicas} of {function} by gateway {at}");
            within(Duration::from_secs(90), &what, || {
                self.nodes[*at].replicas(function) == replicas
            });
        }
    }

    /// Cuts the engine off from the others, or heals that.
    pub(crate) fn cut(&self, node: usize, is_cut: bool) {
        let (port, state) = (
            format!("port{}", node + 1),
            if is_cut { "down" } else { "up" },
        );
        run("ip", &["-n", &self.hub.0, "link", "set", &port, state]);
    }
}

/// What three engines need and this machine has not.
fn missing() -> Option<String> {
    let fails = |program: &str, args: &[&str]| {
        !Command::new(program)
            .args(args)
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !rustix::process::geteuid().is_root() {
        return Some("starting engines takes root".to_owned());
    }
    for program in ["dockerd", "ip", "nsenter", "setpriv", "unshare"] {
        if fails(program, &["--version"]) && fails(program, &["-V"]) {
            return Some(format!("{program} is missing"));
        }
    }
    let folder = Folder::new();
    let overlay =
        "cd \"$0\" && mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o m";
    let own = ["--mount", "--net", "--pid", "--fork", "--mount-proc"];
    let shell = ["sh", "-c", overlay, folder.0.to_str().unwrap()];
    if fails("unshare", &[&own[..], &shell].concat()) {
        return Some("no overlay can be mounted in a namespace on the temporary folder".to_owned());
    }
    let no_images = fails("docker", &[&["image", "inspect"], &IMAGES[..]].concat());
    no_images
        .then(|| "the machine's engine has not the images that `make images` builds".to_owned())
}

/// Runs a program and returns what it printed; stops the test if it fails.
fn run(program: &str, args: &[&str]) -> String {
    printed(
        &format!("{program} {args:?}"),
        Command::new(program).args(args).output().unwrap(),
    )
}

fn printed(what: &str, output: Output) -> String {
    assert!(
        output.status.success(),
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
