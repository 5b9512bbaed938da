//! What local replicas use of processor and memory, told to those who ask.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::client::{get, read, send};
use crate::support::gateway::{Gateway, children, processes, signal};
use crate::support::upstream::Upstream;
use crate::support::within;

fn used(gateway: SocketAddr, name: &str) -> (f64, f64) {
    let told = get(gateway, &format!("/system/function/{name}?usage=1")).json();
    let field = |name: &str| told["usage"][name].as_f64().unwrap_or(-1.0);
    (field("cpu"), field("totalMemoryBytes"))
}

#[test]
fn a_busy_function_is_told_from_an_idle_one() {
    let upstream = Upstream::says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let mark = format!("usage-{:08x}", fastrand::u32(..));
    let gateway = Gateway::of(
        &[
            format!(
                "  busy:\n    fprocess: sh -c 'while :; do :; done' {mark}\n    environment:\n      exec_timeout: 20s\n"
            ),
            "  idle:\n    fprocess: cat\n    labels:\n      com.openfaas.scale.min: 2\n".to_owned(),
            upstream.entry("there", ""),
        ]
        .concat(),
    );
    let call = send(
        gateway.address,
        b"GET /function/busy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    within(Duration::from_secs(20), "the loop shows", || {
        used(gateway.address, "busy").0 > 50.0
    });
    let (cpu, memory) = used(gateway.address, "idle");
    assert!(
        (0.0..50.0).contains(&cpu),
        "{cpu} millicores of two that sleep"
    );
    let resident: f64 = children(gateway.pid())
        .into_iter()
        .map(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status
                .lines()
                .find(|line| line.starts_with("VmRSS:"))
                .unwrap();
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<f64>()
                .unwrap()
                * 1024.0
        })
        .sum();
    assert!(
        memory > 100_000.0 && memory < resident,
        "{memory} of {resident}"
    );
    for path in [
        "/system/function/busy",
        "/system/function/busy?usage=0",
        "/system/function/there?usage=1",
    ] {
        let told = get(gateway.address, path);
        assert!(
            told.status == 200 && told.json().get("usage").is_none(),
            "{path}: {}",
            told.text()
        );
    }
    // Of our own making: nobody else has the mark.
    for running in processes(&mark) {
        signal(running, "KILL");
    }
    read(call, false);
}
