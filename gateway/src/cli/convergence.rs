//! Waits until a deployment has converged: all replicas of the new version are ready, or Swarm gave it up.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde_json::Value;

use super::client::{get, text};
use super::gateway::Gateway;

/// How long a deployment may take.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(200);
/// An update that starts no task shows none within this time: what it changed needs no new container.
const FIRST_TASK: Duration = Duration::from_secs(2);
/// Swarm starts failed tasks again for ever. After this many failures in a row we stop waiting.
const MAX_FAILURES: usize = 3;

/// What a function was before a deployment, to tell old replicas and updates from new ones.
#[derive(Debug, Default)]
pub(super) struct Before {
    exists: bool,
    tasks: BTreeSet<String>,
    update_started: Option<String>,
}

impl Before {
    /// Looks at a function; one that does not exist yet is no error.
    ///
    /// # Errors
    /// Why the gateway cannot say.
    pub(super) async fn look(gateway: &Gateway, name: &str) -> Result<Self, String> {
        let path = format!("/system/function/{name}");
        let answer = gateway.ask(Method::GET, &path, None).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Self::default());
        }
        let function: Value =
            serde_json::from_slice(&answer.success()?).map_err(|error| error.to_string())?;
        let replicas = get(gateway, &format!("{path}/replicas")).await?;
        Ok(Self {
            exists: true,
            tasks: list(&replicas).map(|task| text(&task["id"])).collect(),
            update_started: update_started(&function),
        })
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn update_started(function: &Value) -> Option<String> {
    let started = &function["updateStatus"]["startedAt"];
    started.as_str().map(str::to_owned)
}

/// A deployment at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    desired: u64,
    /// Replicas that take calls, old and new.
    ready: u64,
    /// Those of the new version.
    ready_new: u64,
    /// Tasks of the new version, whatever became of them.
    new_tasks: usize,
    /// What the new tasks failed of, newest first.
    errors: Vec<String>,
    /// State and message of an update that began with this deployment.
    update: Option<(String, String)>,
}

impl Progress {
    fn of(before: &Before, function: &Value, replicas: &Value) -> Self {
        let is_new = |id: &Value| !before.tasks.contains(&text(id));
        let ready: Vec<_> = list(&function["endpoints"])
            .filter(|endpoint| endpoint["state"] == "ready")
            .collect();
        let new_tasks: Vec<_> = list(replicas).filter(|task| is_new(&task["id"])).collect();
        let errors = new_tasks
            .iter()
            .filter_map(|task| task["error"].as_str().map(str::to_owned));
        let status = &function["updateStatus"];
        let began = update_started(function);
        Self {
            desired: function["replicas"].as_u64().unwrap_or(0),
            ready: ready.len() as u64,
            ready_new: ready.iter().filter(|one| is_new(&one["id"])).count() as u64,
            new_tasks: new_tasks.len(),
            errors: errors.collect(),
            update: (began.is_some() && began != before.update_started)
                .then(|| (text(&status["state"]), text(&status["message"]))),
        }
    }

    /// Whether the deployment has ended, and how; `None` while it goes on.
    fn outcome(&self, before: &Before, elapsed: Duration) -> Option<Result<(), String>> {
        let last_error = || self.errors.first().cloned().unwrap_or_default();
        if let Some((state, message)) = &self.update {
            match state.as_str() {
                "rollback_started" | "rollback_paused" | "rollback_completed" => {
                    return Some(Err(join("rolled back", &last_error(), message)));
                }
                "paused" => return Some(Err(join("update paused", &last_error(), message))),
                "updating" => return self.failed_for_good(),
                _ => {}
            }
        }
        let unchanged = before.exists && self.new_tasks == 0;
        if unchanged && self.update.is_none() && elapsed < FIRST_TASK {
            return None;
        }
        let ready = if unchanged {
            self.ready
        } else {
            self.ready_new
        };
        if ready >= self.desired {
            return Some(Ok(()));
        }
        self.failed_for_good()
    }

    fn failed_for_good(&self) -> Option<Result<(), String>> {
        let given_up = self.ready_new == 0 && self.errors.len() >= MAX_FAILURES;
        given_up.then(|| {
            let count = self.errors.len();
            let error = &self.errors[0];
            Err(format!("{count} replicas failed to run: {error}"))
        })
    }

    fn line(&self) -> String {
        let of_which = match (self.ready, self.ready_new) {
            (ready, new) if ready > new && new > 0 => format!(", {new} of the new version"),
            _ => String::new(),
        };
        format!(
            "{} of {} replicas ready{of_which}",
            self.ready, self.desired
        )
    }
}

fn join(what: &str, error: &str, message: &str) -> String {
    let parts = [what, error, message];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(": ")
}

