//! The story of a call in `mode=http`: passed to the function's own server, its answer passed back.

use std::rc::Rc;
use std::sync::Arc;

use hyper::body::{Body as HttpBody, Incoming};
use hyper::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use crate::body::Body;
use crate::deadline::within;
use crate::download::Download;
use crate::fork::Call;
use crate::gather::gather;
use crate::hops;
use crate::limits::{Limit, Limits};
use crate::refusal::Refusal;
use crate::service::Service;
use crate::tunnel::Tunnel;
use crate::upload::{Progress, Upload};
use crate::upstream::Link;
use crate::watchdog::Watchdog;
use crate::{duration, timing};

/// A caller's own limit, shorter than ours.
const TIMEOUT: HeaderName = HeaderName::from_static("x-timeout");

/// The most that a body may have to be gathered: it is all in memory, for each call at the same time.
const LARGEST_GATHERED: usize = 16 * 1024 * 1024;

/// Passes one admitted call on.
pub(crate) async fn call(
    call: Call,
    service: &Service,
    head: &Parts,
    mut body: Incoming,
) -> Result<Response<Body>, (Refusal, Option<Incoming>)> {
    let began = Instant::now();
    let config = &call.watchdog.config;
    let mut limits = Limits::new(began, config);
    let asked = head
        .headers
        .get(TIMEOUT)
        .and_then(|value| duration::parse(value.to_str().ok()?))
        .filter(|asked| !asked.is_zero());
    if let Some(asked) = asked {
        limits.shorten(began, asked);
    }
    let late = |limit| match limit {
        Limit::Run => Refusal::FunctionSlow {
            limit: asked
                .into_iter()
                .chain(config.exec_timeout)
                .min()
                .unwrap_or_default(),
        },
        other => other.refusal(config),
    };
    let connection = &call.connection;
    // A body that nobody reads yet costs no limit of its own.
    match within(connection, &limits, || true, service.ask()).await {
        Ok(Ok(())) if config.idle_timeout.is_some() => {
            call.watchdog.metrics.call_waited(began.elapsed());
        }
        Ok(Ok(())) => {}
        Ok(Err(seconds)) => return Err((Refusal::NotUp { seconds }, Some(body))),
        Err(limit) => return Err((late(limit), Some(body))),
    }
    // The wait for the child is not the client's fault.
    limits.body = Limits::new(Instant::now(), config).body;
    let upload = if config.buffer_request {
        // For servers that want a body's length before its bytes.
        let gathered = gather(&mut body, LARGEST_GATHERED, "http_buffer_req_body");
        match within(connection, &limits, || false, gathered).await {
            Ok(Ok(bytes)) => Upload::whole(bytes.into()),
            Ok(Err(refusal)) => return Err((refusal, Some(body))),
            Err(limit) => return Err((late(limit), None)),
        }
    } else {
        Upload::arriving(body)
    };
    let progress = upload.progress();
    let (request, is_upgrade) = translate(service, head, upload);
    let exchange = exchange(service, request, &progress);
    let answered = within(connection, &limits, || progress.is_whole(), exchange).await;
    let (response, link) = match answered {
        Ok(answered) => answered.map_err(|refusal| (refusal, None))?,
        Err(limit) => return Err((late(limit), None)),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !is_upgrade {
        let error = "it switched protocols, and the client had not asked for that".to_owned();
        return Err((Refusal::FunctionBroken { error }, None));
    }
    let mut response = finish(response, link, is_upgrade, call);
    let [(duration, seconds), (server_timing, parts)] = timing::head_only(began.elapsed());
    response.headers_mut().insert(duration, seconds);
    // The function may have told its own.
    response.headers_mut().append(server_timing, parts);
    Ok(response)
}

/// Asks the function's own readiness path; `None` if there is no answer.
pub(crate) async fn probe(
    watchdog: &Arc<Watchdog>,
    service: &Service,
    path: &str,
) -> Option<Response<Body>> {
    let slot = crate::watchdog::Counter::default().enter(1)?;
    let target: Uri = path.parse().ok()?;
    let mut request = Request::new(Upload::whole(bytes::Bytes::new()));
    *request.uri_mut() = service.upstream.target(&target);
    let host = HeaderValue::try_from(service.upstream.host()).ok()?;
    request.headers_mut().insert(HOST, host);
    let progress = Rc::default();
    let asked = exchange(service, request, &progress);
    let limit = watchdog
        .config
        .exec_timeout
        .or(watchdog.config.write_timeout);
    let answered = match limit {
        Some(limit) => tokio::time::timeout(limit, asked).await.ok()?,
        None => asked.await,
    };
    let (mut response, link) = answered.ok()?;
    hops::towards_client(response.headers_mut(), false);
    Some(response.map(|body| Body::proxied(Download::new(body, Some(link), slot))))
}

/// The client's request as the function sees it.
fn translate(service: &Service, head: &Parts, upload: Upload) -> (Request<Upload>, bool) {
    let length = upload.size_hint().exact();
    let is_gathered = upload.progress().is_whole() && length.is_some_and(|length| length > 0);
    let mut request = Request::new(upload);
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = service.upstream.target(&head.uri);
    *request.headers_mut() = head.headers.clone();
    let headers = request.headers_mut();
    // The host of an absolute target counts, not the field (RFC 9112 §3.2.2).
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::try_from(authority.as_str())
    {
        headers.insert(HOST, host);
    }
    join_cookies(headers);
    let is_upgrade = hops::towards_function(headers);
    if is_gathered && let Some(length) = length {
        headers.remove(hyper::header::TRANSFER_ENCODING);
        headers.insert(hyper::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let has_no_body = length == Some(0)
        && !headers.contains_key(hyper::header::CONTENT_LENGTH)
        && !headers.contains_key(hyper::header::TRANSFER_ENCODING);
    // Servers that answer 411 want to be told that there is none (RFC 9110 §8.6).
    if has_no_body && matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
        headers.insert(hyper::header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::try_from(service.upstream.host())
    {
        headers.insert(HOST, host);
    }
    (request, is_upgrade)
}

/// Several lines of cookies are one list (RFC 9113 §8.2.3), which many servers read of the first line only.
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<_> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if lines.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Sends the request and waits for the answer's head. A kept connection may have been closed meanwhile: a request that
/// was not sent goes over another one.
async fn exchange(
    service: &Service,
    mut request: Request<Upload>,
    progress: &Rc<Progress>,
) -> Result<(Response<Incoming>, Link), Refusal> {
    let mut again = repeatable(&request);
    let mut is_repeated = false;
    loop {
        let Ok((mut link, was_kept)) = service.upstream.link(is_repeated).await else {
            // Nothing was sent: it is the same as if the child were known to be down.
            return Err(Refusal::NotUp { seconds: 1 });
        };
        let mut failure = match link.send(request).await {
            Ok(response) => {
                return match ambiguity(response.headers()) {
                    None => Ok((response, link)),
                    Some(error) => Err(Refusal::FunctionBroken {
                        error: error.to_owned(),
                    }),
                };
            }
            Err(failure) => failure,
        };
        // The server has most likely closed the connection while the request was on its way.
        let was_closed = was_kept && failure.error().is_incomplete_message();
        match failure.take_message() {
            Some(unsent) if was_kept => request = unsent,
            None if was_closed && again.is_some() => {
                request = again.take().unwrap_or_default();
                is_repeated = true;
            }
            _ => {
                return Err(match progress.failure() {
                    Some(error) => Refusal::BodyBroken { error },
                    None => Refusal::FunctionBroken {
                        error: failure.into_error().to_string(),
                    },
                });
            }
        }
    }
}

/// The same request once more, if it may run twice: an idempotent method, and no body that is still to come.
fn repeatable(request: &Request<Upload>) -> Option<Request<Upload>> {
    let is_idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS
    );
    if !is_idempotent || request.body().size_hint().exact() != Some(0) {
        return None;
    }
    let mut again = Request::new(Upload::default());
    *again.method_mut() = request.method().clone();
    *again.version_mut() = request.version();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// What of an answer's framing others may read differently than hyper, which would pass it on.
fn ambiguity(headers: &HeaderMap) -> Option<&'static str> {
    if !hops::is_chunked_at_most(headers) {
        return Some("it has a transfer coding that is not chunked");
    }
    let is_number = |value: &HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    (!lengths.all(is_number)).then_some("its Content-Length is no number")
}

/// The function's answer as the client sees it; an upgrade makes a tunnel of the connection.
fn finish(
    response: Response<Incoming>,
    link: Link,
    is_upgrade: bool,
    call: Call,
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let is_upgraded = is_upgrade && head.status == StatusCode::SWITCHING_PROTOCOLS;
    // A length beside chunks says nothing (RFC 9112 §6.3), and what follows on the connection may be part of either answer.
    let is_ambiguous = head.headers.contains_key(TRANSFER_ENCODING)
        && head.headers.remove(CONTENT_LENGTH).is_some();
    hops::towards_client(&mut head.headers, is_upgraded);
    head.version = Version::HTTP_11;
    if is_upgraded {
        call.connection
            .set_tunnel(Tunnel::new(link.into_rest(), call.slot));
        return Response::from_parts(head, Body::whole(""));
    }
    let link = (!is_ambiguous).then_some(link);
    let body = Body::proxied(Download::new(body, link, call.slot));
    Response::from_parts(head, body)
}
