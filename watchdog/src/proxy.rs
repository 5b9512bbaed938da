//! The story of a call in `mode=http`: passed to the function's own server, its answer passed back.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Incoming};
use hyper::header::{
    ACCEPT, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
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
use crate::upload::{Source, Upload};
use crate::upstream::Link;
use crate::watchdog::Watchdog;
use crate::{duration, request_head, timing};

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
    let is_streaming = wants_stream(head);
    if is_streaming {
        // Its head may come with the first event.
        limits = Limits::of_stream(began, config);
    }
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
    let is_kept = is_idempotent(&head.method);
    let source = if config.buffer_request {
        // For servers that want a body's length before its bytes.
        let gathered = gather(&mut body, LARGEST_GATHERED, "http_buffer_req_body");
        match within(connection, &limits, || false, gathered).await {
            Ok(Ok(bytes)) => Source::whole(bytes.into(), is_kept),
            Ok(Err(refusal)) => return Err((refusal, Some(body))),
            Err(limit) => return Err((late(limit), None)),
        }
    } else {
        Source::arriving(body, is_kept)
    };
    let is_upgrade = hops::is_upgrade(&head.headers);
    let raw_target = request_head::raw_target(head).map(|raw| service.upstream.raw_target(raw));
    let make = || translate(service, head, &source);
    let exchange = exchange(service, &source, raw_target, make);
    let answered = within(connection, &limits, || source.is_whole(), exchange).await;
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
    let host = HeaderValue::try_from(service.upstream.host()).ok()?;
    let source = Source::whole(Bytes::new(), true);
    let make = || {
        let mut request = Request::new(source.upload());
        *request.uri_mut() = service.upstream.target(&target);
        request.headers_mut().insert(HOST, host.clone());
        request
    };
    let asked = exchange(service, &source, None, make);
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
    let pause_limit = watchdog.config.stream_idle_timeout;
    Some(response.map(|body| Body::proxied(Download::new(body, Some(link), slot, pause_limit))))
}

/// Whether a call may be made twice with the same effect (RFC 9110, 9.2.2), of the verbs that have one here.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS
    )
}

/// Whether the caller asks for an answer that goes on as long as there are events.
fn wants_stream(head: &Parts) -> bool {
    let values = head.headers.get_all(ACCEPT).iter();
    let mut texts = values.filter_map(|value| value.to_str().ok());
    hops::is_upgrade(&head.headers)
        || texts.any(|text| {
            let text = text.to_ascii_lowercase();
            text.contains("text/event-stream") || text.contains("application/x-ndjson")
        })
}

/// The client's request as the function sees it.
fn translate(service: &Service, head: &Parts, source: &Rc<Source>) -> Request<Upload> {
    let upload = source.upload();
    let length = upload.size_hint().exact();
    let is_gathered = source.is_whole() && length.is_some_and(|length| length > 0);
    let mut request = Request::new(upload);
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = service.upstream.target(&head.uri);
    *request.headers_mut() = head.headers.clone();
    let headers = request.headers_mut();
    join_cookies(headers);
    hops::towards_function(headers);
    if is_gathered && let Some(length) = length {
        headers.remove(TRANSFER_ENCODING);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    // Servers answer 411 to these without a length.
    let has_body = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
    if has_body && !headers.contains_key(TRANSFER_ENCODING) && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::try_from(service.upstream.host())
    {
        headers.insert(HOST, host);
    }
    request
}

/// Sends the request and waits for the answer's head. A kept connection may have been closed meanwhile: a request that
/// was not sent goes over another one, and so does one that was sent, but of whose answer nothing came, if it may be sent
/// twice.
async fn exchange(
    service: &Service,
    source: &Source,
    target: Option<Bytes>,
    make: impl Fn() -> Request<Upload>,
) -> Result<(Response<Incoming>, Link), Refusal> {
    let mut request = make();
    let mut is_new = false;
    loop {
        let Ok((mut link, was_kept)) = service.upstream.link(is_new).await else {
            // Nothing was sent: it is the same as if the child were known to be down.
            return Err(Refusal::NotUp { seconds: 1 });
        };
        let mut failure = match link.send(request, target.clone()).await {
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
        is_new = true;
        match failure.take_message() {
            Some(unsent) if was_kept => request = unsent,
            _ if was_kept && !link.has_answered() && source.is_repeatable() => request = make(),
            _ => {
                return Err(match source.failure() {
                    Some(error) => Refusal::BodyBroken { error },
                    None => Refusal::FunctionBroken {
                        error: failure.into_error().to_string(),
                    },
                });
            }
        }
    }
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
    let config = &call.watchdog.config;
    // Both lengths cannot be meant: RFC 9112, 6.3, takes the chunks, and trusts the connection no further.
    let is_doubtful = head.headers.contains_key(TRANSFER_ENCODING)
        && head.headers.remove(CONTENT_LENGTH).is_some();
    hops::towards_client(&mut head.headers, is_upgraded);
    head.version = Version::HTTP_11;
    if is_upgraded {
        call.connection
            .set_tunnel(Tunnel::new(link.into_rest(), call.slot, config));
        return Response::from_parts(head, Body::whole(""));
    }
    let link = (!is_doubtful).then_some(link);
    let download = Download::new(body, link, call.slot, config.stream_idle_timeout);
    Response::from_parts(head, Body::proxied(download))
}
