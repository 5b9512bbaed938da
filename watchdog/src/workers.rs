//! The serving threads: each has its own runtime and accepts on the one listening socket.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::spawn_local;

use crate::connection;
use crate::throttle::Throttle;
use crate::watchdog::{Counter, Watchdog};

/// What serving a call needs, with room to spare.
const THREAD_STACK: usize = 512 * 1024;

/// Pause after a failed accept: out of file descriptors, most likely, and some may be closed meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a worker with more connections than another one lets that one have the next. Without it the first to wake
/// would take a whole burst of callers, who then all wait for one thread.
const TURN: Duration = Duration::from_millis(1);

/// Starts the first thread; the others follow when there are connections for them, so that a function that nobody calls
/// takes the memory of one.
pub(crate) fn start(listener: &TcpListener, watchdog: &Arc<Watchdog>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = listener.try_clone()?;
    let workers = Workers {
        listener,
        watchdog: Arc::clone(watchdog),
        started: AtomicUsize::new(0),
        failed: Throttle::default(),
    };
    Arc::new(workers).start_another()
}

struct Workers {
    listener: TcpListener,
    watchdog: Arc<Watchdog>,
    started: AtomicUsize,
    /// Holds back lines about connections that could not be taken.
    failed: Throttle,
}

impl Workers {
    /// The connections of each worker that has been started.
    fn loads(&self) -> &[Counter] {
        let all = &self.watchdog.connections;
        &all[..self.started.load(Ordering::SeqCst).min(all.len())]
    }

    fn start_if_needed(self: &Arc<Self>) {
        let loads = self.loads();
        let connections = loads.iter().map(Counter::count).sum::<usize>();
        if connections <= loads.len() || loads.len() == self.watchdog.connections.len() {
            return;
        }
        if let Err(error) = self.start_another() {
            self.complain("cannot start a worker", &error);
        }
    }

    /// Never on the main thread: a direct child must not be the main thread's, see the reaper.
    fn start_another(self: &Arc<Self>) -> io::Result<()> {
        let limit = self.watchdog.connections.len();
        let next = |started: usize| (started < limit).then_some(started + 1);
        let Ok(number) = self
            .started
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
        else {
            return Ok(());
        };
        let workers = Arc::clone(self);
        let body = move || {
            let built = Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(LocalOptions::default());
            let serve = |runtime: LocalRuntime| runtime.block_on(accept(&workers, number));
            let Err(error) = built.and_then(serve);
            workers.has_not_started(number);
            workers.complain("a worker cannot serve", &error);
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        let spawned = thread.stack_size(THREAD_STACK).spawn(body).map(drop);
        spawned.inspect_err(|_| self.has_not_started(number))
    }

    /// A run that has forked or opened files up to the container's limit, perhaps: the others must not wait for a worker that never
    /// takes its turn, and a later connection may try again.
    fn has_not_started(&self, number: usize) {
        let (order, counted) = (Ordering::SeqCst, number + 1);
        let _ = self.started.compare_exchange(counted, number, order, order);
    }

    fn complain(&self, what: &str, error: &io::Error) {
        if let Some(left_out) = self.failed.admit() {
            self.watchdog
                .log
                .line(format_args!("error: {what}: {error}{left_out}"));
        }
    }
}

/// One worker. An error means that it took no connection: from then on it never ends, since its end would cut what it serves.
async fn accept(workers: &Arc<Workers>, number: usize) -> io::Result<Infallible> {
    let listener = tokio::net::TcpListener::from_std(workers.listener.try_clone()?)?;
    let watchdog = &workers.watchdog;
    let own = &watchdog.connections[number];
    let accepting = watchdog.accepting.enter(usize::MAX);
    let mut closed = watchdog.closed.subscribe();
    let mut closing = pin!(async move {
        // An error means that the watchdog is gone, which ends the thread anyway.
        let _ = closed.wait_for(|is_closed| *is_closed).await;
    });
    let take = |stream| {
        let counted = own.enter(usize::MAX);
        let served = connection::serve(stream, Arc::clone(watchdog));
        spawn_local(async move {
            served.await;
            drop(counted);
        });
    };
    loop {
        // First whoever waits, then the end.
        let accepted = poll_fn(|cx| match listener.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => closing.as_mut().poll(cx).map(|()| None),
        });
        let Some(accepted) = accepted.await else {
            break;
        };
        match accepted {
            Ok((stream, _)) => {
                take(stream);
                workers.start_if_needed();
                if workers
                    .loads()
                    .iter()
                    .any(|other| other.count() < own.count())
                {
                    tokio::time::sleep(TURN).await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) if *watchdog.closed.borrow() => break,
            Err(error) => {
                workers.complain("cannot accept a connection", &error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The runtime may not have heard yet of the last who got through. A connection that cannot be taken costs no other one anything.
    let prepare = |stream: std::net::TcpStream| {
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    };
    loop {
        match workers.listener.accept() {
            Ok((stream, _)) => match prepare(stream) {
                Ok(stream) => take(stream),
                Err(error) => workers.complain("cannot serve a connection", &error),
            },
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => break,
        }
    }
    if !watchdog.config.inherit_listener {
        // From now on callers are refused, and know that they may go elsewhere; another worker may have done so. What the gateway
        // holds, too, goes on with the next watchdog.
        let _ = rustix::net::shutdown(&workers.listener, rustix::net::Shutdown::Both);
    }
    drop(accepting);
    // The connections that are left are served here.
    std::future::pending().await
}
