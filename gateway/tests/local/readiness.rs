//! Replicas that do not take calls yet, or no longer on a kept connection: what callers notice of it, which is nothing but time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{get, post};
use crate::support::eventually;
use crate::support::frames::{
    self, DATA, END_HEADERS, END_STREAM, HEADERS, STATUS_200, frame, go_away, h2c_entry, reset,
};
use crate::support::gateway::{Gateway, children, signal};
use crate::support::upstream::Upstream;

/// A function whose own server accepts connections a second after its start.
fn slow_to_start() -> String {
    // Free a moment ago, and nothing else is told of it.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    format!(
        "  late:\n    fprocess: sh -c 'sleep 1; exec python3 -m http.server --bind 127.0.0.1 {port}'\n    environment:\n      mode: http\n      http_upstream_url: http://127.0.0.1:{port}"
    )
}

fn ready(gateway: &Gateway, name: &str) -> f64 {
    let series = format!("skep_endpoints{{function_name=\"{name}\",state=\"ready\"}}");
    gateway.metric(&series)
}

#[test]
fn a_server_that_starts_slowly_is_ready_when_its_watchdog_says_so_and_calls_wait_for_it() {
    let gateway = Gateway::of(&(slow_to_start() + "\n  cat:\n    fprocess: cat"));
    // The watchdog takes connections at once.
    for _ in 0..2 {
        let began = Instant::now();
        let answer = get(gateway.address, "/function/late/");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
        assert!((ready(&gateway, "late") - 1.0).abs() < f64::EPSILON);
        // Its server dies, and is started again by its watchdog, which refuses calls meanwhile.
        let watchdogs = children(gateway.pid());
        let server = watchdogs
            .iter()
            .flat_map(|watchdog| children(*watchdog))
            .next();
        signal(server.unwrap(), "KILL");
        eventually("the watchdog has noticed", || {
            gateway.log().contains("fprocess has ended")
        });
    }
    let retried = "skep_retries_total{cause=\"not_ready\",function_name=\"late\"}";
    assert!(gateway.metric(retried) >= 0.0);
}

/// A server that answers the first request on each connection, and closes it when the second one comes.
fn forgetful() -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let entry = format!(
        "  forgetful:\n    annotations:\n      skep.upstream: http://{}\n",
        listener.local_addr().unwrap()
    );
    let has_closed = Arc::new(AtomicBool::new(false));
    let tell = has_closed.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                if !head(&mut stream).is_empty() {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        .unwrap();
                    if !head(&mut stream).is_empty() {
                        tell.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    (entry, has_closed)
}

fn head(stream: &mut TcpStream) -> Vec<u8> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    head
}

#[test]
fn a_call_on_a_kept_connection_that_the_function_closes_goes_once_more_over_a_new_one() {
    let (entry, has_closed) = forgetful();
    let gateway = Gateway::with(&entry, &["--workers", "1"]);
    for _ in 0..20 {
        let answer = get(gateway.address, "/function/forgetful");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }
    assert!(
        has_closed.load(Ordering::Relaxed),
        "a kept connection was used"
    );
    // A POST may have run: the caller decides.
    let post = || post(gateway.address, "/function/forgetful", "x").status;
    let seen = [post(), post()];
    assert!(seen.contains(&502) && seen.contains(&200), "{seen:?}");
    let retried = "skep_retries_total{cause=\"closed\",function_name=\"forgetful\"}";
    assert!(gateway.metric(retried) >= 10.0);
    let broken = "skep_broken_total{function_name=\"forgetful\"}";
    assert!(gateway.metric(broken) < 2.0);
}

#[test]
fn a_readiness_path_that_a_label_names_later_counts_for_replicas_that_live_on() {
    let is_up = Arc::new(AtomicBool::new(false));
    let answers = is_up.clone();
    let upstream = Upstream::new(move |stream, head| {
        let status = match head.starts_with("GET /up ") && !answers.load(Ordering::Relaxed) {
            true => "503 Service Unavailable",
            false => "200 OK",
        };
        let head = "Connection: close\r\nContent-Length: 2\r\n\r\nok";
        let _ = write!(stream, "HTTP/1.1 {status}\r\n{head}");
    });
    let gateway = Gateway::with(&upstream.entry("f", ""), &["--patience", "200ms"]);
    assert_eq!(get(gateway.address, "/function/f").status, 200);
    gateway.change(&upstream.entry("f", "    labels:\n      com.openfaas.ready.http.path: /up"));
    eventually("it is asked and not ready", || {
        ready(&gateway, "f") < 1.0 && get(gateway.address, "/function/f").status == 503
    });
    is_up.store(true, Ordering::Relaxed);
    eventually("it is ready", || {
        get(gateway.address, "/function/f").status == 200
    });
}

