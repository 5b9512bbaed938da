//! HTTP/2 without TLS, by prior knowledge: the same calls, side by side on one connection.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::client::post;
use crate::support::eventually;
use crate::support::frames::{PREFACE, SETTINGS, frame, get_cat};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(60), work).await };
    runtime.block_on(limited).expect("within a minute")
}

pub(crate) async fn connect<B>(to: SocketAddr) -> SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes, Error: std::error::Error + Send + Sync>
        + Unpin
        + Send
        + 'static,
{
    let stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let shaken = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (connection, driver) = shaken.unwrap();
    tokio::spawn(async { driver.await.unwrap_or_default() });
    connection
}

fn request(to: SocketAddr, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("http://{to}{path}"))
        .body(Full::new(body.into()))
        .unwrap()
}

pub(crate) async fn whole(
    response: Response<hyper::body::Incoming>,
) -> (u16, String, Option<HeaderMap>) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned();
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    (status, text, trailers)
}

#[test]
fn many_calls_run_side_by_side_on_one_connection() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let address = gateway.address;
    run(async {
        let connection = connect(address).await;
        let calls = (0..60).map(|n| {
            let mut connection = connection.clone();
            tokio::spawn(async move {
                let request = request(address, "/function/cat", format!("call {n}"));
                let response = connection.send_request(request).await.unwrap();
                assert!(response.headers().contains_key("x-call-id"));
                (n, whole(response).await)
            })
        });
        for call in calls.collect::<Vec<_>>() {
            let (n, (status, text, _)) = call.await.unwrap();
            assert_eq!((status, text), (200, format!("call {n}")));
        }
        let mut connection = connection;
        let missing = request(address, "/function/nosuch", "");
        let missing = connection.send_request(missing).await.unwrap();
        assert_eq!(missing.status(), 404);
    });
    let calls = "gateway_function_invocation_total{code=\"200\",function_name=\"cat\"}";
    assert!((gateway.metric(calls) - 60.0).abs() < f64::EPSILON);
    assert_eq!(
        post(address, "/function/cat", "x").text(),
        "x",
        "on the same port"
    );
}

#[test]
fn what_http_2_says_differently_reaches_the_function_as_http_1() {
    let upstream = Upstream::new(|stream, _| {
        let mut body = String::new();
        let mut byte = [0];
        while !body.ends_with("0\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            body.push(byte[0] as char);
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n{:x}\r\n{body}\r\n0\r\ngrpc-status: 0\r\n\r\n",
            body.len()
        );
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let gateway = Gateway::of(&upstream.entry("grpc", ""));
    let address = gateway.address;
    run(async {
        let pieces = [b"first".as_slice(), b"second"]
            .map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(piece))));
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        let request = Request::post("http://shop.example/function/grpc/Say")
            .header("te", "trailers")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(body)
            .unwrap();
        let mut connection = connect(address).await;
        let response = connection.send_request(request).await.unwrap();
        let (status, text, trailers) = whole(response).await;
        assert!(
            status == 200 && text.contains("first") && text.contains("second"),
            "{text}"
        );
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    });
    let head = upstream.saw().to_lowercase();
    for part in [
        "post /say http/1.1\r\n",
        "host: shop.example\r\n",
        "cookie: a=1; b=2\r\n",
        "te: trailers\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        assert!(head.contains(part), "{part} in {head}");
    }
}

#[test]
fn a_draining_gateway_finishes_the_calls_of_a_connection_and_takes_no_more() {
    let upstream = Upstream::new(|stream, _| {
        std::thread::sleep(Duration::from_secs(2));
        stream.write_all(OK.as_bytes()).unwrap();
    });
    let mut gateway = Gateway::of(&upstream.entry("slow", ""));
    let address = gateway.address;
    run(async {
        let mut connection = connect(address).await;
        let running = connection.send_request(request(address, "/function/slow", ""));
        let running = tokio::spawn(running);
        tokio::task::spawn_blocking({
            let pid = gateway.pid();
            move || {
                let _ = upstream.saw();
                crate::support::gateway::signal(pid, "TERM");
            }
        })
        .await
        .unwrap();
        // The connection says that it takes no more.
        while connection.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (status, text, _) = whole(running.await.unwrap().unwrap()).await;
        assert_eq!((status, text.as_str()), (200, "ok"));
    });
    assert_eq!(gateway.ended(), Some(0));
}

