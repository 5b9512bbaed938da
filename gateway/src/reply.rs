//! Our response body, and the answers the gateway gives itself. The one place that logs a failed request.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::throttle::Throttle;

/// Says on every answer made here who made it (wire contract §8).
pub const INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

/// Each failure is worth a line, and whoever calls what fails decides how many there are.
static FAILED: Throttle = Throttle::new(100, Duration::from_secs(10));

/// A call's id, kept from the caller if it is usable, echoed on every answer.
pub const CALL_ID: HeaderName = HeaderName::from_static("x-call-id");
/// When the gateway took the request, in nanoseconds since 1970.
pub const START_TIME: HeaderName = HeaderName::from_static("x-start-time");

/// What goes wrong while a body is on its way.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// A response body: a text of our own, or a stream that is passed on.
pub enum Body {
    /// All of it, here.
    Full(Full<Bytes>),
    /// A function's answer, as it comes. Boxed so that the edge can name the type; one allocation for a call.
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

impl Body {
    /// Passes a stream on.
    pub fn stream(body: impl HttpBody<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Body::Stream(Box::pin(body))
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(text: T) -> Self {
        Body::Full(Full::new(text.into()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Body::Full(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Body::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(body) => body.is_end_stream(),
            Body::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(body) => body.size_hint(),
            Body::Stream(body) => body.size_hint(),
        }
    }
}

/// A plain text answer.
#[must_use]
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(
        status,
        HeaderValue::from_static("text/plain; charset=utf-8"),
        text,
    )
}

/// A JSON answer.
///
/// # Panics
/// Never: our JSON types have string keys and no fallible parts.
#[must_use]
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).expect("our JSON types always serialise");
    typed(status, HeaderValue::from_static("application/json"), text)
}

/// An answer of some content type.
#[must_use]
pub fn typed(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A request that failed here, in two voices: one for the caller, one for the log.
pub struct Failure<'a> {
    /// What the caller is told.
    pub status: StatusCode,
    /// One sentence for the caller: what, why, what to do. No secrets, no addresses.
    pub sentence: String,
    /// The cause in detail, for the log alone.
    pub cause: String,
    /// The call's id, in both.
    pub call_id: &'a str,
    /// When it makes sense to come again, in seconds.
    pub retry_after: Option<u32>,
}

/// Answers a failed request in a sentence, and logs it under the same id.
#[must_use]
pub fn failure(failure: &Failure<'_>) -> Response<Body> {
    let id = failure.call_id;
    let response = text(
        failure.status,
        format!("{} (call {id})\n", failure.sentence),
    );
    finish(failure, response)
}

/// Answers a failed request of a caller who reads JSON (RFC 9457), and logs it under the same id.
#[must_use]
pub fn problem(failure: &Failure<'_>) -> Response<Body> {
    let title = failure.status.canonical_reason().unwrap_or_default();
    let id = failure.call_id;
    let problem = serde_json::json!({
        "title": title, "status": failure.status.as_u16(), "detail": failure.sentence, "call_id": id,
    });
    let content_type = HeaderValue::from_static("application/problem+json");
    finish(
        failure,
        typed(failure.status, content_type, problem.to_string()),
    )
}

fn finish(failure: &Failure<'_>, mut response: Response<Body>) -> Response<Body> {
    let Failure {
        status,
        sentence,
        cause,
        call_id: id,
        retry_after,
    } = failure;
    // A request that nobody here implements is its client's mistake, and can be sent at any rate.
    let is_ours = status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED;
    if is_ours {
        if let Some(left_out) = FAILED.admit() {
            tracing::warn!(status = status.as_u16(), id, cause, "{sentence}{left_out}");
        }
    } else {
        tracing::debug!(status = status.as_u16(), id, cause, "{sentence}");
    }
    response
        .headers_mut()
        .insert(INTERNAL, HeaderValue::from_static("gateway"));
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(*seconds));
    }
    response
}
