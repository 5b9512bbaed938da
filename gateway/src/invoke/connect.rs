//! A new connection to an endpoint, and whose fault it is that there is none.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::net::TcpStream;

use crate::duration;
use crate::endpoint::Connection;

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

/// Connects within a limit. The connection is driven on the runtime that asks.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    http: &Builder,
    to: SocketAddr,
    limit: Duration,
) -> Result<Connection, ConnectError> {
    let stream = match tokio::time::timeout(limit, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if is_ours(&error) => return Err(ConnectError::Ours(to, error)),
        Ok(Err(error)) => return Err(ConnectError::Refused(to, error.to_string())),
        Err(_elapsed) => return Err(ConnectError::Silent(to, limit)),
    };
    // A failure costs latency only.
    let _ = stream.set_nodelay(true);
    let shaken = http.handshake(TokioIo::new(stream)).await;
    let (connection, driver) =
        shaken.map_err(|error| ConnectError::Refused(to, error.to_string()))?;
    // The driver's errors reach the call through its response.
    tokio::spawn(async { driver.with_upgrades().await.unwrap_or_default() });
    Ok(connection)
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
