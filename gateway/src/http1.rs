//! One HTTP/1.1 connection to an endpoint, driven by the call that it carries; and what is read and written of HTTP/1.1 on either
//! side of the gateway.
//!
//! There is no task for a connection and no channel between it and its call: the call's own task writes and reads, so that
//! a call costs little more than its system calls (docs/decisions/0016). Request and answer overlap: an answer that comes
//! early is passed on while the rest of the body is still sent.

mod chunks;
pub(crate) mod reading;
mod receive;
mod send;
pub(crate) mod writing;

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::receive::Receiving;
use self::writing::{Halt, Writing};
use crate::alarm::Alarm;
use crate::told::Told;
use crate::upload::{self, Upload};

/// One connection, with what is on its way in both directions.
pub struct Http1 {
    io: TcpStream,
    sending: Writing<Upload>,
    receiving: Receiving,
    alarm: Alarm,
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// Nothing of it was sent.
    Unsent(io::Error),
    /// The caller's body broke off.
    Caller(upload::Error),
    /// What came is not HTTP as we read it.
    Nonsense(&'static str),
    /// The connection ended, or broke.
    Closed(Option<io::Error>),
}

impl Http1 {
    /// A connection that has carried nothing yet.
    #[must_use]
    pub fn new(io: TcpStream) -> Self {
        Self {
            io,
            sending: Writing::default(),
            receiving: Receiving::default(),
            alarm: Alarm::default(),
        }
    }

    /// Whether it can carry a request: the last answer has ended as it should, the other side has not closed, and nothing came
    /// that nobody asked for. Costs no system call unless something did come.
    #[must_use]
    pub fn is_free(&self) -> bool {
        let nothing_came = |error: io::Error| error.kind() == ErrorKind::WouldBlock;
        self.sending.is_done()
            && self.receiving.may_begin()
            && self.io.try_read(&mut [0]).is_err_and(nothing_came)
    }

    /// Begins a request, with what its function is told, if it is a call. It is sent while its answer is waited for.
    pub fn begin<B>(&mut self, head: &Request<B>, told: Option<&Told<'_>>, body: Upload) {
        send::begin(&mut self.sending, head, told, body);
        self.receiving.begin(*head.method() == Method::HEAD);
    }

    /// Sends what was begun and waits for the head of the answer; `None` if it is not there in time, and may still come. The
    /// body is sent on with [`Self::poll_frame`] if the answer comes first.
    ///
    /// # Errors
    /// See [`Unanswered`]; after any of them the connection is of no use.
    pub async fn answer_by(&mut self, due: Instant) -> Option<Result<Response<()>, Unanswered>> {
        poll_fn(|cx| match self.poll_answer(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => self.alarm.poll(cx, due).map(|()| None),
        })
        .await
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Unanswered>> {
        match self.sending.poll(cx, &mut self.io) {
            Poll::Ready(Err(Halt::Body(error))) => {
                return Poll::Ready(Err(Unanswered::Caller(error)));
            }
            Poll::Ready(Err(Halt::Closed(error))) if self.sending.sent() == 0 => {
                return Poll::Ready(Err(Unanswered::Unsent(error)));
            }
            // Whoever takes no more may have said why.
            Poll::Ready(_) | Poll::Pending => {}
        }
        let answer = ready!(self.receiving.poll_head(cx, &mut self.io));
        let switches = |head: &Response<()>| head.status() == StatusCode::SWITCHING_PROTOCOLS;
        if answer.as_ref().is_ok_and(switches) && !self.sending.is_done() {
            // RFC 9110 §7.8: the rest of the request would be taken for the other protocol.
            let what = "it switches protocols in the middle of a request";
            return Poll::Ready(Err(Unanswered::Nonsense(what)));
        }
        Poll::Ready(answer)
    }

    /// The next piece of the answer's body; also sends on what is left of the request.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unanswered>>> {
        if let Poll::Ready(Err(Halt::Body(error))) = self.sending.poll(cx, &mut self.io) {
            return Poll::Ready(Some(Err(Unanswered::Caller(error))));
        }
        self.receiving.poll_frame(cx, &mut self.io)
    }

    /// Whether the answer has ended before its request has, which can still be sent to the end.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.receiving.is_kept_after_all() && !self.sending.is_done() && !self.sending.has_failed()
    }

