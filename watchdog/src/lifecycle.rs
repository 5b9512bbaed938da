//! From start to exit: listen, serve, drain, end what is left.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::cgi::Inherited;
use crate::command::Command;
use crate::config::Config;
use crate::duration::show;
use crate::health::Health;
use crate::logs::Sink;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::mode::Mode;
use crate::pool::Pool;
use crate::quota::Quota;
use crate::reaper::{Orders, Reaper};
use crate::service::Service;
use crate::start::Setup;
use crate::watchdog::{Counter, Watchdog};
use crate::{VERSION, filler, listener, say, scrape, service, spawn, workers};

/// How often a draining watchdog looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// How long the processes that were killed at the exit may take to be gone. Hundreds that fork on a busy machine take
/// more than one second, and where the watchdog is not PID 1, whoever outlives it is nobody's.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last log lines may take.
const LOG_PATIENCE: Duration = Duration::from_millis(250);

/// Exit code of a process that SIGINT has ended, as a shell would report it.
const INTERRUPTED: u8 = 130;

/// Serves until told to stop; what cannot be served is said in one line.
pub(crate) fn run(config: Config, lock_file: &Path) -> ExitCode {
    try_run(config, lock_file).unwrap_or_else(|error| {
        say(io::stderr(), &format!("fwatchdog: {error}\n"));
        ExitCode::FAILURE
    })
}

fn try_run(config: Config, lock_file: &Path) -> io::Result<ExitCode> {
    // Runs have our user: without this they could read the bodies and secrets of others in /proc/<us>/mem.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    spawn::descriptors::close_inherited_on_exec();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let _context = runtime.enter();
    let reaper = Reaper::new()?;
    // Handlers are set before anything can be running that a signal would have to end.
    let mut stop = Stop::listen()?;
    let socket = if config.inherit_listener {
        listener::inherit()?
    } else {
        listener::bind("port", config.port)?
    };
    let metrics = config
        .metrics_port
        .map(|port| listener::bind("metrics_port", port));
    let watchdog = Arc::new(assemble(config)?);
    if watchdog.config.inherit_listener {
        listener::watch_lifeline(Arc::clone(&stop.lifeline_gone))?;
    }
    service::start(&watchdog)?;
    filler::start(&watchdog)?;
    workers::start(&socket, &watchdog)?;
    announce(&watchdog, lock_file);
    if let Some(metrics) = metrics {
        scrape::start(metrics, &watchdog);
    }
    announce_listener(&watchdog, &socket);
    let code = runtime.block_on(live(&watchdog, reaper, &mut stop));
    watchdog.health.remove_lock_file();
    watchdog.log.flush(LOG_PATIENCE);
    if let Some(debug) = &watchdog.debug {
        debug.flush(LOG_PATIENCE);
    }
    Ok(code)
}

fn assemble(mut config: Config) -> io::Result<Watchdog> {
    // stdout is also where the output of a long-lived child goes.
    let is_debugging = config.write_debug || config.debug_headers || config.upstream.is_some();
    let (quota, lowered) = Quota::new(config.max_cpu_seconds, config.max_open_files);
    config
        .warnings
        .extend(lowered.iter().map(ToString::to_string));
    Ok(Watchdog {
        command: Command::new(&config.command, std::env::var_os("PATH").as_deref()),
        inherited: Inherited::new(std::env::vars_os()),
        setup: Setup {
            is_combined: config.combine_output,
            has_note: config.prefork > 0,
            quota,
        },
        pool: (config.prefork > 0)
            .then(|| Pool::new(config.prefork, config.prefork_idle))
            .transpose()?,
        health: Health::default(),
        service: config
            .upstream
            .take()
            .map(|upstream| Service::new(upstream, config.idle_timeout)),
        orders: Orders::new(),
        calls: Counter::default(),
        connections: (0..config.workers).map(|_| Counter::default()).collect(),
        metrics: Metrics::new(),
        memory: Memory::look(),
        drain: watch::Sender::new(false),
        closed: watch::Sender::new(false),
        accepting: Counter::default(),
        log: Sink::stderr()?,
        debug: is_debugging.then(Sink::stdout).transpose()?,
        config,
    })
}

