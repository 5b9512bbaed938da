//! From an admitted call to an endpoint that has answered it: each endpoint is tried at most once, and what becomes of a try
//! says what is known of the endpoint.

use std::fmt;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response};

use super::retry::{self, Miss, Outgoing, Word};
use super::{InvokeError, Invoker, Taken, balance};
use crate::connect::{ConnectError, connect};
use crate::connection::Connection;
use crate::endpoint::{Endpoint, Lease, WATCHDOG};
use crate::function::Protocol;
use crate::life::{Event, Fault};
use crate::metrics::{Call, Retried};
use crate::table::Function;
use crate::upload::{Overrun, Upload};

impl Invoker {
    /// Tries endpoints, each at most once, until one has taken the call or it may go nowhere else.
    pub(super) async fn attempts(
        &self,
        mut function: Arc<Function>,
        outgoing: &Outgoing,
        call: &Call,
    ) -> Result<Taken, InvokeError> {
        let retries_idempotent = function.deployment.handling.retries_idempotent;
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        let mut missed: Option<Miss> = None;
        loop {
            let Some(endpoint) = balance::pick(&function.endpoints, &tried) else {
                let miss = missed.take();
                match self.elsewhere(&function, &tried, miss.as_ref()).await {
                    Some(other) => (function, missed) = (other, miss),
                    None => return miss.map_or(Err(none_ready(&function)), Miss::into_answer),
                }
                continue;
            };
            if let Some(miss) = missed.take() {
                if miss.costs() && !function.may_try_again() {
                    return miss.into_answer();
                }
                call.function().retried(miss.cause());
            }
            let lease = Lease::new(endpoint.clone());
            let miss = match self.attempt(&function, lease, outgoing, call).await? {
                Ok(taken) => return Ok(taken),
                Err(miss) => miss,
            };
            if !outgoing.may_follow(&miss, retries_idempotent) {
                return miss.into_answer();
            }
            tried.push(endpoint);
            missed = Some(miss);
        }
    }

    /// The function with an endpoint that was not tried: as it is now, or, where the one that was tried is about to be
    /// replaced, once the other one is there.
    async fn elsewhere(
        &self,
        function: &Arc<Function>,
        tried: &[Arc<Endpoint>],
        miss: Option<&Miss>,
    ) -> Option<Arc<Function>> {
        let name = function.deployment.name.as_str();
        let has_another =
            |function: &Arc<Function>| balance::pick(&function.endpoints, tried).is_some();
        let now = self.shared.table.find(name)?;
        if has_another(&now) || miss.is_none_or(|miss| !miss.is_parting()) {
            return Some(now).filter(has_another);
        }
        let patience = self.shared.limits.patience;
        let later = self.shared.table.ready(name, patience).await;
        later.filter(has_another)
    }

    /// One endpoint: on a connection that lies ready, else on a new one.
    ///
    /// # Errors
    /// The caller's own: what no other endpoint could mend.
    async fn attempt(
        &self,
        function: &Function,
        lease: Lease,
        outgoing: &Outgoing,
        call: &Call,
    ) -> Result<Result<Taken, Miss>, InvokeError> {
        let endpoint = lease.endpoint().clone();
        let mut request = outgoing.request();
        if let Some(connection) = endpoint.take_idle(self.worker) {
            match send(connection, request).await {
                // The other side had closed it; a new one will do.
                Sent::Unsent(_) => request = outgoing.request(),
                sent => return self.judge(function, lease, sent),
            }
            call.function().retried(Retried::Closed);
        }
        let to = endpoint.address().socket;
        let protocol = function.deployment.handling.protocol;
        match connect(&self.http, protocol, to, self.shared.limits.connect).await {
            Ok(connection) => {
                if let Some(shared) = connection.shared() {
                    endpoint.keep_idle(self.worker, shared);
                }
                let sent = send(connection, request).await;
                // Only the first answer of a connection says so, and so only that one is looked at.
                if protocol == Protocol::Http1
                    && let Sent::Answered(response, _) = &sent
                    && response.headers().contains_key(WATCHDOG)
                {
                    endpoint.shows_watchdog(true);
                }
                self.judge(function, lease, sent)
            }
            Err(error) => {
                call.function().connect_failed();
                self.unconnected(function, &endpoint, &error);
                Ok(Err(Miss::Unconnected(error.to_string())))
            }
        }
    }

