//! Calls that one endpoint does not take, or takes in vain: which of them another one gets, and what callers see of it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::support::client::{Answer, get, post};
use crate::support::crowd::take_all_descriptors;
use crate::support::eventually;
use crate::support::gateway::{Folder, Gateway, children, signal};
use crate::support::upstream::Upstream;

/// So many replicas of a command; `more` goes into the entry.
fn replicas(name: &str, count: usize, fprocess: &str, more: &str) -> String {
    format!(
        "  {name}:\n    fprocess: {fprocess}\n    labels:\n      com.openfaas.scale.min: {count}\n{more}\n"
    )
}

fn ready(gateway: &Gateway, name: &str) -> f64 {
    gateway.metric(&format!(
        "skep_endpoints{{function_name=\"{name}\",state=\"ready\"}}"
    ))
}

fn retries(gateway: &Gateway, name: &str, cause: &str) -> f64 {
    gateway.metric(&format!(
        "skep_retries_total{{cause=\"{cause}\",function_name=\"{name}\"}}"
    ))
}

fn is_silent_about_watchdogs(answer: &Answer) -> bool {
    answer.header("x-skep-not-accepted").is_none() && answer.header("x-skep-watchdog").is_none()
}

#[test]
fn watchdogs_that_drain_under_calls_cost_none_of_them_not_even_with_bodies() {
    let gateway = Gateway::of(&replicas("cat", 3, "cat", ""));
    eventually("all run", || ready(&gateway, "cat") == 3.0);
    let body = "b".repeat(60 * 1024);
    let (done, wrong) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let answer = post(gateway.address, "/function/cat", &body);
                    if answer.status != 200 || answer.body != body.as_bytes() {
                        wrong.fetch_add(1, Ordering::Relaxed);
                        eprintln!("{} {}", answer.status, answer.text());
                    }
                }
            });
        }
        for _ in 0..6 {
            let watchdogs = children(gateway.pid());
            signal(watchdogs[0], "TERM");
            eventually("it is replaced", || {
                let now = children(gateway.pid());
                !now.contains(&watchdogs[0]) && now.len() == 3 && ready(&gateway, "cat") == 3.0
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
}

#[test]
fn a_busy_replica_sends_calls_on_and_only_when_all_are_busy_the_caller_hears_of_it() {
    let busy = "    environment:\n      max_inflight: '1'";
    let gateway = Gateway::of(&replicas("slow", 2, "sleep 1", busy));
    eventually("both run", || ready(&gateway, "slow") == 2.0);
    let call = || get(gateway.address, "/function/slow");
    std::thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(call)).collect();
        eventually("both are busy", || {
            gateway.metric("skep_in_flight{function_name=\"slow\"}") == 2.0
        });
        let began = Instant::now();
        let third = call();
        assert!(began.elapsed() < Duration::from_millis(700), "at once");
        assert_eq!(third.status, 429, "{}", third.text());
        assert_eq!(third.header("retry-after"), Some("1"));
        assert!(is_silent_about_watchdogs(&third));
        for one in both {
            assert_eq!(one.join().unwrap().status, 200);
        }
    });
    assert!(retries(&gateway, "slow", "busy") >= 1.0);
}

#[test]
fn retries_stay_within_the_budget_however_many_replicas_refuse() {
    let busy = "    environment:\n      max_inflight: '1'";
    let gateway = Gateway::of(&replicas("slow", 3, "sleep 4", busy));
    eventually("all run", || ready(&gateway, "slow") == 3.0);
    let call = || get(gateway.address, "/function/slow");
    std::thread::scope(|scope| {
        let long: Vec<_> = (0..3).map(|_| scope.spawn(call)).collect();
        eventually("all are busy", || {
            gateway.metric("skep_in_flight{function_name=\"slow\"}") == 3.0
        });
        let began = Instant::now();
        let before = retries(&gateway, "slow", "busy");
        let calls = 300;
        for _ in 0..calls {
            assert_eq!(call().status, 429);
        }
        let spent = retries(&gateway, "slow", "busy") - before;
        let most = f64::from(calls) / 5.0 + 10.0 * (began.elapsed().as_secs_f64() + 10.0);
        assert!(spent <= most, "{spent} retries, {most} at most");
        assert!(spent >= 20.0, "{spent} retries");
        for one in long {
            assert_eq!(one.join().unwrap().status, 200);
        }
    });
}

