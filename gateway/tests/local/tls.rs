//! Calls by TLS: what is agreed on, what is refused, and that all that holds for plain ones holds for them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::authority::{Authority, finish};
use crate::support::client::{self, get, raw, try_get};
use crate::support::gateway::{Folder, Gateway};
use crate::support::steady::{Load, Steady};
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

pub(crate) const CAT: &str =
    "  cat:\n    fprocess: cat\n    labels:\n      com.openfaas.scale.min: 2";
const RATE: u32 = 30;
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An authority, and a certificate of its in a folder.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) folder: Folder,
    pub(crate) files: [PathBuf; 2],
}

impl World {
    pub(crate) fn new() -> Self {
        let (authority, folder) = (Authority::new(), Folder::new());
        let files = authority.write(&folder, 2100);
        Self {
            authority,
            folder,
            files,
        }
    }

    pub(crate) fn flags<'a>(&'a self, port: &'a str) -> [&'a str; 6] {
        let [cert, key] = &self.files;
        let [cert, key] = [cert, key].map(|file| file.to_str().unwrap());
        ["--tls-port", port, "--tls-cert", cert, "--tls-key", key]
    }

    pub(crate) fn gateway(&self, functions: &str, more: &[&str]) -> Gateway {
        Gateway::with(functions, &[&self.flags("0"), more].concat())
    }

    pub(crate) fn curl(&self, url: &str, args: &[&str]) -> String {
        let trusted = self.authority.write_own(&self.folder);
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "30", "--cacert"])
            .arg(trusted)
            .args(["-w", " %{http_version} %{response_code}", url])
            .args(args)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        String::from_utf8(output.stdout).unwrap() + &told
    }
}

#[test]
fn both_versions_of_http_are_spoken_as_agreed() {
    let world = World::new();
    let upstream = Upstream::says(OK);
    let functions = format!("{CAT}\n{}", upstream.entry("told", ""));
    let gateway = world.gateway(&functions, &[]);
    let url = |name: &str| format!("https://{}/function/{name}", gateway.secure_address());
    for (args, expected) in [
        (["--http1.1", "--tlsv1.3"].as_slice(), "hello 1.1 200"),
        (&["--http1.1", "--tls-max", "1.2"], "hello 1.1 200"),
        (&["--http2", "--tlsv1.3"], "hello 2 200"),
        (&["--http2", "--tls-max", "1.2"], "hello 2 200"),
        // Who agrees on nothing speaks HTTP/1.1.
        (&["--no-alpn"], "hello 1.1 200"),
    ] {
        let said = world.curl(&url("cat"), &[args, &["-d", "hello"]].concat());
        assert_eq!(said, expected, "{args:?}");
        world.curl(&url("told"), args);
        let head = upstream.saw().to_lowercase();
        assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    }
    let old = world.curl(
        &url("cat"),
        &["--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0"],
    );
    assert!(old.contains(" 000") && old.contains("alert"), "{old}");
    get(gateway.address, "/function/told");
    let head = upstream.saw().to_lowercase();
    assert!(head.contains("x-forwarded-proto: http\r\n"), "{head}");
    let page = get(gateway.address, "/metrics").text();
    assert!(
        page.contains("skep_tls_certificate_ends_timestamp_seconds 4102444800\n"),
        "{page}"
    );
}

#[test]
fn large_bodies_pass_whole_both_ways() {
    let world = World::new();
    let gateway = world.gateway(CAT, &[]);
    let url = format!("https://{}/function/cat", gateway.secure_address());
    let body: String = (0..500_000).map(|n| format!("{n:07}\n")).collect();
    let file = world.folder.write("body", &body);
    let data = format!("@{}", file.display());
    for version in ["--http1.1", "--http2"] {
        let said = world.curl(&url, &[version, "--data-binary", &data]);
        assert!(
            said.starts_with(&body) && said.ends_with(" 200"),
            "{version}"
        );
    }
}

