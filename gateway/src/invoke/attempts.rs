//! From an admitted call to an endpoint that has answered it: each endpoint is tried at most once, and what becomes of a try
//! says what is known of the endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use tokio::time::{Instant, timeout_at};

use super::retry::{self, Miss, Outgoing, Word};
use super::{InvokeError, Invoker, Taken, balance};
use crate::connect::{ConnectError, connect};
use crate::connection::{Connection, Received, SendError};
use crate::endpoint::{Endpoint, Lease, Next, Turn, WATCHDOG};
use crate::function::Protocol;
use crate::life::{Event, Fault};
use crate::metrics::{Call, Retried};
use crate::table::Function;
use crate::upload::Overrun;

/// A call that has heard nothing for so long is reason to look whether the hosts of its function are still there.
const SILENCE: Duration = Duration::from_millis(250);

/// How often a call goes once more to an endpoint whose kept connection has ended under it. Mostly once is enough: then the connection is
/// a new one, unless another call is done with one at that very moment.
const MOST_REPEATS: u32 = 3;

/// A shorter wait is not what used a call's time up.
const WORTH_A_WORD: Duration = Duration::from_millis(50);

/// How long a call may take from its arrival to the head of its answer, whatever it waits for meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    length: Duration,
    end: Instant,
    /// What the longest wait was for, and how long it was, the wait for an answer left aside.
    waited: Option<(Waited, Duration)>,
}

/// What a call waits for before an endpoint has its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Room among the calls that run.
    InLine,
    /// A replica that takes calls.
    ForReplica,
    /// A connection to a replica.
    ForConnection,
}

impl Limit {
    /// It begins with the call's arrival.
    pub(super) fn new(arrived: Instant, length: Duration) -> Self {
        Self {
            length,
            end: arrived + length,
            waited: None,
        }
    }

    /// How much of it is left.
    pub(super) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// The time since then was spent on this.
    pub(super) fn waited(&mut self, what: Waited, since: Instant) {
        let spent = since.elapsed();
        self.waited = match self.waited {
            Some((before, sum)) if before == what => Some((what, sum + spent)),
            Some(longer) if longer.1 >= spent => Some(longer),
            _ => Some((what, spent)),
        };
    }

    /// It is used up.
    pub(super) fn exhausted(&self) -> InvokeError {
        InvokeError::TimedOut {
            limit: self.length,
            waited: self.waited.filter(|(_, spent)| *spent >= WORTH_A_WORD),
        }
    }

    async fn keep<T>(
        &mut self,
        outgoing: &Outgoing<'_>,
        what: Waited,
        step: impl Future<Output = T>,
    ) -> Result<T, InvokeError> {
        let began = Instant::now();
        let done = timeout_at(self.end, step).await;
        self.waited(what, began);
        done.map_err(|_elapsed| self.reached(outgoing))
    }

    /// Whose fault it is that there is no answer by now.
    fn reached(&self, outgoing: &Outgoing<'_>) -> InvokeError {
        if outgoing.waits_for_caller() {
            InvokeError::SlowBody(self.length)
        } else {
            self.exhausted()
        }
    }
}

