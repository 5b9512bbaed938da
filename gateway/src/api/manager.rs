//! The management API: each operation read, carried out by the provider, told to whoever asked, and noted if it changed anything.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::header::HeaderValue;
use hyper::{Request, Response, StatusCode};
use tokio::sync::Notify;

use super::Pages;
use super::caller::Caller;
use super::fields::Fields;
use super::types::{Description, FunctionStatus, Info};
use super::wanted::Home;
use crate::auth::Gate;
use crate::discovery::operate::{Doing, Failed, Operator, Trouble};
use crate::function::{FunctionName, MAX_REPLICAS};
use crate::incoming::Incoming;
use crate::reply::{self, Body};
use crate::router::Operation;

/// This API in OpenAPI's words, as it stands in docs/.
const OPENAPI: &str = include_str!("../../../docs/openapi.json");
/// The most that a request's body may hold.
const MAX_BODY: usize = 1 << 20;
/// The same for a secret: the largest one is sent twice, as text with escapes and in base64.
const MAX_SECRET_BODY: usize = 4 << 20;
/// How long a request's body may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// How long the answer to a change waits until the table shows it, so that a request that follows sees it.
const SEEN_PATIENCE: Duration = Duration::from_secs(5);

/// What the management API works with.
pub struct Manager {
    /// The functions, and what is told of them.
    pub pages: Arc<Pages>,
    /// Who carries changes out.
    pub operator: Arc<dyn Operator>,
    /// Who may ask.
    pub gate: Arc<Gate>,
    /// The network that functions are on, if there is one.
    pub network: Option<String>,
    /// Something was changed: look now.
    pub nudge: Arc<Notify>,
}

impl Manager {
    /// Carries out an operation for somebody who may ask for it, and answers.
    pub async fn answer(
        &self,
        operation: Operation,
        request: Request<Incoming>,
        peer: &str,
    ) -> Response<Body> {
        let mut caller = Caller::of(request.headers(), peer);
        let address = peer.parse().ok();
        match self.gate.turn(request.headers(), address) {
            Ok(Duration::ZERO) => {}
            Ok(delay) => tokio::time::sleep(delay).await,
            Err(denied) => return caller.denied(denied, &self.pages.metrics),
        }
        match self
            .gate
            .admit(request.headers(), address, operation.needs())
        {
            Ok(who) => caller.who = who,
            Err(denied) => return caller.denied(denied, &self.pages.metrics),
        }
        let done = self.perform(operation, request, &caller).await;
        done.unwrap_or_else(|failed| caller.refused(failed.kind.status(), failed.sentence, None))
    }

    async fn perform(
        &self,
        operation: Operation,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<Response<Body>, Failed> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        if let Some(why) =
            asked(&query, "namespace").and_then(|namespace| self.home().not_here(&namespace))
        {
            return Err(invalid(format!("namespace: {why}")));
        }
        match operation {
            Operation::ListFunctions => self.list(),
            Operation::Describe(name) => self.describe(&name, &query).await,
            Operation::Info => Ok(reply::json(
                StatusCode::OK,
                &Info::of(self.pages.orchestration, &self.pages.ports),
            )),
            Operation::CreateFunction => {
                self.create(fields(request, MAX_BODY).await?, caller).await
            }
            Operation::UpdateFunction => {
                self.update(fields(request, MAX_BODY).await?, caller).await
            }
            Operation::RemoveFunction => {
                self.remove(fields(request, MAX_BODY).await?, caller).await
            }
            Operation::ListNamespaces => Ok(reply::json(StatusCode::OK, &[&*self.pages.namespace])),
            Operation::DescribeNamespace(name) => self.namespace(&name),
            Operation::ChangeNamespace => Err(Failed::new(
                Trouble::Unsupported,
                format!(
                    "namespaces are not made, changed or removed here: all functions are in '{}', so leave the namespace out; a second gateway with a network and a function_namespace of its own is another one",
                    self.pages.namespace
                ),
            )),
            Operation::OpenApi => Ok(reply::typed(
                StatusCode::OK,
                HeaderValue::from_static("application/json"),
                OPENAPI,
            )),
            Operation::Alert => self.alert(fields(request, MAX_BODY).await?, caller).await,
            Operation::ListReplicas(name) => self.replicas(&name).await,
            Operation::EndReplicas(name) => self.end_replicas(&name, caller).await,
            Operation::EndReplica(name, id) => self.end_replica(&name, id, caller).await,
            Operation::Logs => self.logs(&query).await,
            Operation::ListSecrets => self.list_secrets().await,
            Operation::CreateSecret | Operation::UpdateSecret => {
                let is_new = operation == Operation::CreateSecret;
                let fields = fields(request, MAX_SECRET_BODY).await?;
                self.set_secret(is_new, fields, caller).await
            }
            Operation::RemoveSecret => {
                self.remove_secret(fields(request, MAX_BODY).await?, caller)
                    .await
            }
            Operation::ListKeys => self.list_keys(),
            Operation::CreateKey => {
                self.create_key(fields(request, MAX_BODY).await?, caller)
                    .await
            }
            Operation::RevokeKey(id) => self.revoke_key(&id, caller).await,
            Operation::Scale(name) => {
                self.scale(&name, fields(request, MAX_BODY).await?, caller)
                    .await
            }
        }
    }

