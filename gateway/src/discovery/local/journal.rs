//! The latest log lines of one local function, and whoever follows them. Bounded, whatever the function writes.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::discovery::operate::{LOG_LINES_AHEAD, LogLine, LogsAsked};

/// What is kept of one function.
const MOST_BYTES: usize = 256 * 1024;
const MOST_LINES: usize = 1000;

/// A journal.
pub struct Journal {
    kept: Mutex<Kept>,
    live: broadcast::Sender<LogLine>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<(SystemTime, LogLine)>,
    bytes: usize,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            live: broadcast::Sender::new(LOG_LINES_AHEAD),
        }
    }
}

impl Journal {
    /// Notes a line that a replica wrote.
    pub fn note(&self, instance: &str, text: &str) {
        let now = SystemTime::now();
        let line = LogLine {
            instance: instance.to_owned(),
            timestamp: humantime::format_rfc3339_nanos(now).to_string(),
            text: text.to_owned(),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += text.len();
        kept.lines.push_back((now, line.clone()));
        while kept.bytes > MOST_BYTES || kept.lines.len() > MOST_LINES {
            let Some((_, oldest)) = kept.lines.pop_front() else {
                break;
            };
            kept.bytes -= oldest.text.len();
        }
        // Nobody may be following. Still under the lock: a reader that comes now gets each line once.
        let _ = self.live.send(line);
    }

    /// Starts to read. The reader ends it by dropping the receiver.
    #[must_use]
    pub fn read(&self, asked: &LogsAsked) -> mpsc::Receiver<LogLine> {
        let (past, live) = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            (kept.matching(asked), self.live.subscribe())
        };
        let (to, lines) = mpsc::channel(LOG_LINES_AHEAD);
        let (follow, instance) = (asked.follow, asked.instance.clone());
        tokio::spawn(async move {
            for line in past {
                if to.send(line).await.is_err() {
                    return;
                }
            }
            if follow {
                pass_on(live, &to, instance.as_deref()).await;
            }
        });
        lines
    }
}

/// Passes on what comes, as long as somebody reads it.
async fn pass_on(
    mut live: broadcast::Receiver<LogLine>,
    to: &mpsc::Sender<LogLine>,
    instance: Option<&str>,
) {
    loop {
        let next = tokio::select! {
            next = live.recv() => next,
            () = to.closed() => return,
        };
        let line = match next {
            Ok(line) if instance.is_none_or(|instance| *instance == line.instance) => line,
            // A reader that is too slow misses lines and goes on.
            Ok(_) | Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if to.send(line).await.is_err() {
            return;
        }
    }
}

impl Kept {
    fn matching(&self, asked: &LogsAsked) -> Vec<LogLine> {
        let is_asked = |(at, line): &&(SystemTime, LogLine)| {
            asked.since.is_none_or(|since| *at >= since)
                && asked
                    .instance
                    .as_ref()
                    .is_none_or(|instance| *instance == line.instance)
        };
        let lines: Vec<_> = self
            .lines
            .iter()
            .filter(is_asked)
            .map(|(_, line)| line.clone())
            .collect();
        let tail = asked
            .tail
            .and_then(|tail| usize::try_from(tail).ok())
            .unwrap_or(lines.len());
        lines[lines.len().saturating_sub(tail)..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> LogsAsked {
        LogsAsked {
            name: crate::function::FunctionName::new("cat").unwrap(),
            instance: None,
            tail: None,
            since: None,
            follow: false,
        }
    }

    async fn texts(mut lines: mpsc::Receiver<LogLine>) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(line) = lines.recv().await {
            texts.push(line.text);
        }
        texts
    }

    #[tokio::test]
    async fn the_latest_lines_are_kept_and_no_more_than_that() {
        let journal = Journal::default();
        (0..3000)
            .for_each(|number| journal.note("a", &format!("line {number} {}", "x".repeat(300))));
        let all = texts(journal.read(&asked())).await;
        assert!(all.len() < 1000 && all.last().unwrap().starts_with("line 2999 "));
        assert!(all.iter().map(String::len).sum::<usize>() <= MOST_BYTES);
        let tail = LogsAsked {
            tail: Some(2),
            ..asked()
        };
        assert_eq!(texts(journal.read(&tail)).await.len(), 2);
        let later = LogsAsked {
            since: Some(SystemTime::now() + std::time::Duration::from_secs(60)),
            ..asked()
        };
        assert!(texts(journal.read(&later)).await.is_empty());
    }

    #[tokio::test]
    async fn a_follower_gets_each_line_of_its_instance_once() {
        let journal = Journal::default();
        journal.note("a", "one");
        journal.note("b", "other");
        let mut lines = journal.read(&LogsAsked {
            follow: true,
            instance: Some("a".into()),
            ..asked()
        });
        journal.note("b", "other");
        journal.note("a", "two");
        assert_eq!(lines.recv().await.unwrap().text, "one");
        assert_eq!(lines.recv().await.unwrap().text, "two");
    }
}
