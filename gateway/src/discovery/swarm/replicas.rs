//! The replicas of a function on a Swarm: its tasks, told one by one, ended one by one or all in turn.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::Swarm;
use super::engine::EngineError;
use super::{ownership, spec};
use crate::discovery::operate::{Authority, Failed, Replica, Trouble};
use crate::function::FunctionName;

/// A task, as far as we tell of it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "NodeID", default)]
    node: String,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    desired_state: String,
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    #[serde(default)]
    state: String,
    #[serde(default)]
    err: String,
    #[serde(default)]
    container_status: Option<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(rename = "ContainerID", default)]
    id: String,
}

impl From<Told> for Replica {
    fn from(task: Told) -> Self {
        Self {
            id: task.id,
            node: task.node,
            state: task.status.state,
            desired_state: task.desired_state,
            created_at: task.created_at,
            error: Some(task.status.err).filter(|error| !error.is_empty()),
        }
    }
}

impl Swarm {
    /// Every task that Docker remembers, the newest first.
    pub(super) async fn replicas_of(&self, name: &FunctionName) -> Result<Vec<Replica>, Failed> {
        let mut tasks = self.tasks_of(name).await?;
        tasks.sort_by(|a, b| b.created_at.cmp(&a.created_at));
        Ok(tasks.into_iter().map(Replica::from).collect())
    }

    /// The containers of its tasks that run on our own node.
    pub(super) async fn containers_here(&self, name: &FunctionName) -> Result<Vec<String>, Failed> {
        let (tasks, node) = tokio::try_join!(self.tasks_of(name), self.own_node())?;
        let here = tasks
            .into_iter()
            .filter(|task| node == task.node && task.status.state == "running");
        let containers = here.filter_map(|task| Some(task.status.container_status?.id));
        Ok(containers.collect())
    }

    /// The node whose engine we speak to.
    async fn own_node(&self) -> Result<Value, Failed> {
        let info: Value = self
            .engine
            .get("/info")
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(info["Swarm"]["NodeID"].clone())
    }

    async fn tasks_of(&self, name: &FunctionName) -> Result<Vec<Told>, Failed> {
        let current = self.current(name).await?;
        let path = format!(
            "/tasks?filters=%7B%22service%22%3A%5B%22{}%22%5D%7D",
            current.id
        );
        self.engine
            .get(&path)
            .await
            .map_err(|error| self.failed(&error))
    }

    /// Ends one task: TERM to its container, and Swarm makes another. Works on our own node only, whose engine we speak to.
    pub(super) async fn end_one(
        &self,
        name: &FunctionName,
        id: &str,
        authority: Authority,
    ) -> Result<(), Failed> {
        let unknown = || {
            Failed::new(
                Trouble::Unknown,
                format!("function '{name}' has no replica '{id}' that runs"),
            )
        };
        let (network, _) = self.attached().await?;
        ownership::check(&self.current(name).await?.spec, authority, &network.id)?;
        let tasks = self.tasks_of(name).await?;
        let task = tasks
            .into_iter()
            .find(|task| task.id == id && task.status.state == "running")
            .ok_or_else(unknown)?;
        if self.own_node().await? != task.node {
            let hint = "end them all instead, or use docker on that node";
            return Err(Failed::new(
                Trouble::Unsupported,
                format!(
                    "replica '{id}' runs on the node {}, which this gateway's engine cannot reach into: {hint}",
                    task.node
                ),
            ));
        }
        let container = task
            .status
            .container_status
            .map(|container| container.id)
            .ok_or_else(unknown)?;
        let ended = self
            .engine
            .post(
                &format!("/containers/{container}/kill?signal=TERM"),
                &Value::Null,
                None,
            )
            .await;
        match ended {
            Ok(_) => Ok(()),
            // It ended by itself just now.
            Err(EngineError::Says(StatusCode::NOT_FOUND | StatusCode::CONFLICT, _)) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Replaces all tasks, one after the other, each by one that runs before it is ended.
    pub(super) async fn replace_all(
        &self,
        name: &FunctionName,
        authority: Authority,
    ) -> Result<(), Failed> {
        let (network, _) = self.attached().await?;
        let change = |mut spec: Value| {
            ownership::check(&spec, authority, &network.id)?;
            spec::roll(&mut spec);
            Ok(spec)
        };
        self.write(|| self.current(name), None, change)
            .await
            .map(drop)
    }
}
