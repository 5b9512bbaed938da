//! Files whose paths come from outside, read whole: regular ones only, none that is too long, and without waiting. A FIFO without a
//! writer would block its reader for ever, and a device may have no end.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The flag with which opening a FIFO does not wait for its other end; regular files do not care.
pub const NOT_WAITING: i32 = OFlags::NONBLOCK.bits().cast_signed();

/// Reads a regular file of at most this many bytes. Blocks as long as its file system does.
///
/// # Errors
/// When it cannot be read, is no regular file (`InvalidInput`), or is longer (`FileTooLarge`).
pub fn read(path: &Path, most: u64) -> io::Result<(Vec<u8>, Metadata)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(NOT_WAITING)
        .open(path)?;
    let metadata = file.metadata()?;
    check(&metadata)?;
    let mut bytes = Vec::new();
    if file.take(most + 1).read_to_end(&mut bytes)? as u64 > most {
        let why = format!("it is longer than {most} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, why));
    }
    Ok((bytes, metadata))
}

/// The same as text.
///
/// # Errors
/// As [`read`], and when it is not UTF-8 (`InvalidData`).
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let (bytes, _) = read(path, most)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Refuses what is not a regular file.
///
/// # Errors
/// `InvalidInput`.
pub fn check(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::InvalidInput,
        "it is not a regular file",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_length_are_read() {
        let folder = std::env::temp_dir().join(format!("skep-regular-{:x}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        let (file, fifo) = (folder.join("file"), folder.join("fifo"));
        std::fs::write(&file, "12345").unwrap();
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        assert_eq!(read_text(&file, 5).unwrap(), "12345");
        for (path, most, kind) in [
            (&file, 4, ErrorKind::FileTooLarge),
            (&fifo, 4, ErrorKind::InvalidInput),
            (&"/dev/zero".into(), 4, ErrorKind::InvalidInput),
            (&folder, 4, ErrorKind::InvalidInput),
            (&folder.join("none"), 4, ErrorKind::NotFound),
        ] {
            assert_eq!(read(path, most).unwrap_err().kind(), kind, "{path:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
