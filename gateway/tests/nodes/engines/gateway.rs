//! The gateway of a node: one container, read and called from inside the node's network.

use std::net::SocketAddr;
use std::time::Duration;

use super::Node;
use crate::support::client::{get, try_get};
use crate::support::within;

/// The network that functions and gateways share.
pub(super) const NETWORK: &str = "functions";
/// Where the gateways listen, each in its engine's network.
pub(super) const PORT: u16 = 8080;

impl Node {
    /// Starts a gateway on this node that reads what that engine says.
    pub(crate) fn start_gateway(&self, name: &str, port: u16, engine: &Self) {
        // The folder, so that an engine that starts anew is found by its new socket.
        let socket = format!("{}:/engine", engine.socket().parent().unwrap().display());
        let (port, network) = (format!("{port}:8080"), format!("network={NETWORK}"));
        let options = [
            "run",
            "-d",
            "--name",
            name,
            "-p",
            &port,
            "--network",
            NETWORK,
            "-v",
            &socket,
            "-e",
            &network,
            "-e",
            "basic_auth=false",
            "-e",
            "DOCKER_HOST=unix:///engine/docker.sock",
            "--stop-timeout",
            "60",
            "skep/gateway",
        ];
        self.docker(&options);
    }

    pub(crate) fn wait_for_gateway(&self) {
        within(
            Duration::from_secs(60),
            &format!("the gateway on {} is ready", self.name),
            || {
                self.inside(|| {
                    try_get(self.gateway(), "/readyz").is_some_and(|answer| answer.status == 200)
                })
            },
        );
    }

    /// Where its gateway listens, seen from inside any of the engines' networks.
    pub(crate) fn gateway(&self) -> SocketAddr {
        (self.address, PORT).into()
    }

    /// The value of a series on its gateway's metrics page, 0 if it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.inside(|| get(self.gateway(), "/metrics").text());
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// How many replicas of a function take calls, as this node's gateway sees it.
    pub(crate) fn replicas(&self, function: &str) -> u64 {
        let path = format!("/system/function/{function}");
        let answer = self.inside(|| get(self.gateway(), &path));
        answer.json()["availableReplicas"].as_u64().unwrap_or(0)
    }
}