impl Invoker {
    /// Tries endpoints, each at most once, until one has taken the call or it may go nowhere else.
    pub(super) async fn attempts(
        &self,
        mut function: Arc<Function>,
        outgoing: &Outgoing<'_>,
        call: &Call,
        mut limit: Limit,
    ) -> Result<Taken, InvokeError> {
        let retries_idempotent = function.deployment.handling.retries_idempotent;
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        let mut missed: Option<Miss> = None;
        loop {
            let Some(endpoint) = balance::pick(&function.endpoints, &tried) else {
                let miss = missed.take();
                let elsewhere = Box::pin(self.elsewhere(&function, &tried, miss.as_ref()));
                match limit.keep(outgoing, Waited::ForReplica, elsewhere).await? {
                    Some(other) => (function, missed) = (other, miss),
                    None => {
                        return miss
                            .map_or_else(|| Err(self.none_ready(&function)), Miss::into_answer);
                    }
                }
                continue;
            };
            if let Some(miss) = missed.take() {
                if miss.costs() && !function.may_try_again() {
                    return miss.into_answer();
                }
                call.function().retried(miss.cause());
                miss.set_aside(self.worker);
            }
            let lease = Lease::new(endpoint.clone());
            let miss = match self
                .attempt(&function, lease, outgoing, call, &mut limit)
                .await?
            {
                Ok(taken) => return Ok(taken),
                Err(miss) => miss,
            };
            if !outgoing.may_follow(&miss, retries_idempotent) {
                return miss.into_answer();
            }
            if !miss.may_come_back() {
                tried.push(endpoint.clone());
            }
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

    /// One endpoint: on a connection that lies ready, else on the next one that there is.
    ///
    /// # Errors
    /// The caller's own: what no other endpoint could mend.
    async fn attempt(
        &self,
        function: &Function,
        lease: Lease,
        outgoing: &Outgoing<'_>,
        call: &Call,
        limit: &mut Limit,
    ) -> Result<Result<Taken, Miss>, InvokeError> {
        let endpoint = lease.endpoint();
        let mut repeats = 0;
        loop {
            let kept = match repeats {
                0 => endpoint.take_idle(self.worker),
                // What lies idle may be as stale as the one before.
                _ => None,
            };
            let (connection, turn) = match kept {
                Some(connection) => (connection, None),
                None => {
                    // Boxed, as all that few calls wait for: what they might need would be moved about in every call.
                    let connected = Box::pin(self.connected(function, endpoint, call));
                    match limit
                        .keep(outgoing, Waited::ForConnection, connected)
                        .await?
                    {
                        Ok(connected) => connected,
                        Err(miss) => return Ok(Err(miss)),
                    }
                }
            };
            let sent = self.ask(function, connection, outgoing, *limit).await?;
            match turn {
                // The other side had closed it; another one will do, if all of the body is still there.
                None if matches!(sent, Err(SendError::Unsent(_))) && outgoing.is_whole() => {
                    call.function().retried(Retried::Closed);
                    continue;
                }
                // It was closing it while the request was on its way: nginx, too, asks once more then.
                None if repeats < MOST_REPEATS
                    && match sent {
                        Err(SendError::Closed(_)) => outgoing.may_repeat(),
                        Err(SendError::Unprocessed(_)) => outgoing.is_whole(),
                        _ => false,
                    } =>
                {
                    call.function().retried(Retried::Closed);
                    repeats += 1;
                    continue;
                }
                None => {}
                Some(mut turn) => {
                    turn.end();
                    // Only the first answer of a connection says so, and so only that one is looked at.
                    if function.deployment.handling.protocol == Protocol::Http1
                        && let Ok(response) = &sent
                        && response.headers().contains_key(WATCHDOG)
                    {
                        endpoint.shows_watchdog(true);
                    }
                }
            }
            return self.judge(function, lease, outgoing, sent);
        }
    }

    /// A connection to an endpoint that had none idle, with the turn in which it was made, unless another call is done with it.
    async fn connected(
        &self,
        function: &Function,
        endpoint: &Arc<Endpoint>,
        call: &Call,
    ) -> Result<(Connection, Option<Box<Turn>>), Miss> {
        let protocol = function.deployment.handling.protocol;
        let limit = self.shared.limits.connect;
        let next = endpoint.next_connection(self.worker, protocol, limit);
        let mut turn = match next.await.map_err(Miss::Unconnected)? {
            Next::Connection(connection) => return Ok((connection, None)),
            Next::Turn(turn) => turn,
        };
        match connect(protocol, endpoint.address().socket, limit).await {
            Ok(connection) => {
                if let Some(shared) = connection.shared() {
                    endpoint.keep_idle(self.worker, shared);
                }
                turn.connected();
                Ok((connection, Some(turn)))
            }
            Err(error) => {
                call.function().connect_failed();
                self.unconnected(function, endpoint, &error);
                turn.end();
                Err(Miss::Unconnected(error.to_string()))
            }
        }
    }

    /// Sends the request on a connection and waits for the head of its answer; when nothing is heard for a while, somebody is
    /// sent to look.
    async fn ask(
        &self,
        function: &Function,
        connection: Connection,
        outgoing: &Outgoing<'_>,
        limit: Limit,
    ) -> Result<Result<Response<Received>, SendError>, InvokeError> {
        let asked = connection.send(outgoing.head(), Some(outgoing.told()), outgoing.body());
        let silence = limit.end.min(Instant::now() + SILENCE);
        match asked.answer_by(silence).await {
            Ok(sent) => Ok(sent),
            Err(still) => {
                self.doubt(function);
                let late = still.answer_by(limit.end).await;
                late.map_err(|_waiting| limit.reached(outgoing))
            }
        }
    }

    /// A call waits for longer than most: are the hosts of its function still there? Without others there is no choice.
    fn doubt(&self, function: &Function) {
        if function.available() > 1 {
            for endpoint in &function.endpoints {
                self.shared.prober.doubt(endpoint);
            }
        }
    }

    /// What became of a request that had a connection, and what that says of the endpoint.
    fn judge(
        &self,
        function: &Function,
        lease: Lease,
        outgoing: &Outgoing<'_>,
        sent: Result<Response<Received>, SendError>,
    ) -> Result<Result<Taken, Miss>, InvokeError> {
        let endpoint = lease.endpoint();
        // Over HTTP/2 a request that its caller breaks off has its stream reset, and that may be all that is seen here.
        let sent = sent.map_err(|error| match error {
            SendError::Broken(cause) => outgoing
                .fault()
                .map_or(SendError::Broken(cause), SendError::Caller),
            error => error,
        });
        match sent {
            Ok(response) => {
                let word = retry::word(&response);
                match word {
                    None => endpoint.answered(),
                    Some(word) => {
                        endpoint.shows_watchdog(true);
                        match word {
                            Word::Draining => {
                                self.eject(endpoint, Fault::Draining, "its watchdog says so");
                            }
                            Word::Starting => {
                                let why = "its watchdog says that the function accepts no connections yet";
                                self.eject(endpoint, Fault::NotReady, why);
                            }
                            Word::Busy => {}
                        }
                    }
                }
                let taken = Taken {
                    response,
                    lease,
                    upload: outgoing.progress(),
                };
                Ok(match word {
                    None => Ok(taken),
                    Some(word) => Err(Miss::Declined(word, Box::new(taken))),
                })
            }
            Err(
                SendError::Unsent(cause) | SendError::Full(cause) | SendError::Unprocessed(cause),
            ) => Ok(Err(Miss::Unconnected(cause))),
            Err(SendError::Broken(cause) | SendError::Closed(cause)) => {
                // One that breaks with every call is better than none.
                if endpoint.has_broken_too_often() && function.available() > 1 {
                    self.eject(endpoint, Fault::Reset, &cause);
                }
                Ok(Err(Miss::Broken(InvokeError::Broken(cause))))
            }
            Err(SendError::Caller(error)) => Err(match error.downcast_ref() {
                Some(Overrun(most)) => InvokeError::TooLarge(*most),
                None => InvokeError::BadBody(error.to_string()),
            }),
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
