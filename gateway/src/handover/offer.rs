//! A gateway that can be restarted: takes the port over from its predecessor, if it has one, and hands it over to its successor.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, sleep};

use super::listeners::{Listeners, send_all};
use super::predecessor::{Predecessor, Taken};
use super::socket::Socket;
use super::{
    ACCEPTS, ANSWER, BUSY, CHECK_PAUSE, CHECKS, CONFIRM, HAS_IT, PASSED_ON, PAUSE, START,
    TAKEN_BACK, YOURS, in_words, next, say,
};

/// What became of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The successor serves.
    Given,
    /// The predecessor keeps it.
    TakenBack,
}

/// A gateway's part in hot restarts.
#[derive(Clone)]
pub struct HotRestart(Arc<Shared>);

struct Shared {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// What the successor gets.
    listeners: Listeners,
    /// The gateway before us, while it may hold the same listeners.
    before: Option<UnixStream>,
    /// Who wants to know what became of the port.
    tell: Option<Box<dyn FnOnce(Turn) + Send>>,
}

enum Phase {
    /// Takes the port over.
    Taking,
    /// Serves, and waits for a successor.
    Idle,
    /// A successor has the listeners, or is being sent them.
    Offered(UnixStream),
    /// The successor serves, or the predecessor does.
    Over,
    /// Told to end.
    Ending,
}