/// Waits for a deployment, with its progress and every new error on stderr; returns the line of its success.
///
/// # Errors
/// Why it failed, or that it took too long.
pub(super) async fn wait(gateway: &Gateway, name: &str, before: &Before) -> Result<String, String> {
    let began = Instant::now();
    let (mut shown, mut seen) = (String::new(), BTreeSet::new());
    let mut answered = false;
    let path = format!("/system/function/{name}");
    let replicas_path = format!("{path}/replicas");
    loop {
        let (function, replicas) =
            tokio::try_join!(get(gateway, &path), get(gateway, &replicas_path))?;
        let progress = Progress::of(before, &function, &replicas);
        for error in progress.errors.iter().rev() {
            if seen.insert(error.clone()) {
                eprintln!("{name}: {error}");
            }
        }
        let elapsed = began.elapsed();
        let seconds = elapsed.as_secs_f64();
        if before.exists && progress.ready_new > 0 && !answered {
            answered = true;
            eprintln!("{name}: the new version answers after {seconds:.1} s");
        }
        match progress.outcome(before, elapsed) {
            Some(Ok(())) => {
                return Ok(format!("{name}: {} after {seconds:.1} s", progress.line()));
            }
            Some(Err(why)) => return Err(format!("{name}: {why}")),
            None => {}
        }
        let line = progress.line();
        if line != shown {
            eprintln!("{name}: {line}");
            shown = line;
        }
        if elapsed > PATIENCE {
            return Err(format!(
                "{name}: {shown} after {} s; see `skep describe {name}` and `skep logs {name}`",
                PATIENCE.as_secs()
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn before(exists: bool) -> Before {
        Before {
            exists,
            tasks: ["old".to_owned()].into(),
            update_started: Some("1".to_owned()),
        }
    }

    fn progress(function: &Value, replicas: &Value) -> Progress {
        Progress::of(&before(true), function, replicas)
    }

    const LATER: Duration = Duration::from_secs(3);

    #[test]
    fn an_update_is_done_when_all_replicas_of_the_new_version_are_ready() {
        let function = |state: &str, new: &str| {
            json!({ "replicas": 1, "updateStatus": { "state": state, "startedAt": "2" },
                "endpoints": [{ "id": "old", "state": "ready" }, { "id": "new", "state": new }] })
        };
        let tasks = json!([{ "id": "new" }, { "id": "old" }]);
        for (state, new, done) in [
            ("updating", "starting", false),
            ("updating", "ready", false),
            ("completed", "starting", false),
            ("completed", "ready", true),
        ] {
            let outcome = progress(&function(state, new), &tasks).outcome(&before(true), LATER);
            assert_eq!(outcome.is_some(), done, "{state} {new}");
        }
    }

    #[test]
    fn an_update_that_needs_no_new_task_is_done_without_one() {
        let function = json!({ "replicas": 1, "updateStatus": { "state": "completed", "startedAt": "1" },
            "endpoints": [{ "id": "old", "state": "ready" }] });
        let now = progress(&function, &json!([{ "id": "old" }]));
        assert_eq!(now.outcome(&before(true), Duration::ZERO), None);
        assert_eq!(now.outcome(&before(true), LATER), Some(Ok(())));
    }

    #[test]
    fn a_rollback_and_a_pause_are_failures_with_the_tasks_own_error() {
        for (state, says) in [
            ("rollback_started", "rolled back: No such image: x: why"),
            ("rollback_completed", "rolled back: No such image: x: why"),
            ("paused", "update paused: No such image: x: why"),
        ] {
            let function = json!({ "replicas": 1,
                "updateStatus": { "state": state, "startedAt": "2", "message": "why" } });
            let tasks = json!([{ "id": "new", "error": "No such image: x" }]);
            let outcome = progress(&function, &tasks).outcome(&before(true), LATER);
            assert_eq!(outcome, Some(Err(says.to_owned())));
        }
    }

    #[test]
    fn a_new_function_whose_tasks_fail_is_given_up_and_one_asleep_is_done() {
        let failed = json!({ "id": "t", "error": "No such image: x" });
        let none = Before::default();
        let of = |tasks: Vec<Value>| {
            let now = Progress::of(&none, &json!({ "replicas": 1 }), &Value::Array(tasks));
            now.outcome(&none, LATER)
        };
        assert_eq!(of(vec![failed.clone()]), None);
        let why = of(vec![failed.clone(), failed.clone(), failed]).unwrap();
        assert!(why.unwrap_err().contains("No such image: x"));
        let asleep = Progress::of(&none, &json!({ "replicas": 0 }), &json!([]));
        assert_eq!(asleep.outcome(&none, LATER), Some(Ok(())));
    }
}
