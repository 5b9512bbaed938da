//! Answers that come before the caller has sent its request to the end: none of them is lost to a reset.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use crate::http2::{connect, run, whole};
use crate::support::gateway::{Folder, Gateway};
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

/// More than the sockets between the two hold: the caller is still at it when the answer comes.
const BODY: usize = 8 << 20;
const TIMES: usize = 50;

/// Sends all of it, however long that takes, and only then looks for an answer. The status, or how it was lost.
fn late_reader(to: SocketAddr, head: &str, body: &[u8]) -> Result<u16, String> {
    let mut stream = TcpStream::connect(to).unwrap();
    for limit in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        limit(&stream, Some(Duration::from_secs(20))).unwrap();
    }
    let sent = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body));
    sent.map_err(|error| format!("sending: {error}"))?;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    read.map_err(|error| format!("reading: {error}, after {answer:?}"))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    status.parse().map_err(|_| format!("no answer: {answer:?}"))
}

#[test]
fn a_caller_that_reads_only_after_it_has_sent_everything_gets_every_early_answer() {
    let login = Folder::new();
    login.write("basic-auth-user", "me");
    login.write("basic-auth-password", "secret");
    // It answers before it has read a byte of the body.
    let hasty = Upstream::new(|stream, _| {
        let answer = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).unwrap();
        let _ = std::io::copy(stream, &mut std::io::sink());
    });
    let functions = "  count:\n    fprocess: wc -c\n    labels:\n      skep.max-body: 1Mi\n";
    let gateway = Gateway::with(
        &(hasty.entry("hasty", "") + functions),
        &[
            "--basic-auth",
            "true",
            "--secret-mount-path",
            login.0.to_str().unwrap(),
        ],
    );
    let sized = format!("Content-Length: {BODY}\r\n\r\n");
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{BODY:x}\r\n");
    // No head at all: it only goes on.
    let endless = "X: ".to_owned();
    let body = vec![b'x'; BODY];
    for (status, request, framing) in [
        (404, "POST /function/nosuch HTTP/1.1\r\nHost: t", &sized),
        (404, "POST /function/nosuch HTTP/1.1\r\nHost: t", &chunked),
        (413, "POST /function/count HTTP/1.1\r\nHost: t", &sized),
        (413, "POST /function/count HTTP/1.1\r\nHost: t", &chunked),
        (
            403,
            "POST /function/hasty HTTP/1.1\r\nHost: t\r\nConnection: close",
            &sized,
        ),
        (400, "POST /function/count HTTP/1.1\r\nHost: a b", &sized),
        (401, "POST /system/functions HTTP/1.1\r\nHost: t", &sized),
        (431, "POST /function/count HTTP/1.1\r\nHost: t", &endless),
    ] {
        let head = format!("{request}\r\n{framing}");
        for time in 0..TIMES {
            let told = late_reader(gateway.address, &head, &body);
            assert_eq!(told, Ok(status), "time {time} of {head}");
        }
    }
    eventually("nobody lingers whose caller has closed", || {
        gateway.metric("skep_connections") < 1.5
    });
}

#[test]
fn over_http_2_an_early_answer_ends_its_call_and_leaves_the_connection_to_the_others() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let address = gateway.address;
    run(async {
        let mut connection = connect::<Full<Bytes>>(address).await;
        for time in 0..TIMES {
            // More than its window: most of it is never asked for.
            let body = Full::new(Bytes::from_static(&[b'x'; BODY]));
            let request = Request::post(format!("http://{address}/function/nosuch"));
            let request = request.body(body).unwrap();
            let response = connection.send_request(request).await;
            let response = response.unwrap_or_else(|error| panic!("time {time}: {error:?}"));
            assert_eq!(whole(response).await.0, 404, "time {time}");
        }
    });
    assert!(
        gateway.metric("skep_connections") < 2.5,
        "it was one connection"
    );
}

#[test]
fn a_caller_that_is_turned_away_hears_so_although_it_has_sent_a_request() {
    let gateway = Gateway::with("  cat:\n    fprocess: cat", &["--max-connections", "1"]);
    let mut held = TcpStream::connect(gateway.address).unwrap();
    held.write_all(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")
        .unwrap();
    assert!(
        held.read(&mut [0; 1024]).unwrap() > 0,
        "it has the only place"
    );
    let head = "POST /function/cat HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n";
    for time in 0..TIMES {
        let told = late_reader(gateway.address, head, &[b'x'; 100_000]);
        assert_eq!(told, Ok(503), "time {time}");
    }
}

#[test]
fn who_goes_on_after_its_answer_is_counted_and_cut_and_does_not_hold_up_the_end() {
    let mut gateway = Gateway::of("  cat:\n    fprocess: cat");
    let begin = || {
        let mut caller = TcpStream::connect(gateway.address).unwrap();
        let head =
            "POST /function/nosuch HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000000\r\n\r\n";
        caller.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        caller
    };
    // One that says nothing more, but does not close.
    let (silent, since) = (begin(), Instant::now());
    assert!(gateway.metric("skep_connections") > 1.5, "it is counted");
    let took = within(Duration::from_secs(10), "it is cut", || {
        gateway.metric("skep_connections") < 1.5
    });
    assert!(since.elapsed() > Duration::from_secs(1), "{took:?}");
    drop(silent);
    // One that sends a byte now and then.
    let mut busy = begin();
    let since = Instant::now();
    within(Duration::from_secs(20), "it is cut", || {
        std::thread::sleep(Duration::from_millis(100));
        busy.write_all(b"x").is_err()
    });
    assert!(since.elapsed() > Duration::from_secs(5), "{since:?}");
    // One at the end of the gateway.
    let _late = begin();
    gateway.signal("TERM");
    let since = Instant::now();
    assert_eq!(gateway.ended(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(5), "{since:?}");
}
