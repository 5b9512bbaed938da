//! Many callers at once that are no use to anybody, and what the others feel of it.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::gateway::Gateway;
use super::steady::{Load, Tally};

/// A long form runs alone. Below this a time says more about who else uses the processors than about the gateway.
const ALONE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(20));
/// The same beside all other tests.
const NOISE: Duration = Duration::from_millis(150);
/// How often an attack is compared at most.
const ROUNDS: usize = 3;

/// A function that answers `ok` at once, to any number of callers, and throws away what they send.
pub fn quick() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        run(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let served = Builder::new().serve_connection(TokioIo::new(stream), service_fn(ok));
                tokio::spawn(async { served.await.unwrap_or_default() });
            }
        });
    });
    address
}

async fn ok(request: Request<hyper::body::Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    http_body_util::BodyExt::collect(request.into_body()).await?;
    Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
}

/// The stack file entry of a function served by somebody here.
pub fn entry(name: &str, address: SocketAddr) -> String {
    format!("  {name}:\n    annotations:\n      skep.upstream: http://{address}\n")
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work);
}

/// A crowd of callers, each of which does the same over and over until told to stop.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    thread: JoinHandle<()>,
}

/// What a crowd has seen so far.
#[derive(Default)]
struct Seen {
    /// How often one has begun.
    begun: AtomicUsize,
    /// How often the gateway ended it.
    ended: AtomicUsize,
    /// The longest that one was let be, in milliseconds.
    longest: AtomicUsize,
}

impl Crowd {
    /// So many callers, the last of whom begins after `over`, because thousands at once would be another kind of attack.
    /// `member` is one of them from its connection to its end.
    pub fn gather<F>(
        count: usize,
        over: Duration,
        member: impl Fn(usize) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::<Seen>::default();
        let (stopped, theirs) = (stop.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            let member = std::rc::Rc::new(member);
            let everybody = tokio::task::LocalSet::new();
            for number in 0..count {
                let (member, seen) = (member.clone(), theirs.clone());
                everybody.spawn_local(async move {
                    tokio::time::sleep(over * number as u32 / count as u32).await;
                    loop {
                        let began = Instant::now();
                        seen.begun.fetch_add(1, Ordering::Relaxed);
                        member(number).await;
                        let took = began.elapsed().as_millis() as usize;
                        seen.longest.fetch_max(took, Ordering::Relaxed);
                        seen.ended.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                });
            }
            run(everybody.run_until(async move {
                while !stopped.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }));
        });
        Self { stop, seen, thread }
    }

    pub fn begun(&self) -> usize {
        self.seen.begun.load(Ordering::Relaxed)
    }

    pub fn ended(&self) -> usize {
        self.seen.ended.load(Ordering::Relaxed)
    }

    /// The longest that one was let be.
    pub fn longest(&self) -> Duration {
        Duration::from_millis(self.seen.longest.load(Ordering::Relaxed) as u64)
    }

    /// All of them close.
    pub fn go(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// What those feel who call at a constant rate: a call of the function `quick` every few milliseconds, for so long.
pub fn felt(gateway: &Gateway, length: Duration) -> Tally {
    let rate = 50;
    let load = Load {
        rate,
        count: (length.as_secs_f64() * f64::from(rate)) as u32,
        expected: Some(Bytes::from_static(b"ok")),
        ..Load::echo(gateway.address, "/function/quick")
    };
    load.run(|_| false)
}

/// Lets the others feel an attack, and compares that with what they feel before and after it: not one call may fail, and the
/// p99 may be twice what it is without. Whoever else uses the processors is felt, too, hence the rounds; an
/// attack that hurts does so in each of them.
#[track_caller]
pub fn assert_bearable(
    what: &str,
    gateway: &Gateway,
    length: Duration,
    mut attack: impl FnMut(&mut dyn FnMut()),
) {
    let noise = if length >= ALONE.0 { ALONE.1 } else { NOISE };
    let mut told = Vec::new();
    for _ in 0..ROUNDS {
        let before = felt(gateway, length);
        let mut during = None;
        attack(&mut || during = Some(felt(gateway, length)));
        let during = during.expect("an attack is felt");
        let after = felt(gateway, length);
        let [p99, quiet, still] = [&during, &before, &after].map(|tally| tally.quantile(0.99));
        let line = format!(
            "{what}: p99 {p99:.1?}, without it {quiet:.1?} and {still:.1?}; {} failed",
            during.failed()
        );
        println!("{line}");
        if during.failed() == 0 && p99 < 2 * quiet.max(still).max(noise) {
            return;
        }
        told.push(format!("{line}\n{during}"));
    }
    panic!("in none of {ROUNDS} rounds:\n{}", told.join("\n"));
}

/// What a process keeps in memory, in bytes.
pub fn resident(pid: u32) -> usize {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// This process needs as many descriptors as the system lets it have.
pub fn take_all_descriptors() {
    skep::descriptors::take_all();
}
