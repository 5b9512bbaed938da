//! Logs through the management API (wire contract §3.9): one JSON object a line, sent as it comes.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::manager::{Manager, asked, invalid};
use crate::discovery::operate::{Failed, LogLine, LogsAsked};
use crate::function::FunctionName;
use crate::reply::{Body, BodyError};
use crate::router::without_namespace;

/// How soon a stream ends after the gateway began to.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Message<'a> {
    name: &'a str,
    namespace: &'a str,
    instance: &'a str,
    timestamp: &'a str,
    text: &'a str,
}

impl Manager {
    pub(super) async fn logs(&self, query: &str) -> Result<Response<Body>, Failed> {
        let asked = self.logs_asked(query)?;
        let name = asked.name.clone();
        let lines = self.operator.logs(asked).await?;
        let (pages, namespace) = (self.pages.clone(), self.pages.namespace.clone());
        let body = stream::unfold(lines, move |mut lines| {
            let (pages, namespace, name) = (pages.clone(), namespace.clone(), name.clone());
            async move {
                let line = loop {
                    tokio::select! {
                        line = lines.recv() => break line?,
                        () = tokio::time::sleep(DRAIN_PAUSE) => {
                            if pages.draining.load(Ordering::Acquire) {
                                return None;
                            }
                        }
                    }
                };
                let text = json_line(&name, &namespace, &line);
                Some((Ok::<_, BodyError>(Frame::data(text)), lines))
            }
        });
        let mut response = Response::new(Body::stream(StreamBody::new(body)));
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-ndjson"),
        );
        Ok(response)
    }

    fn logs_asked(&self, query: &str) -> Result<LogsAsked, Failed> {
        let name = asked(query, "name").ok_or_else(|| invalid("name: is missing"))?;
        let name = without_namespace(&name, &self.pages.namespace);
        Ok(LogsAsked {
            name: self.full_name(name)?,
            instance: asked(query, "instance"),
            tail: asked(query, "tail")
                .map(|text| tail(&text))
                .transpose()?
                .flatten(),
            since: asked(query, "since").map(|text| since(&text)).transpose()?,
            follow: asked(query, "follow")
                .map(|text| flag(&text))
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

fn json_line(name: &FunctionName, namespace: &str, line: &LogLine) -> Bytes {
    let message = Message {
        name: name.as_str(),
        namespace,
        instance: &line.instance,
        timestamp: &line.timestamp,
        text: &line.text,
    };
    let mut text = serde_json::to_vec(&message).expect("texts always serialise");
    text.push(b'\n');
    text.into()
}

/// Lines from the end; none and fewer mean all.
fn tail(text: &str) -> Result<Option<u64>, Failed> {
    let lines: i64 = text
        .parse()
        .map_err(|_| invalid(format!("tail: '{text}' is no whole number")))?;
    Ok(u64::try_from(lines).ok().filter(|lines| *lines > 0))
}

/// What Go takes for a truth value.
fn flag(text: &str) -> Result<bool, Failed> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(invalid(format!(
            "follow: '{text}' is neither true nor false"
        ))),
    }
}

/// A time as RFC 3339 writes it, with `Z` or a distance from it.
fn since(text: &str) -> Result<SystemTime, Failed> {
    let wrong = || {
        invalid(format!(
            "since: '{text}' is not a time like 2026-01-31T12:00:00Z"
        ))
    };
    let (time, offset) = match text.rfind(['+', '-']).filter(|at| *at > "2026-01-31".len()) {
        Some(at) => text.split_at(at),
        None => (text.trim_end_matches(['Z', 'z']), ""),
    };
    let utc = humantime::parse_rfc3339(&format!("{time}Z")).map_err(|_| wrong())?;
    if offset.is_empty() {
        return if text.ends_with(['Z', 'z']) {
            Ok(utc)
        } else {
            Err(wrong())
        };
    }
    let (hours, minutes) = offset[1..].split_once(':').ok_or_else(wrong)?;
    let part = |text: &str, most: u64| {
        text.parse::<u64>()
            .ok()
            .filter(|part| text.len() == 2 && *part <= most)
    };
    let (hours, minutes) = part(hours, 23).zip(part(minutes, 59)).ok_or_else(wrong)?;
    let distance = Duration::from_secs(hours * 3600 + minutes * 60);
    let shifted = if offset.starts_with('+') {
        utc.checked_sub(distance)
    } else {
        utc.checked_add(distance)
    };
    shifted.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_wherever_the_client_stands() {
        let utc = since("2026-11-24T10:00:00Z").unwrap();
        for same in [
            "2026-11-24T11:00:00+01:00",
            "2026-11-24T04:30:00-05:30",
            "2026-11-24T10:00:00.000Z",
        ] {
            assert_eq!(since(same).unwrap(), utc, "{same}");
        }
        for bad in [
            "",
            "yesterday",
            "2026-11-24",
            "2026-11-24T10:00:00",
            "2026-11-24T10:00:00+1",
            "2026-11-24T10:00:00+99:00",
        ] {
            assert!(
                since(bad).unwrap_err().sentence.starts_with("since:"),
                "{bad}"
            );
        }
    }

    #[test]
    fn tail_and_follow_are_read_as_go_does() {
        assert_eq!(
            (tail("-1").unwrap(), tail("0").unwrap(), tail("5").unwrap()),
            (None, None, Some(5))
        );
        assert!(tail("x").is_err() && flag("yes").is_err());
        assert!(flag("1").unwrap() && !flag("false").unwrap());
    }
}
