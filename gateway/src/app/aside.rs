//! The ports that take no calls are served beside the workers, where pages are made anyway, so that calls cost them nothing.

use std::net::TcpListener;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::workers::limits;
use crate::config::Config;
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::server::{self, Answers, Caller, Door, Order, Patience};

/// Operators and what they watch with; more are none.
const MOST_CONNECTIONS: usize = 1024;

/// Serves one of them until it is told to end.
pub(super) fn serve<M, S>(
    listener: TcpListener,
    make: M,
    config: &Config,
    orders: &watch::Sender<Order>,
) -> JoinHandle<()>
where
    M: Fn(Caller) -> S + Clone + Send + Sync + 'static,
    S: Answers,
{
    // Whoever watches is not counted among the callers, and comes in when there are too many of those.
    let counts = Metrics::new().connections();
    let limits = limits(config, counts, Some(MOST_CONNECTIONS));
    let ordered = orders.subscribe();
    let patience = Patience {
        drain: config.drain_timeout,
        ..Patience::default()
    };
    tokio::spawn(async move {
        let (doors, drain) = (vec![Door::plain(listener)], Drain::default());
        let served = server::serve(doors, make, &limits, ordered, &drain, patience).await;
        if let Err(error) = served {
            tracing::error!("a port that takes no calls: {error}");
        }
    })
}