#[test]
fn a_protocol_that_a_label_names_later_counts_for_replicas_that_live_on() {
    let upstream = Upstream::new(|stream, head| {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        if !head.starts_with("PRI ") {
            let _ = stream.write_all(ok);
            // Kept, so that a connection of the old protocol lies ready.
            let _ = stream.read(&mut [0]);
        }
    });
    let gateway = Gateway::of(&upstream.entry("f", ""));
    assert_eq!(get(gateway.address, "/function/f").status, 200);
    gateway.change(&upstream.entry("f", "    labels:\n      skep.protocol: h2c"));
    eventually("it is spoken to over HTTP/2", || {
        get(gateway.address, "/function/f").status != 200
    });
}

/// A function over HTTP/2 that answers the first request of each connection, and ends every later one in this way.
fn answers_once(end: impl Fn(&mut TcpStream, u32) + Send + Sync + 'static) -> Gateway {
    let address = frames::server(&[], move |stream, asked| {
        if asked.kind != HEADERS {
            return;
        }
        if asked.stream > 1 {
            return end(stream, asked.stream);
        }
        let answer = [
            frame(HEADERS, END_HEADERS, 1, STATUS_200),
            frame(DATA, END_STREAM, 1, b"ok"),
        ];
        stream.write_all(&answer.concat()).unwrap();
    });
    Gateway::with(&h2c_entry("f", address, &[]), &["--workers", "1"])
}

fn retried_as_closed(gateway: &Gateway) -> f64 {
    gateway.metric("skep_retries_total{cause=\"closed\",function_name=\"f\"}")
}

#[test]
fn a_request_over_http_2_that_the_function_has_not_processed_goes_once_more_whatever_its_method() {
    let ends: [fn(&mut TcpStream, u32); 2] = [
        |stream, id| stream.write_all(&go_away(id - 2)).unwrap(),
        // REFUSED_STREAM
        |stream, id| stream.write_all(&reset(id, 7)).unwrap(),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let gateway = answers_once(end);
        for _ in 0..10 {
            let answer = post(gateway.address, "/function/f", "x");
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, "ok"),
                "end {number}"
            );
        }
        assert!(retried_as_closed(&gateway) >= 4.0, "end {number}");
    }
}

#[test]
fn a_kept_connection_over_http_2_that_breaks_costs_no_idempotent_call() {
    let gateway = answers_once(|stream, _| {
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    for _ in 0..10 {
        let answer = get(gateway.address, "/function/f");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }
    assert!(retried_as_closed(&gateway) >= 4.0);
    let post = || post(gateway.address, "/function/f", "x").status;
    let seen = [post(), post()];
    assert!(seen.contains(&502) && seen.contains(&200), "{seen:?}");
}

#[test]
fn the_wait_for_a_replica_that_refused_a_call_is_part_of_its_time_and_is_named() {
    let refusal = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nX-Skep-Watchdog: 1\r\n";
    let upstream = Upstream::says(format!(
        "{refusal}X-Skep-Not-Accepted: starting\r\nConnection: close\r\n\r\nno"
    ));
    let entry = upstream.entry("late", "    labels:\n      skep.timeout: 700ms");
    let gateway = Gateway::with(&entry, &["--patience", "30s"]);
    let began = Instant::now();
    let answer = get(gateway.address, "/function/late");
    let took = began.elapsed();
    assert_eq!(answer.status, 504, "{}", answer.text());
    let limits = Duration::from_millis(600)..Duration::from_millis(1500);
    assert!(limits.contains(&took), "{took:?}");
    assert!(
        answer
            .text()
            .contains("s of it were spent until a replica was ready"),
        "{}",
        answer.text()
    );
}
