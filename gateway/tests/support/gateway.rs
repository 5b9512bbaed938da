//! A real `skep local` on a free port; dropping it ends it and all its functions.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{client, eventually, within};

/// The program under test: the one that was built with the tests, or the one that `SKEP_PROGRAM` names, such as a release build.
pub fn skep() -> Command {
    let named = std::env::var("SKEP_PROGRAM");
    let program = named.unwrap_or_else(|_| env!("CARGO_BIN_EXE_skep").to_owned());
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap());
    command
}

/// Runs the program to its end.
pub fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    skep()
        .args(args)
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

/// Runs a client command of the program against a gateway, with this on stdin.
pub fn ask(gateway: SocketAddr, args: &[&str], stdin: &str) -> Output {
    let mut child = skep()
        .args(args)
        .env("skep_gateway", format!("http://{gateway}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that needs no input may have ended.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// What such a command printed; it must have worked.
pub fn told(gateway: SocketAddr, args: &[&str], stdin: &str) -> String {
    let output = ask(gateway, args, stdin);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A folder that goes with its holder.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!(
            "skep-test-{}-{:x}",
            std::process::id(),
            fastrand::u64(..)
        ));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running gateway.
pub struct Gateway {
    pub address: SocketAddr,
    pub greeting: String,
    pub folder: Folder,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Gateway {
    /// A gateway of these functions, written as the inside of `functions:` in a stack file.
    pub fn of(functions: &str) -> Self {
        Self::with(functions, &[])
    }

    /// The same, with more flags.
    pub fn with(functions: &str, flags: &[&str]) -> Self {
        let folder = Folder::new();
        let stack = folder.write("stack.yml", &stack(functions));
        let mut args = vec!["local", stack.to_str().unwrap()];
        if !flags.contains(&"--port") {
            args.extend(["--port", "0"]);
        }
        args.extend(flags);
        Self::start(skep().args(args), folder)
    }

    /// A gateway whose shell has this limit of open files, in the words of `ulimit`.
    pub fn under(limit: &str, functions: &str) -> Self {
        let folder = Folder::new();
        let stack = folder.write("stack.yml", &stack(functions));
        let script = format!("ulimit {limit}; exec \"$0\" local \"$1\" --port 0");
        let skep = skep();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &script])
            .arg(skep.get_program())
            .arg(stack);
        Self::start(&mut shell, folder)
    }

    /// A gateway of an existing stack file.
    pub fn of_file(file: &str) -> Self {
        Self::start(skep().args(["local", file, "--port", "0"]), Folder::new())
    }

    /// A gateway that is started in a folder, and told of no stack file.
    pub fn in_folder(folder: Folder) -> Self {
        let mut command = skep();
        command
            .args(["local", "--port", "0"])
            .current_dir(&folder.0);
        Self::start(&mut command, folder)
    }

    fn start(command: &mut Command, folder: Folder) -> Self {
        // One that is killed leaves its own folder behind.
        let mut child = command
            .env("TMPDIR", &folder.0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().unwrap(), log.clone());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        while !greeting.contains("Ctrl-C") {
            let read = stdout.read_line(&mut greeting).unwrap();
            assert!(read > 0, "skep ended: {greeting} {}", log.lock().unwrap());
        }
        Self {
            address: addressed(&greeting, "://"),
            greeting,
            folder,
            child,
            log,
        }
    }

    /// Where it takes calls by TLS.
    pub fn secure_address(&self) -> SocketAddr {
        addressed(&self.greeting, "https://")
    }

    /// The port that is for this, where it is not for calls.
    pub fn port_for(&self, what: &str) -> SocketAddr {
        let line = self.greeting.lines().find(|line| line.ends_with(what));
        addressed(line.unwrap(), "://")
    }

    /// Writes another stack file in place of the first.
    pub fn change(&self, functions: &str) {
        self.folder.write("stack.yml", &stack(functions));
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a text in its log, which arrives a moment after what it tells of.
    pub fn logs(&self, text: &str) {
        eventually(&format!("the log has {text:?}"), || {
            self.log().contains(text)
        });
    }

    /// The first line of its log that holds this text, once it is there.
    pub fn line(&self, text: &str) -> String {
        self.logs(text);
        let log = self.log();
        let line = log.lines().find(|line| line.contains(text));
        line.unwrap().to_owned()
    }

    /// The value of a series on its metrics page, 0 if it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let page = client::get(self.address, "/metrics").text();
        let line = page.lines().find_map(|line| {
            line.strip_prefix(series)?
                .strip_prefix(' ')
                .map(str::to_owned)
        });
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end and returns the exit code; `None` if a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        within(Duration::from_secs(30), "the gateway ends", || {
            let status = self.child.try_wait().unwrap();
            code = status.and_then(|status| status.code());
            status.is_some()
        });
        code
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal("TERM");
            self.ended();
        }
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}", self.log());
        }
    }
}

/// The first address behind these letters.
fn addressed(text: &str, scheme: &str) -> SocketAddr {
    let after = text.split(scheme).nth(1).unwrap();
    after.split_whitespace().next().unwrap().parse().unwrap()
}

fn stack(functions: &str) -> String {
    format!("version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n{functions}\n")
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            into.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    });
}

/// Sends a signal to one process.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill -s {name} {pid}");
}

/// The processes whose command line contains a text.
pub fn processes(containing: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line)
            .replace('\0', " ")
            .contains(containing)
    })
    .collect()
}

/// Waits until no process has this text in its command line.
pub fn gone(containing: &str) {
    eventually(&format!("no process with {containing}"), || {
        processes(containing).is_empty()
    });
}

/// The direct children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let lists =
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<_>>()
        })
        .collect()
}
