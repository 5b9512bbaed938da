//! Docker's JSON → our words. Pure: values in, values out. Docker's types stop here.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use super::amounts::{Bound, asked_label};
use super::model::{Amounts, ContainerSpec, Network, SecretRef, Service, Task};
use crate::discovery::operate::{ANNOTATION, ASKED, OWN_LABELS};
use crate::function::labels::unknown_label;
use crate::function::route::OwnRoute;
use crate::function::{
    Address, DEFAULT_PORT, Deployment, FunctionName, Handling, Limits, ReplicaError, Replicas,
    Resources, Rollout, Spec,
};
use crate::proxies::Proxies as Networks;
use crate::table::Listing;

/// Where a function finds its secrets (wire contract §4).
pub(super) const SECRETS: &str = "/var/openfaas/secrets/";

impl Network {
    /// The first of these addresses that lies in one of the network's subnets.
    #[must_use]
    pub fn address_among(&self, addresses: &[IpAddr]) -> Option<IpAddr> {
        let subnets = self.subnets();
        addresses
            .iter()
            .copied()
            .find(|address| subnets.trust(*address))
    }

    /// The network's subnets.
    #[must_use]
    pub fn subnets(&self) -> Networks {
        let configs = self
            .ipam
            .iter()
            .flat_map(|ipam| ipam.config.iter().flatten());
        Networks::of_subnets(configs.map(|config| config.subnet.as_str()))
    }
}

impl Task {
    /// On its way: told to run, now or in a moment; created, being placed or started, not running yet.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        (self.is_wanted() || self.desired_state == "ready")
            && matches!(
                self.state(),
                "new" | "pending" | "assigned" | "accepted" | "preparing" | "ready" | "starting"
            )
    }

    /// Told to run, and its container exists but does not count as running yet.
    #[must_use]
    pub fn is_in_health_check(&self) -> bool {
        self.is_wanted() && self.state() == "starting"
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_wanted() && self.state() == "running"
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.desired_state == "running"
    }

    pub(super) fn state(&self) -> &str {
        &self.status.state
    }

    pub(super) fn address_on(&self, network: &str) -> Option<IpAddr> {
        let attached = self.networks_attachments.iter().flatten();
        let mut here = attached
            .filter(|attachment| attachment.network.as_ref().is_some_and(|n| n.id == network));
        let address = here.find_map(|attachment| attachment.addresses.as_ref()?.first())?;
        address.split('/').next()?.parse().ok()
    }
}

/// What the translation has to know besides Docker's lists.
pub struct Place<'a> {
    /// The network that calls are routed on.
    pub network: &'a Network,
    /// The gateway's own address on it.
    pub own_address: IpAddr,
    /// Whether only services that opt in are functions.
    pub require_label: bool,
    /// Whether a task that is not running yet can be dialled already: its container has started.
    pub is_started: &'a dyn Fn(&str) -> bool,
    /// Whether the health check of a task's container is known to fail.
    pub is_unhealthy: &'a dyn Fn(&str) -> bool,
    /// The last task error of each service that has one, by the service's id.
    pub errors: &'a HashMap<String, ReplicaError>,
}

