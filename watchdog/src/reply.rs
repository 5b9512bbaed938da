//! Answers in the watchdog's own words.

use bytes::Bytes;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::VERSION;
use crate::body::Body;
use crate::refusal::{IDENTITY, NOT_ACCEPTED, Refusal};

/// Marks answers that do not come from the function.
const INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

/// The answer to a call that gets none from its command.
pub(crate) fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = text(refusal.status(), refusal.sentence() + "\n");
    let headers = response.headers_mut();
    headers.insert(INTERNAL, HeaderValue::from_static("fwatchdog"));
    if let Some(word) = not_accepted(refusal) {
        // The gateway believes this of a watchdog only, so that the answer says whose word it is.
        headers.insert(IDENTITY, HeaderValue::from_static(VERSION));
        headers.insert(NOT_ACCEPTED, HeaderValue::from_static(word));
    }
    match refusal {
        Refusal::Draining
        | Refusal::Malformed { .. }
        | Refusal::TargetTooLong { .. }
        | Refusal::TooManyFields { .. }
        | Refusal::LongHead { .. } => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Refusal::Busy { .. } => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Refusal::NotUp { seconds } => {
            headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        Refusal::Method => drop(headers.insert(
            ALLOW,
            HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"),
        )),
        Refusal::HealthMethod => drop(headers.insert(ALLOW, HeaderValue::from_static("GET"))),
        Refusal::FileMethod => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        _ => {}
    }
    response
}

/// Why nothing of the call has run, for the gateway, which then takes it elsewhere.
fn not_accepted(refusal: &Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::Draining => Some("draining"),
        Refusal::Busy { .. } => Some("busy"),
        Refusal::NotUp { .. } => Some("starting"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_that_were_not_accepted_say_so() {
        let header = |refusal: Refusal| {
            let headers = refused(&refusal).headers().clone();
            let word = headers.get(NOT_ACCEPTED).cloned();
            assert_eq!(headers.contains_key(IDENTITY), word.is_some());
            word
        };
        assert_eq!(header(Refusal::Draining).unwrap(), "draining");
        assert_eq!(header(Refusal::Busy { limit: 1 }).unwrap(), "busy");
        assert_eq!(header(Refusal::NotUp { seconds: 1 }).unwrap(), "starting");
        assert_eq!(header(Refusal::Method), None);
        assert_eq!(header(Refusal::ExitUnknown), None);
    }
}
