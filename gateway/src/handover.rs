//! The port handed over from a running gateway to the next one, so that a restart refuses and resets no connection.
//!
//! The next gateway connects to a Unix socket of the running one and is sent its listeners, as they are, with whoever waits
//! in their queues. When it serves, it says so, and the running one drains. Until then nothing has changed for anybody.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// That was all.
const END: u8 = b'.';
/// The next gateway serves.
const SERVING: u8 = b's';

/// How long the running gateway may take to send what it has. It is a local process with nothing to wait for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the next gateway may take until it serves.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// The pause after a hand-over that came to nothing.
const PAUSE: Duration = Duration::from_millis(100);
/// More would be no gateway's.
const MOST_LISTENERS: usize = 1024;

/// What a gateway listens on.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For calls: at least one for each worker.
    pub calls: Vec<TcpListener>,
    /// For calls by TLS: as many.
    pub secure: Vec<TcpListener>,
    /// For operators: one or none.
    pub system: Vec<TcpListener>,
    /// For metrics: one or none.
    pub metrics: Vec<TcpListener>,
}

impl Listeners {
    /// Each kind, with the byte that says that one of it follows.
    fn kinds(&self) -> [(u8, &Vec<TcpListener>); 4] {
        [
            (b'c', &self.calls),
            (b't', &self.secure),
            (b'o', &self.system),
            (b'm', &self.metrics),
        ]
    }

    fn kind(&mut self, tag: u8) -> Option<&mut Vec<TcpListener>> {
        match tag {
            b'c' => Some(&mut self.calls),
            b't' => Some(&mut self.secure),
            b'o' => Some(&mut self.system),
            b'm' => Some(&mut self.metrics),
            _ => None,
        }
    }

    /// The same listeners, held once more.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn held_again(&self) -> io::Result<Self> {
        let mut again = Self::default();
        for (tag, listeners) in self.kinds() {
            let kind = again.kind(tag).expect("each kind has its byte");
            for listener in listeners {
                kind.push(listener.try_clone()?);
            }
        }
        Ok(again)
    }
}

/// The gateway that runs, seen by the next one.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// Its listeners; `None` if no gateway runs behind this socket.
    ///
    /// # Errors
    /// When somebody is there and does not hand over.
    pub fn ask(path: &Path) -> io::Result<Option<(Self, Listeners)>> {
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
        stream.set_read_timeout(Some(PATIENCE))?;
        let listeners = receive(&stream)?;
        Ok(Some((Self(stream), listeners)))
    }

    /// Tells it that we serve, and that it may drain.
    pub fn relieve(mut self) {
        if let Err(error) = self.0.write_all(&[SERVING]) {
            tracing::warn!("the gateway before us could not be told that it may drain: {error}");
        }
    }
}

/// Waits for the next gateway, hands over, and returns when that one serves.
///
/// # Errors
/// When the socket cannot be made.
pub fn offer(path: &Path) -> io::Result<impl FnOnce(&Mutex<Listeners>) + Send + use<>> {
    let listener = bind(path)?;
    Ok(move |listeners: &Mutex<Listeners>| {
        loop {
            let served = listener
                .accept()
                .and_then(|(stream, _)| hand_over(&stream, listeners));
            match served {
                Ok(()) => return,
                // A next gateway that does not get as far as serving changes nothing.
                Err(error) => tracing::warn!("a new gateway did not take over: {error}"),
            }
            std::thread::sleep(PAUSE);
        }
    })
}

/// A socket for this user alone, in place of the one that is there: never a moment without, never one open to others.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let mut ours = path.as_os_str().to_owned();
    ours.push(format!(".{}", std::process::id()));
    let listener = UnixListener::bind(&ours)?;
    std::fs::set_permissions(&ours, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&ours, path)?;
    Ok(listener)
}

fn hand_over(mut stream: &UnixStream, listeners: &Mutex<Listeners>) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    send_all(
        stream,
        &listeners.lock().unwrap_or_else(PoisonError::into_inner),
    )?;
    stream.set_read_timeout(Some(START_PATIENCE))?;
    let mut word = [0];
    stream.read_exact(&mut word)?;
    match word {
        [SERVING] => Ok(()),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

fn send_all(stream: &UnixStream, listeners: &Listeners) -> io::Result<()> {
    for (tag, listeners) in listeners.kinds() {
        for listener in listeners {
            send(stream, tag, Some(listener))?;
        }
    }
    send(stream, END, None)
}

fn receive(stream: &UnixStream) -> io::Result<Listeners> {
    let mut listeners = Listeners::default();
    for _ in 0..MOST_LISTENERS {
        match receive_one(stream)? {
            (END, None) => return Ok(listeners),
            (tag, Some(listener)) => {
                // One of a kind that is not known here closes: whoever sent it holds it still.
                if let Some(kind) = listeners.kind(tag) {
                    kind.push(listener);
                }
            }
            _ => break,
        }
    }
    Err(ErrorKind::InvalidData.into())
}

/// Each listener travels with a byte of its own: the kernel joins no two messages that carry descriptors.
fn send(stream: &UnixStream, tag: u8, listener: Option<&TcpListener>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = listener.map(AsFd::as_fd);
    if let Some(descriptor) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(
            descriptor,
        )));
    }
    sendmsg(
        stream,
        &[IoSlice::new(&[tag])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive_one(stream: &UnixStream) -> io::Result<(u8, Option<TcpListener>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut tag = [0];
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut tag)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let descriptor: Option<OwnedFd> = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((tag[0], descriptor.map(TcpListener::from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_arrive_with_whoever_waits_on_them() {
        let own = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = own.local_addr().unwrap();
        let waiting = std::net::TcpStream::connect(address).unwrap();
        let path = std::env::temp_dir().join(format!("skep-handover-{}", std::process::id()));
        assert!(Predecessor::ask(&path).unwrap().is_none(), "nobody there");
        let offered = offer(&path).unwrap();
        let ours = Mutex::new(Listeners {
            calls: vec![own],
            ..Listeners::default()
        });
        let running = std::thread::spawn(move || offered(&ours));
        // One that gives up first changes nothing.
        drop(Predecessor::ask(&path).unwrap());
        let (predecessor, theirs) = Predecessor::ask(&path).unwrap().unwrap();
        assert!(!running.is_finished() && theirs.metrics.is_empty());
        predecessor.relieve();
        running.join().unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::remove_file(&path).unwrap();
        let (_, peer) = theirs.calls[0].accept().unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap());
    }
}
