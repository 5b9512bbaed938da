//! The gateway behind proxies: whose word about callers counts, and whose does not.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::ports::SYSTEM;
use crate::support::client::{Answer, connect_from, read};
use crate::support::eventually;
use crate::support::gateway::{Gateway, run};
use crate::support::upstream::Upstream;

/// Of an upstream that closes after it, so that the next call does not meet a connection that is about to close.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
pub(crate) const CAT: &str = "  cat:\n    fprocess: cat";
/// Where the proxy of these tests connects from; others connect from 127.0.0.1.
pub(crate) const PROXY: [u8; 4] = [127, 9, 9, 9];
const TRUSTED: &str = "127.9.9.0/24";

/// The answer to a request with these lines in its head, sent from this address.
fn asked(from: impl Into<IpAddr>, to: SocketAddr, path: &str, lines: &str) -> Answer {
    let mut stream = connect_from(from, to);
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    read(stream, false)
}

/// What a head says of its caller: the lists, the ways, the hosts.
pub(crate) fn forwarded(head: &str) -> [Vec<&str>; 3] {
    ["for", "proto", "host"].map(|what| {
        let name = format!("x-forwarded-{what}");
        let fields = head.lines().filter_map(|line| line.split_once(": "));
        let named = fields.filter(|(known, _)| known.eq_ignore_ascii_case(&name));
        named.map(|(_, value)| value).collect()
    })
}

#[test]
fn a_trusted_proxys_word_reaches_the_function_and_nobody_elses_does() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::with(&upstream.entry("echo", ""), &["--trusted-proxies", TRUSTED]);
    let said = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: www.example\r\nX-Forwarded-Port: 443\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n";
    for (from, expected) in [
        (
            PROXY,
            ["1.2.3.4, 192.0.2.7, 127.9.9.9", "https", "www.example"],
        ),
        ([127, 0, 0, 1], ["127.0.0.1", "http", "shop.example"]),
    ] {
        assert_eq!(
            asked(from, gateway.address, "/function/echo", said).status,
            200
        );
        let head = upstream.saw();
        assert_eq!(
            forwarded(&head),
            expected.map(|value| vec![value]),
            "{head}"
        );
        let head = head.to_lowercase();
        for gone in ["x-forwarded-port", "x-real-ip", "\nforwarded"] {
            assert!(!head.contains(gone), "{gone} in {head}");
        }
    }
    // What a client gets a proxy to send as the names of its connection's fields.
    let named = format!("{said}Connection: x-forwarded-for, x-forwarded-proto\r\n");
    asked(PROXY, gateway.address, "/function/echo", &named);
    assert_eq!(forwarded(&upstream.saw())[1], ["https"]);
}

#[test]
fn a_proxy_that_says_nothing_or_nonsense_is_the_caller() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::with(&upstream.entry("echo", ""), &["--trusted-proxies", TRUSTED]);
    for said in [
        "",
        "X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a, b\r\n",
    ] {
        asked(PROXY, gateway.address, "/function/echo", said);
        let expected = ["127.9.9.9", "http", "shop.example"].map(|value| vec![value]);
        assert_eq!(forwarded(&upstream.saw()), expected, "{said}");
    }
}

#[test]
fn an_ipv4_proxy_is_known_on_a_port_that_speaks_ipv6() {
    let upstream = Upstream::says(OK);
    let flags = ["--bind", "::", "--trusted-proxies", TRUSTED];
    let gateway = Gateway::with(&upstream.entry("echo", ""), &flags);
    let to = SocketAddr::new([127, 0, 0, 1].into(), gateway.address.port());
    asked(
        PROXY,
        to,
        "/function/echo",
        "X-Forwarded-For: ::ffff:192.0.2.7\r\n",
    );
    assert_eq!(
        forwarded(&upstream.saw())[0],
        ["::ffff:192.0.2.7, 127.9.9.9"]
    );
    asked(
        [127, 0, 0, 1],
        to,
        "/function/echo",
        "X-Forwarded-For: 1.2.3.4\r\n",
    );
    assert_eq!(forwarded(&upstream.saw())[0], ["127.0.0.1"]);
}