    fn list(&self) -> Result<Response<Body>, Failed> {
        self.check_listed()?;
        let snapshot = self.pages.table.snapshot();
        let functions = snapshot.functions();
        let mut list: Vec<_> = functions
            .map(|function| FunctionStatus::of(function, &self.pages.namespace))
            .collect();
        list.sort_by(|a, b| a.name.cmp(b.name));
        Ok(reply::json(StatusCode::OK, &list))
    }

    async fn describe(&self, name: &str, query: &str) -> Result<Response<Body>, Failed> {
        let snapshot = self.pages.table.snapshot();
        let Some(function) = snapshot.find(name) else {
            self.check_listed()?;
            return Err(Failed::no_function(name));
        };
        let usage = match asked(query, "usage").as_deref() {
            Some("1" | "true") => self.usage(&function.deployment.name).await,
            _ => None,
        };
        Ok(reply::json(
            StatusCode::OK,
            &Description::of(function, &self.pages.namespace, snapshot.routes(), usage),
        ))
    }

    /// The one namespace there is.
    fn namespace(&self, name: &str) -> Result<Response<Body>, Failed> {
        match self.home().not_here(name) {
            None => Ok(reply::json(
                StatusCode::OK,
                &serde_json::json!({ "name": name }),
            )),
            Some(why) => Err(Failed::new(Trouble::Unknown, format!("namespace: {why}"))),
        }
    }

    /// An empty list would say that there are no functions; nobody knows yet.
    fn check_listed(&self) -> Result<(), Failed> {
        if self.pages.table.is_published() {
            return Ok(());
        }
        let why = self.pages.why_nothing_is_known();
        Err(Failed::new(
            Trouble::Away,
            format!("the functions are not known yet: {why}"),
        ))
    }

    async fn create(&self, fields: Fields, caller: &Caller) -> Result<Response<Body>, Failed> {
        let wanted = self.home().wanted(fields).map_err(invalid)?;
        self.check_route(&wanted)?;
        let name = wanted.name.clone();
        self.check_name(&name)?;
        let notes = noted(
            caller,
            "create function",
            &name,
            self.operator.create(wanted, caller.authority()),
        )
        .await?;
        self.seen().await;
        Ok(accepted(&name, &notes))
    }

    /// A new function must not take the short name of another one, by which that one is called.
    fn check_name(&self, name: &FunctionName) -> Result<(), Failed> {
        let snapshot = self.pages.table.snapshot();
        let holder = snapshot.find(name.as_str()).map(|one| &one.deployment.name);
        match holder {
            Some(holder) if holder != name => Err(Failed::new(
                Trouble::Conflict,
                format!(
                    "service: '{name}' is the short name of '{holder}', and calls go there: choose another name"
                ),
            )),
            _ => Ok(()),
        }
    }

    async fn update(&self, fields: Fields, caller: &Caller) -> Result<Response<Body>, Failed> {
        let wanted = self.home().wanted(fields).map_err(invalid)?;
        self.check_route(&wanted)?;
        let name = wanted.name.clone();
        let notes = noted(
            caller,
            "update function",
            &name,
            self.operator.update(wanted, caller.authority()),
        )
        .await?;
        self.seen().await;
        Ok(accepted(&name, &notes))
    }

