//! Hot restart, step by step (gateway/src/handover.rs): the test is one side of the protocol and ends at each step, with the real
//! program on the other side; or both are real, and one is killed, told to end or stopped in the middle.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use skep::handover::Predecessor;
use socket2::{SockFilter, SockRef};

use crate::support::client::try_get;
use crate::support::gateway::{Folder, Gateway};
use crate::support::{eventually, within};

const CAT: &str = "  cat:\n    fprocess: cat";

fn start(port: u16, socket: &Path) -> Gateway {
    let port = port.to_string();
    let flags = ["--port", &port, "--handover", socket.to_str().unwrap()];
    Gateway::with(CAT, &flags)
}

/// New connections, one after the other, are all answered.
fn serves(address: SocketAddr) {
    for nth in 0..20 {
        let answer = try_get(address, "/function/cat");
        assert_eq!(answer.map(|answer| answer.status), Some(200), "call {nth}");
    }
}

/// Whether every thread of a process is stopped.
fn is_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.flatten().all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.contains("\nState:\tT")
    })
}

/// The gateway can be restarted: the next one takes over, and this one ends.
fn can_be_restarted(mut gateway: Gateway, socket: &Path) -> Gateway {
    let next = start(gateway.address.port(), socket);
    assert_eq!(gateway.ended(), Some(0), "{}", gateway.log());
    next.logs("taking over from the gateway that runs");
    serves(next.address);
    next
}

fn hear(mut stream: &UnixStream) -> Option<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok().map(|()| byte[0])
}

fn say(mut stream: &UnixStream, byte: u8) {
    stream.write_all(&[byte]).unwrap();
}

/// A successor that is being sent listeners, once the gateway is done with those before it.
fn asking(socket: &Path) -> UnixStream {
    let mut asking = None;
    eventually("the gateway offers its port", || {
        asking = UnixStream::connect(socket).ok();
        asking.as_ref().and_then(hear) == Some(b'c')
    });
    let stream = asking.unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream
}

/// A successor that has heard everything up to the last listener; the listeners themselves close.
fn successor(socket: &Path) -> UnixStream {
    let stream = asking(socket);
    while hear(&stream).unwrap() != b';' {}
    stream
}

#[test]
fn a_successor_that_dies_at_any_step_changes_nothing() {
    let folder = Folder::new();
    let socket = folder.0.join("handover");
    let gateway = start(0, &socket);
    eventually("the socket is in place", || socket.exists());
    let puts_its_socket_in_place = || {
        let beside = folder.0.join("another");
        drop(UnixListener::bind(&beside).unwrap());
        std::fs::rename(beside, &socket).unwrap();
    };
    for step in 0..7 {
        let stream = if step == 0 {
            asking(&socket)
        } else {
            successor(&socket)
        };
        match step {
            0 | 1 => {}
            2 => say(&stream, b'?'),
            3 => say(&stream, b'a'),
            checks => {
                say(&stream, b'a');
                for _ in 4..=checks {
                    assert_eq!(hear(&stream), Some(b'y'));
                    puts_its_socket_in_place();
                    say(&stream, b'd');
                }
            }
        }
        drop(stream);
        serves(gateway.address);
    }
    drop(can_be_restarted(gateway, &socket));
}

#[test]
fn a_successor_that_is_stopped_is_left_behind_and_hears_it() {
    let folder = Folder::new();
    let socket = folder.0.join("handover");
    let gateway = start(0, &socket);
    eventually("the socket is in place", || socket.exists());
    let stopped = successor(&socket);
    say(&stopped, b'a');
    assert_eq!(hear(&stopped), Some(b'y'));
    say(&stopped, b'd');
    assert_eq!(hear(&stopped), Some(b'y'));
    // A third one waits for its turn meanwhile.
    let third = UnixStream::connect(&socket).unwrap();
    assert_eq!((hear(&third), hear(&third)), (Some(b'b'), None));
    serves(gateway.address);
    assert_eq!((hear(&stopped), hear(&stopped)), (Some(b'n'), None));
    gateway.logs("a new gateway did not take over: no answer within 5s");
    drop(can_be_restarted(gateway, &socket));
}

#[test]
fn a_predecessor_told_to_end_in_the_middle_leaves_listeners_that_can_be_connected_to() {
    let folder = Folder::new();
    let socket = folder.0.join("handover");
    let mut gateway = start(0, &socket);
    eventually("the socket is in place", || socket.exists());
    let (_predecessor, listeners) = Predecessor::ask(&socket).unwrap().unwrap();
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(0));
    // No first packet is dropped: that would take a second.
    let began = Instant::now();
    let _waiting = TcpStream::connect(gateway.address).unwrap();
    assert!(began.elapsed() < Duration::from_millis(900));
    for listener in &listeners.calls {
        listener.set_nonblocking(true).unwrap();
    }
    eventually("a listener has it", || {
        listeners.calls.iter().any(|one| one.accept().is_ok())
    });
}

/// The test as the gateway that runs.
struct Running {
    socket: PathBuf,
    offers: UnixListener,
    port: TcpListener,
}

impl Running {
    fn new(folder: &Folder) -> Self {
        let socket = folder.0.join("handover");
        Self {
            offers: UnixListener::bind(&socket).unwrap(),
            port: TcpListener::bind("127.0.0.1:0").unwrap(),
            socket,
        }
    }

    fn address(&self) -> SocketAddr {
        self.port.local_addr().unwrap()
    }

