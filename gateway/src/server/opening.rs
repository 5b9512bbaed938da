//! What comes before HTTP on some connections: a proxy's word on who calls, and the handshake of TLS.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::proxy_protocol::ProxyProtocol;
use super::tls::Shaking;
use super::{Answers, Caller, ConnectionLimits, Counted, connection};
use crate::drain::Guest;

/// A connection on which nothing has been said yet.
pub(super) struct Opening {
    pub(super) stream: TcpStream,
    pub(super) proxy_protocol: Option<Arc<ProxyProtocol>>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) limits: ConnectionLimits,
}

impl Opening {
    /// The whole of it: who calls, hands shaken, then HTTP.
    pub(super) async fn connection<M, S>(
        self,
        shown: Caller,
        make: M,
        mut guest: Guest,
        counted: Counted,
    ) where
        M: Fn(Caller) -> S,
        S: Answers,
    {
        let Self {
            mut stream,
            proxy_protocol,
            tls,
            limits,
        } = self;
        let mut caller = shown;
        if let Some(protocol) = proxy_protocol {
            let told = protocol.caller(&mut stream, shown, limits.read_timeout, &mut guest);
            let Some(told) = told.await else { return };
            caller = told;
        }
        let service = make(caller);
        match tls {
            None => connection(stream, service, limits, guest, counted).await,
            Some(tls) => {
                let shaking = Shaking {
                    stream,
                    tls,
                    limits,
                };
                shaking.connection(service, guest, counted).await;
            }
        }
    }
}
