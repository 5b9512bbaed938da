//! Trailers over HTTP/2 are held against the same list as those over HTTP/1.1, both ways.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Request};

use crate::http2::{connect, grpc_server, run};
use crate::support::gateway::Gateway;

#[test]
fn trailers_that_frame_route_or_vouch_for_a_message_do_not_pass_over_http_2() {
    // It sends back the trailers that it gets.
    let server = grpc_server(Arc::new(AtomicUsize::new(0)));
    let gateway = Gateway::of(&format!(
        "  grpc:\n    annotations:\n      skep.upstream: http://{server}\n    labels:\n      skep.protocol: h2c"
    ));
    let mut trailers = HeaderMap::new();
    for name in [
        "x-sum",
        "grpc-status",
        "authorization",
        "cookie",
        "set-cookie",
        "host",
        "content-length",
        "content-type",
        "expect",
        "forwarded",
        "x-forwarded-for",
        "x-real-ip",
        "x-call-id",
        "x-start-time",
        "x-skep-not-accepted",
        "x-skep-watchdog",
        "x-function",
    ] {
        trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("0"));
    }
    let came = run(async {
        let frames = [
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))),
            Ok(Frame::trailers(trailers)),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let request = Request::post("http://t/function/grpc").body(body).unwrap();
        let mut connection = connect(gateway.address).await;
        let answer = connection.send_request(request).await.unwrap();
        let whole = answer.into_body().collect().await.unwrap();
        let trailers = whole.trailers().cloned().unwrap();
        let mut names: Vec<_> = trailers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    });
    assert_eq!(came, ["grpc-status", "x-sum"]);
}
