//! The pages: health, readiness, metrics, and the read-only management API (wire contract §3.2, §4).

pub mod types;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use serde_json::json;

use self::types::{Description, FunctionStatus, Info};
use crate::discovery::Freshness;
use crate::life::State;
use crate::metrics::{self, Metrics, Observed};
use crate::reply::{self, Body};
use crate::router::Page;
use crate::table::{Function, Table};

const HELP: &str = "\
skep: functions as a service on Docker Swarm

  curl -d hello http://HOST/function/NAME          call a function
  curl -d hello -H 'X-Function: NAME' http://HOST/ the same
  curl http://HOST/system/functions                list the functions
  curl http://HOST/readyz                          is this gateway ready?
  curl http://HOST/metrics                         Prometheus metrics
";

/// Why nothing is known right after the start.
const FIRST_LISTING: &str = "the first listing is still on its way";

/// A listing is due every five seconds, and may take some; one that is older means that the provider hangs.
const FRESH: Duration = Duration::from_secs(15);

/// Which provider the functions come from; what `/system/info` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orchestration {
    /// Docker Swarm services.
    Swarm,
    /// Local processes.
    Local,
}

/// What the pages are made from.
pub struct Pages {
    /// The functions.
    pub table: Table,
    /// How fresh they are.
    pub freshness: Freshness,
    /// The counts.
    pub metrics: Arc<Metrics>,
    /// Where the functions come from.
    pub orchestration: Orchestration,
    /// The default namespace.
    pub namespace: Arc<str>,
    /// Whether the gateway is finishing: no new call should come.
    pub draining: Arc<AtomicBool>,
}

impl Pages {
    /// Answers a page.
    #[must_use]
    pub fn answer(&self, page: &Page) -> Response<Body> {
        match page {
            Page::Help => reply::text(StatusCode::OK, HELP),
            Page::Health => reply::json(
                StatusCode::OK,
                &json!({ "status": "ok", "version": crate::VERSION, "sha": crate::GIT_SHA }),
            ),
            Page::Ready => self.ready(),
            Page::Metrics => reply::typed(
                StatusCode::OK,
                HeaderValue::from_static(metrics::CONTENT_TYPE),
                self.metrics(),
            ),
            Page::Functions => self.functions(),
            Page::Function(name) => self.function(name),
            Page::Info => reply::json(StatusCode::OK, &Info::of(self.orchestration)),
        }
    }

    /// Ready once the functions were listed; the last known ones keep it ready while Docker is away (docs/decisions).
    fn ready(&self) -> Response<Body> {
        let age = self.freshness.age();
        let draining = self.draining.load(Ordering::Acquire);
        let trouble = self.freshness.trouble();
        let has_trouble = trouble.is_some();
        let ready = age.is_some() && !draining;
        let reason = match (ready, draining) {
            (true, _) => trouble,
            (false, true) => Some("draining: this gateway is about to end".to_owned()),
            (false, false) => Some(trouble.unwrap_or_else(|| FIRST_LISTING.to_owned())),
        };
        let age = age.unwrap_or_default();
        let stale = if has_trouble || age > FRESH {
            age.as_secs_f64()
        } else {
            0.0
        };
        let functions = self.table.snapshot().functions().count();
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        reply::json(
            status,
            &json!({ "ready": ready, "reason": reason, "stale_seconds": (stale * 1000.0).round() / 1000.0, "functions": functions }),
        )
    }

    fn metrics(&self) -> Vec<u8> {
        let snapshot = self.table.snapshot();
        let observed = snapshot.functions().map(|function| Observed {
            metrics: &function.metrics,
            desired: function.deployment.replicas.desired,
            budget: function.budget.left(function.metrics.started()),
            endpoints: count_states(function),
        });
        self.metrics.render(observed, self.freshness.age())
    }

    fn functions(&self) -> Response<Body> {
        if !self.table.is_published() {
            return self.nothing_listed();
        }
        let snapshot = self.table.snapshot();
        let mut list: Vec<_> = snapshot
            .functions()
            .map(|function| FunctionStatus::of(function, &self.namespace))
            .collect();
        list.sort_by(|a, b| a.name.cmp(b.name));
        reply::json(StatusCode::OK, &list)
    }

    fn function(&self, name: &str) -> Response<Body> {
        match self.table.find(name) {
            Some(function) => {
                reply::json(StatusCode::OK, &Description::of(&function, &self.namespace))
            }
            None if !self.table.is_published() => self.nothing_listed(),
            None => {
                let sentence =
                    format!("function '{name}' not found; list them with GET /system/functions\n");
                reply::text(StatusCode::NOT_FOUND, sentence)
            }
        }
    }

    /// An empty list would say that there are no functions; nobody knows yet.
    fn nothing_listed(&self) -> Response<Body> {
        let why = self
            .freshness
            .trouble()
            .unwrap_or_else(|| FIRST_LISTING.to_owned());
        reply::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the functions are not known yet: {why}\n"),
        )
    }
}

fn count_states(function: &Function) -> Vec<(&'static str, usize)> {
    let states = State::ALL.into_iter().filter(|state| *state != State::Gone);
    states
        .map(|state| {
            (
                state.name(),
                function
                    .all_endpoints()
                    .filter(|endpoint| endpoint.state() == state)
                    .count(),
            )
        })
        .collect()
}
