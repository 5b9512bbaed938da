//! The drain: what runs is finished, what is new is refused, and the exit comes as soon as nothing runs.

mod support;

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::client::{Request, receive};
use support::place::Place;
use support::{function, script};

/// A command that answers once a file appears.
const WAITING: &str =
    "echo $$ >> $TMPDIR/up; while [ ! -e $TMPDIR/go ]; do sleep 0.02; done; echo done";

#[test]
fn a_drain_finishes_what_runs_and_accepts_nothing_new() {
    let mut watchdog = script(WAITING).start();
    let mut running = watchdog.connect();
    running.write_all(&Request::get("/").bytes()).unwrap();
    watchdog.lines("up", 1);
    watchdog.signal("TERM");
    watchdog.logs("draining, 1 calls");
    for path in ["/_/health", "/_/ready"] {
        let answer = watchdog.get(path);
        assert_eq!(
            (answer.status, answer.header("x-skep-watchdog")),
            (503, fwatchdog::VERSION),
            "{path}"
        );
    }
    let refused = watchdog.post("new");
    assert_eq!(
        (refused.status, refused.header("x-skep-not-accepted")),
        (503, "draining")
    );
    assert_eq!(
        (
            refused.header("connection"),
            refused.header("x-openfaas-internal")
        ),
        ("close", "fwatchdog")
    );
    assert!(!watchdog.file(".lock").exists());
    assert_eq!(
        watchdog.lines("up", 1).len(),
        1,
        "no run was started for it"
    );
    std::fs::write(watchdog.file("go"), "").unwrap();
    let answer = receive(&mut BufReader::new(running));
    assert_eq!((answer.status, answer.text().as_str()), (200, "done\n"));
    assert_eq!(watchdog.exit().0, Some(0));
}

#[test]
fn a_drain_without_calls_exits_at_once_and_closes_idle_connections() {
    let mut watchdog = function("cat").start();
    let mut idle = watchdog.connect();
    idle.write_all(&Request::post("/", "x").bytes()).unwrap();
    assert_eq!(receive(&mut BufReader::new(&mut idle)).status, 200);
    watchdog.signal("TERM");
    let (code, took) = watchdog.exit();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0, "closed, not reset");
}

/// Calls on one connection after the other until nobody listens: how often it was told that the watchdog ends, and cut off.
fn call_until_refused(address: SocketAddr) -> [usize; 2] {
    let [mut told, mut cut] = [0; 2];
    while let Ok(mut stream) = TcpStream::connect(address) {
        let request = Request::post("/", "x").header("Connection", "close");
        let mut answer = Vec::new();
        let _ = stream.write_all(&request.bytes());
        let _ = stream.read_to_end(&mut answer);
        told += usize::from(answer.starts_with(b"HTTP/1.1 503"));
        cut += usize::from(!answer.starts_with(b"HTTP/1.1 "));
        // Somebody who calls all the time keeps a watchdog from its end.
        std::thread::sleep(Duration::from_millis(2));
    }
    [told, cut]
}

#[test]
fn whoever_gets_through_to_a_watchdog_that_ends_is_told_so_and_not_cut_off() {
    let mut all = [0; 2];
    for round in 0..15 {
        let mut watchdog = function("cat").start();
        let address = watchdog.address;
        let callers = [(); 3].map(|()| std::thread::spawn(move || call_until_refused(address)));
        std::thread::sleep(Duration::from_millis(3 * round));
        watchdog.signal("TERM");
        assert_eq!(watchdog.exit().0, Some(0));
        for caller in callers {
            let counts = caller.join().unwrap();
            all = [all[0] + counts[0], all[1] + counts[1]];
        }
    }
    let [told, cut] = all;
    println!("{told} were told, {cut} cut off");
    // Between the last look at the queue and its end are two microseconds, and somebody may be made a connection in them.
    assert!(cut <= 2 && told > 15, "{told} were told, {cut} cut off");
}

#[test]
fn a_drain_takes_no_longer_than_write_timeout_and_leaves_nothing() {
    let body =
        "echo $$ > $TMPDIR/up; head -c 100000 /dev/zero; while :; do echo more; sleep 0.1; done";
    let mut watchdog = script(body).env("write_timeout", "1s").start();
    let mut endless = watchdog.connect();
    endless.write_all(&Request::get("/").bytes()).unwrap();
    let pid = watchdog.lines("up", 1);
    watchdog.signal("TERM");
    let (code, took) = watchdog.exit();
    assert_eq!(code, Some(0));
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_secs(3),
        "{took:?}"
    );
    assert!(!support::is_alive(&pid[0]));
}

#[test]
fn term_during_fifty_calls_loses_none_and_accepts_none() {
    let mut watchdog = script("echo up >> $TMPDIR/up; read -r word; echo \"$word\"")
        .env("write_timeout", "20s")
        .start();
    let mut calls: Vec<_> = (0..50).map(|_| watchdog.connect()).collect();
    let head = Request::bare("POST", "/").header("Content-Length", "5");
    for call in &mut calls {
        call.write_all(&head.bytes()).unwrap();
    }
    watchdog.lines("up", 50);
    watchdog.signal("TERM");
    watchdog.logs("draining, 50 calls");
    for _ in 0..50 {
        let refused = watchdog.post("new");
        let header = |name: &str| refused.header(name).to_owned();
        assert_eq!(
            (
                refused.status,
                header("x-skep-not-accepted"),
                header("connection")
            ),
            (503, "draining".to_owned(), "close".to_owned()),
            "{refused:?}"
        );
    }
    for (number, call) in calls.iter_mut().enumerate() {
        writeln!(call, "{number:04}").unwrap();
    }
    for (number, call) in calls.into_iter().enumerate() {
        let answer = receive(&mut BufReader::new(call));
        assert_eq!(
            (answer.status, answer.text()),
            (200, format!("{number:04}\n"))
        );
    }
    let (code, took) = watchdog.exit();
    assert_eq!(code, Some(0));
    assert!(
        took < Duration::from_secs(1),
        "nothing ran any more: {took:?}"
    );
    assert_eq!(
        watchdog.lines("up", 50).len(),
        50,
        "none was started for those refused"
    );
}

#[test]
fn wherever_it_runs_it_exits_at_once_when_nothing_does() {
    for place in [Place::Process, Place::PidNamespace, Place::Container] {
        let Some(builder) = place.builder() else {
            continue;
        };
        // Twice what Docker gives a container before it kills it.
        let mut watchdog = builder
            .env("fprocess", "cat")
            .env("healthcheck_interval", "20s")
            .start();
        assert_eq!(watchdog.post("x").text(), "x");
        let began = Instant::now();
        watchdog.signal("TERM");
        watchdog.logs("drained, exiting");
        let took = began.elapsed();
        println!("{place:?}: drained {took:?} after TERM");
        assert!(took < Duration::from_secs(1), "{place:?}: {took:?}");
        assert_eq!(watchdog.exit().0, Some(0), "{place:?}");
    }
}
