//! Whether the container's memory limit has ended a process: the kernel kills, and only its counters say why.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::exit::Exit;

/// Where the counter is, and the limit: cgroup v2, then v1. A container sees its own group there.
const FILES: [(&str, &str); 2] = [
    ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory.max"),
    (
        "/sys/fs/cgroup/memory/memory.oom_control",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ),
];

/// What a shell says of a command that SIGKILL has ended.
const KILLED_STATUS: i32 = 128 + 9;

/// The kills that the kernel has counted.
#[derive(Debug)]
pub(crate) struct Memory {
    kills: AtomicU64,
}

impl Memory {
    /// The count so far; kills before ours are nobody's here.
    pub(crate) fn look() -> Self {
        Self {
            kills: AtomicU64::new(kills().unwrap_or(0)),
        }
    }

    /// The sentence for a process that the memory limit has ended, if this is one. Read only when a process was killed.
    pub(crate) fn explains(&self, exit: Exit) -> Option<String> {
        if !matches!(exit, Exit::Signal(9) | Exit::Status(KILLED_STATUS)) {
            return None;
        }
        let now = kills()?;
        (self.kills.swap(now, Ordering::Relaxed) < now).then(|| match limit() {
            Some(limit) => format!(
                "OOM: the memory limit of {limit} bytes ended a process of the run; raise the function's memory limit"
            ),
            None => "OOM: the machine ran out of memory and ended a process of the run".to_owned(),
        })
    }
}

fn kills() -> Option<u64> {
    FILES.iter().find_map(|(events, _)| {
        let text = fs::read_to_string(events).ok()?;
        count(&text)
    })
}

fn count(events: &str) -> Option<u64> {
    let line = events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

fn limit() -> Option<u64> {
    let read = |(_, file): &(&str, &str)| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    // cgroup v1 says nearly the largest number for none.
    FILES.iter().find_map(read).filter(|limit| *limit < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read() {
        assert_eq!(count("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n"), Some(2));
        assert_eq!(
            count("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
            Some(7)
        );
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn other_ends_are_not_looked_into() {
        let memory = Memory::look();
        for exit in [
            Exit::Status(0),
            Exit::Status(1),
            Exit::Signal(15),
            Exit::Unknown,
        ] {
            assert_eq!(memory.explains(exit), None);
        }
    }
}
