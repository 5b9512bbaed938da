//! Callers that are slow on purpose: heads and bodies byte by byte, answers that nobody reads, connections that lie idle. The others
//! feel little of it, and the memory it takes is bounded.

use std::io::{Read, Write};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::support::client::get;
use crate::support::crowd::{Crowd, assert_bearable, entry, quick, resident, take_all_descriptors};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use crate::support::within;

/// Sends the beginning, then a byte now and then, until the gateway has had enough.
async fn drip(to: std::net::SocketAddr, beginning: &str, pause: Duration) {
    let Ok(mut stream) = TcpStream::connect(to).await else {
        return;
    };
    let mut answer = [0; 1024];
    if stream.write_all(beginning.as_bytes()).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            _ = stream.read(&mut answer) => return,
            () = sleep(pause) => {}
        }
        if stream.write_all(b"x").await.is_err() {
            return;
        }
    }
}

/// What a reader who takes next to nothing may cost: what hyper reads ahead, and what waits to be written.
const MOST_FOR_A_READER: usize = 288 << 10;

/// The bytes of a large answer.
const LARGE: usize = 10 << 20;

/// How large an attack is.
struct Scale {
    heads: usize,
    bodies: usize,
    pause: Duration,
    /// What the gateway gives a head, and a call.
    limit: &'static str,
    length: Duration,
    resident: usize,
}

fn slowloris(scale: &Scale) {
    take_all_descriptors();
    let limits = [
        "--read-timeout",
        scale.limit,
        "--upstream-timeout",
        scale.limit,
    ];
    let gateway = Gateway::with(&entry("quick", quick()), &limits);
    let (to, pause) = (gateway.address, scale.pause);
    let limit = skep::duration::parse(scale.limit).unwrap();
    let all = (scale.heads + scale.bodies) as f64;
    assert_bearable("slow heads and bodies", &gateway, scale.length, |feel| {
        let heads = Crowd::gather(scale.heads, limit, move |_| {
            drip(
                to,
                "GET /function/quick HTTP/1.1\r\nHost: t\r\nX-Slow: ",
                pause,
            )
        });
        let bodies = Crowd::gather(scale.bodies, limit, move |_| {
            let head = "POST /function/quick HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n";
            drip(to, head, pause)
        });
        within(4 * limit, "all of them are there", || {
            gateway.metric("skep_connections") > all * 0.9
        });
        feel();
        let kept = resident(gateway.pid());
        within(4 * limit, "each was ended once", || {
            heads.ended() > scale.heads && bodies.ended() > scale.bodies
        });
        let longest = heads.longest().max(bodies.longest());
        println!(
            "{} slow heads, {} slow bodies: {} and {} ended, the last after {longest:?}; {} MB resident",
            scale.heads,
            scale.bodies,
            heads.ended(),
            bodies.ended(),
            kept >> 20
        );
        assert!(longest < limit + Duration::from_secs(10), "{longest:?}");
        assert!(kept < scale.resident, "{kept} bytes");
        heads.go();
        bodies.go();
        within(Duration::from_secs(20), "nothing is left of it", || {
            gateway.metric("skep_connections") < 2.5
        });
    });
}

#[test]
fn slow_heads_and_bodies_are_ended_at_their_limit_and_the_others_feel_little_of_it() {
    slowloris(&Scale {
        heads: 1000,
        bodies: 200,
        pause: Duration::from_secs(2),
        limit: "4s",
        length: Duration::from_secs(3),
        resident: 80 << 20,
    });
}

#[test]
#[ignore = "minutes: make soak"]
fn ten_thousand_slow_heads_and_two_thousand_slow_bodies() {
    slowloris(&Scale {
        heads: 9900,
        bodies: 2000,
        pause: Duration::from_secs(10),
        limit: "30s",
        length: Duration::from_secs(40),
        resident: 200 << 20,
    });
}

/// Takes a little of a large answer now and then.
async fn sip(to: std::net::SocketAddr) {
    // Else the kernel takes half of the answer.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let Ok(mut stream) = socket.connect(to).await else {
        return;
    };
    let request = b"GET /function/large HTTP/1.1\r\nHost: t\r\n\r\n";
    if stream.write_all(request).await.is_err() {
        return;
    }
    let mut buffer = [0; 1024];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {
        sleep(Duration::from_secs(1)).await;
    }
}

fn slow_readers(count: usize, length: Duration) {
    take_all_descriptors();
    let large = Upstream::new(|stream, _| {
        // What its kernel keeps of an answer on a network. The loopback's segments are so large that it would keep 4 MB there.
        SockRef::from(&*stream)
            .set_send_buffer_size(416 << 10)
            .unwrap();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\nConnection: close\r\n\r\n");
        let sent = stream.write_all(head.as_bytes());
        // Few get all of it.
        let _ = sent.and_then(|()| stream.write_all(&[b'x'; LARGE]));
    });
    let gateway = Gateway::of(&(entry("quick", quick()) + &large.entry("large", "")));
    assert_eq!(get(gateway.address, "/function/large").body.len(), LARGE);
    let before = resident(gateway.pid());
    let to = gateway.address;
    let running = || gateway.metric("skep_in_flight{function_name=\"large\"}");
    assert_bearable("slow readers", &gateway, length, |feel| {
        let crowd = Crowd::gather(count, Duration::from_secs(2), move |_| sip(to));
        within(Duration::from_secs(60), "all of them are there", || {
            running() > count as f64 - 0.5
        });
        feel();
        let each = resident(gateway.pid()).saturating_sub(before) / count;
        println!("{count} slow readers: {} KB resident each", each >> 10);
        assert!(each < MOST_FOR_A_READER, "{each} bytes for each");
        assert_eq!(crowd.ended(), 0, "they may be slow");
        crowd.go();
        within(Duration::from_secs(30), "nothing is left of it", || {
            running() < 0.5
        });
    });
}

#[test]
fn slow_readers_of_large_answers_take_bounded_memory_and_the_others_feel_little_of_it() {
    slow_readers(150, Duration::from_secs(3));
}

#[test]
#[ignore = "a minute: make soak"]
fn a_thousand_slow_readers() {
    slow_readers(1000, Duration::from_secs(20));
}

fn idle(count: usize, length: Duration) {
    take_all_descriptors();
    let gateway = Gateway::of(&entry("quick", quick()));
    let call = || {
        let mut stream = std::net::TcpStream::connect(gateway.address).unwrap();
        let request = b"GET /function/quick HTTP/1.1\r\nHost: t\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer).unwrap();
        assert!(answer[..read].ends_with(b"ok"));
        stream
    };
    (0..50).for_each(|_| drop(call()));
    let before = resident(gateway.pid());
    assert_bearable("idle connections", &gateway, length, |feel| {
        let held: Vec<_> = (0..count).map(|_| call()).collect();
        feel();
        let each = resident(gateway.pid()).saturating_sub(before) / count;
        println!("{count} idle connections: {each} bytes resident each");
        // hyper's two buffers of 8 KiB, of which one is hardly touched, and the rest: bench/idle.sh compares it with hyper alone.
        assert!(each < 20_000, "{each} bytes for each");
        drop(held);
        within(Duration::from_secs(30), "nothing is left of it", || {
            gateway.metric("skep_connections") < 2.5
        });
    });
}

#[test]
fn idle_connections_take_little_memory_and_the_others_feel_little_of_them() {
    idle(1000, Duration::from_secs(3));
}

#[test]
#[ignore = "a minute: make soak"]
fn ten_thousand_idle_connections() {
    idle(9900, Duration::from_secs(15));
}
