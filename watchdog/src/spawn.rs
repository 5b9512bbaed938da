//! Starts a command and knows its process: our own `clone(2)` start, and the descriptor that tells the exit.
//!
//! # Why not the standard library
//!
//! glibc's `posix_spawn`, which `std::process` uses, maps and unmaps a stack for each child, which serialises threads
//! that start processes side by side. Ours keeps one stack per thread.
//!
//! # Safety argument
//!
//! This is the only module of the workspace with `unsafe` code. It does six things that the compiler cannot check.
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
//! 3. `pre_exec`, where our clone is refused. The closure runs in a forked child and calls only what the child of 1. calls.
//! 4. `wait4`, which writes to two variables of the caller's frame, and is here because only it tells the processor time.
//! 5. The calls of [`descriptors`], which only set a flag of descriptors; those of ours have it already.
//! 6. The signal mask of [`deaths`]: two calls that read a set of the caller's frame, and a descriptor that the kernel
//!    has just opened for us. Both ways to start a command lift the mask in the child.

pub(crate) mod deaths;
pub(crate) mod descriptors;

use std::cell::RefCell;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, pidfd_open, waitid, waitpid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::exit::Exit;
use crate::quota::{Bounds, Quota};
use crate::strings::Strings;

/// The descriptor on which a command finds the note on its request.
const NOTE: RawFd = 3;

/// Room for the child's few calls before `execve`.
const STACK_SIZE: usize = 16 * 1024;

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
    /// Becomes descriptor 3.
    pub(crate) note: Option<OwnedFd>,
}

/// What is to be started.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) path: &'a CStr,
    /// Its name first.
    pub(crate) arguments: &'a Strings,
    pub(crate) environment: &'a Strings,
    pub(crate) quota: Quota,
    /// The limit of its resident set, which marks it.
    pub(crate) resident_limit: u64,
}

