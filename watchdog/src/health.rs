//! Whether the watchdog takes calls: the drain and the lock file.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

/// Whether the watchdog takes calls.
#[derive(Debug, Default)]
pub(crate) struct Health {
    is_draining: AtomicBool,
    /// Set while a lock file of ours is part of the health.
    lock_file: OnceLock<PathBuf>,
}

/// Why calls are not taken.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Unwell {
    /// SIGTERM has come.
    Draining,
    /// Somebody removed the lock file, which is a way to take a replica out.
    NoLockFile,
}

impl Health {
    /// Creates the lock file; from then on its presence counts.
    pub(crate) fn create_lock_file(&self, path: &Path) -> io::Result<()> {
        // What lies there may have been put there by anybody: a link would make us truncate another file, and the open of a
        // pipe would wait for its reader.
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .mode(0o660)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                // A link; a FIFO that has no reader, or a socket; a directory.
                Some(libc::ELOOP | libc::ENXIO | libc::EISDIR) => not_a_file(),
                _ => error,
            })?;
        if !file.metadata()?.is_file() {
            return Err(not_a_file());
        }
        file.set_len(0)?;
        let _ = self.lock_file.set(path.to_owned());
        Ok(())
    }

    /// Removes the lock file, if there is one of ours.
    pub(crate) fn remove_lock_file(&self) {
        if let Some(path) = self.lock_file.get() {
            // Already gone is as good.
            let _ = std::fs::remove_file(path);
        }
    }

    /// From now on neither healthy nor ready.
    pub(crate) fn start_draining(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        self.remove_lock_file();
    }

    /// Whether SIGTERM has come.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// Healthy, or why not.
    pub(crate) fn check(&self) -> Result<(), Unwell> {
        if self.is_draining() {
            return Err(Unwell::Draining);
        }
        match self.lock_file.get() {
            Some(path) if !path.symlink_metadata().is_ok_and(|found| found.is_file()) => {
                Err(Unwell::NoLockFile)
            }
            _ => Ok(()),
        }
    }
}

fn not_a_file() -> io::Error {
    io::Error::other("it is not a regular file; remove it, or set skep_lock_dir")
}
