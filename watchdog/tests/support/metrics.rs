//! A watchdog's metrics as a scraper sees them.

use std::collections::BTreeMap;
use std::net::TcpStream;

use super::client::{self, Answer, Request};
use super::{PATIENCE, Watchdog, eventually_or};

impl Watchdog {
    /// The port of its metrics, which it has logged before it listened.
    pub fn metrics_port(&self) -> u16 {
        let log = self.log();
        let line = log
            .lines()
            .find_map(|line| line.split_once("metrics port: "));
        line.expect("it says where its metrics are")
            .1
            .parse()
            .unwrap()
    }

    /// What its metrics port answers to this request.
    pub fn ask_metrics(&self, request: &Request) -> Answer {
        let stream = TcpStream::connect(("127.0.0.1", self.metrics_port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        client::exchange(stream, request)
    }

    /// Its metrics: each sample's value by its name and labels.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = self.ask_metrics(&Request::get("/metrics"));
        assert_eq!(answer.status, 200);
        let samples = answer.text();
        let samples = samples.lines().filter(|line| !line.starts_with('#'));
        let parse = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        samples.map(parse).collect()
    }

    /// One sample, 0 if it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics().get(name).copied().unwrap_or(0.0)
    }

    /// Waits until a sample has a value.
    pub fn counts(&self, name: &str, value: f64) {
        eventually_or(
            || self.metric(name) == value,
            || format!("{name} is {value}; there are {:#?}", self.metrics()),
        );
    }
}
