//! A call that an endpoint did not take, or took in vain: what is known of it, and whether it may go elsewhere.

use hyper::body::Body;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};

use super::headers::strip_trailers;
use super::{InvokeError, Taken};
use crate::endpoint::WATCHDOG;
use crate::incoming::{Asked, Incoming};
use crate::metrics::Retried;
use crate::told::Told;
use crate::upload::{self, Progress, Source, Upload};

/// A watchdog's word to its gateway that a call was not taken (docs/decisions/0012).
pub(super) const NOT_ACCEPTED: HeaderName = HeaderName::from_static("x-skep-not-accepted");

/// Why a watchdog did not take a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It is about to end.
    Draining,
    /// It has no room just now.
    Busy,
    /// Its function does not accept connections yet.
    Starting,
}

/// The word of a watchdog, if this answer is one: nobody else is believed.
pub(super) fn word<B>(response: &Response<B>) -> Option<Word> {
    let is_refusal = matches!(
        response.status(),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    );
    if !is_refusal || !response.headers().contains_key(WATCHDOG) {
        return None;
    }
    match response.headers().get(NOT_ACCEPTED)?.as_bytes() {
        b"draining" => Some(Word::Draining),
        b"busy" => Some(Word::Busy),
        b"starting" => Some(Word::Starting),
        _ => None,
    }
}

/// A request that can be sent more than once.
pub(super) struct Outgoing<'a> {
    request: Asked,
    told: &'a Told<'a>,
    body: Source,
}

impl<'a> Outgoing<'a> {
    /// The request as the function shall see it, and what it is told beside that.
    ///
    /// # Errors
    /// The body is said to have more bytes than it may.
    pub(super) fn new(
        mut request: Asked,
        told: &'a Told<'a>,
        max_body: u64,
    ) -> Result<Self, InvokeError> {
        let body = std::mem::take(request.body_mut());
        if body.size_hint().lower() > max_body {
            return Err(InvokeError::TooLarge(max_body));
        }
        let body = Source::new(body, max_body, strip_trailers);
        Ok(Self {
            request,
            told,
            body,
        })
    }

    /// Whether the caller has still to send what the function waits for.
    pub(super) fn waits_for_caller(&self) -> bool {
        self.body.is_waiting()
    }

    /// The head of the request.
    pub(super) fn head(&self) -> &Request<Incoming> {
        &self.request
    }

    /// What the function is told beside its head.
    pub(super) fn told(&self) -> &Told<'a> {
        self.told
    }

    /// The body for the next endpoint. An earlier sending gets no more of it.
    pub(super) fn body(&self) -> Upload {
        self.body.send()
    }

    /// How its body goes on once the call is answered.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.body.progress()
    }

    /// What the caller did wrong with its body.
    pub(super) fn fault(&self) -> Option<upload::Error> {
        self.body.fault()
    }

    /// Whether its body can be sent from the beginning once more.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_whole()
    }

    /// Whether the call may go once more over a new connection, after a kept one ended before a byte of the answer came: the
    /// other side has most likely closed it while the request was on its way.
    pub(super) fn may_repeat(&self) -> bool {
        is_idempotent(self.request.method()) && self.is_whole()
    }

    /// Whether the call may go to another endpoint after this miss.
    pub(super) fn may_follow(&self, miss: &Miss, retries_idempotent: bool) -> bool {
        let is_allowed = match miss {
            Miss::Unconnected(_) | Miss::Declined(..) => true,
            Miss::Broken(_) => retries_idempotent && is_idempotent(self.request.method()),
        };
        is_allowed && self.is_whole()
    }
}

/// Decisions, "retry of calls that may have run"; TRACE is idempotent, too, and nobody calls a function with it.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS
    )
}

/// Why an endpoint did not serve a call.
pub(super) enum Miss {
    /// No connection, or one that closed before it took the request: the cause.
    Unconnected(String),
    /// Its watchdog did not take the call: what it said.
    Declined(Word, Box<Taken>),
    /// The call may have run; there was no answer.
    Broken(InvokeError),
}

