//! Request → run → answer: what is admitted, under which limits, and what the client gets.
//!
//! - `GET /_/health`: 200 `OK`, 503 while draining or without the lock file
//! - `GET /_/ready`: the same, and 429 while `max_inflight` calls are being served
//! - everything else: one run of the command; in `mode=http` the function's own server, in `mode=static` a file

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, EXPECT, HOST, HeaderName, HeaderValue, TRAILER};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::time::Instant;

use crate::body::{Answer, Body};
use crate::cgi::Dialect;
use crate::connection::Activity;
use crate::exit::Exit;
use crate::feed::discard;
use crate::fork::{Call, Progress, Run};
use crate::health::Unwell;
use crate::logs::visible;
use crate::mode::Mode;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::stream::{DURATION, Stream, duration_value};
use crate::watchdog::{Counted, Watchdog};
use crate::{VERSION, cgi, content_type, files, proxy, report};

/// Says which watchdog answers, on health and readiness.
const IDENTITY: HeaderName = HeaderName::from_static("x-skep-watchdog");

/// Answers one request.
pub(crate) async fn answer(
    watchdog: Arc<Watchdog>,
    connection: Rc<Activity>,
    request: Request<Incoming>,
) -> Answer {
    connection.call_has_begun();
    let is_debugging = watchdog.config.debug_headers;
    if is_debugging {
        print_headers(&watchdog, "in", request.headers());
    }
    let response = match request.uri().path() {
        "/_/health" => health(&watchdog, request.method(), false),
        "/_/ready" => ready(&watchdog, request.method()).await,
        _ => {
            let mut record = Record::begin(&watchdog, &request);
            let response = call(&watchdog, &connection, request).await;
            record.answered(response.status());
            response.map(|body| body.recorded(record))
        }
    };
    if is_debugging {
        print_headers(&watchdog, "out", response.headers());
    }
    Ok(response.map(|body| body.on(connection)))
}

