//! One call from its head to the end of its answer: counted, and in the modes that do so logged, when it is dropped.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use tokio::time::Instant;

use crate::mode::Mode;
use crate::watchdog::Watchdog;

/// The caller's name for the call.
const CALL_ID: HeaderName = HeaderName::from_static("x-call-id");

/// The most of a request target that a line shows; a target may have 64 KiB.
const LONGEST_TARGET: usize = 1024;

/// What is counted for a call whose client went away before there was an answer; nobody saw it.
const CLIENT_GONE: u16 = 499;

/// A call that goes on. Its connection has it until the answer's body is dropped.
#[derive(Debug)]
pub(crate) struct Record {
    watchdog: Arc<Watchdog>,
    began: Instant,
    method: Method,
    /// `None` until the answer's head is known.
    status: Option<StatusCode>,
    /// Bytes of the answer's body so far.
    written: u64,
    /// How the line begins, where there is to be one.
    line: Option<String>,
    call_id: Option<HeaderValue>,
}

impl Record {
    /// A call whose head has come.
    pub(crate) fn begin<B>(watchdog: &Arc<Watchdog>, request: &Request<B>) -> Self {
        let config = &watchdog.config;
        // A classic run has lines of its own.
        let is_told = config.mode != Mode::Classic && !is_probe(request.headers());
        Self {
            watchdog: Arc::clone(watchdog),
            began: Instant::now(),
            method: request.method().clone(),
            status: None,
            written: 0,
            line: is_told.then(|| beginning(request)),
            call_id: request
                .headers()
                .get(CALL_ID)
                .filter(|_| config.log_call_id)
                .cloned(),
        }
    }

    /// The answer's head is known.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// So much more of the body is on its way to the client.
    pub(crate) fn written(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// The body breaks off.
    pub(crate) fn broke(&self) {
        self.watchdog.metrics.answer_broke();
    }

    fn tell(&self, beginning: &str, status: StatusCode, took: Duration) {
        let (seconds, fraction) = (took.as_secs(), took.subsec_micros() / 100);
        let log_call_id = self.watchdog.config.log_call_id;
        self.watchdog.log.line(format_args!(
            "{beginning} - {} - ContentLength: {} ({seconds}.{fraction:04}s){}",
            Told(status, self.watchdog.config.mode),
            Size(self.written),
            CallId(log_call_id.then_some(self.call_id.as_ref())),
        ));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let gone = || StatusCode::from_u16(CLIENT_GONE).unwrap_or_default();
        let status = self.status.unwrap_or_else(gone);
        let took = self.began.elapsed();
        self.watchdog.metrics.call_ended(&self.method, status, took);
        if let Some(beginning) = &self.line {
            self.tell(beginning, status, took);
        }
    }
}

/// Kubernetes asks every few seconds.
fn is_probe(headers: &HeaderMap) -> bool {
    headers
        .get(USER_AGENT)
        .is_some_and(|agent| agent.as_bytes().starts_with(b"kube-probe"))
}

fn beginning<B>(request: &Request<B>) -> String {
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", hyper::http::uri::PathAndQuery::as_str);
    let method = request.method().as_str();
    if target.len() <= LONGEST_TARGET {
        return [method, " ", target].concat();
    }
    let end = (0..=LONGEST_TARGET).rfind(|end| target.is_char_boundary(*end));
    [method, " ", &target[..end.unwrap_or(0)], "..."].concat()
}

/// A status as the mode's contract writes it: `mode=http` with its words.
struct Told(StatusCode, Mode);

impl Display for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.as_str())?;
        match self.0.canonical_reason().filter(|_| self.1 == Mode::Http) {
            Some(words) => write!(out, " {words}"),
            None => Ok(()),
        }
    }
}

/// The caller's name for the call, if such names are wanted, and `none` if it has none.
struct CallId<'a>(Option<Option<&'a HeaderValue>>);

impl Display for CallId<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(wanted) = self.0 else { return Ok(()) };
        let id = wanted.map_or(&b"none"[..], HeaderValue::as_bytes);
        let shown = &id[..id.len().min(LONGEST_TARGET)];
        write!(out, " [{}]", String::from_utf8_lossy(shown))
    }
}

/// Bytes in units of a thousand with four digits that count: `5B`, `1.234kB`, `65.54kB`.
struct Size(u64);

impl Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
        let (mut scale, mut unit) = (1, 0);
        while self.0 / scale >= 1000 {
            scale *= 1000;
            unit += 1;
        }
        let decimals: u32 = match self.0 / scale {
            _ if unit == 0 => 0,
            0..10 => 3,
            10..100 => 2,
            _ => 1,
        };
        let one = 10_u64.pow(decimals);
        let step = scale / one;
        let rounded = self.0 / step + u64::from(self.0 % step * 2 >= step);
        let (whole, fraction) = (rounded / one, rounded % one);
        let digits = format!("{fraction:0width$}", width = decimals as usize);
        match digits.trim_end_matches('0') {
            "" => write!(out, "{whole}{}", UNITS[unit]),
            digits => write!(out, "{whole}.{digits}{}", UNITS[unit]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_with_four_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (5, "5B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.234kB"),
            (1500, "1.5kB"),
            (10_500, "10.5kB"),
            (65_536, "65.54kB"),
            (999_960, "1000kB"),
            (1_048_576, "1.049MB"),
            (2_000_000_000, "2GB"),
            (u64::MAX, "18.45EB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_target_of_any_length_makes_a_bounded_line() {
        let request = |target: &str| Request::get(target).body(()).unwrap();
        assert_eq!(beginning(&request("/a?b=c")), "GET /a?b=c");
        assert_eq!(beginning(&request("http://host/a")), "GET /a");
        let long = beginning(&request(&format!("/{}", "x".repeat(60_000))));
        assert!(
            long.len() < 1100 && long.ends_with("xxx..."),
            "{}",
            long.len()
        );
    }

    #[test]
    fn the_mode_with_a_server_tells_the_words_of_a_status() {
        let odd = StatusCode::from_u16(799).unwrap();
        assert_eq!(Told(StatusCode::OK, Mode::Http).to_string(), "200 OK");
        assert_eq!(Told(StatusCode::OK, Mode::Streaming).to_string(), "200");
        assert_eq!(Told(odd, Mode::Http).to_string(), "799");
    }
}
