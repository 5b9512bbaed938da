//! Every environment variable of the watchdog: read once, all mistakes reported together.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderValue;

use crate::{command, duration};

/// One environment variable as `--help` and the documentation list it.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) meaning: &'static str,
}

const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        default,
        meaning,
    }
}

/// All variables, in the order of interest.
pub(crate) const VARIABLES: &[Variable] = &[
    variable(
        "fprocess",
        "(required)",
        "command that is run once per request: body in on stdin, answer out on stdout",
    ),
    variable(
        "function_process",
        "(unset)",
        "other name of fprocess; wins when both are set",
    ),
    variable(
        "exec_timeout",
        "0 (off)",
        "how long one run may take before its whole process tree is ended (answer 408)",
    ),
    variable(
        "read_timeout",
        "30s",
        "how long a request's head, and its body, may take to arrive (answer 408)",
    ),
    variable(
        "write_timeout",
        "30s",
        "how long an answer may take to begin (504), then to go on; also the limit of the drain",
    ),
    variable(
        "healthcheck_interval",
        "= write_timeout",
        "accepted for compatibility; the drain never sleeps it through",
    ),
    variable(
        "max_inflight",
        "0 (no limit)",
        "calls at the same time; further ones are answered 429",
    ),
    variable(
        "combine_output",
        "true",
        "stderr becomes part of the answer; false: it goes to the watchdog's stderr",
    ),
    variable(
        "content_type",
        "(unset)",
        "Content-Type of every successful answer",
    ),
    variable(
        "cgi_headers",
        "true",
        "request head in the command's environment as Http_* variables",
    ),
    variable(
        "response_buffer",
        "65536",
        "bytes of output held back until the run ends; longer answers are streamed",
    ),
    variable(
        "marshal_request",
        "false",
        "stdin is a JSON object with the headers and the body in base64",
    ),
    variable(
        "write_debug",
        "false",
        "copy the command's output to the watchdog's stdout",
    ),
    variable(
        "debug_headers",
        "false",
        "print the headers of requests and answers to stdout",
    ),
    variable("suppress_lock", "false", "do not create the lock file"),
    variable(
        "port",
        "8080",
        "TCP port; 0 takes a free one and says which",
    ),
    variable("mode", "classic", "only classic: one process per request"),
    variable("jwt_auth", "false", "not supported: true refuses to start"),
    variable(
        "TMPDIR",
        "/tmp",
        "directory of the lock file, whose name is .lock",
    ),
    variable(
        "skep_lock_dir",
        "= TMPDIR",
        "directory of the lock file, kept from the command",
    ),
    variable(
        "skep_workers",
        "2 per CPU, at most 4",
        "most threads that serve requests; started as connections come",
    ),
    variable(
        "skep_inherit",
        "(unset)",
        "stdin: file descriptor 0 is the listening socket; exit when stdout's reader is gone",
    ),
];

/// What the watchdog was told, checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// Command and arguments; never empty.
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
    /// `Http_*` variables for the command.
    pub(crate) cgi_headers: bool,
    /// Bytes of output held until the run ends.
    pub(crate) response_buffer: usize,
    /// stdin as a JSON object.
    pub(crate) marshal_request: bool,
    /// Output copied to our stdout.
    pub(crate) write_debug: bool,
    /// Headers printed to our stdout.
    pub(crate) debug_headers: bool,
    /// Lock file wanted.
    pub(crate) lock_file: bool,
    /// Port to listen on, 0 for any.
    pub(crate) port: u16,
    /// Serving threads, at most.
    pub(crate) workers: usize,
    /// The listener is file descriptor 0 and stdout is the lifeline.
    pub(crate) inherit_listener: bool,
    /// One line for each value that was not used as written.
    pub(crate) warnings: Vec<String>,
}

