//! Is this endpoint taking calls? First contact with a new one, and the return of one that refused.
//!
//! Readiness is an accepted connection: a request would run the function of an image that has no watchdog of ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::endpoint::{Endpoint, State};
use crate::table::Table;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Hands endpoints to the prober.
#[derive(Clone)]
pub struct Prober(mpsc::UnboundedSender<Arc<Endpoint>>);

impl Prober {
    /// A prober and the queue that [`run`] works off. The queue holds each listed endpoint at most once for each ejection.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Arc<Endpoint>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Probes this endpoint until it accepts a connection or is gone.
    pub fn watch(&self, endpoint: Arc<Endpoint>) {
        // Nobody receives while the gateway shuts down: then nothing needs a probe.
        let _ = self.0.send(endpoint);
    }
}

/// Probes every endpoint of the queue, side by side, until the queue closes.
pub async fn run(
    mut queue: mpsc::UnboundedReceiver<Arc<Endpoint>>,
    table: Table,
    connect_timeout: Duration,
) {
    while let Some(endpoint) = queue.recv().await {
        tokio::spawn(probe(endpoint, table.clone(), connect_timeout));
    }
}

async fn probe(endpoint: Arc<Endpoint>, table: Table, connect_timeout: Duration) {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    let was = endpoint.state();
    while !accepts(endpoint.address().socket, connect_timeout).await {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        if endpoint.state() == State::Gone {
            return;
        }
    }
    if endpoint.accepted() {
        let ms = began.elapsed().as_millis();
        tracing::info!(endpoint = %endpoint.address().socket, was = was.name(), ms, "endpoint takes calls");
        table.touch();
    }
}

async fn accepts(address: SocketAddr, connect_timeout: Duration) -> bool {
    matches!(
        tokio::time::timeout(connect_timeout, TcpStream::connect(address)).await,
        Ok(Ok(_))
    )
}
