//! What the watchdog was told: read once from the environment, all mistakes reported together.

mod reader;
mod variables;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderValue;

use crate::mode::Mode;
use crate::upstream::Upstream;
use reader::Reader;
use variables::VARIABLES;

/// What the watchdog was told, checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// How requests are answered.
    pub(crate) mode: Mode,
    /// Command and arguments; empty only in `mode=static`.
    pub(crate) command: Vec<String>,
    /// Limit of one run; `None` is off.
    pub(crate) exec_timeout: Option<Duration>,
    /// Limit of receiving one request; `None` is off.
    pub(crate) read_timeout: Option<Duration>,
    /// Limit until an answer begins, and of every pause after that; `None` is off.
    pub(crate) write_timeout: Option<Duration>,
    /// Only shown: the drain ends when nothing runs any more.
    pub(crate) healthcheck_interval: Duration,
    /// Calls at the same time.
    pub(crate) max_in_flight: Option<NonZeroUsize>,
    /// stderr shares the pipe of stdout.
    pub(crate) combine_output: bool,
    /// Content type of every success.
    pub(crate) content_type: Option<HeaderValue>,
    /// Where the function's own server listens, in `mode=http`.
    pub(crate) upstream: Option<Upstream>,
    /// Bodies are gathered before they are passed on.
    pub(crate) buffer_request: bool,
    /// The directory of `mode=static`.
    pub(crate) static_path: PathBuf,
    /// After this long without a call the child of `mode=http` is stopped; `None` is never.
    pub(crate) idle_timeout: Option<Duration>,
    /// In `mode=http`, how long nothing may flow in an answer that has begun, or in a tunnel; `None` is for ever.
    pub(crate) stream_idle_timeout: Option<Duration>,
    /// The function's own readiness path.
    pub(crate) ready_path: Option<String>,
    /// `Http_*` variables for the command.
    pub(crate) cgi_headers: bool,
    /// Bytes of output that are held back before the answer begins.
    pub(crate) held_output: usize,
    /// stdin as a JSON object.
    pub(crate) marshal_request: bool,
    /// The body is JSON and becomes arguments.
    pub(crate) has_arguments: bool,
    /// Children that are started ahead of their calls; 0 is none.
    pub(crate) prefork: usize,
    /// After this long without a call none is kept waiting; `None` is never.
    pub(crate) prefork_idle: Option<Duration>,
    /// Processor time of each process of a run.
    pub(crate) max_cpu_seconds: Option<u64>,
    /// Descriptors that each process of a run may have open.
    pub(crate) max_open_files: Option<u64>,
    /// Output copied to our stdout.
    pub(crate) write_debug: bool,
    /// Lines of a command's output get the time and the name of their stream.
    pub(crate) prefix_logs: bool,
    /// A line of a command's output that is longer is passed on in pieces.
    pub(crate) longest_line: usize,
    /// The caller's name for a call stands in the call's log line.
    pub(crate) log_call_id: bool,
    /// Headers printed to our stdout.
    pub(crate) debug_headers: bool,
    /// Lock file wanted.
    pub(crate) lock_file: bool,
    /// Port to listen on, 0 for any.
    pub(crate) port: u16,
    /// Port of the metrics, 0 for any; `None` is off.
    pub(crate) metrics_port: Option<u16>,
    /// Serving threads, at most.
    pub(crate) workers: usize,
    /// The listener is file descriptor 0 and stdout is the lifeline.
    pub(crate) inherit_listener: bool,
    /// One line for each value that was not used as written.
    pub(crate) warnings: Vec<String>,
}

