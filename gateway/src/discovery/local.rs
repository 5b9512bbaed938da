//! Functions as local processes behind real watchdogs, as a stack file says; no Docker needed.

pub mod journal;
mod operate;
pub mod replica;
pub mod stack;
mod usage;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};

use self::journal::Journal;
use self::replica::{Replica, Ties};
use self::stack::{Run, Stack, StackFunction};
use super::{Provider, Remedies, Unlisted};
use crate::function::{Address, Deployment, FunctionName, Handling, Replicas, Rollout};
use crate::table::Listing;

/// How often the stack file is looked at.
const WATCH_PAUSE: Duration = Duration::from_millis(300);

/// How long a name of an upstream may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(2);

/// What to do about a local function.
pub const REMEDIES: Remedies = Remedies {
    scaled_to_zero: |name| format!("skep scale {name} 1"),
    not_running: |name| {
        format!("its lines in the terminal of skep local say why, and so does skep logs {name}")
    },
    not_accepting: |name| {
        format!(
            "its lines in the terminal of skep local may say why, or skep logs {name}; a server that the annotation skep.upstream names must be running"
        )
    },
};

/// The local provider.
pub struct Local {
    file: PathBuf,
    scratch: PathBuf,
    functions: Mutex<BTreeMap<FunctionName, Running>>,
    journals: Mutex<BTreeMap<FunctionName, Arc<Journal>>>,
    changed: Arc<Notify>,
    cut: watch::Sender<bool>,
    resolved: Mutex<BTreeMap<String, SocketAddr>>,
}

struct Running {
    function: StackFunction,
    replicas: Vec<Replica>,
}

impl Local {
    /// Starts every function of a stack that was read from this file, and follows the file's changes.
    ///
    /// # Errors
    /// When a replica has no port or folder.
    pub fn start(file: &Path, stack: Stack) -> std::io::Result<Arc<Self>> {
        let scratch = std::env::temp_dir().join(format!(
            "skep-local-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        ));
        let local = Arc::new(Self {
            file: file.to_owned(),
            scratch,
            functions: Mutex::default(),
            journals: Mutex::default(),
            changed: Arc::default(),
            cut: watch::Sender::new(false),
            resolved: Mutex::default(),
        });
        local.apply(&stack)?;
        tokio::spawn(local.clone().follow(stack));
        Ok(local)
    }

    /// Runs what the stack says: what did not change goes on, what did is replaced, what is gone is ended.
    fn apply(&self, stack: &Stack) -> std::io::Result<()> {
        // Everything new is started before anything old is touched: if that fails, nothing has changed.
        let is_same = |name: &FunctionName, function: &StackFunction| {
            self.lock()
                .get(name)
                .is_some_and(|known: &Running| known.function == *function)
        };
        let mut fresh = BTreeMap::new();
        for (name, function) in &stack.functions {
            if !is_same(name, function) {
                let replicas = self.start_replicas(name, function)?;
                fresh.insert(
                    name.clone(),
                    Running {
                        function: function.clone(),
                        replicas,
                    },
                );
            }
        }
        let mut functions = self.lock();
        let (kept, old): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut *functions)
            .into_iter()
            .partition(|(name, _)| stack.functions.contains_key(name) && !fresh.contains_key(name));
        *functions = kept;
        functions.extend(fresh);
        drop(functions);
        self.changed.notify_one();
        for replica in old.into_values().flat_map(|running| running.replicas) {
            tokio::spawn(replica.stop());
        }
        Ok(())
    }

    fn start_replicas(
        &self,
        name: &FunctionName,
        function: &StackFunction,
    ) -> std::io::Result<Vec<Replica>> {
        let Run::Command { replicas, folder } = &function.run else {
            return Ok(Vec::new());
        };
        (1..=*replicas)
            .map(|number| self.start_replica(name, function, folder, number))
            .collect()
    }

    fn start_replica(
        &self,
        name: &FunctionName,
        function: &StackFunction,
        folder: &Path,
        number: usize,
    ) -> std::io::Result<Replica> {
        let lock_dir = self
            .scratch
            .join(format!("{name}.{number}.{:08x}", fastrand::u32(..)));
        Replica::start(
            name.as_str(),
            number,
            function,
            folder,
            &lock_dir,
            Ties {
                changed: self.changed.clone(),
                cut: self.cut.subscribe(),
                journal: self.journal(name),
            },
        )
    }

    /// Looks at the file again and again; a broken one leaves everything as it is.
    async fn follow(self: Arc<Self>, mut applied: Stack) {
        // Nothing seen yet: the file may have changed since it was read.
        let mut seen = None;
        loop {
            tokio::time::sleep(WATCH_PAUSE).await;
            // Off this thread: a file system may hang.
            let file = self.file.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || stamp(&file)).await else {
                return;
            };
            if now == seen {
                continue;
            }
            seen = now;
            let file = self.file.clone();
            let load = move || Stack::load(&file, |name| std::env::var(name).ok());
            let Ok(loaded) = tokio::task::spawn_blocking(load).await else {
                return;
            };
            match loaded {
                Ok(stack) if stack == applied => {}
                Ok(stack) => {
                    tracing::info!(
                        "{} changed: {} function(s)",
                        self.file.display(),
                        stack.functions.len()
                    );
                    match self.apply(&stack) {
                        Ok(()) => applied = stack,
                        Err(error) => {
                            tracing::error!(
                                "the changed stack file could not be applied, trying again: {error}"
                            );
                            seen = None;
                        }
                    }
                }
                Err(mistakes) => mistakes.iter().for_each(|mistake| {
                    tracing::warn!("{mistake}; the functions stay as they were")
                }),
            }
        }
    }

