//! Marks every descriptor that the watchdog inherited as close-on-exec, so that no command gets it.

use std::os::fd::RawFd;

/// The first descriptor that is not standard input, output or error.
const FIRST: RawFd = 3;

/// Numbers that are tried where neither `close_range` nor /proc is available.
const TRIED: RawFd = 65_536;

/// To be called before other threads are started. Descriptors that we open ourselves are close-on-exec from the start.
pub(crate) fn close_inherited_on_exec() {
    let (first, last) = (FIRST.cast_unsigned(), u32::MAX);
    // SAFETY: a plain system call without pointers; it closes nothing. Old kernels (before 5.11) and filters of system calls refuse it.
    let refused = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            last,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    } != 0;
    if refused {
        one_by_one();
    }
}

fn one_by_one() {
    let listed: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let all: Vec<RawFd> = if listed.is_empty() {
        (FIRST..TRIED).collect()
    } else {
        listed
    };
    for descriptor in all.into_iter().filter(|descriptor| *descriptor >= FIRST) {
        // SAFETY: a plain system call that sets a flag; a number that is not open is refused.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
