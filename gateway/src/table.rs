//! The table of functions: immutable snapshots, one writer, many readers that never wait.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::budget::Budget;
use crate::endpoint::Endpoint;
use crate::function::{Deployment, FunctionName};
use crate::life::{Event, State};
use crate::metrics::{FunctionMetrics, Metrics};
use crate::tally::{Counted, Tally};
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
    /// that says that it is about to end, which is how the coming of another one shows first.
    #[must_use]
    pub fn is_coming(&self) -> bool {
        let replicas = self.deployment.replicas;
        replicas.running < replicas.desired
            || self
                .endpoints
                .iter()
                .any(|endpoint| endpoint.state() == State::Starting || endpoint.says_it_is_ending())
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
    by_name: HashMap<FunctionName, Arc<Function>>,
    elsewhere: HashMap<FunctionName, String>,
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

    /// Waits until a snapshot shows what is waited for, as long as patience lasts.
    pub async fn until(&self, patience: Duration, shows: impl Fn(&Snapshot) -> bool) {
        let mut changed = self.0.changed.subscribe();
        let shown = async {
            while !shows(&self.snapshot()) {
                // The sender lives as long as this handle.
                let _ = changed.changed().await;
            }
        };
        // Whoever ran out of patience looks at the table as it is.
        let _ = tokio::time::timeout(patience, shown).await;
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

/// The one writer.
pub struct TableWriter {
    table: Table,
    metrics: Arc<Metrics>,
    workers: usize,
    /// What was counted before; a function that appears later was not among those.
    before: Counted,
}

impl TableWriter {
    /// The writer of a table, for a gateway of so many workers. There must be one only.
    #[must_use]
    pub fn new(table: Table, metrics: Arc<Metrics>, workers: usize) -> Self {
        Self {
            table,
            metrics,
            workers,
            before: Counted::default(),
        }
    }

    /// Functions that are in the first listing go on with these counts.
    #[must_use]
    pub fn resuming(mut self, before: Counted) -> Self {
        self.before = before;
        self
    }

    /// Publishes a listing as one snapshot. Returns the endpoints that nobody has spoken to yet.
    pub fn publish(&mut self, listing: Listing) -> Vec<Arc<Endpoint>> {
        let old = self.table.snapshot();
        let mut fresh = Vec::new();
        let mut by_name = HashMap::with_capacity(listing.functions.len());
        let mut short_names = Vec::new();
        for deployment in listing.functions {
            let name = deployment.name.clone();
            let known = old
                .find(name.as_str())
                .filter(|known| known.deployment.name == name);
            let function = match known {
                Some(known) if known.deployment == deployment && !known.is_to_be_tidied() => {
                    known.clone()
                }
                _ => {
                    let created_at = deployment.spec.created_at.as_deref();
                    let before = self.before.take(name.as_str(), created_at);
                    Arc::new(self.function(deployment, known, before, &mut fresh))
                }
            };
            if let Some(short) = &function.deployment.short_name {
                short_names.push((short.clone(), function.clone()));
            }
            by_name.insert(name, function);
        }
        self.before = Counted::default();
        add_short_names(&mut by_name, short_names);
        let elsewhere = listing.elsewhere.into_iter().collect();
        let snapshot = Arc::new(Snapshot { by_name, elsewhere });
        self.table.0.snapshot.store(snapshot.clone());
        self.table.0.published.store(true, Ordering::Release);
        retire(&old, &snapshot);
        self.table.touch();
        fresh
    }

    fn function(
        &self,
        deployment: Deployment,
        known: Option<&Arc<Function>>,
        before: u64,
        fresh: &mut Vec<Arc<Endpoint>>,
    ) -> Function {
        let metrics = self.metrics.function(deployment.name.as_str());
        let carried = known
            .map(|known| known.endpoints.as_slice())
            .unwrap_or_default();
        let endpoints = deployment.addresses.iter().map(|address| {
            if let Some(same) = carried
                .iter()
                .find(|endpoint| endpoint.address() == address)
            {
                return same.clone();
            }
            let ready_path = deployment.handling.probe_path().cloned();
            let endpoint =
                Endpoint::new(address.clone(), ready_path, metrics.clone(), self.workers);
            let endpoint = Arc::new(endpoint);
            fresh.push(endpoint.clone());
            endpoint
        });
        let endpoints: Vec<_> = endpoints.collect();
        let turnstile = deployment
            .limits
            .max_in_flight
            .map(|most| turnstile(known, most));
        // One that was made again is another one.
        let same =
            known.filter(|known| known.deployment.spec.created_at == deployment.spec.created_at);
        let tally = same.map_or_else(
            || Arc::new(Tally::new(before, metrics.calls())),
            |same| same.tally.clone(),
        );
        let leaving = known.into_iter().flat_map(|known| known.all_endpoints());
        let leaving = leaving.filter(|old| !endpoints.iter().any(|one| Arc::ptr_eq(one, old)));
        Function {
            leaving: leaving.cloned().collect(),
            endpoints,
            turnstile,
            metrics,
            tally,
            budget: known.map(|known| known.budget.clone()).unwrap_or_default(),
            deployment,
        }
    }
}

/// The turnstile that the function has, unless it is of another width now.
fn turnstile(known: Option<&Arc<Function>>, most: usize) -> Arc<Turnstile> {
    let known = known.and_then(|known| known.turnstile.clone());
    known
        .filter(|turnstile| turnstile.most() == most)
        .unwrap_or_else(|| Arc::new(Turnstile::new(most)))
}

/// Gives each short name to the one function that wants it. A full name comes first; a name that two want is nobody's.
fn add_short_names(
    by_name: &mut HashMap<FunctionName, Arc<Function>>,
    wanted: Vec<(FunctionName, Arc<Function>)>,
) {
    let mut askers: HashMap<FunctionName, usize> = HashMap::new();
    for (name, _) in &wanted {
        *askers.entry(name.clone()).or_default() += 1;
    }
    for (name, function) in wanted {
        if askers[&name] == 1
            && let Entry::Vacant(free) = by_name.entry(name)
        {
            free.insert(function);
        }
    }
}

/// Takes every endpoint that the new snapshot no longer has out of service.
fn retire(old: &Snapshot, new: &Snapshot) {
    for function in old.functions() {
        let kept = new.find(function.deployment.name.as_str());
        if kept.is_some_and(|kept| Arc::ptr_eq(kept, function)) {
            continue;
        }
        for endpoint in &function.endpoints {
            let still = kept
                .is_some_and(|kept| kept.endpoints.iter().any(|one| Arc::ptr_eq(one, endpoint)));
            if !still {
                endpoint.meet(Event::Unlisted, "no longer listed: told to stop, or dead");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::{Address, Handling, Limits, Replicas, Spec};

    fn deployment(name: &str, short: Option<&str>, ports: &[u16]) -> Deployment {
        Deployment {
            name: FunctionName::new(name).unwrap(),
            short_name: short.map(|short| FunctionName::new(short).unwrap()),
            spec: Spec::default(),
            limits: Limits::default(),
            handling: Handling::default(),
            replicas: Replicas {
                desired: 1,
                running: 1,
                starting: 0,
            },
            addresses: ports
                .iter()
                .map(|port| Address {
                    id: "t".into(),
                    socket: ([127, 0, 0, 1], *port).into(),
                })
                .collect(),
        }
    }

    fn publish(writer: &mut TableWriter, functions: Vec<Deployment>) -> Vec<Arc<Endpoint>> {
        writer.publish(Listing {
            functions,
            elsewhere: Vec::new(),
            settled: true,
        })
    }

    fn table() -> (Table, TableWriter) {
        let table = Table::default();
        (
            table.clone(),
            TableWriter::new(table, Arc::new(Metrics::new()), 1),
        )
    }

    #[test]
    fn an_endpoint_keeps_its_state_from_one_listing_to_the_next() {
        let (table, mut writer) = table();
        let fresh = publish(&mut writer, vec![deployment("echo", None, &[1, 2])]);
        assert_eq!(fresh.len(), 2);
        fresh[0].meet(Event::Accepted, "connected");
        let fresh_again = publish(&mut writer, vec![deployment("echo", None, &[1, 3])]);
        assert_eq!(fresh_again.len(), 1, "only port 3 is new");
        let echo = table.find("echo").unwrap();
        assert!(echo.endpoints[0].is_ready());
        assert_eq!(fresh[1].state(), State::Gone, "port 2 is no longer listed");
        publish(&mut writer, vec![]);
        assert!(table.find("echo").is_none());
        assert_eq!(fresh[0].state(), State::Gone);
    }

    #[test]
    fn a_short_name_belongs_to_the_only_one_who_wants_it() {
        let (table, mut writer) = table();
        publish(
            &mut writer,
            vec![
                deployment("faas_echo", Some("echo"), &[]),
                deployment("cat", None, &[]),
            ],
        );
        assert_eq!(
            table.find("echo").unwrap().deployment.name.as_str(),
            "faas_echo"
        );
        assert_eq!(
            table.snapshot().functions().count(),
            2,
            "each function is listed once"
        );

        publish(
            &mut writer,
            vec![
                deployment("faas_echo", Some("echo"), &[]),
                deployment("b_echo", Some("echo"), &[]),
            ],
        );
        assert!(table.find("echo").is_none(), "two want it");
        publish(
            &mut writer,
            vec![
                deployment("faas_echo", Some("echo"), &[]),
                deployment("echo", None, &[]),
            ],
        );
        assert_eq!(
            table.find("echo").unwrap().deployment.name.as_str(),
            "echo",
            "the full name comes first"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_a_copy_that_is_coming_and_for_no_other() {
        let (table, mut writer) = table();
        let fresh = publish(
            &mut writer,
            vec![
                deployment("echo", None, &[1]),
                deployment("none", None, &[]),
            ],
        );
        let none = table.ready("none", Duration::from_secs(5)).await.unwrap();
        assert!(!none.is_ready(), "nothing is coming, so nobody waits");

        let opener = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            fresh[0].meet(Event::Accepted, "connected");
            table.touch();
        };
        let (echo, ()) = tokio::join!(table.ready("echo", Duration::from_secs(5)), opener);
        assert!(echo.unwrap().is_ready());
    }
}
