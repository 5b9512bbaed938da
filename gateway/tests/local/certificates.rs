//! The certificate of a gateway: its mistakes told at the start, its renewal while calls are made.

use std::io::{Read, Write};
use std::path::PathBuf;

use crate::support::authority::Stream;
use crate::support::eventually;
use crate::support::gateway::run;
use crate::tls::{CAT, World, all_went_well, both_kinds, head, more_are_made};

const REFUSED: &str = "skep_tls_certificate_loads_total{result=\"error\"}";
const TAKEN: &str = "skep_tls_certificate_loads_total{result=\"ok\"}";

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
        world.authority.write(&world.folder, end);
        eventually("the new one is shown", || shown() != before);
        gateway.logs(&format!("good until {end}-01-01T00:00:00Z"));
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
        gateway.logs(&told);
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
