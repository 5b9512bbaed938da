//! The edge: what every request goes through, ids first, and the dispatch of routes.

mod framing;
mod guard;
mod operators;
mod refusals;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use hyper::http::uri::{PathAndQuery, Uri};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::runtime::Handle;

use self::framing::framing;
use self::guard::{Asks, guard};
pub use self::operators::{metrics_service, system_service};
use self::refusals::refuse;
use crate::api::{Manager, Pages};
use crate::http1::target::RawTarget;
use crate::incoming::{Asked, Incoming, Upgrade};
use crate::invoke::headers;
use crate::invoke::{Invoker, Origin};
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::reply::{self, Body, CALL_ID};
use crate::router::{self, Operation, Page, Refusal, Route};
use crate::server::{Answers, Caller};
use crate::table::Own;
use crate::told::{Answered, Ids, Told};

/// Names a function for a request to `/`.
pub const FUNCTION: HeaderName = HeaderName::from_static("x-function");

/// Everything that one worker needs to answer requests.
pub struct Edge {
    /// Calls functions.
    pub invoker: Invoker,
    /// Answers for the gateway itself.
    pub pages: Arc<Pages>,
    /// Changes functions and looks closer at them.
    pub manager: Arc<Manager>,
    /// Counts what reached no function.
    pub metrics: Arc<Metrics>,
    /// Whose word about callers counts.
    pub proxies: Proxies,
    /// Where pages are made, off the workers that carry calls.
    pub control: Handle,
    /// The namespace that a name may leave out.
    pub namespace: Arc<str>,
    /// The header fields that a request may have.
    pub max_headers: usize,
    /// Whether what is the operators' is on a port of its own.
    pub calls_only: bool,
}

impl Edge {
    /// The service of one connection.
    pub fn service(self: Arc<Self>, caller: Caller) -> impl Answers {
        // Together, so that each request counts one owner more, and not two.
        let shared = Arc::new((origin(caller, &self.proxies), self));
        move |request: Asked| {
            let shared = shared.clone();
            async move {
                let (origin, edge) = &*shared;
                edge.answer(request, origin).await
            }
        }
    }

    /// Every answer bears the ids, whoever made it.
    async fn answer(&self, request: Asked, origin: &Origin) -> Answered {
        let ids = Ids::of(request.headers().get(CALL_ID));
        let mut response = self.dispatch(request, origin, &ids).await;
        finish(&mut response, &self.pages);
        Answered { response, ids }
    }

    async fn dispatch(&self, mut request: Asked, origin: &Origin, ids: &Ids) -> Response<Body> {
        if request.headers().len() > self.max_headers {
            return self.refuse(ids, Refusal::TooManyFields(self.max_headers));
        }
        if let Err(refusal) = framing(&request) {
            return self.refuse(ids, refusal);
        }
        if self.invoker.table().may_have_routes() && !router::is_page(request.uri().path()) {
            Box::pin(self.invoker.listed()).await;
        }
        let callee = match self.own(&request) {
            Some(callee) => callee,
            None if self.calls_only && router::is_for_operators(request.uri().path()) => {
                Err(Refusal::NoSuchPage)
            }
            None => match self.route(&request) {
                Route::Function { name, rest } => Callee::of(name, rest, &request),
                Route::Page(Page::Help) if self.calls_only => Err(Refusal::NoSuchPage),
                Route::Page(page) => {
                    let refused = guard(&self.pages, Asks::page(&page), &request, origin, ids);
                    return match refused {
                        Some(refused) => refused,
                        None => Box::pin(self.page(page)).await,
                    };
                }
                Route::Manage(operation) => {
                    let answer = manage(
                        &self.manager,
                        operation,
                        request,
                        origin,
                        &self.proxies,
                        ids,
                    );
                    return Box::pin(on(&self.control, answer)).await;
                }
                Route::Refused(refusal) => Err(refusal),
            },
        };
        let Callee { name, target, raw } = match callee {
            Ok(callee) => callee,
            Err(refusal) => return self.refuse(ids, refusal),
        };
        if let Some(raw) = raw {
            request.extensions_mut().insert(raw);
        }
        let (told, upgrade) = prepare(&mut request, target, origin, ids);
        self.invoker
            .call(name.as_str(), request, &told, upgrade)
            .await
    }

    /// Whom the request calls if its host and path are somebody's own. A tunnel is nobody's.
    fn own(&self, request: &Request<Incoming>) -> Option<Result<Callee, Refusal>> {
        let table = self.invoker.table();
        if !table.may_have_routes() || *request.method() == Method::CONNECT {
            return None;
        }
        let path = request.uri().path();
        let authority = request.uri().authority().map(|one| one.as_str().as_bytes());
        let field = || request.headers().get(HOST).map(HeaderValue::as_bytes);
        let host = authority.or_else(field).unwrap_or_default();
        Some(match table.own(host, path)? {
            Own::Function(name, cut) => Callee::of(name.as_str(), &path[cut..], request),
            Own::Nothing => Err(Refusal::NotOwned),
        })
    }

