//! Tells the main thread that a child has died, and costs nothing while nobody waits for that.
//!
//! A handler of SIGCHLD would interrupt a worker and wake the main thread for every run. Blocked instead, the signal stays
//! pending, where the next ones are merged with it, until it is read from a descriptor.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The deaths of this process's children.
#[derive(Debug)]
pub(crate) struct Deaths(AsyncFd<OwnedFd>);

impl Deaths {
    /// To be called in the runtime that will wait, and before other threads are started: they must not take the signal.
    pub(crate) fn watch() -> io::Result<Self> {
        // SAFETY: see 2. of the module's safety argument.
        let watched = unsafe { AsyncFd::register_with_interest(hold_back()?, Interest::READABLE) }?;
        Ok(Self(watched))
    }

    /// Whether there was one since this was last asked.
    pub(crate) fn take(&self) -> bool {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        // There is at most one to be read, because SIGCHLD does not queue.
        rustix::io::read(self.0.get_ref(), &mut record).is_ok()
    }

    /// Ready when there may be one to be taken.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_read_ready(cx).map(|ready| {
            if let Ok(mut guard) = ready {
                guard.clear_ready();
            }
        })
    }
}

/// Blocks SIGCHLD for this thread, and for those that it starts from now on; the signal is to be read instead.
pub(super) fn hold_back() -> io::Result<OwnedFd> {
    let mut deaths = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: see 5. of the module's safety argument; the set is written before it is read.
    unsafe {
        libc::sigemptyset(deaths.as_mut_ptr());
        libc::sigaddset(deaths.as_mut_ptr(), libc::SIGCHLD);
        libc::pthread_sigmask(libc::SIG_BLOCK, deaths.as_ptr(), ptr::null_mut());
        match libc::signalfd(-1, deaths.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}
