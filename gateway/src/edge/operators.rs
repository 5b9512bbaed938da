//! The services of the ports that take no calls: the operators' one, and the one for metrics.

use std::sync::Arc;

use hyper::Response;
use tokio::runtime::Handle;

use super::framing::framing;
use super::guard::{Asks, guard};
use super::{finish, manage, on, origin, refuse};
use crate::api::{Manager, Pages};
use crate::incoming::Asked;
use crate::invoke::Origin;
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::reply::{Body, CALL_ID};
use crate::router::{self, Page, Refusal, Route};
use crate::server::{Answers, Caller};
use crate::told::{Answered, Ids};

/// The service of the operators' port: the management API and every page.
pub fn system_service(
    manager: Arc<Manager>,
    metrics: Arc<Metrics>,
    proxies: Proxies,
    caller: Caller,
) -> impl Answers {
    let origin = origin(caller, &proxies);
    move |request: Asked| {
        let (manager, metrics) = (manager.clone(), metrics.clone());
        let (proxies, origin) = (proxies.clone(), origin.clone());
        async move {
            let ids = Ids::of(request.headers().get(CALL_ID));
            let answer = answer(&manager, &metrics, request, &origin, &proxies, &ids);
            let mut response = answer.await;
            finish(&mut response, &manager.pages);
            Answered { response, ids }
        }
    }
}

async fn answer(
    manager: &Arc<Manager>,
    metrics: &Metrics,
    request: Asked,
    origin: &Origin,
    proxies: &Proxies,
    ids: &Ids,
) -> Response<Body> {
    if let Err(refusal) = framing(&request) {
        return refuse(metrics, ids, refusal);
    }
    let pages = &manager.pages;
    if let Some(refused) = guard(pages, Asks::OperatorsPort, &request, origin, ids) {
        return refused;
    }
    match router::route(
        request.method(),
        request.uri().path(),
        None,
        &pages.namespace,
    ) {
        Route::Page(page) => guard(pages, Asks::page(&page), &request, origin, ids)
            .unwrap_or_else(|| pages.answer(&page)),
        Route::Manage(operation) => {
            let answer = manage(manager, operation, request, origin, proxies, ids);
            on(&Handle::current(), answer).await
        }
        Route::Function { .. }
        | Route::Refused(
            Refusal::NoFunctionNamed
            | Refusal::BadName
            | Refusal::NoSuchName
            | Refusal::NoAsynchronousCalls,
        ) => refuse(metrics, ids, Refusal::NoCallsHere),
        Route::Refused(refusal) => refuse(metrics, ids, refusal),
    }
}

/// The service of the metrics port: health, readiness and metrics, nothing else.
pub fn metrics_service(
    pages: Arc<Pages>,
    metrics: Arc<Metrics>,
    proxies: &Proxies,
    caller: Caller,
) -> impl Answers + use<> {
    let origin = origin(caller, proxies);
    move |request: Asked| {
        let ids = Ids::of(request.headers().get(CALL_ID));
        if let Err(refusal) = framing(&request) {
            let response = refuse(&metrics, &ids, refusal);
            return std::future::ready(Answered { response, ids });
        }
        let response = match router::route(request.method(), request.uri().path(), None, "") {
            Route::Page(page @ (Page::Health | Page::Ready | Page::Metrics)) => {
                guard(&pages, Asks::page(&page), &request, &origin, &ids)
                    .unwrap_or_else(|| pages.answer(&page))
            }
            Route::Refused(refusal @ Refusal::Method { .. }) => refuse(&metrics, &ids, refusal),
            _ => refuse(&metrics, &ids, Refusal::NoSuchPage),
        };
        std::future::ready(Answered { response, ids })
    }
}