/// A function that speaks HTTP/2 alone, as gRPC servers do: each message comes back at once, and a status after the last.
pub(crate) fn grpc_server(connections: Arc<AtomicUsize>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let served = http.serve_connection(TokioIo::new(stream), service_fn(say));
                // One that does not speak HTTP/2, such as a probe's, ends at once.
                tokio::spawn(async { served.await.unwrap_or_default() });
            }
        });
    });
    address
}

async fn say(
    request: Request<hyper::body::Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = hyper::Error>>, hyper::Error> {
    let head = format!(
        "{} {} {} te={:?} ",
        request.method(),
        request.uri(),
        request.headers().contains_key("host"),
        request.headers().get("te")
    );
    let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from(head)))]);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let last = futures_util::stream::iter([Ok(Frame::trailers(trailers))]);
    let echoed = http_body_util::BodyStream::new(request.into_body());
    Ok(Response::new(StreamBody::new(
        first.chain(echoed).chain(last),
    )))
}

#[test]
fn grpc_passes_with_its_stream_both_ways_and_its_trailers() {
    let connections = Arc::new(AtomicUsize::new(0));
    let server = grpc_server(connections.clone());
    let gateway = Gateway::with(
        &format!(
            "  grpc:\n    annotations:\n      skep.upstream: http://{server}\n    labels:\n      skep.protocol: h2c"
        ),
        &["--workers", "1"],
    );
    let address = gateway.address;
    run(async {
        let mut connection = connect(address).await;
        let (mut messages, body) = Channel::<Bytes>::new(1);
        let request = Request::post("http://shop.example/function/grpc/pkg.Service/Say?x=1")
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(body)
            .unwrap();
        let response = connection.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut answer = response.into_body();
        let mut seen = String::new();
        // Each message is back before the next one is sent.
        for n in 0..5 {
            messages
                .send_data(format!("message {n};").into())
                .await
                .unwrap();
            while !seen.contains(&format!("message {n};")) {
                let frame = answer.frame().await.unwrap().unwrap();
                seen.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
        }
        drop(messages);
        let end = answer.frame().await.unwrap().unwrap();
        assert_eq!(end.trailers_ref().unwrap()["grpc-status"], "0");
        assert!(
            seen.starts_with(
                "POST http://shop.example/pkg.Service/Say?x=1 false te=Some(\"trailers\")"
            ),
            "{seen}"
        );
        // Calls share one connection.
        let more = (0..20).map(|n| {
            let mut connection = connection.clone();
            tokio::spawn(async move {
                let (mut messages, body) = Channel::<Bytes>::new(1);
                messages
                    .send_data(format!("call {n}").into())
                    .await
                    .unwrap();
                drop(messages);
                let request = Request::post("http://t/function/grpc").body(body).unwrap();
                let response = connection.send_request(request).await.unwrap();
                whole(response).await
            })
        });
        for (n, call) in more.collect::<Vec<_>>().into_iter().enumerate() {
            let (status, text, trailers) = call.await.unwrap();
            assert!(
                status == 200 && text.ends_with(&format!("call {n}")),
                "{text}"
            );
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
    });
    // One for the first contact, one for the calls.
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    let plain = post(address, "/function/grpc", "over HTTP/1");
    assert!(plain.status == 200 && plain.text().ends_with("over HTTP/1"));
}

/// What comes until the connection is closed, and whether it was.
fn until_closed(mut stream: &TcpStream) -> (Vec<u8>, bool) {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (all, true),
            Ok(read) => all.extend_from_slice(&buffer[..read]),
            Err(error) => {
                let reset = error.kind() == std::io::ErrorKind::ConnectionReset;
                return (all, reset);
            }
        }
    }
}