/// Reads the configuration through `lookup`; an error is one line per mistake.
pub(crate) fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Config, Vec<String>> {
    let mut reader = Reader {
        lookup,
        warnings: Vec::new(),
        mistakes: Vec::new(),
    };
    let write_timeout = reader.duration("write_timeout", Duration::from_secs(30));
    let command = reader.command();
    reader.refuse_what_is_not_offered();
    let config = Config {
        command,
        exec_timeout: limit(reader.duration("exec_timeout", Duration::ZERO)),
        read_timeout: limit(reader.duration("read_timeout", Duration::from_secs(30))),
        write_timeout: limit(write_timeout),
        healthcheck_interval: reader.duration("healthcheck_interval", write_timeout),
        max_in_flight: NonZeroUsize::new(reader.number("max_inflight", 0)),
        combine_output: reader.flag("combine_output", true),
        content_type: reader.content_type(),
        cgi_headers: reader.flag("cgi_headers", true),
        response_buffer: reader.number("response_buffer", 64 * 1024),
        marshal_request: reader.flag("marshal_request", false),
        write_debug: reader.flag("write_debug", false),
        debug_headers: reader.flag("debug_headers", false),
        lock_file: !reader.flag("suppress_lock", false),
        port: reader.number("port", 8080),
        workers: reader.workers(),
        inherit_listener: reader.inherit(),
        warnings: Vec::new(),
    };
    if reader.mistakes.is_empty() {
        Ok(Config {
            warnings: reader.warnings,
            ..config
        })
    } else {
        Err(reader.mistakes)
    }
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

struct Reader<L> {
    lookup: L,
    warnings: Vec<String>,
    mistakes: Vec<String>,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    /// An empty value counts as unset: stack files write `name: ""` for that.
    fn value(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn command(&mut self) -> Vec<String> {
        let named = ["function_process", "fprocess"]
            .into_iter()
            .find_map(|name| Some((name, self.value(name)?)));
        let Some((name, line)) = named else {
            self.mistakes.push("fprocess is not set; set it to the command that answers a request, for example fprocess=cat".to_owned());
            return Vec::new();
        };
        command::split(&line).unwrap_or_else(|mistake| {
            self.mistakes
                .push(format!("{name} {mistake}; it is: {line}"));
            Vec::new()
        })
    }

    fn duration(&mut self, name: &str, default: Duration) -> Duration {
        let Some(text) = self.value(name) else {
            return default;
        };
        duration::parse(&text).unwrap_or_else(|| {
            self.ignored(
                name,
                &text,
                "a duration such as 30, 500ms or 1m30s",
                &duration::show(default),
            );
            default
        })
    }

    fn number<N: std::str::FromStr + std::fmt::Display>(&mut self, name: &str, default: N) -> N {
        let Some(text) = self.value(name) else {
            return default;
        };
        match text.parse() {
            Ok(number) => number,
            Err(_) => {
                self.ignored(name, &text, "a number in range", &default.to_string());
                default
            }
        }
    }

    /// Only lowercase `true` is true, for an option whose default is true as well; anything odd is said aloud.
    fn flag(&mut self, name: &str, default: bool) -> bool {
        match self.value(name).as_deref() {
            None => default,
            Some("true") => true,
            Some("false") => false,
            Some(text) => {
                self.ignored(name, text, "true or false", "false");
                false
            }
        }
    }

    fn content_type(&mut self) -> Option<HeaderValue> {
        let text = self.value("content_type")?;
        let value = HeaderValue::from_str(&text).ok();
        if value.is_none() {
            self.ignored(
                "content_type",
                &text,
                "a header value",
                "the type of the output",
            );
        }
        value
    }

    /// A worker stands still while it starts a process, so that one per CPU leaves the CPUs idle at times; more than
    /// four only cost memory.
    fn workers(&mut self) -> usize {
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.number("skep_workers", (2 * cpus).min(4)).clamp(1, 64)
    }

    fn inherit(&mut self) -> bool {
        match self.value("skep_inherit").as_deref() {
            None => false,
            Some("stdin") => true,
            Some(other) => {
                self.mistakes.push(format!(
                    "skep_inherit={other} is not known; the only value is stdin"
                ));
                false
            }
        }
    }

    fn refuse_what_is_not_offered(&mut self) {
        if let Some(mode) = self.value("mode").filter(|mode| mode != "classic") {
            self.mistakes.push(format!("mode={mode} is not offered; unset mode or set mode=classic (one process per request)"));
        }
        if self.value("jwt_auth").as_deref() == Some("true") {
            self.mistakes.push("jwt_auth=true is not offered; unset it and check tokens at the gateway or in the function".to_owned());
        }
    }

    fn ignored(&mut self, name: &str, text: &str, expected: &str, used: &str) {
        self.warnings.push(format!(
            "warning: {name}={text} is not {expected}; using {used}"
        ));
    }
}

#[cfg(test)]
mod tests;
