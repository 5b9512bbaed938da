//! The counts in the text format that Prometheus reads.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use super::families::{
    BROKEN, BUILD, DROPPED, DURATIONS, Family, IN_FLIGHT, KILLS, POOL, REQUESTS, RESIDENT, SPAWNS,
    STARTED, WAITS,
};
use super::histogram::{self, Bounds, Histogram};
use super::{Kill, calls};
use crate::VERSION;
use crate::watchdog::Watchdog;

/// Everything, as it is now.
pub(crate) fn render(watchdog: &Watchdog) -> String {
    let metrics = &watchdog.metrics;
    let mut page = Page(String::new());
    page.begin(&REQUESTS);
    for (code, verb, durations) in metrics.calls.iter() {
        page.value(&REQUESTS, &[&code, verb], durations.read().count());
    }
    page.begin(&DURATIONS);
    for (code, verb, durations) in metrics.calls.iter() {
        page.histogram(&DURATIONS, &[&code, verb], calls::BOUNDS, durations);
    }
    page.one(&IN_FLIGHT, watchdog.calls.count());
    page.one(&BROKEN, metrics.broken.load(Ordering::Relaxed));
    page.begin(&SPAWNS);
    page.histogram(&SPAWNS, &[], histogram::SHORT, &metrics.spawns);
    page.begin(&WAITS);
    page.histogram(&WAITS, &[], histogram::LONG, &metrics.waits);
    page.begin(&KILLS);
    for (reason, count) in Kill::ALL.iter().zip(&metrics.kills) {
        page.value(&KILLS, &[reason.name()], count.load(Ordering::Relaxed));
    }
    page.begin(&DROPPED);
    for sink in [Some(&watchdog.log), watchdog.debug.as_ref()]
        .into_iter()
        .flatten()
    {
        page.value(&DROPPED, &[sink.name()], sink.dropped());
    }
    if let Some(size) = metrics.pool() {
        page.one(&POOL, size);
    }
    page.begin(&BUILD);
    page.value(&BUILD, &[VERSION], 1);
    let started = metrics.started.duration_since(UNIX_EPOCH);
    page.one(&STARTED, Seconds(started.unwrap_or_default()));
    if let Some(bytes) = resident() {
        page.one(&RESIDENT, bytes);
    }
    page.0
}

/// The text so far.
struct Page(String);

impl Page {
    fn begin(&mut self, family: &Family) {
        let Family {
            name, kind, help, ..
        } = family;
        self.add(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One sample; `values` are those of the family's labels.
    fn value(&mut self, family: &Family, values: &[&str], value: impl Display) {
        self.sample(family, "", values, None, &value);
    }

    /// A family of one value.
    fn one(&mut self, family: &Family, value: impl Display) {
        self.begin(family);
        self.value(family, &[], value);
    }

    fn histogram(
        &mut self,
        family: &Family,
        values: &[&str],
        bounds: &Bounds,
        durations: &Histogram,
    ) {
        let recorded = durations.read();
        let bounds = bounds.iter().map(|(_, label)| *label).chain(["+Inf"]);
        for (bound, count) in bounds.zip(recorded.up_to) {
            self.sample(family, "_bucket", values, Some(bound), &count);
        }
        let sum = Seconds(recorded.sum);
        self.sample(family, "_sum", values, None, &sum);
        self.sample(family, "_count", values, None, &recorded.count());
    }

    fn sample(
        &mut self,
        family: &Family,
        part: &str,
        values: &[&str],
        bound: Option<&str>,
        value: &dyn Display,
    ) {
        self.add(format_args!("{}{part}", family.name));
        let labels = family.labels.iter().copied().zip(values.iter().copied());
        let mut opening = '{';
        for (label, value) in labels.chain(bound.map(|bound| ("le", bound))) {
            // All values are our own words and numbers: none needs escaping.
            self.add(format_args!("{opening}{label}=\"{value}\""));
            opening = ',';
        }
        let closing = if opening == ',' { "}" } else { "" };
        self.add(format_args!("{closing} {value}\n"));
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(text);
    }
}

/// A duration as the format wants it.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{:09}", self.0.as_secs(), self.0.subsec_nanos())
    }
}

/// Our memory, as the kernel tells it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}
