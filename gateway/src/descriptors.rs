//! How many files this process may have open: a connection is one, and most systems begin with 1024 for the sake of old programs.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// With fewer than this a gateway soon has no room for callers.
const LOW: u64 = 4096;

/// The limits that we were started with.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Takes as many as the system lets us have, and says so if that is little.
pub fn take_all() {
    let before = getrlimit(Resource::Nofile);
    let most = before.maximum;
    let all = Rlimit {
        current: most,
        maximum: most,
    };
    match setrlimit(Resource::Nofile, all) {
        Ok(()) => drop(BEFORE.set(before)),
        Err(error) => tracing::warn!("the limit of open files stays as it is: {error}"),
    }
    let now = getrlimit(Resource::Nofile).current;
    if let Some(few) = now.filter(|now| *now < LOW) {
        tracing::warn!(
            "only {few} files may be open, and each connection is one: raise the limit (ulimit -n, or --ulimit nofile= of the container)"
        );
    }
}

/// Gives a process that we started the limits that we were started with: it may be an old program.
pub fn as_before(child: Option<u32>) {
    let pid = child.and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    if let (Some(pid), Some(before)) = (pid, BEFORE.get()) {
        // One that has ended needs none.
        let _ = prlimit(Some(pid), Resource::Nofile, *before);
    }
}
