//! Changing local functions: their number of replicas. What they are says the stack file, which is watched.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Local;
use super::stack::{MAX_REPLICAS, Run};
use crate::discovery::operate::{
    Authority, Doing, Failed, LogLine, LogsAsked, Notes, Operator, Replica, SecretValue, Trouble,
    Wanted,
};
use crate::discovery::usage::Usage;
use crate::function::{FunctionName, SecretName};

/// What to do instead of secrets.
pub(super) const NO_SECRETS: &str =
    "local functions have no secrets: give them what they need in the stack file's environment";

impl Operator for Arc<Local> {
    fn create(&self, _wanted: Wanted, _: Authority) -> Doing<'_, Notes> {
        Box::pin(async { Err(self.in_the_file("made")) })
    }

    fn update(&self, wanted: Wanted, _: Authority) -> Doing<'_, Notes> {
        Box::pin(async move {
            // Clients try an update first, and then make what is unknown.
            let is_known = self.lock().contains_key(&wanted.name);
            Err(if is_known {
                self.in_the_file("changed")
            } else {
                Failed::no_function(wanted.name.as_str())
            })
        })
    }

    fn scale(&self, name: FunctionName, replicas: u64, _: Authority) -> Doing<'_, ()> {
        Box::pin(async move { self.set_replicas(&name, replicas) })
    }

    fn remove(&self, name: FunctionName, _: Authority) -> Doing<'_, ()> {
        Box::pin(async move {
            let is_known = self.lock().contains_key(&name);
            Err(if is_known {
                self.in_the_file("removed")
            } else {
                Failed::no_function(name.as_str())
            })
        })
    }

    fn logs(&self, asked: LogsAsked) -> Doing<'_, mpsc::Receiver<LogLine>> {
        Box::pin(async move {
            if !self.lock().contains_key(&asked.name) {
                return Err(Failed::no_function(asked.name.as_str()));
            }
            Ok(self.journal(&asked.name).read(&asked))
        })
    }

    fn replicas(&self, name: FunctionName) -> Doing<'_, Vec<Replica>> {
        Box::pin(async move {
            let functions = self.lock();
            let running = functions
                .get(&name)
                .ok_or_else(|| Failed::no_function(name.as_str()))?;
            let told = |replica: &super::Replica| Replica {
                id: replica.id.to_string(),
                node: String::new(),
                state: if replica.is_running() {
                    "running"
                } else {
                    "starting"
                }
                .to_owned(),
                desired_state: "running".to_owned(),
                created_at: String::new(),
                error: None,
            };
            Ok(running.replicas.iter().map(told).collect())
        })
    }

    fn usage(&self, name: FunctionName) -> Doing<'_, Option<Usage>> {
        Box::pin(async move { self.usage_of(&name).await })
    }

    fn end_replica(&self, name: FunctionName, id: String, _: Authority) -> Doing<'_, ()> {
        Box::pin(async move { self.replace(&name, Some(&id)) })
    }

    fn end_replicas(&self, name: FunctionName, _: Authority) -> Doing<'_, ()> {
        Box::pin(async move { self.replace(&name, None) })
    }

    fn secrets(&self) -> Doing<'_, Vec<String>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn create_secret(&self, _name: SecretName, _value: SecretValue) -> Doing<'_, ()> {
        Box::pin(async { Err(no_secrets()) })
    }

    fn update_secret(&self, _name: SecretName, _value: SecretValue) -> Doing<'_, ()> {
        Box::pin(async { Err(no_secrets()) })
    }

    fn remove_secret(&self, _name: SecretName) -> Doing<'_, ()> {
        Box::pin(async { Err(no_secrets()) })
    }
}

fn no_secrets() -> Failed {
    Failed::new(Trouble::Unsupported, NO_SECRETS)
}

impl Local {
    /// Starts what is missing, or ends what is too much; it lasts until the stack file changes the function.
    fn set_replicas(&self, name: &FunctionName, replicas: u64) -> Result<(), Failed> {
        let wanted = usize::try_from(replicas)
            .ok()
            .filter(|wanted| *wanted <= MAX_REPLICAS);
        let wanted = wanted.ok_or_else(|| {
            Failed::new(
                Trouble::Invalid,
                format!("replicas: must be {MAX_REPLICAS} at most on one machine"),
            )
        })?;
        let mut functions = self.lock();
        let running = functions
            .get_mut(name)
            .ok_or_else(|| Failed::no_function(name.as_str()))?;
        let Run::Command { folder, .. } = &running.function.run else {
            let why = format!(
                "function '{name}' is a server that runs already: start more of it behind its address, or give the function an fprocess instead of the annotation skep.upstream"
            );
            return Err(Failed::new(Trouble::Unsupported, why));
        };
        for number in running.replicas.len() + 1..=wanted {
            let replica = self.start_replica(name, &running.function, folder, number);
            let failed = |error| {
                Failed::new(
                    Trouble::Refused,
                    format!("a replica could not be started: {error}"),
                )
            };
            running.replicas.push(replica.map_err(failed)?);
        }
        let surplus = running.replicas.split_off(wanted);
        drop(functions);
        self.changed.notify_one();
        for replica in surplus {
            tokio::spawn(replica.stop());
        }
        Ok(())
    }

    /// Starts as many new replicas as are ended: the one of this id, or all.
    fn replace(&self, name: &FunctionName, id: Option<&str>) -> Result<(), Failed> {
        let mut functions = self.lock();
        let running = functions
            .get_mut(name)
            .ok_or_else(|| Failed::no_function(name.as_str()))?;
        let Run::Command { folder, .. } = &running.function.run else {
            let why = format!(
                "function '{name}' is a server that runs already: restart it where it was started, or give the function an fprocess instead of the annotation skep.upstream"
            );
            return Err(Failed::new(Trouble::Unsupported, why));
        };
        let mut ended = Vec::new();
        for (place, replica) in running.replicas.iter_mut().enumerate() {
            if id.is_none_or(|id| *id == *replica.id) {
                let fresh = self.start_replica(name, &running.function, folder, place + 1);
                let fresh = fresh.map_err(|error| {
                    Failed::new(
                        Trouble::Refused,
                        format!("a replica could not be started: {error}"),
                    )
                })?;
                ended.push(std::mem::replace(replica, fresh));
            }
        }
        drop(functions);
        if let (Some(id), true) = (id, ended.is_empty()) {
            let why = format!("function '{name}' has no replica '{id}'");
            return Err(Failed::new(Trouble::Unknown, why));
        }
        self.changed.notify_one();
        for replica in ended {
            tokio::spawn(replica.stop());
        }
        Ok(())
    }

    fn in_the_file(&self, what: &str) -> Failed {
        let file = self.file.display();
        Failed::new(
            Trouble::Unsupported,
            format!("local functions are {what} in {file}: edit it, and it is applied at once"),
        )
    }
}