    async fn remove(&self, mut fields: Fields, caller: &Caller) -> Result<Response<Body>, Failed> {
        let home = self.home();
        let name = home.name(&mut fields, "functionName");
        home.check_namespace(&mut fields);
        let name = fields
            .finish(name)
            .map_err(invalid)?
            .ok_or_else(|| invalid("functionName: is missing"))?;
        noted(
            caller,
            "remove function",
            &name,
            self.operator.remove(name.clone(), caller.authority()),
        )
        .await?;
        self.seen().await;
        Ok(accepted(&name, &[]))
    }

    async fn scale(
        &self,
        name: &str,
        mut fields: Fields,
        caller: &Caller,
    ) -> Result<Response<Body>, Failed> {
        let home = self.home();
        // Old clients write the name here, too (wire contract §4).
        let named = fields.text("serviceName");
        if named
            .is_some_and(|named| crate::router::without_namespace(&named, home.namespace) != name)
        {
            fields.mistake(
                "serviceName",
                format!("is another function than '{name}' of the path"),
            );
        }
        home.check_namespace(&mut fields);
        let replicas = fields.count("replicas");
        if replicas.is_some_and(|replicas| replicas > MAX_REPLICAS) {
            fields.mistake("replicas", format!("must be {MAX_REPLICAS} at most"));
        }
        let replicas = fields
            .finish(replicas)
            .map_err(invalid)?
            .unwrap_or_default();
        let name = FunctionName::new(name).map_err(|error| invalid(error.to_string()))?;
        let what = format!("scale function to {replicas}");
        noted(
            caller,
            &what,
            &name,
            self.operator
                .scale(name.clone(), replicas, caller.authority()),
        )
        .await?;
        self.seen().await;
        Ok(accepted(&name, &[]))
    }

    /// Waits until the table shows a change that was just made: until a listing that begins now is published.
    pub(super) async fn seen(&self) {
        self.nudge.notify_one();
        self.pages
            .freshness
            .shows_all_until_now(SEEN_PATIENCE)
            .await;
    }

    pub(super) fn home(&self) -> Home<'_> {
        Home {
            namespace: &self.pages.namespace,
            network: self.network.as_deref(),
        }
    }
}

/// Has a change made, and notes who wanted it and what came of it.
pub(super) async fn noted<T>(
    caller: &Caller,
    what: &str,
    name: &impl std::fmt::Display,
    doing: Doing<'_, T>,
) -> Result<T, Failed> {
    let done = doing.await;
    let id = caller.id.to_str().unwrap_or("-");
    let (who, peer) = (&caller.who, &caller.peer);
    // The sentence may have words of others in it: quoted, it cannot pass for the fields of this line.
    match &done {
        Ok(_) => tracing::info!(audit = what, %name, %who, peer, id, "done"),
        Err(Failed { sentence, .. }) => {
            tracing::info!(audit = what, %name, %who, peer, id, why = sentence, "not done");
        }
    }
    done
}

/// Tells whoever asked, and the log, what is worth telling about a change.
fn accepted(name: &FunctionName, notes: &[String]) -> Response<Body> {
    for note in notes {
        tracing::info!(%name, "{note}");
    }
    let lines: String = notes.iter().map(|note| format!("{note}\n")).collect();
    reply::text(StatusCode::ACCEPTED, lines)
}

pub(super) fn invalid(sentence: impl Into<String>) -> Failed {
    Failed::new(Trouble::Invalid, sentence)
}

/// The value of a field of the query.
pub(super) fn asked(query: &str, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
        .filter(|value| !value.is_empty())
}

async fn fields(request: Request<Incoming>, most: usize) -> Result<Fields, Failed> {
    let body = Limited::new(request.into_body(), most).collect();
    let body = tokio::time::timeout(BODY_PATIENCE, body).await;
    let body =
        body.map_err(|_| invalid(format!("the body did not come within {BODY_PATIENCE:?}")))?;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Failed::new(
                Trouble::TooLarge,
                format!("the body has more than {most} bytes"),
            )
        } else {
            invalid(format!("the body could not be read: {error}"))
        }
    })?;
    Fields::parse(&body.to_bytes()).map_err(invalid)
}
