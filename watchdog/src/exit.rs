//! How a process ended, and the words that the contract's clients know for it.

use std::fmt;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// By its limit of processor time, which was so many seconds.
    CpuLimit { seconds: u64 },
    /// Somebody else took its exit status.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(out, "exit status {status}"),
            Self::Signal(number) => match signal_name(*number) {
                Some(name) => write!(out, "signal: {name}"),
                None => write!(out, "signal: signal {number}"),
            },
            Self::CpuLimit { seconds } => write!(
                out,
                "cpu limit: a process of the run used {seconds}s of processor time and was ended; raise max_cpu_seconds"
            ),
            Self::Unknown => out.write_str("exit status unknown"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGUSR1 => "user defined signal 1",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGUSR2 => "user defined signal 2",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        libc::SIGXCPU => "CPU time limit exceeded",
        libc::SIGXFSZ => "file size limit exceeded",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_the_contracts_words() {
        assert_eq!(Exit::Status(3).to_string(), "exit status 3");
        assert_eq!(
            Exit::Signal(libc::SIGSEGV).to_string(),
            "signal: segmentation fault"
        );
        assert_eq!(Exit::Signal(40).to_string(), "signal: signal 40");
    }
}