#[test]
fn guessing_is_counted_for_the_caller_behind_the_proxy() {
    let flags = [
        "--basic-auth=true",
        "--basic-auth-user=admin",
        "--basic-auth-password=s3cret",
        "--trusted-proxies=127.9.9.0/24",
    ];
    let gateway = Gateway::with(CAT, &flags);
    let login = |from: [u8; 4], list: &str, word: &str| {
        let lines = format!("X-Forwarded-For: {list}\r\nAuthorization: Basic {word}\r\n");
        asked(from, gateway.address, "/system/functions", &lines).status
    };
    // `admin:guess` and `admin:s3cret`.
    let (wrong, right) = ("YWRtaW46Z3Vlc3M=", "YWRtaW46czNjcmV0");
    for nth in 0..10 {
        // Whatever the caller puts in front of its own address.
        let list = format!("203.0.113.{nth}, 192.0.2.7, 127.9.9.1");
        assert_eq!(login(PROXY, &list, wrong), 401);
    }
    assert_eq!(login(PROXY, "192.0.2.7", wrong), 429);
    assert_eq!(login(PROXY, "192.0.2.7", right), 200);
    assert_eq!(login(PROXY, "198.51.100.1", wrong), 401, "another caller");
    assert_eq!(
        login([127, 0, 0, 1], "192.0.2.7", wrong),
        401,
        "a stranger's word"
    );
}

#[test]
fn a_change_is_noted_with_the_caller_behind_the_proxy() {
    let trusting = ["--trusted-proxies", TRUSTED];
    let gateway = Gateway::with(CAT, &trusting);
    changes_are_noted(&gateway, gateway.address);
    let gateway = Gateway::with(CAT, &[&trusting[..], &["--system-port", "0"]].concat());
    changes_are_noted(&gateway, gateway.port_for(SYSTEM));
}

fn changes_are_noted(gateway: &Gateway, to: SocketAddr) {
    let change = |from: [u8; 4]| {
        let mut stream = connect_from(from, to);
        let body = r#"{"serviceName":"cat","replicas":1}"#;
        let head = format!(
            "POST /system/scale-function/cat HTTP/1.1\r\nHost: t\r\nConnection: close\r\nX-Forwarded-For: 8.8.8.8, 192.0.2.7\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(read(stream, false).status, 202);
    };
    change(PROXY);
    change([127, 0, 0, 1]);
    eventually("both are noted, each with its caller", || {
        let log = gateway.log();
        let notes = log.lines().filter(|line| line.contains("audit"));
        let peers: Vec<_> = notes
            .filter_map(|note| note.split("peer=").nth(1))
            .collect();
        peers.len() == 2 && peers[0].contains("192.0.2.7") && peers[1].contains("127.0.0.1")
    });
}

#[test]
fn the_longest_list_costs_nothing_special() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::with(
        &(upstream.entry("echo", "") + CAT),
        &["--trusted-proxies", TRUSTED, "--hosts", "shop.example"],
    );
    let list = vec!["127.9.9.1"; 6000].join(",");
    let line = format!("X-Forwarded-For: {list}\r\n");
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(
            asked(PROXY, gateway.address, "/function/echo", &line).status,
            200
        );
        assert_eq!(
            forwarded(&upstream.saw())[0],
            [format!("{list}, 127.9.9.9")]
        );
        assert_eq!(
            asked(PROXY, gateway.address, "/system/functions", &line).status,
            200
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn every_mistake_is_told_with_the_others() {
    let flags = [
        "config",
        "--trusted-proxies",
        "10.0.0.1/8,proxy.example",
        "--port",
        "http",
    ];
    let ended = run(&flags, &[]);
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(64), "{told}");
    for part in [
        "--trusted-proxies=",
        "10.0.0.0/8 or 10.0.0.1",
        "'proxy.example'",
        "--port=http",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
}
