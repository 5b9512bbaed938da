//! From an environment variable's text to its value; what cannot be used is noted.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderValue;

use crate::mode::Mode;
use crate::upstream::Upstream;
use crate::{command, duration};

/// What only the classic watchdog knows; the other modes go without.
const CLASSIC_ONLY: [&str; 5] = [
    "combine_output",
    "cgi_headers",
    "response_buffer",
    "marshal_request",
    "write_debug",
];

/// Modes of other watchdogs, whose commands would make nothing of a classic run.
const OTHERS_MODES: [&str; 2] = ["afterburn", "inproc"];

/// What the classic watchdog does not know.
const NOT_CLASSIC: [&str; 2] = ["prefix_logs", "log_callid"];

/// What is of no use where files are served.
const NOT_STATIC: [&str; 6] = [
    "fprocess",
    "function_process",
    "exec_timeout",
    "prefix_logs",
    "log_buffer_size",
    "content_type",
];

/// What no mode looks at: one is set beside the other, or has been misspelt in many a manual.
const NEVER_USED: [(&str, &str); 3] = [
    ("jwt_auth_debug", "jwt_auth is not offered"),
    ("jwt_auth_local", "jwt_auth is not offered"),
    ("log_call_id", "the name is log_callid"),
];

/// Bounds of a line that is kept together. The log's whole backlog is twice the upper one.
const LONGEST_LINE: RangeInclusive<i64> = 256..=128 * 1024;

/// What only `mode=http` knows.
const HTTP_ONLY: [&str; 7] = [
    "idle_timeout",
    "stream_idle_timeout",
    "http_upstream_url",
    "upstream_url",
    "http_buffer_req_body",
    "buffer_http",
    "ready_path",
];

/// What only the modes with one process per request know.
const RUNS_ONLY: [&str; 5] = [
    "input_mode",
    "prefork",
    "prefork_idle",
    "max_cpu_seconds",
    "max_open_files",
];

/// Takes values one by one and keeps what is to be said of them.
pub(super) struct Reader<L> {
    lookup: L,
    pub(super) warnings: Vec<String>,
    pub(super) mistakes: Vec<String>,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    /// Nothing read, nothing to be said.
    pub(super) fn new(lookup: L) -> Self {
        Self {
            lookup,
            warnings: Vec::new(),
            mistakes: Vec::new(),
        }
    }

