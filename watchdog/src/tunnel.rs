//! An upgraded connection: bytes both ways between client and function until either side has had enough, or is silent for too long.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::config::Config;
use crate::watchdog::Counted;

/// A connection to the function that hyper is done with, and what it had read too far.
pub(crate) type Rest = (TcpStream, Bytes);

/// The function's side, given as soon as its answer has been read.
#[derive(Debug)]
pub(crate) struct Tunnel {
    function: oneshot::Receiver<Rest>,
    /// How long nothing may flow.
    pause_limit: Option<Duration>,
    /// How long one side may take nothing.
    stall_limit: Option<Duration>,
    /// The call goes on as long as the tunnel does.
    _slot: Counted,
}

impl Tunnel {
    /// A tunnel to the connection that `function` will bring.
    pub(crate) fn new(function: oneshot::Receiver<Rest>, slot: Counted, config: &Config) -> Self {
        Self {
            function,
            pause_limit: config.stream_idle_timeout,
            stall_limit: config.write_timeout,
            _slot: slot,
        }
    }

    /// Passes on what the client has sent already, then everything.
    pub(crate) async fn run(self, client: TcpStream, early: Bytes) {
        let Ok((function, late)) = self.function.await else {
            return;
        };
        let last = Rc::new(Cell::new(Instant::now()));
        let side = |stream| Side {
            stream,
            last: Rc::clone(&last),
            stall_limit: self.stall_limit,
            stall: None,
        };
        let (mut client, mut function) = (side(client), side(function));
        // Errors are one side's hanging up, which ends the tunnel as it should.
        let mut passing = pin!(async {
            if function.write_all(&early).await.is_ok() && client.write_all(&late).await.is_ok() {
                let _ = copy_bidirectional(&mut client, &mut function).await;
            }
        });
        let mut silent = pin!(async {
            let Some(limit) = self.pause_limit else {
                return std::future::pending().await;
            };
            while let Some(until) = last.get().checked_add(limit) {
                if until <= Instant::now() {
                    return;
                }
                sleep_until(until).await;
            }
            std::future::pending().await
        });
        poll_fn(|cx| match passing.as_mut().poll(cx) {
            Poll::Pending => silent.as_mut().poll(cx),
            done => done,
        })
        .await;
    }
}

/// One side of a tunnel.
struct Side {
    stream: TcpStream,
    /// When something has flowed last, either way.
    last: Rc<Cell<Instant>>,
    stall_limit: Option<Duration>,
    /// Runs while the side takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Side {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        self.last.set(Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Side {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = Pin::new(&mut self.stream).poll_write(cx, bytes) {
            self.stall = None;
            self.last.set(Instant::now());
            return Poll::Ready(outcome);
        }
        if let Some(limit) = self.stall_limit {
            let timer = self.stall.get_or_insert_with(|| Box::pin(sleep(limit)));
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
