//! What the gateway listens on: sockets of its own, or those of the gateway before it; and who gets them next.

use std::future::pending;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::config::Config;
use crate::handover::{self, Listeners, Predecessor};
use crate::server;

/// The open ports.
pub(super) struct Doors {
    pub(super) address: SocketAddr,
    /// The listeners of each worker.
    pub(super) workers: Vec<Vec<TcpListener>>,
    pub(super) metrics: Option<TcpListener>,
    /// The gateway that still serves on them.
    pub(super) predecessor: Option<Predecessor>,
    pub(super) heir: Heir,
}

impl Doors {
    pub(super) fn open(config: &Config) -> Result<Self, String> {
        let (predecessor, theirs) = ask(config)?;
        let calls = calls(config, theirs.calls)?;
        let metrics = match config.metrics_port {
            Some(port) => Some(one_for_metrics(config, port, theirs.metrics)?),
            None => None,
        };
        for listener in calls.iter().chain(&metrics) {
            if let Err(error) = server::cut_those_who_take_nothing(listener, config.write_timeout) {
                tracing::warn!("write_timeout does not hold: {error}");
            }
        }
        let address = calls[0].local_addr().map_err(|error| error.to_string())?;
        let ours = Listeners { calls, metrics };
        let kept = match config.handover {
            Some(_) => ours.held_again().map_err(|error| error.to_string())?,
            None => Listeners::default(),
        };
        Ok(Self {
            address,
            workers: deal(ours.calls, config.workers),
            metrics: ours.metrics,
            predecessor,
            heir: Heir(Arc::new(Mutex::new(kept))),
        })
    }
}

fn ask(config: &Config) -> Result<(Option<Predecessor>, Listeners), String> {
    let Some(path) = &config.handover else {
        return Ok((None, Listeners::default()));
    };
    let asked = Predecessor::ask(path).map_err(|error| {
        let path = path.display();
        format!("the gateway behind {path} does not hand its port over: {error}; end it first, or choose another socket with --handover")
    })?;
    Ok(
        asked.map_or_else(Default::default, |(predecessor, listeners)| {
            (Some(predecessor), listeners)
        }),
    )
}

/// The listeners for calls: those that are handed over if they are where we are to listen, and one for each worker at least.
fn calls(config: &Config, theirs: Vec<TcpListener>) -> Result<Vec<TcpListener>, String> {
    let told = |error| cannot_listen(config, config.port, "port", &error);
    let mut ours = theirs;
    ours.retain(|listener| is_at(listener, config, config.port));
    let Some(first) = ours.first() else {
        return server::listen(config.bind, config.port, config.workers).map_err(told);
    };
    let address = first.local_addr().map_err(told)?;
    while ours.len() < config.workers {
        ours.push(server::listen_shared(address).map_err(told)?);
    }
    Ok(ours)
}

fn one_for_metrics(
    config: &Config,
    port: u16,
    theirs: Option<TcpListener>,
) -> Result<TcpListener, String> {
    if let Some(listener) = theirs.filter(|listener| is_at(listener, config, port)) {
        return Ok(listener);
    }
    let opened = server::listen(config.bind, port, 1);
    let mut opened = opened.map_err(|error| cannot_listen(config, port, "metrics-port", &error))?;
    Ok(opened.remove(0))
}

fn cannot_listen(config: &Config, port: u16, flag: &str, error: &std::io::Error) -> String {
    let bind = config.bind;
    format!("cannot listen on {bind}:{port}: {error}; choose another with --{flag}")
}

fn is_at(listener: &TcpListener, config: &Config, port: u16) -> bool {
    listener
        .local_addr()
        .is_ok_and(|at| at.ip() == config.bind && (port == 0 || at.port() == port))
}

/// Every listener has a worker and every worker a listener: there are at least as many listeners.
fn deal(listeners: Vec<TcpListener>, workers: usize) -> Vec<Vec<TcpListener>> {
    let mut dealt: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for (nth, listener) in listeners.into_iter().enumerate() {
        dealt[nth % workers].push(listener);
    }
    dealt
}

/// The next gateway, if it comes while we run.
#[derive(Clone)]
pub(super) struct Heir(Arc<Mutex<Listeners>>);

impl Heir {
    /// Waits until the next gateway serves on our listeners; for ever if none can come.
    pub(super) async fn serves(&self, config: &Config) -> Result<(), String> {
        let Some(path) = &config.handover else {
            return pending().await;
        };
        let offered = handover::offer(path).map_err(|error| {
            let path = path.display();
            format!("cannot make the socket {path}: {error}; choose another with --handover")
        })?;
        let (tell, served) = oneshot::channel();
        let listeners = self.0.clone();
        std::thread::Builder::new()
            .name("handover".to_owned())
            .spawn(move || {
                offered(&listeners);
                // Nobody listens any more while the gateway ends for another reason.
                let _ = tell.send(());
            })
            .map_err(|error| format!("no thread: {error}"))?;
        served.await.map_err(|error| error.to_string())
    }

    /// Nobody gets the listeners: with the last holder they close.
    pub(super) fn gets_nothing(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Listeners::default();
    }
}
