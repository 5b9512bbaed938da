//! Requests that reach no function: the status, the sentence, the count.

use hyper::header::{ALLOW, HeaderValue};
use hyper::{Response, StatusCode};

use crate::invoke::headers;
use crate::metrics::{Metrics, Refused};
use crate::reply::{self, Body, Failure};
use crate::router::Refusal;
use crate::told::Ids;

pub(super) fn refuse(metrics: &Metrics, ids: &Ids, refusal: Refusal) -> Response<Body> {
    let (why, status, sentence) = match refusal {
        Refusal::BadName => (
            Refused::BadRequest,
            StatusCode::BAD_REQUEST,
            format!("bad function name: {}", crate::function::NotAName),
        ),
        Refusal::NoSuchName => (
            Refused::NotFound,
            StatusCode::NOT_FOUND,
            format!("no function has this name: {}", crate::function::NotAName),
        ),
        Refusal::SeveralNames => (
            Refused::BadRequest,
            StatusCode::BAD_REQUEST,
            "name one function: the request has more than one X-Function field".to_owned(),
        ),
        Refusal::NoFunctionNamed => {
            let hint = "name a function: send it to /function/<name>, or to / with the header X-Function: <name>";
            (
                Refused::BadRequest,
                StatusCode::BAD_REQUEST,
                hint.to_owned(),
            )
        }
        Refusal::BadHost => (
            Refused::BadRequest,
            StatusCode::BAD_REQUEST,
            "send one Host field with a host and perhaps a port, without a user".to_owned(),
        ),
        Refusal::TransferCoding => (
            Refused::BadRequest,
            StatusCode::NOT_IMPLEMENTED,
            "the only transfer coding known here is chunked".to_owned(),
        ),
        Refusal::TooManyFields(most) => (
            Refused::BadRequest,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!(
                "the request has more than {most} header fields: send fewer, or raise the gateway's max_headers"
            ),
        ),
        Refusal::TooManyMembers => (
            Refused::BadRequest,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!(
                "Connection, TE and Trailer have more than {} members: send fewer",
                headers::MOST_MEMBERS
            ),
        ),
        Refusal::NoSuchPage => (
            Refused::NotFound,
            StatusCode::NOT_FOUND,
            "nothing is here; functions are at /function/<name>".to_owned(),
        ),
        Refusal::NoCallsHere => (
            Refused::NotFound,
            StatusCode::NOT_FOUND,
            "functions are not called on this port".to_owned(),
        ),
        Refusal::NoAsynchronousCalls => (
            Refused::NotFound,
            StatusCode::NOT_IMPLEMENTED,
            "asynchronous calls are not there yet: call it at /function/<name>, which answers when the function has".to_owned(),
        ),
        Refusal::NotOwned => (
            Refused::NotFound,
            StatusCode::NOT_FOUND,
            "no function has this path on this host".to_owned(),
        ),
        Refusal::Method { allow } => (
            Refused::Method,
            StatusCode::METHOD_NOT_ALLOWED,
            format!("this page answers {allow} only"),
        ),
    };
    metrics.refused(why);
    let mut response = reply::failure(&Failure {
        status,
        sentence,
        cause: String::new(),
        call_id: ids.call_id(),
        retry_after: None,
    });
    if let Refusal::Method { allow } = refusal {
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}
