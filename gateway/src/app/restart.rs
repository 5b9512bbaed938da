//! A gateway's start after, and its end before another one on the same ports.

use std::future::Future;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::config::Config;
use crate::handover::{HotRestart, Listeners, MOST_WAIT, Predecessor, Turn};
use crate::table::Table;

/// Waits, where another gateway serves, until we can call all functions, too: but not for long, and no longer than that one runs.
pub(super) async fn ready(before: Option<&Predecessor>, table: &Table, patience: Duration) {
    let Some(before) = before else {
        return;
    };
    let patience = patience.min(MOST_WAIT);
    tokio::select! {
        _ = tokio::time::timeout(patience, table.all_ready(patience)) => {}
        () = before.stirs() => {}
    }
}

/// Takes the port over and offers it to the next gateway, if there may be one; and what becomes of the port, once it is not ours.
pub(super) fn start(
    config: &Config,
    listeners: Listeners,
    before: Option<Predecessor>,
) -> Result<(Option<HotRestart>, impl Future<Output = Turn> + use<>), String> {
    let (tell, turn) = oneshot::channel();
    let restart = match &config.handover {
        None => None,
        Some(path) => {
            // Not heard by a gateway that ends for another reason.
            let tell = move |turn| {
                let _ = tell.send(turn);
            };
            let started = HotRestart::start(path, listeners, before, tell);
            Some(started.map_err(|error| {
                let path = path.display();
                format!("cannot make the socket {path}: {error}; choose another with --handover")
            })?)
        }
    };
    let turn = async {
        match turn.await {
            Ok(turn) => turn,
            Err(_) => std::future::pending().await,
        }
    };
    Ok((restart, turn))
}