fn health(watchdog: &Watchdog, method: &Method, is_readiness: bool) -> Response<Body> {
    let limit = watchdog
        .config
        .max_in_flight
        .filter(|limit| is_readiness && watchdog.calls.count() >= limit.get());
    let mut response = if method != Method::GET {
        Refusal::HealthMethod.response()
    } else {
        match (watchdog.health.check(), limit) {
            (Ok(()), None) => plain(StatusCode::OK, "OK"),
            (Ok(()), Some(_)) => plain(
                StatusCode::TOO_MANY_REQUESTS,
                "as many calls as max_inflight allows are being served\n",
            ),
            (Err(Unwell::Draining), _) => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            (Err(Unwell::NoLockFile), _) => plain(
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
async fn ready(watchdog: &Arc<Watchdog>, method: &Method) -> Response<Body> {
    let own = health(watchdog, method, true);
    let Some(service) = watchdog
        .service
        .as_ref()
        .filter(|_| own.status() == StatusCode::OK)
    else {
        return own;
    };
    let mut response = if let Some(seconds) = service.retry_after() {
        Refusal::NotUp { seconds }.response()
    } else if service.is_idle() {
        return own;
    } else if let Some(path) = &watchdog.config.ready_path {
        proxy::probe(watchdog, service, path)
            .await
            .unwrap_or_else(|| Refusal::NotUp { seconds: 1 }.response())
    } else {
        return own;
    };
    response
        .headers_mut()
        .insert(IDENTITY, HeaderValue::from_static(VERSION));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// The story of a call: admitted → started → fed and read until it is over, fails, or its answer has to begin.
async fn call(
    watchdog: &Arc<Watchdog>,
    connection: &Rc<Activity>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let slot = match admit(watchdog, &head) {
        Ok(slot) => slot,
        Err(refusal) => return refuse(watchdog, &refusal, &head, body),
    };
    if watchdog.config.mode == Mode::Static {
        return match files::answer(&watchdog.config.static_path, &head, slot) {
            Ok(response) => response,
            Err(refusal) => refuse(watchdog, &refusal, &head, body),
        };
    }
    let call = Call {
        watchdog: Arc::clone(watchdog),
        connection: Rc::clone(connection),
        slot,
    };
    if let Some(service) = &watchdog.service {
        return match Box::pin(proxy::call(call, service, &head, body)).await {
            Ok(response) => response,
            Err((refusal, Some(body))) => refuse(watchdog, &refusal, &head, body),
            Err((refusal, None)) => {
                report::refused(watchdog, &refusal.sentence());
                refusal.response()
            }
        };
    }
    let mut run = match start(call, &head, body) {
        Ok(run) => run,
        Err((refusal, body)) => return refuse(watchdog, &refusal, &head, body),
    };
    let held = watchdog.config.held_output;
    match poll_fn(|cx| run.poll(cx, held)).await {
        Ok(Progress::Over(exit)) => over(run, exit, &head.headers),
        // More output than is held back: the answer begins, and hopes for the best.
        Ok(Progress::Full) => stream(run, &head.headers, Stream::new),
        Err(refusal) => {
            report::failed(&run, 0, &refusal.sentence());
            // Dropping the run ends it. This happens after the answer has been written: the client comes first.
            tokio::task::spawn_local(async move { drop(run) });
            refusal.response()
        }
    }
}

/// The order is the contract's: the limiter stands outside of the check of the verb.
fn admit(watchdog: &Watchdog, head: &Parts) -> Result<Counted, Refusal> {
    if watchdog.health.is_draining() {
        return Err(Refusal::Draining);
    }
    let limit = watchdog
        .config
        .max_in_flight
        .map_or(usize::MAX, std::num::NonZeroUsize::get);
    let slot = watchdog.calls.enter(limit).ok_or(Refusal::Busy { limit })?;
    let is_taken = match head.method {
        Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE => true,
        // A tunnel has neither a path nor a body.
        Method::CONNECT => false,
        _ => watchdog.config.mode != Mode::Classic,
    };
    if !is_taken {
        return Err(Refusal::Method);
    }
    if head.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(Refusal::ManyHosts);
    }
    if watchdog.service.is_none() && cgi::has_nul(head.uri.path()) {
        return Err(Refusal::NulInPath);
    }
    Ok(slot)
}

fn start(call: Call, head: &Parts, body: Incoming) -> Result<Run, (Refusal, Incoming)> {
    report::starting(&call.watchdog);
    let watchdog = Arc::clone(&call.watchdog);
    let environment = |marker: &str| {
        let dialect = if watchdog.config.mode == Mode::Classic {
            Dialect::Classic
        } else {
            Dialect::HeadOnly
        };
        let described = watchdog.config.cgi_headers.then_some((head, dialect));
        let too_long = |cgi::TooLong(variable)| Refusal::HeadTooLarge { variable };
        cgi::environment(&watchdog.inherited, marker, described).map_err(too_long)
    };
    Run::start(call, environment, &head.headers, body)
}

fn refuse(watchdog: &Watchdog, refusal: &Refusal, head: &Parts, body: Incoming) -> Response<Body> {
    report::refused(watchdog, &refusal.sentence());
    // A client that waits for "100 Continue" has not sent its body and now will not.
    if !head.headers.contains_key(EXPECT) {
        let until = watchdog
            .config
            .read_timeout
            .and_then(|limit| Instant::now().checked_add(limit));
        discard(body, until);
    }
    refusal.response()
}

/// The run is over and all its output is there: the status is exact.
fn over(mut run: Run, exit: Exit, headers: &HeaderMap) -> Response<Body> {
    let mode = run.watchdog().config.mode;
    if mode == Mode::Streaming && !run.output().is_empty() && exit != Exit::Status(0) {
        // The first byte commits, even if the failure was seen together with it: the client must not find one answer
        // today and another one tomorrow.
        return stream(run, headers, |run| Stream::ended(run, exit));
    }
    let output = run.take_output();
    match exit {
        Exit::Status(0) => {
            report::succeeded(&run, output.len());
            let kind = content_type::choose(
                run.watchdog().config.content_type.as_ref(),
                headers,
                &output,
            );
            let mut response = Response::new(Body::whole(output));
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
                .headers_mut()
                .insert(DURATION, duration_value(&run));
            response
        }
        Exit::Status(_) | Exit::Signal(_) => {
            let reason = exit.to_string();
            report::failed(&run, output.len(), &reason);
            let mut response = plain(StatusCode::INTERNAL_SERVER_ERROR, "");
            let shown = if mode == Mode::Serializing {
                &[]
            } else {
                &output[..]
            };
            *response.body_mut() = Body::whole([reason.as_bytes(), b"\n", shown].concat());
            response
        }
        Exit::Unknown => {
            report::failed(&run, output.len(), &exit.to_string());
            Refusal::ExitUnknown.response()
        }
    }
}

/// The answer begins before the end of the run is known.
fn stream(run: Run, headers: &HeaderMap, stream: impl FnOnce(Run) -> Stream) -> Response<Body> {
    let kind = content_type::choose(
        run.watchdog().config.content_type.as_ref(),
        headers,
        run.output(),
    );
    let mut response = Response::new(Body::streamed(stream(run)));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
        .headers_mut()
        .insert(TRAILER, HeaderValue::from(DURATION));
    response
}

fn print_headers(watchdog: &Watchdog, direction: &str, headers: &HeaderMap) {
    let Some(debug) = &watchdog.debug else { return };
    for name in headers.keys() {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        let line = format!(
            "[{direction}] {}=[{}]",
            cgi::canonical(name),
            values.join(" ")
        );
        debug.chunk((visible(&line) + "\n").as_bytes());
    }
}
