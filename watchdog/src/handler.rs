//! Request → run → answer: what is admitted, under which limits, and what the client gets.
//!
//! - `GET /_/health`: 200 `OK`, 503 while draining or without the lock file
//! - `GET /_/ready`: the same, and 429 while `max_inflight` calls are being served
//! - everything else: one run of the command; in `mode=http` the function's own server, in `mode=static` a file

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{EXPECT, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response};
use tokio::time::Instant;

use crate::activity::Activity;
use crate::body::{Answer, Body};
use crate::cgi::Dialect;
use crate::config::Config;
use crate::feed::discard;
use crate::fork::{Call, Progress, Run};
use crate::logs::visible;
use crate::mode::Mode;
use crate::record::Record;
use crate::refusal::{IDENTITY, Refusal};
use crate::request_head::RawTarget;
use crate::stream::Stream;
use crate::strings::Strings;
use crate::watchdog::{Counted, Watchdog};
use crate::{VERSION, args, cgi, files, fork, outcome, probes, proxy, reply, report};

/// Answers one request.
pub(crate) async fn answer(
    watchdog: Arc<Watchdog>,
    connection: Rc<Activity>,
    mut request: Request<Incoming>,
) -> Answer {
    connection.call_has_begun();
    if let Some(refusal) = connection.take_refusal() {
        return Ok(reply::refused(&refusal).map(|body| body.on(connection)));
    }
    if let Some(raw) = connection.take_raw_target() {
        request.extensions_mut().insert(RawTarget(raw));
    }
    let is_debugging = watchdog.config.debug_headers;
    if is_debugging {
        print_headers(&watchdog, "in", request.headers());
    }
    let mut response = match request.uri().path() {
        "/_/health" => probes::health(&watchdog, request.method(), false),
        "/_/ready" => probes::ready(&watchdog, request.method()).await,
        _ => {
            connection.record(Record::begin(&watchdog, &request));
            let response = call(&watchdog, &connection, request).await;
            connection.has_answer(response.status());
            response
        }
    };
    if connection.answers_first() {
        // The gateway may then ask for health and readiness, which would run the function of any other image.
        let version = HeaderValue::from_static(VERSION);
        response.headers_mut().insert(IDENTITY, version);
    }
    if is_debugging {
        print_headers(&watchdog, "out", response.headers());
    }
    Ok(response.map(|body| body.on(connection)))
}

/// The story of a call: admitted → started → fed and read until it is over, fails, or its answer has to begin.
async fn call(
    watchdog: &Arc<Watchdog>,
    connection: &Rc<Activity>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    let slot = match admit(watchdog, &head) {
        Ok(slot) => slot,
        Err(refusal) => return refuse(watchdog, &refusal, &head, Some(body)),
    };
    // The host of a target in absolute form wins over the field (RFC 9112, 3.2.2).
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::try_from(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
    if watchdog.config.mode == Mode::Static {
        return match files::answer(&watchdog.config.static_path, &head, slot) {
            Ok(response) => response,
            Err(refusal) => refuse(watchdog, &refusal, &head, Some(body)),
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
            Err((refusal, body)) => refuse(watchdog, &refusal, &head, body),
        };
    }
    let mut run = match start(call, &head, body).await {
        Ok(run) => run,
        Err((refusal, body)) => return refuse(watchdog, &refusal, &head, body),
    };
    let held = watchdog.config.held_output;
    let ended = match poll_fn(|cx| run.poll(cx, held)).await {
        Ok(Progress::Full) if watchdog.config.mode == Mode::Serializing => {
            Err(Refusal::OutputTooLarge { limit: held })
        }
        other => other,
    };
    match ended {
        Ok(Progress::Over(exit)) => outcome::over(run, exit, &head.headers),
        // More output than is held back: the answer begins, and hopes for the best.
        Ok(Progress::Full) => outcome::stream(run, &head.headers, Stream::new),
        Err(refusal) => {
            report::failed(&run, 0, &refusal.sentence());
            // Dropping the run ends it. This happens after the answer has been written: the client comes first.
            tokio::task::spawn_local(async move { drop(run) });
            reply::refused(&refusal)
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

/// Begins the run, once its arguments are there if they come in the body.
async fn start(
    call: Call,
    head: &Parts,
    mut body: Incoming,
) -> Result<Run, (Refusal, Option<Incoming>)> {
    let config = &call.watchdog.config;
    let mut arguments = None;
    if config.has_arguments {
        match Box::pin(args::receive(&call, &mut body)).await {
            Ok(received) => arguments = Some(received),
            Err(refusal) => return Err((refusal, Some(body))),
        }
    }
    report::starting(&call.watchdog);
    let described = match describe(config, head) {
        Ok(described) => described,
        Err(refusal) => return Err((refusal, Some(body))),
    };
    let request = fork::Request {
        headers: &head.headers,
        described,
        body: arguments.is_none().then_some(body),
        arguments,
    };
    Run::start(call, request)
}

/// What the command gets of the request's head.
fn describe(config: &Config, head: &Parts) -> Result<Strings, Refusal> {
    if !config.cgi_headers {
        return Ok(Strings::default());
    }
    let dialect = if config.mode == Mode::Classic {
        Dialect::Classic
    } else {
        Dialect::HeadOnly
    };
    let too_long = |cgi::TooLong(variable)| Refusal::HeadTooLarge { variable };
    cgi::describe(head, dialect).map_err(too_long)
}

fn refuse(
    watchdog: &Watchdog,
    refusal: &Refusal,
    head: &Parts,
    body: Option<Incoming>,
) -> Response<Body> {
    report::refused(watchdog, &refusal.sentence());
    // A client that waits for "100 Continue" has not sent its body and now will not.
    if let Some(body) = body.filter(|_| !head.headers.contains_key(EXPECT)) {
        let until = watchdog
            .config
            .read_timeout
            .and_then(|limit| Instant::now().checked_add(limit));
        discard(body, until);
    }
    reply::refused(refusal)
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
