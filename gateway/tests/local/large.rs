//! Bodies that no memory could hold pass both ways, and whoever stops reading stops whoever sends.

use std::convert::Infallible;
use std::future::Future;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::http2;
use crate::support::gateway::{Gateway, children};
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

/// The bytes after which a body begins anew: a prime, so that no buffer ends where they do.
const PERIOD: usize = 65_521;
/// What may be on its way to somebody who does not read: what kernels keep for four sockets, most of it.
const ON_ITS_WAY: usize = 24 << 20;
/// What goes on after that.
const THE_REST: usize = 64 << 20;
/// How long a function waits until it is told to read.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the gateway may have kept at any time.
const MOST_OF_THE_GATEWAY: usize = 64 << 20;
/// What a large body may add to what a small one has cost, in a watchdog. Here that is the gateway's own program, whose size says nothing.
const MORE_OF_THE_WATCHDOG: usize = 8 << 20;

fn period() -> Bytes {
    let mut random = fastrand::Rng::with_seed(1);
    (0..PERIOD).map(|_| random.u8(..)).collect()
}

/// A body of so many bytes, made as they are asked for, and counted.
struct Made {
    period: Bytes,
    length: usize,
    made: Arc<AtomicUsize>,
}

impl Made {
    fn of(length: usize) -> Self {
        Self {
            period: period(),
            length,
            made: Arc::default(),
        }
    }
}

impl Body for Made {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = self.length - self.made.load(Ordering::Relaxed);
        let next = self.period.slice(..left.min(PERIOD));
        self.made.fetch_add(next.len(), Ordering::Relaxed);
        Poll::Ready((left > 0).then(|| Ok(Frame::data(next))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.length - self.made.load(Ordering::Relaxed)) as u64)
    }
}

/// Compares what comes with what was made, and keeps nothing of it.
struct Checked {
    period: Bytes,
    seen: usize,
}

impl Checked {
    fn new() -> Self {
        Self {
            period: period(),
            seen: 0,
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let expected = &self.period[self.seen % PERIOD..];
            let length = bytes.len().min(expected.len());
            let (now, later) = bytes.split_at(length);
            assert!(now == &expected[..length], "after {} bytes", self.seen);
            self.seen += length;
            bytes = later;
        }
    }

