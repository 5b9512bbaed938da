//! Is this endpoint taking calls? First contact with a new one, the return of an ejected one, and doubts about a silent one.
//!
//! Readiness is an accepted connection: a request would run the function of an image that has no watchdog of ours. Only
//! where a label names a path, or the endpoint has shown itself to be our watchdog, it is asked (docs/decisions/0012).

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::header::{HOST, HeaderValue};
use tokio::sync::mpsc;

use crate::connect::{self, ConnectError};
use crate::endpoint::Endpoint;
use crate::function::Protocol;
use crate::life::{Event, Fault, State};
use crate::table::Table;
use crate::upload::Upload;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long the answer to the question for readiness may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

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

/// A host that does not even take a connection is gone; a function that is slow has one that does.
async fn doubt(endpoint: &Endpoint, table: &Table, connect_timeout: Duration) {
    let Err(error) = connect::reach(endpoint.address().socket, connect_timeout).await else {
        return;
    };
    let fault = match error {
        ConnectError::Ours(..) => return,
        ConnectError::Refused(..) => Fault::Refused,
        ConnectError::Silent(..) => Fault::Silent,
    };
    // Others may have gone meanwhile; if all are silent, it may be the gateway that is cut off, and one has to be tried.
    let function = table.find(endpoint.function());
    let has_others = function.is_some_and(|function| function.available() > 1);
    if has_others && endpoint.meet(Event::Failed(fault), error) {
        table.touch();
        watch(endpoint, table, connect_timeout).await;
    }
}

async fn takes_calls(endpoint: &Endpoint, connect_timeout: Duration) -> bool {
    let to = endpoint.address().socket;
    match endpoint.probe_path() {
        None => connect::reach(to, connect_timeout).await.is_ok(),
        Some(path) => is_well(endpoint, path, connect_timeout).await,
    }
}

/// Whether a GET of this path is answered with success.
async fn is_well(endpoint: &Endpoint, path: &str, connect_timeout: Duration) -> bool {
    let to = endpoint.address().socket;
    let Ok(connection) = connect::connect(Protocol::Http1, to, connect_timeout).await else {
        return false;
    };
    let request = Request::get(path).header(HOST, HeaderValue::from_static("function"));
    let Ok((head, ())) = request.body(()).map(Request::into_parts) else {
        return false;
    };
    let asked = connection.send(&head, Upload::empty());
    let answer = asked
        .answer_by((Instant::now() + ANSWER_LIMIT).into())
        .await;
    matches!(answer, Ok(Ok(answer)) if answer.status().is_success())
}
