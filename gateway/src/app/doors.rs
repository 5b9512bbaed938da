//! What the gateway listens on: sockets of its own, or those of the gateway before it; and who gets them next.

use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio_rustls::TlsAcceptor;

use crate::api::types::{Port, Serves};
use crate::config::Config;
use crate::handover::{Listeners, Predecessor};
use crate::server::{self, Door};

/// How long a gateway that can be restarted waits for a port whose last holder ends, beside the time that the port stays open then.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
const PORT_PAUSE: Duration = Duration::from_millis(50);

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
    /// The same listeners, for the next gateway.
    pub(super) kept: Listeners,
}

impl Doors {
    pub(super) fn open(config: &Config, tls: Option<&TlsAcceptor>) -> Result<Self, String> {
        let last = Instant::now() + PORT_PATIENCE + config.drain_delay;
        loop {
            let (predecessor, theirs) = ask(config)?;
            let is_alone = predecessor.is_none();
            match Self::over(config, tls, predecessor, theirs) {
                // Another gateway may be about to offer its port, or about to close it.
                Err(_) if is_alone && config.handover.is_some() && Instant::now() < last => {
                    sleep(PORT_PAUSE);
                }
                opened => return opened,
            }
        }
    }

    /// The ports of these listeners, and of new ones where there are none.
    fn over(
        config: &Config,
        tls: Option<&TlsAcceptor>,
        predecessor: Option<Predecessor>,
        theirs: Listeners,
    ) -> Result<Self, String> {
        let workers = config.workers;
        let tls_port = config.tls.as_ref().map(|tls| tls.port);
        let mut ours = Listeners {
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
        for calls in [&mut ours.calls, &mut ours.secure] {
            one_for_each(calls, workers).map_err(|error| error.to_string())?;
        }
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
            kept,
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

/// The listeners of one port: those that are handed over if they are where we are to listen, or so many new ones.
fn open(
    config: &Config,
    port: Option<u16>,
    flag: &str,
    theirs: Vec<TcpListener>,
    count: usize,
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
    if ours.is_empty() {
        ours = server::listen(bind, port, count).map_err(told)?;
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

/// Workers that are more than the listeners share some. A new listener beside those that are handed over would have a queue of its
/// own, and connections that wait in it would be reset if this gateway failed before it served.
fn one_for_each(listeners: &mut Vec<TcpListener>, workers: usize) -> std::io::Result<()> {
    for nth in 0..workers.saturating_sub(listeners.len()) {
        if let Some(listener) = listeners.get(nth) {
            listeners.push(listener.try_clone()?);
        }
    }
    Ok(())
}

/// Every door has a worker and every worker a door of each port: there are at least as many.
fn deal(doors: impl Iterator<Item = Door>, workers: usize) -> Vec<Vec<Door>> {
    let mut dealt: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for (nth, door) in doors.enumerate() {
        dealt[nth % workers].push(door);
    }
    dealt
}
