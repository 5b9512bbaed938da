//! The story of a call: find the function, wait until it is awake, pick an endpoint, forward.

pub mod balance;
pub mod connect;
mod error;
pub mod forward;
pub mod headers;
pub mod suggest;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HeaderValue;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use tokio::sync::Notify;

use self::connect::{ConnectError, connect};
pub use self::error::InvokeError;
use self::forward::Answer;
use self::tunnel::Tunnel;
use crate::discovery::Freshness;
use crate::drain::Drain;
use crate::endpoint::{Connection, Endpoint, Lease};
use crate::metrics::{Call, Metrics, Refused};
use crate::probe::Prober;
use crate::reply::{self, Body, Failure};
use crate::table::{Function, Table};

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
    /// The defaults.
    pub limits: CallLimits,
}

/// Calls functions for one worker, on that worker's own connections.
pub struct Invoker {
    shared: Shared,
    worker: usize,
    drain: Drain,
    http: http1::Builder,
}

/// Why one attempt on one endpoint gave no response.
enum Attempt {
    /// Nothing of the request was sent: it can go elsewhere.
    Unsent(Box<Request<Incoming>>, String),
    /// It may have run.
    Failed(InvokeError),
}

impl Invoker {
    /// The invoker of one worker.
    #[must_use]
    pub fn new(shared: Shared, worker: usize, drain: Drain) -> Self {
        Self {
            shared,
            worker,
            drain,
            http: http1::Builder::new(),
        }
    }

    /// Calls a function and answers whatever happens. `request` is as the function shall see it, headers and path done;
    /// `upgrade` is the client's connection if that may become a tunnel.
    pub async fn call(
        &self,
        name: &str,
        request: Request<Incoming>,
        upgrade: Option<OnUpgrade>,
        call_id: &HeaderValue,
    ) -> Response<Body> {
        let Some(function) = self.find(name).await else {
            self.shared.metrics.refused(Refused::NotFound);
            return refuse(name, &self.unknown(name), call_id);
        };
        let mut call = Call::begin(function.metrics.clone());
        match self.deliver(function, request, &call).await {
            Ok((response, lease, _, idle))
                if response.status() == StatusCode::SWITCHING_PROTOCOLS =>
            {
                let Some(client) = upgrade else {
                    let error = InvokeError::Broken(
                        "it switched protocols, and nobody had asked for that".to_owned(),
                    );
                    call.answered(error.status().as_u16());
                    return refuse(name, &error, call_id);
                };
                call.answered(response.status().as_u16());
                let tunnel = Tunnel::new(lease, call, idle, self.drain.guest(), response.headers());
                begin(tunnel, client, response)
            }
            Ok((response, lease, connection, idle)) => {
                call.answered(response.status().as_u16());
                tracing::debug!(function = name, status = response.status().as_u16(), id = ?call_id, "answered");
                let (mut head, body) = response.into_parts();
                headers::inbound(&mut head.headers);
                Response::from_parts(
                    head,
                    Body::stream(Answer::new(
                        body,
                        lease,
                        connection,
                        self.worker,
                        call,
                        idle,
                    )),
                )
            }
            Err(error) => {
                call.answered(error.status().as_u16());
                refuse(name, &error, call_id)
            }
        }
    }

    /// The function; a gateway that has just started waits for its first listing.
    async fn find(&self, name: &str) -> Option<Arc<Function>> {
        let found = self.shared.table.find(name);
        if found.is_some()
            || self.shared.table.is_published()
            || self.shared.freshness.trouble().is_some()
        {
            return found;
        }
        self.shared
            .table
            .published(self.shared.limits.patience)
            .await;
        self.shared.table.find(name)
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
        InvokeError::Unknown(suggest::near(name, snapshot.names()).map(str::to_owned))
    }

    async fn deliver(
        &self,
        function: Arc<Function>,
        request: Request<Incoming>,
        call: &Call,
    ) -> Result<(Response<Incoming>, Lease, Connection, Duration), InvokeError> {
        let function = self.awake(function).await?;
        let limits = function.deployment.limits;
        let timeout = limits.timeout.unwrap_or(self.shared.limits.timeout);
        let attempts = tokio::time::timeout(timeout, self.attempts(function, request, call)).await;
        let (response, lease, connection) =
            attempts.map_err(|_elapsed| InvokeError::TimedOut(timeout))??;
        Ok((
            response,
            lease,
            connection,
            limits.idle_timeout.unwrap_or(self.shared.limits.idle),
        ))
    }

    /// The function with an endpoint that takes calls, after waiting for a copy that is on its way.
    async fn awake(&self, function: Arc<Function>) -> Result<Arc<Function>, InvokeError> {
        if function.is_ready() {
            return Ok(function);
        }
        let name = function.deployment.name.as_str();
        let function = self
            .shared
            .table
            .ready(name, self.shared.limits.patience)
            .await
            .ok_or(InvokeError::Unknown(None))?;
        match function.endpoints.len() {
            _ if function.is_ready() => Ok(function),
            0 => Err(InvokeError::NoReplica(function.deployment.replicas.desired)),
            listed => Err(InvokeError::NoneReady(listed)),
        }
    }

