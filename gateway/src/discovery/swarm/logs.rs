//! A function's logs from Docker, which sends the lines of all its tasks as frames: 8 bytes of head, then one line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Swarm;
use super::engine::{EngineError, Streaming};
use crate::discovery::operate::{Failed, LOG_LINES_AHEAD, LogLine, LogsAsked, Trouble};

/// How long nothing may come of logs that are not followed: a node that does not answer shall not hold the others' lines back.
const IDLE: Duration = Duration::from_secs(10);
/// How long logs are followed at most, whatever became of the reader.
const FOLLOWED_FOR: Duration = Duration::from_secs(3600);
/// The head of a frame: its stream, three zeros, its length.
const HEAD: usize = 8;
/// A frame longer than this is none: Docker cuts lines at 16 KiB.
const LONGEST: usize = 1 << 20;
/// The stream on which the engine itself speaks.
const ENGINES: u8 = 3;
/// The detail that names a line's task.
const TASK: &str = "com.docker.swarm.task.id";

impl Swarm {
    /// Starts to read logs. The reader ends it by dropping the receiver.
    pub(super) async fn read_logs(
        &self,
        asked: &LogsAsked,
    ) -> Result<mpsc::Receiver<LogLine>, Failed> {
        let current = self.current(&asked.name).await?;
        if current.spec["TaskTemplate"]["ContainerSpec"]["TTY"] == true {
            let why = format!(
                "function '{}' has a terminal (tty): Docker frames its logs in another way",
                asked.name
            );
            return Err(Failed::new(Trouble::Unsupported, why));
        }
        let source = match &asked.instance {
            None => format!("/services/{}", current.id),
            Some(instance) => self.task_of(&current.id, instance).await?,
        };
        let path = format!("{source}/logs?{}", query(asked));
        let stream = self
            .engine
            .stream(&path)
            .await
            .map_err(|error| self.failed(&error))?;
        let (lines, receiver) = mpsc::channel(LOG_LINES_AHEAD);
        let deadlines = Deadlines::of(asked.follow);
        tokio::spawn(async move { copy(stream, &lines, deadlines).await });
        Ok(receiver)
    }

    async fn task_of(&self, service: &str, task: &str) -> Result<String, Failed> {
        #[derive(Deserialize)]
        struct Owned {
            #[serde(rename = "ID")]
            id: String,
            #[serde(rename = "ServiceID", default)]
            service: String,
        }
        let unknown = || {
            Failed::new(
                Trouble::Unknown,
                format!("instance: the function has no task '{task}'"),
            )
        };
        let is_id = !task.is_empty() && task.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_id {
            return Err(unknown());
        }
        match self.engine.get::<Owned>(&format!("/tasks/{task}")).await {
            Ok(found) if found.service == service => Ok(format!("/tasks/{}", found.id)),
            Ok(_) => Err(unknown()),
            Err(EngineError::Says(status, _)) if status == 404 => Err(unknown()),
            Err(error) => Err(self.failed(&error)),
        }
    }
}

fn query(asked: &LogsAsked) -> String {
    let follow = u8::from(asked.follow);
    let tail = asked
        .tail
        .map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let since = asked
        .since
        .and_then(|since| since.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    format!(
        "stdout=1&stderr=1&timestamps=1&details=1&follow={follow}&tail={tail}&since={}.{:09}",
        since.as_secs(),
        since.subsec_nanos()
    )
}

#[derive(Clone, Copy)]
struct Deadlines {
    /// For the next piece.
    idle: Option<Duration>,
    /// For all of them.
    end: Instant,
}

impl Deadlines {
    fn of(follow: bool) -> Self {
        Self {
            idle: (!follow).then_some(IDLE),
            end: Instant::now() + FOLLOWED_FOR,
        }
    }

    fn next(self) -> Instant {
        self.idle
            .map_or(self.end, |idle| self.end.min(Instant::now() + idle))
    }
}

/// Copies lines as long as there are any and somebody reads them; says so when some are missing.
async fn copy(mut stream: Streaming, to: &mpsc::Sender<LogLine>, deadlines: Deadlines) {
    let mut frames = Frames::default();
    loop {
        let piece = tokio::select! {
            piece = tokio::time::timeout_at(deadlines.next(), stream.body.frame()) => piece,
            () = to.closed() => return,
        };
        let incomplete = match piece {
            Ok(None) => return,
            Ok(Some(Ok(frame))) => match frames.feed(frame.data_ref().map_or(&[], Bytes::as_ref)) {
                Ok(lines) => {
                    for line in lines {
                        if to.send(line).await.is_err() {
                            return;
                        }
                    }
                    continue;
                }
                Err(why) => why.to_owned(),
            },
            Ok(Some(Err(error))) => format!("the engine broke off: {error}"),
            Err(_) if deadlines.idle.is_none() => return,
            Err(_) => format!("nothing more came within {IDLE:?}: a node may not answer"),
        };
        // Whoever reads no more need not know.
        let _ = to.send(notice(&incomplete)).await;
        return;
    }
}

/// A line of ours among the function's.
fn notice(why: &str) -> LogLine {
    LogLine {
        instance: String::new(),
        timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        text: format!("skep: these logs are incomplete: {why}"),
    }
}

/// Pieces of a stream → lines, however the pieces are cut.
#[derive(Default)]
struct Frames(BytesMut);

impl Frames {
    fn feed(&mut self, piece: &[u8]) -> Result<Vec<LogLine>, &'static str> {
        self.0.extend_from_slice(piece);
        let mut lines = Vec::new();
        while self.0.len() >= HEAD {
            let length = u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]]) as usize;
            if length > LONGEST {
                return Err("the engine sent what is no log");
            }
            if self.0.len() < HEAD + length {
                break;
            }
            let stream = self.0[0];
            self.0.advance(HEAD);
            let payload = self.0.split_to(length);
            let text = String::from_utf8_lossy(&payload);
            lines.push(line(stream, text.trim_end_matches(['\n', '\r'])));
        }
        Ok(lines)
    }
}

