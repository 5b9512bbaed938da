//! The process tree as /proc shows it: who descends from whom, and whose a process is.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

use crate::cgi::MARKER;
use crate::runs::Marks;

/// How much of a process's environment is searched for the marker.
const LONGEST_ENVIRONMENT: u64 = 1024 * 1024;

/// Clock ticks since boot.
pub(crate) type Ticks = u64;

/// How far the two clocks of `has_clock` may differ.
const TICKS_APART: Ticks = 100;

/// A process, told apart from a later one with the same number by its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    pub(crate) started: Ticks,
}

/// One process at the moment of the snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pub(crate) identity: Identity,
    pub(crate) parent: i32,
    pub(crate) is_zombie: bool,
}

/// All processes that /proc shows.
#[derive(Debug, Default)]
pub(crate) struct Snapshot(Vec<Process>);

impl Snapshot {
    /// Reads /proc; processes that vanish meanwhile are left out.
    pub(crate) fn read() -> Self {
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Self::default();
        };
        let pid = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.ok()?.file_name().to_str()?.parse().ok()
        };
        Self(entries.filter_map(pid).filter_map(process).collect())
    }

    /// The living children of a process.
    pub(crate) fn children(&self, parent: i32) -> impl Iterator<Item = Identity> {
        self.0
            .iter()
            .filter(move |process| process.parent == parent && !process.is_zombie)
            .map(|process| process.identity)
    }

    /// The living ones among `roots`, and all that descends from any of them.
    pub(crate) fn with_descendants(
        &self,
        roots: impl IntoIterator<Item = Identity>,
    ) -> HashSet<Identity> {
        let mut members: HashSet<i32> = HashSet::new();
        let roots: HashSet<Identity> = roots.into_iter().collect();
        members.extend(
            self.0
                .iter()
                .filter(|process| roots.contains(&process.identity))
                .map(|process| process.identity.pid),
        );
        loop {
            let before = members.len();
            let children = self
                .0
                .iter()
                .filter(|process| members.contains(&process.parent))
                .map(|process| process.identity.pid);
            members.extend(children.collect::<Vec<_>>());
            if members.len() == before {
                break;
            }
        }
        let living = self
            .0
            .iter()
            .filter(|process| !process.is_zombie && members.contains(&process.identity.pid));
        living.map(|process| process.identity).collect()
    }

    /// The same with a time for each root: whoever descends from several has the earliest.
    pub(crate) fn spread<T: Copy + Ord>(
        &self,
        roots: &HashMap<Identity, T>,
    ) -> HashMap<Identity, T> {
        let known = |process: &Process| {
            let time = roots.get(&process.identity)?;
            Some((process.identity.pid, *time))
        };
        let mut times: HashMap<i32, T> = self.0.iter().filter_map(known).collect();
        let mut has_spread = true;
        while has_spread {
            has_spread = false;
            for process in &self.0 {
                let Some(&time) = times.get(&process.parent) else {
                    continue;
                };
                let own = times.entry(process.identity.pid).or_insert_with(|| {
                    has_spread = true;
                    time
                });
                if time < *own {
                    *own = time;
                    has_spread = true;
                }
            }
        }
        let living = self.0.iter().filter(|process| !process.is_zombie);
        living
            .filter_map(|process| Some((process.identity, *times.get(&process.identity.pid)?)))
            .collect()
    }

    /// The identity of a process by number.
    pub(crate) fn find(&self, pid: Pid) -> Option<Identity> {
        self.0
            .iter()
            .map(|process| process.identity)
            .find(|identity| identity.pid == pid.as_raw_nonzero().get())
    }
}

