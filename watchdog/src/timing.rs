//! When what happened in a call, and how the answer tells it.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::duration::{millis, seconds};

/// The header, or trailer, that tells how long the run took.
pub(crate) const DURATION: HeaderName = HeaderName::from_static("x-duration-seconds");

/// The header, or trailer, that tells the parts of it.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Both, as an answer that will have them as trailers says beforehand.
pub(crate) const TRAILERS: HeaderValue =
    HeaderValue::from_static("x-duration-seconds, server-timing");

/// The points in time of one run.
#[derive(Debug)]
pub(crate) struct Timing {
    /// The call was admitted.
    began: Instant,
    /// Its process was there.
    started: Instant,
    first_byte: Option<Instant>,
    /// The process had been started before the call.
    is_ahead: bool,
}

impl Timing {
    /// A run that was begun then, and whose process is there now.
    pub(crate) fn new(began: Instant, started: Instant, is_ahead: bool) -> Self {
        Self {
            began,
            started,
            first_byte: None,
            is_ahead,
        }
    }

    /// Output has come.
    pub(crate) fn has_output(&mut self) {
        if self.first_byte.is_none() {
            self.first_byte = Some(Instant::now());
        }
    }

    /// How long the run has taken so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Both values for a run that is over now.
    pub(crate) fn fields(&self) -> [(HeaderName, HeaderValue); 2] {
        let end = Instant::now();
        [
            (DURATION, value(seconds(end - self.started))),
            (SERVER_TIMING, value(self.parts(end))),
        ]
    }

    /// `spawn;dur=0.412, first-byte;dur=1.207, total;dur=1.530`, in milliseconds from the admission.
    fn parts(&self, end: Instant) -> String {
        let since = |at: Instant| millis(at - self.began);
        let ahead = if self.is_ahead { ";desc=prefork" } else { "" };
        let spawn = since(self.started);
        let first = self
            .first_byte
            .map_or_else(String::new, |at| format!("first-byte;dur={}, ", since(at)));
        format!("spawn;dur={spawn}{ahead}, {first}total;dur={}", since(end))
    }
}

/// Of an answer whose head is all that is known of it.
pub(crate) fn head_only(elapsed: Duration) -> [(HeaderName, HeaderValue); 2] {
    [
        (DURATION, value(seconds(elapsed))),
        (
            SERVER_TIMING,
            value(format!("first-byte;dur={}", millis(elapsed))),
        ),
    ]
}

fn value(text: String) -> HeaderValue {
    // Digits, letters and signs are always a header value.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_told_in_milliseconds() {
        let began = Instant::now();
        let after = |micros| began + Duration::from_micros(micros);
        let mut timing = Timing::new(began, after(412), false);
        assert_eq!(
            timing.parts(after(1530)),
            "spawn;dur=0.412, total;dur=1.530"
        );
        timing.is_ahead = true;
        timing.first_byte = Some(after(1207));
        assert_eq!(
            timing.parts(after(2_001_530)),
            "spawn;dur=0.412;desc=prefork, first-byte;dur=1.207, total;dur=2001.530"
        );
    }
}
