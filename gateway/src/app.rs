//! The one place that constructs and spawns: configuration → gateway → drain.

mod aside;
mod doors;
mod kept;
mod log;
mod restart;
mod signals;
mod told;
mod workers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use self::doors::Doors;
use self::kept::{Kept, Unkept};
use self::signals::Signals;
use self::told::{greeting, tell};
pub use self::told::{show, show_password};
use self::workers::all_ended;
use crate::api::{Access, Manager, Orchestration, Pages};
use crate::certificate::Certificate;
use crate::config::Config;
use crate::descriptors;
use crate::discovery::local::stack::{self, Stack};
use crate::discovery::local::{self, Local};
use crate::discovery::operate::Operator;
use crate::discovery::swarm::{self, Swarm};
use crate::discovery::{Discovery, Freshness, Provider};
use crate::edge;
use crate::handover::Turn;
use crate::invoke::{CallLimits, Shared};
use crate::metrics::Metrics;
use crate::probe::{self, Job, Prober};
use crate::server::{self, Order};
use crate::table::{Table, TableWriter};
use crate::turnstile::Turnstile;

/// How long operators may take to read the last answers, past the time that calls have.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Serves the functions of a Swarm until a signal.
///
/// # Errors
/// One sentence: why the gateway could not start.
pub fn swarm(config: &Config) -> Result<(), String> {
    log::start(config);
    let (kept, unkept) = Kept::open(config)?;
    if let Some(Unkept { why, .. }) = unkept {
        // It is not written here: logs go to many places.
        tracing::warn!(
            "the management API lets in holders of API keys alone: no password is given, and one that is made cannot be kept ({why}); give one with basic_auth_password or as the secret basic-auth-password, mount a folder for data_dir, or say basic_auth=false"
        );
    }
    let gateway = Gateway::bind(config, Orchestration::Swarm, kept)?;
    let runtime = control_runtime()?;
    runtime.block_on(async {
        let provider = Swarm::start(
            config.docker_host.clone(),
            config.network.clone(),
            config.require_label,
            config.upstream_timeout,
        );
        tracing::info!(
            "functions: Swarm services on the network '{}', by {}",
            config.network,
            config.docker_host
        );
        gateway
            .run(config, provider.clone(), Arc::new(provider))
            .await
    })
}

/// Serves the functions of a stack file, or of the one in the current folder, as local processes until a signal.
///
/// # Errors
/// One sentence, or a line for each mistake of the stack file.
pub fn local(config: &Config, file: Option<PathBuf>) -> Result<(), String> {
    log::start(config);
    let file = file.map_or_else(|| stack::default_file(Path::new("")), Ok)?;
    let stack = Stack::load(&file, |name| std::env::var(name).ok())
        .map_err(|mistakes| mistakes.join("\nskep: "))?;
    let (kept, unkept) = Kept::open(config)?;
    let gateway = Gateway::bind(config, Orchestration::Local, kept)?;
    let greeting = greeting(&stack, &gateway.doors.ports, unkept.as_ref());
    let runtime = control_runtime()?;
    runtime.block_on(async {
        let provider = Local::start(&file, stack)
            .map_err(|error| format!("a function could not be started: {error}"))?;
        tell(&greeting);
        let operator = Arc::new(provider.clone());
        let ended = gateway.run(config, provider.clone(), operator).await;
        if ended.is_err() {
            provider.cut();
        }
        let mut signals = Signals::new()?;
        let mut stop = std::pin::pin!(provider.stop());
        loop {
            tokio::select! {
                () = &mut stop => return ended,
                _ = signals.next() => provider.cut(),
            }
        }
    })
}

/// What is shown to clients that come by TLS, and how hands are shaken with them.
fn certificate(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Certificate, TlsAcceptor)>, String> {
    let Some(tls) = &config.tls else {
        return Ok(None);
    };
    let certificate = Certificate::load(tls.files.clone(), metrics.clone())?;
    let acceptor = certificate.acceptor(&server::PROTOCOLS)?;
    Ok(Some((certificate, acceptor)))
}

