//! The watchdog: turns one HTTP request into one run of a command.
//!
//! One request's story is `handler`: admitted → `fork` starts the command and feeds and reads it → an answer whose
//! status is exact if the output is small, else a `stream`. `workers` serve, each thread with its own runtime; the
//! main thread is the `reaper`, which ends process trees and adopts orphans, and waits for the signal to go.
//!
//! The library exists because the gateway offers the same program as `skep watchdog`.

mod activity;
mod args;
mod authority;
mod backoff;
mod body;
mod cgi;
mod chunks;
mod command;
mod config;
mod connection;
mod content_type;
mod deadline;
mod download;
mod duration;
mod excerpt;
mod exit;
mod feed;
mod files;
mod filler;
mod fork;
mod gather;
mod handler;
mod health;
mod hops;
mod intake;
mod json;
mod lifecycle;
mod limits;
mod lines;
mod listener;
mod listing;
mod logs;
mod marshal;
mod memory;
mod metrics;
mod mode;
mod note;
mod outcome;
mod pipes;
mod pool;
mod probes;
mod process;
#[cfg(test)]
mod properties;
mod proxy;
mod quota;
mod range;
mod reaper;
mod record;
mod refusal;
mod reply;
mod report;
mod request_head;
mod runs;
mod scrape;
mod service;
mod socket;
#[expect(
    unsafe_code,
    reason = "the start of a process by clone(2); the safety argument stands in the module"
)]
mod spawn;
mod start;
mod stream;
mod strings;
mod throttle;
mod timestamp;
mod timing;
mod tree;
mod tunnel;
mod upload;
mod upstream;
mod watchdog;
mod workers;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// The version, as `-version` prints it and `/_/health` tells it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Wrong use or configuration.
const MISUSE: u8 = 2;

/// Runs the watchdog with the process's own environment and descriptors until it is told to stop.
///
/// To be called on the main thread, and before other threads are started: orphaned processes are given to that thread,
/// and `skep_inherit=stdin` replaces file descriptor 0. `args` come without the program's name.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let lookup =
        |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let lock_file = config::lock_path(lookup);
    if let Some(arg) = args.next() {
        return obey(&arg.to_string_lossy(), &lock_file);
    }
    match config::read(lookup) {
        Ok(config) => lifecycle::run(config, &lock_file),
        Err(mistakes) => misuse(&mistakes),
    }
}

/// Checks a configuration without starting anything: the words of the command that a watchdog with these variables would run, none in
/// `mode=static`.
///
/// # Errors
/// The sentences with which the watchdog would refuse to start, all of them.
pub fn check(lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, Vec<String>> {
    config::read(lookup).map(|config| config.command)
}

/// The flags, with one dash or two; each is a whole command.
fn obey(arg: &str, lock_file: &Path) -> ExitCode {
    match arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) {
        Some("run-healthcheck") => return check_health(lock_file),
        Some("version") => say(io::stdout(), &format!("fwatchdog {VERSION}\n")),
        Some("help" | "h") => say(io::stdout(), &config::help()),
        _ => return misuse(&[format!("unknown argument {arg}; see fwatchdog -help")]),
    }
    ExitCode::SUCCESS
}

fn misuse(mistakes: &[String]) -> ExitCode {
    for mistake in mistakes {
        say(io::stderr(), &format!("fwatchdog: {mistake}\n"));
    }
    ExitCode::from(MISUSE)
}

/// What a `HEALTHCHECK` in an image calls.
fn check_health(lock_file: &Path) -> ExitCode {
    let reason = match lock_file.symlink_metadata() {
        Ok(found) if found.is_file() => return ExitCode::SUCCESS,
        Ok(_) => "is not a regular file",
        Err(_) => "does not exist",
    };
    let text = format!("fwatchdog: unhealthy: {} {reason}\n", lock_file.display());
    say(io::stderr(), &text);
    ExitCode::FAILURE
}

/// Writes a text; the macros of the standard library would panic if nobody reads it.
pub(crate) fn say(mut out: impl Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
