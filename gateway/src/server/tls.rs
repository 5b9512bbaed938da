//! TLS on an accepted connection: the handshake, and a word for whoever speaks plain HTTP to this port.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What both sides may speak behind the handshake, the one we prefer first (RFC 7301).
pub const PROTOCOLS: [&[u8]; 2] = [H2, b"http/1.1"];
const H2: &[u8] = b"h2";
/// What every handshake begins with: the type of its first record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;
/// How long somebody who is turned away may take to read why.
const GOODBYE: Duration = Duration::from_secs(1);

/// Shakes hands with whoever begins with TLS.
pub(super) async fn accept(
    tls: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    match (stream.peek(&mut first).await?, first) {
        (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        (_, [HANDSHAKE]) => tls.accept(stream).await,
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
pub(super) fn agreed_on_h2(stream: &TlsStream<TcpStream>) -> bool {
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