/// Everything that is not a call runs here: discovery, probes, pages, local processes.
fn control_runtime() -> Result<Runtime, String> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))
}

/// A gateway that has its ports.
struct Gateway {
    doors: Doors,
    shared: Shared,
    pages: Arc<Pages>,
    kept: Kept,
    certificate: Option<Certificate>,
    probes: tokio::sync::mpsc::UnboundedReceiver<Job>,
}

impl Gateway {
    fn bind(config: &Config, orchestration: Orchestration, kept: Kept) -> Result<Self, String> {
        let remedies = match orchestration {
            Orchestration::Swarm => swarm::REMEDIES,
            Orchestration::Local => local::REMEDIES,
        };
        descriptors::take_all();
        let metrics = Arc::new(Metrics::new());
        let (certificate, tls) = certificate(config, &metrics)?.unzip();
        let doors = Doors::open(config, tls.as_ref())?;
        let (prober, probes) = Prober::new();
        let shared = Shared {
            table: Table::default(),
            freshness: Freshness::default(),
            prober,
            nudge: Arc::new(Notify::new()),
            metrics,
            gate: kept.gate.clone(),
            remedies,
            limits: CallLimits {
                connect: config.connect_timeout,
                timeout: config.upstream_timeout,
                idle: config.idle_timeout,
                patience: config.patience,
                max_body: config.max_body.unwrap_or(u64::MAX),
            },
            turnstile: config
                .max_in_flight
                .map(|most| Arc::new(Turnstile::new(most))),
            calls_only: config.system_port.is_some(),
        };
        let pages = Arc::new(Pages {
            table: shared.table.clone(),
            freshness: shared.freshness.clone(),
            metrics: shared.metrics.clone(),
            orchestration,
            namespace: config.namespace.as_str().into(),
            ports: doors.ports.clone(),
            access: Access {
                has_login: !kept.gate.is_open(),
                hosts: config.hosts.clone(),
                has_network: orchestration == Orchestration::Swarm,
                admits_functions: config.allow_system_from_functions,
            },
            draining: Arc::new(AtomicBool::new(false)),
        });
        Ok(Self {
            doors,
            shared,
            pages,
            kept,
            certificate,
            probes,
        })
    }

    /// Serves until a signal or the next gateway comes, then drains.
    async fn run(
        mut self,
        config: &Config,
        provider: impl Provider,
        operator: Arc<dyn Operator>,
    ) -> Result<(), String> {
        let mut signals = Signals::new()?;
        let aside = watch::Sender::new(Order::Serve);
        self.kept.tend(self.shared.table.clone());
        self.start_discovery(config, provider);
        self.start_metrics_server(config, &aside);
        if let Some(certificate) = self.certificate.take() {
            tokio::spawn(certificate.follow());
        }
        let draining = self.pages.draining.clone();
        let (kept, table) = (self.kept.clone(), self.shared.table.clone());
        let predecessor = self.doors.predecessor.take();
        if predecessor.is_some() {
            tracing::info!("taking over from the gateway that runs");
        }
        let ready = restart::ready(predecessor.as_ref(), &self.shared.table, config.patience);
        tokio::select! {
            () = ready => {}
            name = signals.next() => {
                tracing::info!("{name}: the gateway before this one goes on");
                return Ok(());
            }
        }
        for port in &self.doors.ports {
            tracing::info!("listening on {port}");
        }
        tracing::info!("{} worker(s) carry calls", config.workers);
        if self.kept.gate.is_open() {
            tracing::info!(
                "/system is open to everybody who reaches its port, whatever they send: set basic_auth=true to ask for a login or an API key"
            );
        }
        if config.proxy_protocol && config.trusted_proxies.is_empty() {
            tracing::info!(
                "PROXY headers are believed from everybody who reaches the port: name the balancers in trusted_proxies"
            );
        }
        let (orders, ordered) = watch::channel(Order::Serve);
        let manager = Arc::new(self.manager(config, operator));
        let system = self.start_system_server(config, &manager, &aside);
        let kept_listeners = std::mem::take(&mut self.doors.kept);
        let workers = self.start_workers(config, &manager, &ordered)?;
        let (restart, turn) = restart::start(config, kept_listeners, predecessor)?;
        let mut all_ended = std::pin::pin!(all_ended(workers));
        let limit = config.drain_timeout;
        let mut lost = None;
        let order = tokio::select! {
            name = signals.next() => {
                tracing::info!("{name}: finishing running calls, for {limit:?} at most");
                match &restart {
                    Some(restart) if restart.end() => Order::HandOver,
                    _ => Order::Stop,
                }
            }
            turn = turn => {
                match turn {
                    Turn::Given => tracing::info!("a new gateway serves: finishing running calls, for {limit:?} at most"),
                    Turn::TakenBack => lost = Some("the gateway before this one waited too long for it, and keeps its port"),
                }
                Order::HandOver
            }
            early = &mut all_ended => return early.and(Err("the workers ended on their own".to_owned())),
        };
        draining.store(true, Ordering::Release);
        if order == Order::HandOver {
            aside.send_replace(order);
        }
        orders.send_replace(order);
        let last = Instant::now() + config.drain_delay + limit + LAST_LOOK;
        let all_ended = async {
            let ended = all_ended.await;
            // Operators can look as long as anything runs.
            aside.send_replace(Order::Stop);
            if let Some(system) = system {
                let _ = timeout_at(last, system).await;
            }
            ended
        };
        let ended = tokio::select! {
            ended = all_ended => ended,
            name = signals.next() => Err(format!("{name} again: running calls are cut")),
        };
        kept.save(&table);
        lost.map_or(ended, |why| Err(why.to_owned()))
            .inspect(|()| tracing::info!("done"))
    }

