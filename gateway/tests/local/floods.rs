//! Frames and requests as fast as they go, on connection after connection: the others feel little of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use crate::http2::{connect, run, whole};
use crate::support::crowd::{assert_bearable, entry, felt, quick, resident};
use crate::support::frames::{PREFACE, frame};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use crate::support::within;

/// What others may wait beside a flood in a debug build that shares its processors with all other tests.
const BEARABLE: Duration = Duration::from_secs(2);
/// How long a connection may last that takes nothing else than a flood.
const LONGEST: Duration = Duration::from_secs(10);
/// Between two pieces of a flood.
const PIECE: Duration = Duration::from_millis(1);
/// How many frames of a kind go on one connection, if the gateway lets them.
const FRAMES: u32 = 20_000;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// Why a stream is reset: nobody needs it any more.
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
const TRAILERS: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\nConnection: close\r\n\r\n2\r\nok\r\n0\r\nX-End: 1\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// What goes on a connection.
struct Flood {
    what: &'static str,
    /// Sent one each millisecond.
    pieces: Vec<Vec<u8>>,
    /// How many connections at a time.
    side_by_side: usize,
}

/// A call of the function, in the static table's words.
fn post() -> Vec<u8> {
    let path = b"/function/quick";
    let begin = [0x83, 0x86, 0x04, path.len() as u8];
    [&begin, path.as_slice(), &[0x41, 1, b't']].concat()
}

/// A head that takes a field of 4,000 bytes into the table, and then names it again and again, a byte each time.
fn bomb(stream: u32) -> Vec<u8> {
    let field = [
        &[0x40, 1, b'x', 0x7f, 0xa1, 0x1e],
        vec![b'v'; 4000].as_slice(),
    ]
    .concat();
    frame(
        HEADERS,
        5,
        stream,
        &[post(), field, vec![0xbe; 12_000]].concat(),
    )
}

/// A connection on which a flood goes as far as it is taken, a piece each millisecond. How long that lasted.
fn pour(to: SocketAddr, flood: &[Vec<u8>]) -> Duration {
    let began = Instant::now();
    let mut stream = TcpStream::connect(to).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let answers = stream.try_clone().unwrap();
    stream.set_read_timeout(Some(LONGEST)).unwrap();
    std::thread::scope(|scope| {
        // Answers are taken, so that nothing but the gateway itself holds the flood back.
        scope.spawn(|| {
            let mut buffer = [0; 1 << 16];
            while matches!((&answers).read(&mut buffer), Ok(1..)) {}
        });
        for (number, piece) in flood.iter().enumerate() {
            if number > 0 {
                std::thread::sleep(PIECE);
            }
            // Whoever is ended cannot write to the end.
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
    });
    began.elapsed()
}

/// Floods, one connection after the other with a pause between them, for as long as `during` runs.
fn storm(to: SocketAddr, flood: &Flood, pause: Duration, during: impl FnOnce()) {
    let what = flood.what;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooder = || {
            let mut lasted = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                lasted.push(pour(to, &flood.pieces));
                std::thread::sleep(pause);
            }
            lasted
        };
        let flooders: Vec<_> = (0..flood.side_by_side)
            .map(|_| scope.spawn(flooder))
            .collect();
        during();
        stop.store(true, Ordering::Relaxed);
        let lasted = flooders.into_iter().flat_map(|one| one.join().unwrap());
        let lasted: Vec<_> = lasted.collect();
        let longest = lasted.iter().max().unwrap();
        println!(
            "{what}: {} connections, the longest {longest:.1?}",
            lasted.len()
        );
        assert!(*longest < LONGEST, "{what}: {longest:?}");
    });
}

/// A hundred calls in a piece, which the next one takes back.
fn calls_taken_back() -> Vec<Vec<u8>> {
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let streams = |piece: u32| (100 * piece..100 * (piece + 1)).map(|n| 2 * n + 1);
    let calls = |piece| streams(piece).flat_map(|stream| frame(HEADERS, 5, stream, &post()));
    let back = |piece| streams(piece).flat_map(|stream| frame(RST_STREAM, 0, stream, &CANCEL));
    let first = [begin, calls(0).collect()].concat();
    let more = (1..FRAMES / 100).map(|piece| back(piece - 1).chain(calls(piece)).collect());
    std::iter::once(first).chain(more).collect()
}

