//! A world of one test: a network, a gateway on it, services; all of it goes with its holder.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Answer, get, request, try_get};
use crate::support::{eventually, within};

/// How many worlds stand, and whether the Swarm is one that we made for them.
static SWARM: Mutex<(usize, bool)> = Mutex::new((0, false));

/// Whether Swarm tests can run here; says in one line why not.
fn engine_answers() -> bool {
    let answers = Command::new("docker")
        .arg("info")
        .output()
        .is_ok_and(|output| output.status.success());
    if !answers {
        assert!(
            std::env::var_os("CI").is_none(),
            "no Docker engine answers, and in CI the Swarm suite must run"
        );
        eprintln!("SKIPPED: no Docker engine answers, so nothing was tested on a Swarm");
    }
    answers
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A Swarm to work on; one that we had to make is left when the last holder goes.
pub(crate) struct Swarm(());

impl Swarm {
    pub(crate) fn join() -> Option<Self> {
        if !engine_answers() {
            return None;
        }
        let mut swarm = SWARM
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if swarm.0 == 0 && docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"]) == "inactive"
        {
            docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
            swarm.1 = true;
        }
        swarm.0 += 1;
        Some(Self(()))
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let mut swarm = SWARM
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        swarm.0 -= 1;
        if swarm.0 == 0 && swarm.1 {
            docker(&["swarm", "leave", "--force"]);
            swarm.1 = false;
        }
    }
}

/// Runs `docker` and returns what it printed; stops the test if it fails.
pub(crate) fn docker(args: &[&str]) -> String {
    let output = try_docker(args);
    assert!(
        output.status.success(),
        "docker {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn try_docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().unwrap()
}

/// A name that nobody else has.
pub(crate) fn own_name(what: &str) -> String {
    format!("skt{:08x}-{what}", fastrand::u32(..))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A network with a gateway.
pub(crate) struct World {
    pub(crate) network: String,
    pub(crate) gateway: SocketAddr,
    pub(crate) container: String,
    services: Mutex<Vec<String>>,
    // Dropped last: the Swarm is left after everything in it is gone.
    _swarm: Swarm,
}

impl World {
    /// A gateway on a network of its own; `None`, after a line that says so, without an engine.
    pub(crate) fn new() -> Option<Self> {
        Self::with(&[], &[])
    }

    /// The same with more options of `docker run` and flags of `skep`.
    pub(crate) fn with(options: &[&str], flags: &[&str]) -> Option<Self> {
        let world = Self::without_gateway()?;
        Some(world.start_gateway(options, flags))
    }

    fn without_gateway() -> Option<Self> {
        let swarm = Swarm::join()?;
        let network = own_name("net");
        docker(&[
            "network",
            "create",
            "--driver",
            "overlay",
            "--attachable",
            &network,
        ]);
        let unset = ([127, 0, 0, 1], 0).into();
        Some(Self {
            network,
            gateway: unset,
            container: own_name("gateway"),
            services: Mutex::default(),
            _swarm: swarm,
        })
    }

    fn start_gateway(mut self, options: &[&str], flags: &[&str]) -> Self {
        let (network, name) = (
            format!("network={}", self.network),
            format!("--name={}", self.container),
        );
        let mut args = vec![
            "run",
            "-d",
            &name,
            "-p",
            "127.0.0.1::8080",
            "--network",
            &self.network,
            "-e",
            &network,
            // What is not about who may manage asks for no login.
            "-e",
            "basic_auth=false",
        ];
        if !options.iter().any(|option| option.contains("docker.sock")) {
            args.extend(["-v", "/var/run/docker.sock:/var/run/docker.sock"]);
        }
        args.extend(options);
        // Several people can build gateways on one engine, each under a prefix of their own (images/build.sh).
        let image = format!(
            "{}gateway",
            std::env::var("IMAGE_PREFIX").unwrap_or_else(|_| "skep/".to_owned())
        );
        args.push(&image);
        args.extend(flags);
        docker(&args);
        self.gateway = self.published();
        within(Duration::from_secs(20), "the gateway is ready", || {
            try_get(self.gateway, "/readyz").is_some_and(|answer| answer.status == 200)
        });
        self
    }

    /// Where the gateway's port is published.
    fn published(&self) -> SocketAddr {
        let published = docker(&["port", &self.container, "8080"]);
        published.lines().next().unwrap().parse().unwrap()
    }

    /// Has the gateway begin anew; does not wait.
    pub(crate) fn restart_gateway(&mut self) {
        docker(&["restart", &self.container]);
        self.gateway = self.published();
    }

    /// Another gateway, in a container of its own, in the place of the one that was stopped.
    pub(crate) fn with_another_gateway(self, options: &[&str], flags: &[&str]) -> Self {
        docker(&["rm", &self.container]);
        self.start_gateway(options, flags)
    }

    /// Creates a service on the network from an image, with more options of `docker service create`; does not wait.
    pub(crate) fn service(&self, image: &str, options: &[&str]) -> String {
        let network = self.network.clone();
        self.service_off_network(image, &[&["--network", &network], options].concat())
    }

    /// The same, on no network.
    pub(crate) fn service_off_network(&self, image: &str, options: &[&str]) -> String {
        let name = own_name(&image.replace("skep/", ""));
        let mut args = vec![
            "service",
            "create",
            "--detach",
            "--no-resolve-image",
            "--name",
            &name,
        ];
        args.extend(options);
        args.push(image);
        docker(&args);
        self.services.lock().unwrap().push(name.clone());
        name
    }

    /// Has this service removed at the end, though the world did not make it.
    pub(crate) fn adopt(&self, service: &str) {
        self.services.lock().unwrap().push(service.to_owned());
    }

    /// Removes a service now.
    pub(crate) fn remove(&self, service: &str) {
        docker(&["service", "rm", service]);
        self.services.lock().unwrap().retain(|name| name != service);
    }

    /// A number of a function's description; 0 while it is not listed or the field is left out.
    pub(crate) fn number(&self, function: &str, field: &str) -> u64 {
        let answer = get(self.gateway, &format!("/system/function/{function}"));
        if answer.status == 200 {
            answer.json()[field].as_u64().unwrap_or(0)
        } else {
            0
        }
    }

    /// Waits until a function answers 200.
    pub(crate) fn answers(&self, function: &str) {
        within(
            Duration::from_secs(60),
            &format!("{function} answers"),
            || get(self.gateway, &format!("/function/{function}")).status == 200,
        );
    }

    /// Asks the management API.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let json = [("Content-Type", "application/json")];
        request(
            self.gateway,
            method,
            path,
            &json,
            body.to_string().as_bytes(),
        )
    }

    /// Makes a function with these fields besides name and image; it goes with the world.
    pub(crate) fn create(&self, image: &str, fields: Value) -> String {
        let name = own_name("fn");
        self.adopt(&name);
        let answer = self.send(
            "POST",
            "/system/functions",
            &deployment(&name, image, fields),
        );
        assert_eq!(answer.status, 202, "{}", answer.text());
        name
    }

    pub(crate) fn describe(&self, name: &str) -> Value {
        get(self.gateway, &format!("/system/function/{name}")).json()
    }

    /// Waits until a function has so many replicas that take calls.
    pub(crate) fn available(&self, name: &str, replicas: u64) {
        let what = format!("{name} has {replicas} replicas");
        within(Duration::from_secs(90), &what, || {
            self.number(name, "availableReplicas") == replicas
        });
    }

    pub(crate) fn gateway_log(&self) -> String {
        let output = try_docker(&["logs", &self.container]);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Waits for a text in it: Docker keeps a line a moment after the gateway has written it.
    pub(crate) fn gateway_logs(&self, text: &str) {
        eventually(&format!("the log has {text:?}"), || {
            self.gateway_log().contains(text)
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}", self.gateway_log());
        }
        for service in self
            .services
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .iter()
        {
            try_docker(&["service", "rm", service]);
        }
        try_docker(&["rm", "-f", &self.container]);
        remove_network(&self.network);
    }
}

/// A deployment of a function with these fields besides name and image.
pub(crate) fn deployment(name: &str, image: &str, mut fields: Value) -> Value {
    fields["service"] = json!(name);
    fields["image"] = json!(image);
    fields
}

/// Removes a network once the last task has left it.
pub(crate) fn remove_network(network: &str) {
    within(
        Duration::from_secs(60),
        "the network can be removed",
        || {
            let removed = try_docker(&["network", "rm", network]);
            removed.status.success()
                || String::from_utf8_lossy(&removed.stderr).contains("not found")
        },
    );
}

/// A secret that goes with its holder. Held before the world, so that it goes after the functions.
pub(crate) struct Secret(pub(crate) String);

impl Secret {
    pub(crate) fn named() -> Self {
        Self(own_name("key"))
    }

    /// The names of what Docker has of it.
    pub(crate) fn stored(&self) -> Vec<String> {
        let label = format!("label=skep.secret={}", self.0);
        // Without an engine there are none.
        let listed = try_docker(&["secret", "ls", "--filter", &label, "--format", "{{.Name}}"]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        listed.lines().map(str::to_owned).collect()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        for stored in self.stored() {
            within(Duration::from_secs(30), "the secret can go", || {
                try_docker(&["secret", "rm", &stored]).status.success()
            });
        }
    }
}

/// The states that Docker gives the tasks of a service that should run.
pub(crate) fn task_states(service: &str) -> Vec<String> {
    let output = try_docker(&[
        "service",
        "ps",
        "--filter",
        "desired-state=running",
        "--format",
        "{{.CurrentState}}",
        service,
    ]);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}
