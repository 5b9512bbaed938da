//! Starts a command and knows its process: our own `clone(2)` start, and the descriptor that tells the exit.
//!
//! # Why not the standard library
//!
//! glibc's `posix_spawn`, which `std::process` uses, maps and unmaps a stack for each child, which serialises threads
//! that start processes side by side. Ours keeps one stack per thread.
//!
//! # Safety argument
//!
//! This is the only module of the workspace with `unsafe` code. It does two things that the compiler cannot check.
//!
//! 1. `clone(CLONE_VM | CLONE_VFORK)`. The child shares our memory and this thread sleeps until the child has called
//!    `execve` or `_exit`, so that everything the child reads ([`Order`], the strings behind its pointers, the
//!    stack) is alive and not written by this thread meanwhile. The child
//!    - runs on its own stack, a buffer of this thread that nobody else touches, with far more room than its calls need;
//!    - calls only thin system call wrappers: no allocation, no lock, no unwinding (it calls nothing that panics);
//!    - writes only `Order::error`, through a raw pointer, which the parent reads after the child has gone;
//!    - writes `errno`, which is this thread's own and which this thread does not rely on across the call;
//!    - runs no signal handler: all signals are blocked before the clone, and in the child every signal for which this
//!      process may have a handler gets its default action before the mask is lifted (without `CLONE_SIGHAND` the table
//!      is the child's own copy).
//! 2. `AsyncFd::register`. The registered descriptor is an `OwnedFd` that the `AsyncFd` owns and that nothing replaces
//!    or closes before the `AsyncFd` is dropped.

use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, pidfd_open, prlimit, waitpid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::cgi::Entries;
use crate::exit::Exit;

/// Room for the child's few calls before `execve`; only the touched pages of it exist.
const STACK_SIZE: usize = 32 * 1024;

/// How often an exit is looked for where the kernel has no process descriptors (before 5.3).
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Set once `clone` has been refused, as by an emulator: from then on the standard library starts the children.
static CLONE_REFUSED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static STACK: RefCell<Vec<u128>> = const { RefCell::new(Vec::new()) };
}

/// The child's ends of its pipes.
#[derive(Debug)]
pub(crate) struct ChildEnds {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    /// `None`: the same pipe as stdout.
    pub(crate) stderr: Option<OwnedFd>,
}

/// A started process that has not been reaped; leads a process group of its own.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    watch: Watch,
}

/// How its exit is noticed.
#[derive(Debug)]
enum Watch {
    Descriptor(Option<OwnedFd>),
    Registered(AsyncFd<OwnedFd>),
    Timer(std::pin::Pin<Box<tokio::time::Sleep>>),
    Untold,
}

impl Child {
    /// Its process id, which is its group's id too.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Takes its exit status if it has ended; call no more after that.
    pub(crate) fn try_reap(&self) -> Option<Exit> {
        match waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(None) | Err(rustix::io::Errno::INTR) => None,
            Ok(Some((_, status))) => {
                Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(status), _) => Exit::Status(status),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::Unknown,
                })
            }
            Err(_) => Some(Exit::Unknown),
        }
    }

    /// Waits for its end and takes the exit status.
    pub(crate) fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        loop {
            let news = self.poll_news(cx);
            ready!(news);
            if let Some(exit) = self.try_reap() {
                return Poll::Ready(exit);
            }
        }
    }

    /// Ready when it is worth looking for the exit.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.watch {
                Watch::Descriptor(pidfd) => self.watch = register(pidfd),
                Watch::Registered(watched) => match ready!(watched.poll_read_ready(cx)) {
                    Ok(mut guard) => {
                        guard.clear_ready();
                        return Poll::Ready(());
                    }
                    Err(_) => self.watch = Watch::Untold,
                },
                Watch::Timer(timer) => {
                    ready!(timer.as_mut().poll(cx));
                    self.watch = Watch::Untold;
                    return Poll::Ready(());
                }
                Watch::Untold => {
                    self.watch = Watch::Timer(Box::pin(tokio::time::sleep(POLL_INTERVAL)))
                }
            }
        }
    }
}

/// Registers a process descriptor; polling by timer is the way out if that fails.
fn register(pidfd: &mut Option<OwnedFd>) -> Watch {
    let Some(pidfd) = pidfd.take() else {
        return Watch::Untold;
    };
    // SAFETY: see 2. of the module's safety argument.
    match unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) } {
        Ok(watched) => Watch::Registered(watched),
        Err(_) => Watch::Untold,
    }
}