impl Miss {
    /// Under which cause a retry is counted.
    pub(super) fn cause(&self) -> Retried {
        match self {
            Self::Unconnected(_) => Retried::Unconnected,
            Self::Declined(Word::Draining, _) => Retried::Draining,
            Self::Declined(Word::Busy, _) => Retried::Busy,
            Self::Declined(Word::Starting, _) => Retried::NotReady,
            Self::Broken(_) => Retried::Broken,
        }
    }

    /// Whether a retry after this one is taken out of the budget. After the others the endpoint is ejected at once, so that
    /// there are few of them by themselves, and its host has done next to nothing for them.
    pub(super) fn costs(&self) -> bool {
        matches!(self, Self::Declined(Word::Busy, _) | Self::Broken(_))
    }

    /// Whether another replica is probably on its way to take this one's place, or this one will soon take calls.
    pub(super) fn is_parting(&self) -> bool {
        matches!(
            self,
            Self::Unconnected(_) | Self::Declined(Word::Draining | Word::Starting, _)
        )
    }

    /// Whether the same endpoint may be tried again, once it says that it is ready.
    pub(super) fn may_come_back(&self) -> bool {
        matches!(self, Self::Declined(Word::Starting, _))
    }

    /// Another endpoint is tried: the connection on which this one has refused can carry further calls.
    pub(super) fn set_aside(self, worker: usize) {
        if let Self::Declined(_, taken) = self {
            taken.keep_connection(worker);
        }
    }

    /// What the caller gets when there is nowhere else to go.
    pub(super) fn into_answer(self) -> Result<Taken, InvokeError> {
        match self {
            Self::Unconnected(cause) => Err(InvokeError::Refused(cause)),
            Self::Broken(error) => Err(error),
            Self::Declined(_, mut taken) => {
                let headers = taken.response.headers_mut();
                headers
                    .entry(RETRY_AFTER)
                    .or_insert(HeaderValue::from_static("1"));
                Ok(*taken)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::super::Origin;
    use super::*;
    use crate::told::Ids;

    fn says(status: u16, fields: &[(&str, &str)]) -> Option<Word> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        word(&response.body(()).unwrap())
    }

    #[test]
    fn only_a_watchdogs_refusal_is_its_word() {
        let watchdog = ("x-skep-watchdog", "0.1.0");
        let draining = ("x-skep-not-accepted", "draining");
        let busy = ("x-skep-not-accepted", "busy");
        assert_eq!(says(503, &[watchdog, draining]), Some(Word::Draining));
        assert_eq!(says(429, &[watchdog, busy]), Some(Word::Busy));
        for (status, fields) in [
            (503, &[draining][..]),
            (503, &[watchdog]),
            (200, &[watchdog, draining]),
            (500, &[watchdog, busy]),
            (503, &[watchdog, ("x-skep-not-accepted", "perhaps")]),
        ] {
            assert_eq!(says(status, fields), None, "{status} {fields:?}");
        }
    }

    #[test]
    fn a_call_that_may_have_run_follows_only_by_an_idempotent_method_and_the_functions_leave() {
        let broken = Miss::Broken(InvokeError::Broken("closed".to_owned()));
        let unsent = Miss::Unconnected("refused".to_owned());
        for (method, is_idempotent) in [
            ("GET", true),
            ("PUT", true),
            ("POST", false),
            ("PATCH", false),
        ] {
            let request = Request::builder().method(method).body(Incoming::Empty);
            let ids = Ids::of(None);
            let origin = Origin::of([192, 0, 2, 7].into(), false, false);
            let outgoing = Outgoing {
                request: Box::new(request.unwrap()),
                told: &origin.told(&HeaderMap::new(), &ids),
                body: Source::Empty,
            };
            assert_eq!(
                outgoing.may_follow(&broken, true),
                is_idempotent,
                "{method}"
            );
            assert!(!outgoing.may_follow(&broken, false), "{method}");
            assert!(outgoing.may_follow(&unsent, false), "{method}");
        }
    }
}
