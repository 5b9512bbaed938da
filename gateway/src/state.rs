//! What outlives the process: small documents in one folder, each replaced as a whole or not at all.
//!
//! Whoever changes a document holds the folder's lock, reads the file, and writes it anew: gateways that share a folder, as two do
//! while one hands over to the next, lose nothing of each other's. Without a folder all stays in memory; with one, a change that
//! cannot be written is not made, so that nothing that was undone comes back at the next start.
//! All of it blocks: to be called from where that is no harm.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::regular_file;

/// A longer file is none of ours.
const MAX_FILE: u64 = 4 << 20;
/// Whoever holds the lock reads and writes one small file; longer than this, it hangs.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const LOCK_FILE: &str = "lock";

/// The folder, if there is one.
#[derive(Clone, Debug, Default)]
pub struct State {
    folder: Option<Arc<Path>>,
    is_writable: bool,
}

impl State {
    /// Opens a folder, and makes it if it is not there. What cannot be written to is said once, in the log.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let is_writable = match prepare(folder) {
            Ok(()) => {
                tracing::info!("state is kept in {}", folder.display());
                true
            }
            Err(error) => {
                tracing::warn!(
                    "{} cannot be written to ({error}): API keys cannot be made or revoked, and counts of calls end with this process; mount a folder there, choose one with data_dir, or say data_dir=off to keep them in memory",
                    folder.display()
                );
                false
            }
        };
        Self {
            folder: Some(folder.into()),
            is_writable,
        }
    }

    /// Whether there is a folder to look at.
    #[must_use]
    pub fn has_folder(&self) -> bool {
        self.folder.is_some()
    }

    /// A document of this name, as it was left. One that cannot be read is said in the log: a corrupt one is set aside, one of
    /// a later release stays where it is.
    #[must_use]
    pub fn document<T>(&self, name: &str, version: u32) -> Document<T>
    where
        T: Clone + Default + DeserializeOwned,
    {
        let place = self.folder.as_ref().map(|folder| Place {
            file: folder.join(format!("{name}.json")),
            fresh: folder.join(format!(".{name}.json.new")),
            lock: folder.join(LOCK_FILE),
            folder: folder.clone(),
            version,
        });
        let mut is_kept = self.is_writable;
        let known = place.as_ref().map(|place| {
            place.read().unwrap_or_else(|unreadable| {
                is_kept &= place.give_up::<T>(&unreadable);
                Known::default()
            })
        });
        Document {
            place,
            is_kept,
            known: Mutex::new(known.unwrap_or_default()),
        }
    }
}

/// Makes the folder, for this user alone, and tries whether it can be written to.
fn prepare(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    if std::fs::metadata(folder)?.mode() & 0o022 != 0 {
        tracing::warn!(
            "{} can be written to by other users, who could give themselves API keys: chmod 700 it",
            folder.display()
        );
    }
    open_lock(&folder.join(LOCK_FILE)).map(drop)
}

fn open_lock(path: &Path) -> io::Result<File> {
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(regular_file::NOT_WAITING)
        .open(path)?;
    regular_file::check(&lock.metadata()?)?;
    Ok(lock)
}

/// One document: a value that outlives the process, as far as it can.
#[derive(Debug)]
pub struct Document<T> {
    place: Option<Place>,
    /// Whether changes reach the file.
    is_kept: bool,
    known: Mutex<Known<T>>,
}

/// What was read or written last.
#[derive(Debug, Default)]
struct Known<T> {
    value: T,
    stamp: Option<Stamp>,
}

/// Tells one file from the next of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    written: (i64, i64),
    length: u64,
}

impl Stamp {
    fn of(file: &std::fs::Metadata) -> Self {
        Self {
            inode: file.ino(),
            written: (file.mtime(), file.mtime_nsec()),
            length: file.len(),
        }
    }
}

impl<T> Document<T>
where
    T: Clone + Default + PartialEq + Serialize + DeserializeOwned,
{
    /// Whether the file could be written when it was opened: what is saved now and then need not be tried if not.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Whether there is a file at all; a change that is made then outlives the process.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.place.is_some()
    }

    /// The value as it was last seen.
    #[must_use]
    pub fn value(&self) -> T {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.value.clone()
    }

    /// Changes the value, beginning with what the file says now. Returns what became of it, once that is kept.
    ///
    /// # Errors
    /// When the file could not be read or written: then nothing has changed, in memory neither.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> io::Result<(T, R)> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = &self.place else {
            let result = change(&mut known.value);
            return Ok((known.value.clone(), result));
        };
        let _locked = place.locked()?;
        if place.stamp()? != known.stamp {
            *known = place.read().map_err(io::Error::from)?;
        }
        let mut value = known.value.clone();
        let result = change(&mut value);
        if value != known.value {
            known.stamp = Some(place.write(&value)?);
            known.value = value;
        }
        Ok((known.value.clone(), result))
    }

    /// The value, if somebody else has changed the file since it was last seen.
    pub fn refreshed(&self) -> Option<T> {
        let place = self.place.as_ref()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = place.stamp().unwrap_or(known.stamp);
        if stamp == known.stamp {
            return None;
        }
        match place.read() {
            Ok(fresh) => {
                *known = fresh;
                Some(known.value.clone())
            }
            Err(unreadable) => {
                // Said once: the next look finds the stamp of this one.
                known.stamp = stamp;
                tracing::error!(
                    "{}: {unreadable}; what was known before goes on",
                    place.file.display()
                );
                None
            }
        }
    }
}