/// All floods.
fn floods() -> Vec<Flood> {
    let streams = || (0..FRAMES).map(|n| 2 * n + 1);
    let http_2 = |frames: Vec<u8>| [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frames].concat();
    let same = |frame: Vec<u8>| frame.repeat(FRAMES as usize);
    let opened = frame(HEADERS, 4, 1, &post());
    let field = [&[0x40, 1, b'x', 100], [b'v'; 100].as_slice()].concat();
    let at_once = [
        (
            "streams taken back at once",
            http_2(
                streams()
                    .flat_map(|stream| {
                        [
                            frame(HEADERS, 5, stream, &post()),
                            frame(RST_STREAM, 0, stream, &CANCEL),
                        ]
                        .concat()
                    })
                    .collect(),
            ),
        ),
        (
            "a head without an end",
            http_2(
                [
                    frame(HEADERS, 1, 1, &post()),
                    same(frame(CONTINUATION, 0, 1, &field)),
                ]
                .concat(),
            ),
        ),
        (
            "heads that unpack to megabytes",
            http_2(streams().take(500).flat_map(bomb).collect()),
        ),
        (
            "settings",
            http_2(same(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]))),
        ),
        ("pings", http_2(same(frame(PING, 0, 0, &[7; 8])))),
        (
            "answers to pings that nobody sent",
            http_2(same(frame(PING, 1, 0, &[7; 8]))),
        ),
        (
            "empty data",
            http_2([opened.clone(), same(frame(DATA, 0, 1, &[]))].concat()),
        ),
        (
            "windows a byte wider",
            http_2([opened, same(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))].concat()),
        ),
        (
            // Fewer: each of them is a call.
            "requests in a row",
            b"GET /function/quick HTTP/1.1\r\nHost: t\r\n\r\n".repeat(FRAMES as usize / 4),
        ),
    ];
    let at_once = at_once.map(|(what, flood)| Flood {
        what,
        pieces: vec![flood],
        side_by_side: 1,
    });
    let paced = Flood {
        what: "calls taken back once they run",
        pieces: calls_taken_back(),
        side_by_side: 4,
    };
    at_once.into_iter().chain([paced]).collect()
}

fn nothing_is_left(gateway: &Gateway) {
    within(Duration::from_secs(20), "nothing is left of it", || {
        gateway.metric("skep_connections") < 2.5
            && gateway.metric("skep_in_flight{function_name=\"quick\"}") < 0.5
    });
}

#[test]
fn a_flood_is_ended_and_costs_nobody_a_call() {
    let gateway = Gateway::of(&entry("quick", quick()));
    let (to, pause) = (gateway.address, Duration::from_millis(100));
    for flood in &floods() {
        let what = flood.what;
        let mut others = None;
        storm(to, flood, pause, || {
            others = Some(felt(&gateway, Duration::from_secs(1)));
        });
        let others = others.unwrap();
        println!("{what}: {others}");
        others.assert_failed_at_most(0);
        assert!(others.quantile(0.99) < BEARABLE, "{what}: {others}");
    }
    nothing_is_left(&gateway);
    let lines = gateway.log().lines().count();
    assert!(
        lines < 50,
        "{lines} lines of log: a flood is not to fill the disk"
    );
}

/// A function that answers `/at-once` and `/trailers` at once, `/later` when it is told to, and nothing else.
fn moody(may_answer: &Arc<AtomicBool>) -> Upstream {
    let may_answer = may_answer.clone();
    Upstream::new(move |stream, head| {
        let answers = head.contains("/later") && {
            within(Duration::from_secs(60), "told to answer", || {
                may_answer.load(Ordering::Relaxed)
            });
            true
        };
        if head.contains("/trailers") {
            stream.write_all(TRAILERS).unwrap();
        } else if answers || head.contains("/at-once") {
            stream.write_all(OK).unwrap();
        } else {
            // Until the gateway closes.
            let _ = stream.read(&mut [0]);
        }
    })
}