/// A started process that has not been reaped; leads a process group of its own.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    watch: Watch,
    /// Seconds of processor time that it was given.
    cpu_limit: Option<u64>,
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
    fn new(pid: Pid, pidfd: Option<OwnedFd>, program: &Program<'_>) -> Self {
        Self {
            pid,
            watch: Watch::Descriptor(pidfd),
            cpu_limit: program.quota.cpu_seconds.map(|bounds| bounds.soft),
        }
    }

    /// Its process id, which is its group's id too.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Takes its exit status if it has ended; call no more after that.
    pub(crate) fn try_reap(&self) -> Option<Exit> {
        match wait(self.pid) {
            Ok(None) => None,
            Ok(Some((status, used))) => Some(self.judge(status, used)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(_) => Some(Exit::Unknown),
        }
    }

    /// A process of the run is told by SIGXCPU that its time is up, which a shell above it reports as a status. Whoever
    /// does not heed the signal is killed, as others may be, too: then the time that was used decides.
    fn judge(&self, status: ExitStatus, used: Duration) -> Exit {
        let (exit, signal) = match (status.code(), status.signal()) {
            (Some(code), _) => (Exit::Status(code), code - 128),
            (None, Some(signal)) => (Exit::Signal(signal), signal),
            (None, None) => (Exit::Unknown, 0),
        };
        match (self.cpu_limit, signal) {
            (Some(seconds), libc::SIGXCPU) => Exit::CpuLimit { seconds },
            (Some(seconds), libc::SIGKILL) if used.as_secs() >= seconds => {
                Exit::CpuLimit { seconds }
            }
            _ => exit,
        }
    }

    /// Whether it has ended; does not take the exit status.
    pub(crate) fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.pid), look), Ok(Some(_)) | Err(_))
    }

    /// A copy of the descriptor that becomes readable at its end, if the kernel has such and it is not yet registered.
    pub(crate) fn descriptor(&self) -> Option<OwnedFd> {
        match &self.watch {
            Watch::Descriptor(Some(pidfd)) => pidfd.try_clone().ok(),
            _ => None,
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

/// Takes a process's exit status, if it has ended, and the processor time of it and of those it waited for.
fn wait(pid: Pid) -> io::Result<Option<(ExitStatus, Duration)>> {
    let mut status: c_int = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let number = pid.as_raw_nonzero().get();
    // SAFETY: see 4. of the module's safety argument; all bytes zero are a valid `rusage`.
    let (found, usage) = unsafe {
        let found = libc::wait4(number, &raw mut status, libc::WNOHANG, usage.as_mut_ptr());
        (found, usage.assume_init())
    };
    match found {
        0 => Ok(None),
        1.. => {
            let time = |part: libc::timeval| {
                let seconds = Duration::from_secs(part.tv_sec.cast_unsigned());
                seconds + Duration::from_micros(part.tv_usec.cast_unsigned())
            };
            let used = time(usage.ru_utime) + time(usage.ru_stime);
            Ok(Some((ExitStatus::from_raw(status), used)))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Starts a program, leading its own process group and marked by a limit of its resident set.
pub(crate) fn spawn(program: &Program<'_>, ends: &ChildEnds) -> io::Result<Child> {
    if CLONE_REFUSED.load(Ordering::Relaxed) {
        return spawn_by_library(program, ends);
    }
    let pointers = |strings: &Strings| -> Vec<*const c_char> {
        let each = strings.pointers().map(|text| text.as_ptr().cast());
        each.chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(program.arguments), pointers(program.environment));
    let stdout = ends.stdout.as_raw_fd();
    let mut order = Order {
        path: program.path.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        stdin: ends.stdin.as_raw_fd(),
        stdout,
        stderr: ends.stderr.as_ref().map_or(stdout, AsRawFd::as_raw_fd),
        note: ends.note.as_ref().map(AsRawFd::as_raw_fd),
        quota: program.quota,
        resident_limit: program.resident_limit,
        error: 0,
    };
    match clone(&mut order) {
        Ok((pid, pidfd)) => {
            let child = Child::new(pid, pidfd, program);
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
            spawn_by_library(program, ends)
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
    note: Option<RawFd>,
    quota: Quota,
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
            && libc::dup2((*order).stderr, 2) == 2
            && pass_note((*order).note)
            && confine((*order).quota);
        if is_wired {
            lift_mask();
            libc::execve((*order).path, (*order).argv, (*order).envp);
        }
        ptr::write_volatile(&raw mut (*order).error, *libc::__errno_location());
        libc::_exit(127)
    }
}

/// Makes a descriptor the calling process's number 3, which stays open through exec.
///
/// # Safety
///
/// Number 3 must not be in use by anything that the calling process still needs.
unsafe fn pass_note(note: Option<RawFd>) -> bool {
    match note {
        None => true,
        // SAFETY: plain system call wrappers.
        Some(NOTE) => unsafe { libc::fcntl(NOTE, libc::F_SETFD, 0) == 0 },
        Some(note) => unsafe { libc::dup2(note, NOTE) == NOTE },
    }
}

/// Limits the calling process.
fn confine(quota: Quota) -> bool {
    let limit = |bounds: Bounds| libc::rlimit {
        rlim_cur: bounds.soft,
        rlim_max: bounds.hard,
    };
    // SAFETY: a plain system call wrapper that reads one structure; `setrlimit` is more than that in some C libraries.
    unsafe {
        quota.cpu_seconds.is_none_or(|bounds| {
            libc::prlimit(0, libc::RLIMIT_CPU, &limit(bounds), ptr::null_mut()) == 0
        }) && quota.open_files.is_none_or(|bounds| {
            libc::prlimit(0, libc::RLIMIT_NOFILE, &limit(bounds), ptr::null_mut()) == 0
        })
    }
}

/// Sets the calling process's limit of the resident set, the hard one too: without CAP_SYS_RESOURCE it can only be lowered. Where that is refused, the marker in the environment has to do.
fn mark(resident_limit: u64) {
    let limit = libc::rlimit {
        rlim_cur: resident_limit,
        rlim_max: resident_limit,
    };
    // SAFETY: a plain system call wrapper that reads one structure.
    unsafe { libc::prlimit(0, libc::RLIMIT_RSS, &raw const limit, ptr::null_mut()) };
}

/// Blocks no signal in the calling process, whatever the watchdog does itself.
fn lift_mask() {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: plain system call wrappers; the set is written before it is read.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// The slower start where our clone is refused.
fn spawn_by_library(program: &Program<'_>, ends: &ChildEnds) -> io::Result<Child> {
    let mut command = Command::new(OsStr::from_bytes(program.path.to_bytes()));
    command.env_clear().process_group(0);
    let mut words = program.arguments.iter().map(OsStr::from_bytes);
    if let Some(name) = words.next() {
        command.arg0(name).args(words);
    }
    for entry in program.environment.iter() {
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
    let (note, quota) = (ends.note.as_ref().map(AsRawFd::as_raw_fd), program.quota);
    let resident_limit = program.resident_limit;
    // SAFETY: see 3. of the module's safety argument. The library's own descriptor is not number 3, which one of the
    // watchdog's has been since its start.
    unsafe {
        command.pre_exec(move || {
            mark(resident_limit);
            if pass_note(note) && confine(quota) {
                lift_mask();
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
    let started = command.spawn()?;
    // Dropping the library's handle neither ends nor reaps the process: both stay ours.
    let pid = Pid::from_raw(started.id().cast_signed())
        .ok_or_else(|| io::Error::other("no process id"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
    Ok(Child::new(pid, pidfd, program))
}

/// Signals a whole process group; that it is gone already is no error.
pub(crate) fn signal_group(leader: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(leader, signal);
}

#[cfg(test)]
mod tests;
