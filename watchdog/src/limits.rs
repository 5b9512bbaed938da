//! The time limits of one run.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::metrics::Kill;
use crate::refusal::Refusal;

/// When each limit of a run is met; the earliest one counts.
#[derive(Debug)]
pub(crate) struct Limits {
    run: Option<Instant>,
    /// Of the request's body.
    pub(crate) body: Option<Instant>,
    answer: Option<Instant>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `exec_timeout`.
    Run,
    /// `read_timeout`.
    Body,
    /// `write_timeout`.
    Answer,
}

impl Limits {
    /// The limits of a run that starts now.
    pub(crate) fn new(now: Instant, config: &Config) -> Self {
        let after = |limit: Option<Duration>| limit.and_then(|limit| now.checked_add(limit));
        Self {
            run: after(config.exec_timeout),
            body: after(config.read_timeout),
            answer: after(config.write_timeout),
        }
    }

    /// The limits of a call whose run has still to begin.
    pub(crate) fn before_run(now: Instant, config: &Config) -> Self {
        Self {
            run: None,
            ..Self::new(now, config)
        }
    }

    /// The limits of a call whose answer is a stream of events: the first one may come late, as may any other.
    pub(crate) fn of_stream(now: Instant, config: &Config) -> Self {
        let pause = config.stream_idle_timeout;
        Self {
            run: None,
            answer: pause.and_then(|limit| now.checked_add(limit)),
            ..Self::new(now, config)
        }
    }

    /// The caller wants to wait less for the run than `exec_timeout` allows; more is not given.
    pub(crate) fn shorten(&mut self, now: Instant, limit: Duration) {
        let asked = now.checked_add(limit);
        self.run = self.run.into_iter().chain(asked).min();
    }

    /// Once an answer has begun, its limit is that of one pause.
    pub(crate) fn answer_goes_on(&mut self, limit: Option<Duration>) {
        self.answer = limit.and_then(|limit| Instant::now().checked_add(limit));
    }

    /// The one that is met first; the body's counts only while the body arrives.
    pub(crate) fn first(&self, has_whole_body: bool) -> Option<(Instant, Limit)> {
        let body = self.body.filter(|_| !has_whole_body);
        let limits = [
            (self.run, Limit::Run),
            (body, Limit::Body),
            (self.answer, Limit::Answer),
        ];
        limits
            .into_iter()
            .filter_map(|(at, limit)| Some((at?, limit)))
            .min_by_key(|(at, _)| *at)
    }
}

impl Limit {
    /// What is counted of a run that it has ended.
    pub(crate) fn kill(self) -> Kill {
        match self {
            Self::Run => Kill::ExecTimeout,
            Self::Body => Kill::ReadTimeout,
            Self::Answer => Kill::WriteTimeout,
        }
    }

    /// What the client is told.
    pub(crate) fn refusal(self, config: &Config) -> Refusal {
        match self {
            Self::Run => Refusal::RunSlow {
                limit: config.exec_timeout.unwrap_or_default(),
                status: config.mode.slow_run(),
            },
            Self::Body => Refusal::BodySlow {
                limit: config.read_timeout.unwrap_or_default(),
            },
            Self::Answer => Refusal::AnswerSlow {
                limit: config.write_timeout.unwrap_or_default(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_limit_counts_and_the_bodys_only_while_it_arrives() {
        let now = Instant::now();
        let at = |millis| now.checked_add(Duration::from_millis(millis));
        let limits = Limits {
            run: at(30),
            body: at(10),
            answer: at(20),
        };
        assert_eq!(limits.first(false).unwrap().1, Limit::Body);
        assert_eq!(limits.first(true).unwrap().1, Limit::Answer);
        let tie = Limits {
            run: at(10),
            body: at(10),
            answer: at(10),
        };
        assert_eq!(tie.first(false).unwrap().1, Limit::Run);
        assert_eq!(
            Limits {
                run: None,
                body: None,
                answer: None
            }
            .first(false),
            None
        );
    }
}
