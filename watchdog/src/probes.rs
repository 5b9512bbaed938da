//! The answers of `/_/health` and `/_/ready`.

use std::sync::Arc;

use hyper::header::HeaderValue;
use hyper::{Method, Response, StatusCode};

use crate::body::Body;
use crate::health::Unwell;
use crate::refusal::{IDENTITY, Refusal};
use crate::watchdog::Watchdog;
use crate::{VERSION, proxy, reply};

/// Whether the watchdog takes calls; as readiness also whether it has room for one.
pub(crate) fn health(watchdog: &Watchdog, method: &Method, is_readiness: bool) -> Response<Body> {
    let limit = watchdog
        .config
        .max_in_flight
        .filter(|limit| is_readiness && watchdog.calls.count() >= limit.get());
    let mut response = if method != Method::GET {
        reply::refused(&Refusal::HealthMethod)
    } else {
        match (watchdog.health.check(), limit) {
            (Ok(()), None) => reply::text(StatusCode::OK, "OK"),
            (Ok(()), Some(_)) => reply::text(
                StatusCode::TOO_MANY_REQUESTS,
                "as many calls as max_inflight allows are being served\n",
            ),
            (Err(Unwell::Draining), _) => {
                reply::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            (Err(Unwell::NoLockFile), _) => reply::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the lock file is missing\n",
            ),
        }
    };
    response
        .headers_mut()
        .insert(IDENTITY, HeaderValue::from_static(VERSION));
    response
}

/// Health, and whether the function's own server takes calls.
pub(crate) async fn ready(watchdog: &Arc<Watchdog>, method: &Method) -> Response<Body> {
    let own = health(watchdog, method, true);
    let Some(service) = watchdog
        .service
        .as_ref()
        .filter(|_| own.status() == StatusCode::OK)
    else {
        return own;
    };
    let mut response = if let Some(seconds) = service.retry_after() {
        reply::refused(&Refusal::NotUp { seconds })
    } else if service.is_idle() {
        return own;
    } else if let Some(path) = &watchdog.config.ready_path {
        proxy::probe(watchdog, service, path)
            .await
            .unwrap_or_else(|| reply::refused(&Refusal::NotUp { seconds: 1 }))
    } else {
        return own;
    };
    response
        .headers_mut()
        .insert(IDENTITY, HeaderValue::from_static(VERSION));
    response
}
