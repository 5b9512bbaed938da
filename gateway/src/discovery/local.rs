//! Functions as local processes behind real watchdogs, as a stack file says; no Docker needed.

pub mod replica;
pub mod stack;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use self::replica::Replica;
use self::stack::{Run, Stack, StackFunction};
use super::{Provider, Unlisted};
use crate::function::{Address, Deployment, FunctionName, Replicas};
use crate::table::Listing;

/// How often the stack file is looked at.
const WATCH_PAUSE: Duration = Duration::from_millis(300);

/// The local provider.
pub struct Local {
    file: PathBuf,
    scratch: PathBuf,
    functions: Mutex<BTreeMap<FunctionName, Running>>,
    changed: Arc<Notify>,
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
            changed: Arc::default(),
        });
        local.apply(stack.clone())?;
        tokio::spawn(local.clone().follow(stack));
        Ok(local)
    }

    /// Runs what the stack says: what did not change goes on, what did is replaced, what is gone is ended.
    fn apply(&self, stack: Stack) -> std::io::Result<()> {
        let mut old = std::mem::take(&mut *self.lock());
        let mut new = BTreeMap::new();
        for (name, function) in stack.functions {
            let running = match old.remove(&name) {
                Some(same) if same.function == function => same,
                changed => {
                    old.extend(changed.map(|changed| (name.clone(), changed)));
                    Running {
                        replicas: self.start_replicas(&name, &function)?,
                        function,
                    }
                }
            };
            new.insert(name, running);
        }
        *self.lock() = new;
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
        let start = |number| {
            let lock_dir = self
                .scratch
                .join(format!("{name}.{number}.{:08x}", fastrand::u32(..)));
            Replica::start(
                name.as_str(),
                number,
                function,
                folder,
                &lock_dir,
                self.changed.clone(),
            )
        };
        (1..=*replicas).map(start).collect()
    }

    /// Looks at the file again and again; a broken one leaves everything as it is.
    async fn follow(self: Arc<Self>, mut applied: Stack) {
        // Nothing seen yet: the file may have changed since it was read.
        let mut seen = None;
        loop {
            tokio::time::sleep(WATCH_PAUSE).await;
            let now = stamp(&self.file);
            if now == seen {
                continue;
            }
            seen = now;
            match Stack::load(&self.file, |name| std::env::var(name).ok()) {
                Ok(stack) if stack == applied => {}
                Ok(stack) => {
                    tracing::info!(
                        "{} changed: {} function(s)",
                        self.file.display(),
                        stack.functions.len()
                    );
                    applied = stack.clone();
                    if let Err(error) = self.apply(stack) {
                        tracing::error!("the changed stack file could not be applied: {error}");
                    }
                }
                Err(mistakes) => mistakes.iter().for_each(|mistake| {
                    tracing::warn!("{mistake}; the functions stay as they were")
                }),
            }
        }
    }

    /// Ends every process.
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
            Run::Command { replicas, .. } => (*replicas as u64, None),
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
            replicas,
            addresses,
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
                match tokio::net::lookup_host(&authority).await {
                    Ok(sockets) => {
                        deployment
                            .addresses
                            .extend(sockets.take(1).map(|socket| Address {
                                id: authority.as_str().into(),
                                socket,
                            }))
                    }
                    Err(error) => {
                        tracing::warn!(function = %deployment.name, "skep.upstream {authority}: {error}")
                    }
                }
                deployment.replicas.running = deployment.addresses.len() as u64;
            }
            listing.settled &= deployment.replicas.running == deployment.replicas.desired;
            listing.functions.push(deployment);
        }
        Ok(listing)
    }
}