/// Sends as much of this as is taken, over and over, and says whether the gateway ended it.
fn is_ended_by(gateway: &Gateway, flood: impl Iterator<Item = Vec<u8>>) -> bool {
    let stream = TcpStream::connect(gateway.address).unwrap();
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    (&stream).write_all(&begin).unwrap();
    let reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || until_closed(&reader).1);
    for frames in flood {
        if (&stream).write_all(&frames).is_err() {
            break;
        }
    }
    reading.join().unwrap()
}

#[test]
fn floods_end_their_connection_and_nobody_elses() {
    let gateway = Gateway::with("  cat:\n    fprocess: cat", &["--read-timeout", "2s"]);
    let streams = || (0..5_000_u32).map(|n| 2 * n + 1);
    // Rapid reset: streams opened and taken back at once.
    let resets = streams().map(|stream| {
        let cancel = 8_u32.to_be_bytes();
        [
            frame(1, 5, stream, &get_cat()),
            frame(3, 0, stream, &cancel),
        ]
        .concat()
    });
    assert!(is_ended_by(&gateway, resets), "rapid reset");
    // A head that never ends.
    let mut first = vec![frame(1, 1, 1, &get_cat())];
    first.extend((0..5_000).map(|n| {
        let field = [
            vec![0x40, 4],
            format!("x{:03}", n % 1000).into_bytes(),
            vec![100],
        ]
        .concat();
        frame(9, 0, 1, &[field, vec![b'v'; 100]].concat())
    }));
    assert!(is_ended_by(&gateway, first.into_iter()), "continuation");
    // Frames that ask for answers, which nobody reads: bounded by what the sockets hold, or ended.
    let noise = |kind, payload: &'static [u8]| (0..5_000).map(move |_| frame(kind, 0, 0, payload));
    assert!(
        is_ended_by(&gateway, noise(SETTINGS, &[0, 3, 0, 0, 0, 9])),
        "settings"
    );
    assert!(is_ended_by(&gateway, noise(6, &[7; 8])), "pings");
    assert_eq!(post(gateway.address, "/function/cat", "x").text(), "x");
    eventually("nothing of it is left", || {
        gateway.metric("skep_in_flight{function_name=\"cat\"}") < 0.5
            && gateway.metric("skep_connections") < 2.5
    });
}

#[test]
fn a_connection_without_calls_is_closed_after_the_read_limit() {
    let gateway = Gateway::with("  cat:\n    fprocess: cat", &["--read-timeout", "1s"]);
    for begin in [
        [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(),
        PREFACE[..10].to_vec(),
    ] {
        let stream = TcpStream::connect(gateway.address).unwrap();
        (&stream).write_all(&begin).unwrap();
        assert!(until_closed(&stream).1, "{begin:?}");
    }
}

#[test]
fn the_authority_is_the_host_that_a_function_has_for_itself() {
    let labels = "    labels:\n      skep.route.host: shop.example";
    let gateway = Gateway::of(&format!("  shop:\n    fprocess: cat\n{labels}"));
    run(async {
        let mut connection = connect(gateway.address).await;
        for (authority, status) in [
            ("shop.example", 200),
            ("SHOP.example:8080", 200),
            ("shop.example.", 200),
            ("other.example", 404),
        ] {
            let request = Request::post(format!("http://{authority}/x"))
                .header("host", "other.example")
                .body(Full::new(Bytes::from("hi")))
                .unwrap();
            let response = connection.send_request(request).await.unwrap();
            assert_eq!(response.status(), status, "{authority}");
        }
    });
}