/// A label that could not be used: the service, the label and why.
pub type Warning = (String, Cow<'static, str>, String);

/// Docker's lists → a listing and what to warn about.
#[must_use]
pub fn listing(services: &[Service], tasks: &[Task], place: &Place<'_>) -> (Listing, Vec<Warning>) {
    let mut by_service: HashMap<&str, Vec<&Task>> = HashMap::new();
    for task in tasks {
        by_service
            .entry(task.service_id.as_str())
            .or_default()
            .push(task);
    }
    let mut listing = Listing {
        settled: true,
        subnets: place.network.subnets(),
        ..Listing::default()
    };
    let mut warnings = Vec::new();
    for service in services {
        let tasks = by_service
            .get(service.id.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default();
        if !service.is_function(place.require_label)
            || tasks
                .iter()
                .any(|task| task.address_on(&place.network.id) == Some(place.own_address))
        {
            continue;
        }
        let Ok(name) = FunctionName::new(&service.spec.name) else {
            continue;
        };
        if !service.is_on(place.network) {
            listing
                .elsewhere
                .push((name, not_attached(&service.spec.name, &place.network.name)));
            continue;
        }
        let deployment = service.deployment(name, tasks, place, &mut warnings);
        listing.settled &= deployment.replicas.starting == 0
            && deployment.replicas.running == deployment.replicas.desired
            && !service.is_updating();
        listing.functions.push(deployment);
    }
    (listing, warnings)
}

pub(super) fn not_attached(service: &str, network: &str) -> String {
    format!(
        "service '{service}' is not on the network '{network}': docker service update --network-add {network} {service}"
    )
}

impl Service {
    /// Whether calls may be routed to it at all; see docs/configuration.md, opt out and in.
    pub(super) fn is_function(&self, require_label: bool) -> bool {
        if self.spec.mode.replicated.is_none() && self.spec.mode.global.is_none() {
            return false; // A job: it runs once and takes no calls.
        }
        match self.label("skep.enable") {
            Some("false") => false,
            Some("true") => true,
            _ => {
                !require_label
                    || self.label("com.openfaas.function").is_some()
                    || self.label("function").is_some()
            }
        }
    }

    pub(super) fn is_on(&self, network: &Network) -> bool {
        let targets = self
            .spec
            .task_template
            .networks
            .iter()
            .chain(&self.spec.networks)
            .flatten();
        targets
            .into_iter()
            .any(|one| one.target == network.id || one.target == network.name)
    }

    fn is_updating(&self) -> bool {
        self.update_status
            .as_ref()
            .is_some_and(|status| matches!(status.state.as_str(), "updating" | "rollback_started"))
    }

    /// A label of the service, or else of its containers.
    fn label(&self, name: &str) -> Option<&str> {
        let container = self
            .spec
            .task_template
            .container_spec
            .as_ref()
            .and_then(|spec| spec.labels.as_ref());
        let labels = self
            .spec
            .labels
            .as_ref()
            .and_then(|labels| labels.get(name));
        labels.or_else(|| container?.get(name)).map(String::as_str)
    }

    /// The function's port; a broken label is ignored.
    fn port(&self, warn: impl FnOnce(&'static str, String)) -> u16 {
        match self
            .label("skep.port")
            .map(|text| (text, text.parse::<u16>()))
        {
            None => DEFAULT_PORT,
            Some((_, Ok(port @ 1..))) => port,
            Some((text, _)) => {
                warn(
                    "skep.port",
                    format!("'{text}' is not a port: write a number from 1 to 65535"),
                );
                DEFAULT_PORT
            }
        }
    }

    fn deployment(
        &self,
        name: FunctionName,
        tasks: &[&Task],
        place: &Place<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Deployment {
        let mut warn = |label: &'static str, why| {
            warnings.push((self.spec.name.clone(), Cow::Borrowed(label), why))
        };
        let port = self.port(&mut warn);
        let limits = Limits::read(|label| self.label(label), &mut warn);
        // The contract has the path of readiness among the annotations.
        let either = |name: &str| {
            self.label(name)
                .or_else(|| self.label(&format!("{ANNOTATION}{name}")))
        };
        let mut handling = Handling::read(either, &mut warn);
        // What OpenFaaS clients deploy has a watchdog, and so has what was made through our API.
        handling.expects_watchdog =
            self.label("com.openfaas.function").is_some() || self.label("function").is_some();
        let route = OwnRoute::read(|label| self.label(label));
        if let Err(wrong) = &route {
            warn(wrong.label, wrong.why.clone());
        }
        let labels = self.spec.labels.iter().flat_map(|labels| labels.keys());
        let unknown = labels.filter_map(|label| Some((label, unknown_label(label)?)));
        warnings.extend(
            unknown.map(|(label, why)| (self.spec.name.clone(), Cow::Owned(label.clone()), why)),
        );
        let dialable = tasks.iter().filter(|task| {
            task.is_running()
                || task.is_wanted() && task.is_starting() && (place.is_started)(&task.id)
        });
        let addresses = dialable.filter_map(|task| {
            let address = task.address_on(&place.network.id)?;
            Some(Address {
                id: task.id.as_str().into(),
                socket: SocketAddr::new(address, port),
            })
        });
        let mut addresses: Vec<_> = addresses.collect();
        addresses.sort_by(|a, b| a.id.cmp(&b.id));
        let unhealthy = tasks
            .iter()
            .filter(|task| task.is_in_health_check() || (place.is_unhealthy)(&task.id));
        let unhealthy = unhealthy.map(|task| task.id.as_str().into()).collect();
        let running = tasks.iter().filter(|task| task.is_running()).count() as u64;
        let starting = tasks.iter().filter(|task| task.is_starting()).count() as u64;
        let desired = match &self.spec.mode.replicated {
            Some(replicated) => replicated.replicas.unwrap_or(1),
            // A global service: one on each node, so there should be one at least.
            None => (running + starting).max(1),
        };
        Deployment {
            short_name: self.short_name(),
            name,
            spec: self.spec(),
            limits,
            handling,
            route,
            replicas: Replicas {
                desired,
                running,
                starting,
            },
            rollout: Rollout {
                last_error: place.errors.get(&self.id).cloned(),
                update: self.update(),
            },
            addresses,
            unhealthy,
        }
    }

    /// A stack's service without the stack's name in front.
    fn short_name(&self) -> Option<FunctionName> {
        let stack = self
            .spec
            .labels
            .as_ref()?
            .get("com.docker.stack.namespace")?;
        let short = self
            .spec
            .name
            .strip_prefix(stack.as_str())?
            .strip_prefix('_')?;
        FunctionName::new(short).ok()
    }

    pub(super) fn spec(&self) -> Spec {
        let empty = ContainerSpec::default();
        let container = self
            .spec
            .task_template
            .container_spec
            .as_ref()
            .unwrap_or(&empty);
        let env = container
            .env
            .iter()
            .flatten()
            .filter_map(|pair| pair.split_once('='));
        let mut env_vars: BTreeMap<String, String> = env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let env_process = env_vars.remove("fprocess");
        let all = self.spec.labels.clone().unwrap_or_default();
        let (annotations, mut labels): (BTreeMap<_, _>, BTreeMap<_, _>) = all
            .into_iter()
            .partition(|(name, _)| name.starts_with(ANNOTATION));
        let asked = |bound: Bound| {
            let text = |what| labels.get(&asked_label(bound, what)).cloned();
            Resources {
                memory: text("memory"),
                cpu: text("cpu"),
            }
        };
        let show = |bound: Bound, amounts: Option<&Option<Amounts>>| {
            let amounts = amounts.and_then(Option::as_ref);
            amounts.map_or_else(Resources::default, |amounts| {
                bound.show(amounts, asked(bound))
            })
        };
        let resources = self.spec.task_template.resources.as_ref();
        let limits = show(Bound::Limits, resources.map(|both| &both.limits));
        let requests = show(Bound::Requests, resources.map(|both| &both.reservations));
        let notes = [Bound::Limits.note(&limits), Bound::Requests.note(&requests)];
        labels.retain(|name, _| !OWN_LABELS.contains(&name.as_str()) && !name.starts_with(ASKED));
        let secrets: BTreeSet<_> = container
            .secrets
            .iter()
            .flatten()
            .map(SecretRef::name)
            .collect();
        let placement = self.spec.task_template.placement.as_ref();
        Spec {
            image: container.image.clone(),
            env_process,
            env_vars,
            constraints: placement
                .and_then(|placement| placement.constraints.clone())
                .unwrap_or_default(),
            secrets: secrets.into_iter().collect(),
            labels,
            annotations: annotations
                .into_iter()
                .map(|(name, value)| (name[ANNOTATION.len()..].to_owned(), value))
                .collect(),
            limits,
            requests,
            read_only: container.read_only,
            created_at: Some(self.created_at.clone()).filter(|at| !at.is_empty()),
            notes: notes.into_iter().flatten().collect(),
        }
    }
}

impl SecretRef {
    /// The name that the function knows it by: versions of a secret have names of their own.
    fn name(&self) -> String {
        let file = self.file.as_ref().map(|file| file.name.as_str());
        let known = file.and_then(|path| path.strip_prefix(SECRETS));
        known.unwrap_or(&self.secret_name).to_owned()
    }
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
