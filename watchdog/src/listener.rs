//! The listening socket: bound by us, or handed over by the gateway together with a lifeline.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::Notify;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The lifeline only waits.
const THREAD_STACK: usize = 32 * 1024;

/// Listens on all addresses, IPv6 included where the machine has it. `variable` is what set the port.
pub(crate) fn bind(variable: &str, port: u16) -> io::Result<TcpListener> {
    // Addresses, not their texts: a text would bring the whole resolver of the C library into the binary.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
            _ => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
        })
        .map_err(|error| {
            let text =
                format!("cannot listen on port {port}: {error}; set {variable} to a free one");
            io::Error::new(error.kind(), text)
        })?;
    // The standard library's backlog is short for a burst of callers; listening again only sets a longer one.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Takes file descriptor 0 over as the listener and puts /dev/null in its place, so that no command inherits it.
pub(crate) fn inherit() -> io::Result<TcpListener> {
    let stdin = io::stdin();
    if !rustix::net::sockopt::socket_acceptconn(&stdin).unwrap_or(false) {
        return Err(io::Error::other(
            "skep_inherit=stdin, but file descriptor 0 is not a listening socket; unset skep_inherit",
        ));
    }
    let listener = TcpListener::from(stdin.as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(listener)
}

/// Rings `gone` once nobody reads our stdout any more.
pub(crate) fn watch_lifeline(gone: std::sync::Arc<Notify>) -> io::Result<()> {
    let body = move || {
        loop {
            let stdout = io::stdout();
            // No events are asked for: only an error or a hang-up ends the wait.
            let mut lifeline = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut lifeline, None) {
                Err(rustix::io::Errno::INTR) => {}
                _ => break,
            }
        }
        gone.notify_one();
    };
    std::thread::Builder::new()
        .name("lifeline".to_owned())
        .stack_size(THREAD_STACK)
        .spawn(body)?;
    Ok(())
}
