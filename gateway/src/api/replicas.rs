//! Replicas through the management API: told, and ended one by one or all in turn.

use std::time::Duration;

use hyper::{Response, StatusCode};

use super::caller::Caller;
use super::manager::{Manager, invalid, noted};
use crate::discovery::operate::Failed;
use crate::discovery::usage::Usage;
use crate::function::FunctionName;
use crate::reply::{self, Body};

/// How long a description waits for what the replicas use.
const USAGE_PATIENCE: Duration = Duration::from_secs(3);

impl Manager {
    pub(super) async fn replicas(&self, name: &str) -> Result<Response<Body>, Failed> {
        let replicas = self.operator.replicas(self.full_name(name)?).await?;
        Ok(reply::json(StatusCode::OK, &replicas))
    }

    /// What a function's replicas use; nothing where that cannot be seen, or not in time.
    pub(super) async fn usage(&self, name: &FunctionName) -> Option<Usage> {
        let usage = tokio::time::timeout(USAGE_PATIENCE, self.operator.usage(name.clone()));
        match usage.await {
            Ok(Ok(usage)) => usage,
            Ok(Err(failed)) => {
                tracing::debug!(function = %name, "no usage: {}", failed.sentence);
                None
            }
            Err(_elapsed) => {
                tracing::debug!(function = %name, "no usage within {USAGE_PATIENCE:?}");
                None
            }
        }
    }

    pub(super) async fn end_replicas(
        &self,
        name: &str,
        caller: &Caller,
    ) -> Result<Response<Body>, Failed> {
        let name = FunctionName::new(name).map_err(|error| invalid(error.to_string()))?;
        noted(
            caller,
            "end all replicas",
            &name,
            self.operator.end_replicas(name.clone(), caller.authority()),
        )
        .await?;
        self.seen().await;
        Ok(reply::text(StatusCode::ACCEPTED, ""))
    }

    pub(super) async fn end_replica(
        &self,
        name: &str,
        id: String,
        caller: &Caller,
    ) -> Result<Response<Body>, Failed> {
        let name = FunctionName::new(name).map_err(|error| invalid(error.to_string()))?;
        let what = format!("end replica {id}");
        noted(
            caller,
            &what,
            &name,
            self.operator
                .end_replica(name.clone(), id, caller.authority()),
        )
        .await?;
        self.seen().await;
        Ok(reply::text(StatusCode::ACCEPTED, ""))
    }

    /// A function by its full or its short name, as reads may call it.
    pub(super) fn full_name(&self, name: &str) -> Result<FunctionName, Failed> {
        let known = self
            .pages
            .table
            .find(name)
            .map(|function| function.deployment.name.clone());
        known.map_or_else(
            || FunctionName::new(name).map_err(|error| invalid(format!("name: {error}"))),
            Ok,
        )
    }
}
