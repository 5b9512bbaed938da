//! Where the function's own server listens, and the connections to it that each worker keeps.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, Uri};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::socket::{Socket, Wire};
use crate::tunnel::Rest;
use crate::upload::Upload;

/// How long a connection is kept without a call. Servers close theirs after 2 s (gunicorn) or 5 s (node, uvicorn), and a call
/// that is sent at that moment is lost.
const OLDEST: Duration = Duration::from_millis(1500);

/// The most header fields of an answer.
const MOST_FIELDS: usize = 512;

/// Connections without a call that one worker keeps.
const MOST_KEPT: usize = 64;

thread_local! {
    static KEPT: RefCell<Vec<Link>> = const { RefCell::new(Vec::new()) };
}

/// The address of `http_upstream_url`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    addresses: Vec<SocketAddr>,
    /// What stands before the path of every call; empty, or with a slash in front and none at its end.
    prefix: String,
}

/// One connection to the function.
#[derive(Debug)]
pub(crate) struct Link {
    sender: http1::SendRequest<Upload>,
    /// Brings the socket back when HTTP on it is over.
    rest: oneshot::Receiver<Rest>,
    wire: Rc<Wire>,
    /// A second descriptor of the socket: hyper has the first one.
    socket: OwnedFd,
    kept_since: Instant,
}

