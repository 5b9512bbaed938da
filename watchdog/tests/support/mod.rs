//! Starts the real watchdog on a free port and speaks HTTP to it over a plain socket.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a failed step fails the test; each test file uses its part"
)]

pub mod client;
mod metrics;
pub mod place;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use client::{Answer, Chunks, Request};
use place::Inner;

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(15);

/// A watchdog that is to be started.
pub struct Builder {
    command: Command,
    directory: PathBuf,
    inner: Inner,
}

/// A running watchdog; ended when dropped.
pub struct Watchdog {
    process: Child,
    inner: Inner,
    pub address: SocketAddr,
    directory: PathBuf,
    log: Arc<Mutex<Vec<u8>>>,
    output: Arc<Mutex<Vec<u8>>>,
    /// Whether its stderr is read.
    is_read: Arc<AtomicBool>,
}

/// A watchdog with this `fprocess`.
pub fn function(fprocess: &str) -> Builder {
    bare().env("fprocess", fprocess)
}

/// A watchdog whose command is a shell script.
pub fn script(script: &str) -> Builder {
    bare().script(script)
}

/// A watchdog whose command is a program in Python.
pub fn python(program: &str) -> Builder {
    let builder = bare();
    let path = builder.directory().join("program.py");
    std::fs::write(&path, program).unwrap();
    builder.env("fprocess", &format!("python3 {}", path.display()))
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
    command
        .env("TMPDIR", &directory)
        .env("port", "0")
        .env("metrics_port", "off");
    Builder {
        command,
        directory,
        inner: Inner::Itself,
    }
}

impl Builder {
    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Makes its command a shell script.
    pub fn script(self, script: &str) -> Self {
        let path = self.directory.join("script.sh");
        std::fs::write(&path, script).unwrap();
        self.env("fprocess", &format!("sh {}", path.display()))
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
    pub fn start(self) -> Watchdog {
        self.try_start().expect("the watchdog listens")
    }

    /// The same; `None` if it ends instead.
    pub fn try_start(mut self) -> Option<Watchdog> {
        self.inner.complete(&mut self.command);
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = self.command.spawn().unwrap();
        let is_read = Arc::new(AtomicBool::new(true));
        let log = collect(process.stderr.take().unwrap(), Arc::clone(&is_read));
        let always = Arc::new(AtomicBool::new(true));
        let output = collect(process.stdout.take().unwrap(), always);
        let mut port = None;
        let is_decided = || {
            let has_ended = process.try_wait().unwrap().is_some();
            let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
            port = log.lines().find_map(|line| {
                line.split_once("listening on ")?
                    .1
                    .rsplit(':')
                    .next()?
                    .parse()
                    .ok()
            });
            port.is_some() || has_ended
        };
        eventually("the watchdog listens or ends", is_decided);
        Some(Watchdog {
            process,
            inner: self.inner,
            address: SocketAddr::from(([127, 0, 0, 1], port?)),
            directory: self.directory.clone(),
            log,
            output,
            is_read,
        })
    }
}

impl Watchdog {
    /// Its process id, as seen from here.
    pub fn pid(&self) -> u32 {
        self.inner
            .pid(self.process.id())
            .expect("the watchdog lives")
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

    /// The same, byte by byte.
    pub fn log_bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.log.lock().unwrap()
    }

    /// Lets its stderr lie from now on, or takes it up again.
    pub fn read_stderr(&self, is_read: bool) {
        self.is_read.store(is_read, Ordering::SeqCst);
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
        assert!(self.inner.signal(self.process.id(), name));
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
        self.memory("VmRSS:")
    }

    /// The most that it has had so far, in KiB.
    pub fn peak(&self) -> usize {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Sends so many MiB through a command that repeats them, and compares.
    pub fn pass_through(&self, megabytes: u64) {
        let noise: Vec<u8> = (0..1 << 20)
            .map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        // No two blocks are the same, so that none can be lost, doubled or exchanged.
        let numbered = |block: &mut [u8], number: u64| {
            block[..8].copy_from_slice(&number.to_le_bytes());
        };
        let mut stream = self.connect();
        let mut sender = stream.try_clone().unwrap();
        let head = Request::bare("POST", "/")
            .header("Content-Length", &(megabytes << 20).to_string())
            .bytes();
        let (mut sent, mut expected) = (noise.clone(), noise);
        let feeder = std::thread::spawn(move || {
            sender.write_all(&head).unwrap();
            for number in 0..megabytes {
                numbered(&mut sent, number);
                sender.write_all(&sent).unwrap();
            }
        });
        let mut chunks = Chunks::after_head(&mut stream);
        let mut received = vec![0; expected.len()];
        for number in 0..megabytes {
            chunks.read_exact(&mut received).unwrap();
            numbered(&mut expected, number);
            assert!(received == expected, "MiB {number} differs");
        }
        feeder.join().unwrap();
        assert_eq!(chunks.read(&mut received).unwrap(), 0, "nothing follows");
    }

    /// The processor time that it has used.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        // User and system time, in hundredths of a second.
        let ticks = fields
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap());
        Duration::from_millis(ticks.sum::<u64>() * 10)
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
            self.inner.signal(self.process.id(), "INT");
            let until = Instant::now() + Duration::from_secs(8);
            while self.process.try_wait().unwrap().is_none() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        self.inner.remove();
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

/// The command lines of all processes that have this text in theirs; zombies have none.
pub fn processes_with(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| {
            let line = std::fs::read(entry.unwrap().path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .filter(|line| line.contains(text))
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
        .env("metrics_port", "off")
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

/// A port that was free a moment ago, for a function's own server.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
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

/// The same, with words for what is wrong that are found when it is.
pub fn eventually_or(mut condition: impl FnMut() -> bool, what: impl Fn() -> String) {
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

fn collect(
    mut source: impl Read + Send + 'static,
    is_read: Arc<AtomicBool>,
) -> Arc<Mutex<Vec<u8>>> {
    let collected = Arc::new(Mutex::new(Vec::new()));
    let target = Arc::clone(&collected);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            target.lock().unwrap().extend_from_slice(&buffer[..count]);
            while !is_read.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    collected
}