/// The process with this number, if there is one.
pub(crate) fn process(pid: i32) -> Option<Process> {
    parse_stat(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The time as /proc tells the start of a process: a process that starts now starts at this tick or later.
pub(crate) fn now() -> Ticks {
    let now = clock_gettime(ClockId::Boottime);
    let per_second = rustix::param::clock_ticks_per_second();
    let (seconds, nanos) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
    seconds * per_second + nanos / (1_000_000_000 / per_second.max(1))
}

/// Whether `now` and /proc agree, which they may not where a kernel is emulated: a thread that has just started shows it.
pub(crate) fn has_clock() -> bool {
    let started = || {
        let stat = std::fs::read("/proc/thread-self/stat").ok()?;
        Some(parse_stat(0, &stat)?.identity.started)
    };
    let before = now();
    let started = std::thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(started)
        .ok()
        .and_then(|thread| thread.join().ok()?);
    started.is_some_and(|started| (before..=before + TICKS_APART).contains(&started))
}

/// What shows whose a process is, as far as we may read it.
pub(crate) fn marks(pid: i32) -> Marks {
    Marks {
        marker: marker(pid),
        limit: std::fs::read_to_string(format!("/proc/{pid}/limits"))
            .ok()
            .and_then(|limits| resident_limit(&limits)),
    }
}

/// The marker in a process's environment, if it has one that we may read.
fn marker(pid: i32) -> Option<String> {
    let mut environment = Vec::new();
    let file = std::fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(LONGEST_ENVIRONMENT)
        .read_to_end(&mut environment)
        .ok()?;
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(MARKER.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// The hard limit of the resident set, in a table with one line per limit.
fn resident_limit(limits: &str) -> Option<u64> {
    let values = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max resident set"))?;
    values.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The command's name, in parentheses, may contain anything: the fields after it start behind the last `)`.
fn parse_stat(pid: i32, stat: &[u8]) -> Option<Process> {
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after..])
        .ok()?
        .split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    // The start is field 22 of the whole line; state and parent were 3 and 4.
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process {
        identity: Identity { pid, started },
        parent,
        is_zombie,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(processes: &[(i32, i32, bool)]) -> Snapshot {
        let process = |&(pid, parent, is_zombie): &(i32, i32, bool)| Process {
            identity: Identity { pid, started: 1 },
            parent,
            is_zombie,
        };
        Snapshot(processes.iter().map(process).collect())
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let line =
            b"77 (a ) S 1 (x) R 5 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1000 2 3";
        let process = parse_stat(77, line).unwrap();
        assert_eq!(
            (process.parent, process.is_zombie, process.identity.started),
            (5, false, 12345)
        );
        assert!(parse_stat(1, b"1 (x) Z 0").is_none());
    }

    #[test]
    fn the_resident_limit_is_found_among_the_others() {
        let table = |value: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max data size             unlimited            unlimited            bytes     \n\
                 Max resident set          1024                 {value:<20} bytes     \n\
                 Max processes             100                  100                  processes \n"
            )
        };
        assert_eq!(
            resident_limit(&table("4611686018427387905")),
            Some((1 << 62) + 1)
        );
        assert_eq!(resident_limit(&table("unlimited")), None);
        assert_eq!(resident_limit(""), None);
    }

    #[test]
    fn descendants_are_found_to_any_depth_and_in_any_order() {
        let tree = snapshot(&[
            (9, 8, false),
            (8, 7, true),
            (7, 5, false),
            (5, 1, false),
            (6, 1, false),
            (10, 6, false),
        ]);
        let found = tree.with_descendants([Identity { pid: 5, started: 1 }]);
        let mut pids: Vec<_> = found.iter().map(|identity| identity.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [5, 7, 9]);
    }

    #[test]
    fn the_earliest_time_of_all_ancestors_counts() {
        let tree = snapshot(&[
            (9, 8, false),
            (8, 7, true),
            (7, 5, false),
            (5, 1, false),
            (6, 1, false),
        ]);
        let root = |pid, time| (Identity { pid, started: 1 }, time);
        let found = tree.spread(&HashMap::from([root(5, 20), root(7, 10), root(9, 30)]));
        assert_eq!(
            found,
            HashMap::from([root(5, 20), root(7, 10), root(9, 10)])
        );
        let found = tree.spread(&HashMap::from([root(5, 10), root(7, 20), root(4, 1)]));
        assert_eq!(
            found,
            HashMap::from([root(5, 10), root(7, 10), root(9, 10)])
        );
    }

    #[test]
    fn a_number_that_was_given_to_a_new_process_is_not_the_old_one() {
        let tree = snapshot(&[(5, 1, false), (6, 5, false)]);
        assert!(
            tree.with_descendants([Identity { pid: 5, started: 2 }])
                .is_empty()
        );
    }

    #[test]
    fn the_clock_of_proc_is_the_one_that_is_read() {
        assert!(has_clock());
    }

    #[test]
    fn this_process_is_in_the_snapshot() {
        let own = rustix::process::getpid();
        let identity = Snapshot::read().find(own).unwrap();
        assert_eq!(process(identity.pid).unwrap().identity, identity);
    }
}
