//! The body of a static answer: a part of a file, read as the client takes it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use hyper::body::Frame;

use crate::watchdog::Counted;

/// One read: what the page cache gives without making the other calls of this thread wait for long.
const CHUNK: u64 = 64 * 1024;

/// What is left to be sent.
#[derive(Debug)]
pub(crate) struct Excerpt {
    file: File,
    left: u64,
    _slot: Counted,
}

impl Excerpt {
    /// So many bytes from there.
    pub(crate) fn new(mut file: File, start: u64, count: u64, slot: Counted) -> io::Result<Self> {
        if start > 0 {
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(Self {
            file,
            left: count,
            _slot: slot,
        })
    }

    /// How much that is.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// The next piece; a file that has become shorter breaks the body off.
    pub(crate) fn next(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        if self.left == 0 {
            return None;
        }
        let mut bytes = Vec::new();
        let some = self.left.min(CHUNK);
        bytes.reserve_exact(usize::try_from(some).unwrap_or_default());
        let frame = match (&self.file).take(some).read_to_end(&mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.left = self.left.saturating_sub(count as u64);
                Ok(Frame::data(Bytes::from(bytes)))
            }
            Err(error) => Err(error),
        };
        Some(frame)
    }
}
