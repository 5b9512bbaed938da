//! The services of the ports that take no calls: the operators' one, and the one for metrics.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Handle;
use tower::{Service, ServiceBuilder, service_fn};

use super::identify::IdentifyLayer;
use super::{close_after, framing, manage, on, origin, refuse};
use crate::api::{Manager, Pages};
use crate::invoke::Origin;
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::reply::Body;
use crate::router::{self, Page, Refusal, Route};
use crate::server::Caller;

/// The service of the operators' port: the management API and every page.
pub fn system_service(
    manager: Arc<Manager>,
    metrics: Arc<Metrics>,
    proxies: Proxies,
    caller: Caller,
) -> TowerToHyperService<
    impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send,
> {
    let origin = origin(caller, &proxies);
    let stack = ServiceBuilder::new()
        .layer(IdentifyLayer)
        .service(service_fn(move |request| {
            let (manager, metrics) = (manager.clone(), metrics.clone());
            let (proxies, origin) = (proxies.clone(), origin.clone());
            async move {
                let mut response = answer(&manager, &metrics, request, &origin, &proxies).await;
                if manager.pages.draining.load(Ordering::Relaxed) {
                    close_after(&mut response);
                }
                Ok(response)
            }
        }));
    TowerToHyperService::new(stack)
}

async fn answer(
    manager: &Arc<Manager>,
    metrics: &Metrics,
    request: Request<Incoming>,
    origin: &Origin,
    proxies: &Proxies,
) -> Response<Body> {
    if let Err(refusal) = framing(&request) {
        return refuse(metrics, &request, refusal);
    }
    let pages = &manager.pages;
    match router::route(
        request.method(),
        request.uri().path(),
        None,
        &pages.namespace,
    ) {
        Route::Page(page) => pages.answer(&page),
        Route::Manage(operation) => {
            let answer = manage(manager, operation, request, origin, proxies);
            on(&Handle::current(), answer).await
        }
        Route::Function { .. } | Route::Refused(Refusal::NoFunctionNamed | Refusal::BadName) => {
            refuse(metrics, &request, Refusal::NoCallsHere)
        }
        Route::Refused(refusal) => refuse(metrics, &request, refusal),
    }
}

/// The service of the metrics port: health, readiness and metrics, nothing else.
pub fn metrics_service(
    pages: Arc<Pages>,
    metrics: Arc<Metrics>,
) -> TowerToHyperService<
    impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send,
> {
    let stack = ServiceBuilder::new()
        .layer(IdentifyLayer)
        .service(service_fn(move |request: Request<Incoming>| {
            let response = match router::route(request.method(), request.uri().path(), None, "") {
                Route::Page(page @ (Page::Health | Page::Ready | Page::Metrics)) => {
                    pages.answer(&page)
                }
                Route::Refused(refusal @ Refusal::Method { .. }) => {
                    refuse(&metrics, &request, refusal)
                }
                _ => refuse(&metrics, &request, Refusal::NoSuchPage),
            };
            std::future::ready(Ok(response))
        }));
    TowerToHyperService::new(stack)
}
