//! Functions on Docker Swarm: services with tasks on one network, read through the engine's API.

mod amounts;
mod applied;
pub mod engine;
mod failures;
pub mod hardening;
mod logs;
pub mod model;
mod operate;
mod ownership;
mod read_only;
mod registry;
mod replicas;
mod secrets;
mod spec;
pub mod translate;
mod usage;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use tokio::sync::Notify;

use self::engine::{DockerHost, Engine, EngineError};
use self::failures::Failures;
use self::model::{Network, Service, Task};
use self::translate::{Place, Warning};
use super::{Provider, Remedies, Unlisted};
use crate::function::ReplicaError;
use crate::table::Listing;

/// Only what runs or should, now (`running`) or in a moment (`ready`: its predecessor is still stopping, or its restart is
/// delayed). A task that was told to stop is not in the list, and so leaves the table at once.
const TASKS: &str = "/tasks?filters=%7B%22desired-state%22%3A%5B%22running%22%2C%22ready%22%5D%7D";
/// How long the facts about the network are believed without asking again.
const PLACE_LASTS: Duration = Duration::from_secs(5);
/// A task that has been `starting` for so long waits for its health check: its container runs and can be dialled. Not sooner: a
/// SYN to a container that is still being made is answered only when the kernel asks for its address again, a second later.
const HEALTH_CHECK_AFTER: Duration = Duration::from_secs(3);
/// How long a start is remembered of a task that no list has shown as starting.
const EVENT_LASTS: Duration = Duration::from_secs(5);
/// Pauses between attempts to read events.
const EVENTS_PAUSE: Duration = Duration::from_millis(500);
/// How far a new stream of events reaches back behind the end of the last one.
const OVERLAP: Duration = Duration::from_secs(2);
/// The attribute that a task's container bears in events.
const TASK_ATTRIBUTE: &str = "com.docker.swarm.task.id";

/// What to do about a function of a Swarm.
pub const REMEDIES: Remedies = Remedies {
    scaled_to_zero: |name| format!("docker service scale {name}=1"),
    not_running: |name| format!("see docker service ps --no-trunc {name} for the reason"),
    not_accepting: |_| "does it listen on its port (label skep.port, default 8080)?".to_owned(),
};

/// The Swarm provider.
pub struct Swarm {
    engine: Engine,
    network: String,
    require_label: bool,
    longest_call: Duration,
    events: Arc<Events>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    place: Option<(Network, IpAddr, Instant)>,
    starting_since: HashMap<String, Instant>,
    warned: HashSet<Warning>,
    failures: Failures,
}

/// What the event stream tells: that something changed, and of the tasks on this engine whose containers started, and whose health
/// check fails.
#[derive(Default)]
struct Events {
    changed: Notify,
    started: Mutex<HashMap<String, Instant>>,
    unhealthy: Mutex<HashSet<String>>,
}

impl Swarm {
    /// A provider that reads this engine and routes on this network. Starts to listen to events. Tasks that it makes are given the
    /// time of the longest call to end.
    #[must_use]
    pub fn start(
        host: DockerHost,
        network: String,
        require_label: bool,
        longest_call: Duration,
    ) -> Arc<Self> {
        let events = Arc::new(Events::default());
        tokio::spawn(listen(host.clone(), events.clone()));
        Arc::new(Self {
            engine: Engine::new(host),
            network,
            require_label,
            longest_call,
            events,
            state: Mutex::default(),
        })
    }

    /// The network, and our own address on it.
    async fn place(&self) -> Result<(Network, IpAddr), Unlisted> {
        if let Some((network, address, at)) = &self.state().place
            && at.elapsed() < PLACE_LASTS
        {
            return Ok((network.clone(), *address));
        }
        let name = &self.network;
        let network: Network = self.engine.get(&format!("/networks/{name}")).await.map_err(|error| match error {
            EngineError::Says(status, _) if status == 404 => {
                Unlisted(format!("there is no network '{name}': docker network create --driver overlay --attachable {name}"))
            }
            other => self.unlisted(&other),
        })?;
        let own: Vec<IpAddr> = if_addrs::get_if_addrs()
            .unwrap_or_default()
            .iter()
            .map(if_addrs::Interface::ip)
            .collect();
        let Some(address) = network.address_among(&own) else {
            return Err(Unlisted(format!(
                "this gateway is not attached to the network '{name}': start it with --network={name}, or docker network connect {name} <its container>"
            )));
        };
        self.state().place = Some((network.clone(), address, Instant::now()));
        Ok((network, address))
    }

