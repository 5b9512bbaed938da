//! One replica of a local function: a watchdog process behind a listener of ours, started again when it dies.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::journal::Journal;
use super::stack::StackFunction;
use crate::descriptors;
use crate::escaped::escaped;
use crate::function::Spec;

/// What a function's environment takes over from ours; the rest is the gateway's own business.
const INHERITED: [&str; 7] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
];
/// Pauses before a watchdog that died is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A watchdog that lived so long did not die of its configuration.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// How long a watchdog may finish its calls after TERM.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a watchdog whose lifeline is cut may take to end its runs.
const LAST_CHANCE: Duration = Duration::from_secs(2);
/// Between leaving the table and TERM: the table is published within milliseconds.
const LEAVE_FIRST: Duration = Duration::from_millis(200);
/// The longest piece of a log line that is kept together.
const LINE_MAX: u64 = 8192;

/// A running replica; [`Replica::stop`] ends it, and so does dropping it, less politely.
pub struct Replica {
    /// The name of this copy.
    pub id: Arc<str>,
    /// Where it listens.
    pub socket: SocketAddr,
    watchdog: watch::Receiver<Option<u32>>,
    stop: watch::Sender<bool>,
    supervisor: JoinHandle<()>,
}

/// What ties a replica to the gateway.
pub struct Ties {
    /// Told when the replica comes or goes.
    pub changed: Arc<Notify>,
    /// Ends all waiting for running calls.
    pub cut: watch::Receiver<bool>,
    /// Keeps what the replica writes.
    pub journal: Arc<Journal>,
}

/// What it takes to start the watchdog, again and again.
struct Recipe {
    name: String,
    id: Arc<str>,
    journal: Arc<Journal>,
    listener: TcpListener,
    folder: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Replica {
    /// Starts a replica in `folder`; its lock file lies in `lock_dir`.
    ///
    /// # Errors
    /// When no port or folder is to be had.
    pub fn start(
        name: &str,
        number: usize,
        function: &StackFunction,
        folder: &Path,
        lock_dir: &Path,
        ties: Ties,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let socket = listener.local_addr()?;
        std::fs::create_dir_all(lock_dir)?;
        let id: Arc<str> = format!("{name}.{number}:{}", socket.port()).into();
        let recipe = Recipe {
            name: name.to_owned(),
            id: id.clone(),
            journal: ties.journal,
            listener,
            folder: folder.to_owned(),
            environment: environment(&function.spec, lock_dir, |name| std::env::var(name).ok()),
        };
        let (watchdog_now, watchdog) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let supervisor = tokio::spawn(supervise(
            recipe,
            watchdog_now,
            stopped,
            ties.cut,
            ties.changed,
        ));
        Ok(Self {
            id,
            socket,
            watchdog,
            stop,
            supervisor,
        })
    }

    /// Whether its watchdog runs now.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// The process of its watchdog, if that runs now.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        *self.watchdog.borrow()
    }

    /// Ends it: TERM, time to finish its calls, KILL. It must have left the table's source before.
    pub async fn stop(self) {
        tokio::time::sleep(LEAVE_FIRST).await;
        self.stop.send_replace(true);
        // A supervisor that panicked has dropped its child, and the child's lifeline with it.
        let _ = self.supervisor.await;
    }
}

/// The variables of a watchdog whose lock file lies in `lock_dir`; `env` is our own environment.
pub(super) fn environment(
    spec: &Spec,
    lock_dir: &Path,
    env: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let inherited = INHERITED
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), env(name)?)));
    let mut environment: BTreeMap<_, _> = inherited.collect();
    environment.extend(spec.env_vars.clone());
    environment.extend(
        spec.env_process
            .clone()
            .map(|fprocess| ("fprocess".to_owned(), fprocess)),
    );
    // Many watchdogs on one machine would fight for the one port; the gateway's own metrics count every call.
    for (name, value) in [
        ("skep_inherit", "stdin"),
        ("skep_workers", "1"),
        ("metrics_port", "off"),
    ] {
        environment.insert(name.to_owned(), value.to_owned());
    }
    environment.insert("skep_lock_dir".to_owned(), lock_dir.display().to_string());
    environment
}