    /// What became of a request that had a connection, and what that says of the endpoint.
    fn judge(
        &self,
        function: &Function,
        lease: Lease,
        sent: Sent,
    ) -> Result<Result<Taken, Miss>, InvokeError> {
        let endpoint = lease.endpoint();
        match sent {
            Sent::Answered(response, connection) => {
                let word = retry::word(&response);
                match word {
                    None => endpoint.answered(),
                    Some(word) => {
                        endpoint.shows_watchdog(true);
                        if word == Word::Draining {
                            self.eject(endpoint, Fault::Draining, "its watchdog says so");
                        }
                    }
                }
                let taken = Taken {
                    response,
                    lease,
                    connection,
                };
                Ok(match word {
                    None => Ok(taken),
                    Some(word) => Err(Miss::Declined(word, Box::new(taken))),
                })
            }
            Sent::Unsent(cause) => Ok(Err(Miss::Unconnected(cause))),
            Sent::Broken(error) => {
                // One that breaks with every call is better than none.
                if endpoint.has_broken_too_often() && function.available() > 1 {
                    self.eject(endpoint, Fault::Reset, &error);
                }
                Ok(Err(Miss::Broken(error)))
            }
            Sent::CallerFailed(error) => Err(error),
        }
    }

    /// No connection to this endpoint: unless it is our own fault, no further call goes there until the prober got through.
    fn unconnected(&self, function: &Function, endpoint: &Arc<Endpoint>, error: &ConnectError) {
        self.shared.nudge.notify_one();
        match error {
            ConnectError::Ours(..) => {}
            ConnectError::Refused(..) => self.eject(endpoint, Fault::Refused, error),
            // Silence may be too much work. Without it there would be nobody at all.
            ConnectError::Silent(..) if function.available() > 1 => {
                self.eject(endpoint, Fault::Silent, error);
            }
            ConnectError::Silent(..) => {}
        }
    }

    fn eject(&self, endpoint: &Arc<Endpoint>, fault: Fault, why: impl fmt::Display) {
        if endpoint.meet(Event::Failed(fault), why) {
            self.shared.nudge.notify_one();
            self.shared.prober.watch(endpoint.clone());
        }
    }
}

/// Nobody was tried and nobody is left: all endpoints left between two looks at the table.
fn none_ready(function: &Function) -> InvokeError {
    InvokeError::NoneReady(function.endpoints.len())
}

/// What became of a request on a connection.
enum Sent {
    /// There is a response.
    Answered(Response<Incoming>, Connection),
    /// Nothing of it was sent: the connection was closed.
    Unsent(String),
    /// It may have run.
    Broken(InvokeError),
    /// The caller's body did not come to its end.
    CallerFailed(InvokeError),
}

async fn send(mut connection: Connection, request: Request<Upload>) -> Sent {
    match connection.send(request).await {
        Ok(response) => Sent::Answered(response, connection),
        Err(mut error) => match error.take_message() {
            Some(_unsent) => Sent::Unsent(error.error().to_string()),
            None if error.error().is_user() => Sent::CallerFailed(callers(error.error())),
            None => Sent::Broken(classify(error.error())),
        },
    }
}

/// What was wrong with the caller's body.
fn callers(error: &hyper::Error) -> InvokeError {
    let source = std::error::Error::source(error);
    match source.and_then(|source| source.downcast_ref()) {
        Some(Overrun(most)) => InvokeError::TooLarge(*most),
        None => InvokeError::BadBody(causes(error)),
    }
}

/// Whose fault it is that a connection carried a request and no response.
fn classify(error: &hyper::Error) -> InvokeError {
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
