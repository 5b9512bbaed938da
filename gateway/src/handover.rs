//! Hot restart: the listeners of a running gateway handed over to the next one, so that a restart refuses and resets no connection.
//!
//! The next gateway (the successor, S) connects to a Unix socket of the running one (the predecessor, P) and is sent P's listeners.
//! Both then hold the same sockets, so no queue is closed and no port is free at any time. P accepts until S has shown, several times
//! over most of a second, that it serves; then P drains. P decides as long as it lives; when P is gone, S does.
//!
//! | state of P | state of S | who accepts | the message that ends it | limit | the other one dies (or is stopped: SIGSTOP) |
//! |---|---|---|---|---|---|
//! | idle | asking: connected | P | P: each listener with its kind, then `;` | S waits 6 s (`ANSWER`) for each | S: nothing changes. P: S asks again, finds nobody and opens the port itself (stopped: S ends with an error) |
//! | offered | preparing: has the listeners, not ready | P | S: `a`, "I accept" | P waits 120 s (`START`); S waits 60 s (`MOST_WAIT`) for its functions | S: P closes and is idle (stopped: after the limit). P: S accepts at once (stopped: as soon as it is ready) |
//! | checking (4 times in 0.75 s) | taking: accepts | both | P: `y`, "it is yours"; S answers `d`, "I have it", with its own socket in place | P waits 5 s (`CONFIRM`) for each `d`; S as long for each `y` | S: P goes on, puts its socket back and is idle. P: S is idle: the port is its own |
//! | given: drains | idle | S | P closes the connection | none: nobody waits | P: nothing changes. S: the port is closed, as when any gateway crashes |
//!
//! - A second successor that comes between *offered* and *given* is sent `b`, "busy", and asks again, for 150 s (`TURN`) at most.
//! - P goes on serving after a failed hand-over and says `n`, "taken back", before it closes: S, if it lives, ends without accepting
//!   any more. A connection that ends without it means that P is gone, and S goes on alone.
//! - A P that is stopped and continues later reads what S has said first, and S answers it as long as it runs; an S that has passed
//!   the port on to a third gateway leaves `x` behind, and such a P drains, too.
//! - Told to end (TERM), P in *offered* or *checking* drains at once and S goes on alone; S before *idle* drains, and P goes on. Neither
//!   drops new connections by a filter, as a gateway does that ends alone: the filter sits on the sockets that both hold. S removes any
//!   filter from the sockets that it takes over.

mod listeners;
mod offer;
mod predecessor;
mod socket;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub use self::listeners::Listeners;
pub use self::offer::{HotRestart, Turn};
pub use self::predecessor::Predecessor;

/// P: another successor is being served; ask again.
const BUSY: u8 = b'b';
/// P: those were all listeners.
const END: u8 = b';';
/// S: it accepts.
const ACCEPTS: u8 = b'a';
/// P: the port is S's, if S still runs.
const YOURS: u8 = b'y';
/// S: it has the port, and its socket is in place.
const HAS_IT: u8 = b'd';
/// P: it keeps the port.
const TAKEN_BACK: u8 = b'n';
/// S: a third gateway has the port.
const PASSED_ON: u8 = b'x';

/// How long P may take to send a listener, and S to take one.
const ANSWER: Duration = Duration::from_secs(6);
/// How long S may take from the last listener until it accepts.
const START: Duration = Duration::from_secs(120);
/// How long S may wait for its functions: well below `START`.
pub const MOST_WAIT: Duration = Duration::from_secs(60);
const _: () = assert!(MOST_WAIT.as_secs() * 2 <= START.as_secs());
/// How long each may take to answer while the port changes hands.
const CONFIRM: Duration = Duration::from_secs(5);
/// How often S shows that it still serves, and the pauses between.
const CHECKS: usize = 4;
const CHECK_PAUSE: Duration = Duration::from_millis(250);
/// How long a successor waits for its turn behind another one.
const TURN: Duration = Duration::from_secs(150);
/// The pause before a successor asks again.
const PAUSE: Duration = Duration::from_millis(100);

/// The next byte from the other side, if it comes within the limit; what has come already is read even if the limit is over.
fn next(mut stream: &UnixStream, limit: Duration) -> io::Result<u8> {
    stream.set_read_timeout(Some(limit))?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Sends one byte. The other side has read all before it, or is about to: it fits at once, or nobody reads it.
fn say(mut stream: &UnixStream, byte: u8) -> io::Result<()> {
    stream.set_write_timeout(Some(PAUSE))?;
    stream.write_all(&[byte])
}

/// A sentence for a limit that is over; the kernel says "resource temporarily unavailable".
fn in_words(error: io::Error, limit: Duration) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {limit:?}"),
        ),
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests;
