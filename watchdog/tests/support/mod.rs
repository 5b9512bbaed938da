//! Starts the real watchdog on a free port and speaks HTTP to it over a plain socket.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a failed step fails the test; each test file uses its part"
)]

pub mod client;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::{Answer, Request};

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(15);

/// A watchdog that is to be started.
pub struct Builder {
    command: Command,
    directory: PathBuf,
}

/// A running watchdog; ended when dropped.
pub struct Watchdog {
    process: Child,
    address: SocketAddr,
    directory: PathBuf,
    log: Arc<Mutex<Vec<u8>>>,
    output: Arc<Mutex<Vec<u8>>>,
}

/// A watchdog with this `fprocess`.
pub fn function(fprocess: &str) -> Builder {
    bare().env("fprocess", fprocess)
}

/// A watchdog whose command is a shell script.
pub fn script(script: &str) -> Builder {
    interpreted("sh", script)
}

/// A watchdog whose command is a program in Python.
pub fn python(program: &str) -> Builder {
    interpreted("python3", program)
}

fn interpreted(interpreter: &str, text: &str) -> Builder {
    let builder = bare();
    let path = builder.directory().join("script");
    std::fs::write(&path, text).unwrap();
    builder.env("fprocess", &format!("{interpreter} {}", path.display()))
}

/// A watchdog without any configuration but a lock directory of its own.
pub fn bare() -> Builder {
    with_program(Command::new(env!("CARGO_BIN_EXE_fwatchdog")))
}

/// The same, started through another program.
pub fn with_program(mut command: Command) -> Builder {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap());
    command.env("TMPDIR", &directory).env("port", "0");
    Builder { command, directory }
}

impl Builder {
    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self
    }

    /// The directory of the lock file, which commands know as `TMPDIR`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs it to its end: exit status, stdout, stderr.
    pub fn run(mut self) -> (ExitStatus, String, String) {
        let output = self.command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status, text(output.stdout), text(output.stderr))
    }

    /// Starts it and waits until it listens.
    pub fn start(mut self) -> Watchdog {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = self.command.spawn().unwrap();
        let log = collect(process.stderr.take().unwrap());
        let output = collect(process.stdout.take().unwrap());
        let mut port = None;
        let listens = || {
            let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
            port = log.lines().find_map(|line| {
                line.split_once("listening on ")?
                    .1
                    .rsplit(':')
                    .next()?
                    .parse()
                    .ok()
            });
            port.is_some()
        };
        eventually("the watchdog listens", listens);
        let address = SocketAddr::from(([127, 0, 0, 1], port.unwrap()));
        Watchdog {
            process,
            address,
            directory: self.directory.clone(),
            log,
            output,
        }
    }
}

impl Watchdog {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A connection to it.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One call on a connection of its own.
    pub fn call(&self, request: &Request) -> Answer {
        client::exchange(self.connect(), request)
    }

    /// `POST /` with this body.
    pub fn post(&self, body: impl AsRef<[u8]>) -> Answer {
        self.call(&Request::post("/", body))
    }

    /// `GET` of this path.
    pub fn get(&self, path: &str) -> Answer {
        self.call(&Request::get(path))
    }

    /// What it has written to stderr.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    /// What it has written to stdout.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    /// Waits for a text on stderr.
    pub fn logs(&self, text: &str) {
        eventually_or(
            || self.log().contains(text),
            || format!("the log has {text:?}; it is:\n{}", self.log()),
        );
    }

    /// A file in the directory that commands know as `TMPDIR`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Waits until a command has written so many lines to a file there.
    pub fn lines(&self, name: &str, count: usize) -> Vec<String> {
        let read = || -> Vec<String> {
            let text = std::fs::read_to_string(self.file(name)).unwrap_or_default();
            text.split_inclusive('\n')
                .filter_map(|line| Some(line.strip_suffix('\n')?.to_owned()))
                .collect()
        };
        eventually_or(
            || read().len() >= count,
            || format!("{name} has {count} lines; it has {:?}", read()),
        );
        read()
    }

    /// Sends a signal to the watchdog.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for its exit, and says how long that took.
    pub fn exit(&mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        let mut status = None;
        eventually("the watchdog exits", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        (
            status.code().or(status.signal().map(|signal| -signal)),
            began.elapsed(),
        )
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Its open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }

    /// Its children, and the state of each.
    pub fn children(&self) -> Vec<(i32, char)> {
        children(self.pid().cast_signed())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // SIGINT lets it end its commands; a watchdog that does not obey is killed.
        if self.process.try_wait().unwrap().is_none() {
            self.signal("INT");
            let until = Instant::now() + Duration::from_secs(3);
            while self.process.try_wait().unwrap().is_none() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The children of a process, and the state of each.
pub fn children(parent: i32) -> Vec<(i32, char)> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        (fields.next()?.parse() == Ok(parent)).then_some((pid, state))
    })
    .collect()
}

/// Whether a process is there and not a zombie.
pub fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Kills one process.
pub fn kill(pid: &str) {
    let status = Command::new("kill").args(["-KILL", pid]).status().unwrap();
    assert!(status.success());
}

/// A watchdog on a listener that it was given, as the gateway starts it; to be ended with `abandon`.
pub fn handed_over(fprocess: &str, settings: &[(&str, &str)]) -> (Child, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fwatchdog"));
    command
        .env("fprocess", fprocess)
        .env("skep_inherit", "stdin")
        .env("suppress_lock", "true");
    command.envs(settings.iter().copied());
    command
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    (command.spawn().unwrap(), address)
}

/// Lets the lifeline go and waits for the watchdog's end; what it said on stderr.
pub fn abandon(mut process: Child) -> String {
    drop(process.stdout.take());
    let mut log = Vec::new();
    process
        .stderr
        .take()
        .unwrap()
        .read_to_end(&mut log)
        .unwrap();
    process.wait().unwrap();
    String::from_utf8(log).unwrap()
}

/// Whether this test may make namespaces.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t0"))
}

/// Waits for a condition that must come true.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_or(condition, || what.to_owned());
}

fn eventually_or(mut condition: impl FnMut() -> bool, what: impl Fn() -> String) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            Instant::now() < until,
            "did not come true within {PATIENCE:?}: {}",
            what()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn collect(mut source: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let collected = Arc::new(Mutex::new(Vec::new()));
    let target = Arc::clone(&collected);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            target.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    });
    collected
}
