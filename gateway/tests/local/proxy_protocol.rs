//! Connections that begin with a PROXY header: who the caller then is, and what is no header.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::proxies::{CAT, OK, PROXY, forwarded};
use super::tls::{World, head};
use crate::support::authority::finish;
use crate::support::client::{connect_from, get};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXIED: &[&str] = &["--proxy-protocol=on", "--trusted-proxies=127.9.9.0/24"];

/// A header of this command and family with this block.
fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, block].concat()
}

/// The header of a connection from `192.0.2.7`.
fn header_of_a_caller() -> Vec<u8> {
    header(
        1,
        0x11,
        &[192, 0, 2, 7, 127, 0, 0, 1, 0x12, 0x67, 0x1f, 0x90],
    )
}

/// What comes back on a connection from this address that begins with these bytes; nothing, if it is closed without a word.
fn answered(from: impl Into<IpAddr>, to: SocketAddr, header: &[u8], lines: &str) -> String {
    let mut stream = connect_from(from, to);
    let head = format!(
        "GET /function/echo HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{lines}\r\n"
    );
    stream
        .write_all(&[header, head.as_bytes()].concat())
        .unwrap();
    let mut all = Vec::new();
    // What was not read turns the close into a reset.
    let _ = stream.read_to_end(&mut all);
    String::from_utf8(all).unwrap()
}

/// Where the gateway serves its metrics, to whoever comes without a header.
fn metrics(gateway: &Gateway) -> SocketAddr {
    let mut address = None;
    eventually("a metrics port", || {
        let log = gateway.log();
        let line = log.lines().find(|line| line.contains(" for metrics"));
        let after = line.and_then(|line| line.split("http://").nth(1));
        address = after.and_then(|after| after.split_once(' ')?.0.parse().ok());
        address.is_some()
    });
    address.unwrap()
}

fn closed_for(gateway: &Gateway, reason: &str) -> f64 {
    let series = format!("skep_proxy_protocol_closed_total{{reason=\"{reason}\"}} ");
    let page = get(metrics(gateway), "/metrics").text();
    let value = page.lines().find_map(|line| line.strip_prefix(&series));
    value.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn the_caller_is_whom_the_header_names() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::with(&upstream.entry("echo", ""), PROXIED);
    let mut ipv6 = [0; 36];
    ipv6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    ipv6[15] = 7;
    let mut mapped = [0; 36];
    mapped[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 8]);
    // As much as a balancer may add.
    let fields = [
        &[192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0xee, 0x0f, 0x00][..],
        &[0; 4000],
    ]
    .concat();
    // A client's own word, which a balancer that only passes bytes on does not remove.
    let lie = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n";
    for (header, caller) in [
        (header_of_a_caller(), "192.0.2.7"),
        (header(1, 0x21, &ipv6), "2001:db8::7"),
        (header(1, 0x21, &mapped), "192.0.2.8"),
        (header(1, 0x11, &fields), "192.0.2.7"),
        // A caller that has no address is not the balancer itself, whose word would count.
        (header(1, 0x31, &[b'/'; 216]), "127.9.9.9"),
        (header(1, 0x00, b""), "127.9.9.9"),
    ] {
        let answer = answered(PROXY, gateway.address, &header, lie);
        assert!(answer.starts_with("HTTP/1.1 200"), "{caller}: {answer}");
        assert_eq!(
            forwarded(&upstream.saw()),
            [vec![caller], vec!["http"], vec!["shop.example"]]
        );
    }
    let behind_two = header(1, 0x11, &[127, 9, 9, 1, 127, 0, 0, 1, 0, 0, 0, 0]);
    for (header, list) in [
        (header(0, 0x00, b""), "1.2.3.4, 127.9.9.9"),
        (header(0, 0x11, &[1; 12]), "1.2.3.4, 127.9.9.9"),
        (behind_two, "1.2.3.4, 127.9.9.1"),
    ] {
        answered(PROXY, gateway.address, &header, lie);
        assert_eq!(
            forwarded(&upstream.saw())[..2],
            [[list], ["https"]],
            "a proxy's own request"
        );
    }
}

#[test]
fn a_header_may_come_in_pieces_and_holds_for_every_call_of_its_connection() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::with(&upstream.entry("echo", ""), PROXIED);
    let mut stream = connect_from(PROXY, gateway.address);
    stream.set_nodelay(true).unwrap();
    for byte in header_of_a_caller() {
        stream.write_all(&[byte]).unwrap();
        std::thread::yield_now();
    }
    for _ in 0..3 {
        stream
            .write_all(b"GET /function/echo HTTP/1.1\r\nHost: t\r\n\r\n")
            .unwrap();
        assert_eq!(forwarded(&upstream.saw())[0], ["192.0.2.7"]);
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"\r\n\r\nok") {
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
    }
}

