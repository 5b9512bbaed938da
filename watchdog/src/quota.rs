//! What each process of a run may use: seconds of processor time, and open files.

use std::fmt;

use rustix::process::{Resource, getrlimit};

/// The limits that a command is started with.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Quota {
    pub(crate) cpu_seconds: Option<Bounds>,
    pub(crate) open_files: Option<Bounds>,
}

/// One limit as the kernel wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Where the process is told: SIGXCPU, or no more descriptors.
    pub(crate) soft: u64,
    /// What the process may raise that to; at so many seconds it is killed.
    pub(crate) hard: u64,
}

/// A limit that cannot be had, because the watchdog has a lower one itself.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) variable: &'static str,
    pub(crate) asked: u64,
    pub(crate) given: u64,
}

impl Quota {
    /// The limits that were asked for, as far as the watchdog's own allow them.
    pub(crate) fn new(cpu_seconds: Option<u64>, open_files: Option<u64>) -> (Self, Vec<Lowered>) {
        let most = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let (cpu, files) = (most(Resource::Cpu), most(Resource::Nofile));
        let quota = Self {
            // A second between the signal and the kill, for those who catch the signal to clean up.
            cpu_seconds: cpu_seconds
                .map(|asked| Bounds::within(asked, asked.saturating_add(1), cpu)),
            open_files: open_files.map(|asked| Bounds::within(asked, asked, files)),
        };
        let all = [
            ("max_cpu_seconds", cpu_seconds, quota.cpu_seconds),
            ("max_open_files", open_files, quota.open_files),
        ];
        let lowered = all.into_iter().filter_map(|(variable, asked, bounds)| {
            let (asked, given) = (asked?, bounds?.soft);
            (given < asked).then_some(Lowered {
                variable,
                asked,
                given,
            })
        });
        (quota, lowered.collect())
    }
}

impl fmt::Display for Lowered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            variable,
            asked,
            given,
        } = self;
        write!(
            out,
            "warning: {variable}={asked} is above the limit that the watchdog has itself; using {given}"
        )
    }
}

impl Bounds {
    fn within(soft: u64, hard: u64, most: u64) -> Self {
        Self {
            soft: soft.min(most),
            hard: hard.min(most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_not_raised_above_those_of_the_watchdog() {
        assert_eq!(Bounds::within(3, 4, 10), Bounds { soft: 3, hard: 4 });
        assert_eq!(Bounds::within(10, 11, 10), Bounds { soft: 10, hard: 10 });
        let (quota, lowered) = Quota::new(None, Some(u64::MAX));
        assert_eq!(quota.cpu_seconds, None);
        let own = getrlimit(Resource::Nofile).maximum;
        assert_eq!(quota.open_files.unwrap().hard, own.unwrap_or(u64::MAX));
        assert_eq!(lowered.len(), usize::from(own.is_some()));
    }
}
