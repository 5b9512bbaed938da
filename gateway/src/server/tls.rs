//! A connection that begins with the handshake of TLS; and a word for whoever speaks plain HTTP to this port.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Answers, ConnectionLimits, Counted, h2, note};
use crate::drain::{Drain, Guest, Phase};
use crate::incoming::Prefixed;

/// What both sides may speak behind the handshake, the one we prefer first (RFC 7301).
pub const PROTOCOLS: [&[u8]; 2] = [H2, b"http/1.1"];
const H2: &[u8] = b"h2";
/// What every handshake begins with: the type of its first record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;
/// How long somebody who is turned away may take to read why.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long the first request may take to come after a handshake that ended while the gateway does.
const FIRST_REQUEST: Duration = Duration::from_secs(2);

/// A connection on which no hands have been shaken yet.
pub(super) struct Shaking {
    pub(super) stream: TcpStream,
    pub(super) tls: TlsAcceptor,
    pub(super) limits: ConnectionLimits,
}

impl Shaking {
    /// The whole of it. The handshake may take as long as a request's head.
    pub(super) async fn connection<S>(self, service: S, mut guest: Guest, counted: Counted)
    where
        S: Answers,
    {
        let Self {
            stream,
            tls,
            limits,
        } = self;
        // Boxed, as what follows: each is over before the next begins, and only one of them has to be held.
        let shaken = Box::pin(timeout(
            limits.read_timeout,
            accept(&tls, stream, &mut guest),
        ));
        match shaken.await.unwrap_or_else(|late| Err(late.into())) {
            Ok(stream) if agreed_on_h2(&stream) => {
                let io = Prefixed {
                    read: Bytes::new(),
                    io: stream,
                };
                note(Box::pin(h2::serve(io, service, limits, guest)).await);
                drop(counted);
            }
            Ok(stream) => {
                if !guest.has_reached(Phase::Leaving) {
                    let served = super::connection(stream, service, limits, guest, counted);
                    return Box::pin(served).await;
                }
                let own = Drain::default();
                let served = super::connection(stream, service, limits, own.guest(), counted);
                tokio::select! {
                    () = Box::pin(served) => {}
                    () = end_late(&own, guest) => {}
                }
            }
            Err(error) => tracing::debug!("handshake: {error}"),
        }
    }
}

/// Whoever has shaken hands with a gateway that ends is about to ask, and has this much time for it.
async fn end_late(own: &Drain, mut guest: Guest) {
    let _ = timeout(FIRST_REQUEST, guest.reached(Phase::Over)).await;
    own.enter(Phase::Finishing);
    guest.reached(Phase::Over).await;
    own.enter(Phase::Over);
    std::future::pending().await
}

/// Shakes hands with whoever begins with it. Who says nothing is idle, and goes when those do.
async fn accept(
    tls: &TlsAcceptor,
    stream: TcpStream,
    guest: &mut Guest,
) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    let read = tokio::select! {
        biased;
        read = stream.peek(&mut first) => read?,
        () = guest.reached(Phase::Finishing) => 0,
    };
    match (read, first) {
        (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        (_, [HANDSHAKE]) => tokio::select! {
            shaken = tls.accept(stream) => shaken,
            () = guest.reached(Phase::Over) => Err(io::ErrorKind::TimedOut.into()),
        },
        (_, [byte]) => {
            if byte.is_ascii_uppercase() {
                // A method: perhaps somebody who wrote http where https was meant.
                let _ = timeout(GOODBYE, turn_away(stream)).await;
            }
            Err(io::Error::other("it does not begin with a TLS handshake"))
        }
    }
}

/// Whether the client and we have agreed on HTTP/2.
fn agreed_on_h2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}

/// Says what is wrong; what still comes is read, because unread bytes would turn the close into a reset, which takes the
/// answer along.
async fn turn_away(mut stream: TcpStream) -> io::Result<()> {
    let said = "this port speaks TLS: use https://\n";
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        said.len()
    );
    stream.write_all((head + said).as_bytes()).await?;
    stream.shutdown().await?;
    let mut unread = [0; 512];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}