    fn route<'a>(&self, request: &'a Request<Incoming>) -> Route<'a> {
        let path = request.uri().path();
        // It counts nowhere else, and to look it up takes its time.
        let mut names = (path == "/").then(|| request.headers().get_all(FUNCTION).iter());
        let mut next = || names.as_mut().and_then(Iterator::next);
        let x_function = next().map(HeaderValue::as_bytes);
        if next().is_some() {
            return Route::Refused(Refusal::SeveralNames);
        }
        router::route(request.method(), path, x_function, &self.namespace)
    }

    async fn page(&self, page: Page) -> Response<Body> {
        let (pages, in_short) = (self.pages.clone(), self.calls_only);
        let answer = async move {
            if in_short {
                pages.answer_in_short(&page)
            } else {
                pages.answer(&page)
            }
        };
        on(&self.control, answer).await
    }

    fn refuse(&self, ids: &Ids, refusal: Refusal) -> Response<Body> {
        refuse(&self.metrics, ids, refusal)
    }
}

/// Whom a connection comes from, and whether its word about others counts. Made once for a connection, not for each of its
/// requests.
fn origin(caller: Caller, proxies: &Proxies) -> Origin {
    let peer = caller.peer.ip();
    let is_proxy = caller.is_known && proxies.trust(peer);
    Origin::of(peer, caller.secure, is_proxy).through(caller.socket.ip())
}

/// The manager's answer to whoever asks. Boxed, because calls have no room for it.
fn manage(
    manager: &Arc<Manager>,
    operation: Operation,
    mut request: Asked,
    origin: &Origin,
    proxies: &Proxies,
    ids: &Ids,
) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
    let asks = Asks::operation(request.method());
    if let Some(refused) = guard(&manager.pages, asks, &request, origin, ids) {
        return Box::pin(std::future::ready(refused));
    }
    let manager = manager.clone();
    ids.put_on(request.headers_mut());
    let caller = origin.caller(request.headers(), proxies);
    Box::pin(async move {
        let caller = caller.to_string();
        manager.answer(operation, *request, &caller).await
    })
}

/// An answer that is made on another runtime, to its end: a change that was begun is finished, though its caller may have gone.
async fn on(
    runtime: &Handle,
    answer: impl Future<Output = Response<Body>> + Send + 'static,
) -> Response<Body> {
    runtime.spawn(answer).await.unwrap_or_else(|error| {
        tracing::error!("a page could not be made: {error}");
        reply::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "this page could not be made: see the gateway's log\n",
        )
    })
}

/// Says on an answer, before the gateway ends, that the connection brings no further one. An upgraded one is no longer HTTP's.
fn finish(response: &mut Response<Body>, pages: &Pages) {
    let is_draining = pages.draining.load(Ordering::Relaxed);
    if is_draining && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
}

/// Whom a request calls, apart from the request, which is about to be rewritten.
struct Callee {
    name: NameBuffer,
    target: PathAndQuery,
    /// The target as it came, where that is not the same.
    raw: Option<RawTarget>,
}

impl Callee {
    fn of(name: &str, rest: &str, request: &Request<Incoming>) -> Result<Self, Refusal> {
        let target = target(rest, request.uri().query()).ok_or(Refusal::BadName)?;
        // What stands before the rest is a name or a function's own path, in which nothing is escaped.
        let taken = || request.uri().path().len() - rest.len();
        let raw = request.extensions().get::<RawTarget>();
        let raw = raw.map(|raw| raw.behind(taken()));
        let name = NameBuffer::of(name);
        Ok(Self { name, target, raw })
    }
}

/// The path and query that the function is called with: what came after its name, untouched.
fn target(rest: &str, query: Option<&str>) -> Option<PathAndQuery> {
    let path = if rest.is_empty() { "/" } else { rest };
    match query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")).ok(),
        None if path == "/" => Some(PathAndQuery::from_static("/")),
        None => PathAndQuery::try_from(path).ok(),
    }
}

/// Makes the request what the function shall see. What it is told beside that, and the connection if that may become a tunnel.
fn prepare<'a>(
    request: &mut Request<Incoming>,
    target: PathAndQuery,
    origin: &'a Origin,
    ids: &'a Ids,
) -> (Told<'a>, Option<Upgrade>) {
    // RFC 9112 §3.2.2: the authority of an absolute-form target replaces the Host field.
    if let Some(host) = request
        .uri()
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    {
        request.headers_mut().insert(HOST, host);
    }
    // HTTP/1.1 has one (`framing`), and the function is spoken to in that; HTTP/1.0 needs none.
    if request.version() != Version::HTTP_11 && !request.headers().contains_key(HOST) {
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_static("function"));
    }
    if request.version() == Version::HTTP_2 {
        headers::from_h2(request);
    }
    if request.version() != Version::HTTP_11 {
        // RFC 9110 §7.8: what an older client says of it does not count.
        request.headers_mut().remove(UPGRADE);
    }
    *request.uri_mut() = Uri::from(target);
    *request.version_mut() = Version::HTTP_11;
    let (told, upgrades) = headers::outbound(request.headers_mut(), origin, ids);
    (told, upgrades.then(|| Upgrade::of(request)).flatten())
}

/// A function's name, without an allocation.
struct NameBuffer {
    bytes: [u8; crate::function::MAX_NAME],
    len: usize,
}

impl NameBuffer {
    fn of(name: &str) -> Self {
        let mut bytes = [0; crate::function::MAX_NAME];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Self {
            bytes,
            len: name.len(),
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("copied from a str")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_path_and_the_query_are_untouched() {
        for (rest, query, expected) in [
            ("", None, "/"),
            ("", Some("q=1"), "/?q=1"),
            ("/", None, "/"),
            (
                "/a%20b/%2F//../c",
                Some("x=%25&y=a?b"),
                "/a%20b/%2F//../c?x=%25&y=a?b",
            ),
        ] {
            assert_eq!(target(rest, query).unwrap().as_str(), expected);
        }
    }
}
