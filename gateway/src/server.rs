//! Accept loops and graceful drain over any service; knows nothing of functions.

mod h2;
mod linger;

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Gauge, IntCounter};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::linger::{Remembering, linger};
use crate::drain::{Drain, Guest, Phase};
use crate::reply::Body;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// The pause after an accept that failed, such as when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long connections that are being made when the port closes have to get through.
const SETTLE: Duration = Duration::from_millis(50);
/// How long a connection may still bring a request after the port is closed, before it is closed as unused: the request
/// may be on its way, and its sender could not tell whether it was taken.
const LINGER: Duration = Duration::from_millis(500);
/// How many connections that were too many may wait, on each worker, until their callers have read that.
const MOST_TURNED_AWAY: usize = 256;
/// As many header fields as hyper parses without an allocation, and refuses past that if it is told nothing else.
const STACK_FIELDS: usize = 100;
/// What of an answer waits to be written, and of a body to be read, beside the largest head that is let in.
const WAITING: usize = 8 * 1024;
/// What the kernel keeps of an answer beyond what is on its way to the caller.
const UNSENT: u32 = 128 * 1024;
/// How long tunnels may take to say goodbye once time is over.
const FAREWELL: Duration = Duration::from_millis(1500);

/// What bounds a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// How long a request head may take to arrive, and a connection lie idle.
    pub read_timeout: Duration,
    /// The bytes that a request head may have.
    pub max_header_bytes: usize,
    /// The header fields that a request may have. The service holds to it where HTTP does not: over HTTP/2, and below 100.
    pub max_headers: usize,
}

/// The connections of all workers: how many there are, and how many there may be.
#[derive(Clone)]
pub struct Connections {
    /// Counts those that are open.
    pub open: Gauge,
    /// Counts those that were too many.
    pub refused: IntCounter,
    /// How many there may be.
    pub most: Option<usize>,
}

/// An open connection, counted until it is dropped.
struct Counted(Gauge);

impl Connections {
    fn admit(&self) -> Option<Counted> {
        self.open.inc();
        let counted = Counted(self.open.clone());
        let is_one_too_many = self.most.is_some_and(|most| self.open.get() > most as f64);
        if is_one_too_many {
            self.refused.inc();
            return None;
        }
        Some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What bounds a server's connections.
#[derive(Clone)]
pub struct Limits {
    /// Each of them.
    pub each: ConnectionLimits,
    /// All of them.
    pub all: Connections,
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

/// One more listener on an address whose listeners are ours.
///
/// # Errors
/// When the address cannot be bound.
pub fn listen_shared(address: SocketAddr) -> io::Result<std::net::TcpListener> {
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

/// What a server is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Accept and answer.
    Serve,
    /// End: nobody will accept here after us, as far as we know.
    Stop,
    /// End: another process accepts from the same listeners.
    HandOver,
}

/// How long the steps of an end may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// How long the port stays open after the order to stop.
    pub delay: Duration,
    /// How long after that everything may run.
    pub drain: Duration,
}

/// How a server ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request was answered.
    Clean,
    /// The limit was over first: what still ran was cut.
    Cut,
}

/// Accepts connections until it is told to end, then lets what runs finish.
///
/// # Errors
/// When a listener cannot be used.
pub async fn serve<M, S>(
    listeners: Vec<std::net::TcpListener>,
    make: M,
    limits: &Limits,
    mut orders: watch::Receiver<Order>,
    drain: &Drain,
    patience: Patience,
) -> io::Result<Drained>
where
    M: Fn(SocketAddr) -> S,
    S: Service<Request<Incoming>, Response = Response<Body>> + Send + Unpin + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listeners = listeners.into_iter().map(TcpListener::from_std);
    let acceptor = Acceptor(listeners.collect::<io::Result<_>>()?);
    let http = protocol(limits.each);
    let turned_away = Arc::new(());
    let open = |stream, peer| match limits.all.admit() {
        Some(counted) => {
            let connection = connection(&http, stream, make(peer), limits.each, drain, counted);
            drop(tokio::spawn(connection));
        }
        None => turn_away(stream, drain, &turned_away),
    };
    let mut order = Order::Stop;
    let ordered = async {
        // A sender that is gone is an order to stop, too.
        if let Ok(told) = orders.wait_for(|order| *order != Order::Serve).await {
            order = *told;
        }
    };
    acceptor.accept_until(ordered, open).await;
    drain.enter(Phase::Leaving);
    if order == Order::Stop {
        acceptor.accept_until(sleep(patience.delay), open).await;
        acceptor.let_no_more_begin();
        acceptor.accept_until(sleep(SETTLE), open).await;
    }
    catch_up().await;
    acceptor.accept_the_rest(open);
    drop(acceptor);
    let deadline = Instant::now() + patience.drain;
    // Ends early when nothing is left to wait for.
    let _ = timeout(LINGER.min(patience.drain), drain.empty()).await;
    catch_up().await;
    drain.enter(Phase::Finishing);
    if timeout_at(deadline, drain.empty()).await.is_ok() {
        return Ok(Drained::Clean);
    }
    drain.enter(Phase::Over);
    let _ = timeout(FAREWELL, drain.empty()).await;
    Ok(Drained::Cut)
}

