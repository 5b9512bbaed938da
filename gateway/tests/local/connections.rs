//! What is said and done on one connection of HTTP/1.1, byte by byte: which answers there are, how they end, what follows.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

/// Everything that comes until the gateway closes, after these pieces have been sent one after the other.
fn heard(gateway: &Gateway, pieces: &[&str]) -> String {
    heard_and(gateway, pieces, |_| {})
}

/// The same from a client who then does this.
fn heard_and(gateway: &Gateway, pieces: &[&str], then: impl FnOnce(&TcpStream)) -> String {
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    for piece in pieces {
        stream.write_all(piece.as_bytes()).unwrap();
        // So that they come as pieces; the outcome is the same if they do not.
        std::thread::sleep(Duration::from_millis(5));
    }
    then(&stream);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    String::from_utf8(all).unwrap()
}

/// The statuses of the answers in it, and whether the last one says that the connection is closed.
fn answers(heard: &str) -> (Vec<u16>, bool) {
    // Sentences speak of HTTP, too.
    let status = |piece: &str| piece.get(2..5)?.parse().ok();
    let pieces = heard.split("HTTP/1.").skip(1);
    let answers = pieces.filter_map(|piece| Some((status(piece)?, piece)));
    let closes = |piece: &str| piece.to_lowercase().contains("\r\nconnection: close\r\n");
    let last = answers.clone().last();
    (
        answers.map(|(status, _)| status).collect(),
        last.is_some_and(|(_, piece)| closes(piece)),
    )
}

#[test]
fn what_is_no_request_is_answered_in_a_sentence_with_an_id_and_a_close() {
    let gateway = Gateway::with("  cat:\n    fprocess: cat", &["--read-timeout", "1s"]);
    let long = format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "x".repeat(65_600));
    for (request, status, sentence) in [
        ("hello\r\n\r\n", 400, "not a request"),
        (
            "GET / HTTP/1.1\r\nHost : t\r\n\r\n",
            400,
            "name of a header field",
        ),
        ("GET / HTTP/3.0\r\nHost: t\r\n\r\n", 400, "versions"),
        (
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "HTTP/1.0",
        ),
        (&long, 431, "max_header_bytes"),
        // It begins, and nothing more comes.
        ("GET / HTTP/1.1\r\nHo", 408, "in time"),
    ] {
        let heard = heard(&gateway, &[request]);
        assert_eq!(answers(&heard), (vec![status], true), "{heard}");
        for part in [sentence, "x-call-id: ", "x-openfaas-internal: gateway"] {
            assert!(heard.contains(part), "{part}: {heard}");
        }
    }
    let began = Instant::now();
    assert_eq!(heard(&gateway, &[]), "", "who says nothing hears nothing");
    assert!((900..5000).contains(&began.elapsed().as_millis()));
    assert_eq!(heard(&gateway, &["\r\n"]), "", "an empty line is nothing");
}

#[test]
fn a_head_that_will_never_end_is_answered_and_nothing_is_not() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let heard = |pieces: &[&str]| {
        heard_and(&gateway, pieces, |stream| {
            stream.shutdown(Shutdown::Write).unwrap();
        })
    };
    let unfinished = "ends before its empty line";
    for (pieces, sentence) in [
        (&["G"][..], unfinished),
        (&["GET / HTTP/1.1\r\nHost: t\r\n"], unfinished),
        (&["\r\n", "GET / HT", "TP/1.1\r"], unfinished),
        (&["PRI * HTTP/2.0\r\n\r\nSM\r\n"], "versions"),
        (&["hello, world\r\n"], "not a request"),
        (&["hello", " \r\n"], "not a request"),
        (&["GET / HTTP/1.1\r\n", "Host : t\r\n"], "name of a header"),
    ] {
        let heard = heard(pieces);
        assert_eq!(answers(&heard), (vec![400], true), "{pieces:?}: {heard}");
        assert!(heard.contains(sentence), "{pieces:?}: {heard}");
    }
    for pieces in [&[][..], &["\r\n"], &["\r\n", "\n\r"]] {
        assert_eq!(heard(pieces), "", "{pieces:?}");
    }
    let whole = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    let heard = heard(&[whole, "\r\n"]);
    assert_eq!(answers(&heard), (vec![200], false), "{heard}");
}

#[test]
fn requests_in_one_piece_or_in_many_are_answered_one_after_the_other() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let one = |body: &str| {
        format!("POST /function/cat HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n{body}")
    };
    let last = "POST /function/cat HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n";
    let all = one("uvw") + "\r\n" + last;
    let mut pieces = vec![vec![all.as_str()]];
    pieces.push(
        all.as_bytes()
            .chunks(7)
            .map(|piece| std::str::from_utf8(piece).unwrap())
            .collect(),
    );
    for pieces in pieces {
        let heard = heard(&gateway, &pieces);
        assert_eq!(answers(&heard), (vec![200, 200], true), "{heard}");
        // No ids have these letters.
        let (first, second) = (heard.find("uvw").unwrap(), heard.find("xyz").unwrap());
        assert!(first < second);
    }
}

