//! Accept loops and graceful drain over any service; knows nothing of functions.

mod doors;
mod h2;
mod http1;
mod linger;
mod opening;
pub mod proxy_protocol;
mod tls;

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, IntCounter};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use self::doors::Acceptor;
pub use self::doors::{Door, cut_those_who_take_nothing, listen};
use self::http1::{End, Http1};
use self::linger::linger;
use self::opening::Opening;
use self::proxy_protocol::ProxyProtocol;
pub use self::tls::PROTOCOLS;
use crate::drain::{Drain, Guest, Phase};
use crate::incoming::{Asked, Stream};
use crate::told::Answered;

/// How long connections that are being made when the port closes have to get through.
const SETTLE: Duration = Duration::from_millis(50);
/// How long a connection may still bring a request after the port is closed, before it is closed as unused: the request
/// may be on its way, and its sender could not tell whether it was taken.
const LINGER: Duration = Duration::from_millis(500);
/// How many connections that were too many may wait, on each worker, until their callers have read that.
const MOST_TURNED_AWAY: usize = 256;
/// How long tunnels may take to say goodbye once time is over.
const FAREWELL: Duration = Duration::from_millis(1500);

/// Who is at the other end of a connection, as the connection itself shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The address that it comes from.
    pub peer: SocketAddr,
    /// The other end of the connection itself, whatever a PROXY header says of who is behind it.
    pub socket: SocketAddr,
    /// Whether that is its own, and not a balancer's that does not know its caller's.
    pub is_known: bool,
    /// Whether it came by TLS.
    pub secure: bool,
}

/// What answers the requests of one connection.
pub trait Answers: Send + Unpin + 'static {
    /// An answer that is being made.
    type Answer: Future<Output = Answered> + Send + 'static;
    /// Begins to answer.
    fn answer(&self, request: Asked) -> Self::Answer;
}

impl<F, A> Answers for F
where
    F: Fn(Asked) -> A + Send + Unpin + 'static,
    A: Future<Output = Answered> + Send + 'static,
{
    type Answer = A;

    fn answer(&self, request: Asked) -> A {
        self(request)
    }
}

/// What bounds a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// How long a request head may take to arrive, and a connection lie idle.
    pub read_timeout: Duration,
    /// How long a stream of HTTP/2 may wait for its client to take a byte of an answer. Over HTTP/1.1 the kernel sees to it
    /// ([`cut_those_who_take_nothing`]).
    pub write_timeout: Duration,
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

/// What a server asks of its connections.
#[derive(Clone)]
pub struct Limits {
    /// Each of them.
    pub each: ConnectionLimits,
    /// All of them.
    pub all: Connections,
    /// A PROXY header before everything else, if balancers send one.
    pub proxy_protocol: Option<Arc<ProxyProtocol>>,
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
    doors: Vec<Door>,
    make: M,
    limits: &Limits,
    mut orders: watch::Receiver<Order>,
    drain: &Drain,
    patience: Patience,
) -> io::Result<Drained>
where
    M: Fn(Caller) -> S + Clone + Send + 'static,
    S: Answers,
{
    let acceptor = Acceptor::of(doors)?;
    let turned_away = Arc::new(());
    let open = |stream: TcpStream, peer, tls: Option<&TlsAcceptor>| {
        let Some(counted) = limits.all.admit() else {
            return turn_away(stream, tls.is_some(), drain, &turned_away);
        };
        // A failure costs latency only.
        let _ = stream.set_nodelay(true);
        let guest = drain.guest();
        let shown = Caller {
            peer,
            socket: peer,
            is_known: true,
            secure: tls.is_some(),
        };
        match (tls, &limits.proxy_protocol) {
            (None, None) => {
                let connection = connection(stream, make(shown), limits.each, guest, counted);
                drop(tokio::spawn(connection));
            }
            (tls, proxy_protocol) => {
                let opening = Opening {
                    stream,
                    proxy_protocol: proxy_protocol.clone(),
                    tls: tls.cloned(),
                    limits: limits.each,
                };
                let connection = opening.connection(shown, make.clone(), guest, counted);
                drop(tokio::spawn(connection));
            }
        }
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

/// Says why, as far as that can be said without reading, and closes: after the caller, unless there are too many of these, too.
fn turn_away(stream: TcpStream, secure: bool, drain: &Drain, others: &Arc<()>) {
    if secure {
        return;
    }
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    // Whoever does not hear it sees the close.
    let _ = stream.try_write(answer);
    if Arc::strong_count(others) <= MOST_TURNED_AWAY
        && SockRef::from(&stream).shutdown(Shutdown::Write).is_ok()
    {
        let (one_more, guest) = (others.clone(), drain.guest());
        tokio::spawn(async move {
            linger(stream, guest).await;
            drop(one_more);
        });
    }
}

/// One connection from its first request to its last, whatever carries it; what it becomes by an upgrade goes on without it. Holds
/// on to something until it ends.
pub fn connection<I, S>(
    io: I,
    service: S,
    limits: ConnectionLimits,
    mut guest: Guest,
    held: impl Send + 'static,
) -> impl Future<Output = ()> + Send + 'static
where
    I: Stream + 'static,
    S: Answers,
{
    // Nothing of this is moved once the future runs: it would have room for both places, in every connection.
    let mut connection = Http1::new(io, service, limits);
    async move {
        let _held = &held;
        let end = tokio::select! {
            biased;
            end = &mut connection => end,
            () = guest.reached(Phase::Finishing) => {
                connection.finish();
                // One that lies idle is at its end, and nobody waits for an answer on it.
                tokio::select! {
                    end = &mut connection => end,
                    () = guest.reached(Phase::Over) => return,
                }
            }
        };
        match end {
            End::Done => {}
            // Boxed, so that connections are not larger for an end that few of them have.
            End::Unread(io) => Box::pin(linger(io, guest)).await,
            End::Http2(io, service) => note(Box::pin(h2::serve(io, service, limits, guest)).await),
        }
    }
}

/// Clients of HTTP/2 come, go and send nonsense: h2 has answered what can be answered.
fn note(ended: Result<(), ::h2::Error>) {
    if let Err(error) = ended {
        tracing::debug!("connection: {error}");
    }
}
