//! The outermost layer: every request gets an id and a start time, and every answer the same ones.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::reply::{Body, CALL_ID, START_TIME};

/// Who answered.
pub(super) const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
const MAX_CALL_ID: usize = 128;
/// How many fields the gateway adds to a request: room for all is made at once.
const ADDED: usize = 6;
/// How many header fields of every request are from here.
pub(super) const FIELDS: usize = 2;

/// Gives every request its id and start time, and every answer the same ones.
#[derive(Clone, Copy)]
pub(super) struct IdentifyLayer;

impl<S> Layer<S> for IdentifyLayer {
    type Service = Identify<S>;

    fn layer(&self, inner: S) -> Identify<S> {
        Identify { inner }
    }
}

#[derive(Clone)]
pub(super) struct Identify<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Identify<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Identified<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Identified<S::Future> {
        let call_id = request
            .headers()
            .get(CALL_ID)
            .filter(|id| is_usable(id))
            .cloned()
            .unwrap_or_else(new_call_id);
        let start = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let start = HeaderValue::from(u64::try_from(start).unwrap_or(u64::MAX));
        let headers = request.headers_mut();
        // For these and for what is said of the caller.
        headers.reserve(ADDED);
        headers.insert(CALL_ID, call_id.clone());
        headers.insert(START_TIME, start.clone());
        Identified {
            inner: self.inner.call(request),
            ids: Some((call_id, start)),
        }
    }
}

pin_project! {
    pub(super) struct Identified<F> {
        #[pin]
        inner: F,
        ids: Option<(HeaderValue, HeaderValue)>,
    }
}

impl<F, E> Future for Identified<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some((call_id, start)) = this.ids.take() {
            let headers = response.headers_mut();
            headers.insert(CALL_ID, call_id);
            headers.insert(START_TIME, start);
            headers.insert(SERVED_BY, HeaderValue::from_static(crate::SERVED_BY));
        }
        Poll::Ready(Ok(response))
    }
}

/// Visible ASCII and not too long: fit for a header, a log line and a path.
fn is_usable(id: &HeaderValue) -> bool {
    !id.is_empty() && id.len() <= MAX_CALL_ID && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn new_call_id() -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("a UUID is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_is_kept_only_if_it_is_harmless() {
        for good in ["abc-1", &"x".repeat(128)] {
            assert!(is_usable(&HeaderValue::from_str(good).unwrap()), "{good}");
        }
        for bad in ["", "a b", &"x".repeat(129), "a\tb"] {
            assert!(!is_usable(&HeaderValue::from_str(bad).unwrap()), "{bad:?}");
        }
        assert!(!is_usable(&HeaderValue::from_bytes(b"\xe9").unwrap()));
        let (one, two) = (new_call_id(), new_call_id());
        assert!(one != two && one.len() == 36 && is_usable(&one));
    }
}
