//! The threads that carry calls: each has a runtime, connections and listeners of its own.

use std::sync::Arc;

use prometheus::{Gauge, IntCounter};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::Gateway;
use crate::api::Manager;
use crate::config::Config;
use crate::drain::Drain;
use crate::edge::Edge;
use crate::invoke::Invoker;
use crate::metrics::Metrics;
use crate::server::proxy_protocol::{ProxyProtocol, Wrong};
use crate::server::{self, ConnectionLimits, Connections, Drained, Limits, Order, Patience};

impl Gateway {
    /// Starts them; each tells here how it ended.
    pub(super) fn start_workers(
        self,
        config: &Config,
        manager: &Arc<Manager>,
        ordered: &watch::Receiver<Order>,
    ) -> Result<Vec<oneshot::Receiver<Drained>>, String> {
        let control = Handle::current();
        let proxy_protocol = proxy_protocol(config, &self.shared.metrics);
        let mut ends = Vec::new();
        for (number, doors) in self.doors.workers.into_iter().enumerate() {
            let drain = Drain::default();
            let edge = Arc::new(Edge {
                invoker: Invoker::new(self.shared.clone(), number, drain.clone()),
                pages: self.pages.clone(),
                manager: manager.clone(),
                metrics: self.shared.metrics.clone(),
                proxies: config.trusted_proxies.clone(),
                control: control.clone(),
                namespace: config.namespace.as_str().into(),
                max_headers: config.max_headers,
                calls_only: config.system_port.is_some(),
            });
            let counts = self.shared.metrics.connections();
            let mut limits = limits(config, counts, config.max_connections);
            limits.proxy_protocol = proxy_protocol.clone();
            let ordered = ordered.clone();
            let patience = Patience {
                delay: config.drain_delay,
                drain: config.drain_timeout,
            };
            let (ended, end) = oneshot::channel();
            let work = move || {
                let runtime = Builder::new_current_thread().enable_all().build();
                let served = runtime.and_then(|runtime| {
                    runtime.block_on(server::serve(
                        doors,
                        move |caller| edge.clone().service(caller),
                        &limits,
                        ordered,
                        &drain,
                        patience,
                    ))
                });
                match served {
                    // The receiver is gone when a second signal has ended the wait.
                    Ok(drained) => drop(ended.send(drained)),
                    Err(error) => tracing::error!("worker {number}: {error}"),
                }
            };
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(work)
                .map_err(|error| format!("no thread: {error}"))?;
            ends.push(end);
        }
        Ok(ends)
    }
}

/// What bounds the connections of a port, but for what they begin with.
pub(super) fn limits(config: &Config, counts: (Gauge, IntCounter), most: Option<usize>) -> Limits {
    let (open, refused) = counts;
    Limits {
        each: ConnectionLimits {
            read_timeout: config.read_timeout,
            write_timeout: config.write_timeout,
            max_header_bytes: config.max_header_bytes,
            max_headers: config.max_headers,
        },
        all: Connections {
            open,
            refused,
            most,
        },
        proxy_protocol: None,
    }
}

/// What every connection for calls begins with, if balancers are told to send it.
fn proxy_protocol(config: &Config, metrics: &Metrics) -> Option<Arc<ProxyProtocol>> {
    let protocol = || ProxyProtocol {
        trusted: config.trusted_proxies.clone(),
        closed: metrics.proxy_protocol(Wrong::ALL.map(Wrong::label)),
    };
    config.proxy_protocol.then(|| Arc::new(protocol()))
}

/// Waits until every worker has drained; one that ended on its own is an error at once.
pub(super) async fn all_ended(workers: Vec<oneshot::Receiver<Drained>>) -> Result<(), String> {
    let mut workers: JoinSet<_> = workers.into_iter().collect();
    while let Some(ended) = workers.join_next().await {
        match ended {
            Ok(Ok(Drained::Clean)) => {}
            Ok(Ok(Drained::Cut)) => {
                tracing::warn!("drain_timeout is over: calls that still run are cut")
            }
            _ => return Err("a worker ended early: see the log above".to_owned()),
        }
    }
    Ok(())
}