    async fn read(&self) -> Result<(Vec<Service>, Vec<Task>), Unlisted> {
        let (services, tasks) =
            tokio::try_join!(self.engine.get("/services"), self.engine.get(TASKS))
                .map_err(|error| self.unlisted(&error))?;
        Ok((services, tasks))
    }

    fn unlisted(&self, error: &EngineError) -> Unlisted {
        self.state().place = None;
        let host = self.engine.host();
        match error {
            EngineError::Says(status, message) if message.contains("not a swarm manager") => {
                Unlisted(format!(
                    "the engine at {host} is no Swarm manager ({status}): run docker swarm init, or run the gateway on a manager"
                ))
            }
            error => Unlisted(format!("the engine at {host} {error}")),
        }
    }

    /// Notes since when each task has been starting, and returns those whose containers can be dialled.
    fn started(&self, tasks: &[Task]) -> HashSet<String> {
        let mut state = self.state();
        let starting: HashSet<&str> = tasks
            .iter()
            .filter(|task| task.is_in_health_check())
            .map(|task| task.id.as_str())
            .collect();
        state
            .starting_since
            .retain(|id, _| starting.contains(id.as_str()));
        for id in &starting {
            state
                .starting_since
                .entry((*id).to_owned())
                .or_insert_with(Instant::now);
        }
        let waited = state
            .starting_since
            .iter()
            .filter(|(_, since)| since.elapsed() >= HEALTH_CHECK_AFTER)
            .map(|(id, _)| id.clone());
        let mut seen = self
            .events
            .started
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The event may be younger than the list.
        seen.retain(|id, at| {
            let is_starting = |task: &Task| task.id == *id && task.is_starting();
            at.elapsed() < EVENT_LASTS || tasks.iter().any(is_starting)
        });
        waited.chain(seen.keys().cloned()).collect()
    }

    /// The last task error of each function that has one. Those that have failed are listed for the functions that lack replicas or
    /// whose update has not completed, and for no other.
    async fn errors(
        &self,
        services: &[Service],
        tasks: &[Task],
        network: &Network,
    ) -> HashMap<String, ReplicaError> {
        let functions = services
            .iter()
            .filter(|service| service.is_function(self.require_label) && service.is_on(network));
        let functions: Vec<_> = functions.collect();
        let asked = self.state().failures.ended_path(&functions, tasks);
        let ended: Option<Vec<Task>> = match asked {
            // One that could not be read is read with the next listing.
            Some(path) => self.engine.get(&path).await.ok(),
            None => None,
        };
        self.state().failures.note(&functions, tasks, ended)
    }