#[test]
fn the_header_comes_before_the_handshake_of_tls() {
    let (world, upstream) = (World::new(), Upstream::says(OK));
    let gateway = world.gateway(&upstream.entry("echo", ""), PROXIED);
    let mut tcp = connect_from(PROXY, gateway.secure_address());
    tcp.write_all(&header_of_a_caller()).unwrap();
    let mut stream = finish(world.authority.begin_on(tcp));
    let request = "GET /function/echo HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    assert!(head(&mut stream).starts_with("HTTP/1.1 200"));
    assert_eq!(
        forwarded(&upstream.saw()),
        [vec!["192.0.2.7"], vec!["https"], vec!["shop.example"]]
    );
}

#[test]
fn http2_comes_behind_a_header_too() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::with(&upstream.entry("echo", ""), PROXIED);
    let mut stream = connect_from(PROXY, gateway.address);
    stream.write_all(&header_of_a_caller()).unwrap();
    let work = async {
        stream.set_nonblocking(true).unwrap();
        let io = TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
        let (mut connection, driver) = handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(async { driver.await.unwrap_or_default() });
        let request = Request::get("http://t/function/echo").body(Empty::<Bytes>::new());
        connection
            .send_request(request.unwrap())
            .await
            .unwrap()
            .status()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let limited = async { tokio::time::timeout(Duration::from_secs(30), work).await };
    assert_eq!(runtime.unwrap().block_on(limited).unwrap(), 200);
    assert_eq!(forwarded(&upstream.saw())[0], ["192.0.2.7"]);
}

#[test]
fn what_is_no_header_closes_the_connection_and_is_counted() {
    let upstream = Upstream::says(OK);
    let flags = [PROXIED, &["--metrics-port=0"]].concat();
    let gateway = Gateway::with(&upstream.entry("echo", ""), &flags);
    let mut version_3 = header_of_a_caller();
    version_3[12] = 0x31;
    for (reason, bytes) in [
        ("signature", b"".to_vec()),
        (
            "version_1",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n".to_vec(),
        ),
        ("version", version_3),
        ("command", header(2, 0x11, &[0; 12])),
        ("family", header(1, 0x41, &[0; 12])),
        ("length", header(1, 0x11, &[0; 11])),
        ("length", header(1, 0x11, &[0; 5000])),
    ] {
        let before = closed_for(&gateway, reason);
        assert_eq!(answered(PROXY, gateway.address, &bytes, ""), "", "{reason}");
        assert_eq!(closed_for(&gateway, reason), before + 1.0, "{reason}");
    }
    assert_eq!(
        answered([127, 0, 0, 1], gateway.address, &header_of_a_caller(), ""),
        ""
    );
    assert_eq!(closed_for(&gateway, "untrusted"), 1.0);
    let mut half = connect_from(PROXY, gateway.address);
    half.write_all(&header_of_a_caller()[..20]).unwrap();
    drop(half);
    eventually("half a header is counted", || {
        closed_for(&gateway, "incomplete") == 1.0
    });
    assert!(upstream.saw_nothing(), "none of it is a call");
    for told in [
        "127.9.9.9 was closed: its PROXY header is of version 1; only version 2",
        "send-proxy-v2",
        "127.0.0.1 was closed",
    ] {
        gateway.logs(told);
    }
    let log = gateway.log();
    assert_eq!(log.matches("too short for its address").count(), 1, "{log}");
    assert!(
        answered(PROXY, gateway.address, &header_of_a_caller(), "").starts_with("HTTP/1.1 200")
    );
}

#[test]
fn whoever_is_silent_is_closed_in_time_and_holds_up_no_end() {
    let flags = [PROXIED, &["--read-timeout=1s"]].concat();
    let gateway = Gateway::with(CAT, &flags);
    let header = header_of_a_caller();
    for begun in [0, 1, 15, 27] {
        let mut stream = connect_from(PROXY, gateway.address);
        stream.write_all(&header[..begun]).unwrap();
        let began = Instant::now();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        let took = began.elapsed();
        let expected = Duration::from_millis(900)..Duration::from_secs(5);
        assert!(expected.contains(&took), "{took:?} after {begun} bytes");
    }
    let mut gateway = Gateway::with(CAT, &["--proxy-protocol=on", "--drain-timeout=20s"]);
    let told = "PROXY headers are believed from everybody";
    gateway.logs(told);
    let _silent = connect_from(PROXY, gateway.address);
    let began = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}
