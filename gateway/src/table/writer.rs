//! The one writer of the table: a listing becomes a snapshot, in which whatever is known already goes on.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fnv::FnvHashMap;

use super::{Function, Listing, Routes, Snapshot, Table};
use crate::endpoint::Endpoint;
use crate::function::{Address, Deployment, FunctionName};
use crate::life::Event;
use crate::metrics::Metrics;
use crate::tally::{Counted, Tally};
use crate::turnstile::Turnstile;

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

    /// Publishes a listing as one snapshot. Returns the endpoints that are to be probed: new ones, and those whose labels changed.
    pub fn publish(&mut self, listing: Listing) -> Vec<Arc<Endpoint>> {
        let old = self.table.snapshot();
        let mut fresh = Vec::new();
        let mut by_name =
            FnvHashMap::with_capacity_and_hasher(listing.functions.len(), Default::default());
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
        let routes = Routes::of(by_name.values());
        routes.tell_what_changed(&old.routes);
        self.metrics.route_clashes(routes.clashes());
        add_short_names(&mut by_name, short_names, &old);
        let elsewhere = listing.elsewhere.into_iter().collect();
        let snapshot = Arc::new(Snapshot {
            by_name,
            elsewhere,
            routes,
            subnets: listing.subnets,
        });
        let shared = &self.table.0;
        shared.snapshot.store(snapshot.clone());
        let routed = !snapshot.routes.is_empty();
        shared.routed.store(routed, Ordering::Relaxed);
        shared.published.store(true, Ordering::Release);
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
        let handling = &deployment.handling;
        let is_healthy = |address: &Address| !deployment.unhealthy.contains(&address.id);
        let endpoints = deployment.addresses.iter().map(|address| {
            if let Some(same) = carried
                .iter()
                .find(|endpoint| endpoint.address() == address)
            {
                if same.follow(handling, is_healthy(address)) {
                    fresh.push(same.clone());
                }
                return same.clone();
            }
            let endpoint = Endpoint::new(address.clone(), handling, metrics.clone(), self.workers);
            endpoint.follow(handling, is_healthy(address));
            // An update seldom takes the watchdog out of an image.
            if carried.iter().any(|sibling| sibling.is_watchdog()) {
                endpoint.set_expects_watchdog(true);
            }
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

/// Gives each short name to the function that was made first of those that want it, so that a stack that comes later takes none away, nor
/// a restart of the gateway. A full name comes before every short one: its function has no other.
fn add_short_names(
    by_name: &mut FnvHashMap<FunctionName, Arc<Function>>,
    mut wanted: Vec<(FunctionName, Arc<Function>)>,
    old: &Snapshot,
) {
    let age = |function: &Function| {
        let made = function.deployment.spec.created_at.as_deref();
        let made = made.and_then(|text| humantime::parse_rfc3339(text).ok());
        (made.is_none(), made, function.deployment.name.clone())
    };
    wanted.sort_by_cached_key(|(_, function)| age(function));
    for (short, function) in wanted {
        match by_name.entry(short) {
            Entry::Vacant(free) => drop(free.insert(function)),
            Entry::Occupied(taken) => {
                let (short, holder) = (taken.key(), &taken.get().deployment.name);
                let name = &function.deployment.name;
                let held = |names: &Snapshot, by: &FunctionName| {
                    let found = names.find(short.as_str());
                    found.is_some_and(|found| found.deployment.name == *by)
                };
                // Told once: when one of the two is new.
                if !held(old, holder) || old.find(name.as_str()).is_none() {
                    tracing::warn!(%name, "the short name '{short}' is held by '{holder}': call this function by its full name");
                }
            }
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
    use std::time::Duration;

    use super::*;
    use crate::function::{Handling, Limits, Replicas, Rollout, Spec};
    use crate::life::State;

    fn deployment(name: &str, short: Option<&str>, ports: &[u16]) -> Deployment {
        Deployment {
            name: FunctionName::new(name).unwrap(),
            short_name: short.map(|short| FunctionName::new(short).unwrap()),
            spec: Spec::default(),
            limits: Limits::default(),
            handling: Handling::default(),
            route: Ok(None),
            replicas: Replicas {
                desired: 1,
                running: 1,
                starting: 0,
            },
            rollout: Rollout::default(),
            addresses: ports
                .iter()
                .map(|port| Address {
                    id: "t".into(),
                    socket: ([127, 0, 0, 1], *port).into(),
                })
                .collect(),
            unhealthy: Vec::new(),
        }
    }

    fn publish(writer: &mut TableWriter, functions: Vec<Deployment>) -> Vec<Arc<Endpoint>> {
        writer.publish(Listing {
            subnets: Default::default(),
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

        let made = |name: &str, at: &str| {
            let mut made = deployment(name, Some("echo"), &[]);
            made.spec.created_at = Some(at.to_owned());
            made
        };
        let (first, second) = (
            made("z_echo", "2026-01-01T00:00:00.1Z"),
            made("b_echo", "2026-01-01T00:00:00.12Z"),
        );
        let holder = || table.find("echo").unwrap().deployment.name.to_string();
        for listed in [
            vec![first.clone(), second.clone()],
            vec![second.clone(), first],
        ] {
            publish(&mut writer, listed);
            assert_eq!(holder(), "z_echo", "it was made first");
        }
        publish(&mut writer, vec![second]);
        assert_eq!(holder(), "b_echo", "the other one is gone");
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
