//! The serving threads: each has its own runtime and accepts on the one listening socket.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::spawn_local;

use crate::connection;
use crate::watchdog::Watchdog;

/// What serving a call needs, with room to spare.
const THREAD_STACK: usize = 512 * 1024;

/// Pause after a failed accept: out of file descriptors, most likely, and some may be closed meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a worker with more connections than another one lets that one have the next. Without it the first to wake
/// would take a whole burst of callers, who then all wait for one thread.
const TURN: Duration = Duration::from_millis(1);

/// Starts the threads. A direct child must never be started on the main thread: see the reaper.
pub(crate) fn start(listener: &TcpListener, watchdog: &Arc<Watchdog>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    for number in 0..watchdog.config.workers {
        let listener = listener.try_clone()?;
        let watchdog = Arc::clone(watchdog);
        let runtime = move || {
            let built = Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(LocalOptions::default());
            let serve =
                |runtime: LocalRuntime| runtime.block_on(accept(listener, &watchdog, number));
            if let Err(error) = built.and_then(serve) {
                watchdog
                    .log
                    .line(format_args!("error: a worker could not start: {error}"));
            }
        };
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .stack_size(THREAD_STACK)
            .spawn(runtime)?;
    }
    Ok(())
}

async fn accept(listener: TcpListener, watchdog: &Arc<Watchdog>, number: usize) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let own = &watchdog.connections[number];
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let counted = own.enter(usize::MAX);
                let served = connection::serve(stream, Arc::clone(watchdog));
                spawn_local(async move {
                    served.await;
                    drop(counted);
                });
                if watchdog
                    .connections
                    .iter()
                    .any(|other| other.count() < own.count())
                {
                    tokio::time::sleep(TURN).await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                watchdog
                    .log
                    .line(format_args!("error: cannot accept a connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