/// Starts `path` with these arguments and this environment, leading its own process group and marked by a limit of its
/// resident set.
pub(crate) fn spawn(
    path: &CStr,
    arguments: &[CString],
    environment: &Entries,
    resident_limit: u64,
    ends: &ChildEnds,
) -> io::Result<Child> {
    if CLONE_REFUSED.load(Ordering::Relaxed) {
        return spawn_by_library(path, arguments, environment, resident_limit, ends);
    }
    let argv: Vec<*const c_char> = arguments
        .iter()
        .map(|word| word.as_ptr())
        .chain([ptr::null()])
        .collect();
    let envp: Vec<*const c_char> = environment
        .pointers()
        .map(|entry| entry.as_ptr().cast())
        .chain([ptr::null()])
        .collect();
    let stdout = ends.stdout.as_raw_fd();
    let mut order = Order {
        path: path.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        stdin: ends.stdin.as_raw_fd(),
        stdout,
        stderr: ends.stderr.as_ref().map_or(stdout, AsRawFd::as_raw_fd),
        resident_limit,
        error: 0,
    };
    match clone(&mut order) {
        Ok((pid, pidfd)) => {
            let child = Child {
                pid,
                watch: Watch::Descriptor(pidfd),
            };
            // The child has passed `execve` or given up by now.
            // SAFETY: `order` lives in this frame; the read is volatile because the compiler saw no write.
            match unsafe { ptr::read_volatile(&raw const order.error) } {
                0 => Ok(child),
                error => {
                    // It is about to exit or has; a blocking wait is over at once.
                    let _ = waitpid(Some(child.pid), WaitOptions::empty());
                    Err(io::Error::from_raw_os_error(error))
                }
            }
        }
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::ENOSYS | libc::EPERM)
            ) =>
        {
            CLONE_REFUSED.store(true, Ordering::Relaxed);
            spawn_by_library(path, arguments, environment, resident_limit, ends)
        }
        Err(error) => Err(error),
    }
}

/// What the child needs; plain pointers, because the child must not run any of our code that might allocate or drop.
struct Order {
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    stdin: RawFd,
    stdout: RawFd,
    stderr: RawFd,
    resident_limit: u64,
    error: c_int,
}

fn clone(order: &mut Order) -> io::Result<(Pid, Option<OwnedFd>)> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: c_int = -1;
    let pid = STACK.with_borrow_mut(|stack| {
        // Elements of 16 bytes give the alignment that the calling convention asks for.
        stack.resize(STACK_SIZE / size_of::<u128>(), 0);
        let top = stack.as_mut_ptr_range().end;
        let mut old = MaybeUninit::<libc::sigset_t>::uninit();
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: see 1. of the module's safety argument; the two sets are written before they are read, and `top` is
        // the end of a buffer that outlives the call.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
            let pid = libc::clone(
                become_command,
                top.cast(),
                flags,
                (&raw mut *order).cast(),
                &raw mut pidfd,
            );
            let error = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), ptr::null_mut());
            if pid < 0 { Err(error) } else { Ok(pid) }
        }
    })?;
    // SAFETY: the kernel has just opened this descriptor for us. Kernels before 5.2 ignore the flag and leave -1.
    let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("clone gave no process id"))?;
    Ok((pid, pidfd))
}