    /// An empty value counts as unset: stack files write `name: ""` for that.
    fn value(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    pub(super) fn command(&mut self) -> Vec<String> {
        let Some((name, line)) = self.either(["function_process", "fprocess"]) else {
            self.mistakes.push("fprocess is not set; set it to the command that answers a request, for example fprocess=cat".to_owned());
            return Vec::new();
        };
        command::split(&line).unwrap_or_else(|mistake| {
            self.mistakes
                .push(format!("{name} {mistake}; it is: {line}"));
            Vec::new()
        })
    }

    pub(super) fn duration(&mut self, name: &str, default: Duration) -> Duration {
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

    pub(super) fn number<N: std::str::FromStr + std::fmt::Display>(
        &mut self,
        name: &str,
        default: N,
    ) -> N {
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
    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
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

    /// A switch of the other modes' contract: `1` is true as well.
    pub(super) fn switch(&mut self, mode: Mode, name: &str) -> bool {
        match self.value(name).as_deref() {
            Some("1") if mode != Mode::Classic => true,
            Some("0") if mode != Mode::Classic => false,
            _ => self.flag(name, false),
        }
    }

    /// A switch in all the forms that Go reads; anything else keeps the default.
    pub(super) fn go_flag(&mut self, name: &str, default: bool) -> bool {
        match self.value(name).as_deref() {
            None => default,
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
            Some(text) => {
                self.ignored(name, text, "true or false", &default.to_string());
                default
            }
        }
    }

    /// The mode, and a word on each variable that it does not look at.
    pub(super) fn mode(&mut self) -> Mode {
        let name = self.value("mode").unwrap_or_else(|| "classic".to_owned());
        // Images made for the classic watchdog may have a variable of this name for themselves.
        let mode = Mode::parse(&name).unwrap_or_else(|| {
            let known = Mode::names();
            if OTHERS_MODES.contains(&name.as_str()) {
                self.mistakes.push(format!(
                    "mode={name} is not offered; set mode to one of {known}"
                ));
                return Mode::Classic;
            }
            self.warnings.push(format!(
                "warning: mode={name} is not a mode of the watchdog ({known}), so that it is left to the function and mode=classic is used"
            ));
            Mode::Classic
        });
        let name = mode.name();
        let groups = [
            (&CLASSIC_ONLY[..], mode != Mode::Classic),
            (&NOT_CLASSIC[..], mode == Mode::Classic),
            (&HTTP_ONLY[..], mode != Mode::Http),
            (&["content_type"][..], mode == Mode::Http),
            (&["static_path"][..], mode != Mode::Static),
            (&NOT_STATIC[..], mode == Mode::Static),
            (&RUNS_ONLY[..], !mode.has_runs()),
        ];
        let unused = groups.into_iter().filter(|(_, is_unused)| *is_unused);
        for variable in unused.flat_map(|(names, _)| names) {
            self.unused(variable, &format!("in mode={name}"));
        }
        for (variable, reason) in NEVER_USED {
            self.unused(variable, &format!("at all: {reason}"));
        }
        mode
    }

    /// Says that a variable, if it is set, changes nothing.
    fn unused(&mut self, name: &str, why: &str) {
        if let Some(value) = self.value(name) {
            self.warnings
                .push(format!("warning: {name}={value} is not used {why}"));
        }
    }

    /// The value of the first of two names for one thing that is set; that the other one is ignored is said.
    fn either(&mut self, names: [&'static str; 2]) -> Option<(&'static str, String)> {
        let [first, second] = names;
        let Some(value) = self.value(first) else {
            return Some((second, self.value(second)?));
        };
        if self.value(second).is_some_and(|other| other != value) {
            self.unused(second, &format!("because {first} is set"));
        }
        Some((first, value))
    }

    /// Where a request's body goes: into the command's input, or into its arguments.
    pub(super) fn has_arguments(&mut self, mode: Mode) -> bool {
        match self.value("input_mode").filter(|_| mode.has_runs()) {
            None => false,
            Some(name) if name == "args" => true,
            Some(name) => {
                if name != "stdin" {
                    self.ignored("input_mode", &name, "stdin or args", "stdin");
                }
                false
            }
        }
    }

    /// More than a byte counts would be a mistake of the writer.
    pub(super) fn prefork(&mut self, mode: Mode) -> usize {
        if !mode.has_runs() {
            return 0;
        }
        self.number::<u8>("prefork", 0).into()
    }

    /// A limit of each process; 0 is none.
    pub(super) fn per_run_limit(&mut self, mode: Mode, name: &str) -> Option<u64> {
        if !mode.has_runs() {
            return None;
        }
        Some(self.number(name, 0)).filter(|limit| *limit > 0)
    }

    pub(super) fn upstream(&mut self, mode: Mode) -> Option<Upstream> {
        if mode != Mode::Http {
            return None;
        }
        let Some((name, url)) = self.either(["http_upstream_url", "upstream_url"]) else {
            self.mistakes.push("http_upstream_url is not set; set it to where fprocess listens, for example http://127.0.0.1:3000".to_owned());
            return None;
        };
        let upstream = Upstream::parse(&url);
        if let Err(mistake) = &upstream {
            self.mistakes.push(format!("{name}={url} {mistake}"));
        }
        upstream.ok()
    }

    pub(super) fn static_path(&self) -> PathBuf {
        self.value("static_path")
            .unwrap_or_else(|| "/home/app/public".to_owned())
            .into()
    }

    pub(super) fn ready_path(&mut self, mode: Mode) -> Option<String> {
        let path = self.value("ready_path")?;
        if !path.starts_with('/') {
            self.ignored("ready_path", &path, "a path that begins with /", "none");
            return None;
        }
        (mode == Mode::Http).then_some(path)
    }

    pub(super) fn write_timeout(&mut self, mode: Mode) -> Duration {
        let limit = self.duration("write_timeout", Duration::from_secs(30));
        if limit.is_zero() && mode != Mode::Classic {
            self.mistakes.push(
                "write_timeout=0 is not offered in this mode; set it to a duration".to_owned(),
            );
        }
        limit
    }

    pub(super) fn content_type(&mut self) -> Option<HeaderValue> {
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

    /// The metrics can be switched off, which 0 does not do: that is any port, as it is for `port`.
    pub(super) fn metrics_port(&mut self) -> Option<u16> {
        match self.value("metrics_port").as_deref() {
            Some("off") => None,
            _ => Some(self.number("metrics_port", 8081)),
        }
    }

    /// What the contract calls unbounded, a negative number, is bounded here: a log must not take a container's memory.
    pub(super) fn longest_line(&mut self) -> usize {
        let name = "log_buffer_size";
        let text = self.value(name).unwrap_or_else(|| "65536".to_owned());
        let Ok(asked) = text.parse::<i64>() else {
            self.mistakes.push(format!(
                "{name}={text} is not a number; set it to the bytes of a line that are kept together"
            ));
            return 0;
        };
        let (least, most) = LONGEST_LINE.into_inner();
        let used = if asked < 0 {
            most
        } else {
            asked.clamp(least, most)
        };
        if used != asked {
            let expected = format!("from {least} to {most}");
            self.ignored(name, &text, &expected, &used.to_string());
        }
        usize::try_from(used).unwrap_or_default()
    }

    /// A worker stands still while it starts a process, so that one per CPU leaves the CPUs idle at times; more than
    /// four only cost memory.
    pub(super) fn workers(&mut self) -> usize {
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let asked = self.number("skep_workers", (2 * cpus).min(4));
        let used = asked.clamp(1, 64);
        if used != asked {
            let text = asked.to_string();
            self.ignored("skep_workers", &text, "from 1 to 64", &used.to_string());
        }
        used
    }

    pub(super) fn inherit(&mut self) -> bool {
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

    pub(super) fn refuse_what_is_not_offered(&mut self, mode: Mode) {
        if self.switch(mode, "jwt_auth") {
            self.mistakes.push("jwt_auth=true is not offered; unset it and check tokens at the gateway or in the function".to_owned());
        }
    }

    fn ignored(&mut self, name: &str, text: &str, expected: &str, used: &str) {
        self.warnings.push(format!(
            "warning: {name}={text} is not {expected}; using {used}"
        ));
    }
}
