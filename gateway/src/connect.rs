//! A new connection to an endpoint, and whose fault it is that there is none.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::connection::{Connection, Shared};
use crate::duration;
use crate::function::Protocol;
use crate::http1::Http1;

/// How long the other side's host may leave what was sent unacknowledged before the connection counts as broken: a host
/// that is gone without a word would keep its calls until their own limit.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// The same for a connection on which nothing is sent: after so long the host is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// What the kernel takes of an answer ahead of us (and as much again for its own books). The function's own kernel keeps some six
/// times as much for what it sends, so that a caller who reads slowly costs the hosts ten times this; left alone it is megabytes for
/// each, until a host is short of memory for sockets.
const WINDOW: usize = 128 * 1024;
/// The bytes that the head of an answer over HTTP/2 may have.
const LARGEST_HEAD: u32 = 1024 * 1024;

/// Why a connection could not be made.
#[derive(Debug)]
pub enum ConnectError {
    /// The gateway itself has run out of something: no fault of the endpoint's.
    Ours(SocketAddr, io::Error),
    /// The endpoint, or its host, said no.
    Refused(SocketAddr, String),
    /// Nothing came back in time: it is gone, or it has too much to do.
    Silent(SocketAddr, Duration),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(to, error) => write!(f, "connect {to}: the gateway cannot: {error}"),
            Self::Refused(to, error) => write!(f, "connect {to}: {error}"),
            Self::Silent(to, limit) => {
                write!(f, "connect {to}: nothing within {}", duration::show(*limit))
            }
        }
    }
}

/// Connects within a limit. A connection that calls share is driven on the runtime that asks.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    protocol: Protocol,
    to: SocketAddr,
    limit: Duration,
) -> Result<Connection, ConnectError> {
    let stream = reach(to, limit).await?;
    match protocol {
        Protocol::Http1 => Ok(Connection::One(Box::new(Http1::new(stream)))),
        Protocol::H2c => {
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new())
                .max_header_list_size(LARGEST_HEAD)
                .keep_alive_interval(SILENCE)
                .keep_alive_timeout(UNACKNOWLEDGED);
            let refused = |error: hyper::Error| ConnectError::Refused(to, error.to_string());
            let handshake = http.handshake(TokioIo::new(stream)).await;
            let (connection, driver) = handshake.map_err(refused)?;
            // Its errors reach the calls through their responses.
            tokio::spawn(async { driver.await.unwrap_or_default() });
            Ok(Connection::Many(Shared::new(connection)))
        }
    }
}

/// A bare connection within a limit.
///
/// # Errors
/// See [`ConnectError`].
pub async fn reach(to: SocketAddr, limit: Duration) -> Result<TcpStream, ConnectError> {
    let stream = match tokio::time::timeout(limit, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if is_ours(&error) => return Err(ConnectError::Ours(to, error)),
        Ok(Err(error)) => return Err(ConnectError::Refused(to, error.to_string())),
        Err(_elapsed) => return Err(ConnectError::Silent(to, limit)),
    };
    let socket = SockRef::from(&stream);
    if is_itself(&stream, to) {
        let _ = socket.set_linger(Some(Duration::ZERO));
        return Err(ConnectError::Refused(
            to,
            "nothing listens there".to_owned(),
        ));
    }
    // Failures of these cost latency or memory only, or the early notice of a host that is gone.
    let _ = stream.set_nodelay(true);
    let _ = socket.set_recv_buffer_size(WINDOW);
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let asking = TcpKeepalive::new()
        .with_time(SILENCE)
        .with_interval(ASK_AGAIN);
    let _ = socket.set_tcp_keepalive(&asking);
    Ok(stream)
}

/// Whether a connection has both its ends in this socket: where nothing listens on a port of the ephemeral range, the kernel may
/// choose that port as the source, and TCP then connects the socket to itself. It must be closed without TIME_WAIT, which would keep
/// the server that is awaited from binding the port.
fn is_itself(stream: &TcpStream, to: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|own| own == to)
}

/// No descriptors, no ports, no memory.
fn is_ours(error: &io::Error) -> bool {
    let ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::ADDRNOTAVAIL,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| ours.contains(&Errno::from_raw_os_error(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_connected_to_itself_is_told_from_others() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        let stream = socket.connect(address).await.unwrap();
        assert!(is_itself(&stream, address));
        drop(stream);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let reached = reach(address, Duration::from_secs(5)).await;
        assert!(!is_itself(&reached.unwrap(), address));
    }

    #[test]
    fn running_out_of_descriptors_is_our_fault_and_a_refusal_is_not() {
        for (errno, ours) in [
            (Errno::MFILE, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::CONNREFUSED, false),
            (Errno::HOSTUNREACH, false),
        ] {
            assert_eq!(is_ours(&errno.into()), ours, "{errno}");
        }
    }
}