#[test]
fn a_caller_that_does_not_read_is_cut_off() {
    let upstream = Upstream::new(|stream, _| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head).unwrap();
        let piece = [b"10000\r\n".as_slice(), &vec![b'x'; 0x10000], b"\r\n"].concat();
        while stream.write_all(&piece).is_ok() {}
    });
    let world = World::new();
    let gateway = world.gateway(&upstream.entry("endless", ""), &["--write-timeout", "2s"]);
    let mut deaf = world.authority.connect(gateway.secure_address());
    let ask = b"GET /function/endless HTTP/1.1\r\nHost: t\r\n\r\n";
    deaf.write_all(ask).unwrap();
    let in_flight = "skep_in_flight{function_name=\"endless\"}";
    eventually("the call runs", || gateway.metric(in_flight) > 0.5);
    within(Duration::from_secs(30), "the call ends", || {
        gateway.metric(in_flight) < 0.5
    });
    drop(deaf);
}

#[test]
fn a_gateway_may_have_the_tls_port_alone() {
    let world = World::new();
    let gateway = world.gateway(CAT, &["--port", "off"]);
    assert_eq!(gateway.address, gateway.secure_address());
    let url = format!("https://{}/function/cat", gateway.address);
    assert_eq!(world.curl(&url, &["-d", "hello"]), "hello 2 200");
}

#[test]
fn whoever_does_not_speak_tls_is_told_or_cut_off() {
    let world = World::new();
    let gateway = world.gateway(CAT, &["--read-timeout", "3s", "--max-connections", "3"]);
    let secure = gateway.secure_address();
    let plain = b"POST /function/cat HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello";
    let told = raw(secure, plain).unwrap();
    assert_eq!(told.status, 400);
    assert!(told.text().contains("https://"), "{told:?}");
    let refused = "skep_refused_total{reason=\"connections\"}";
    // Silence, and a handshake that does not go on: both count as connections, and end with the time for a head.
    for begin in [&b""[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]] {
        let began = Instant::now();
        let mut waiting = Vec::new();
        eventually("there is no room for more", || {
            waiting.push(client::send(secure, begin));
            // The close may overtake the word for it.
            try_get(gateway.address, "/healthz").is_none_or(|answer| answer.status == 503)
        });
        waiting.iter_mut().for_each(ends);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(20), "{begin:?}: {took:?}");
    }
    eventually("all of them are gone", || {
        (gateway.metric("skep_connections") - 1.0).abs() < 0.5
    });
    // What is neither: at once.
    ends(&mut client::send(secure, b"\x80\x00\x01"));
    assert!(gateway.metric(refused) > 1.5);
    // There is room again.
    let url = format!("https://{secure}/function/cat");
    assert_eq!(world.curl(&url, &["-d", "hello"]), "hello 2 200");
}

/// Waits until the other side has closed, whatever it sends before.
fn ends(stream: &mut TcpStream) {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let ended = stream.read_to_end(&mut Vec::new());
    let is_reset = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
    assert!(ended.as_ref().map_or_else(is_reset, |_| true), "{ended:?}");
}

/// Calls by TLS: on connections that stay, and on a new one each.
pub(crate) fn both_kinds(world: &World, to: SocketAddr) -> [Steady; 2] {
    [true, false].map(|keep_alive| {
        let load = Load {
            keep_alive,
            rate: RATE,
            count: u32::MAX,
            tls: Some(world.authority.client()),
            ..Load::echo(to, "/function/cat")
        };
        Steady::start(load, || {})
    })
}

pub(crate) fn more_are_made(calls: &[Steady; 2]) {
    let made = calls.each_ref().map(Steady::made);
    within(Duration::from_secs(30), "calls are made", || {
        (0..2).all(|nth| calls[nth].made() > made[nth] + RATE)
    });
}

pub(crate) fn all_went_well(calls: [Steady; 2]) {
    for calls in calls {
        let tally = calls.stop();
        println!("{tally}");
        tally.assert_failed_at_most(0);
    }
}