/// The first lines: version, limits, warnings, lock file.
fn announce(watchdog: &Watchdog, lock_file: &Path) {
    let (log, config) = (&watchdog.log, &watchdog.config);
    let limit = |limit: Option<Duration>| limit.map_or_else(|| "off".to_owned(), show);
    log.line(format_args!(
        "fwatchdog {VERSION}, {} mode, at most {} workers, fprocess: {}",
        config.mode.name(),
        config.workers,
        config.command.join(" ")
    ));
    log.line(format_args!(
        "timeouts: read: {}, write: {}, exec: {}, health interval: {}",
        limit(config.read_timeout),
        limit(config.write_timeout),
        limit(config.exec_timeout),
        show(config.healthcheck_interval),
    ));
    if let Some(pool) = &watchdog.pool {
        log.line(format_args!(
            "prefork: {} children wait for calls, idle after: {}",
            pool.size(),
            limit(config.prefork_idle)
        ));
    }
    for warning in &config.warnings {
        log.line(format_args!("{warning}"));
    }
    if config.mode == Mode::Static && !config.static_path.is_dir() {
        log.line(format_args!(
            "warning: static_path {} is not a directory; calls will fail until that is mended",
            config.static_path.display()
        ));
    }
    if config.mode != Mode::Static
        && let Err(error) = watchdog.command.path()
    {
        log.line(format_args!(
            "warning: fprocess {}: {error}; calls will fail until that is mended",
            watchdog.command.name()
        ));
    }
    if config.lock_file {
        match watchdog.health.create_lock_file(lock_file) {
            Ok(()) => log.line(format_args!("lock file: {}", lock_file.display())),
            Err(error) => log.line(format_args!(
                "warning: no lock file {}: {error}; /_/health goes without it (suppress_lock=true silences this)",
                lock_file.display()
            )),
        }
    }
}

/// The last line of the start.
fn announce_listener(watchdog: &Watchdog, socket: &TcpListener) {
    let log = &watchdog.log;
    match socket.local_addr() {
        Ok(address) => log.line(format_args!("listening on {address}")),
        Err(error) => log.line(format_args!("listening, address unknown: {error}")),
    }
}

/// Serves, drains when asked to, and leaves nothing behind.
async fn live(watchdog: &Watchdog, mut reaper: Reaper, stop: &mut Stop) -> ExitCode {
    let log = &watchdog.log;
    let mut order = until(reaper.work(&watchdog.orders), stop.wait()).await;
    if order == Order::Drain {
        log.line(format_args!(
            "SIGTERM: draining, {} calls are being served",
            watchdog.calls.count()
        ));
        watchdog.start_draining();
        order = until(
            reaper.work(&watchdog.orders),
            first(drained(watchdog), stop.wait_for_end()),
        )
        .await;
    }
    watchdog.start_draining();
    if let Some(service) = watchdog.service.as_ref().filter(|_| order == Order::Drain) {
        until(
            reaper.work(&watchdog.orders),
            service.stop(service::STOP_PATIENCE),
        )
        .await;
    }
    reaper.end_all(END_PATIENCE).await;
    match order {
        Order::Drain => log.line(format_args!("drained, exiting")),
        Order::Interrupt => log.line(format_args!("SIGINT: exiting at once")),
        Order::LifelineGone => log.line(format_args!(
            "the reader of stdout is gone: exiting at once"
        )),
    }
    ExitCode::from(if order == Order::Interrupt {
        INTERRUPTED
    } else {
        0
    })
}

/// Done when nothing is served any more, or when it has taken too long.
async fn drained(watchdog: &Watchdog) -> Order {
    let quiet = async {
        while !watchdog.is_quiet() {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        // Whoever is taken from here on would be cut off by our exit. Those who got through until now are told first.
        watchdog.closed.send_replace(true);
        while watchdog.accepting.count() > 0 || !watchdog.is_quiet() {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    match watchdog.config.write_timeout {
        Some(limit) => {
            if tokio::time::timeout(limit, quiet).await.is_err() {
                let count = watchdog.calls.count();
                watchdog.log.line(format_args!(
                    "{count} calls did not end within {}; raise write_timeout",
                    show(limit)
                ));
            }
        }
        None => quiet.await,
    }
    Order::Drain
}

/// What ends the service.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Order {
    Drain,
    Interrupt,
    LifelineGone,
}

/// Where orders to stop come from.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    lifeline_gone: Arc<Notify>,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            lifeline_gone: Arc::new(Notify::new()),
        })
    }

    async fn wait(&mut self) -> Order {
        let terminate = &mut self.terminate;
        let terminated = async {
            terminate.recv().await;
            Order::Drain
        };
        first(terminated, end(&mut self.interrupt, &self.lifeline_gone)).await
    }

    /// While draining, a second SIGTERM changes nothing.
    async fn wait_for_end(&mut self) -> Order {
        end(&mut self.interrupt, &self.lifeline_gone).await
    }
}

async fn end(interrupt: &mut Signal, lifeline_gone: &Notify) -> Order {
    let interrupted = async {
        interrupt.recv().await;
        Order::Interrupt
    };
    let gone = async {
        lifeline_gone.notified().await;
        Order::LifelineGone
    };
    first(interrupted, gone).await
}

/// The output of whichever is ready first.
async fn first<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Pending => other.as_mut().poll(cx),
        done => done,
    })
    .await
}

/// Does `work` until `event` has come.
async fn until<T>(work: impl Future<Output = Infallible>, event: impl Future<Output = T>) -> T {
    let (mut work, mut event) = (pin!(work), pin!(event));
    poll_fn(|cx| {
        let _ = work.as_mut().poll(cx);
        event.as_mut().poll(cx)
    })
    .await
}
