//! What a function's tasks on our own node use, as our engine counts it; it cannot reach into the others.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::task::JoinSet;

use super::Swarm;
use super::engine::Engine;
use crate::discovery::operate::Failed;
use crate::discovery::usage::{APART, Reading, Usage};
use crate::function::FunctionName;

/// What the engine says of a container, as far as we read it.
#[derive(Deserialize)]
struct Stats {
    read: String,
    #[serde(default)]
    cpu_stats: Processor,
    #[serde(default)]
    memory_stats: Memory,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Processor {
    cpu_usage: Spent,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spent {
    /// Nanoseconds.
    total_usage: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Memory {
    usage: u64,
    stats: Pages,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pages {
    /// Of cgroup v2.
    inactive_file: u64,
    /// Of cgroup v1, with what is below.
    total_inactive_file: u64,
}

impl Stats {
    /// Memory without files that nobody has read for a while, as `docker stats` shows it.
    fn reading(&self) -> Option<Reading> {
        let memory = &self.memory_stats;
        let files = memory
            .stats
            .total_inactive_file
            .max(memory.stats.inactive_file);
        let at = humantime::parse_rfc3339(&self.read).ok()?;
        // A container that does not run was read at the beginning of all time.
        (at > SystemTime::UNIX_EPOCH).then(|| Reading {
            at,
            processor: Duration::from_nanos(self.cpu_stats.cpu_usage.total_usage),
            memory_bytes: memory.usage.saturating_sub(files),
        })
    }
}

impl Swarm {
    /// What its tasks use that run on our own node, all read at once; `None` if none does.
    pub(super) async fn usage_of(&self, name: &FunctionName) -> Result<Option<Usage>, Failed> {
        let mut reading = JoinSet::new();
        for container in self.containers_here(name).await? {
            reading.spawn(usage_in(self.engine.clone(), container));
        }
        // One that ended meanwhile uses nothing.
        let used = reading.join_all().await.into_iter().flatten();
        Ok(Usage::sum(used))
    }
}

async fn usage_in(engine: Engine, container: String) -> Option<Usage> {
    let path = format!("/containers/{container}/stats?stream=false&one-shot=true");
    let first: Stats = engine.get(&path).await.ok()?;
    tokio::time::sleep(APART).await;
    let second: Stats = engine.get(&path).await.ok()?;
    Usage::between(&first.reading()?, &second.reading()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(json: &str) -> Option<Reading> {
        serde_json::from_str::<Stats>(json).unwrap().reading()
    }

    #[test]
    fn reads_what_both_kinds_of_cgroups_count() {
        let v1 = r#"{"read":"2026-11-25T01:02:03.123456789Z","cpu_stats":{"cpu_usage":{"total_usage":5000000}},"memory_stats":{"usage":900,"stats":{"inactive_file":1,"total_inactive_file":100}}}"#;
        let v2 = r#"{"read":"2026-11-25T01:02:03Z","cpu_stats":{"cpu_usage":{"total_usage":5000000}},"memory_stats":{"usage":900,"stats":{"inactive_file":100}},"more":[]}"#;
        for json in [v1, v2] {
            let read = reading(json).unwrap();
            assert_eq!(
                (read.processor, read.memory_bytes),
                (Duration::from_millis(5), 800)
            );
        }
        let ended = r#"{"read":"0001-01-01T00:00:00Z","cpu_stats":{},"memory_stats":{}}"#;
        assert_eq!(reading(ended), None);
    }
}
