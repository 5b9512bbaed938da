//! Tasks that failed and updates that went wrong: read for the functions that are not as they should be, shown by the API, logged once.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use super::model::{Service, Task, TaskVersion};
use crate::function::{ReplicaError, UpdateStatus};

/// How long the tasks that ended are believed without asking again: listings follow each other closely while something changes.
const ENDED_LASTS: Duration = Duration::from_millis(250);
/// For how many functions they are asked at once.
const MOST_ASKED: usize = 50;
/// How long an error is still shown of a function whose replicas all run: one that fails again and again runs in between.
const ERROR_LASTS: Duration = Duration::from_secs(60);
/// How soon another error of the same function is logged, and how soon the same one.
const LOG_PAUSE: Duration = Duration::from_secs(10);
const SAME_LOG_PAUSE: Duration = Duration::from_secs(300);
/// The most bytes of an error that are kept.
const MOST_MESSAGE: usize = 500;

/// What is known of failures, from one listing to the next.
#[derive(Default)]
pub(super) struct Failures {
    asked: Option<Instant>,
    ended: Vec<Task>,
    errors: HashMap<String, Known>,
    updates: HashMap<String, Outcome>,
}

struct Known {
    error: ReplicaError,
    version: TaskVersion,
    seen: Instant,
    logged: Option<(Instant, String)>,
}

/// How an update went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Paused,
    RolledBack,
    RollbackPaused,
}

impl Outcome {
    fn of(state: &str) -> Option<Self> {
        match state {
            "paused" => Some(Self::Paused),
            "rollback_started" | "rollback_completed" => Some(Self::RolledBack),
            "rollback_paused" => Some(Self::RollbackPaused),
            _ => None,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Paused => {
                "the update is paused because a new replica failed: deploy a version that works"
            }
            Self::RolledBack => {
                "the update is rolled back to the version before because a new replica failed"
            }
            Self::RollbackPaused => {
                "the rollback is paused because a replica of the version before failed, too: deploy a version that works"
            }
        }
    }
}

impl Failures {
    /// The path that lists the ended tasks of the functions for which they matter, if it is time to read it.
    pub(super) fn ended_path(&mut self, functions: &[&Service], tasks: &[Task]) -> Option<String> {
        let troubled: Vec<_> = functions
            .iter()
            .filter(|service| is_troubled(service, tasks))
            .map(|service| service.id.as_str())
            .take(MOST_ASKED)
            .collect();
        if troubled.is_empty() {
            self.ended.clear();
            return None;
        }
        if self.asked.is_some_and(|at| at.elapsed() < ENDED_LASTS) {
            return None;
        }
        self.asked = Some(Instant::now());
        Some(format!(
            "/tasks?filters=%7B%22desired-state%22%3A%5B%22shutdown%22%5D%2C%22service%22%3A%5B%22{}%22%5D%7D",
            troubled.join("%22%2C%22")
        ))
    }

    /// Takes what the engine tells of ended tasks, logs what is new, and returns the last error of each function by its service's id.
    pub(super) fn note(
        &mut self,
        functions: &[&Service],
        tasks: &[Task],
        ended: Option<Vec<Task>>,
    ) -> HashMap<String, ReplicaError> {
        if let Some(ended) = ended {
            self.ended = ended;
        }
        let is_listed = |id: &String| functions.iter().any(|service| service.id == *id);
        self.errors.retain(|id, _| is_listed(id));
        self.updates.retain(|id, _| is_listed(id));
        for service in functions {
            self.note_error(service, tasks);
            self.note_update(service);
        }
        self.errors
            .iter()
            .map(|(id, known)| (id.clone(), known.error.clone()))
            .collect()
    }