    /// Tries endpoints, each at most once, until one has taken the request.
    async fn attempts(
        &self,
        mut function: Arc<Function>,
        mut request: Request<Incoming>,
        call: &Call,
    ) -> Result<(Response<Incoming>, Lease, Connection), InvokeError> {
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        let mut last_cause = String::new();
        loop {
            let Some(endpoint) = balance::pick(&function.endpoints, &tried) else {
                // The world may have changed while this snapshot of it was tried.
                function = self
                    .newer(&function)
                    .ok_or(InvokeError::Refused(last_cause.clone()))?;
                continue;
            };
            if !tried.is_empty() {
                call.function().retried();
            }
            let lease = Lease::new(endpoint.clone());
            match self.attempt(&function, &lease, request, call).await {
                Ok((response, connection)) => return Ok((response, lease, connection)),
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Unsent(unsent, cause)) => {
                    tried.push(endpoint);
                    request = *unsent;
                    last_cause = cause;
                }
            }
        }
    }

    /// The function as it is now, if that is not how it was.
    fn newer(&self, function: &Arc<Function>) -> Option<Arc<Function>> {
        let now = self.shared.table.find(function.deployment.name.as_str())?;
        (!Arc::ptr_eq(&now, function)).then_some(now)
    }

    /// One endpoint: on a connection that lies ready, else on a new one.
    async fn attempt(
        &self,
        function: &Function,
        lease: &Lease,
        mut request: Request<Incoming>,
        call: &Call,
    ) -> Result<(Response<Incoming>, Connection), Attempt> {
        if let Some(connection) = lease.endpoint().take_idle(self.worker) {
            match send(connection, request).await {
                // The other side had closed it; a new one will do.
                Err(Attempt::Unsent(unsent, _)) => request = *unsent,
                done => return done,
            }
            call.function().retried();
        }
        let to = lease.endpoint().address().socket;
        match connect(&self.http, to, self.shared.limits.connect).await {
            Ok(connection) => send(connection, request).await,
            Err(error) => {
                self.refused(function, lease.endpoint(), &error, call);
                Err(Attempt::Unsent(Box::new(request), error.to_string()))
            }
        }
    }

    /// No connection to this endpoint: unless it is our own fault, no further call goes there until the prober got through.
    fn refused(
        &self,
        function: &Function,
        endpoint: &Arc<Endpoint>,
        error: &ConnectError,
        call: &Call,
    ) {
        call.function().connect_failed();
        self.shared.nudge.notify_one();
        let ejects = match error {
            ConnectError::Ours(..) => false,
            ConnectError::Refused(..) => true,
            // Silence may be too much work. Without it there would be nobody at all.
            ConnectError::Silent(..) => function.available() > 1,
        };
        if ejects && endpoint.refused() {
            tracing::warn!(endpoint = %endpoint.address().socket, cause = %error, "endpoint ejected");
            self.shared.prober.watch(endpoint.clone());
        }
    }
}

/// Begins a tunnel beside the answer that tells the client of it.
fn begin(tunnel: Tunnel, client: OnUpgrade, mut response: Response<Incoming>) -> Response<Body> {
    let function = hyper::upgrade::on(&mut response);
    let (mut head, _) = response.into_parts();
    headers::inbound(&mut head.headers);
    if let Some(protocol) = tunnel.protocol() {
        headers::switch(&mut head.headers, protocol.clone());
    }
    tokio::spawn(tunnel.run(client, function));
    Response::from_parts(head, Body::from(""))
}

async fn send(
    mut connection: Connection,
    request: Request<Incoming>,
) -> Result<(Response<Incoming>, Connection), Attempt> {
    match connection.try_send_request(request).await {
        Ok(response) => Ok((response, connection)),
        Err(mut error) => Err(match error.take_message() {
            Some(unsent) => Attempt::Unsent(Box::new(unsent), error.error().to_string()),
            None => Attempt::Failed(classify(error.error())),
        }),
    }
}

/// Whose fault it is that a connection carried a request and no response.
fn classify(error: &hyper::Error) -> InvokeError {
    if error.is_user() {
        return InvokeError::BadBody(causes(error));
    }
    if error.is_parse() {
        return InvokeError::Broken(format!("what it sent is not HTTP ({})", causes(error)));
    }
    InvokeError::Broken(format!(
        "it closed the connection before it answered ({})",
        causes(error)
    ))
}

fn causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn refuse(name: &str, error: &InvokeError, call_id: &HeaderValue) -> Response<Body> {
    reply::failure(&Failure {
        status: error.status(),
        sentence: error.sentence(name),
        cause: error.to_string(),
        call_id,
        retry_after: error.retry_after(),
    })
}
