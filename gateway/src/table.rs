//! The table of functions: immutable snapshots, one writer, many readers that never wait.

mod routes;
mod writer;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use fnv::FnvHashMap;
use tokio::sync::watch;

pub use self::routes::{Own, Routes};
pub use self::writer::TableWriter;
use crate::budget::Budget;
use crate::endpoint::Endpoint;
use crate::function::{Deployment, FunctionName};
use crate::life::State;
use crate::metrics::FunctionMetrics;
use crate::proxies::Proxies as Networks;
use crate::tally::Tally;
use crate::turnstile::Turnstile;

/// Everything that a provider knows, at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The functions that calls can be routed to.
    pub functions: Vec<Deployment>,
    /// Names that exist and cannot be called, each with a sentence that says why and what to do.
    pub elsewhere: Vec<(FunctionName, String)>,
    /// Whether all is as it should be; if not, the next listing should come soon.
    pub settled: bool,
    /// The addresses of the network that functions share with the gateway, if they share one.
    pub subnets: Networks,
}

/// A function as calls see it.
pub struct Function {
    /// What the provider listed.
    pub deployment: Deployment,
    /// Where it can be called. An endpoint keeps its state from one snapshot to the next.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Endpoints that are listed no longer and still have calls to finish.
    pub leaving: Vec<Arc<Endpoint>>,
    /// How many calls it takes side by side, if it says so.
    pub turnstile: Option<Arc<Turnstile>>,
    /// Its metrics, bound.
    pub metrics: Arc<FunctionMetrics>,
    /// How many of its calls may be tried again.
    pub budget: Arc<Budget>,
    /// Its calls, also those before this gateway.
    pub tally: Arc<Tally>,
}

impl Function {
    /// Whether any endpoint takes calls.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.is_ready())
    }

    /// Whether it makes sense to wait: fewer copies run than should, or one is listed that nobody has spoken to yet, or
    /// that says that it is about to end, which is how the coming of another one shows first, or that it is not ready yet.
    #[must_use]
    pub fn is_coming(&self) -> bool {
        let replicas = self.deployment.replicas;
        replicas.running < replicas.desired
            || self
                .endpoints
                .iter()
                .any(|endpoint| endpoint.state() == State::Starting || endpoint.is_in_transition())
    }

    /// Its endpoints, with those that are leaving.
    pub fn all_endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let leaving = self.leaving.iter();
        self.endpoints
            .iter()
            .chain(leaving.filter(|endpoint| endpoint.state() != State::Gone))
    }

    /// How many calls of it have ended, over restarts.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.tally.calls(self.metrics.calls())
    }

    /// Takes one retry out of its budget, if there is one left.
    #[must_use]
    pub fn may_try_again(&self) -> bool {
        self.budget.spend(self.metrics.started())
    }

    /// Whether it remembers endpoints that are gone.
    fn is_to_be_tidied(&self) -> bool {
        self.leaving
            .iter()
            .any(|endpoint| endpoint.state() == State::Gone)
    }

    /// How many endpoints take calls.
    #[must_use]
    pub fn available(&self) -> usize {
        self.endpoints
            .iter()
            .filter(|endpoint| endpoint.is_ready())
            .count()
    }
}

/// One state of the world.
#[derive(Default)]
pub struct Snapshot {
    /// Looked into for every call. The names are the operators' own, and callers add none: nobody can choose them so that they
    /// meet in one place, and a hash that would hold against that costs half of a look-up.
    by_name: FnvHashMap<FunctionName, Arc<Function>>,
    elsewhere: HashMap<FunctionName, String>,
    routes: Routes,
    subnets: Networks,
}

impl Snapshot {
    /// The function of this name or short name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Function>> {
        self.by_name.get(name)
    }

    /// Why a name that exists cannot be called.
    #[must_use]
    pub fn elsewhere(&self, name: &str) -> Option<&str> {
        self.elsewhere.get(name).map(String::as_str)
    }

    /// Whether this is an address of the network that functions share with the gateway.
    #[must_use]
    pub fn is_of_functions(&self, address: IpAddr) -> bool {
        self.subnets.trust(address)
    }

    /// Which hosts and paths are functions' own.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Every function once, under its full name, in no order.
    pub fn functions(&self) -> impl Iterator<Item = &Arc<Function>> {
        self.by_name
            .iter()
            .filter(|(name, function)| **name == function.deployment.name)
            .map(|(_, function)| function)
    }

    /// Every name that a call can use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(FunctionName::as_str)
    }
}

struct Shared {
    snapshot: ArcSwap<Snapshot>,
    published: AtomicBool,
    routed: AtomicBool,
    changed: watch::Sender<()>,
}

/// The handle that everybody reads by.
#[derive(Clone)]
pub struct Table(Arc<Shared>);

impl Default for Table {
    fn default() -> Self {
        Self(Arc::new(Shared {
            snapshot: ArcSwap::default(),
            published: AtomicBool::new(false),
            routed: AtomicBool::new(true),
            changed: watch::Sender::new(()),
        }))
    }
}

impl Table {
    /// The world as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    /// The function of this name. Takes no lock.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Function>> {
        self.0.snapshot.load().find(name).cloned()
    }

    /// Whether any function has a host or a path of its own, or nobody knows yet. Where none has, this is all that it costs.
    #[must_use]
    pub fn may_have_routes(&self) -> bool {
        self.0.routed.load(Ordering::Relaxed)
    }

    /// Whose own a request's host and path are, if they are somebody's. Takes no lock.
    #[must_use]
    pub fn own(&self, host: &[u8], path: &str) -> Option<Own> {
        self.0.snapshot.load().routes.find(host, path)
    }

    /// Waits until there is a listing, and every function in it that is coming has come.
    pub async fn all_ready(&self, patience: Duration) {
        self.published(patience).await;
        for name in self.snapshot().names() {
            self.ready(name, patience).await;
        }
    }

    /// Waits until the function has an endpoint that takes calls, as long as one is coming and patience lasts.
    /// Returns the function as it was last seen, ready or not; `None` if it left the table meanwhile.
    pub async fn ready(&self, name: &str, patience: Duration) -> Option<Arc<Function>> {
        let mut changed = self.0.changed.subscribe();
        let settled = async {
            loop {
                changed.mark_unchanged();
                match self.find(name) {
                    Some(function) if !function.is_ready() && function.is_coming() => {}
                    done => return done,
                }
                // The sender lives as long as this handle.
                let _ = changed.changed().await;
            }
        };
        match tokio::time::timeout(patience, settled).await {
            Ok(function) => function,
            Err(_elapsed) => self.find(name),
        }
    }

    /// Whether there has been a first snapshot.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.0.published.load(Ordering::Acquire)
    }

    /// Waits for the first snapshot, as long as patience lasts.
    pub async fn published(&self, patience: Duration) {
        let mut changed = self.0.changed.subscribe();
        if self.is_published() {
            return;
        }
        // Whoever ran out of patience looks at the table as it is.
        let _ = tokio::time::timeout(patience, changed.changed()).await;
    }

    /// An endpoint changed its state: whoever waits should look again.
    pub(crate) fn touch(&self) {
        self.0.changed.send_replace(());
    }
}
