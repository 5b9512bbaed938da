//! A Docker socket in a folder of its own that leads to the real engine, and can have every trouble that an engine has.

use std::io::{Read, Write, copy};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::support::gateway::Folder;

/// The machine's engine.
pub(crate) const ENGINE: &str = "/var/run/docker.sock";

/// How the door treats those who come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// None.
    No,
    /// Every answer comes so much later.
    Late(Duration),
    /// Every answer is an error of the engine's.
    Errors,
    /// Every answer breaks off in its middle.
    Truncated,
    /// What comes back is not HTTP.
    Garbage,
}

/// The door; its socket is `docker.sock` in the folder.
pub(crate) struct Door {
    pub(crate) folder: Folder,
    shared: Arc<Shared>,
}

struct Shared {
    trouble: Mutex<Trouble>,
    open: Mutex<Vec<UnixStream>>,
    requests: Mutex<Vec<Instant>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    /// An open door.
    pub(crate) fn new() -> Self {
        let shared = Shared {
            trouble: Mutex::new(Trouble::No),
            open: Mutex::default(),
            requests: Mutex::default(),
        };
        let door = Self {
            folder: Folder::new(),
            shared: Arc::new(shared),
        };
        door.open();
        door
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.0.join("docker.sock")
    }

    /// Puts the socket there.
    pub(crate) fn open(&self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            for inside in listener.incoming() {
                let Ok(inside) = inside else { return };
                let shared = shared.clone();
                // Whatever breaks here is what the gateway has to bear.
                std::thread::spawn(move || shared.pass(inside));
            }
        });
    }

    /// Takes the socket away and cuts every connection through it.
    pub(crate) fn close(&self) {
        std::fs::remove_file(self.socket()).unwrap();
        self.shared.cut();
    }

    /// From now on every connection has this trouble; those that are open are cut.
    pub(crate) fn set(&self, trouble: Trouble) {
        *held(&self.shared.trouble) = trouble;
        self.shared.cut();
    }

    /// The most requests that came in any one second since this moment.
    pub(crate) fn most_requests_a_second(&self, since: Instant) -> usize {
        let all = held(&self.shared.requests);
        let requests: Vec<_> = all.iter().filter(|at| **at >= since).collect();
        let in_second = |at: &Instant| {
            let later = requests.iter().filter(|other| ***other >= *at);
            later
                .filter(|other| other.duration_since(*at) < Duration::from_secs(1))
                .count()
        };
        requests.iter().map(|at| in_second(at)).max().unwrap_or(0)
    }
}

impl Shared {
    fn cut(&self) {
        for stream in held(&self.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn pass(&self, mut inside: UnixStream) -> Option<()> {
        held(&self.open).push(inside.try_clone().ok()?);
        let mut request = [0; 4096];
        let read = inside.read(&mut request).ok()?;
        held(&self.requests).push(Instant::now());
        let trouble = *held(&self.trouble);
        match trouble {
            Trouble::Errors => {
                let body = r#"{"message":"rpc error: the database is on fire"}"#;
                let length = body.len();
                let head = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json";
                let answer = format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}");
                return inside.write_all(answer.as_bytes()).ok();
            }
            Trouble::Garbage => return inside.write_all(&[0xff, 0, b'\r', b'\n'].repeat(64)).ok(),
            Trouble::No | Trouble::Late(_) | Trouble::Truncated => {}
        }
        let mut engine = UnixStream::connect(ENGINE).ok()?;
        held(&self.open).push(engine.try_clone().ok()?);
        engine.write_all(&request[..read]).ok()?;
        self.forward(inside.try_clone().ok()?, engine.try_clone().ok()?);
        if let Trouble::Late(by) = trouble {
            std::thread::sleep(by);
        }
        // Enough for the head and the beginning of a list.
        let most = if trouble == Trouble::Truncated {
            600
        } else {
            u64::MAX
        };
        copy(&mut (&mut engine).take(most), &mut inside).ok()?;
        for stream in [inside, engine] {
            let _ = stream.shutdown(Shutdown::Both);
        }
        Some(())
    }

    /// Hands on what else comes from the gateway.
    fn forward(&self, mut inside: UnixStream, mut engine: UnixStream) {
        std::thread::spawn(move || {
            // Either side may close first.
            let _ = copy(&mut inside, &mut engine);
            let _ = engine.shutdown(Shutdown::Write);
        });
    }
}
