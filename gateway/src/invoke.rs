//! The story of a call: find the function, wait until it is awake, pick an endpoint, forward.

mod attempts;
pub mod balance;
mod error;
pub mod forward;
pub mod headers;
mod origin;
mod retry;
pub mod suggest;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::WWW_AUTHENTICATE;
use hyper::{Response, StatusCode};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::attempts::{Limit, Waited};
pub use self::error::InvokeError;
use self::forward::Answer;
pub use self::origin::Origin;
use self::retry::Outgoing;
use self::tunnel::Tunnel;
use crate::auth::{Denied, Gate, KEY_CHALLENGE};
use crate::connection::{After, Received};
use crate::discovery::{Freshness, Remedies};
use crate::drain::Drain;
use crate::endpoint::Lease;
use crate::function::Deployment;
use crate::incoming::{Asked, Upgrade};
use crate::metrics::{Call, Metrics, Refused};
use crate::probe::Prober;
use crate::reply::{self, Body, Failure};
use crate::table::{Function, Table};
use crate::told::{Ids, Told};
use crate::turnstile::{Place, Turnstile};
use crate::upload::Progress;

/// The limits of a call, where the function sets none of its own.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// To connect to an endpoint.
    pub connect: Duration,
    /// To the response head.
    pub timeout: Duration,
    /// Between two chunks of the response body.
    pub idle: Duration,
    /// How long a call waits for a copy that is on its way.
    pub patience: Duration,
    /// Bytes of a request body.
    pub max_body: u64,
}

/// What the invokers of all workers share.
#[derive(Clone)]
pub struct Shared {
    /// Where functions are found.
    pub table: Table,
    /// How fresh the table is.
    pub freshness: Freshness,
    /// Who looks after an endpoint that refused a connection.
    pub prober: Prober,
    /// Tells discovery that a call failed to connect.
    pub nudge: Arc<Notify>,
    /// Counts of what reached no function.
    pub metrics: Arc<Metrics>,
    /// Who may call functions that ask for a key.
    pub gate: Arc<Gate>,
    /// How many calls of all functions run side by side, if that is limited.
    pub turnstile: Option<Arc<Turnstile>>,
    /// What callers are advised to do about a function that cannot take a call.
    pub remedies: Remedies,
    /// The defaults.
    pub limits: CallLimits,
    /// Whether what is the operators', such as the names of functions, is on a port of its own.
    pub calls_only: bool,
}

/// Calls functions for one worker, on that worker's own connections.
pub struct Invoker {
    shared: Shared,
    worker: usize,
    drain: Drain,
}

/// A call that an endpoint has answered: the response, and what the call holds until its body has ended.
struct Taken {
    response: Response<Received>,
    lease: Lease,
    /// Its request's body, if there is one.
    upload: Option<Progress>,
}

impl Taken {
    /// Throws the answer away, and keeps its connection if all of the answer is there: a watchdog's refusals are short.
    fn keep_connection(self, worker: usize) {
        let mut body = self.response.into_body();
        while let Some(Some(Ok(_piece))) = body.frame().now_or_never() {}
        if body.is_end_stream()
            && let After::Free(connection) = body.after()
        {
            self.lease.endpoint().keep_idle(worker, connection);
        }
    }
}

impl Invoker {
    /// The invoker of one worker.
    #[must_use]
    pub fn new(shared: Shared, worker: usize, drain: Drain) -> Self {
        Self {
            shared,
            worker,
            drain,
        }
    }