    /// Starts the real successor, and sends it this many messages: a listener, and the end of the list.
    fn send(&self, messages: usize) -> (UnixStream, std::thread::JoinHandle<Gateway>) {
        let (port, socket) = (self.address().port(), self.socket.clone());
        let next = std::thread::spawn(move || start(port, &socket));
        let (stream, _) = self.offers.accept().unwrap();
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).unwrap();
        if messages > 0 {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let port = [self.port.as_fd()];
            control.push(SendAncillaryMessage::ScmRights(&port));
            let flags = SendFlags::empty();
            sendmsg(&stream, &[IoSlice::new(b"c")], &mut control, flags).unwrap();
        }
        if messages > 1 {
            say(&stream, b';');
        }
        (stream, next)
    }
}

#[test]
fn a_predecessor_that_dies_at_any_step_leaves_one_gateway_that_serves() {
    for step in 0..5 {
        let folder = Folder::new();
        let running = Running::new(&folder);
        let (address, socket) = (running.address(), running.socket.clone());
        let (stream, next) = running.send(step.min(2));
        if step >= 3 {
            assert_eq!(hear(&stream), Some(b'a'));
        }
        if step >= 4 {
            say(&stream, b'y');
            assert_eq!(hear(&stream), Some(b'd'));
        }
        // As one does that is told to end and is killed then: first packets are dropped.
        let drop_all = [SockFilter::new(0x06, 0, 0, 0)];
        SockRef::from(&running.port)
            .attach_filter(&drop_all)
            .unwrap();
        drop((running, stream));
        let next = next.join().unwrap();
        assert_eq!(next.address, address);
        within(Duration::from_secs(8), "it serves", || {
            try_get(address, "/function/cat").is_some_and(|answer| answer.status == 200)
        });
        serves(address);
        eventually("its socket is in place", || {
            UnixStream::connect(&socket).is_ok()
        });
        drop(can_be_restarted(next, &socket));
    }
}

#[test]
fn a_predecessor_that_is_stopped_is_replaced_and_drains_when_it_continues() {
    let folder = Folder::new();
    let running = Running::new(&folder);
    let (stream, next) = running.send(2);
    assert_eq!(hear(&stream), Some(b'a'));
    let next = next.join().unwrap();
    assert_eq!(hear(&stream), Some(b'd'), "it does not wait for ever");
    serves(next.address);
    // It answers whatever is asked later, and hands over itself meanwhile.
    say(&stream, b'y');
    assert_eq!(hear(&stream), Some(b'd'));
    let third = can_be_restarted(next, &running.socket);
    assert_eq!(hear(&stream), Some(b'x'), "a third one has the port");
    drop(third);
}

#[test]
fn a_successor_that_was_too_slow_ends_and_leaves_the_port_usable() {
    let folder = Folder::new();
    let running = Running::new(&folder);
    let (stream, next) = running.send(2);
    assert_eq!(hear(&stream), Some(b'a'));
    say(&stream, b'n');
    let mut next = next.join().unwrap();
    assert_eq!(next.ended(), Some(1));
    next.logs("keeps its port");
    let _waiting = TcpStream::connect(running.address()).unwrap();
    running.port.accept().unwrap();
}

#[test]
fn of_two_gateways_one_serves_whatever_happens_to_the_other_in_the_middle() {
    for (signal, to_successor) in [
        ("KILL", false),
        ("TERM", false),
        ("STOP", false),
        ("KILL", true),
        ("TERM", true),
        ("STOP", true),
    ] {
        println!(
            "{signal} to the {}",
            ["first", "next"][usize::from(to_successor)]
        );
        let folder = Folder::new();
        let socket = folder.0.join("handover");
        let mut first = start(0, &socket);
        serves(first.address);
        eventually("the socket is in place", || socket.exists());
        // It has the listeners when it greets, and takes a second or so from there.
        let mut next = start(first.address.port(), &socket);
        let hit = if to_successor { &next } else { &first };
        hit.signal(signal);
        if signal == "STOP" {
            // The signal takes its time; what is accepted before that waits for CONT.
            eventually("all its threads stand still", || is_stopped(hit.pid()));
        }
        serves(first.address);
        let survivor = match (signal, to_successor) {
            ("STOP", _) => {
                hit.signal("CONT");
                assert_eq!(first.ended(), Some(0), "{}", first.log());
                next
            }
            (_, false) => {
                first.ended();
                next
            }
            (_, true) => {
                next.ended();
                first
            }
        };
        serves(survivor.address);
        drop(can_be_restarted(survivor, &socket));
    }
}

#[test]
fn many_successors_at_once_take_over_one_after_the_other() {
    let folder = Folder::new();
    let socket = folder.0.join("handover");
    let mut first = start(0, &socket);
    let address = first.address;
    eventually("the socket is in place", || socket.exists());
    let starting: Vec<_> = (0..3)
        .map(|_| {
            let socket = socket.clone();
            std::thread::spawn(move || start(address.port(), &socket))
        })
        .collect();
    let mut all: Vec<_> = starting
        .into_iter()
        .map(|one| one.join().unwrap())
        .collect();
    assert_eq!(first.ended(), Some(0));
    within(Duration::from_secs(20), "one is left", || {
        all.iter_mut()
            .map(Gateway::is_running)
            .filter(|runs| *runs)
            .count()
            == 1
    });
    serves(address);
}

#[test]
fn of_two_gateways_that_start_at_once_one_has_the_port_in_the_end() {
    let folder = Folder::new();
    let socket = folder.0.join("handover");
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let starting = [(), ()].map(|()| {
        let socket = socket.clone();
        std::thread::spawn(move || start(address.port(), &socket))
    });
    let mut both = starting.map(|one| one.join().unwrap());
    within(Duration::from_secs(20), "one is left", || {
        both.iter_mut()
            .map(Gateway::is_running)
            .filter(|runs| *runs)
            .count()
            == 1
    });
    serves(address);
}