    fn note_error(&mut self, service: &Service, tasks: &[Task]) {
        let error = if is_troubled(service, tasks) {
            last_error(service, tasks.iter().chain(&self.ended))
        } else {
            None
        };
        let now = Instant::now();
        let Some((error, version)) = error else {
            self.errors.retain(|id, known| {
                *id != service.id
                    || now - known.seen < ERROR_LASTS
                        && counts(service, &known.version, time(&known.error.since))
            });
            return;
        };
        let known = self.errors.entry(service.id.clone()).or_insert(Known {
            error: error.clone(),
            version: version.clone(),
            seen: now,
            logged: None,
        });
        known.seen = now;
        (known.error, known.version) = (error, version);
        let is_due = known.logged.as_ref().is_none_or(|(at, message)| {
            let pause = if *message == known.error.message {
                SAME_LOG_PAUSE
            } else {
                LOG_PAUSE
            };
            now - *at >= pause
        });
        if is_due {
            known.logged = Some((now, known.error.message.clone()));
            let ReplicaError { task, node, .. } = &known.error;
            tracing::warn!(service = %service.spec.name, %task, %node, "a replica failed: {}", known.error.message);
        }
    }

    fn note_update(&mut self, service: &Service) {
        let status = service.update_status.as_ref();
        let outcome = status.and_then(|status| Outcome::of(&status.state));
        let (Some(status), Some(outcome)) = (status, outcome) else {
            self.updates.remove(&service.id);
            return;
        };
        if self.updates.insert(service.id.clone(), outcome) != Some(outcome) {
            let said = cut(&status.message);
            tracing::warn!(service = %service.spec.name, engine = said, "{}", outcome.sentence());
        }
    }
}

/// Whether a function lacks replicas, or its last update has not completed. Pure.
fn is_troubled(service: &Service, tasks: &[Task]) -> bool {
    let is_unfinished = service
        .update_status
        .as_ref()
        .is_some_and(|status| !matches!(status.state.as_str(), "" | "completed"));
    let own = || tasks.iter().filter(|task| task.service_id == service.id);
    let running = own().filter(|task| task.is_running()).count() as u64;
    let lacks = match &service.spec.mode.replicated {
        Some(replicated) => running < replicated.replicas.unwrap_or(1),
        None => own().any(|task| !task.is_running()),
    };
    is_unfinished || lacks
}

/// The error of the replica that failed last; where an update was stopped, of the one that the engine names as the reason. Pure.
fn last_error<'a>(
    service: &Service,
    tasks: impl Iterator<Item = &'a Task>,
) -> Option<(ReplicaError, TaskVersion)> {
    let status = service.update_status.as_ref();
    let failed = tasks.filter(|task| task.service_id == service.id && task.has_failed());
    let failed: Vec<_> = failed.collect();
    let is_named =
        |task: &&&Task| status.is_some_and(|status| status.message.contains(task.id.as_str()));
    let newest = || {
        failed
            .iter()
            .filter(|task| counts(service, &task.spec, time(&task.status.timestamp)))
            .max_by_key(|task| time(&task.status.timestamp))
    };
    let task = failed.iter().find(is_named).or_else(newest)?;
    let error = ReplicaError {
        message: cut(&task.status.err),
        since: task.status.timestamp.clone(),
        task: task.id.clone(),
        node: task.node_id.clone(),
    };
    Some((error, task.spec.clone()))
}

/// Whether an error says something of the service as it is now: while a new version is rolled out, and after it, those of the version
/// before, which goes on being restarted meanwhile, do not. Pure.
fn counts(service: &Service, version: &TaskVersion, since: Option<SystemTime>) -> bool {
    let Some(status) = &service.update_status else {
        return true;
    };
    if !matches!(status.state.as_str(), "updating" | "completed") {
        return true;
    }
    let now = &service.spec.task_template;
    let image = version.container_spec.as_ref().map(|spec| &spec.image);
    version.force_update == now.force_update
        && image == now.container_spec.as_ref().map(|spec| &spec.image)
        && since >= time(&status.started_at)
}

