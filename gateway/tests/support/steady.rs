//! Calls at a constant rate, however long each takes, and how every one of them ended: what callers see while the world changes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Calls that may run side by side; a call that finds no room waits, and its wait counts.
const MOST_AT_ONCE: usize = 4096;
/// How often an address is tried: after an address that refused comes the next.
const ROUNDS: usize = 2;

/// What is called, how often and what the right answer is.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to: the first address that takes a connection, beginning with another one each time.
    pub to: Vec<SocketAddr>,
    pub path: String,
    /// Sent with POST; without a body it is a GET.
    pub body: Option<Bytes>,
    /// What the answer's body must be.
    pub expected: Option<Bytes>,
    /// Calls a second.
    pub rate: u32,
    /// Calls in all, unless the check is told to stop before.
    pub count: u32,
    /// Whether a connection carries more than one call.
    pub keep_alive: bool,
    /// How long a call may take.
    pub limit: Duration,
    /// Whom it trusts, if it calls by TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Load {
    /// POSTs that must be answered with what was sent.
    pub fn echo(to: SocketAddr, path: impl Into<String>) -> Self {
        let body = Some(Bytes::from_static(b"the body of a steady call"));
        Self {
            to: vec![to],
            path: path.into(),
            expected: body.clone(),
            body,
            rate: 100,
            count: 1000,
            keep_alive: true,
            limit: Duration::from_secs(30),
            tls: None,
        }
    }

    /// The last of so many calls begins after this long.
    pub fn length(&self) -> Duration {
        Duration::from_secs(1) * self.count / self.rate
    }

    /// Makes the calls, until there were enough of them or `stop` says so, and waits for the last answer.
    /// It is asked before each call, with the number of those made.
    pub fn run(self, stop: impl Fn(u32) -> bool) -> Tally {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, self.calls(stop))
    }

    async fn calls(self, stop: impl Fn(u32) -> bool) -> Tally {
        let began = Instant::now();
        let caller = Rc::new(Caller {
            load: self,
            idle: RefCell::default(),
            room: Semaphore::new(MOST_AT_ONCE),
        });
        let mut running = Vec::new();
        for number in 0..caller.load.count {
            let due = began + Duration::from_secs(1) * number / caller.load.rate;
            tokio::time::sleep_until(due.into()).await;
            if stop(number) {
                break;
            }
            let caller = caller.clone();
            running.push(tokio::task::spawn_local(async move {
                let end = caller.call(number as usize).await;
                Call {
                    due: due - began,
                    took: due.elapsed(),
                    end,
                }
            }));
        }
        let mut calls = Vec::with_capacity(running.len());
        for call in running {
            calls.push(call.await.unwrap());
        }
        Tally { began, calls }
    }
}

/// One call: when it was to begin, counted from the first, how long after that it ended, and how.
#[derive(Debug)]
pub struct Call {
    pub due: Duration,
    pub took: Duration,
    pub end: End,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// 200 and the right body.
    Right,
    /// Another status, with the beginning of what was said.
    Status(u16, String),
    /// 200 and another body than it had to be.
    WrongBody(usize),
    /// No address took a connection.
    Unconnected(String),
    /// The connection or the answer broke.
    Broken(String),
    /// Nothing within the limit.
    TimedOut,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right => write!(f, "right"),
            Self::Status(status, said) => write!(f, "status {status}: {said}"),
            Self::WrongBody(length) => write!(f, "another body, of {length} bytes"),
            Self::Unconnected(why) => write!(f, "no connection: {why}"),
            Self::Broken(why) => write!(f, "broke: {why}"),
            Self::TimedOut => write!(f, "no end within the limit"),
        }
    }
}

/// What became of all calls.
#[derive(Debug)]
pub struct Tally {
    /// When the first call was due.
    pub began: Instant,
    pub calls: Vec<Call>,
}

impl Tally {
    /// How many calls did not end in the right 200.
    pub fn failed(&self) -> usize {
        self.wrong().count()
    }

    fn wrong(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|call| call.end != End::Right)
    }

    /// These calls and those of another check.
    pub fn and(mut self, other: Self) -> Self {
        self.calls.extend(other.calls);
        self
    }

    /// How many calls that were due after `since` ended well, but took longer than `limit`.
    pub fn slow_since(&self, since: Instant, limit: Duration) -> usize {
        let since = since.saturating_duration_since(self.began);
        let slow = |call: &&Call| call.due >= since && call.took > limit && call.end == End::Right;
        self.calls.iter().filter(slow).count()
    }

    /// The time that this share of the calls stayed below.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut took: Vec<_> = self.calls.iter().map(|call| call.took).collect();
        took.sort_unstable();
        let last = took.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        took.get(at).copied().unwrap_or_default()
    }

    /// Stops the test if more than so many calls failed.
    #[track_caller]
    pub fn assert_failed_at_most(&self, most: usize) {
        assert!(self.failed() <= most, "more than {most} failed:\n{self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} calls, {} failed; ms: p50 {:.3}, p99 {:.3}, longest {:.1}",
            self.calls.len(),
            self.failed(),
            self.quantile(0.5).as_secs_f64() * 1e3,
            self.quantile(0.99).as_secs_f64() * 1e3,
            self.quantile(1.0).as_secs_f64() * 1e3,
        )?;
        let mut kinds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for call in self.wrong() {
            let dues = kinds.entry(call.end.to_string()).or_default();
            dues.push(call.due.as_secs_f64());
        }
        for (kind, dues) in kinds {
            let (first, last) = (dues[0], dues[dues.len() - 1]);
            writeln!(f, "{:6} {kind} (due {first:.3} to {last:.3} s)", dues.len())?;
        }
        Ok(())
    }
}

