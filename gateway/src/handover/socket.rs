//! The Unix socket at which the next gateway asks: made beside its path, and put in place in one step.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::SockRef;

/// How long it waits for a successor before it looks whether it is still in place.
const LOOK: Duration = Duration::from_secs(1);

/// A socket for this user alone.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Where it is until it is put in place.
    beside: PathBuf,
    id: (u64, u64),
}

impl Socket {
    /// A socket that is not in place yet. Processes in different containers may have one pid and share the folder.
    pub(super) fn beside(path: &Path) -> io::Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{:08x}", fastrand::u32(..)));
        let beside = PathBuf::from(beside);
        let listener = UnixListener::bind(&beside)?;
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
        SockRef::from(&listener).set_read_timeout(Some(LOOK))?;
        let id = id(&beside)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            beside,
            id,
        })
    }

    /// Whether successors find this one.
    pub(super) fn is_in_place(&self) -> bool {
        id(&self.path).is_ok_and(|there| there == self.id)
    }

    /// Takes the place of the one that is there: there is no moment without.
    pub(super) fn put_in_place(&self) -> io::Result<()> {
        if self.is_in_place() {
            return Ok(());
        }
        std::fs::rename(&self.beside, &self.path)
    }

    /// The next successor, or `None` after a while.
    pub(super) fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone already if it was put in place.
        let _ = std::fs::remove_file(&self.beside);
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