impl Upstream {
    /// Reads `http://127.0.0.1:3000/base`. No names but `localhost`: the function's server is in this container, and
    /// looking up names would bring the C library's resolver into the binary.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let sentence = || {
            "is not of the form http://127.0.0.1:3000 (an address or localhost, and a port)"
                .to_owned()
        };
        let rest = url.strip_prefix("http://").ok_or_else(sentence)?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| sentence())?)
            }
            _ => (authority, 80),
        };
        // A server that listens on localhost may have chosen either family.
        let hosts = if host == "localhost" {
            vec![
                IpAddr::from(Ipv4Addr::LOCALHOST),
                IpAddr::from(Ipv6Addr::LOCALHOST),
            ]
        } else {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            vec![bare.parse().map_err(|_| sentence())?]
        };
        Ok(Self {
            addresses: hosts
                .into_iter()
                .map(|host| SocketAddr::new(host, port))
                .collect(),
            prefix: path.trim_end_matches('/').to_owned(),
        })
    }

    /// The request target of a call; the client's own bytes.
    pub(crate) fn target(&self, uri: &Uri) -> Uri {
        match uri.path_and_query() {
            Some(asked) if self.prefix.is_empty() => Uri::from(asked.clone()),
            // What has been a request target before is one again.
            asked => format!("{}{}", self.prefix, asked.map_or("/", PathAndQuery::as_str))
                .parse()
                .unwrap_or_default(),
        }
    }

    /// The same in the client's bytes, where hyper's are escaped.
    pub(crate) fn raw_target(&self, asked: &[u8]) -> Bytes {
        let slash: &[u8] = if asked.starts_with(b"/") { b"" } else { b"/" };
        [self.prefix.as_bytes(), slash, asked].concat().into()
    }

    /// What a request without `Host` gets.
    pub(crate) fn host(&self) -> String {
        self.addresses
            .first()
            .map_or_else(String::new, SocketAddr::to_string)
    }

    /// Opens a connection; also the way to see whether the function accepts.
    pub(crate) async fn dial(&self) -> io::Result<TcpStream> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in &self.addresses {
            match TcpStream::connect(address).await {
                // A port that nothing listens on may be the one that the kernel has picked for this very socket, which
                // then connects to itself.
                Ok(stream) if is_to_itself(&stream) => {
                    failure = io::ErrorKind::ConnectionRefused.into();
                }
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// A connection that can take a call now, and whether it has served one before; `is_new` wants one that has not.
    pub(crate) async fn link(&self, is_new: bool) -> io::Result<(Link, bool)> {
        match (!is_new).then(take_kept).flatten() {
            Some(link) => Ok((link, true)),
            None => Ok((self.connect().await?, false)),
        }
    }

    async fn connect(&self) -> io::Result<Link> {
        let stream = self.dial().await?;
        let _ = stream.set_nodelay(true);
        let socket = stream.as_fd().try_clone_to_owned()?;
        let wire = Rc::<Wire>::default();
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .max_headers(MOST_FIELDS)
            .handshake(Socket::to_function(stream, Rc::clone(&wire)))
            .await
            .map_err(io::Error::other)?;
        let (bring, rest) = oneshot::channel();
        spawn_local(async move {
            if let Ok(parts) = connection.without_shutdown().await {
                // Nobody waits for it unless the call was upgraded.
                let _ = bring.send((parts.io.into_parts().0, parts.read_buf));
            }
        });
        Ok(Link {
            sender,
            rest,
            wire,
            socket,
            kept_since: Instant::now(),
        })
    }
}

fn is_to_itself(stream: &TcpStream) -> bool {
    let is_to_itself =
        matches!((stream.local_addr(), stream.peer_addr()), (Ok(own), Ok(peer)) if own == peer);
    if is_to_itself {
        // Closed without TIME_WAIT, which would keep the function's server from binding the port.
        let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    }
    is_to_itself
}

/// The connection that was used last, of those that are open and not old. Oldest first: a connection is kept at the end.
fn take_kept() -> Option<Link> {
    KEPT.with_borrow_mut(|kept| {
        kept.retain(|link| !link.sender.is_closed());
        let old = kept
            .iter()
            .take_while(|link| link.kept_since.elapsed() >= OLDEST);
        let old = old.count();
        kept.drain(..old);
        loop {
            let at = kept.iter().rposition(|link| link.sender.is_ready())?;
            let link = kept.remove(at);
            if !link.has_ended() {
                return Some(link);
            }
        }
    })
}

impl Link {
    /// Whether the function has closed the connection, which hyper may not have seen yet. A byte without a request ends it, too.
    fn has_ended(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::IN | PollFlags::RDHUP)];
        !matches!(poll(&mut socket, Some(&Timespec::default())), Ok(0))
    }

    /// Whether a byte has come since the last request was sent.
    pub(crate) fn has_answered(&self) -> bool {
        self.wire.has_answered()
    }

    /// Sends a request, its target in these bytes if there are any, and waits for the answer's head. A request that was
    /// not sent comes back with the error.
    pub(crate) async fn send(
        &mut self,
        request: Request<Upload>,
        target: Option<Bytes>,
    ) -> Result<Response<Incoming>, Box<TrySendError<Request<Upload>>>> {
        self.wire.begin(target);
        self.sender
            .try_send_request(request)
            .await
            .map_err(Box::new)
    }

    /// Keeps the connection for another call on this worker, if it can take one.
    pub(crate) fn keep(mut self) {
        if !self.sender.is_closed() {
            self.kept_since = Instant::now();
            KEPT.with_borrow_mut(|kept| {
                if kept.len() < MOST_KEPT {
                    kept.push(self);
                }
            });
        }
    }

    /// The socket, once the function has answered with an upgrade.
    pub(crate) fn into_rest(self) -> oneshot::Receiver<Rest> {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_ports_and_paths_are_read() {
        let upstream = Upstream::parse("http://127.0.0.1:3000/base/").unwrap();
        assert_eq!(upstream.host(), "127.0.0.1:3000");
        let target = |uri: &str| upstream.target(&uri.parse().unwrap());
        assert_eq!(target("/a%20b//c?x=%2f"), "/base/a%20b//c?x=%2f");
        assert_eq!(target("http://elsewhere/p"), "/base/p");
        assert_eq!(
            Upstream::parse("http://[::1]:90").unwrap().host(),
            "[::1]:90"
        );
        assert_eq!(Upstream::parse("http://[::1]").unwrap().host(), "[::1]:80");
        let both = Upstream::parse("http://localhost:5000").unwrap();
        assert_eq!(both.addresses.len(), 2);
    }

    #[test]
    fn a_socket_that_is_connected_to_itself_leaves_the_port_free() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            let address = socket.local_addr().unwrap();
            let stream = socket.connect(address).await.unwrap();
            assert!(is_to_itself(&stream));
            drop(stream);
            let listener = std::net::TcpListener::bind(address).unwrap();
            let other = TcpStream::connect(listener.local_addr().unwrap()).await;
            assert!(!is_to_itself(&other.unwrap()));
        });
    }

    #[test]
    fn other_urls_are_refused() {
        for url in [
            "",
            "https://127.0.0.1",
            "http://example.com:1",
            "http://127.0.0.1:x",
            "127.0.0.1:80",
        ] {
            assert!(Upstream::parse(url).is_err(), "{url}");
        }
    }
}