type Connection = SendRequest<Full<Bytes>>;

/// Somebody who calls, on connections of their own.
struct Caller {
    load: Load,
    idle: RefCell<Vec<Connection>>,
    room: Semaphore,
}

impl Caller {
    async fn call(&self, number: usize) -> End {
        let within = tokio::time::timeout(self.load.limit, async {
            let _room = self.room.acquire().await;
            match self.answer(number).await {
                Ok((status, body)) => self.judge(status, &body),
                Err(end) => end,
            }
        });
        within.await.unwrap_or(End::TimedOut)
    }

    fn judge(&self, status: StatusCode, body: &Bytes) -> End {
        let expected = &self.load.expected;
        if status != StatusCode::OK {
            // Names and ids differ from call to call; the sentence up to the call's id tells the kind.
            let said = String::from_utf8_lossy(body);
            let sentence = said.split(" (call ").next().unwrap_or_default();
            End::Status(status.as_u16(), sentence.chars().take(160).collect())
        } else if expected.as_ref().is_some_and(|right| right != body) {
            End::WrongBody(body.len())
        } else {
            End::Right
        }
    }

    /// One answer: on a connection that lies idle, or on a new one if the other side had closed it.
    async fn answer(&self, number: usize) -> Result<(StatusCode, Bytes), End> {
        loop {
            let idle = self.idle.borrow_mut().pop();
            let (mut connection, is_new) = match idle {
                Some(connection) if connection.is_ready() => (connection, false),
                Some(_closed) => continue,
                None => (self.connect(number).await?, true),
            };
            let response = match connection.try_send_request(self.request()).await {
                Ok(response) => response,
                // Never sent, so that any caller may send it again.
                Err(error) if error.message().is_some() && !is_new => continue,
                Err(error) => return Err(broken(error.error())),
            };
            let status = response.status();
            let body = response.into_body().collect().await;
            let bytes = body.map_err(|error| broken(&error))?.to_bytes();
            if self.load.keep_alive && connection.ready().await.is_ok() {
                self.idle.borrow_mut().push(connection);
            }
            return Ok((status, bytes));
        }
    }

    async fn connect(&self, number: usize) -> Result<Connection, End> {
        let to = &self.load.to;
        let mut last = String::new();
        for attempt in 0..to.len() * ROUNDS {
            let address = to[(number + attempt) % to.len()];
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // A failure costs latency only.
                    let _ = stream.set_nodelay(true);
                    let Some(tls) = &self.load.tls else {
                        return begin(stream).await;
                    };
                    let tls = TlsConnector::from(tls.clone());
                    let shaken = tls.connect(ServerName::from(address.ip()), stream).await;
                    let stream = shaken.map_err(|error| End::Unconnected(error.to_string()))?;
                    return begin(stream).await;
                }
                Err(error) if to.len() == 1 => return Err(End::Unconnected(error.to_string())),
                Err(error) => last = error.to_string(),
            }
        }
        Err(End::Unconnected(last))
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let body = self.load.body.clone();
        let method = if body.is_some() { "POST" } else { "GET" };
        let mut request = Request::builder()
            .method(method)
            .uri(&self.load.path)
            .header(HOST, "steady");
        if !self.load.keep_alive {
            request = request.header(CONNECTION, "close");
        }
        request.body(body.unwrap_or_default().into()).unwrap()
    }
}

async fn begin(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Connection, End> {
    let shaken = handshake(TokioIo::new(stream)).await;
    let (connection, driver) = shaken.map_err(|error| broken(&error))?;
    tokio::task::spawn_local(async { driver.await.unwrap_or_default() });
    Ok(connection)
}

fn broken(error: &hyper::Error) -> End {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    End::Broken(cause.map_or(error.to_string(), |cause| format!("{error}: {cause}")))
}

/// Checks in a thread of its own, so that the test can change the world meanwhile.
pub struct Steady {
    shared: Arc<Shared>,
    thread: JoinHandle<Tally>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    made: AtomicU32,
}

impl Steady {
    /// Begins with these calls; `inside` is run first, in the thread that makes them.
    pub fn start(load: Load, inside: impl FnOnce() + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || {
            inside();
            load.run(|made| {
                theirs.made.store(made, Ordering::Relaxed);
                theirs.stop.load(Ordering::Relaxed)
            })
        });
        Self { shared, thread }
    }

    /// How many calls have begun.
    pub fn made(&self) -> u32 {
        self.shared.made.load(Ordering::Relaxed)
    }

    /// Begins no further call, and waits for those that run.
    pub fn stop(self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