    /// Sends what is left of a request whose answer has ended, as long as some of it goes out within this limit.
    pub async fn send_the_rest(&mut self, limit: Duration) {
        let (mut sent, mut due) = (self.sending.sent(), Instant::now() + limit);
        poll_fn(|cx| {
            if self.sending.poll(cx, &mut self.io).is_ready() {
                return Poll::Ready(());
            }
            if self.sending.sent() != sent {
                (sent, due) = (self.sending.sent(), Instant::now() + limit);
            }
            self.alarm.poll(cx, due)
        })
        .await;
    }

    /// Whether all of the answer has been received.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        self.receiving.is_over()
    }

    /// How much of the answer is to come.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.receiving.size_hint()
    }

    /// The connection itself after a switch of protocols, and what has been read of the other one already.
    #[must_use]
    pub fn into_parts(mut self) -> (TcpStream, BytesMut) {
        let read = self.receiving.take_rest();
        (self.io, read)
    }
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsent(error) => write!(f, "nothing could be sent: {error}"),
            Self::Caller(error) => write!(f, "the caller's body broke off: {error}"),
            Self::Nonsense(what) => write!(f, "what it sent is not HTTP ({what})"),
            Self::Closed(None) => f.write_str("it closed the connection"),
            Self::Closed(Some(error)) => write!(f, "its connection broke ({error})"),
        }
    }
}

