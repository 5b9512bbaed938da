//! Accept loops and graceful drain over any service; knows nothing of functions.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::reply::Body;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// The pause after an accept that failed, such as when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// After the last accept, how long connections may still bring a request before the idle ones are closed: one that was just made
/// has its first on the way, and one that is kept has perhaps its next.
const LINGER: Duration = Duration::from_millis(500);
/// How often a lingering server looks whether anybody is left.
const LINGER_PAUSE: Duration = Duration::from_millis(10);

/// What bounds a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// How long a request head may take to arrive, and a connection lie idle.
    pub read_timeout: Duration,
    /// The bytes that a request head may have.
    pub max_header_bytes: usize,
}

/// Opens `count` listeners on one address that share its connections (SO_REUSEPORT). Port 0 takes any free one.
///
/// # Errors
/// When the address cannot be bound, above all when somebody listens there already.
pub fn listen(ip: IpAddr, port: u16, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // SO_REUSEPORT would let a second gateway slip in beside a running one and take half of its calls. So the address is
    // first bound alone: that fails if anybody has it.
    let alone = std::net::TcpListener::bind(SocketAddr::new(ip, port))?;
    let address = alone.local_addr()?;
    drop(alone);
    (0..count).map(|_| listen_shared(address)).collect()
}

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

/// How a server ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request was answered.
    Clean,
    /// The limit was over first: what still ran was cut.
    Cut,
}

/// Accepts connections until `shutdown` turns true, then lets what runs finish within `drain`.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve<M, S>(
    listener: std::net::TcpListener,
    make: M,
    limits: ConnectionLimits,
    mut shutdown: watch::Receiver<bool>,
    drain: Duration,
) -> io::Result<Drained>
where
    M: Fn(SocketAddr) -> S,
    S: Service<Request<Incoming>, Response = Response<Body>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = TcpListener::from_std(listener)?;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.read_timeout)
        .max_header_size(limits.max_header_bytes);
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // A sender that is gone is a shutdown too.
            _ = shutdown.wait_for(|down| *down) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                drop(tokio::spawn(connection(
                    &http,
                    stream,
                    make(peer),
                    &connections,
                )));
            }
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Whoever is in the queue has been told that they are connected, and may have sent a request.
    catch_up().await;
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        drop(tokio::spawn(connection(
            &http,
            stream,
            make(peer),
            &connections,
        )));
    }
    drop(listener);
    let finished = async {
        linger(&connections).await;
        catch_up().await;
        connections.shutdown().await;
    };
    match tokio::time::timeout(drain, finished).await {
        Ok(()) => Ok(Drained::Clean),
        Err(_elapsed) => Ok(Drained::Cut),
    }
}

/// Lets the runtime see what has come on its sockets meanwhile, so that a connection with a request counts as busy and not as
/// unused: on a busy machine all of this may happen at once.
async fn catch_up() {
    for _ in 0..2 {
        tokio::task::yield_now().await;
    }
}

/// Waits for a moment, or until no connection is left: each closes after its next answer.
async fn linger(connections: &GracefulShutdown) {
    let end = Instant::now() + LINGER;
    while connections.count() > 0 && Instant::now() < end {
        tokio::time::sleep(LINGER_PAUSE).await;
    }
}

fn connection<S>(
    http: &http1::Builder,
    stream: TcpStream,
    service: S,
    connections: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + 'static
where
    S: Service<Request<Incoming>, Response = Response<Body>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // A failure costs latency only.
    let _ = stream.set_nodelay(true);
    let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
    async move {
        // Clients come, go and send nonsense: hyper has answered what can be answered.
        if let Err(error) = connection.await {
            tracing::debug!("connection: {error}");
        }
    }
}