#[test]
fn a_server_that_is_no_watchdog_is_not_believed_and_its_words_stay_here() {
    let refusal = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nConnection: close\r\n\
                   X-Skep-Not-Accepted: draining\r\n";
    let stranger = Upstream::says(format!("{refusal}\r\nno"));
    let watchdog = Upstream::says(format!("{refusal}X-Skep-Watchdog: 1\r\n\r\nno"));
    let gateway = Gateway::of(&(stranger.entry("stranger", "") + &watchdog.entry("watchdog", "")));
    let answer = get(gateway.address, "/function/stranger");
    assert_eq!((answer.status, answer.text().as_str()), (503, "no"));
    assert!(is_silent_about_watchdogs(&answer));
    assert_eq!(ready(&gateway, "stranger"), 1.0, "its word ejects nothing");
    let answer = get(gateway.address, "/function/watchdog");
    assert_eq!(answer.status, 503);
    assert!(is_silent_about_watchdogs(&answer));
    assert_eq!(
        gateway.metric("skep_endpoint_events_total{event=\"draining\",function_name=\"watchdog\"}"),
        1.0
    );
}

/// A command whose first run takes its watchdog down with it; every later one answers.
fn kills_once(folder: &Folder) -> String {
    let marker = folder.0.join("killed");
    let script = folder.write(
        "once.sh",
        &format!(
            "#!/bin/sh\nif mkdir {} 2>/dev/null; then kill -9 $PPID; sleep 5; fi\necho served\n",
            marker.display()
        ),
    );
    format!("sh {}", script.display())
}

#[test]
fn a_call_that_may_have_run_follows_only_where_the_label_and_its_method_allow_it() {
    let allowed = "      skep.retry: idempotent";
    for (more, method, status) in [
        (allowed, "GET", 200),
        (allowed, "POST", 502),
        ("", "GET", 502),
    ] {
        let folder = Folder::new();
        let gateway = Gateway::of(&replicas("once", 2, &kills_once(&folder), more));
        eventually("both run", || ready(&gateway, "once") == 2.0);
        let answer = match method {
            "GET" => get(gateway.address, "/function/once"),
            _ => post(gateway.address, "/function/once", "x"),
        };
        assert_eq!(answer.status, status, "{method} {more}: {}", answer.text());
        if status == 200 {
            assert_eq!(answer.text(), "served\n");
            assert_eq!(retries(&gateway, "once", "broken"), 1.0);
        }
    }
}

#[test]
fn a_path_that_a_label_names_says_when_a_replica_is_ready_and_nothing_else_is_asked() {
    let is_ready = std::sync::Arc::new(AtomicBool::new(false));
    let answers = is_ready.clone();
    let upstream = Upstream::new(move |stream, head| {
        let status = if head.starts_with("GET /up") && !answers.load(Ordering::Relaxed) {
            "503 Service Unavailable"
        } else {
            "200 OK"
        };
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        );
    });
    let label = "    labels:\n      com.openfaas.ready.http.path: /up";
    let gateway = Gateway::of(&upstream.entry("late", label));
    for _ in 0..3 {
        assert!(upstream.saw().starts_with("GET /up HTTP/1.1\r\n"));
    }
    assert_eq!(ready(&gateway, "late"), 0.0);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| get(gateway.address, "/function/late/work"));
        is_ready.store(true, Ordering::Relaxed);
        assert_eq!(waiting.join().unwrap().status, 200);
    });
    let mut head = upstream.saw();
    while head.starts_with("GET /up") {
        head = upstream.saw();
    }
    assert!(head.starts_with("GET /work "), "{head}");
}