#[test]
fn a_body_that_nobody_wants_is_passed_over_if_it_is_there_and_ends_the_connection_if_it_is_not() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let next = "GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let there = "POST /function/nosuch HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc";
    let heard_all = heard(&gateway, &[&format!("{there}{next}")]);
    assert_eq!(answers(&heard_all), (vec![404, 200], true), "{heard_all}");
    for (head, rest) in [
        ("Content-Length: 3\r\n\r\n", "abc"),
        ("Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", "abc"),
        (
            "Transfer-Encoding: chunked\r\n\r\n3\r\nab",
            "c\r\n0\r\n\r\n",
        ),
    ] {
        let head = format!("POST /function/nosuch HTTP/1.1\r\nHost: t\r\n{head}");
        let heard = heard(&gateway, &[&head, &format!("{rest}{next}")]);
        assert_eq!(answers(&heard), (vec![404], true), "{heard}");
    }
}

#[test]
fn the_word_to_send_is_given_once_somebody_wants_the_body() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let head = |version| {
        format!(
            "POST /function/cat HTTP/{version}\r\nHost: t\r\nConnection: close\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"
        )
    };
    let told = heard(&gateway, &[&head("1.1"), "abc"]);
    assert_eq!(answers(&told), (vec![100, 200], true), "{told}");
    let old = heard(&gateway, &[&head("1.0"), "abc"]);
    assert_eq!(answers(&old), (vec![200], true), "{old}");
}

#[test]
fn answers_end_as_their_request_can_understand() {
    let upstream = Upstream::new(|stream, head| {
        let answer: &[u8] = if head.starts_with("HEAD") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"
        } else if head.contains("/none") {
            b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
        } else if head.contains("/old") {
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"
        } else {
            b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
        };
        let _ = stream.write_all(answer);
    });
    let gateway = Gateway::of(&upstream.entry("f", ""));
    let ask = |method: &str, path: &str, more: &str| {
        let request = format!("{method} /function/f{path} {more}\r\n\r\n");
        let heard = heard(&gateway, &[&request]).to_lowercase();
        let (head, body) = heard.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    };
    let close = "HTTP/1.1\r\nHost: t\r\nConnection: close";
    let (head, body) = ask("GET", "", close);
    assert!(head.starts_with("http/1.1 200 fine\r\n") && head.contains("\r\ndate: "));
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(body, "3\r\nabc\r\n0\r\n\r\n", "nobody asked for trailers");
    let (_, body) = ask("GET", "", &format!("{close}\r\nTE: trailers"));
    assert_eq!(body, "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n");
    let (head, body) = ask("GET", "", "HTTP/1.0");
    assert!(head.starts_with("http/1.0 200 fine") && !head.contains("transfer-encoding"));
    assert_eq!(body, "abc", "to the end of the connection");
    let (head, body) = ask("HEAD", "", close);
    assert!(
        head.contains("content-length: 7") && body.is_empty(),
        "{head}"
    );
    let (head, body) = ask("GET", "/old", close);
    assert!(
        head.contains("content-length: 7") && body.is_empty(),
        "{head}"
    );
    let (head, body) = ask("GET", "/none", close);
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"));
    assert!(body.is_empty());
}

#[test]
fn an_answer_that_ends_with_its_connection_does_not_look_whole_when_it_breaks_off() {
    let breaks =
        Upstream::says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let gateway = Gateway::of(&breaks.entry("f", ""));
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
        .write_all(b"GET /function/f HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all).map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn http_1_0_keeps_its_connection_if_it_asks_for_that() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let one = "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let heard = heard(&gateway, &[one, "GET /healthz HTTP/1.0\r\n\r\n"]);
    assert_eq!(answers(&heard).0, [200, 200], "{heard}");
    assert_eq!(heard.matches("\r\nconnection: keep-alive\r\n").count(), 1);
}

#[test]
fn what_follows_a_head_or_a_body_that_is_refused_is_no_request() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let next = "GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let post = "POST /function/cat HTTP/1.1\r\nHost: t\r\n";
    for head in [
        "Content-Length: 5\r\nContent-Length: 40\r\n\r\n",
        "Content-Length: x\r\n\r\n",
        "Transfer-Encoding: gzip\r\n\r\n",
    ] {
        let head = format!("{post}{head}");
        for rest in [vec![next], vec!["P", next], vec![]] {
            let pieces = [vec![head.as_str()], rest].concat();
            let heard = heard(&gateway, &pieces);
            assert_eq!(answers(&heard), (vec![400], true), "{pieces:?}: {heard}");
        }
    }
    for body in [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\n3\r\n\r\n0\r\n\r\n",
        "0\r\n\n",
    ] {
        let all = format!("{post}Transfer-Encoding: chunked\r\n\r\n{body}{next}");
        let heard = heard(&gateway, &[&all]);
        assert_eq!(answers(&heard), (vec![400], true), "{body:?}: {heard}");
    }
    let first = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let heard = heard(&gateway, &[first, preface]);
    assert_eq!(answers(&heard), (vec![200, 400], true), "{heard}");
}
