//! A gateway ends and another one begins: nobody who calls can tell.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::client::{get, try_get};
use crate::support::gateway::{Folder, Gateway};
use crate::support::steady::{Load, Steady};
use crate::support::{eventually, within};

const CAT: &str = "  cat:\n    fprocess: cat\n    labels:\n      com.openfaas.scale.min: 2";
/// Calls a second of each kind of client; every call is a process on a machine that does other things as well.
const RATE: u32 = 60;
const RESTARTS: usize = 4;

fn both_kinds(to: SocketAddr) -> [Steady; 2] {
    [true, false].map(|keep_alive| {
        let load = Load {
            keep_alive,
            rate: RATE,
            count: u32::MAX,
            ..Load::echo(to, "/function/cat")
        };
        Steady::start(load, || {})
    })
}

#[test]
fn the_next_gateway_takes_the_port_over_and_no_call_fails() {
    let folder = Folder::new();
    let socket = folder.0.join("handover");
    let start = |port: u16, workers: &str| {
        let (port, socket) = (port.to_string(), socket.to_str().unwrap());
        Gateway::with(
            CAT,
            &["--port", &port, "--handover", socket, "--workers", workers],
        )
    };
    let mut running = start(0, "2");
    let address = running.address;
    let calls = both_kinds(address);
    for restart in 0..RESTARTS {
        let made = calls[0].made();
        within(Duration::from_secs(30), "calls are made", || {
            calls[0].made() > made + RATE
        });
        // Another number of workers is no reason to lose anything.
        let next = start(address.port(), ["3", "1", "2", "2"][restart]);
        assert_eq!(next.address, address);
        assert_eq!(running.ended(), Some(0), "{}", running.log());
        running.logs("a new gateway serves");
        running = next;
    }
    for calls in calls {
        let tally = calls.stop();
        println!("{tally}");
        tally.assert_failed_at_most(0);
    }
    running.logs("taking over from the gateway that runs");
}

/// Connects and sends nothing yet.
fn connect(to: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(to).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    Some(stream)
}

fn answer(mut stream: TcpStream) -> String {
    let request = "POST /function/cat HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi";
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = String::new();
    // The gateway closes after it, because it ends.
    stream.read_to_string(&mut all).unwrap_or_default();
    all
}

#[test]
fn whoever_got_a_connection_before_the_end_gets_an_answer() {
    for _ in 0..3 {
        let mut gateway = Gateway::of(CAT);
        let address = gateway.address;
        let late = connect(address).unwrap();
        let callers = [0, 1, 2].map(|_| {
            std::thread::spawn(move || {
                let mut answers = Vec::new();
                let began = Instant::now();
                while let Some(stream) = connect(address) {
                    answers.push(answer_and_close(stream));
                    assert!(began.elapsed() < Duration::from_secs(30), "it never ends");
                }
                answers
            })
        });
        std::thread::sleep(Duration::from_millis(200));
        gateway.signal("TERM");
        // A connection that is made and not used yet may still be used for a moment.
        std::thread::sleep(Duration::from_millis(100));
        let answered = answer(late);
        assert!(
            answered.starts_with("HTTP/1.1 200 OK") && answered.contains("connection: close"),
            "{answered}"
        );
        for caller in callers {
            let answers = caller.join().unwrap();
            let wrong: Vec<_> = answers
                .iter()
                .filter(|answer| !answer.starts_with("HTTP/1.1 200 OK"))
                .collect();
            assert!(wrong.is_empty(), "{wrong:?} of {}", answers.len());
        }
        assert_eq!(gateway.ended(), Some(0));
    }
}

fn answer_and_close(mut stream: TcpStream) -> String {
    let request = "POST /function/cat HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    let mut all = String::new();
    let answered = stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.read_to_string(&mut all));
    answered.map_or_else(|error| error.to_string(), |_| all)
}

#[test]
fn readiness_goes_first_and_every_answer_says_that_it_is_the_last() {
    let mut gateway = Gateway::with(CAT, &["--drain-delay", "2s"]);
    let mut kept = connect(gateway.address).unwrap();
    let ask = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    kept.write_all(ask).unwrap();
    let mut buffer = [0; 2048];
    let read = kept.read(&mut buffer).unwrap();
    assert!(!String::from_utf8_lossy(&buffer[..read]).contains("connection: close"));
    gateway.signal("TERM");
    let began = Instant::now();
    eventually("not ready", || {
        try_get(gateway.address, "/readyz").is_some_and(|ready| ready.status == 503)
    });
    assert_eq!(
        get(gateway.address, "/function/cat").status,
        200,
        "and serves"
    );
    kept.write_all(ask).unwrap();
    let mut last = String::new();
    kept.read_to_string(&mut last).unwrap();
    assert!(last.contains("connection: close"), "{last}");
    eventually("the port closes", || connect(gateway.address).is_none());
    assert!(began.elapsed() > Duration::from_millis(1500));
    assert_eq!(gateway.ended(), Some(0));
}

#[test]
fn a_socket_where_nobody_hands_over_is_said() {
    let folder = Folder::new();
    let socket = folder.0.join("mute");
    let _mute = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let stack = folder.write("stack.yml", "functions:\n  cat:\n    fprocess: cat\n");
    let args = ["local", stack.to_str().unwrap(), "--port", "0"];
    let handover = ["--handover", socket.to_str().unwrap()];
    let told = crate::support::gateway::run(&[&args[..], &handover].concat(), &[]);
    assert_eq!(told.status.code(), Some(1));
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("does not hand its port over"), "{told}");
}
