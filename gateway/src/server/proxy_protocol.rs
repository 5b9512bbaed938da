//! The PROXY protocol: who a load balancer says is at the other end of a connection, before everything else on it.

pub mod header;

use std::net::IpAddr;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

pub use self::header::Wrong;
use self::header::{Progress, Source, parse};
use super::Caller;
use crate::drain::{Guest, Phase};
use crate::proxies::Proxies;

/// What it takes to let connections begin with a PROXY header.
pub struct ProxyProtocol {
    /// Who may send one: everybody, if nobody is named.
    pub trusted: Proxies,
    /// Connections that were closed for it, one count for each of [`Wrong::ALL`].
    pub closed: [IntCounter; Wrong::ALL.len()],
}

impl ProxyProtocol {
    /// Reads the header that a connection begins with, and nothing after it: who calls, in place of what the connection
    /// shows. `None`: it is to be closed, because of the header, which was told, or because the server ends.
    pub(super) async fn caller(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        shown: Caller,
        limit: Duration,
        guest: &mut Guest,
    ) -> Option<Caller> {
        let is_trusted = self.trusted.is_empty() || self.trusted.trust(shown.peer.ip());
        let source = if is_trusted {
            tokio::select! {
                biased;
                read = timeout(limit, read(stream)) => read.unwrap_or(Err(Wrong::Incomplete)),
                () = guest.reached(Phase::Finishing) => return None,
            }
        } else {
            Err(Wrong::Untrusted)
        };
        match source {
            Ok(Source::Balancer) => Some(shown),
            Ok(Source::Caller(peer)) => Some(Caller { peer, ..shown }),
            Ok(Source::Unknown) => Some(Caller {
                is_known: false,
                ..shown
            }),
            Err(wrong) => {
                self.tell(wrong, shown.peer.ip());
                None
            }
        }
    }

    /// The first of its kind is for the operator's eyes; anybody can cause the others.
    fn tell(&self, wrong: Wrong, peer: IpAddr) {
        let count = &self.closed[wrong as usize];
        let is_first = count.get() == 0;
        count.inc();
        let (peer, sentence) = (peer.to_canonical(), wrong.sentence());
        // Balancers connect and close at once to see whether somebody is there.
        if is_first && wrong != Wrong::Incomplete {
            tracing::warn!("a connection from {peer} was closed: {sentence} (said once)");
        } else {
            tracing::debug!("a connection from {peer} was closed: {sentence}");
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Source, Wrong> {
    let mut bytes = Vec::new();
    loop {
        let wanted = match parse(&bytes)? {
            Progress::Whole(header) => return Ok(header.source),
            Progress::Wants(wanted) => wanted - bytes.len(),
        };
        // Not one byte more: what follows is not ours.
        let mut piece = stream.take(wanted as u64);
        match piece.read_buf(&mut bytes).await {
            Ok(1..) => {}
            _ => return Err(Wrong::Incomplete),
        }
    }
}