impl std::error::Error for Unanswered {}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::incoming::{Bringing, Incoming, One};
    use crate::reply::BodyError;
    use crate::upload::{MOST_PIECES, Source};

    /// What the other side got, the answer or why there is none, its body, and whether the connection can be used again.
    struct Seen {
        asked: Vec<u8>,
        status: Result<u16, String>,
        body: Result<String, String>,
        is_free: bool,
    }

    /// Asks somebody who answers with these pieces, each of which is on its way before the next, and then closes or waits.
    async fn ask(method: &str, pieces: &[&str], then_closes: bool) -> Seen {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (ours, (mut theirs, _)) = (ours.unwrap(), theirs.unwrap());
        theirs.set_nodelay(true).unwrap();
        let mut connection = Http1::new(ours);
        assert!(connection.is_free());
        let head = Request::builder()
            .method(method)
            .uri("/a?b")
            .body(())
            .unwrap();
        connection.begin(&head, None, Upload::empty());
        let asked_and_answered = async {
            let mut asked = vec![0; 1024];
            let length = theirs.read(&mut asked).await.unwrap();
            asked.truncate(length);
            for piece in pieces {
                // We may have heard enough before it is through.
                let _ = theirs.try_write(piece.as_bytes());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if then_closes {
                theirs.shutdown().await.unwrap();
            }
            asked
        };
        let due = Instant::now() + Duration::from_secs(10);
        let (asked, answer) = tokio::join!(asked_and_answered, connection.answer_by(due));
        let mut text = Vec::new();
        let status = answer.expect("in time").map(|head| head.status().as_u16());
        let mut broken = None;
        while status.is_ok() && broken.is_none() {
            match poll_fn(|cx| connection.poll_frame(cx)).await {
                None => break,
                Some(Ok(frame)) => text.extend(frame.into_data().unwrap_or_default()),
                Some(Err(why)) => broken = Some(why.to_string()),
            }
        }
        Seen {
            asked,
            status: status.map_err(|why| why.to_string()),
            body: broken.map_or_else(|| Ok(String::from_utf8(text).unwrap()), Err),
            is_free: connection.is_free(),
        }
    }

    #[tokio::test]
    async fn answers_end_where_their_heads_say() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        for (method, pieces, status, body, is_free) in [
            (
                "GET",
                &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"][..],
                200,
                "ok",
                true,
            ),
            (
                "GET",
                &[
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nContent-Length: 2\r\n\r\n",
                    "o",
                    "k",
                ],
                200,
                "ok",
                true,
            ),
            (
                "GET",
                &["HTTP/1.1 20", "0 OK\r\nContent-Length: 0\r", "\n\r", "\n"],
                200,
                "",
                true,
            ),
            ("GET", &[chunked], 200, "ok", true),
            (
                "GET",
                &[chunked, "HTTP/1.1 200 OK\r\n\r\n"],
                200,
                "ok",
                false,
            ),
            (
                "GET",
                &[
                    "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                ],
                200,
                "ok",
                false,
            ),
            (
                "HEAD",
                &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"],
                200,
                "",
                true,
            ),
            (
                "HEAD",
                &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"],
                200,
                "",
                false,
            ),
            (
                "GET",
                &["HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n"],
                204,
                "",
                true,
            ),
            (
                "GET",
                &["HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"],
                304,
                "",
                true,
            ),
            (
                "GET",
                &[
                    "HTTP/1.1 100 Continue\r\n\r\n",
                    "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                ],
                200,
                "",
                true,
            ),
            (
                "GET",
                &["HTTP/1.1 200 OK\r\nConnection: a, Close\r\nContent-Length: 2\r\n\r\nok"],
                200,
                "ok",
                false,
            ),
            (
                "GET",
                &["HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"],
                200,
                "ok",
                false,
            ),
            (
                "GET",
                &["HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\n\r\nrest"],
                101,
                "",
                false,
            ),
            (
                "GET",
                &["HTTP/1.1 600 Odd\nContent-Length: 0\n\n"],
                600,
                "",
                true,
            ),
        ] {
            let seen = ask(method, pieces, false).await;
            assert_eq!(seen.status, Ok(status), "{pieces:?}");
            assert_eq!(
                (seen.body.as_deref(), seen.is_free),
                (Ok(body), is_free),
                "{pieces:?}"
            );
            let asked = format!("{method} /a?b HTTP/1.1\r\n\r\n");
            assert_eq!(seen.asked, asked.as_bytes());
        }
        let seen = ask("GET", &["HTTP/1.1 200 OK\r\n\r\nto", " the end"], true).await;
        assert_eq!(
            (seen.body.as_deref(), seen.is_free),
            (Ok("to the end"), false)
        );
    }

    #[tokio::test]
    async fn what_could_be_read_in_two_ways_is_not_read() {
        let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(129));
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(9);
        for text in [
            "hello\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c: d\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &fields,
            &hints,
        ] {
            let seen = ask("GET", &[text], false).await;
            let status = seen.status.expect_err(text);
            assert!(
                status.starts_with("what it sent is not HTTP"),
                "{text}: {status}"
            );
            assert!(!seen.is_free);
        }
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        ] {
            let seen = ask("GET", &[text], true).await;
            let said = seen.status.map_or_else(Err, |_| seen.body.map(drop));
            assert_eq!(said, Err("it closed the connection".to_owned()), "{text}");
        }
    }

    #[tokio::test]
    async fn an_endless_head_is_given_up() {
        let field = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(300_000));
        let seen = ask("GET", &[&field], false).await;
        assert!(seen.status.unwrap_err().contains("too large"));
    }
    /// A body of single bytes, which are always there.
    struct Drops;

    impl Bringing for Drops {
        fn poll_frame(
            &mut self,
            _: u64,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }

        fn is_over(&self, _: u64) -> bool {
            false
        }

        fn size_hint(&self, _: u64) -> SizeHint {
            SizeHint::default()
        }

        fn leave(&mut self, _: u64) {}
    }

    #[tokio::test]
    async fn a_body_may_be_past_its_beginning_though_nothing_was_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (ours, (theirs, _)) = (ours.unwrap(), theirs.unwrap());
        // The request before was not read, and there is no room for another.
        ours.writable().await.unwrap();
        while ours.try_write(&[0; 1 << 16]).is_ok() {}
        let mut connection = Http1::new(ours);
        let body = Incoming::One(One::of(Arc::new(Mutex::new(Drops)), 1));
        let source = Source::new(body, u64::MAX);
        let head = Request::post("/").body(()).unwrap();
        connection.begin(&head, None, source.send());
        for _ in 0..=MOST_PIECES {
            assert!(connection.answer_by(Instant::now()).await.is_none());
        }
        socket2::SockRef::from(&theirs)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(theirs);
        let due = Instant::now() + Duration::from_secs(10);
        let answer = connection.answer_by(due).await.expect("in time");
        assert!(matches!(answer, Err(Unanswered::Unsent(_))), "{answer:?}");
        assert!(!source.is_whole());
    }
}
