//! What local replicas use: each watchdog with everything below it, as `/proc` counts it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::Local;
use crate::discovery::operate::Failed;
use crate::discovery::usage::{APART, Reading, Usage};
use crate::function::FunctionName;

/// A process, as far as we read it.
struct Process {
    parent: u32,
    /// Its own processor time, and that of its children that have ended.
    processor: Duration,
    memory_bytes: u64,
}

impl Local {
    /// What its replicas use; `None` if none runs as a process of ours.
    pub(super) async fn usage_of(&self, name: &FunctionName) -> Result<Option<Usage>, Failed> {
        let roots: Vec<u32> = {
            let functions = self.lock();
            let running = functions
                .get(name)
                .ok_or_else(|| Failed::no_function(name.as_str()))?;
            running
                .replicas
                .iter()
                .filter_map(|one| one.pid())
                .collect()
        };
        let before = read(roots.clone()).await;
        tokio::time::sleep(APART).await;
        let after = read(roots).await;
        let used = after
            .iter()
            .filter_map(|(root, second)| Usage::between(before.get(root)?, second));
        Ok(Usage::sum(used))
    }
}

/// A reading of each of these processes, with everything below it. On a thread of its own: there may be many processes.
async fn read(roots: Vec<u32>) -> HashMap<u32, Reading> {
    let reading = tokio::task::spawn_blocking(move || {
        let processes = processes();
        let readings = roots.iter().map(|root| (*root, tree(*root, &processes)));
        readings
            .filter_map(|(root, reading)| Some((root, reading?)))
            .collect()
    });
    // Nothing in it panics; nothing is known if it did.
    reading.await.unwrap_or_default()
}

/// Sums a process and everything below it up; `None` if it is gone.
fn tree(root: u32, processes: &HashMap<u32, Process>) -> Option<Reading> {
    let is_below = |pid: u32| {
        let parents = std::iter::successors(Some(pid), |pid| Some(processes.get(pid)?.parent));
        // Processes come and go while they are listed: a bound, should a number have been given anew in a circle.
        parents.take(1000).any(|pid| pid == root)
    };
    processes.get(&root)?;
    let mut sum = Reading {
        at: SystemTime::now(),
        processor: Duration::ZERO,
        memory_bytes: 0,
    };
    for (pid, process) in processes {
        if is_below(*pid) {
            sum.processor += process.processor;
            sum.memory_bytes += process.memory_bytes;
        }
    }
    Some(sum)
}

fn processes() -> HashMap<u32, Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, parse(&stat)?))
    })
    .collect()
}

/// `pid (name) state ppid ...` (proc(5)); the name may hold anything, brackets included.
fn parse(stat: &str) -> Option<Process> {
    let (_, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        processor: Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()),
        memory_bytes: number(21)? * rustix::param::page_size() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 10 20 30 40 20 0 1 0 100 1000000 25 18446744073709551615 1";
        let process = parse(stat).unwrap();
        assert_eq!(
            (process.parent, process.processor),
            (7, Duration::from_secs(1))
        );
        assert_eq!(process.memory_bytes, 25 * rustix::param::page_size() as u64);
        assert!(parse("42 (x").is_none() && parse("42 (x) S 7 1").is_none());
    }

    #[test]
    fn a_process_counts_with_everything_below_it() {
        let process = |parent, ms| Process {
            parent,
            processor: Duration::from_millis(ms),
            memory_bytes: ms,
        };
        let all = HashMap::from([
            (1, process(0, 1)),
            (5, process(1, 10)),
            (6, process(5, 100)),
            (7, process(6, 1000)),
            (8, process(1, 10_000)),
            (20, process(21, 5)),
            (21, process(20, 5)),
        ]);
        let sum = tree(5, &all).unwrap();
        assert_eq!((sum.processor.as_millis(), sum.memory_bytes), (1110, 1110));
        assert!(tree(9, &all).is_none());
    }
}
