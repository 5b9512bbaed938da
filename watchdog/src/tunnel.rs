//! An upgraded connection: bytes both ways between client and function until either side has had enough.

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::watchdog::Counted;

/// A connection to the function that hyper is done with, and what it had read too far.
pub(crate) type Rest = (TcpStream, Bytes);

/// The function's side, given as soon as its answer has been read.
#[derive(Debug)]
pub(crate) struct Tunnel {
    function: oneshot::Receiver<Rest>,
    /// The call goes on as long as the tunnel does.
    _slot: Counted,
}

impl Tunnel {
    /// A tunnel to the connection that `function` will bring.
    pub(crate) fn new(function: oneshot::Receiver<Rest>, slot: Counted) -> Self {
        Self {
            function,
            _slot: slot,
        }
    }

    /// Passes on what the client has sent already, then everything.
    pub(crate) async fn run(self, mut client: TcpStream, early: Bytes) {
        let Ok((mut function, late)) = self.function.await else {
            return;
        };
        // Errors are one side's hanging up, which ends the tunnel as it should.
        if function.write_all(&early).await.is_ok() && client.write_all(&late).await.is_ok() {
            let _ = copy_bidirectional(&mut client, &mut function).await;
        }
    }
}
