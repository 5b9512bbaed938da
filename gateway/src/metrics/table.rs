//! The names of all metrics, and what they mean. The documents are checked against this.

/// Each metric with its type, labels and meaning; the README's table is checked against this one.
pub const TABLE: &[(&str, &str, &str, &str)] = &[
    (
        "gateway_function_invocation_total",
        "counter",
        "function_name, code",
        "calls that ended, by status; 499: the caller went away, or broke its request off, before its answer had ended",
    ),
    (
        "gateway_functions_seconds",
        "histogram",
        "function_name, code",
        "seconds from the request to the end of the answer",
    ),
    (
        "gateway_function_invocation_started",
        "counter",
        "function_name",
        "calls that began",
    ),
    (
        "gateway_service_count",
        "gauge",
        "function_name",
        "replicas asked for",
    ),
    (
        "skep_in_flight",
        "gauge",
        "function_name",
        "calls running now",
    ),
    (
        "skep_endpoints",
        "gauge",
        "function_name, state",
        "endpoints by state: starting, ready, ejected, draining",
    ),
    (
        "skep_endpoint_events_total",
        "counter",
        "function_name, event",
        "what moved endpoints on: accepted, refused, silent, reset, draining, unlisted, emptied",
    ),
    (
        "skep_connect_failures_total",
        "counter",
        "function_name",
        "connections to an endpoint that failed",
    ),
    (
        "skep_retries_total",
        "counter",
        "function_name, cause",
        "calls tried again on another connection or endpoint: closed, unconnected, draining, busy, broken",
    ),
    (
        "skep_retry_budget",
        "gauge",
        "function_name",
        "how many calls may be tried again now",
    ),
    (
        "skep_broken_answers_total",
        "counter",
        "function_name",
        "answers that broke off after their head",
    ),
    (
        "skep_refused_total",
        "counter",
        "reason",
        "requests that reached no function: bad_request, not_found, method, connections (one too many), unauthorized, forbidden (from another site, host or network)",
    ),
    (
        "skep_proxy_protocol_closed_total",
        "counter",
        "reason",
        "connections closed for what they began with: signature (no PROXY header), version_1, version, command, family, length, incomplete, untrusted",
    ),
    ("skep_functions", "gauge", "", "functions in the table"),
    (
        "skep_route_clashes",
        "gauge",
        "",
        "functions without the host and path of their own that they want, because another one has it",
    ),
    (
        "skep_connections",
        "gauge",
        "",
        "connections of callers that are open",
    ),
    (
        "skep_discovery_listings_total",
        "counter",
        "result",
        "listings of the provider: ok, error",
    ),
    (
        "skep_discovery_seconds",
        "histogram",
        "",
        "seconds that a listing took",
    ),
    (
        "skep_discovery_lag_seconds",
        "histogram",
        "",
        "seconds from the hint of a change to the table that has it",
    ),
    (
        "skep_discovery_age_seconds",
        "gauge",
        "",
        "seconds since the last good listing",
    ),
    (
        "skep_tls_certificate_ends_timestamp_seconds",
        "gauge",
        "",
        "when the certificate that is shown ends, in seconds since 1970; not there without TLS",
    ),
    (
        "skep_tls_certificate_loads_total",
        "counter",
        "result",
        "certificates that were taken from their files (ok) or could not be used (error)",
    ),
    ("skep_build_info", "gauge", "version, sha", "always 1"),
];
