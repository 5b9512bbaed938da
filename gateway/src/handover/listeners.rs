//! The listeners of a gateway, and how they travel from one to the next.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::SockRef;

use super::{BUSY, END};

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

    /// Lets new connections begin: a predecessor that was ending when it handed over may have had the kernel drop them.
    pub(super) fn let_connections_begin(&self) {
        for (_, listeners) in self.kinds() {
            for listener in listeners {
                // Fails where there is no filter, as a rule.
                let _ = SockRef::from(listener).detach_filter();
            }
        }
    }
}

/// Sends all of them, and that these were all.
pub(super) fn send_all(stream: &UnixStream, listeners: &Listeners) -> io::Result<()> {
    for (tag, listeners) in listeners.kinds() {
        for listener in listeners {
            send(stream, tag, Some(listener))?;
        }
    }
    send(stream, END, None)
}

/// Receives all of them; `None` if another successor is being served.
pub(super) fn receive(stream: &UnixStream) -> io::Result<Option<Listeners>> {
    let mut listeners = Listeners::default();
    for _ in 0..MOST_LISTENERS {
        match receive_one(stream)? {
            (END, None) => return Ok(Some(listeners)),
            (BUSY, None) => return Ok(None),
            (tag, Some(listener)) => {
                // One of a kind that is not known here closes: the sender holds it still.
                if let Some(kind) = listeners.kind(tag) {
                    listener.set_nonblocking(true)?;
                    kind.push(listener);
                }
            }
            _ => break,
        }
    }
    Err(io::Error::new(
        ErrorKind::InvalidData,
        "it does not speak as a gateway of this version does",
    ))
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