    /// From now on nothing is waited for: every process that is being ended ends at once.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Ends every process; running calls may finish first, unless they are [`cut`](Self::cut).
    pub async fn stop(&self) {
        let functions = std::mem::take(&mut *self.lock());
        let stops: Vec<_> = functions
            .into_values()
            .flat_map(|running| running.replicas)
            .map(|replica| tokio::spawn(replica.stop()))
            .collect();
        for stop in stops {
            let _ = stop.await;
        }
        // Lock files of ours only; nothing is left to do if it fails.
        let _ = std::fs::remove_dir_all(&self.scratch);
    }

    /// The address of an upstream; the last known one while its name cannot be looked up.
    async fn resolve(&self, authority: &str) -> Option<SocketAddr> {
        if let Ok(socket) = authority.parse() {
            return Some(socket);
        }
        let looked_up = tokio::time::timeout(LOOKUP, tokio::net::lookup_host(authority)).await;
        let found = looked_up
            .ok()
            .and_then(Result::ok)
            .and_then(|mut sockets| sockets.next());
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Some(socket) => drop(resolved.insert(authority.to_owned(), socket)),
            None => tracing::warn!("skep.upstream: no address for {authority}"),
        }
        resolved.get(authority).copied()
    }

    /// What the function has written; it outlives the function's replicas.
    fn journal(&self, name: &FunctionName) -> Arc<Journal> {
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals.entry(name.clone()).or_default().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<FunctionName, Running>> {
        self.functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn deployments(&self) -> Vec<(Deployment, Option<String>)> {
        let functions = self.lock();
        functions
            .iter()
            .map(|(name, running)| running.deployment(name))
            .collect()
    }
}

/// What changes when a file does: its time and its size.
fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

impl Running {
    /// The function as listed, and the upstream whose address is still to be looked up.
    fn deployment(&self, name: &FunctionName) -> (Deployment, Option<String>) {
        let alive = self.replicas.iter().filter(|replica| replica.is_running());
        let addresses: Vec<_> = alive
            .map(|replica| Address {
                id: replica.id.clone(),
                socket: replica.socket,
            })
            .collect();
        let (desired, upstream) = match &self.function.run {
            Run::Command { .. } => (self.replicas.len() as u64, None),
            Run::Upstream(authority) => (1, Some(authority.clone())),
        };
        let running = addresses.len() as u64;
        let replicas = Replicas {
            desired,
            running,
            starting: if upstream.is_some() {
                0
            } else {
                desired - running
            },
        };
        let deployment = Deployment {
            name: name.clone(),
            short_name: None,
            spec: self.function.spec.clone(),
            limits: self.function.limits,
            handling: Handling {
                // The processes are watchdogs of ours; a server that already runs may be anything.
                expects_watchdog: upstream.is_none(),
                ..self.function.handling.clone()
            },
            route: self.function.route.clone(),
            replicas,
            rollout: Rollout::default(),
            addresses,
            unhealthy: Vec::new(),
        };
        (deployment, upstream)
    }
}

impl Provider for Arc<Local> {
    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn list(&self) -> Result<Listing, Unlisted> {
        let mut listing = Listing {
            settled: true,
            ..Listing::default()
        };
        for (mut deployment, upstream) in self.deployments() {
            if let Some(authority) = upstream {
                let socket = self.resolve(&authority).await;
                let address = |socket| Address {
                    id: authority.as_str().into(),
                    socket,
                };
                deployment.addresses.extend(socket.map(address));
                deployment.replicas.running = deployment.addresses.len() as u64;
            }
            listing.settled &= deployment.replicas.running == deployment.replicas.desired;
            listing.functions.push(deployment);
        }
        Ok(listing)
    }
}
