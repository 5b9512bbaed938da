//! Is this endpoint taking calls? First contact with a new one, the return of an ejected one, and doubts about a silent one.
//!
//! Readiness is an accepted connection: a request would run the function of an image that has no watchdog of ours. Only
//! where a label names a path, or the endpoint has shown itself to be our watchdog, it is asked (docs/decisions/0012). An
//! endpoint that most likely has a watchdog is asked for `/_/health` first, which no watchdog passes to its function
//! (docs/decisions/0035). A watchdog in doubt is asked, too: the kernel takes connections for a process that is paused, but
//! only the process answers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::sync::mpsc;

use crate::connect::{self, ConnectError};
use crate::connection::Received;
use crate::duration;
use crate::endpoint::{Endpoint, WATCHDOG};
use crate::function::Protocol;
use crate::life::{Event, Fault, State};
use crate::table::Table;
use crate::upload::Upload;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long the answer to the question for readiness may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How long an endpoint that may have a watchdog may take to say so. Any watchdog answers at once; a server that does not, and
/// that has taken the connection, is called.
const HEALTH_LIMIT: Duration = Duration::from_millis(250);
/// How long a watchdog in doubt may take to say anything, and how often it is asked: it answers at once whatever its
/// function does, but a busy machine may let it wait for its turn.
const LIFE_LIMIT: Duration = Duration::from_millis(500);
const LIFE_QUESTIONS: u32 = 2;

/// Hands endpoints to the prober.
#[derive(Clone)]
pub struct Prober(mpsc::UnboundedSender<Job>);

/// What the prober has to do.
pub enum Job {
    /// Probe this endpoint until it takes calls or leaves.
    Watch(Arc<Endpoint>),
    /// Find out whether this endpoint, that says nothing, can still be reached.
    Doubt(Arc<Endpoint>),
}

impl Prober {
    /// A prober and the queue that [`run`] works off. The queue holds each listed endpoint at most once for each
    /// ejection, and once for each second of doubt.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Job>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Probes this endpoint until it takes calls or leaves.
    pub fn watch(&self, endpoint: Arc<Endpoint>) {
        // Nobody receives while the gateway shuts down: then nothing needs a probe.
        let _ = self.0.send(Job::Watch(endpoint));
    }

    /// Calls on this endpoint have heard nothing for a while: a slow function, or a host that is gone without a word?
    pub fn doubt(&self, endpoint: &Arc<Endpoint>) {
        if endpoint.is_to_be_doubted() {
            let _ = self.0.send(Job::Doubt(endpoint.clone()));
        }
    }
}

/// Works off the queue, all jobs side by side, until it closes.
pub async fn run(mut queue: mpsc::UnboundedReceiver<Job>, table: Table, connect_timeout: Duration) {
    while let Some(job) = queue.recv().await {
        let table = table.clone();
        tokio::spawn(async move {
            match job {
                Job::Watch(endpoint) => watch(&endpoint, &table, connect_timeout).await,
                Job::Doubt(endpoint) => doubt(&endpoint, &table, connect_timeout).await,
            }
        });
    }
}

async fn watch(endpoint: &Endpoint, table: &Table, connect_timeout: Duration) {
    let began = Instant::now();
    tokio::time::sleep(endpoint.hold()).await;
    let mut pause = FIRST_PAUSE;
    while !takes_calls(endpoint, connect_timeout).await {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        if matches!(endpoint.state(), State::Draining | State::Gone) {
            return;
        }
    }
    let why = format!("reached after {} ms", began.elapsed().as_millis());
    if endpoint.meet(Event::Accepted, why) {
        table.touch();
    }
}

/// A host that does not even take a connection is gone, and a watchdog that does not even say that it lives is paused; a
/// function that is slow has both.
async fn doubt(endpoint: &Endpoint, table: &Table, connect_timeout: Duration) {
    let heard = if endpoint.is_watchdog() {
        sign_of_life(endpoint, connect_timeout).await
    } else {
        let reached = reach(endpoint, connect_timeout).await;
        reached.map_err(Trouble::Unconnected)
    };
    let Err(trouble) = heard else { return };
    let fault = match trouble {
        Trouble::Unconnected(ConnectError::Ours(..)) => return,
        Trouble::Unconnected(ConnectError::Refused(..)) => Fault::Refused,
        Trouble::Unconnected(ConnectError::Silent(..)) | Trouble::Silent => Fault::Silent,
    };
    // Others may have gone meanwhile; if all are silent, it may be the gateway that is cut off, and one has to be tried.
    let function = table.find(endpoint.function());
    let has_others = function.is_some_and(|function| function.available() > 1);
    if has_others && endpoint.meet(Event::Failed(fault), trouble) {
        table.touch();
        watch(endpoint, table, connect_timeout).await;
    }
}