    /// Calls a function and answers whatever happens. `request` is as the function shall see it, headers and path done, but for
    /// what it is `told` of the call; `upgrade` is the client's connection if that may become a tunnel.
    pub async fn call(
        &self,
        name: &str,
        mut request: Asked,
        told: &Told<'_>,
        upgrade: Option<Upgrade>,
    ) -> Response<Body> {
        let arrived = Instant::now();
        let Some(function) = self.find(name).await else {
            self.shared.metrics.refused(Refused::NotFound);
            return refuse(name, &self.unknown(name), told.ids);
        };
        if function.deployment.handling.asks_key {
            let full_name = function.deployment.name.as_str();
            let admitted = self
                .shared
                .gate
                .admit_call(request.headers_mut(), full_name);
            if let Err(denied) = admitted {
                self.shared.metrics.refused(Refused::Unauthorized);
                return turn_away(full_name, denied, told.ids);
            }
        }
        let mut call = Call::begin(function.metrics.clone());
        match self
            .deliver(function, request, told, &mut call, arrived)
            .await
        {
            Ok((taken, idle)) if taken.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let (head, body) = taken.response.into_parts();
                let (Some(client), Received::One(function)) = (upgrade, body) else {
                    call.answered(InvokeError::Unasked.status().as_u16());
                    return refuse(name, &InvokeError::Unasked, told.ids);
                };
                call.answered(head.status.as_u16());
                Tunnel {
                    lease: taken.lease,
                    call,
                    idle,
                    guest: self.drain.guest(),
                }
                .begin(client, *function, head)
            }
            Ok((taken, idle)) => {
                let Taken {
                    response,
                    lease,
                    upload,
                } = taken;
                call.answered(response.status().as_u16());
                tracing::debug!(
                    function = name,
                    status = response.status().as_u16(),
                    id = told.ids.call_id(),
                    "answered"
                );
                let (mut head, body) = response.into_parts();
                headers::inbound(&mut head.headers);
                let answer = Answer::new(body, lease, upload, self.worker, call, idle);
                Response::from_parts(head, Body::stream(answer))
            }
            Err(error) => {
                call.answered(error.status().as_u16());
                refuse(name, &error, told.ids)
            }
        }
    }

    async fn find(&self, name: &str) -> Option<Arc<Function>> {
        let found = self.shared.table.find(name);
        if found.is_some() || self.shared.table.is_published() {
            return found;
        }
        Box::pin(self.listed()).await;
        self.shared.table.find(name)
    }

    /// A gateway that has just started waits for its first listing, unless that has failed already.
    pub async fn listed(&self) {
        let Shared { table, limits, .. } = &self.shared;
        if !table.is_published() && self.shared.freshness.trouble().is_none() {
            table.published(limits.patience).await;
        }
    }

    /// Where functions are found.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.shared.table
    }

    fn unknown(&self, name: &str) -> InvokeError {
        let snapshot = self.shared.table.snapshot();
        if let Some(why) = snapshot.elsewhere(name) {
            return InvokeError::Elsewhere(why.to_owned());
        }
        if !self.shared.table.is_published() {
            let why = self
                .shared
                .freshness
                .trouble()
                .unwrap_or_else(|| "the first listing is still on its way".to_owned());
            return InvokeError::NothingListed(why);
        }
        if self.shared.calls_only {
            return InvokeError::Unlisted;
        }
        InvokeError::Unknown(suggest::near(name, snapshot.names()).map(str::to_owned))
    }

    async fn deliver(
        &self,
        function: Arc<Function>,
        request: Asked,
        told: &Told<'_>,
        call: &mut Call,
        arrived: Instant,
    ) -> Result<(Taken, Duration), InvokeError> {
        let limits = function.deployment.limits;
        let max_body = limits.max_body.unwrap_or(self.shared.limits.max_body);
        let outgoing = Outgoing::new(request, told, max_body)?;
        let mut limit = Limit::new(
            arrived,
            limits.timeout.unwrap_or(self.shared.limits.timeout),
        );
        call.keep(self.admitted(&function, &mut limit).await?);
        let function = self.awake(function, &mut limit).await?;
        let taken = self.attempts(function, &outgoing, call, limit).await?;
        Ok((
            taken,
            limits.idle_timeout.unwrap_or(self.shared.limits.idle),
        ))
    }

    /// Room for the call, at once or after waiting for it: first at the function's own turnstile, then at the gateway's.
    async fn admitted(
        &self,
        function: &Function,
        limit: &mut Limit,
    ) -> Result<[Option<Place>; 2], InvokeError> {
        let own = match &function.turnstile {
            None => None,
            Some(turnstile) => Some(
                self.place(turnstile, limit, InvokeError::FunctionFull)
                    .await?,
            ),
        };
        let all = match &self.shared.turnstile {
            None => None,
            Some(turnstile) => Some(
                self.place(turnstile, limit, InvokeError::GatewayFull)
                    .await?,
            ),
        };
        Ok([own, all])
    }

    /// Room at one turnstile. The wait is part of the call's time.
    async fn place(
        &self,
        turnstile: &Turnstile,
        limit: &mut Limit,
        full: fn(usize) -> InvokeError,
    ) -> Result<Place, InvokeError> {
        if let Some(place) = turnstile.enter_now() {
            return Ok(place);
        }
        let patience = self.shared.limits.patience;
        let began = Instant::now();
        let entered = Box::pin(turnstile.enter(patience.min(limit.left()))).await;
        limit.waited(Waited::InLine, began);
        match entered {
            Some(place) => Ok(place),
            None if limit.left().is_zero() => Err(limit.exhausted()),
            None => Err(full(turnstile.most())),
        }
    }

    /// The function with an endpoint that takes calls, after waiting for a copy that is on its way.
    async fn awake(
        &self,
        function: Arc<Function>,
        limit: &mut Limit,
    ) -> Result<Arc<Function>, InvokeError> {
        if function.is_ready() {
            return Ok(function);
        }
        let name = function.deployment.name.as_str();
        let patience = self.shared.limits.patience.min(limit.left());
        let began = Instant::now();
        let ready = self.shared.table.ready(name, patience);
        let function = Box::pin(ready).await.ok_or_else(|| self.unknown(name))?;
        limit.waited(Waited::ForReplica, began);
        match function.endpoints.len() {
            _ if function.is_ready() => Ok(function),
            _ if limit.left().is_zero() => Err(limit.exhausted()),
            0 => Err(self.no_replica(&function)),
            _ => Err(self.none_ready(&function)),
        }
    }

    fn no_replica(&self, function: &Function) -> InvokeError {
        let Deployment { name, replicas, .. } = &function.deployment;
        let remedy = match replicas.desired {
            0 => self.shared.remedies.scaled_to_zero,
            _ => self.shared.remedies.not_running,
        };
        InvokeError::NoReplica {
            desired: replicas.desired,
            remedy: remedy(name.as_str()),
        }
    }

    /// Replicas are listed and none takes calls, or all left between two looks at the table.
    fn none_ready(&self, function: &Function) -> InvokeError {
        InvokeError::NoneReady {
            listed: function.endpoints.len(),
            remedy: (self.shared.remedies.not_accepting)(function.deployment.name.as_str()),
        }
    }
}