/// Lets the runtime see what has come on its sockets meanwhile, so that a connection with a request counts as busy and not as
/// unused: on a busy machine all of this may happen at once.
async fn catch_up() {
    for _ in 0..2 {
        tokio::task::yield_now().await;
    }
}

/// The listeners of one worker: one, unless they were taken over from a gateway of more workers.
struct Acceptor(Vec<TcpListener>);

impl Acceptor {
    async fn accept_until(&self, end: impl Future, open: impl Fn(TcpStream, SocketAddr)) {
        let mut end = pin!(end);
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                _ = &mut end => return,
            };
            match accepted {
                Ok((stream, peer)) => open(stream, peer),
                Err(error) => {
                    tracing::warn!("accept: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Whoever is in the queue has been told that they are connected, and may have sent a request.
    fn accept_the_rest(&self, open: impl Fn(TcpStream, SocketAddr)) {
        while let Some(Ok((stream, peer))) = self.accept().now_or_never() {
            open(stream, peer);
        }
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| {
            let mut accepted = self.0.iter().map(|listener| listener.poll_accept(cx));
            accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Drops the first packet of every new connection from now on: those that are half made get through, and none is
    /// made in the moment in which the listener closes, which would be reset. A client whose first packet is dropped
    /// sends it again after a second, to whoever listens then.
    fn let_no_more_begin(&self) {
        // Classic BPF on a TCP header: byte 13 has the flags; SYN without ACK is a new connection.
        let program = [
            SockFilter::new(0x30, 0, 0, 13),       // A = byte 13
            SockFilter::new(0x54, 0, 0, 0x12),     // A &= SYN | ACK
            SockFilter::new(0x15, 0, 1, 0x02),     // A == SYN ?
            SockFilter::new(0x06, 0, 0, 0),        // then drop it
            SockFilter::new(0x06, 0, 0, u32::MAX), // else keep all of it
        ];
        for listener in &self.0 {
            if let Err(error) = SockRef::from(listener).attach_filter(&program) {
                tracing::debug!("a connection made while the port closes may be reset: {error}");
            }
        }
    }
}

/// Says why, as far as that can be said without reading, and closes: after the caller, unless there are too many of these, too.
fn turn_away(stream: TcpStream, drain: &Drain, others: &Arc<()>) {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    // Whoever does not hear it sees the close.
    let _ = stream.try_write(answer);
    if Arc::strong_count(others) <= MOST_TURNED_AWAY
        && SockRef::from(&stream).shutdown(Shutdown::Write).is_ok()
    {
        let (one_more, guest) = (others.clone(), drain.guest());
        tokio::spawn(async move {
            linger(TokioIo::new(stream), guest).await;
            drop(one_more);
        });
    }
}

fn protocol(limits: ConnectionLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.read_timeout)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes + WAITING);
    if limits.max_headers > STACK_FIELDS {
        // Two allocations for each request; only those who want this pay for it.
        http.max_headers(limits.max_headers);
    }
    http
}

/// One connection from its first request to its last; what it becomes by an upgrade goes on without it.
fn connection<S>(
    http: &http1::Builder,
    stream: TcpStream,
    service: S,
    limits: ConnectionLimits,
    drain: &Drain,
    counted: Counted,
) -> impl Future<Output = ()> + Send + 'static
where
    S: Service<Request<Incoming>, Response = Response<Body>> + Send + Unpin + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // A failure costs latency only.
    let _ = stream.set_nodelay(true);
    let mut guest = drain.guest();
    let service = Remembering::new(service);
    // Nothing of this is moved once the future runs: it would have room for both places, in every connection.
    let mut connection = http
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    async move {
        let _held = &counted;
        let ended = tokio::select! {
            biased;
            ended = &mut connection => ended,
            () = guest.reached(Phase::Finishing) => {
                Pin::new(&mut connection).graceful_shutdown();
                // One that lies idle is at its end, and nobody waits for an answer on it.
                if (&mut connection).now_or_never().is_some() {
                    return;
                }
                tokio::select! {
                    ended = &mut connection => ended,
                    () = guest.reached(Phase::Over) => return,
                }
            }
        };
        // What was upgraded goes on elsewhere.
        if let Some(parts) = connection.into_parts() {
            afterwards(ended, parts, limits, guest).await;
        }
    }
}

/// What is left to do on a connection on which HTTP/1 has ended. Boxed, so that connections are not larger for an end that few
/// of them have.
fn afterwards<I, S>(
    mut ended: hyper::Result<()>,
    parts: http1::Parts<I, Remembering<S>>,
    limits: ConnectionLimits,
    guest: Guest,
) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    I: Read + Write + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let is_nonsense = ended.as_ref().is_err_and(hyper::Error::is_parse);
    Box::pin(async move {
        if is_nonsense && parts.read_buf.starts_with(h2::PREFACE) {
            let service = parts.service.service;
            ended = h2::serve(parts.io, parts.read_buf, service, limits, guest).await;
        } else if is_nonsense || ended.is_ok() && parts.service.had_body() {
            linger(parts.io, guest).await;
        }
        // Clients come, go and send nonsense: hyper has answered what can be answered.
        if let Err(error) = ended {
            tracing::debug!("connection: {error}");
        }
    })
}