pub(crate) fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn the_next_gateway_takes_the_tls_port_over_and_no_call_fails() {
    let world = World::new();
    let socket = world.folder.0.join("handover");
    let start = |port: SocketAddr, workers: &str| {
        let port = port.port().to_string();
        let flags = world.flags(&port);
        let more = [
            "--port",
            "off",
            "--handover",
            socket.to_str().unwrap(),
            "--workers",
            workers,
        ];
        Gateway::with(CAT, &[&flags[..], &more].concat())
    };
    let mut running = start(SocketAddr::from(([127, 0, 0, 1], 0)), "2");
    let address = running.secure_address();
    let calls = both_kinds(&world, address);
    for workers in ["3", "1", "2"] {
        more_are_made(&calls);
        let next = start(address, workers);
        assert_eq!(next.secure_address(), address);
        assert_eq!(running.ended(), Some(0), "{}", running.log());
        running = next;
    }
    more_are_made(&calls);
    all_went_well(calls);
}

#[test]
fn calls_and_websockets_are_finished_at_the_end() {
    let world = World::new();
    let upstream = Upstream::new(|stream, head| {
        if head.starts_with("GET /slow") {
            std::thread::sleep(Duration::from_secs(2));
            stream.write_all(OK.as_bytes()).unwrap();
            return;
        }
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(agreed).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            let _ = stream.write_all(&buffer[..read]);
        }
    });
    let mut gateway = world.gateway(&upstream.entry("long", ""), &["--drain-timeout", "4s"]);
    let secure = gateway.secure_address();
    let mut websocket = world.authority.connect(secure);
    let ask = "GET /function/long HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    websocket.write_all(ask.as_bytes()).unwrap();
    assert!(head(&mut websocket).starts_with("HTTP/1.1 101 "));
    let mut echoed = |frame: &[u8]| {
        websocket.write_all(frame).unwrap();
        let mut back = vec![0; frame.len()];
        websocket.read_exact(&mut back).unwrap();
        assert_eq!(back, frame);
    };
    echoed(&[0x82, 1, 7]);
    // More than any layer's buffer.
    echoed(&[&[0x82, 127, 0, 0, 0, 0, 0, 4, 0, 0][..], &vec![9; 1 << 18]].concat());
    let url = format!("https://{secure}/function/long/slow");
    std::thread::scope(|scope| {
        let calls = ["--http1.1", "--http2"].map(|version| {
            let (world, url) = (&world, &url);
            scope.spawn(move || world.curl(url, &[version]))
        });
        let running = "skep_in_flight{function_name=\"long\"}";
        eventually("all run", || gateway.metric(running) > 2.5);
        gateway.signal("TERM");
        eventually("the port is closed", || TcpStream::connect(secure).is_err());
        echoed(&[0x82, 1, 8]);
        let said = calls.map(|call| call.join().unwrap());
        assert_eq!(said, ["ok 1.1 200", "ok 2 200"]);
    });
    let mut goodbye = Vec::new();
    // Without TLS's own word for the end this would be an error.
    websocket.read_to_end(&mut goodbye).unwrap();
    assert!(
        goodbye[0] == 0x88 && goodbye[2..4] == 1001_u16.to_be_bytes(),
        "{goodbye:?}"
    );
    assert_eq!(gateway.ended(), Some(0));
}

#[test]
fn whoever_shakes_hands_while_the_gateway_ends_is_answered() {
    let world = World::new();
    let mut gateway = world.gateway(CAT, &[]);
    let mut idle = TcpStream::connect(gateway.address).unwrap();
    let ask = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    idle.write_all(ask).unwrap();
    assert!(head(&mut idle).starts_with("HTTP/1.1 200 "));
    let begun = world.authority.begin(gateway.secure_address());
    gateway.signal("TERM");
    // It is closed when idle ones are.
    idle.read_to_end(&mut Vec::new()).unwrap();
    let mut late = finish(begun);
    late.write_all(b"POST /function/cat HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi")
        .unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hi"),
        "{answer}"
    );
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(gateway.ended(), Some(0));
}
