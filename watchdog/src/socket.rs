//! A TCP stream as hyper wants it.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::activity::Activity;

/// The most that one read from a socket takes; less than 64 KiB, because hyper doubles a buffer that a read has filled.
pub(crate) const READ_SIZE: usize = 60 * 1024;

/// One side's connection.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// Who is told of bytes, on a client's connection.
    activity: Option<Rc<Activity>>,
    /// How long the client may leave an answer lying.
    stall_limit: Option<Duration>,
    stall: Option<Pin<Box<Sleep>>>,
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
            activity: Some(activity),
            stall_limit,
            stall: None,
        }
    }

    /// A connection to the function's own server.
    pub(crate) fn to_function(stream: TcpStream) -> Self {
        Self {
            stream,
            activity: None,
            stall_limit: None,
            stall: None,
        }
    }

    /// The bare stream.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
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

impl hyper::rt::Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let some = out.remaining().min(READ_SIZE);
        let mut scratch = SCRATCH.take();
        // hyper asks for more only on connections that bring large bodies.
        if scratch.len() < some {
            scratch.resize(some, 0);
        }
        let mut buffer = ReadBuf::new(&mut scratch[..some]);
        let outcome = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let filled = buffer.filled();
        if !filled.is_empty() {
            if let Some(activity) = &self.activity {
                activity.bytes_have_come();
            }
            out.put_slice(filled);
        }
        SCRATCH.set(scratch);
        outcome
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
