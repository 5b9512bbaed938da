//! Functions that misbehave, are slow, are not there: a clear answer, and a gateway that goes on.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::client::{get, post, read, send};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

#[test]
fn garbage_and_an_early_close_are_502_with_the_cause() {
    let garbage = Upstream::says("this is not HTTP at all\r\n\r\n");
    let closes = Upstream::says("");
    let upgrade = Upstream::says("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    let gateway = Gateway::of(
        &(garbage.entry("garbage", "")
            + &closes.entry("closes", "")
            + &upgrade.entry("upgrade", "")
            + "  cat:\n    fprocess: cat"),
    );
    for (name, cause) in [
        ("garbage", "not HTTP"),
        ("closes", "closed the connection"),
        ("upgrade", "nobody had asked for that"),
    ] {
        let answer = get(gateway.address, &format!("/function/{name}"));
        assert_eq!(answer.status, 502, "{name}");
        let text = answer.text();
        assert!(
            text.contains(&format!("'{name}'"))
                && text.contains(cause)
                && text.contains(answer.header("x-call-id").unwrap()),
            "{text}"
        );
        assert_eq!(answer.header("x-openfaas-internal"), Some("gateway"));
    }
    assert_eq!(
        post(gateway.address, "/function/cat", "fine").text(),
        "fine"
    );
    gateway.logs("function 'garbage' gave no proper answer");
}

#[test]
fn an_answer_that_breaks_off_breaks_off_for_the_caller_too() {
    let sized = Upstream::says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    let chunked =
        Upstream::says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let gateway = Gateway::of(&(sized.entry("sized", "") + &chunked.entry("chunked", "")));
    for name in ["sized", "chunked"] {
        let answer = get(gateway.address, &format!("/function/{name}"));
        assert!(
            answer.status == 200 && !answer.complete,
            "{name}: {answer:?}"
        );
        assert!(
            gateway.metric(&format!(
                "skep_broken_answers_total{{function_name=\"{name}\"}}"
            )) >= 1.0
        );
    }
}

#[test]
fn a_function_that_never_answers_is_a_504_that_says_which_limit() {
    let silent = Upstream::new(|stream, _| {
        // Until the gateway gives up.
        let _ = stream.read(&mut [0; 64]);
    });
    let gateway = Gateway::with(
        &(silent.entry("default", "")
            + &silent.entry("own", "    labels:\n      skep.timeout: 300ms")),
        &["--upstream-timeout", "700ms"],
    );
    for (name, limit) in [("default", 700), ("own", 300)] {
        let began = Instant::now();
        let answer = get(gateway.address, &format!("/function/{name}"));
        let took = began.elapsed();
        assert_eq!(answer.status, 504);
        assert!(
            answer.text().contains(&format!("within {limit}ms"))
                && answer.text().contains("skep.timeout"),
            "{}",
            answer.text()
        );
        assert!(
            (Duration::from_millis(limit)..Duration::from_millis(limit + 400)).contains(&took),
            "{name} took {took:?}"
        );
    }
}

#[test]
fn an_answer_that_stalls_is_broken_off_at_the_idle_limit() {
    let stalls = Upstream::new(|stream, _| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .unwrap();
        let _ = stream.read(&mut [0; 64]);
    });
    let gateway =
        Gateway::of(&stalls.entry("stalls", "    labels:\n      skep.idle-timeout: 400ms"));
    let began = Instant::now();
    let answer = get(gateway.address, "/function/stalls");
    assert!(answer.text() == "hello" && !answer.complete);
    assert!(began.elapsed() < Duration::from_secs(2));
    gateway.logs("skep.idle-timeout");
}

#[test]
fn a_broken_request_body_is_the_callers_fault() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let request = "POST /function/cat HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n";
    assert_eq!(
        read(send(gateway.address, request.as_bytes()), false).status,
        400
    );
    assert_eq!(
        post(gateway.address, "/function/cat", "fine").text(),
        "fine"
    );
}

#[test]
fn when_nobody_listens_it_is_503_and_when_somebody_comes_back_200() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let entry = format!("  late:\n    annotations:\n      skep.upstream: http://{address}\n");
    let gateway = Gateway::with(&entry, &["--patience", "300ms"]);
    let answer = get(gateway.address, "/function/late");
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("'late'") && answer.text().contains("accepts connections"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("retry-after"), Some("1"));

    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 1024];
            if matches!(stream.read(&mut buffer), Ok(1..)) {
                stream
                    .write_all(
                        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nback",
                    )
                    .unwrap();
            }
        }
    });
    eventually("it is probed back", || {
        get(gateway.address, "/function/late").text() == "back"
    });
}

#[test]
fn a_caller_that_goes_away_ends_the_run() {
    let gateway = Gateway::of("  stay:\n    fprocess: sleep 4711.25");
    let stream = send(
        gateway.address,
        b"GET /function/stay HTTP/1.1\r\nHost: t\r\n\r\n",
    );
    eventually("the command runs", || {
        !crate::support::gateway::processes("sleep 4711.25").is_empty()
    });
    drop(stream);
    let took = crate::support::within(Duration::from_secs(5), "the command is ended", || {
        crate::support::gateway::processes("sleep 4711.25").is_empty()
    });
    assert!(took < Duration::from_secs(1), "{took:?}");
    eventually("it is counted", || {
        gateway.metric("gateway_function_invocation_total{code=\"499\",function_name=\"stay\"}")
            == 1.0
    });
}

#[test]
fn a_watchdog_that_is_killed_costs_only_its_own_calls_and_comes_back() {
    let gateway =
        Gateway::of("  cat:\n    fprocess: cat\n    labels:\n      com.openfaas.scale.min: 2");
    eventually("both run", || {
        gateway.metric("skep_endpoints{function_name=\"cat\",state=\"ready\"}") == 2.0
    });
    let watchdogs = crate::support::gateway::children(gateway.pid());
    assert_eq!(watchdogs.len(), 2);
    crate::support::gateway::signal(watchdogs[0], "KILL");
    for n in 0..50 {
        assert_eq!(
            post(gateway.address, "/function/cat", "x").status,
            200,
            "call {n}"
        );
    }
    eventually("it comes back", || {
        crate::support::gateway::children(gateway.pid()).len() == 2
            && gateway.metric("skep_endpoints{function_name=\"cat\",state=\"ready\"}") == 2.0
    });
}