    fn start_discovery(&mut self, config: &Config, provider: impl Provider) {
        let shared = &self.shared;
        let (_, nothing) = tokio::sync::mpsc::unbounded_channel();
        let probes = std::mem::replace(&mut self.probes, nothing);
        tokio::spawn(probe::run(
            probes,
            shared.table.clone(),
            config.connect_timeout,
        ));
        let discovery = Discovery {
            provider,
            writer: TableWriter::new(
                shared.table.clone(),
                shared.metrics.clone(),
                self.doors.workers.len(),
            )
            .resuming(self.kept.counts.before()),
            table: shared.table.clone(),
            prober: shared.prober.clone(),
            freshness: shared.freshness.clone(),
            metrics: shared.metrics.clone(),
            nudge: shared.nudge.clone(),
        };
        tokio::spawn(discovery.run());
    }

    fn start_metrics_server(&mut self, config: &Config, orders: &watch::Sender<Order>) {
        if let Some(listener) = self.doors.metrics.take() {
            let (pages, metrics) = (self.pages.clone(), self.shared.metrics.clone());
            let proxies = config.trusted_proxies.clone();
            let make = move |caller| {
                edge::metrics_service(pages.clone(), metrics.clone(), &proxies, caller)
            };
            aside::serve(listener, make, config, orders);
        }
    }

    fn start_system_server(
        &mut self,
        config: &Config,
        manager: &Arc<Manager>,
        orders: &watch::Sender<Order>,
    ) -> Option<JoinHandle<()>> {
        let listener = self.doors.system.take()?;
        let (manager, metrics) = (manager.clone(), self.shared.metrics.clone());
        let proxies = config.trusted_proxies.clone();
        let make = move |caller| {
            edge::system_service(manager.clone(), metrics.clone(), proxies.clone(), caller)
        };
        Some(aside::serve(listener, make, config, orders))
    }

    fn manager(&self, config: &Config, operator: Arc<dyn Operator>) -> Manager {
        let on_network = self.pages.orchestration == Orchestration::Swarm;
        Manager {
            pages: self.pages.clone(),
            operator,
            gate: self.kept.gate.clone(),
            network: on_network.then(|| config.network.clone()),
            nudge: self.shared.nudge.clone(),
        }
    }
}