/// Where a document is.
#[derive(Debug)]
struct Place {
    folder: Arc<Path>,
    file: PathBuf,
    /// What is to become the file.
    fresh: PathBuf,
    lock: PathBuf,
    version: u32,
}

/// Why a file was not read.
#[derive(Debug)]
enum Unreadable {
    /// It is not what we write.
    Corrupt(String),
    /// A later release wrote it.
    Later(u64),
    /// The system did not give it.
    Io(io::Error),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Corrupt(why) => write!(f, "cannot be understood: {why}"),
            Self::Later(version) => write!(
                f,
                "is of version {version}, which only a later release of skep understands"
            ),
            Self::Io(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

impl From<Unreadable> for io::Error {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Io(error) => error,
            other => Self::new(ErrorKind::InvalidData, format!("the file {other}")),
        }
    }
}

impl Place {
    /// Who holds it is alone, among all processes, until it is dropped.
    fn locked(&self) -> io::Result<File> {
        let lock = open_lock(&self.lock)?;
        let began = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if began.elapsed() > LOCK_PATIENCE => {
                    let told = format!("another process holds {}", self.lock.display());
                    return Err(io::Error::new(ErrorKind::TimedOut, told));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            }
        }
    }

    fn stamp(&self) -> io::Result<Option<Stamp>> {
        match std::fs::metadata(&self.file) {
            Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read<T: Default + DeserializeOwned>(&self) -> Result<Known<T>, Unreadable> {
        let (bytes, metadata) = match regular_file::read(&self.file, MAX_FILE) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Known::default()),
            Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                return Err(Unreadable::Corrupt(error.to_string()));
            }
            Err(error) => return Err(Unreadable::Io(error)),
        };
        Ok(Known {
            value: parse(&bytes, self.version)?,
            stamp: Some(Stamp::of(&metadata)),
        })
    }

    /// Writes another file and puts it in the place of this one, so that whoever looks sees the old one or the new one, whole.
    fn write(&self, value: &impl Serialize) -> io::Result<Stamp> {
        let versioned = Versioned {
            version: self.version,
            value,
        };
        let bytes = serde_json::to_vec(&versioned)?;
        if bytes.len() as u64 > MAX_FILE {
            let told = format!("it would have more than {MAX_FILE} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, told));
        }
        // What a process left that ended here.
        match std::fs::remove_file(&self.fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        let stamp = Stamp::of(&file.metadata()?);
        // Opened first: what fails must fail before the new file has its name.
        let folder = File::open(&self.folder)?;
        std::fs::rename(&self.fresh, &self.file)?;
        // The name is durable when the folder is.
        folder.sync_all()?;
        Ok(stamp)
    }

    /// Says why a file is not used, and takes it out of the way if it never will be. Returns whether another may take its place.
    fn give_up<T: Default + DeserializeOwned>(&self, unreadable: &Unreadable) -> bool {
        let file = self.file.display();
        if let Unreadable::Corrupt(why) = unreadable {
            match self.set_aside::<T>() {
                Ok(aside) => {
                    tracing::error!(
                        "{file} cannot be understood ({why}): it is set aside as {} and a new one begins empty",
                        aside.display()
                    );
                    return true;
                }
                Err(error) => tracing::error!("{file} could not be set aside: {error}"),
            }
        }
        tracing::error!("{file} {unreadable}: it stays as it is, and nothing in it can be changed");
        false
    }

    fn set_aside<T: Default + DeserializeOwned>(&self) -> io::Result<PathBuf> {
        let _locked = self.locked()?;
        // Somebody else may have been faster.
        match self.read::<T>() {
            Err(Unreadable::Corrupt(_)) => {}
            _ => return Err(io::Error::other("it has changed meanwhile: start again")),
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut aside = self.file.clone().into_os_string();
        aside.push(format!(".aside-{}", now.as_millis()));
        std::fs::rename(&self.file, &aside)?;
        Ok(aside.into())
    }
}

/// A value as it stands in its file.
#[derive(Serialize)]
struct Versioned<'a, T> {
    version: u32,
    #[serde(flatten)]
    value: &'a T,
}

fn parse<T: DeserializeOwned>(bytes: &[u8], version: u32) -> Result<T, Unreadable> {
    let corrupt = |error: serde_json::Error| Unreadable::Corrupt(error.to_string());
    let value: Value = serde_json::from_slice(bytes).map_err(corrupt)?;
    match value["version"].as_u64() {
        Some(found) if found > u64::from(version) => Err(Unreadable::Later(found)),
        Some(found) if found == u64::from(version) => {
            serde_json::from_value(value).map_err(corrupt)
        }
        _ => Err(Unreadable::Corrupt("it has no version".to_owned())),
    }
}

#[cfg(test)]
mod tests;