/// `<time> <detail,detail> <text>` → a line.
fn line(stream: u8, payload: &str) -> LogLine {
    let parsed = payload.split_once(' ').and_then(|(timestamp, rest)| {
        let (details, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let instance = details
            .split(',')
            .find_map(|detail| detail.strip_prefix(TASK)?.strip_prefix('='))?;
        Some(LogLine {
            instance: instance.to_owned(),
            timestamp: timestamp.to_owned(),
            text: text.to_owned(),
        })
    });
    match parsed {
        Some(line) if stream != ENGINES => line,
        _ => notice(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DETAILS: &str =
        "com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,com.docker.swarm.task.id=t1";

    fn frame(stream: u8, payload: &str) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0], length.as_slice(), payload.as_bytes()].concat()
    }

    #[test]
    fn lines_are_read_however_the_stream_is_cut() {
        let payload = format!("2026-11-24T10:00:00.123456789Z {DETAILS} hello  world\n");
        // 266 bytes: the length has the byte of a line's end in it.
        let long = format!(
            "2026-11-24T10:00:00Z {DETAILS} {}\n",
            "x".repeat(10 + 256 - DETAILS.len() - 23)
        );
        assert_eq!(long.len() % 256, 10, "{}", long.len());
        let stream = [
            frame(1, &payload),
            frame(2, &long),
            frame(1, &format!("2026-11-24T10:00:00Z {DETAILS} \n")),
        ]
        .concat();
        for size in [1, 3, 7, 64, stream.len()] {
            let mut frames = Frames::default();
            let lines: Vec<_> = stream
                .chunks(size)
                .flat_map(|piece| frames.feed(piece).unwrap())
                .collect();
            assert_eq!(lines.len(), 3, "pieces of {size}");
            assert_eq!(
                (lines[0].instance.as_str(), lines[0].text.as_str()),
                ("t1", "hello  world")
            );
            assert_eq!(lines[0].timestamp, "2026-11-24T10:00:00.123456789Z");
            assert!(lines[1].text.starts_with("xxx") && lines[2].text.is_empty());
        }
    }

    #[test]
    fn what_the_engine_says_is_told_as_such() {
        let told = line(ENGINES, "Error grabbing logs: node n2 is not available");
        assert!(
            told.instance.is_empty()
                && told.text.contains("incomplete")
                && told.text.contains("n2"),
            "{told:?}"
        );
        let mut frames = Frames::default();
        assert!(frames.feed(b"HTTP/1.1 500 oops").is_err());
    }

    #[test]
    fn the_question_is_put_in_dockers_words() {
        let asked = LogsAsked {
            name: crate::function::FunctionName::new("cat").unwrap(),
            instance: None,
            tail: Some(5),
            since: Some(UNIX_EPOCH + Duration::from_millis(1500)),
            follow: true,
        };
        assert!(query(&asked).ends_with("follow=1&tail=5&since=1.500000000"));
        assert!(
            query(&LogsAsked {
                tail: None,
                since: None,
                follow: false,
                ..asked
            })
            .ends_with("follow=0&tail=all&since=0.000000000")
        );
    }
}
