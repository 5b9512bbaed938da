//! The running gateway, as its successor sees it.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

use super::listeners::{Listeners, receive};
use super::{
    ACCEPTS, ANSWER, CONFIRM, HAS_IT, PAUSE, TAKEN_BACK, TURN, YOURS, in_words, next, say,
};

/// The gateway that runs.
#[derive(Debug)]
pub struct Predecessor(pub(super) UnixStream);

/// How the port changed hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The predecessor has left, or is gone.
    Alone,
    /// It does not answer. It may continue later.
    Unanswered,
    /// It keeps the port.
    Back,
}

impl Predecessor {
    /// Its listeners; `None` if no gateway runs behind this socket. Waits for its turn while another successor is served.
    ///
    /// # Errors
    /// When a gateway is there and does not hand over.
    pub fn ask(path: &Path) -> io::Result<Option<(Self, Listeners)>> {
        let began = Instant::now();
        loop {
            let stream = match UnixStream::connect(path) {
                Ok(stream) => stream,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::ConnectionRefused
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            stream.set_read_timeout(Some(ANSWER))?;
            match receive(&stream) {
                Ok(Some(listeners)) => return Ok(Some((Self(stream), listeners))),
                Ok(None) if began.elapsed() < TURN => {}
                Ok(None) => {
                    let why = format!("it has been handing over to another one for {TURN:?}");
                    return Err(io::Error::new(ErrorKind::TimedOut, why));
                }
                // It has just ended or handed over to another one, which may be found now.
                Err(error) if is_end(&error) && began.elapsed() < ANSWER => {}
                Err(error) => return Err(in_words(error, ANSWER)),
            }
            sleep(PAUSE);
        }
    }

    /// Waits until it says something or is gone, for ever if it does neither.
    pub async fn stirs(&self) {
        match self.watched() {
            Ok(watched) => drop(watched.readable().await),
            Err(error) => {
                tracing::debug!("the gateway before cannot be watched: {error}");
                pending().await
            }
        }
    }

    fn watched(&self) -> io::Result<tokio::net::UnixStream> {
        let stream = self.0.try_clone()?;
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)
    }

    /// Says that we accept.
    pub(super) fn accepts(&self) {
        // It was watched until now.
        let _ = self.0.set_nonblocking(false);
        // One that is gone is noticed by the next read.
        let _ = say(&self.0, ACCEPTS);
    }

    /// Answers until the port is ours or not. Has `put_in_place` called before it says that it is.
    pub(super) fn take(&self, put_in_place: impl Fn()) -> Taken {
        loop {
            let taken = match next(&self.0, CONFIRM) {
                Ok(YOURS) => None,
                Ok(TAKEN_BACK) => return Taken::Back,
                Err(error) if is_end(&error) => Some(Taken::Alone),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Some(Taken::Unanswered),
                // It breaks off or speaks of something else: nobody is there to hand over.
                Ok(_) | Err(_) => Some(Taken::Alone),
            };
            put_in_place();
            if taken != Some(Taken::Alone) {
                // Read when it continues, if it does not read now.
                let _ = say(&self.0, HAS_IT);
            }
            if let Some(taken) = taken {
                return taken;
            }
        }
    }

    /// Goes on answering one that did not, until it is gone.
    pub(super) fn answer_later(&self) -> Taken {
        loop {
            match next(&self.0, CONFIRM) {
                Ok(YOURS) => drop(say(&self.0, HAS_IT)),
                Ok(TAKEN_BACK) => return Taken::Back,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Taken::Alone,
            }
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