    /// Logs each warning once as long as its cause lasts.
    fn warn(&self, warnings: Vec<Warning>) {
        let warnings: HashSet<Warning> = warnings.into_iter().collect();
        let mut state = self.state();
        for (service, label, why) in warnings.difference(&state.warned) {
            tracing::warn!(service, %label, "label ignored: {why}");
        }
        state.warned = warnings;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Provider for Arc<Swarm> {
    async fn changed(&self) {
        self.events.changed.notified().await;
    }

    async fn list(&self) -> Result<Listing, Unlisted> {
        let (network, own_address) = self.place().await?;
        let (services, tasks) = self.read().await?;
        let started = self.started(&tasks);
        let is_started = |id: &str| started.contains(id);
        let unhealthy = self.events.unhealthy_among(&tasks);
        let is_unhealthy = |id: &str| unhealthy.contains(id);
        let errors = self.errors(&services, &tasks, &network).await;
        let place = Place {
            network: &network,
            own_address,
            require_label: self.require_label,
            is_started: &is_started,
            is_unhealthy: &is_unhealthy,
            errors: &errors,
        };
        let (listing, warnings) = translate::listing(&services, &tasks, &place);
        self.warn(warnings);
        Ok(listing)
    }
}

/// Reads events for ever, whatever happens to the engine.
async fn listen(host: DockerHost, events: Arc<Events>) {
    let mut since = None;
    loop {
        match connect(&host) {
            Ok(docker) => read_events(&docker, &events, since).await,
            Err(error) => tracing::debug!("no event stream from {host}: {error}"),
        }
        // What happened meanwhile is in the next listing, except for health checks: those that failed may pass by now.
        events.unhealthy().clear();
        events.changed.notify_one();
        // The listing that this asks for may be over before the next stream begins: the engine repeats what happens in between.
        since = SystemTime::now().checked_sub(OVERLAP);
        tokio::time::sleep(EVENTS_PAUSE).await;
    }
}

/// bollard drops the version from its requests, and so every engine speaks its newest (docs/decisions/0005).
fn connect(host: &DockerHost) -> Result<Docker, bollard::errors::Error> {
    let seconds = 10;
    match host {
        DockerHost::Unix(path) => Docker::connect_with_unix(
            &path.to_string_lossy(),
            seconds,
            bollard::API_DEFAULT_VERSION,
        ),
        DockerHost::Tcp(authority) => Docker::connect_with_http(
            &format!("http://{authority}"),
            seconds,
            bollard::API_DEFAULT_VERSION,
        ),
    }
}

async fn read_events(docker: &Docker, events: &Events, since: Option<SystemTime>) {
    let filters = HashMap::from([
        ("type", vec!["service", "node", "network", "container"]),
        (
            "event",
            vec![
                "create",
                "update",
                "remove",
                "start",
                "die",
                "health_status",
                "connect",
                "disconnect",
            ],
        ),
    ]);
    let mut options = EventsOptionsBuilder::new().filters(&filters);
    if let Some(since) = since.and_then(|since| since.duration_since(UNIX_EPOCH).ok()) {
        options = options.since(&since.as_secs().to_string());
    }
    let mut stream = std::pin::pin!(docker.events(Some(options.build())));
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => events.saw(event),
            Err(error) => {
                tracing::debug!("event stream ended: {error}");
                return;
            }
        }
    }
}

impl Events {
    fn saw(&self, event: EventMessage) {
        let attributes = event
            .actor
            .and_then(|actor| actor.attributes)
            .unwrap_or_default();
        let action = event.action.unwrap_or_default();
        if let Some(task) = attributes.get(TASK_ATTRIBUTE) {
            if action == "start" {
                self.started
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(task.clone(), Instant::now());
            } else if let Some(health) = action.strip_prefix("health_status:") {
                match health.trim() {
                    "unhealthy" => self.unhealthy().insert(task.clone()),
                    _ => self.unhealthy().remove(task),
                };
            }
        }
        self.changed.notify_one();
    }

    /// The tasks among these whose container's health check fails. Swarm shows that nowhere: it stops such a task, and lists it as
    /// running until its container has ended, up to its stop grace period. Those that are listed no longer are forgotten.
    fn unhealthy_among(&self, tasks: &[Task]) -> HashSet<String> {
        let mut unhealthy = self.unhealthy();
        if !unhealthy.is_empty() {
            let listed: HashSet<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
            unhealthy.retain(|id| listed.contains(id.as_str()));
        }
        unhealthy.clone()
    }

    fn unhealthy(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.unhealthy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    #[test]
    fn a_task_whose_health_check_fails_is_unhealthy_until_it_passes_or_the_task_is_gone() {
        let events = Events::default();
        let saw = |action: &str| {
            let attributes = HashMap::from([(TASK_ATTRIBUTE.to_owned(), "t".to_owned())]);
            events.saw(EventMessage {
                action: Some(action.to_owned()),
                actor: Some(EventActor {
                    attributes: Some(attributes),
                    ..EventActor::default()
                }),
                ..EventMessage::default()
            });
        };
        let task: Task = serde_json::from_value(serde_json::json!({
            "ID": "t", "ServiceID": "s", "DesiredState": "running", "Status": { "State": "running" }
        }))
        .unwrap();
        let tasks = [task];
        let is_unhealthy = || events.unhealthy_among(&tasks).contains("t");
        saw("health_status: healthy");
        assert!(!is_unhealthy());
        saw("health_status: unhealthy");
        assert!(is_unhealthy());
        saw("die");
        assert!(is_unhealthy(), "Swarm lists it as running for a moment");
        saw("health_status: healthy");
        assert!(!is_unhealthy());
        saw("health_status: unhealthy");
        assert!(events.unhealthy_among(&[]).is_empty());
        assert!(!is_unhealthy(), "it was forgotten");
    }
}
