//! Where a watchdog runs: as any process, as PID 1 of a namespace, or as PID 1 of a container.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Builder, bare, children, with_program};

/// One of the surroundings in which the watchdog must do its duties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Process,
    PidNamespace,
    Container,
}

/// The watchdog, seen from the process that the test has started.
#[derive(Debug)]
pub enum Inner {
    /// It is that process.
    Itself,
    /// It is that process's only child.
    Child,
    /// It is PID 1 of the container of this name, which that process has started and waits for.
    Container(String),
}

impl Place {
    /// A watchdog that is to be started there; `None`, after a line that says why, where this machine has no such place.
    pub fn builder(self) -> Option<Builder> {
        match self {
            Self::Process => Some(bare()),
            Self::PidNamespace => in_pid_namespace(),
            Self::Container => in_container(&[]),
        }
    }
}

fn in_pid_namespace() -> Option<Builder> {
    let options = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let mut unshare = Command::new("unshare");
    unshare.args(options);
    let can_unshare = Command::new("unshare").args(options).arg("true").output();
    if !is_success(&can_unshare) {
        missing("no PID namespace can be had (that takes root and unshare)");
        return None;
    }
    unshare.arg(env!("CARGO_BIN_EXE_fwatchdog"));
    let mut builder = with_program(unshare);
    builder.inner = Inner::Child;
    Some(builder)
}

/// A watchdog in a container of its own, with more options of `docker run`. It is the static one of `dist/`, beside
/// nothing but busybox, and its directory has the same name inside and outside.
pub fn in_container(options: &[&str]) -> Option<Builder> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    if !is_success(&Command::new("docker").arg("info").output()) {
        missing("no Docker engine answers");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let program = root.join("dist/fwatchdog");
    assert!(program.exists(), "no dist/fwatchdog; run make fwatchdog");
    let base = Command::new(root.join("images/base.sh"))
        .arg("busybox")
        .output();
    assert!(is_success(&base), "{base:?}");
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("fwatchdog-test-{}-{number}", std::process::id());
    let mut builder = bare();
    let directory = builder.directory.display();
    let mut docker = Command::new("docker");
    // On the host's network, so that the port that the log names can be called.
    docker.args(["run", "--rm", "--network=host", "--name", &name]);
    docker.arg(format!("--volume={directory}:{directory}"));
    docker.arg(format!("--volume={}:/fwatchdog:ro", program.display()));
    docker
        .args(options)
        .env("TMPDIR", &builder.directory)
        .env("port", "0")
        .env("metrics_port", "off");
    builder.command = docker;
    builder.inner = Inner::Container(name);
    Some(builder)
}

impl Inner {
    /// What has to stand at the end of the command line.
    pub(super) fn complete(&self, command: &mut Command) {
        if let Self::Container(_) = self {
            let names: Vec<_> = command
                .get_envs()
                .map(|(name, _)| name.to_owned())
                .collect();
            for name in names {
                command.arg("--env").arg(name);
            }
            command.args(["skep-test/busybox", "/fwatchdog"]);
        }
    }

    /// Its number as seen from here; `None` once it has gone.
    pub(super) fn pid(&self, outer: u32) -> Option<u32> {
        match self {
            Self::Itself => Some(outer),
            Self::Child => {
                let inner = children(outer.cast_signed());
                Some(inner.first()?.0.cast_unsigned())
            }
            Self::Container(name) => {
                let format = "--format={{.State.Pid}}";
                let output = Command::new("docker")
                    .args(["inspect", format, name])
                    .output();
                let pid = String::from_utf8(output.unwrap().stdout).unwrap();
                pid.trim().parse().ok()
            }
        }
    }

    /// Sends a signal; false if there is nobody to get it any more.
    pub(super) fn signal(&self, outer: u32, signal: &str) -> bool {
        let target = match self {
            // Docker's client passes signals on.
            Self::Container(_) => Some(outer),
            _ => self.pid(outer),
        };
        target.is_some_and(|target| {
            let options = [format!("-{signal}"), target.to_string()];
            is_success(&Command::new("kill").args(options).output())
        })
    }

    /// Removes what the end of the started process may have left.
    pub(super) fn remove(&self) {
        if let Self::Container(name) = self {
            let _ = Command::new("docker")
                .args(["rm", "--force", name])
                .output();
        }
    }
}

fn is_success(output: &std::io::Result<Output>) -> bool {
    output.as_ref().is_ok_and(|output| output.status.success())
}

/// A part of the tests cannot run here: one line says so, and in CI it is a failure.
fn missing(what: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "{what}, and in CI nothing may be left out"
    );
    eprintln!("SKIPPED: {what}, so nothing was tested");
}
