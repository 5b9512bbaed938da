//! Answers in the watchdog's own words.

use bytes::Bytes;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::body::Body;
use crate::refusal::{NOT_ACCEPTED, Refusal};

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
    match refusal {
        Refusal::Draining => {
            headers.insert(NOT_ACCEPTED, HeaderValue::from_static("draining"));
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Refusal::Busy { .. } => {
            headers.insert(NOT_ACCEPTED, HeaderValue::from_static("busy"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_that_were_not_accepted_say_so() {
        let header = |refusal: Refusal| refused(&refusal).headers().get(NOT_ACCEPTED).cloned();
        assert_eq!(header(Refusal::Draining).unwrap(), "draining");
        assert_eq!(header(Refusal::Busy { limit: 1 }).unwrap(), "busy");
        assert_eq!(header(Refusal::Method), None);
        assert_eq!(header(Refusal::ExitUnknown), None);
    }
}
