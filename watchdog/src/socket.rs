//! A TCP stream as hyper wants it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::ReadBufCursor;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::activity::Activity;
use crate::intake::Intake;

/// The most that one read from a socket takes; less than 64 KiB, because hyper doubles a buffer that a read has filled.
pub(crate) const READ_SIZE: usize = 60 * 1024;

/// One read of what comes while a call goes on.
const HELD_READ: usize = 8 * 1024;

/// One side's connection.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    peer: Peer,
    /// How long the client may leave an answer lying.
    stall_limit: Option<Duration>,
    stall: Option<Pin<Box<Sleep>>>,
}

/// Who is at the other end.
#[derive(Debug)]
enum Peer {
    Client {
        /// Is told of bytes.
        activity: Rc<Activity>,
        intake: Intake,
    },
    Function {
        wire: Rc<Wire>,
        /// The beginning of a request line that is still to be written.
        unsent: Vec<u8>,
    },
}

/// What a call knows of the connection to the function, beside what hyper says.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// Whether something has come since the last request began.
    has_answered: Cell<bool>,
    /// The target of the next request, if it is to stand there in other bytes than hyper writes.
    target: RefCell<Option<Bytes>>,
}

impl Wire {
    /// A request is about to be sent.
    pub(crate) fn begin(&self, target: Option<Bytes>) {
        self.has_answered.set(false);
        self.target.replace(target);
    }

    /// Whether a byte of the answer has come.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered.get()
    }
}

impl Socket {
    /// A connection that a client has opened.
    pub(crate) fn of_client(
        stream: TcpStream,
        activity: Rc<Activity>,
        stall_limit: Option<Duration>,
    ) -> Self {
        Self {
            stream,
            peer: Peer::Client {
                activity,
                intake: Intake::new(),
            },
            stall_limit,
            stall: None,
        }
    }

    /// A connection to the function's own server.
    pub(crate) fn to_function(stream: TcpStream, wire: Rc<Wire>) -> Self {
        Self {
            stream,
            peer: Peer::Function {
                wire,
                unsent: Vec::new(),
            },
            stall_limit: None,
            stall: None,
        }
    }

    /// The bare stream, and what was read from it but not handed over.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        let rest = match self.peer {
            Peer::Client { intake, .. } => intake.into_rest(),
            Peer::Function { .. } => Vec::new(),
        };
        (self.stream, rest)
    }

    /// Passes a write's outcome on, and gives up on a client that takes nothing for too long.
    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if outcome.is_ready() {
            self.stall = None;
            return outcome;
        }
        if let Some(limit) = self.stall_limit {
            let timer = self
                .stall
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

thread_local! {
    /// hyper's buffer may be uninitialised memory, which safe code cannot read into: one copy more, in cached memory.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Reads up to `most` bytes and shows them to `taken`; how many there were.
fn read<T>(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    most: usize,
    taken: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    let mut scratch = SCRATCH.take();
    // hyper asks for more only on connections that bring large bodies.
    if scratch.len() < most {
        scratch.resize(most, 0);
    }
    let mut buffer = ReadBuf::new(&mut scratch[..most]);
    let outcome = Pin::new(stream).poll_read(cx, &mut buffer);
    let outcome = outcome.map_ok(|()| taken(buffer.filled()));
    SCRATCH.set(scratch);
    outcome
}

/// Waits until the other side has closed, whatever lies unread before that.
fn poll_hang_up(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let mut socket = [PollFd::new(stream, PollFlags::RDHUP)];
        let now = Timespec::default();
        if poll(&mut socket, Some(&now))? > 0 {
            return Poll::Ready(Ok(()));
        }
        // What is readable stays there: only the next event counts.
        let would_block = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = stream.try_io(Interest::READABLE, would_block);
    }
}

/// Reads what a client sends; hyper gets one request at a time.
fn poll_client(
    stream: &mut TcpStream,
    activity: &Activity,
    intake: &mut Intake,
    cx: &mut Context<'_>,
    out: &mut ReadBufCursor<'_>,
) -> Poll<io::Result<()>> {
    let room = out.remaining().min(READ_SIZE);
    loop {
        if intake.withholds(activity) {
            if intake.held() > 0 {
                activity.wake_for_next(cx.waker());
            }
            if intake.held() >= READ_SIZE {
                return poll_hang_up(stream, cx);
            }
            let hold = |bytes: &[u8]| {
                intake.hold(bytes);
                bytes.len()
            };
            // The next request of a client that has gone needs no answer.
            if ready!(read(stream, cx, HELD_READ, hold))? == 0 {
                return Poll::Ready(Ok(()));
            }
            continue;
        }
        if intake.held() > 0 {
            activity.bytes_have_come();
        }
        if intake.pull(room, activity, |bytes| out.put_slice(bytes))? {
            return Poll::Ready(Ok(()));
        }
        let take = |bytes: &[u8]| {
            if bytes.is_empty() {
                return Ok(true);
            }
            activity.bytes_have_come();
            intake.push(bytes, room, activity, |bytes| out.put_slice(bytes))
        };
        if ready!(read(stream, cx, room, take))?? {
            return Poll::Ready(Ok(()));
        }
    }
}

impl hyper::rt::Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, peer, .. } = &mut *self;
        match peer {
            Peer::Client { activity, intake } => {
                poll_client(stream, activity, intake, cx, &mut out)
            }
            Peer::Function { wire, .. } => {
                let room = out.remaining().min(READ_SIZE);
                let take = |bytes: &[u8]| {
                    let is_first = !bytes.is_empty() && !wire.has_answered.replace(true);
                    if is_first && matches!(bytes[0], b'\r' | b'\n') {
                        let text = "the answer begins with an empty line";
                        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                    }
                    out.put_slice(bytes);
                    Ok(())
                };
                Poll::Ready(ready!(read(stream, cx, room, take))?)
            }
        }
    }
}

impl Socket {
    /// Puts the client's own bytes in the place of the target that hyper has written; how much of `bytes` that was.
    fn replace_target(&mut self, bytes: &[u8]) -> Option<usize> {
        let Peer::Function { wire, unsent } = &mut self.peer else {
            return None;
        };
        let target = wire.target.take()?;
        let mut blanks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b' ');
        let (first, second) = (blanks.next()?.0, blanks.next()?.0);
        unsent.extend_from_slice(&bytes[..=first]);
        unsent.extend_from_slice(&target);
        Some(second)
    }

    /// Writes what is left of a request line.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Peer::Function { unsent, .. } = &mut self.peer {
            while !unsent.is_empty() {
                let count = ready!(Pin::new(&mut self.stream).poll_write(cx, unsent))?;
                unsent.drain(..count);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        if let Some(count) = self.replace_target(bytes) {
            return Poll::Ready(Ok(count));
        }
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        let first = parts.iter().find(|part| !part.is_empty());
        if let Some(count) = first.and_then(|part| self.replace_target(part)) {
            return Poll::Ready(Ok(count));
        }
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
