//! Calls one URL at a constant rate and says how each call ended; 1 as its exit code if one did not end in the right 200.
//!
//! `bench/steady.sh` runs it; the tests use the same module as a library.

use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;

#[allow(
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "the tests' module"
)]
#[path = "../tests/support/steady.rs"]
mod steady;

/// Calls a URL at a constant rate and counts every call that did not end in the right 200.
#[derive(Parser)]
struct Arguments {
    /// http://host:port/path; several with one path are tried one after the other, as a balancer would.
    #[arg(required = true)]
    url: Vec<String>,
    /// Calls a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Calls in all.
    #[arg(long, default_value_t = 10_000)]
    count: u32,
    /// POST this body, and expect it back.
    #[arg(long)]
    echo: Option<String>,
    /// Expect this body.
    #[arg(long)]
    expect: Option<String>,
    /// A connection for each call.
    #[arg(long)]
    no_keep_alive: bool,
    /// Seconds that a call may take.
    #[arg(long, default_value_t = 30)]
    limit: u64,
}

fn main() -> ExitCode {
    match load(Arguments::parse()) {
        Ok(load) => {
            let tally = load.run(|_| false);
            print!("{tally}");
            ExitCode::from(u8::from(tally.failed() > 0))
        }
        Err(why) => {
            eprintln!("steady: {why}");
            ExitCode::from(2)
        }
    }
}

fn load(arguments: Arguments) -> Result<steady::Load, String> {
    let mut to = Vec::new();
    let mut path = String::new();
    for url in &arguments.url {
        let rest = url
            .strip_prefix("http://")
            .ok_or(format!("'{url}' does not begin with http://"))?;
        let (authority, after) = rest.split_once('/').unwrap_or((rest, ""));
        let addresses = authority.to_socket_addrs();
        to.extend(addresses.map_err(|error| format!("'{authority}' is no host:port: {error}"))?);
        path = format!("/{after}");
    }
    let body = arguments.echo.map(Bytes::from);
    Ok(steady::Load {
        to,
        path,
        expected: arguments.expect.map(Bytes::from).or(body.clone()),
        body,
        rate: arguments.rate.max(1),
        count: arguments.count,
        keep_alive: !arguments.no_keep_alive,
        limit: Duration::from_secs(arguments.limit),
        tls: None,
    })
}
