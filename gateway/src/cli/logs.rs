//! `skep logs`: the lines of all replicas, in order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::client::{gateway, print, text};
use super::command::Logs;
use crate::duration;

/// While following, a line is held this long, so that an earlier one of a slower replica can still go before it.
const HOLD: Duration = Duration::from_millis(500);
/// The bytes of lines held for sorting. Above it the earliest is printed, whatever may still come.
const MAX_HELD: usize = 64 << 20;
/// A longer line is no log line; the gateway's are 16 KiB at most.
const MAX_LINE: usize = 1 << 20;

/// Prints logs until they end.
///
/// # Errors
/// One sentence.
pub(super) async fn logs(asked: &Logs) -> Result<(), String> {
    let path = format!("/system/logs?{}", query(asked)?);
    let mut lines = Lines {
        body: gateway(&asked.at)?.stream(&path).await?,
        rest: Vec::new(),
    };
    let show = |line: &[u8]| print(&shown(line, asked.at.json));
    let mut held = Held::default();
    let mut until: Option<Instant> = None;
    loop {
        let next = match until {
            Some(until) => timeout_at(until, lines.next()).await,
            None => Ok(lines.next().await),
        };
        match next {
            Ok(Ok(Some(line))) => {
                held.push(line);
                if asked.follow {
                    until.get_or_insert_with(|| Instant::now() + HOLD);
                }
                while held.bytes > MAX_HELD {
                    held.pop().iter().for_each(|line| show(line));
                }
            }
            // The hold has passed, or the logs have ended.
            ended => {
                while let Some(line) = held.pop() {
                    show(&line);
                }
                until = None;
                match ended {
                    Err(_) => {}
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(why)) => return Err(why),
                }
            }
        }
    }
}

fn query(asked: &Logs) -> Result<String, String> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("name", &asked.name);
    query.append_pair("follow", if asked.follow { "true" } else { "false" });
    if let Some(lines) = asked.tail {
        query.append_pair("tail", &lines.to_string());
    }
    if let Some(text) = &asked.since {
        let ago = duration::parse(text).map_err(|why| format!("--since: {why}"))?;
        let since = SystemTime::now()
            .checked_sub(ago)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        query.append_pair(
            "since",
            &humantime::format_rfc3339_millis(since).to_string(),
        );
    }
    if let Some(instance) = &asked.instance {
        query.append_pair("instance", instance);
    }
    Ok(query.finish())
}

/// The gateway's lines, one by one.
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line with its end; `None` after the last. Cancelling it loses nothing.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.rest.drain(..=end).collect()));
            }
            if self.rest.len() > MAX_LINE {
                return Err(format!("the gateway sent a line above {MAX_LINE} bytes"));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| format!("the logs broke off: {error}"))?;
            self.rest
                .extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref));
        }
    }
}

/// Lines that wait for earlier ones: the earliest first, equally old ones as they came.
#[derive(Default)]
struct Held {
    lines: BinaryHeap<Reverse<(String, u64, Vec<u8>)>>,
    count: u64,
    bytes: usize,
}

impl Held {
    fn push(&mut self, line: Vec<u8>) {
        let parsed = serde_json::from_slice::<Value>(&line).unwrap_or_default();
        let time = sortable(parsed["timestamp"].as_str().unwrap_or_default());
        self.count += 1;
        self.bytes += line.len();
        self.lines.push(Reverse((time, self.count, line)));
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let Reverse((_, _, line)) = self.lines.pop()?;
        self.bytes -= line.len();
        Some(line)
    }
}

/// RFC 3339 times of one zone as texts that sort by time: with fractions of the same length. A line without a time, such as
/// the gateway's note that some are missing, sorts last.
fn sortable(time: &str) -> String {
    match time.strip_suffix('Z') {
        None => "~".to_owned(),
        Some(utc) => {
            let (seconds, fraction) = utc.split_once('.').unwrap_or((utc, ""));
            format!("{seconds}.{fraction:0<9}")
        }
    }
}

/// A line of the gateway's, as people read it.
fn shown(line: &[u8], as_json: bool) -> String {
    match serde_json::from_slice::<Value>(line) {
        Ok(message) if !as_json => format!(
            "{} {} {}\n",
            text(&message["timestamp"]),
            text(&message["instance"]),
            text(&message["text"])
        ),
        _ => String::from_utf8_lossy(line).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_sorted_by_time_and_equal_times_keep_their_order() {
        let mut held = Held::default();
        let line =
            |time: &str, text: &str| format!("{{\"timestamp\":\"{time}\",\"text\":\"{text}\"}}\n");
        for (time, text) in [
            ("", "missing"),
            ("2026-01-01T00:00:01.5Z", "c"),
            ("2026-01-01T00:00:01.25Z", "b"),
            ("2026-01-01T00:00:01Z", "a"),
            ("2026-01-01T00:00:01.500Z", "d"),
        ] {
            held.push(line(time, text).into_bytes());
        }
        let mut order = String::new();
        while let Some(line) = held.pop() {
            let parsed: Value = serde_json::from_slice(&line).unwrap();
            order += parsed["text"].as_str().unwrap();
        }
        assert_eq!((order.as_str(), held.bytes), ("abcdmissing", 0));
    }
}