    /// Reads on until so many bytes were seen, or to the end.
    async fn read(&mut self, body: &mut Incoming, until: usize) {
        while self.seen < until {
            let Some(frame) = body.frame().await else {
                return;
            };
            self.take(&frame.unwrap().into_data().unwrap());
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Version {
    One,
    Two,
}

/// Calls the function with this body.
async fn call(to: SocketAddr, version: Version, body: Made) -> Response<Incoming> {
    let request = |uri| Request::post(uri).header("host", "t").body(body).unwrap();
    match version {
        Version::One => {
            let stream = tokio::net::TcpStream::connect(to).await.unwrap();
            let shaken = http1::handshake(TokioIo::new(stream)).await;
            let (mut connection, driver) = shaken.unwrap();
            tokio::spawn(async { driver.await.unwrap_or_default() });
            let request = request("/function/large".to_owned());
            connection.send_request(request).await.unwrap()
        }
        Version::Two => {
            let mut connection = http2::connect(to).await;
            let mut request = request(format!("http://{to}/function/large"));
            request.headers_mut().clear();
            connection.send_request(request).await.unwrap()
        }
    }
}

fn run(work: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(work);
}

/// The most that a process has had in memory so far.
fn peak(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<usize>().unwrap() << 10
}

fn there_and_back(length: usize) {
    let gateway = Gateway::of(
        "  large:\n    fprocess: cat\n    environment:\n      mode: streaming\n      read_timeout: 30m\n      exec_timeout: 30m\n      write_timeout: 30m",
    );
    eventually("a replica", || children(gateway.pid()).len() == 1);
    let watchdog = children(gateway.pid())[0];
    let pass = |version, length| {
        run(async {
            let mut checked = Checked::new();
            let answer = call(gateway.address, version, Made::of(length)).await;
            assert_eq!(answer.status(), 200);
            checked.read(&mut answer.into_body(), usize::MAX).await;
            assert_eq!(checked.seen, length);
        });
    };
    for version in [Version::One, Version::Two] {
        pass(version, PERIOD);
        let before = peak(watchdog);
        let began = Instant::now();
        pass(version, length);
        let [most, after] = [gateway.pid(), watchdog].map(peak);
        println!(
            "HTTP/{version:?}: {} MB both ways in {:.1?}; the gateway had {} KB at most, the watchdog {} KB, {} KB for a small body",
            length >> 20,
            began.elapsed(),
            most >> 10,
            after >> 10,
            before >> 10,
        );
        assert!(most < MOST_OF_THE_GATEWAY, "{version:?}: {most} bytes");
        assert!(
            after - before < MORE_OF_THE_WATCHDOG,
            "{version:?}: {after} bytes"
        );
    }
}

#[test]
fn two_hundred_megabytes_pass_both_ways_in_little_memory() {
    there_and_back(200 << 20);
}

#[test]
#[ignore = "minutes: make soak"]
fn two_gigabytes_pass_both_ways_in_little_memory() {
    there_and_back(2 << 30);
}

/// Waits until this many bytes are no longer more than a second before, and says how many they are.
async fn standstill(bytes: &AtomicUsize) -> usize {
    loop {
        let before = bytes.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = bytes.load(Ordering::Relaxed);
        assert!(now < ON_ITS_WAY, "nothing stops the sender: {now} bytes");
        if now == before && now > 0 {
            return now;
        }
    }
}

#[test]
fn a_caller_who_does_not_read_stops_the_function() {
    let written = Arc::<AtomicUsize>::default();
    let counted = written.clone();
    let function = Upstream::new(move |stream, _| {
        let period = period();
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        // Until the caller has had enough.
        while stream.write_all(&period).is_ok() {
            counted.fetch_add(PERIOD, Ordering::Relaxed);
        }
    });
    let gateway = Gateway::of(&function.entry("large", ""));
    for version in [Version::One, Version::Two] {
        written.store(0, Ordering::Relaxed);
        run(async {
            let answer = call(gateway.address, version, Made::of(0)).await;
            let mut body = answer.into_body();
            let stopped = standstill(&written).await;
            println!("HTTP/{version:?}: the function stops after {stopped} bytes");
            let mut checked = Checked::new();
            checked.read(&mut body, stopped + THE_REST).await;
            assert!(checked.seen >= stopped + THE_REST, "it goes on");
        });
        eventually("the call ends with its caller", || {
            gateway.metric("skep_in_flight{function_name=\"large\"}") < 0.5
        });
    }
    assert!(peak(gateway.pid()) < MOST_OF_THE_GATEWAY);
}

#[test]
fn a_function_that_does_not_read_stops_its_caller() {
    const LENGTH: usize = ON_ITS_WAY + THE_REST;
    let may_read = Arc::<AtomicBool>::default();
    let told = may_read.clone();
    let function = Upstream::new(move |stream, _| {
        within(PATIENCE, "told to read", || told.load(Ordering::Relaxed));
        let mut checked = Checked::new();
        let mut buffer = [0; 1 << 16];
        while checked.seen < LENGTH {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "all of it comes");
            checked.take(&buffer[..read]);
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let gateway = Gateway::of(&function.entry("large", ""));
    for version in [Version::One, Version::Two] {
        may_read.store(false, Ordering::Relaxed);
        run(async {
            let body = Made::of(LENGTH);
            let made = body.made.clone();
            let answer = tokio::spawn(call(gateway.address, version, body));
            let stopped = standstill(&made).await;
            println!("HTTP/{version:?}: the caller stops after {stopped} bytes");
            may_read.store(true, Ordering::Relaxed);
            assert_eq!(answer.await.unwrap().status(), 200);
            assert_eq!(made.load(Ordering::Relaxed), LENGTH);
        });
    }
    assert!(peak(gateway.pid()) < MOST_OF_THE_GATEWAY);
}