/// Why an endpoint that is in doubt takes no calls.
enum Trouble {
    Unconnected(ConnectError),
    Silent,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unconnected(error) => error.fmt(f),
            Self::Silent => write!(
                f,
                "it takes connections, but its watchdog says nothing, asked {LIFE_QUESTIONS} times for {} each: paused?",
                duration::show(LIFE_LIMIT)
            ),
        }
    }
}

/// Asks a watchdog for anything at all: even that it is not well.
async fn sign_of_life(endpoint: &Endpoint, connect_timeout: Duration) -> Result<(), Trouble> {
    for _ in 0..LIFE_QUESTIONS {
        match ask(endpoint, "/_/health", connect_timeout, LIFE_LIMIT).await {
            Ok(Heard::Nothing) => {}
            // Whoever closes a connection lives, too.
            Ok(_) => return Ok(()),
            Err(error) => return Err(Trouble::Unconnected(error)),
        }
    }
    Err(Trouble::Silent)
}

async fn takes_calls(endpoint: &Endpoint, connect_timeout: Duration) -> bool {
    if let Some(path) = endpoint.ready_path() {
        let asked = ask(endpoint, &path, connect_timeout, ANSWER_LIMIT).await;
        return matches!(asked, Ok(Heard::Answer(answer)) if answer.status().is_success());
    }
    if !endpoint.is_watchdog() {
        // A server of HTTP/2 alone has no watchdog, and would not understand the question.
        if !endpoint.expects_watchdog() || endpoint.protocol() == Protocol::H2c {
            return reach(endpoint, connect_timeout).await.is_ok();
        }
        match ask(endpoint, "/_/health", connect_timeout, HEALTH_LIMIT).await {
            Err(_) => return false,
            Ok(Heard::Answer(answer)) if answer.headers().contains_key(WATCHDOG) => {
                endpoint.shows_watchdog(true);
            }
            // It has taken a connection, and is no watchdog of ours.
            Ok(_) => {
                endpoint.set_expects_watchdog(false);
                return true;
            }
        }
    }
    let asked = ask(endpoint, "/_/ready", connect_timeout, ANSWER_LIMIT).await;
    let Ok(Heard::Answer(answer)) = asked else {
        return false;
    };
    if !answer.headers().contains_key(WATCHDOG) {
        // A proxy that passes a watchdog's answers on, and has taken a connection just now.
        endpoint.shows_watchdog(false);
        return true;
    }
    // A full one (429) takes calls as soon as one of its own ends.
    answer.status().is_success() || answer.status() == StatusCode::TOO_MANY_REQUESTS
}

/// A connection, as all that is asked of those who may be anybody.
async fn reach(endpoint: &Endpoint, connect_timeout: Duration) -> Result<(), ConnectError> {
    let reached = connect::reach(endpoint.address().socket, connect_timeout).await;
    reached.map(drop)
}

/// What comes back when an endpoint is asked something.
enum Heard {
    /// The head of an answer.
    Answer(Response<Received>),
    /// The end of the connection, or nothing that can be read.
    Nonsense,
    /// Nothing within the limit.
    Nothing,
}

/// What comes back for a GET of this path.
async fn ask(
    endpoint: &Endpoint,
    path: &str,
    connect_timeout: Duration,
    limit: Duration,
) -> Result<Heard, ConnectError> {
    let to = endpoint.address().socket;
    let connection = connect::connect(Protocol::Http1, to, connect_timeout).await?;
    let request = Request::get(path).header(HOST, HeaderValue::from_static("function"));
    let Ok(head) = request.body(()) else {
        return Ok(Heard::Nonsense);
    };
    let asked = connection.send(&head, None, Upload::empty());
    Ok(
        match asked.answer_by((Instant::now() + limit).into()).await {
            Ok(Ok(answer)) => Heard::Answer(answer),
            Ok(Err(_)) => Heard::Nonsense,
            Err(_waiting) => Heard::Nothing,
        },
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::function::{Address, Handling};
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_server_of_http_2_is_asked_nothing_over_http_1() {
        for (protocol, is_asked) in [(Protocol::H2c, false), (Protocol::Http1, true)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = Address {
                id: "t".into(),
                socket: listener.local_addr().unwrap(),
            };
            let handling = Handling {
                expects_watchdog: true,
                protocol,
                ..Handling::default()
            };
            let endpoint = Endpoint::new(address, &handling, Metrics::new().function("f"), 1);
            let hears = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut heard = [0; 3];
                let length = stream.read(&mut heard).await.unwrap();
                heard[..length].to_vec()
            };
            let probe = takes_calls(&endpoint, Duration::from_secs(5));
            let (is_ready, heard) = tokio::join!(probe, hears);
            assert!(is_ready, "{protocol:?}");
            assert_eq!(heard == b"GET", is_asked, "{protocol:?}");
        }
    }
}