async fn supervise(
    recipe: Recipe,
    pid: watch::Sender<Option<u32>>,
    mut stopped: watch::Receiver<bool>,
    cut: watch::Receiver<bool>,
    changed: Arc<Notify>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        match recipe.spawn() {
            Ok(mut watchdog) => {
                pid.send_replace(watchdog.child.id());
                changed.notify_one();
                let ended = tokio::select! {
                    status = watchdog.child.wait() => Some(describe(status)),
                    _ = stopped.wait_for(|stop| *stop) => None,
                };
                let Some(ended) = ended else {
                    return watchdog.terminate(cut).await;
                };
                pid.send_replace(None);
                changed.notify_one();
                tracing::warn!(function = recipe.name, "watchdog ended: {ended}");
            }
            Err(error) => tracing::error!(
                function = recipe.name,
                "watchdog cannot be started: {}",
                recipe.explain(&error)
            ),
        }
        if began.elapsed() > HEALTHY_AFTER {
            pause = FIRST_PAUSE;
        }
        tracing::info!(
            function = recipe.name,
            "starting the watchdog again in {pause:?}"
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A started watchdog. Whoever reads its stdout holds its lifeline: when that ends, it ends every run and then itself.
struct Watchdog {
    child: Child,
    lifeline: Option<JoinHandle<()>>,
}

impl Recipe {
    /// Our own executable as a watchdog: the listener is its stdin, and its stdout is its lifeline, because the pipe's
    /// other end closes with us however we end.
    fn spawn(&self) -> std::io::Result<Watchdog> {
        let mut child = Command::new("/proc/self/exe")
            .arg("watchdog")
            .stdin(Stdio::from(OwnedFd::from(self.listener.try_clone()?)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .current_dir(&self.folder)
            .env_clear()
            .envs(&self.environment)
            .spawn()?;
        descriptors::as_before(child.id());
        let stdout = child.stdout.take();
        let lifeline = stdout.map(|stdout| tokio::spawn(self.pass_on(stdout)));
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(self.pass_on(stderr));
        }
        Ok(Watchdog { child, lifeline })
    }

    /// The system says `No such file or directory` of a folder that went away, and does not name it.
    fn explain(&self, error: &std::io::Error) -> String {
        if self.folder.is_dir() {
            return error.to_string();
        }
        format!("the folder {} is not there", self.folder.display())
    }

    /// Copies a log into the journal and to our own, there each line behind the function's name.
    fn pass_on(
        &self,
        from: impl AsyncRead + Send + Unpin + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (id, journal) = (self.id.clone(), self.journal.clone());
        let prefix = format!("{} | ", self.name);
        async move {
            let mut from = BufReader::new(from);
            let mut ours = Some(tokio::io::stderr());
            let mut line = Vec::new();
            while matches!(
                (&mut from)
                    .take(LINE_MAX)
                    .read_until(b'\n', &mut line)
                    .await,
                Ok(1..)
            ) {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end_matches('\n').trim_end_matches('\r');
                journal.note(&id, text);
                if let Some(open) = &mut ours {
                    // What a function writes does not command our terminal, nor hide whose line it is.
                    let shown = format!("{prefix}{}\n", escaped(text));
                    if open.write_all(shown.as_bytes()).await.is_err() {
                        // Nobody reads our log any more; the function's must flow on all the same.
                        ours = None;
                    }
                }
                line.clear();
            }
        }
    }
}

impl Watchdog {
    /// TERM and time to finish; then, or when `cut` says so, its lifeline is cut; KILL only if not even that ends it.
    async fn terminate(mut self, mut cut: watch::Receiver<bool>) {
        self.signal(Signal::TERM);
        tokio::select! {
            _ = self.child.wait() => return,
            () = tokio::time::sleep(DRAIN) => {}
            _ = cut.wait_for(|cut| *cut) => {}
        }
        if let Some(lifeline) = self.lifeline.take() {
            lifeline.abort();
        }
        if tokio::time::timeout(LAST_CHANCE, self.child.wait())
            .await
            .is_err()
        {
            self.signal(Signal::KILL);
            let _ = self.child.wait().await;
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may have ended this very moment.
            let _ = kill_process_group(pid, signal);
        }
    }
}

fn describe(status: std::io::Result<impl Display>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}
