//! A caller who hangs up while its function works: the call ends, whatever has come on its connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

/// A server that answers no request, and tells when one is given up.
fn silent() -> (Upstream, Receiver<()>) {
    let (given_up, ends) = channel();
    let upstream = Upstream::new(move |stream, head| {
        if head.contains(" /wait") {
            // Until the end, or a reset.
            while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
            let _ = given_up.send(());
        } else {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (upstream, ends)
}

fn call(gateway: &Gateway, more: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    let head = b"GET /function/f/wait HTTP/1.1\r\nHost: t\r\n\r\n";
    stream.write_all(&[head, more].concat()).unwrap();
    stream
}

/// That a call is given up, and counted as its caller's doing.
fn is_given_up(what: &str, more: &[u8], hang_up: impl FnOnce(TcpStream)) {
    let (upstream, ends) = silent();
    let gateway = Gateway::of(&upstream.entry("f", ""));
    let stream = call(&gateway, more);
    while !upstream.saw().contains(" /wait") {}
    hang_up(stream);
    assert_eq!(ends.recv_timeout(Duration::from_secs(8)), Ok(()), "{what}");
    eventually("no call is in flight", || {
        gateway.metric("skep_in_flight{function_name=\"f\"}") < 0.5
    });
    let aborted = "gateway_function_invocation_total{code=\"499\",function_name=\"f\"}";
    eventually("it counts as the caller's", || {
        (gateway.metric(aborted) - 1.0).abs() < 0.5
    });
}

#[test]
fn a_caller_who_closes_after_a_byte_of_its_next_request_is_noticed() {
    for more in [
        &b""[..],
        b"G",
        b"\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
    ] {
        is_given_up("closed", more, drop);
    }
    is_given_up("half closed", b"G", |stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(9));
            drop(stream);
        });
    });
}

#[test]
fn a_caller_who_closes_after_more_than_is_read_ahead_is_noticed() {
    let many = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n".repeat(1000);
    is_given_up("closed", &many, drop);
}
