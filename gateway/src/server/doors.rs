//! Listeners, and who comes in by them.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::throttle::Throttle;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// The pause after an accept that failed, such as when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Clients decide how long there is no descriptor left.
static FAILED: Throttle = Throttle::new(1, Duration::from_secs(10));
/// What the kernel keeps of an answer beyond what is on its way to the caller.
const UNSENT: u32 = 128 * 1024;

/// Opens `count` listeners on one address that share its connections (SO_REUSEPORT). Port 0 takes any free one.
///
/// # Errors
/// When the address cannot be bound, above all when another process listens there already.
pub fn listen(ip: IpAddr, port: u16, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // SO_REUSEPORT would let a second gateway slip in beside a running one and take half of its calls. So the first one listens
    // without it, which fails if anybody else does, and shares the address only then: of two that begin at once, one fails.
    let first = Socket::new(
        Domain::for_address(SocketAddr::new(ip, port)),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    first.set_reuse_address(true)?;
    first.set_nonblocking(true)?;
    first.bind(&SocketAddr::new(ip, port).into())?;
    first.listen(BACKLOG)?;
    first.set_reuse_port(true)?;
    let first = std::net::TcpListener::from(first);
    let address = first.local_addr()?;
    let more = (1..count).map(|_| listen_shared(address));
    std::iter::once(Ok(first)).chain(more).collect()
}

/// One more listener on an address whose listeners are ours.
///
/// # Errors
/// When the address cannot be bound.
fn listen_shared(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The kernel breaks a connection on which nothing can be sent for so long. Connections have it from their listener, those
/// too that are made before anybody accepts them.
///
/// # Errors
/// When the kernel does not know this option.
pub fn cut_those_who_take_nothing(
    listener: &std::net::TcpListener,
    limit: Duration,
) -> io::Result<()> {
    let socket = SockRef::from(listener);
    // Nor is more than this kept for those who take it slowly.
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(limit))
}

/// A listener, and what is spoken behind it.
pub struct Door {
    /// Where connections come.
    pub listener: std::net::TcpListener,
    /// How to shake hands, where a connection begins with that.
    pub tls: Option<TlsAcceptor>,
}

impl Door {
    /// A door for plain HTTP.
    #[must_use]
    pub fn plain(listener: std::net::TcpListener) -> Self {
        Self {
            listener,
            tls: None,
        }
    }
}

/// The listeners of one worker: one for each port, and more if they were taken over from a gateway of more workers.
pub(super) struct Acceptor(Vec<(TcpListener, Option<TlsAcceptor>)>);

/// A connection, who is at its other end, and how to shake hands.
type Accepted<'a> = (TcpStream, SocketAddr, Option<&'a TlsAcceptor>);

impl Acceptor {
    pub(super) fn of(doors: Vec<Door>) -> io::Result<Self> {
        let doors = doors
            .into_iter()
            .map(|door| Ok((TcpListener::from_std(door.listener)?, door.tls)));
        Ok(Self(doors.collect::<io::Result<_>>()?))
    }

    pub(super) async fn accept_until(
        &self,
        end: impl Future,
        open: impl Fn(TcpStream, SocketAddr, Option<&TlsAcceptor>),
    ) {
        let mut end = pin!(end);
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                _ = &mut end => return,
            };
            match accepted {
                Ok((stream, peer, tls)) => open(stream, peer, tls),
                Err(error) => {
                    if let Some(left_out) = FAILED.admit() {
                        tracing::warn!("accept: {error}{left_out}");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Whoever is in the queue has been told that they are connected, and may have sent a request.
    pub(super) fn accept_the_rest(
        &self,
        open: impl Fn(TcpStream, SocketAddr, Option<&TlsAcceptor>),
    ) {
        while let Some(Ok((stream, peer, tls))) = self.accept().now_or_never() {
            open(stream, peer, tls);
        }
    }

    async fn accept(&self) -> io::Result<Accepted<'_>> {
        poll_fn(|cx| {
            // Another one first each time, so that a rush at one port does not shut the others.
            let (before, after) = self.0.split_at(fastrand::usize(..=self.0.len()));
            let mut accepted = after.iter().chain(before).map(|(listener, tls)| {
                let accepted = listener.poll_accept(cx);
                accepted.map_ok(|(stream, peer)| (stream, peer, tls.as_ref()))
            });
            accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Drops the first packet of every new connection from now on: those that are half made get through, and none is
    /// made in the moment in which the listener closes, which would be reset. A client whose first packet is dropped
    /// sends it again after a second, to whoever listens then.
    pub(super) fn let_no_more_begin(&self) {
        // Classic BPF on a TCP header: byte 13 has the flags; SYN without ACK is a new connection.
        let program = [
            SockFilter::new(0x30, 0, 0, 13),       // A = byte 13
            SockFilter::new(0x54, 0, 0, 0x12),     // A &= SYN | ACK
            SockFilter::new(0x15, 0, 1, 0x02),     // A == SYN ?
            SockFilter::new(0x06, 0, 0, 0),        // then drop it
            SockFilter::new(0x06, 0, 0, u32::MAX), // else keep all of it
        ];
        for (listener, _) in &self.0 {
            if let Err(error) = SockRef::from(listener).attach_filter(&program) {
                tracing::debug!("a connection made while the port closes may be reset: {error}");
            }
        }
    }
}
