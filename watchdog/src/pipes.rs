//! The watchdog's ends of a command's pipes: non-blocking, and registered with the runtime only once they must wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tokio::net::unix::pipe::{Receiver, Sender};

/// The size of a pipe whose body has proved large; more brings nothing.
const LARGE_PIPE: usize = 256 * 1024;

/// One small read. It goes over the stack, so that memory is taken only for what has come.
const SMALL_READ: usize = 4 * 1024;

/// The end through which a command is fed.
#[derive(Debug)]
pub(crate) enum Writer {
    /// Never had to wait.
    Fresh(OwnedFd),
    /// Waits for room.
    Registered(Sender),
    /// Given up.
    Closed,
}

/// The end from which a command's output comes.
#[derive(Debug)]
pub(crate) struct Reader {
    receiver: Receiver,
    is_large: bool,
}

/// What one read found.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// This many bytes.
    Bytes(usize),
    /// The end: no process holds the other side any more.
    End,
}

/// A pipe into a command: our end, and its.
pub(crate) fn into_command() -> io::Result<(Writer, OwnedFd)> {
    let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((Writer::Fresh(ours), theirs))
}

/// A pipe out of a command: our end, which a `Reader` takes on the thread that will read, and its.
pub(crate) fn out_of_command() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

impl Writer {
    /// Writes what fits; an error means that the command does not read any more.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self {
                Self::Fresh(pipe) => match rustix::io::write(&*pipe, bytes) {
                    Err(Errno::AGAIN) => self.register()?,
                    Err(Errno::INTR) => {}
                    done => return Poll::Ready(Ok(done?)),
                },
                Self::Registered(pipe) => {
                    ready!(pipe.poll_write_ready(cx))?;
                    match pipe.try_write(bytes) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        done => return Poll::Ready(done),
                    }
                }
                Self::Closed => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    /// Closes the pipe, which the command sees as the end of its input.
    pub(crate) fn close(&mut self) {
        *self = Self::Closed;
    }

    /// A full pipe means a large body: a larger pipe then needs fewer turns. The limit of a user's pipes may forbid it.
    fn register(&mut self) -> io::Result<()> {
        if let Self::Fresh(pipe) = std::mem::replace(self, Self::Closed) {
            let _ = fcntl_setpipe_size(&pipe, LARGE_PIPE);
            *self = Self::Registered(Sender::from_owned_fd_unchecked(pipe)?);
        }
        Ok(())
    }
}

impl Reader {
    /// Registers our end of a pipe with this thread's runtime.
    pub(crate) fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            receiver: Receiver::from_owned_fd_unchecked(pipe)?,
            is_large: false,
        })
    }

    /// Appends what is there to `buffer`, as far as it fits into a small read.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut impl BufMut,
    ) -> Poll<io::Result<Found>> {
        self.poll_with(cx, |this| {
            this.receiver
                .try_io(|| Ok(read_small(this.fd(), buffer, SMALL_READ)?))
        })
    }

    /// Appends what is there to `buffer`, `some` bytes at most, for which there will be room.
    pub(crate) fn poll_read_much(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        some: usize,
    ) -> Poll<io::Result<Found>> {
        self.poll_with(cx, |this| {
            buffer.reserve(some);
            let count = this
                .receiver
                .try_read_buf(&mut (&mut *buffer).limit(some))?;
            this.enlarge_if(count >= 32 * 1024);
            Ok(count)
        })
    }

    /// Bytes that lie in the pipe at this moment.
    pub(crate) fn waiting(&self) -> usize {
        rustix::io::ioctl_fionread(self.fd())
            .ok()
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(0)
    }

    /// Takes `some` bytes at most that lie in the pipe, without waiting; says how many there were.
    pub(crate) fn take(&self, buffer: &mut impl BufMut, some: usize) -> usize {
        take(self.fd(), buffer, some)
    }

    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&mut Self) -> io::Result<usize>,
    ) -> Poll<io::Result<Found>> {
        loop {
            ready!(self.receiver.poll_read_ready(cx))?;
            match read(self) {
                Ok(0) => return Poll::Ready(Ok(Found::End)),
                Ok(count) => return Poll::Ready(Ok(Found::Bytes(count))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn enlarge_if(&mut self, is_large: bool) {
        if is_large && !self.is_large {
            self.is_large = true;
            let _ = fcntl_setpipe_size(self.fd(), LARGE_PIPE);
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

/// Takes `some` bytes at most that lie in a pipe, without waiting; says how many there were.
pub(crate) fn take(pipe: impl AsFd, buffer: &mut impl BufMut, some: usize) -> usize {
    let mut taken = 0;
    while taken < some {
        match read_small(pipe.as_fd(), buffer, some - taken) {
            Ok(0) | Err(_) => break,
            Ok(count) => taken += count,
        }
    }
    taken
}

/// Appends `most` bytes at most to `buffer`, and not more than a small read's.
fn read_small(pipe: BorrowedFd<'_>, buffer: &mut impl BufMut, most: usize) -> Result<usize, Errno> {
    let mut piece = [0; SMALL_READ];
    let piece = &mut piece[..most.min(SMALL_READ)];
    loop {
        match rustix::io::read(pipe, &mut *piece) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(count) => {
                buffer.put_slice(&piece[..count]);
                return Ok(count);
            }
        }
    }
}
