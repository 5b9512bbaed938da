//! Every metric's name, for what is shown and for the test that holds the documentation to it.

/// One metric as it is shown and documented.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    /// The labels' names.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

const fn family(
    name: &'static str,
    kind: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind,
        labels,
        help,
    }
}

pub(super) const REQUESTS: Family = family(
    "http_requests_total",
    "counter",
    &["code", "method"],
    "calls whose answer has ended",
);
pub(super) const DURATIONS: Family = family(
    "http_request_duration_seconds",
    "histogram",
    &["code", "method"],
    "from a call's head to the end of its answer's body",
);
pub(super) const IN_FLIGHT: Family = family(
    "http_requests_in_flight",
    "gauge",
    &[],
    "calls that are being served",
);
pub(super) const BROKEN: Family = family(
    "fwatchdog_broken_answers_total",
    "counter",
    &[],
    "answers that broke off after their head because the run failed",
);
pub(super) const SPAWNS: Family = family(
    "fwatchdog_spawn_seconds",
    "histogram",
    &[],
    "how long the start of each process took, until its exec",
);
pub(super) const WAITS: Family = family(
    "fwatchdog_wait_seconds",
    "histogram",
    &[],
    "how long calls waited for a process that may have to be started first",
);
pub(super) const KILLS: Family = family(
    "fwatchdog_kills_total",
    "counter",
    &["reason"],
    "process trees that were ended, and why",
);
pub(super) const DROPPED: Family = family(
    "fwatchdog_log_dropped_bytes_total",
    "counter",
    &["stream"],
    "output that was dropped because nobody read it fast enough",
);
pub(super) const POOL: Family = family(
    "fwatchdog_pool_size",
    "gauge",
    &[],
    "processes that stand ready for calls; only with prefork",
);
pub(super) const BUILD: Family = family(
    "fwatchdog_build_info",
    "gauge",
    &["version"],
    "always 1, with the version",
);
pub(super) const STARTED: Family = family(
    "process_start_time_seconds",
    "gauge",
    &[],
    "when the watchdog was started, in seconds since 1970",
);
pub(super) const RESIDENT: Family = family(
    "process_resident_memory_bytes",
    "gauge",
    &[],
    "the watchdog's own memory, without its commands",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_every_metric_with_its_kind_labels_and_meaning() {
        let page = include_str!("../../../docs/watchdog.md").replace('`', "");
        let families = [
            REQUESTS, DURATIONS, IN_FLIGHT, BROKEN, SPAWNS, WAITS, KILLS, DROPPED, POOL, BUILD,
            STARTED, RESIDENT,
        ];
        for family in families {
            let Family {
                name,
                kind,
                labels,
                help,
            } = family;
            let labels = labels.join(", ");
            let row = format!("| {name} | {kind} | {labels} | {help} |").replace("|  |", "| |");
            assert!(page.contains(&row), "{row}");
        }
    }
}
