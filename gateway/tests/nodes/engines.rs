//! A Swarm of real engines on this machine, each in namespaces of its own: processes, mounts, network. Dropping it takes all of
//! it away; a test that is killed takes its engines along and leaves only empty namespaces and a folder.
//!
//! The network has no way out: a namespace with nothing but a bridge connects the engines. So the machine's own addresses and
//! packet filter are left alone, and no engine can wait for a registry or a name server.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::client::{get, try_get};
use crate::support::gateway::{Folder, children};
use crate::support::within;

/// The network that functions and gateways share.
const NETWORK: &str = "functions";
/// Room for more tasks than Docker's own choice has.
const SUBNET: &str = "10.9.0.0/20";
/// What every engine gets.
const IMAGES: [&str; 4] = [
    "skep/gateway",
    "skep/catservice",
    "skep/nodeinfo",
    "skep/sleep",
];
/// Where the gateways listen, each in its engine's network.
const PORT: u16 = 8080;

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

/// One engine.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    folder: PathBuf,
    // The parent of the first process of the engine's process namespace: with it ends everything in there.
    process: Child,
    namespace: Namespace,
}

/// A network namespace.
struct Namespace(String);

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

impl Node {
    fn start(number: u8, id: &str, hub: &Namespace, parent: &Path) -> Self {
        let (name, folder) = (format!("{id}-{number}"), parent.join(format!("n{number}")));
        std::fs::create_dir_all(folder.join("socket")).unwrap();
        std::fs::write(folder.join("daemon.json"), "{}").unwrap();
        let namespace = Namespace::new(name.clone());
        // Addresses that are set aside for tests between networks.
        let address = Ipv4Addr::new(198, 18, 0, number);
        let (port, own, netns) = (
            format!("port{number}"),
            format!("{address}/24"),
            &namespace.0,
        );
        let link: [&[&str]; 4] = [
            &[
                "-n", &hub.0, "link", "add", &port, "type", "veth", "peer", "name", "eth0",
                "netns", netns,
            ],
            &["-n", &hub.0, "link", "set", &port, "master", "bridge", "up"],
            &["-n", netns, "addr", "add", &own, "dev", "eth0"],
            &["-n", netns, "link", "set", "eth0", "up"],
        ];
        link.iter().for_each(|args| drop(run("ip", args)));
        let process = Self::engine(&name, &folder, &namespace);
        Self {
            name,
            address,
            folder,
            process,
            namespace,
        }
    }

    fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.try_docker(&["info"]).status.success() {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(
                Instant::now() < end,
                "{} does not answer:\n{log}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts dockerd. The shell above it, the first process of the namespace, reaps what containers leave. Without its
    /// proxy, which would accept a connection for a gateway that is not there.
    fn engine(name: &str, folder: &Path, namespace: &Namespace) -> Child {
        let script = "mount -t tmpfs tmpfs /run && mkdir /run/docker && hostname \"$1\" || exit
            dockerd --config-file \"$0/daemon.json\" --host \"unix://$0/socket/docker.sock\" --data-root \"$0/data\" \
            --exec-root /run/docker --pidfile /run/docker.pid --storage-driver overlay2 --cgroup-parent=\"/$1\" --userland-proxy=false & wait";
        let own = [
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ];
        let log = File::create(folder.join("log")).unwrap();
        // The signal for when the test's thread ends any other way than by dropping the engine.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net={}", namespace.file()))
            .args(own)
            .args(["sh", "-c", script])
            .args([folder.as_os_str(), name.as_ref()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket/docker.sock")
    }

    /// Runs `docker` with this engine and returns what it printed.
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        printed(
            &format!("{}: docker {args:?}", self.name),
            self.try_docker(args),
        )
    }

    pub(crate) fn try_docker(&self, args: &[&str]) -> Output {
        let socket = format!("unix://{}", self.socket().display());
        Command::new("docker")
            .args(["--host", &socket])
            .args(args)
            .output()
            .unwrap()
    }

    /// Starts a gateway on this node that reads what that engine says.
    pub(crate) fn start_gateway(&self, name: &str, port: u16, engine: &Self) {
        // The folder, so that an engine that starts anew is found by its new socket.
        let socket = format!("{}:/engine", engine.folder.join("socket").display());
        let (port, network) = (format!("{port}:8080"), format!("network={NETWORK}"));
        let options = [
            "run",
            "-d",
            "--name",
            name,
            "-p",
            &port,
            "--network",
            NETWORK,
            "-v",
            &socket,
            "-e",
            &network,
            "-e",
            "DOCKER_HOST=unix:///engine/docker.sock",
            "--stop-timeout",
            "60",
            "skep/gateway",
        ];
        self.docker(&options);
    }

    pub(crate) fn wait_for_gateway(&self) {
        within(
            Duration::from_secs(60),
            &format!("the gateway on {} is ready", self.name),
            || {
                self.inside(|| {
                    try_get(self.gateway(), "/readyz").is_some_and(|answer| answer.status == 200)
                })
            },
        );
    }

    /// Where its gateway listens, seen from inside any of the engines' networks.
    pub(crate) fn gateway(&self) -> SocketAddr {
        (self.address, PORT).into()
    }

    /// The value of a series on its gateway's metrics page, 0 if it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.inside(|| get(self.gateway(), "/metrics").text());
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// How many replicas of a function take calls, as this node's gateway sees it.
    pub(crate) fn replicas(&self, function: &str) -> u64 {
        let path = format!("/system/function/{function}");
        let answer = self.inside(|| get(self.gateway(), &path));
        answer.json()["availableReplicas"].as_u64().unwrap_or(0)
    }

    /// Processor time that the engine has used so far, in hundredths of a second.
    pub(crate) fn engine_ticks(&self) -> u64 {
        let shell = children(self.process.id());
        let dockerd = shell.iter().flat_map(|shell| children(*shell));
        let all = dockerd.flat_map(|dockerd| [vec![dockerd], children(dockerd)].concat());
        all.map(ticks).sum()
    }

    /// One request of the engine's API; returns status and body.
    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut engine = UnixStream::connect(self.socket()).unwrap();
        let head =
            format!("{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json");
        let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        engine.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        engine.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// Does something in a thread whose network is this engine's.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.namespace.enter()();
                act()
            });
            thread
                .join()
                .unwrap_or_else(|cause| std::panic::resume_unwind(cause))
        })
    }

    /// What takes the thread that runs it into this engine's network.
    pub(crate) fn enter(&self) -> impl FnOnce() + Send + 'static {
        self.namespace.enter()
    }

    /// Ends the engine and all its containers at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Its processes end after their namespace's first one; a disk that is busy can hold them for a while.
        let end = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(self.socket()).is_ok() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the engine anew after it was killed, and waits until it knows the Swarm again.
    pub(crate) fn start_again(&mut self) {
        self.process = Self::engine(&self.name, &self.folder, &self.namespace);
        self.wait();
        within(Duration::from_secs(60), "it knows the Swarm", || {
            self.try_docker(&["service", "ls"]).status.success()
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for gateway in ["gateway", "far"] {
                let log = self.try_docker(&["logs", "--tail", "60", gateway]);
                let log = String::from_utf8_lossy(&log.stderr).into_owned();
                eprintln!("--- {gateway} on {} ---\n{log}", self.name);
            }
        }
        self.kill();
        // The last processes may still be on their way out.
        let end = Instant::now() + Duration::from_secs(10);
        while !remove_cgroups(&self.name) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Namespace {
    fn new(name: String) -> Self {
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Self(name)
    }

    fn file(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    fn enter(&self) -> impl FnOnce() + Send + 'static {
        let namespace = File::open(self.file()).unwrap();
        move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap()
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The last one inside has ended.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
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
    let no_images = fails("docker", &[&["image", "inspect"], &IMAGES[..]].concat());
    no_images
        .then(|| "the machine's engine has not the images that `make images` builds".to_owned())
}

/// The processor time of a process, in hundredths of a second; 0 of one that is gone.
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // After the name, which may hold anything.
    let after = stat.rsplit(") ").next().unwrap_or_default();
    let fields: Vec<_> = after.split(' ').collect();
    let times = fields.get(11..13).unwrap_or_default();
    times.iter().map(|time| time.parse::<u64>().unwrap()).sum()
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

/// Removes the control groups that an engine's containers leave when they end with it. Says whether all are gone.
fn remove_cgroups(name: &str) -> bool {
    fn remove(folder: &Path) -> bool {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
        // One that was never there is as good.
        std::fs::remove_dir(folder).is_ok() || !folder.exists()
    }
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    let left = hierarchies.filter(|hierarchy| !remove(&hierarchy.path().join(name)));
    left.count() == 0
}