/// Answers whoever has no key for this function.
fn turn_away(name: &str, denied: Denied, ids: &Ids) -> Response<Body> {
    let mut response = reply::failure(&Failure {
        status: denied.status(),
        sentence: denied.sentence(&format!("function '{name}'")),
        cause: String::new(),
        call_id: ids.call_id(),
        retry_after: denied.retry_after(),
    });
    if denied.status() == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, KEY_CHALLENGE);
    }
    response
}

fn refuse(name: &str, error: &InvokeError, ids: &Ids) -> Response<Body> {
    reply::failure(&Failure {
        status: error.status(),
        sentence: error.sentence(name),
        cause: error.to_string(),
        call_id: ids.call_id(),
        retry_after: error.retry_after(),
    })
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::connection::Connection;
    use crate::endpoint::Endpoint;
    use crate::function::{Address, Handling};
    use crate::http1::Http1;
    use crate::life::Event;
    use crate::upload::Upload;

    #[tokio::test]
    async fn the_connection_of_a_refusal_carries_the_next_call() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(socket), listener.accept());
        let mut theirs = theirs.unwrap().0;
        let address = Address {
            id: "t".into(),
            socket,
        };
        let metrics = Metrics::new().function("f");
        let endpoint = Arc::new(Endpoint::new(address, &Handling::default(), metrics, 1));
        endpoint.meet(Event::Accepted, "connected");
        let connection = Connection::One(Box::new(Http1::new(ours.unwrap())));
        let request = Request::get("/").body(()).unwrap();
        let waiting = connection.send(&request, None, Upload::empty());
        let refuses = async {
            let read = theirs.read(&mut [0; 1024]).await.unwrap();
            assert!(read > 0);
            let refusal = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\nno";
            theirs.write_all(refusal).await.unwrap();
        };
        let due = Instant::now() + Duration::from_secs(10);
        let (answer, ()) = tokio::join!(waiting.answer_by(due), refuses);
        let Ok(Ok(response)) = answer else {
            panic!("no answer");
        };
        let lease = Lease::new(endpoint.clone());
        let taken = Taken {
            response,
            lease,
            upload: None,
        };
        taken.keep_connection(0);
        assert!(endpoint.take_idle(0).is_some());
    }
}
