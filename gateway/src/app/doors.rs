//! What the gateway listens on: sockets of its own, or those of the gateway before it; and who gets them next.

use std::future::pending;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::api::types::{Port, Serves};
use crate::config::Config;
use crate::handover::{self, Listeners, Predecessor};
use crate::server::{self, Door};

/// The open ports.
pub(super) struct Doors {
    /// The doors of each worker.
    pub(super) workers: Vec<Vec<Door>>,
    pub(super) system: Option<TcpListener>,
    pub(super) metrics: Option<TcpListener>,
    /// Each port, and what it is for.
    pub(super) ports: Vec<Port>,
    /// The gateway that still serves on them.
    pub(super) predecessor: Option<Predecessor>,
    pub(super) heir: Heir,
}

impl Doors {
    pub(super) fn open(config: &Config, tls: Option<&TlsAcceptor>) -> Result<Self, String> {
        let (predecessor, theirs) = ask(config)?;
        let workers = config.workers;
        let tls_port = config.tls.as_ref().map(|tls| tls.port);
        let ours = Listeners {
            calls: open(config, config.port, "port", theirs.calls, workers)?,
            secure: open(config, tls_port, "tls-port", theirs.secure, workers)?,
            system: open(config, config.system_port, "system-port", theirs.system, 1)?,
            metrics: open(
                config,
                config.metrics_port,
                "metrics-port",
                theirs.metrics,
                1,
            )?,
        };
        let kept = match config.handover {
            Some(_) => ours.held_again().map_err(|error| error.to_string())?,
            None => Listeners::default(),
        };
        let ports = ports(&ours);
        let plain = ours.calls.into_iter().map(Door::plain);
        let secure = ours.secure.into_iter().map(|listener| Door {
            listener,
            tls: tls.cloned(),
        });
        let mut dealt = deal(plain, workers);
        for (worker, doors) in dealt.iter_mut().zip(deal(secure, workers)) {
            worker.extend(doors);
        }
        Ok(Self {
            ports,
            workers: dealt,
            system: ours.system.into_iter().next(),
            metrics: ours.metrics.into_iter().next(),
            predecessor,
            heir: Heir(Arc::new(Mutex::new(kept))),
        })
    }
}

/// Each port, and what it is for: those for calls first, the plain one before the other.
fn ports(open: &Listeners) -> Vec<Port> {
    let calls = if open.system.is_empty() {
        Serves::Everything
    } else {
        Serves::Calls
    };
    let kinds = [
        ("http", &open.calls, calls),
        ("https", &open.secure, calls),
        ("http", &open.system, Serves::System),
        ("http", &open.metrics, Serves::Metrics),
    ];
    let port = |(scheme, listeners, serves): (_, &Vec<TcpListener>, _)| {
        let address = listeners.first()?.local_addr().ok()?;
        Some(Port {
            url: format!("{scheme}://{address}"),
            serves,
        })
    };
    kinds.into_iter().filter_map(port).collect()
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

/// The listeners of one port: those that are handed over if they are where we are to listen, and so many at least.
fn open(
    config: &Config,
    port: Option<u16>,
    flag: &str,
    theirs: Vec<TcpListener>,
    least: usize,
) -> Result<Vec<TcpListener>, String> {
    let Some(port) = port else {
        return Ok(Vec::new());
    };
    let bind = config.bind;
    let told = |error: std::io::Error| {
        format!("cannot listen on {bind}:{port}: {error}; choose another with --{flag}")
    };
    let mut ours = theirs;
    ours.retain(|listener| is_at(listener, config, port));
    match ours.first() {
        None => ours = server::listen(bind, port, least).map_err(told)?,
        Some(first) => {
            let address = first.local_addr().map_err(told)?;
            while ours.len() < least {
                ours.push(server::listen_shared(address).map_err(told)?);
            }
        }
    }
    for listener in &ours {
        if let Err(error) = server::cut_those_who_take_nothing(listener, config.write_timeout) {
            tracing::warn!("write_timeout does not hold: {error}");
        }
    }
    Ok(ours)
}

fn is_at(listener: &TcpListener, config: &Config, port: u16) -> bool {
    listener
        .local_addr()
        .is_ok_and(|at| at.ip() == config.bind && (port == 0 || at.port() == port))
}

/// Every door has a worker and every worker a door of each port: there are at least as many.
fn deal(doors: impl Iterator<Item = Door>, workers: usize) -> Vec<Vec<Door>> {
    let mut dealt: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for (nth, door) in doors.enumerate() {
        dealt[nth % workers].push(door);
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
