//! Every metric name, and methods named after the events that move them. Label values come only from known functions.

mod function;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::function::{Call, FunctionMetrics, Retried};
pub use self::table::TABLE;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    Opts, Registry, TextEncoder,
};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why a request reached no function.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// Malformed: a bad name or a missing header.
    BadRequest,
    /// No such function or page.
    NotFound,
    /// A known page with a verb it does not have.
    Method,
    /// One connection too many.
    Connections,
    /// No login or key, or not a good one.
    Unauthorized,
    /// Something of the operators', asked for by another site's page, by a function, or for a host that is not ours.
    Forbidden,
}

/// All metrics of one gateway.
pub struct Metrics {
    registry: Registry,
    per_function: Arc<PerFunction>,
    /// Every function that anybody holds the handles of, and at times some that nobody does any longer.
    functions: Mutex<HashMap<String, Arc<FunctionMetrics>>>,
    refused: [IntCounter; 6],
    connections: Gauge,
    proxy_protocol: IntCounterVec,
    service_count: GaugeVec,
    in_flight: GaugeVec,
    endpoints: GaugeVec,
    budget: GaugeVec,
    table_size: Gauge,
    clashes: Gauge,
    listings: [IntCounter; 2],
    listing_seconds: Histogram,
    lag: Histogram,
    age: Gauge,
    certificate_ends: GaugeVec,
    certificate_loads: [IntCounter; 2],
    // The gauges above are filled at each scrape; two scrapes at once would mix their fillings.
    scrape: Mutex<()>,
}

struct PerFunction {
    invocations: IntCounterVec,
    seconds: HistogramVec,
    started: IntCounterVec,
    connect_failures: IntCounterVec,
    retries: IntCounterVec,
    endpoint_events: IntCounterVec,
    broken: IntCounterVec,
}

/// What a scrape says of one function.
pub struct Observed<'a> {
    /// Its handles.
    pub metrics: &'a FunctionMetrics,
    /// Replicas asked for.
    pub desired: u64,
    /// How many of its calls may be tried again.
    pub budget: f64,
    /// How many endpoints are in each state, by the state's name.
    pub endpoints: Vec<(&'static str, usize)>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Panics
    /// If two entries of [`TABLE`] bear one name.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Make(&registry);
        let refused = make.counter_vec("skep_refused_total");
        let listings = make.counter_vec("skep_discovery_listings_total");
        let certificates = make.counter_vec("skep_tls_certificate_loads_total");
        make.gauge_vec("skep_build_info")
            .with_label_values(&[crate::VERSION, crate::GIT_SHA])
            .set(1.0);
        registry
            .register(Box::new(ProcessCollector::for_self()))
            .expect("metric names are unique");
        Self {
            per_function: Arc::new(PerFunction {
                invocations: make.counter_vec("gateway_function_invocation_total"),
                seconds: make.histogram_vec("gateway_functions_seconds"),
                started: make.counter_vec("gateway_function_invocation_started"),
                connect_failures: make.counter_vec("skep_connect_failures_total"),
                retries: make.counter_vec("skep_retries_total"),
                endpoint_events: make.counter_vec("skep_endpoint_events_total"),
                broken: make.counter_vec("skep_broken_answers_total"),
            }),
            functions: Mutex::default(),
            connections: make
                .gauge_vec("skep_connections")
                .with_label_values::<&str>(&[]),
            proxy_protocol: make.counter_vec("skep_proxy_protocol_closed_total"),
            refused: [
                "bad_request",
                "not_found",
                "method",
                "connections",
                "unauthorized",
                "forbidden",
            ]
            .map(|reason| refused.with_label_values(&[reason])),
            service_count: make.gauge_vec("gateway_service_count"),
            in_flight: make.gauge_vec("skep_in_flight"),
            endpoints: make.gauge_vec("skep_endpoints"),
            budget: make.gauge_vec("skep_retry_budget"),
            table_size: make
                .gauge_vec("skep_functions")
                .with_label_values::<&str>(&[]),
            clashes: make
                .gauge_vec("skep_route_clashes")
                .with_label_values::<&str>(&[]),
            listings: ["ok", "error"].map(|result| listings.with_label_values(&[result])),
            listing_seconds: make
                .histogram_vec("skep_discovery_seconds")
                .with_label_values::<&str>(&[]),
            lag: make
                .histogram_vec("skep_discovery_lag_seconds")
                .with_label_values::<&str>(&[]),
            age: make
                .gauge_vec("skep_discovery_age_seconds")
                .with_label_values::<&str>(&[]),
            certificate_ends: make.gauge_vec("skep_tls_certificate_ends_timestamp_seconds"),
            certificate_loads: ["ok", "error"]
                .map(|result| certificates.with_label_values(&[result])),
            scrape: Mutex::default(),
            registry,
        }
    }

    /// The handles of one function, the same ones as long as anybody holds them. Its series go when nobody does.
    #[must_use]
    pub fn function(&self, label: &str) -> Arc<FunctionMetrics> {
        let mut functions = self.functions();
        if let Some(known) = functions.get(label) {
            return known.clone();
        }
        forget(&mut functions);
        let fresh = Arc::new(FunctionMetrics::new(label, self.per_function.clone()));
        functions.insert(label.to_owned(), fresh.clone());
        fresh
    }

    fn functions(&self) -> MutexGuard<'_, HashMap<String, Arc<FunctionMetrics>>> {
        self.functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What counts connections: those that are open, and those that were too many.
    #[must_use]
    pub fn connections(&self) -> (Gauge, IntCounter) {
        let refused = &self.refused[Refused::Connections as usize];
        (self.connections.clone(), refused.clone())
    }

    /// What counts connections that were closed for their PROXY header, by reason.
    #[must_use]
    pub fn proxy_protocol<const N: usize>(&self, reasons: [&str; N]) -> [IntCounter; N] {
        reasons.map(|reason| self.proxy_protocol.with_label_values(&[reason]))
    }

    /// A request reached no function.
    pub fn refused(&self, why: Refused) {
        self.refused[why as usize].inc();
    }

    /// A listing of the provider ended.
    pub fn listed(&self, took: Duration, ok: bool) {
        self.listings[usize::from(!ok)].inc();
        self.listing_seconds.observe(took.as_secs_f64());
    }

    /// A certificate is shown from now on; when it ends, if that can be told.
    pub fn certificate_taken(&self, ends: Option<SystemTime>) {
        self.certificate_loads[0].inc();
        let ends = ends.and_then(|ends| ends.duration_since(UNIX_EPOCH).ok());
        let ends = ends.unwrap_or_default().as_secs_f64();
        self.certificate_ends
            .with_label_values::<&str>(&[])
            .set(ends);
    }

    /// A certificate could not be used.
    pub fn certificate_refused(&self) {
        self.certificate_loads[1].inc();
    }

    /// So many functions are without the route that they want.
    pub fn route_clashes(&self, number: u32) {
        self.clashes.set(number.into());
    }

    /// A change that was hinted at so long ago is in the table.
    pub fn published_after(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }

    /// Everything, in Prometheus' text format.
    pub fn render<'a>(
        &self,
        functions: impl Iterator<Item = Observed<'a>>,
        age: Option<Duration>,
    ) -> Vec<u8> {
        let _one_at_a_time = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut self.functions());
        let filled = [
            &self.service_count,
            &self.in_flight,
            &self.endpoints,
            &self.budget,
        ];
        for gauges in filled {
            gauges.reset();
        }
        let mut count = 0.0;
        for function in functions {
            let label = function.metrics.label();
            #[expect(
                clippy::cast_precision_loss,
                reason = "replica counts are far below 2^52"
            )]
            self.service_count
                .with_label_values(&[label])
                .set(function.desired as f64);
            #[expect(
                clippy::cast_precision_loss,
                reason = "in-flight counts are far below 2^52"
            )]
            self.in_flight
                .with_label_values(&[label])
                .set(function.metrics.in_flight() as f64);
            self.budget.with_label_values(&[label]).set(function.budget);
            for (state, number) in function.endpoints {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "endpoint counts are far below 2^52"
                )]
                self.endpoints
                    .with_label_values(&[label, state])
                    .set(number as f64);
            }
            count += 1.0;
        }
        self.table_size.set(count);
        self.age
            .set(age.map_or(f64::INFINITY, |age| age.as_secs_f64()));
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}

