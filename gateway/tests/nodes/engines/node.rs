//! One engine: dockerd in namespaces of its own, its address on the bridge, its folder.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::namespace::Namespace;
use super::{printed, run};
use crate::support::gateway::children;
use crate::support::within;

/// One engine.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    folder: PathBuf,
    // The parent of the first process of the engine's process namespace: with it ends everything in there.
    process: Child,
    namespace: Namespace,
}

impl Node {
    pub(super) fn start(number: u8, id: &str, hub: &Namespace, parent: &Path) -> Self {
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

    pub(super) fn wait(&self) {
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

    pub(super) fn socket(&self) -> PathBuf {
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

/// The processor time of a process, in hundredths of a second; 0 of one that is gone.
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // After the name, which may hold anything.
    let after = stat.rsplit(") ").next().unwrap_or_default();
    let fields: Vec<_> = after.split(' ').collect();
    let times = fields.get(11..13).unwrap_or_default();
    times.iter().map(|time| time.parse::<u64>().unwrap()).sum()
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