/// The child between clone and exec: see the module's safety argument for what it may do.
extern "C" fn become_command(order: *mut c_void) -> c_int {
    let order: *mut Order = order.cast();
    // SAFETY: `order` is the parent's, which sleeps; every call below is a plain system call wrapper.
    unsafe {
        // SIGPIPE: the Rust runtime ignores it, and that would pass on through exec. The other two have our handlers.
        for signal in [libc::SIGPIPE, libc::SIGTERM, libc::SIGINT] {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::setpgid(0, 0);
        // If the watchdog is killed where it is not PID 1, its commands do not outlive it.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        mark((*order).resident_limit);
        let is_wired = libc::dup2((*order).stdin, 0) == 0
            && libc::dup2((*order).stdout, 1) == 1
            && libc::dup2((*order).stderr, 2) == 2;
        if is_wired {
            let mut none = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
            libc::execve((*order).path, (*order).argv, (*order).envp);
        }
        ptr::write_volatile(&raw mut (*order).error, *libc::__errno_location());
        libc::_exit(127)
    }
}

/// Sets the calling process's soft limit of the resident set and leaves the hard one open, so that a watchdog among the
/// command's processes can do the same. Where that is refused, the marker in the environment has to do.
fn mark(resident_limit: u64) {
    let limit = libc::rlimit {
        rlim_cur: resident_limit,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a plain system call wrapper that reads one structure.
    unsafe { libc::prlimit(0, libc::RLIMIT_RSS, &raw const limit, ptr::null_mut()) };
}

/// The slower start where our clone is refused.
fn spawn_by_library(
    path: &CStr,
    arguments: &[CString],
    environment: &Entries,
    resident_limit: u64,
    ends: &ChildEnds,
) -> io::Result<Child> {
    let word = |word: &CString| OsStr::from_bytes(word.as_bytes()).to_owned();
    let mut command = std::process::Command::new(OsStr::from_bytes(path.to_bytes()));
    command.env_clear().process_group(0);
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(word(name)).args(rest.iter().map(word));
    }
    for entry in environment.iter() {
        if let Some(at) = entry.iter().position(|byte| *byte == b'=') {
            command.env(
                OsStr::from_bytes(&entry[..at]),
                OsStr::from_bytes(&entry[at + 1..]),
            );
        }
    }
    let copy = |end: &OwnedFd| io::Result::Ok(Stdio::from(end.try_clone()?));
    command
        .stdin(copy(&ends.stdin)?)
        .stdout(copy(&ends.stdout)?)
        .stderr(copy(ends.stderr.as_ref().unwrap_or(&ends.stdout))?);
    let started = command.spawn()?;
    // Dropping the library's handle neither ends nor reaps the process: both stay ours.
    let pid = Pid::from_raw(started.id().cast_signed())
        .ok_or_else(|| io::Error::other("no process id"))?;
    // The library has no way to say this; what the command starts before it is set has only the marker.
    let limit = Rlimit {
        current: Some(resident_limit),
        maximum: None,
    };
    let _ = prlimit(Some(pid), Resource::Rss, limit);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
    Ok(Child {
        pid,
        watch: Watch::Descriptor(pidfd),
    })
}

/// Signals a whole process group; that it is gone already is no error.
pub(crate) fn signal_group(leader: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(leader, signal);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    type Start = fn(&CStr, &[CString], &Entries, u64, &ChildEnds) -> io::Result<Child>;

    /// Runs a shell script by one of the two ways; its exit and what it wrote.
    fn run(start: Start, script: &str) -> io::Result<(Exit, String)> {
        let (stdin, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (reader, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        drop(writer);
        let arguments = ["name", "-c", script].map(|word| CString::new(word).unwrap());
        let mut environment = Entries::default();
        environment.push(b"GREETING", &[b"hello"]);
        let ends = ChildEnds {
            stdin,
            stdout,
            stderr: None,
        };
        let child = start(c"/bin/sh", &arguments, &environment, 1 << 62, &ends)?;
        drop(ends);
        let output = io::read_to_string(std::fs::File::from(reader))?;
        loop {
            if let Some(exit) = child.try_reap() {
                return Ok((exit, output));
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn both_ways_start_a_command_with_its_arguments_environment_and_group() {
        let script = "echo $0 $GREETING; echo err >&2; read -r pid comm state ppid pgrp rest < /proc/$$/stat; \
                      test $pgrp = $$ && echo leads; kill -PIPE $$; exit 3";
        for start in [spawn as Start, spawn_by_library] {
            let (exit, output) = run(start, script).unwrap();
            assert_eq!(output, "name hello\nerr\nleads\n");
            assert_eq!(
                exit,
                Exit::Signal(libc::SIGPIPE),
                "SIGPIPE has its default action"
            );
        }
    }

    #[test]
    fn the_exit_status_is_told() {
        for start in [spawn as Start, spawn_by_library] {
            assert_eq!(run(start, "exit 3").unwrap().0, Exit::Status(3));
        }
    }

    #[test]
    fn the_resident_limit_is_set_and_can_be_raised_again() {
        for start in [spawn as Start, spawn_by_library] {
            // The library's start sets it a moment later.
            let script =
                "until test $(ulimit -m) != unlimited; do :; done; ulimit -m; ulimit -H -m";
            assert_eq!(
                run(start, script).unwrap().1,
                format!("{}\nunlimited\n", (1_u64 << 62) / 1024)
            );
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let by_clone: Start =
            |_, words, environment, mark, ends| spawn(c"/none", words, environment, mark, ends);
        let by_library: Start = |_, words, environment, mark, ends| {
            spawn_by_library(c"/none", words, environment, mark, ends)
        };
        for start in [by_clone, by_library] {
            assert_eq!(
                run(start, "").unwrap_err().raw_os_error(),
                Some(libc::ENOENT)
            );
        }
    }
}