#[test]
fn an_endpoint_that_breaks_with_every_call_is_left_alone_for_a_while() {
    let folder = Folder::new();
    let broken = folder.0.join("broken");
    // One of the two replicas breaks: the first that finds the marker free.
    let script = folder.write(
        "half.sh",
        &format!(
            "#!/bin/sh\nmkdir {0} 2>/dev/null && echo $PPID >{0}/pid\n[ \"$(cat {0}/pid)\" = $PPID ] && exec kill -9 $PPID\necho fine\n",
            broken.display()
        ),
    );
    let gateway = Gateway::of(&replicas(
        "half",
        2,
        &format!("sh {}", script.display()),
        "",
    ));
    eventually("both run", || ready(&gateway, "half") == 2.0);
    let broken = (0..40)
        .filter(|_| get(gateway.address, "/function/half").status != 200)
        .count();
    assert_eq!(broken, 1, "the watchdog that is gone gets no second call");
    let page = get(gateway.address, "/system/function/half").json();
    let endpoints = page["endpoints"].as_array().unwrap();
    assert!(!endpoints.is_empty());
    assert!(endpoints.iter().all(|endpoint| {
        endpoint["why"].is_string() && endpoint["since"].as_str().unwrap().ends_with('Z')
    }));
}

#[test]
fn a_body_goes_whole_to_the_next_connection_if_an_idle_one_breaks_before_it_takes_any() {
    // So many events come at once that a worker takes an idle connection before it sees that this was reset.
    const CROWD: usize = 1100;
    take_all_descriptors();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let entry = format!("  f:\n    annotations:\n      skep.upstream: http://{address}\n");
    let (begin, may_begin) = channel();
    let (tell, told) = channel();
    let function = std::thread::spawn(move || {
        // Up to the end of a request, whose body is so often an x.
        let answer = |stream: &mut TcpStream, end: &str| {
            let (mut request, mut byte) = (String::new(), [0]);
            while !request.ends_with(end) && matches!(stream.read(&mut byte), Ok(1)) {
                request.push(byte[0].into());
            }
            let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(ok).unwrap();
            request.matches("1\r\nx\r\n").count()
        };
        let mut first = request_on(&listener);
        answer(&mut first, "\r\n\r\n");
        may_begin.recv().unwrap();
        let reset = SockRef::from(&first).set_linger(Some(Duration::ZERO));
        reset.unwrap();
        drop(first);
        tell.send(()).unwrap();
        answer(&mut request_on(&listener), "0\r\n\r\n")
    });
    let gateway = Gateway::with(&entry, &["--workers", "1"]);
    let connect = || TcpStream::connect(gateway.address).unwrap();
    let (mut caller, crowd) = (connect(), [(); CROWD].map(|()| connect()));
    assert_eq!(get(gateway.address, "/function/f").text(), "ok");
    gateway.signal("STOP");
    let call = [
        "POST /function/f HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        &"1\r\nx\r\n".repeat(300),
        "0\r\n\r\n",
    ];
    caller.write_all(call.concat().as_bytes()).unwrap();
    for mut other in &crowd {
        other.write_all(b"G").unwrap();
    }
    begin.send(()).unwrap();
    told.recv().unwrap();
    let open = format!(":{:04X} 01 ", address.port());
    eventually("the reset has arrived", || {
        !std::fs::read_to_string("/proc/net/tcp")
            .unwrap()
            .contains(&open)
    });
    gateway.signal("CONT");
    caller
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(function.join().unwrap(), 300);
    assert!((retries(&gateway, "f", "closed") - 1.0).abs() < f64::EPSILON);
}

/// The next connection on which something is asked; the gateway also looks whether anybody is there.
fn request_on(listener: &TcpListener) -> TcpStream {
    loop {
        let (stream, _) = listener.accept().unwrap();
        if matches!(stream.peek(&mut [0]), Ok(1)) {
            return stream;
        }
    }
}
