//! The operators' port: what is theirs is there and nowhere else, and stays until the last call has ended.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::Duration;

use crate::support::client::{self, get, post, request, try_get};
use crate::support::eventually;
use crate::support::gateway::{Folder, Gateway, ask, told};
use crate::support::upstream::Upstream;

const CAT: &str = "  cat:\n    fprocess: cat";
pub(crate) const SYSTEM: &str = "/system and pages";

/// What an answer says, but for the call's id.
fn sentence(answer: &client::Answer) -> String {
    let text = answer.text();
    text.split(" (call ").next().unwrap().to_owned()
}

#[test]
fn a_port_for_calls_does_not_tell_that_there_is_more() {
    let gateway = Gateway::with(CAT, &["--system-port", "0"]);
    let (public, system) = (gateway.address, gateway.port_for(SYSTEM));
    let nothing = sentence(&get(public, "/nosuch"));
    assert!(!nothing.contains("system"), "{nothing}");
    for (method, path) in [
        ("GET", "/system/functions"),
        ("PATCH", "/system/functions"),
        ("GET", "/system/info"),
        ("POST", "/system/scale-function/cat"),
        ("GET", "/system/function/..%2f"),
        ("GET", "/metrics"),
        ("DELETE", "/metrics/"),
        ("GET", "/"),
        ("GET", "http://elsewhere/system/functions"),
    ] {
        let answer = request(public, method, path, &[], b"");
        assert_eq!(
            (answer.status, sentence(&answer)),
            (404, nothing.clone()),
            "{method} {path}"
        );
        assert!(answer.header("allow").is_none(), "{answer:?}");
    }
    // A near name would tell which functions there are.
    let missed = get(public, "/function/cats");
    assert_eq!(
        (missed.status, sentence(&missed).as_str()),
        (404, "function 'cats' not found")
    );
    assert_eq!(post(public, "/function/cat", "hi").text(), "hi");
    let by_header = request(public, "POST", "/", &[("X-Function", "cat")], b"hi");
    assert_eq!(by_header.text(), "hi");
    for (path, all) in [
        ("/healthz", "{\"status\":\"ok\"}"),
        ("/readyz", "{\"ready\":true}"),
    ] {
        assert_eq!(get(public, path).text(), all);
        let told = get(system, path).json();
        assert!(
            told["version"].is_string() || told["functions"] == 1,
            "{told}"
        );
    }
}

#[test]
fn the_operators_port_has_everything_but_calls() {
    let gateway = Gateway::with(CAT, &["--system-port", "0", "--read-timeout", "2s"]);
    let (public, system) = (gateway.address, gateway.port_for(SYSTEM));
    let functions = get(system, "/system/functions");
    assert_eq!(functions.json()[0]["name"], "cat");
    assert!(get(system, "/metrics").text().contains("skep_functions 1"));
    let help = get(system, "/").text();
    assert!(
        help.contains(&format!("http://{public} for calls\n")),
        "{help}"
    );
    let scaled = post(system, "/system/scale-function/cat", "{\"replicas\": 2}");
    assert_eq!(scaled.status, 202, "{scaled:?}");
    eventually("two of them", || {
        get(system, "/system/function/cat").json()["availableReplicas"] == 2
    });
    for answer in [
        get(system, "/function/cat"),
        get(system, "/function/cat/system/functions"),
        request(system, "POST", "/", &[("X-Function", "cat")], b"hi"),
    ] {
        assert_eq!(answer.status, 404);
        assert!(
            answer.text().contains("not called on this port"),
            "{answer:?}"
        );
    }
    assert_eq!(
        request(system, "PATCH", "/system/functions", &[], b"").status,
        405
    );
    let twice = b"GET /system/info HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n";
    assert_eq!(client::raw(system, twice).unwrap().status, 400);
    // Whoever says nothing is not waited for.
    let mut silent = client::send(system, b"GET / HTTP/1.1\r\n");
    let mut seen = Vec::new();
    silent.read_to_end(&mut seen).unwrap();
    let page = get(system, "/metrics").text();
    assert!(
        page.contains("skep_connections 0\n"),
        "operators are no callers: {page}"
    );
}

#[test]
fn a_client_is_told_which_port_is_for_what() {
    let gateway = Gateway::with(CAT, &["--system-port", "0"]);
    let (public, system) = (gateway.address, gateway.port_for(SYSTEM));
    eventually("the function is ready", || {
        get(public, "/function/cat").status == 200
    });
    let found = told(system, &["doctor"], "");
    for port in [
        format!("http://{public} for calls\n"),
        format!("http://{system} for {SYSTEM}\n"),
    ] {
        assert!(found.contains(&port), "{port} in {found}");
        gateway.logs(&format!("listening on {port}"));
    }
    assert!(told(system, &["ls"], "").contains("cat"));
    let wrong = ask(public, &["doctor"], "");
    let wrong = String::from_utf8_lossy(&wrong.stdout).into_owned();
    assert!(wrong.contains("system_port"), "{wrong}");
}

#[test]
fn operators_can_look_until_the_last_call_has_ended() {
    let upstream = Upstream::new(|stream, _| {
        std::thread::sleep(Duration::from_secs(3));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).unwrap();
    });
    let mut gateway = Gateway::with(&upstream.entry("slow", ""), &["--system-port", "0"]);
    let (public, system) = (gateway.address, gateway.port_for(SYSTEM));
    let call = std::thread::spawn(move || get(public, "/function/slow").text());
    let running = "skep_in_flight{function_name=\"slow\"} 1\n";
    eventually("it runs", || {
        get(system, "/metrics").text().contains(running)
    });
    gateway.signal("TERM");
    eventually("the port for calls closes", || {
        TcpStream::connect(public).is_err()
    });
    let ready = get(system, "/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("draining"), "{}", ready.text());
    assert!(get(system, "/metrics").text().contains(running));
    assert_eq!(call.join().unwrap(), "ok");
    assert_eq!(gateway.ended(), Some(0));
    assert!(TcpStream::connect(system).is_err());
}

#[test]
fn the_next_gateway_takes_the_operators_port_over() {
    let folder = Folder::new();
    let socket = folder.0.join("handover");
    let start = |port: &str, system: &str| {
        let ports = ["--port", port, "--system-port", system];
        let handover = ["--handover", socket.to_str().unwrap()];
        Gateway::with(CAT, &[&ports[..], &handover].concat())
    };
    let mut running = start("0", "0");
    let (public, system) = (running.address, running.port_for(SYSTEM));
    let (stop, stopped) = channel::<()>();
    let asking = std::thread::spawn(move || {
        let mut count = 0;
        // Until the other side says so, or has failed.
        while matches!(stopped.try_recv(), Err(TryRecvError::Empty)) {
            let answer = try_get(system, "/system/functions").expect("an answer");
            assert_eq!(answer.json()[0]["name"], "cat", "{answer:?}");
            count += 1;
        }
        count
    });
    for _ in 0..2 {
        // Whoever comes and goes changes nothing.
        eventually("it hands over", || UnixStream::connect(&socket).is_ok());
        let next = start(&public.port().to_string(), &system.port().to_string());
        assert_eq!(next.port_for(SYSTEM), system);
        assert_eq!(running.ended(), Some(0), "{}", running.log());
        running = next;
    }
    drop(stop);
    assert!(asking.join().unwrap() > 10);
}