impl Service {
    /// How far its last update has come.
    pub(super) fn update(&self) -> Option<UpdateStatus> {
        let status = self.update_status.as_ref()?;
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Some(UpdateStatus {
            state: text(&status.state)?,
            message: status.message.clone(),
            started_at: text(&status.started_at),
            completed_at: text(&status.completed_at),
        })
    }
}

impl Task {
    /// Failed, refused by its node, or waiting for a node that does not come.
    fn has_failed(&self) -> bool {
        !self.status.err.is_empty() && matches!(self.state(), "failed" | "rejected" | "pending")
    }
}

fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

/// The beginning of a text that may be very long.
fn cut(text: &str) -> String {
    let mut end = text.len().min(MOST_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(update: &Value) -> Service {
        let service = json!({
            "ID": "s", "Spec": { "Name": "echo", "Mode": { "Replicated": { "Replicas": 1 } } }, "UpdateStatus": update,
        });
        serde_json::from_value(service).unwrap()
    }

    fn task(id: &str, state: &str, second: u32, err: &str) -> Task {
        let desired = if matches!(state, "running" | "pending") {
            "running"
        } else {
            "shutdown"
        };
        let task = json!({
            "ID": id, "ServiceID": "s", "NodeID": "n", "DesiredState": desired,
            "Status": { "State": state, "Timestamp": format!("2026-01-01T00:00:{second:02}.5Z"), "Err": err },
        });
        serde_json::from_value(task).unwrap()
    }

    fn error(update: &Value, tasks: &[Task]) -> Option<String> {
        last_error(&service(update), tasks.iter()).map(|(error, _)| error.task)
    }

    #[test]
    fn the_last_error_is_of_the_version_that_is_rolled_out_or_of_the_task_that_stopped_it() {
        let tasks = [
            task("old", "failed", 1, "task: non-zero exit (1)"),
            task("culprit", "rejected", 20, "No such image: a"),
            task("late", "failed", 30, "task: non-zero exit (2)"),
            task("stopped", "shutdown", 40, ""),
        ];
        assert_eq!(error(&Value::Null, &tasks).as_deref(), Some("late"));
        let updating = json!({ "State": "updating", "StartedAt": "2026-01-01T00:00:10Z", "Message": "update in progress" });
        assert_eq!(error(&updating, &tasks).as_deref(), Some("late"));
        assert_eq!(error(&updating, &tasks[..1]), None, "from before it");
        let mut restarted = tasks[2].clone();
        restarted.spec.force_update = 7;
        assert_eq!(error(&updating, &[restarted]), None, "an older version's");
        let paused = json!({ "State": "paused", "StartedAt": "2026-01-01T00:00:10Z",
            "Message": "update paused due to failure or early termination of task culprit" });
        assert_eq!(error(&paused, &tasks).as_deref(), Some("culprit"));
        let waiting = [task(
            "w",
            "pending",
            1,
            "no suitable node (scheduling constraints)",
        )];
        assert_eq!(error(&Value::Null, &waiting).as_deref(), Some("w"));
    }

    #[test]
    fn ended_tasks_are_asked_for_only_where_something_is_wrong() {
        let mut failures = Failures::default();
        let (well, running) = (
            service(&json!({ "State": "completed" })),
            [task("r", "running", 1, "")],
        );
        assert_eq!(failures.ended_path(&[&well], &running), None);
        let path = failures.ended_path(&[&well], &[]).unwrap();
        assert!(path.ends_with("%5B%22s%22%5D%7D"), "{path}");
        assert_eq!(
            failures.ended_path(&[&well], &[]),
            None,
            "not so soon again"
        );
        let errors = failures.note(
            &[&well],
            &[],
            Some(vec![task("f", "failed", 1, &"é".repeat(400))]),
        );
        assert_eq!(errors["s"].message.len(), MOST_MESSAGE);
        let again = failures.note(&[&well], &running, None);
        assert_eq!(again.len(), 1, "it may fail again in a moment");
        assert!(failures.note(&[], &[], None).is_empty());
    }
}
