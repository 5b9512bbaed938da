//! Calls by TLS: what is agreed on, what is refused, and a certificate that is renewed while calls are made.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::authority::{Authority, Stream};
use crate::support::client::{self, get, raw, try_get};
use crate::support::gateway::{Folder, Gateway, run};
use crate::support::steady::{Load, Steady};
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

const CAT: &str = "  cat:\n    fprocess: cat\n    labels:\n      com.openfaas.scale.min: 2";
const RATE: u32 = 60;
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const REFUSED: &str = "skep_tls_certificate_loads_total{result=\"error\"}";
const TAKEN: &str = "skep_tls_certificate_loads_total{result=\"ok\"}";

/// An authority, and a certificate of its in a folder.
struct World {
    authority: Authority,
    folder: Folder,
    files: [PathBuf; 2],
}

impl World {
    fn new() -> Self {
        let (authority, folder) = (Authority::new(), Folder::new());
        let files = authority.write(&folder, 2100);
        Self {
            authority,
            folder,
            files,
        }
    }

    fn flags<'a>(&'a self, port: &'a str) -> [&'a str; 6] {
        let [cert, key] = &self.files;
        let [cert, key] = [cert, key].map(|file| file.to_str().unwrap());
        ["--tls-port", port, "--tls-cert", cert, "--tls-key", key]
    }

    fn gateway(&self, functions: &str, more: &[&str]) -> Gateway {
        Gateway::with(functions, &[&self.flags("0"), more].concat())
    }

    fn curl(&self, url: &str, args: &[&str]) -> String {
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
        let mut waiting = [0; 3].map(|_| client::send(secure, begin));
        eventually("there is no room for more", || {
            // The close may overtake the word for it.
            try_get(gateway.address, "/healthz").is_none_or(|answer| answer.status == 503)
        });
        waiting.iter_mut().for_each(ends);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(20), "{begin:?}: {took:?}");
        eventually("all of them are gone", || {
            let answer = try_get(gateway.address, "/healthz");
            answer.is_some_and(|answer| answer.status == 200)
        });
    }
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
fn both_kinds(world: &World, to: SocketAddr) -> [Steady; 2] {
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

fn more_are_made(calls: &[Steady; 2]) {
    let made = calls.each_ref().map(Steady::made);
    within(Duration::from_secs(30), "calls are made", || {
        (0..2).all(|nth| calls[nth].made() > made[nth] + RATE)
    });
}

fn all_went_well(calls: [Steady; 2]) {
    for calls in calls {
        let tally = calls.stop();
        println!("{tally}");
        tally.assert_failed_at_most(0);
    }
}

#[test]
fn a_certificate_is_renewed_under_load_and_no_call_fails() {
    let world = World::new();
    let gateway = world.gateway(CAT, &[]);
    let secure = gateway.secure_address();
    let shown = || world.authority.shown(secure);
    let mut first = world.authority.connect(secure);
    assert_eq!(call(&mut first), "hi");
    let calls = both_kinds(&world, secure);
    more_are_made(&calls);
    for end in 2101..2104 {
        let before = shown();
        let [cert, _] = world.authority.write(&world.folder, end);
        eventually("the new one is shown", || shown() != before);
        let text = std::fs::read_to_string(cert).unwrap();
        let log = format!("good until {end}-01-01T00:00:00Z");
        assert!(gateway.log().contains(&log), "{text} {}", gateway.log());
        more_are_made(&calls);
    }
    all_went_well(calls);
    assert_eq!(call(&mut first), "hi", "a connection outlives all of them");
    assert!((gateway.metric(TAKEN) - 4.0).abs() < 0.5);
}

/// One call on a connection that stays open.
fn call(stream: &mut Stream) -> String {
    let request = b"POST /function/cat HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi";
    stream.write_all(request).unwrap();
    let head = head(stream);
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let mut body = [0; 2];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8_lossy(&body).into_owned()
}

fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn what_is_no_certificate_is_kept_out_and_told_once() {
    let world = World::new();
    let gateway = world.gateway(CAT, &[]);
    let secure = gateway.secure_address();
    let good = world.authority.shown(secure);
    let (cert, key) = world.authority.issue(2101);
    let [cert_file, key_file] = world.files.each_ref().map(|file| file.to_str().unwrap());
    let kept_out = |number: u32, file: &str, why: &str| {
        eventually("it is looked at", || {
            gateway.metric(REFUSED) > f64::from(number) - 0.5
        });
        let told = format!("{file}: {why}");
        eventually(&told, || gateway.log().contains(&told));
        assert_eq!(world.authority.shown(secure), good, "the last good one");
        assert_eq!(
            gateway.log().matches("cannot be used, so").count(),
            number as usize
        );
    };
    world.folder.write("cert.pem", "not a certificate\n");
    kept_out(1, cert_file, "there is no certificate in it");
    world.folder.write("cert.pem", &cert);
    kept_out(
        2,
        key_file,
        "this is not the key of the first certificate in",
    );
    std::fs::remove_file(key_file).unwrap();
    kept_out(3, key_file, "it cannot be read");
    world.folder.write("key.pem", &key);
    eventually("the new one is shown", || {
        world.authority.shown(secure) != good
    });
    assert!((gateway.metric(REFUSED) - 3.0).abs() < 0.5);
}

#[test]
fn mistakes_are_told_at_the_start_with_all_others() {
    let world = World::new();
    let stack = world
        .folder
        .write("stack.yml", &format!("functions:\n{CAT}\n"));
    let [cert, key] = world.files.each_ref().map(|file| file.to_str().unwrap());
    let (_, other) = world.authority.issue(2101);
    let other = world.folder.write("other.pem", &other);
    let broken = world
        .folder
        .write("broken.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let nothing = world.folder.0.join("nothing.pem");
    let [other, broken, nothing] =
        [&other, &broken, &nothing].map(|path: &PathBuf| path.to_str().unwrap());
    for (tls_cert, tls_key, told) in [
        (
            nothing,
            key,
            format!("--tls-cert={nothing}: it cannot be read: No such file"),
        ),
        (
            cert,
            nothing,
            format!("--tls-key={nothing}: it cannot be read: No such file"),
        ),
        (
            key,
            key,
            format!("--tls-cert={key}: there is no certificate in it"),
        ),
        (
            cert,
            cert,
            format!("--tls-key={cert}: there is no private key in it"),
        ),
        (
            broken,
            key,
            format!("--tls-cert={broken}: it cannot be understood as PEM"),
        ),
        (
            cert,
            other,
            format!("--tls-key={other}: this is not the key of the first certificate in {cert}"),
        ),
        ("", key, "--tls-cert=: TLS needs this file".to_owned()),
        (cert, "", "--tls-key=: TLS needs this file".to_owned()),
    ] {
        let args = [
            "local",
            stack.to_str().unwrap(),
            "--port",
            "x",
            "--tls-port",
            "0",
        ];
        let files = ["--tls-cert", tls_cert, "--tls-key", tls_key];
        let output = run(&[&args[..], &files].concat(), &[]);
        assert_eq!(output.status.code(), Some(64), "{told}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains(&told) && said.contains("--port=x"),
            "{told} in {said}"
        );
        assert_eq!(said.lines().count(), 2, "{said}");
    }
    let off = run(&["config", "--port", "off"], &[]);
    assert!(String::from_utf8_lossy(&off.stderr).contains("no tls_port either"));
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
