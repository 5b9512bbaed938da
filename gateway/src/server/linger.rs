//! The close after an answer that came before the end of its request: what the caller still sends is read and thrown away, for a
//! while. Closed at once, the kernel would answer those bytes with a reset, and a reset takes the answer away from a caller who has
//! not read it yet.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;

use crate::drain::{Guest, Phase};

/// How long a caller may be silent. Its answer is on its way meanwhile, once or twice.
const SILENCE: Duration = Duration::from_secs(2);
/// How long it may go on at all. Most look for an answer while they send; who does not has so long for the rest. A proxy of
/// browsers alone would wait longer; here each of them counts among the connections, and a drain waits for it.
const LONGEST: Duration = Duration::from_secs(10);
/// What is read of it at most: somebody on a fast network should not keep us busy for nothing.
const MOST: usize = 64 << 20;
/// What is read at once, on the stack.
const PIECE: usize = 16 << 10;

/// Waits until the caller closes, too. Our side of the connection has been shut down.
pub(super) async fn linger(mut io: impl AsyncRead + Unpin, mut guest: Guest) {
    let mut left = MOST;
    let until_closed = async {
        while left > 0 {
            match timeout(SILENCE, read(&mut io)).await {
                Ok(count @ 1..) => left = left.saturating_sub(count),
                _ => return,
            }
        }
    };
    tokio::select! {
        _ = timeout(LONGEST, until_closed) => {}
        () = guest.reached(Phase::Over) => {}
    }
}

/// How much came and was thrown away; 0 is the end.
async fn read(io: &mut (impl AsyncRead + Unpin)) -> usize {
    poll_fn(|cx| {
        let mut piece = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut piece);
        let ended = ready!(Pin::new(&mut *io).poll_read(cx, &mut piece));
        let count = ended.map_or(0, |()| piece.filled().len());
        std::task::Poll::Ready(count)
    })
    .await
}