/// Waits for a call of it.
async fn called(upstream: &Upstream) {
    while upstream.saw_nothing() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_client_that_takes_back_most_of_its_calls_is_told_to_go_and_one_that_takes_back_some_is_not() {
    let may_answer = Arc::<AtomicBool>::default();
    let moody = moody(&may_answer);
    let gateway = Gateway::of(&moody.entry("quick", ""));
    let call = |path: &str| {
        let uri = format!("http://{}/function/quick/{path}", gateway.address);
        Request::get(uri).body(Full::<Bytes>::default()).unwrap()
    };
    run(async {
        let mut client = connect(gateway.address).await;
        let later = tokio::spawn(client.send_request(call("later")));
        called(&moody).await;
        let mut taken_back = 0;
        while taken_back < 100 {
            for path in ["at-once", "never", "trailers"] {
                client.ready().await.expect("some may be taken back");
                let answer = client.send_request(call(path));
                if path == "never" {
                    let answer = tokio::spawn(answer);
                    called(&moody).await;
                    answer.abort();
                    taken_back += 1;
                } else {
                    let (_, text, trailers) = whole(answer.await.unwrap()).await;
                    assert_eq!(text, "ok");
                    assert_eq!(trailers.is_some(), path == "trailers");
                    called(&moody).await;
                }
            }
        }
        let mut more = 0;
        while client.ready().await.is_ok() && more < 1000 {
            let answer = tokio::spawn(client.send_request(call("never")));
            // It may be told to go meanwhile.
            if tokio::time::timeout(Duration::from_secs(1), called(&moody))
                .await
                .is_err()
            {
                assert!(answer.await.unwrap().is_err());
                break;
            }
            answer.abort();
            more += 1;
        }
        assert!((50..=200).contains(&more), "{more} more");
        may_answer.store(true, Ordering::Relaxed);
        let answer = later.await.unwrap().expect("what runs is answered");
        assert_eq!(whole(answer).await.1, "ok");
    });
    nothing_is_left(&gateway);
}

#[test]
fn the_smallest_pieces_with_the_most_around_them_take_no_more_memory_than_others() {
    const CALLS: usize = 10;
    let (tell, told) = std::sync::mpsc::channel();
    let silent = Upstream::new(move |stream, _| {
        let mut piece = [0; 1 << 16];
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            if piece[..read].contains(&b'!') {
                tell.send(()).unwrap();
            }
        }
    });
    let gateway = Gateway::of(&silent.entry("quick", ""));
    let head = "POST /function/quick HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = format!("1;{}\r\nx\r\n", "e".repeat(4000));
    let before = resident(gateway.pid());
    let calls: Vec<_> = [("1\r\nx\r\n", 60_000), (&long, 2_000)]
        .into_iter()
        .flat_map(|(chunk, count)| {
            (0..CALLS / 2).map(move |_| [head, &chunk.repeat(count), "1\r\n!\r\n"].concat())
        })
        .map(|call| {
            let mut stream = TcpStream::connect(gateway.address).unwrap();
            stream.write_all(call.as_bytes()).unwrap();
            told.recv_timeout(Duration::from_secs(20)).unwrap();
            stream
        })
        .collect();
    let each = resident(gateway.pid()).saturating_sub(before) / calls.len();
    assert!(each < 1 << 20, "{} KiB for each call", each >> 10);
}

#[test]
fn a_client_that_does_not_go_when_it_is_told_to_is_cut_off() {
    let moody = moody(&Arc::default());
    let gateway = Gateway::of(&moody.entry("quick", ""));
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    stream.write_all(&begin).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let mut begun = 0;
    let is_closed = |mut stream: &TcpStream| loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    };
    while !is_closed(&stream) && begun < 1000 {
        let streams = (begun..begun + 10).map(|n| 2 * n + 1);
        let calls = streams.clone().flat_map(|n| frame(HEADERS, 5, n, &post()));
        let back = streams.flat_map(|n| frame(RST_STREAM, 0, n, &CANCEL));
        if stream.write_all(&calls.collect::<Vec<_>>()).is_err() {
            break;
        }
        begun += 10;
        let mut each = 0..10;
        let are_begun = each.all(|_| {
            loop {
                if !moody.saw_nothing() {
                    break true;
                }
                if is_closed(&stream) {
                    break false;
                }
            }
        });
        if !are_begun || stream.write_all(&back.collect::<Vec<_>>()).is_err() {
            break;
        }
    }
    assert!((200..400).contains(&begun), "{begun} calls");
    nothing_is_left(&gateway);
}

#[test]
#[ignore = "minutes, with a release build: make soak"]
fn others_feel_little_of_floods_without_a_pause() {
    let gateway = Gateway::of(&entry("quick", quick()));
    for flood in &floods() {
        assert_bearable(flood.what, &gateway, Duration::from_secs(10), |feel| {
            storm(gateway.address, flood, Duration::ZERO, feel);
        });
    }
    nothing_is_left(&gateway);
}