impl HotRestart {
    /// Says to the predecessor that we accept on these listeners, which we do from now on, and offers them to the next gateway as soon
    /// as they are ours alone. `tell` hears once that they are not any more.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(
        path: &Path,
        listeners: Listeners,
        predecessor: Option<Predecessor>,
        tell: impl FnOnce(Turn) + Send + 'static,
    ) -> io::Result<Self> {
        let socket = Socket::beside(path)?;
        let (phase, before) = match &predecessor {
            None => {
                socket.put_in_place()?;
                (Phase::Idle, None)
            }
            Some(predecessor) => (Phase::Taking, Some(predecessor.0.try_clone()?)),
        };
        let restart = Self(Arc::new(Shared {
            path: path.to_owned(),
            state: Mutex::new(State {
                phase,
                listeners,
                before,
                tell: Some(Box::new(tell)),
            }),
        }));
        let own = restart.clone();
        thread::Builder::new()
            .name("handover".to_owned())
            .spawn(move || own.run(socket, predecessor))?;
        Ok(restart)
    }

    /// The gateway is told to end. Returns whether another one holds the same listeners: then nothing may be done to them.
    #[must_use]
    pub fn end(&self) -> bool {
        let mut state = self.state();
        let is_shared = match std::mem::replace(&mut state.phase, Phase::Ending) {
            Phase::Offered(stream) => {
                // It learns at once that it is alone.
                let _ = stream.shutdown(Shutdown::Both);
                true
            }
            Phase::Over => true,
            Phase::Taking | Phase::Idle | Phase::Ending => false,
        };
        let before = state.before.take();
        if let Some(before) = &before {
            let _ = before.shutdown(Shutdown::Both);
        }
        state.listeners = Listeners::default();
        is_shared || before.is_some()
    }

    fn run(&self, mut socket: Socket, predecessor: Option<Predecessor>) {
        if let Some(predecessor) = predecessor {
            self.take(&socket, predecessor);
        }
        while self.is_open() {
            if let Err(error) = self.keep_in_place(&mut socket) {
                tracing::warn!("no next gateway can take over: {error}");
            }
            match socket.accept() {
                Ok(Some(stream)) => self.serve(stream),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!("a new gateway could not be heard: {error}");
                    sleep(PAUSE);
                }
            }
        }
        if matches!(self.state().phase, Phase::Ending) && socket.is_in_place() {
            // A gateway that starts now finds nobody, at once.
            let _ = std::fs::remove_file(&self.0.path);
        }
    }

    /// Takes the port over: returns when it is ours to offer, or not ours any more.
    fn take(&self, socket: &Socket, predecessor: Predecessor) {
        self.state().listeners.let_connections_begin();
        predecessor.accepts();
        let taken = predecessor.take(|| self.put_in_place(socket));
        match taken {
            Taken::Alone => self.is_alone(),
            Taken::Back => self.is_taken_back(),
            Taken::Unanswered => {
                tracing::warn!(
                    "the gateway before does not answer: it is stopped, or its machine stands still; this one serves"
                );
                let own = self.clone();
                let answered =
                    thread::Builder::new().spawn(move || match predecessor.answer_later() {
                        Taken::Back => own.is_taken_back(),
                        Taken::Alone | Taken::Unanswered => own.is_alone(),
                    });
                if let Err(error) = answered {
                    tracing::warn!("no thread: {error}");
                }
            }
        }
        let mut state = self.state();
        if matches!(state.phase, Phase::Taking) {
            state.phase = Phase::Idle;
        }
    }

    /// The gateway before is gone; whatever it had done to the listeners last is undone.
    fn is_alone(&self) {
        let mut state = self.state();
        state.before = None;
        state.listeners.let_connections_begin();
    }

    fn is_taken_back(&self) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Taking | Phase::Idle | Phase::Offered(_)) {
            state.phase = Phase::Over;
            state.tell(Turn::TakenBack);
        }
    }

    fn put_in_place(&self, socket: &Socket) {
        let state = self.state();
        if matches!(state.phase, Phase::Taking)
            && let Err(error) = socket.put_in_place()
        {
            tracing::warn!("no next gateway can take over: {error}");
        }
    }

    /// Makes the socket anew if it is gone from its path: a successor that failed had put its own there, or somebody removed it.
    fn keep_in_place(&self, socket: &mut Socket) -> io::Result<()> {
        let state = self.state();
        if matches!(state.phase, Phase::Idle) && !socket.is_in_place() {
            *socket = Socket::beside(&self.0.path)?;
            socket.put_in_place()?;
        }
        Ok(())
    }

    /// Offers the listeners to a successor, unless another one has them at this moment.
    fn serve(&self, stream: UnixStream) {
        let mut state = self.state();
        match state.phase {
            Phase::Idle => {}
            Phase::Offered(_) => return drop(say(&stream, BUSY)),
            Phase::Taking | Phase::Over | Phase::Ending => return,
        }
        let offered = state.listeners.held_again().and_then(|listeners| {
            let kept = stream.try_clone()?;
            let own = self.clone();
            thread::Builder::new()
                .name("successor".to_owned())
                .spawn(move || own.hand_over(&stream, &listeners))?;
            Ok(kept)
        });
        match offered {
            Ok(kept) => state.phase = Phase::Offered(kept),
            Err(error) => tracing::warn!("nothing can be handed over: {error}"),
        }
    }

    fn hand_over(&self, stream: &UnixStream, listeners: &Listeners) {
        let given = offer(stream, listeners);
        let mut state = self.state();
        // Told to end meanwhile: the successor knows.
        if !matches!(state.phase, Phase::Offered(_)) {
            return;
        }
        match given {
            Ok(()) => {
                state.phase = Phase::Over;
                state.listeners = Listeners::default();
                if let Some(before) = state.before.take() {
                    let _ = say(&before, PASSED_ON);
                }
                state.tell(Turn::Given);
            }
            Err(error) => {
                // One that is gone does not hear it.
                let _ = say(stream, TAKEN_BACK);
                state.phase = Phase::Idle;
                drop(state);
                tracing::warn!(
                    "a new gateway did not take over: {error}; this one goes on serving"
                );
            }
        }
    }

    fn is_open(&self) -> bool {
        !matches!(self.state().phase, Phase::Over | Phase::Ending)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, turn: Turn) {
        if let Some(tell) = self.tell.take() {
            tell(turn);
        }
    }
}

/// Sends the listeners, and returns once the successor has shown that it serves.
fn offer(stream: &UnixStream, listeners: &Listeners) -> io::Result<()> {
    stream.set_write_timeout(Some(ANSWER))?;
    send_all(stream, listeners).map_err(|error| in_words(error, ANSWER))?;
    let word = next(stream, START).map_err(|error| in_words(error, START))?;
    expect(word == ACCEPTS)?;
    for check in 0..CHECKS {
        if check > 0 {
            sleep(CHECK_PAUSE);
        }
        // What it has said last is read though it may be gone.
        let _ = say(stream, YOURS);
        match next(stream, CONFIRM).map_err(|error| in_words(error, CONFIRM))? {
            PASSED_ON => return Ok(()),
            word => expect(word == HAS_IT)?,
        }
    }
    Ok(())
}

fn expect(is_said: bool) -> io::Result<()> {
    let wrong = || io::Error::new(ErrorKind::InvalidData, "it speaks of something else");
    is_said.then_some(()).ok_or_else(wrong)
}
