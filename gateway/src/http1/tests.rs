//! A connection to somebody who answers as a test says.

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
    let closed = "it closed the connection";
    let in_head = "what it sent is not HTTP (the connection ended within the head of the answer)";
    for (text, why) in [
        ("", closed),
        ("HTTP/1.1 200 OK\r\n", in_head),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", in_head),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", closed),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            closed,
        ),
    ] {
        let seen = ask("GET", &[text], true).await;
        let said = seen.status.map_or_else(Err, |_| seen.body.map(drop));
        assert_eq!(said, Err(why.to_owned()), "{text}");
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
    let source = Source::new(body, u64::MAX, |_| {});
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