/// Forgets functions whose handles nobody holds. Under the lock, so that nobody gets hold of one whose series are about to go.
fn forget(functions: &mut HashMap<String, Arc<FunctionMetrics>>) {
    functions.retain(|_, metrics| Arc::strong_count(metrics) > 1);
}

/// Builds a metric from its row of [`TABLE`] and registers it.
struct Make<'a>(&'a Registry);

impl Make<'_> {
    fn row(name: &str) -> (Opts, Vec<&'static str>) {
        let (name, _, labels, help) = TABLE
            .iter()
            .find(|row| row.0 == name)
            .expect("every metric has its row in TABLE");
        (
            Opts::new(*name, *help),
            labels
                .split(", ")
                .filter(|label| !label.is_empty())
                .collect(),
        )
    }

    fn add<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0
            .register(Box::new(collector.clone()))
            .expect("metric names are unique");
        collector
    }

    fn counter_vec(&self, name: &str) -> IntCounterVec {
        let (opts, labels) = Self::row(name);
        self.add(IntCounterVec::new(opts, &labels).expect("valid metric"))
    }

    fn gauge_vec(&self, name: &str) -> GaugeVec {
        let (opts, labels) = Self::row(name);
        self.add(GaugeVec::new(opts, &labels).expect("valid metric"))
    }

    fn histogram_vec(&self, name: &str) -> HistogramVec {
        let (opts, labels) = Self::row(name);
        self.add(HistogramVec::new(HistogramOpts::from(opts), &labels).expect("valid metric"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render(std::iter::empty(), None)).unwrap()
    }

    #[test]
    fn counts_calls_by_status_and_forgets_a_function_that_is_gone() {
        let metrics = Metrics::new();
        let function = metrics.function("echo");
        for code in [200, 200, 500] {
            Call::begin(metrics.function("echo")).answered(code);
        }
        drop(Call::begin(function.clone()));
        let page = text(&metrics);
        assert!(
            page.contains(
                r#"gateway_function_invocation_total{code="200",function_name="echo"} 2"#
            ),
            "{page}"
        );
        assert!(
            page.contains(
                r#"gateway_function_invocation_total{code="500",function_name="echo"} 1"#
            )
        );
        assert!(
            page.contains(
                r#"gateway_function_invocation_total{code="499",function_name="echo"} 1"#
            )
        );
        assert!(page.contains(r#"gateway_function_invocation_started{function_name="echo"} 4"#));
        assert_eq!(function.calls(), 4);
        drop(function);
        assert_eq!(metrics.function("echo").calls(), 4, "it is back in time");
        assert!(
            !text(&metrics).contains("echo"),
            "no series outlives its function"
        );
    }

    #[test]
    fn says_what_the_process_uses() {
        let page = text(&Metrics::new());
        for name in [
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_cpu_seconds_total",
            "skep_build_info",
        ] {
            assert!(page.contains(name), "{name} in {page}");
        }
    }
}
