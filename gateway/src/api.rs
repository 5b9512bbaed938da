//! The pages: health, readiness, metrics; and the management API (wire contract §3.2, §4), in modules of its own.

mod alert;
mod caller;
mod fields;
mod keys;
mod logs;
mod manager;
mod replicas;
mod route;
mod scopes;
mod secrets;
pub mod types;
mod wanted;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use serde_json::json;

pub use self::manager::Manager;
use self::types::{Port, Serves};
use crate::auth::HostNames;
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

/// Who may ask for what is the operators', besides having a login.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Whether the management API asks for a login.
    pub has_login: bool,
    /// The names of this gateway, beside addresses and names without a dot.
    pub hosts: HostNames,
    /// Whether functions share a network with this gateway.
    pub has_network: bool,
    /// Whether they may ask as well.
    pub admits_functions: bool,
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
    /// Where this gateway listens.
    pub ports: Vec<Port>,
    /// Who may ask for what is the operators'.
    pub access: Access,
    /// Whether the gateway is finishing: no new call should come.
    pub draining: Arc<AtomicBool>,
}

impl Pages {
    /// Answers a page.
    #[must_use]
    pub fn answer(&self, page: &Page) -> Response<Body> {
        match page {
            Page::Help => reply::text(StatusCode::OK, self.help()),
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
        }
    }

    /// Answers whoever may call functions and is told nothing else: whether calls can come here, not why.
    #[must_use]
    pub fn answer_in_short(&self, page: &Page) -> Response<Body> {
        match page {
            Page::Health => reply::json(StatusCode::OK, &json!({ "status": "ok" })),
            Page::Ready if self.is_ready() => {
                reply::json(StatusCode::OK, &json!({ "ready": true }))
            }
            _ => reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false })),
        }
    }

    fn help(&self) -> String {
        let mut help = HELP.to_owned();
        if self.ports.iter().any(|port| port.serves == Serves::System) {
            help += "\nEach HOST is another port of this gateway:\n\n";
            for port in &self.ports {
                help += &format!("  {port}\n");
            }
        }
        help
    }

    fn is_ready(&self) -> bool {
        self.freshness.age().is_some() && !self.draining.load(Ordering::Acquire)
    }

    /// Ready once the functions were listed; the last known ones keep it ready while Docker is away (docs/decisions).
    fn ready(&self) -> Response<Body> {
        let age = self.freshness.age();
        let draining = self.draining.load(Ordering::Acquire);
        let trouble = self.freshness.trouble();
        let has_trouble = trouble.is_some();
        let ready = self.is_ready();
        let reason = match (ready, draining) {
            (true, _) => trouble,
            (false, true) => Some("draining: this gateway is about to end".to_owned()),
            (false, false) => Some(self.why_nothing_is_known()),
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

    /// Why no listing has come yet.
    pub(crate) fn why_nothing_is_known(&self) -> String {
        let trouble = self.freshness.trouble();
        trouble.unwrap_or_else(|| FIRST_LISTING.to_owned())
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