/// Reads the configuration through `lookup`; an error is one line per mistake.
pub(crate) fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Config, Vec<String>> {
    let mut reader = Reader::new(lookup);
    let mode = reader.mode();
    let command = if mode == Mode::Static {
        Vec::new()
    } else {
        reader.command()
    };
    // The other modes have no options for these: stderr is apart, and the head is always in the environment.
    let is_classic = mode == Mode::Classic;
    let write_timeout = reader.write_timeout(mode);
    let exec_timeout = if is_classic {
        Duration::ZERO
    } else {
        Duration::from_secs(30)
    };
    reader.refuse_what_is_not_offered(mode);
    let mut config = Config {
        mode,
        command,
        exec_timeout: limit(reader.duration("exec_timeout", exec_timeout)),
        read_timeout: limit(reader.duration("read_timeout", Duration::from_secs(30))),
        write_timeout: limit(write_timeout),
        healthcheck_interval: reader.duration("healthcheck_interval", write_timeout),
        max_in_flight: NonZeroUsize::new(reader.number("max_inflight", 0)),
        combine_output: is_classic && reader.flag("combine_output", true),
        content_type: reader.content_type(),
        upstream: reader.upstream(mode),
        buffer_request: reader.switch(mode, "http_buffer_req_body")
            || reader.switch(mode, "buffer_http"),
        idle_timeout: limit(reader.duration("idle_timeout", Duration::ZERO)),
        stream_idle_timeout: limit(
            reader.duration("stream_idle_timeout", Duration::from_secs(600)),
        ),
        static_path: reader.static_path(),
        ready_path: reader.ready_path(mode),
        cgi_headers: !is_classic || reader.flag("cgi_headers", true),
        held_output: mode.held_output(if is_classic {
            reader.number("response_buffer", 64 * 1024)
        } else {
            0
        }),
        marshal_request: is_classic && reader.flag("marshal_request", false),
        has_arguments: reader.has_arguments(mode),
        prefork: reader.prefork(mode),
        prefork_idle: limit(reader.duration("prefork_idle", Duration::ZERO)),
        max_cpu_seconds: reader.per_run_limit(mode, "max_cpu_seconds"),
        max_open_files: reader.per_run_limit(mode, "max_open_files"),
        write_debug: is_classic && reader.flag("write_debug", false),
        prefix_logs: !is_classic && reader.go_flag("prefix_logs", true),
        longest_line: reader.longest_line(),
        log_call_id: !is_classic && reader.go_flag("log_callid", false),
        debug_headers: reader.flag("debug_headers", false),
        lock_file: !reader.switch(mode, "suppress_lock"),
        port: reader.number("port", 8080),
        metrics_port: reader.metrics_port(),
        workers: reader.workers(),
        inherit_listener: reader.inherit(),
        warnings: Vec::new(),
    };
    if !is_classic {
        let bytes = HeaderValue::from_static("application/octet-stream");
        config.content_type.get_or_insert(bytes);
    }
    if config.has_arguments && config.prefork > 0 {
        reader.mistakes.push("input_mode=args cannot go with prefork: a process that waits has its arguments already; unset one of them".to_owned());
    }
    if config.has_arguments && config.marshal_request {
        reader.mistakes.push("input_mode=args cannot go with marshal_request: both say what the body becomes; unset one of them".to_owned());
    }
    if !reader.mistakes.is_empty() {
        return Err(reader.mistakes);
    }
    config.warnings = reader.warnings;
    Ok(config)
}

/// Where the lock file lies; needed by `-run-healthcheck`, which reads nothing else.
pub(crate) fn lock_path(lookup: impl Fn(&str) -> Option<String>) -> PathBuf {
    let directory = ["skep_lock_dir", "TMPDIR"]
        .into_iter()
        .find_map(|name| lookup(name).filter(|value| !value.is_empty()));
    PathBuf::from(directory.unwrap_or_else(|| "/tmp".to_owned())).join(".lock")
}

/// The text of `--help`: every variable with its default and meaning.
pub(crate) fn help() -> String {
    let mut text = format!(
        "fwatchdog {}: turns one HTTP request into one run of a command\n\n\
         usage: fprocess=COMMAND fwatchdog\n\n\
         \x20 -run-healthcheck  exit 0 if the lock file exists, else 1\n\
         \x20 -version          print the version\n\
         \x20 -help             print this text\n\n\
         environment variables (durations: 30, 500ms, 1m30s; switches: true or false):\n",
        crate::VERSION
    );
    for variable in VARIABLES {
        text += &format!(
            "  {:<20} {:<16} {}\n",
            variable.name, variable.default, variable.meaning
        );
    }
    text
}

/// Zero means no limit, as in the original.
fn limit(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

#[cfg(test)]
mod tests;
