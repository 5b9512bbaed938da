//! The metrics port: answers `GET /metrics`, and nothing else, with the counts.
//!
//! It lives on the main thread, so that who asks disturbs no call and costs no thread. HTTP is read by hand here: a
//! second server of the library's would add a tenth of the program's size for one line that matters.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::metrics;
use crate::watchdog::Watchdog;

/// Who asks at the same time; others wait to be accepted.
const MOST_CONNECTIONS: usize = 4;

/// How long one connection may take in all. Whoever stalls is in the way for so long and no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most of a request that is read.
const LARGEST_HEAD: usize = 8 * 1024;

/// Pause after a failed accept, as when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Answers from now on, on the runtime of the calling thread; a port that is not to be had is only warned of.
pub(crate) fn start(listener: io::Result<TcpListener>, watchdog: &Arc<Watchdog>) {
    let started = listener.and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::spawn(accept(listener, Arc::clone(watchdog)));
        Ok(address)
    });
    match started {
        Ok(address) => watchdog
            .log
            .line(format_args!("metrics port: {}", address.port())),
        Err(error) => watchdog.log.line(format_args!(
            "warning: no metrics: {error}, or metrics_port to off"
        )),
    }
}

async fn accept(listener: tokio::net::TcpListener, watchdog: Arc<Watchdog>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    // It is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let watchdog = Arc::clone(&watchdog);
        tokio::spawn(async move {
            // Errors, and being late, are the asker's own.
            let _ = tokio::time::timeout(PATIENCE, serve(stream, &watchdog)).await;
            drop(place);
        });
    }
}

/// One request, one answer, the end.
async fn serve(mut stream: TcpStream, watchdog: &Watchdog) -> io::Result<()> {
    let mut head = Vec::new();
    while !is_complete(&head) && head.len() < LARGEST_HEAD {
        if (&mut stream)
            .take((LARGEST_HEAD - head.len()) as u64)
            .read_buf(&mut head)
            .await?
            == 0
        {
            return Ok(());
        }
    }
    let verdict = judge(&head);
    let body = match verdict {
        Verdict::Metrics => metrics::render(watchdog),
        Verdict::Refused(_, sentence) => sentence.to_owned() + "\n",
    };
    let (status, extra) = match verdict {
        Verdict::Metrics => ("200 OK", "; version=0.0.4"),
        Verdict::Refused(status, _) => (status, ""),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain{extra}; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // To close with something unread would reset the connection, and the asker might lose the answer.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

fn is_complete(head: &[u8]) -> bool {
    head.windows(4).any(|four| four == b"\r\n\r\n") || head.windows(2).any(|two| two == b"\n\n")
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Verdict {
    Metrics,
    /// Status and sentence.
    Refused(&'static str, &'static str),
}

/// Only the first line counts.
fn judge(head: &[u8]) -> Verdict {
    if !is_complete(head) {
        return Verdict::Refused(
            "431 Request Header Fields Too Large",
            "the request's head is above 8 KiB",
        );
    }
    let line = head.split(|byte| *byte == b'\r' || *byte == b'\n').next();
    let mut words = line.unwrap_or_default().split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with(b"HTTP/1.")) {
        return Verdict::Refused("400 Bad Request", "this is not HTTP/1");
    }
    let path = target.and_then(|target| target.split(|byte| *byte == b'?').next());
    match (method, path) {
        (Some(b"GET"), Some(b"/metrics" | b"/metrics/")) => Verdict::Metrics,
        (_, Some(b"/metrics" | b"/metrics/")) => Verdict::Refused(
            "405 Method Not Allowed\r\nAllow: GET",
            "the method is not allowed; use GET",
        ),
        _ => Verdict::Refused("404 Not Found", "metrics are at /metrics"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> u16 {
        match judge(head.as_bytes()) {
            Verdict::Metrics => 200,
            Verdict::Refused(status, _) => status[..3].parse().unwrap(),
        }
    }

    #[test]
    fn only_a_get_of_metrics_is_answered() {
        for (line, expected) in [
            ("GET /metrics HTTP/1.1", 200),
            ("GET /metrics/ HTTP/1.0", 200),
            ("GET /metrics?name[]=up HTTP/1.1", 200),
            ("POST /metrics HTTP/1.1", 405),
            ("GET / HTTP/1.1", 404),
            ("GET /metricsandmore HTTP/1.1", 404),
            ("GET /metrics", 400),
            ("\u{16}\u{3}\u{1}", 400),
            ("", 400),
        ] {
            assert_eq!(
                status(&format!("{line}\r\nHost: f\r\n\r\n")),
                expected,
                "{line}"
            );
        }
        assert_eq!(status("GET /metrics HTTP/1.1\n\n"), 200);
        assert_eq!(status("GET /metrics HTTP/1.1\r\nX: "), 431);
    }
}
