//! Why a call got no answer from its function: the status, the sentence, the cause.

use std::fmt;
use std::time::Duration;

use hyper::StatusCode;

use super::attempts::Waited;

use crate::{duration, quantity};

/// Why a call got no answer from its function.
#[derive(Debug)]
pub enum InvokeError {
    /// There is no such function; perhaps one that is near.
    Unknown(Option<String>),
    /// There is no such function, and no more is told on a port for calls alone.
    Unlisted,
    /// It exists and cannot be called: the sentence says why and what to do.
    Elsewhere(String),
    /// The gateway has not seen the functions yet: the sentence says why.
    NothingListed(String),
    /// No copy of it runs.
    NoReplica {
        /// How many were asked for.
        desired: u64,
        /// What to do, in the provider's commands.
        remedy: String,
    },
    /// Copies are listed and none takes calls, even after patience.
    NoneReady {
        /// How many.
        listed: usize,
        /// What to do, in the provider's commands.
        remedy: String,
    },
    /// No endpoint accepted a connection; the last one's cause.
    Refused(String),
    /// The connection broke, or what came was not HTTP.
    Broken(String),
    /// It switched protocols, and the caller had not asked for that.
    Unasked,
    /// No response head within this limit.
    TimedOut {
        /// The limit.
        limit: Duration,
        /// What part of it was spent before a replica was tried.
        waited: Option<(Waited, Duration)>,
    },
    /// The caller's body broke off or was malformed.
    BadBody(String),
    /// The caller's body did not come to its end within this limit.
    SlowBody(Duration),
    /// The caller's body has more bytes than this.
    TooLarge(u64),
    /// So many calls of this function run already, and as many wait.
    FunctionFull(usize),
    /// So many calls of all functions run already, and as many wait.
    GatewayFull(usize),
}

impl InvokeError {
    /// The status that the caller is told (docs/decisions, limits of a call).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadBody(_) => StatusCode::BAD_REQUEST,
            Self::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::FunctionFull(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown(_) | Self::Unlisted | Self::Elsewhere(_) => StatusCode::NOT_FOUND,
            Self::Broken(_) | Self::Unasked => StatusCode::BAD_GATEWAY,
            Self::Refused(_)
            | Self::NothingListed(_)
            | Self::NoReplica { .. }
            | Self::NoneReady { .. }
            | Self::GatewayFull(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What the caller is told: the function, the cause, what to do.
    pub(super) fn sentence(&self, name: &str) -> String {
        match self {
            Self::Unknown(Some(near)) => format!(
                "function '{name}' not found; did you mean '{near}'? list them with GET /system/functions"
            ),
            // A port for calls does not tell which functions there are, nor where that is told.
            Self::Unlisted => format!("function '{name}' not found"),
            Self::Unknown(None) => {
                format!("function '{name}' not found; list them with GET /system/functions")
            }
            Self::Elsewhere(sentence) => format!("function '{name}' cannot be called: {sentence}"),
            Self::NothingListed(why) => format!("function '{name}' cannot be found yet: {why}"),
            Self::NoReplica { desired: 0, remedy } => {
                format!("function '{name}' has no running replica: it is scaled to 0; {remedy}")
            }
            Self::NoReplica { desired, remedy } => {
                format!("function '{name}' has no running replica of {desired}: {remedy}")
            }
            Self::NoneReady { listed, remedy } => format!(
                "function '{name}' has {listed} replica(s) and none accepts connections: {remedy}"
            ),
            Self::Refused(_) => format!(
                "function '{name}': no replica accepted the connection; it may be starting or crashing: see its log"
            ),
            Self::Broken(cause) => {
                format!("function '{name}' gave no proper answer: {cause}; see its log")
            }
            Self::SlowBody(limit) => format!(
                "the request body for function '{name}' did not arrive within {}: send it faster, or raise the function's label skep.timeout or the gateway's upstream_timeout",
                duration::show(*limit)
            ),
            Self::TooLarge(most) => format!(
                "the request body for function '{name}' has more than {}: raise the function's label skep.max-body or the gateway's max_body",
                quantity::show(*most)
            ),
            Self::FunctionFull(most) => format!(
                "function '{name}' has {most} calls running, and as many wait: come again later, add replicas, or raise its label skep.max-in-flight"
            ),
            Self::GatewayFull(most) => format!(
                "function '{name}' cannot be called now: the gateway has {most} calls running, and as many wait; come again later, or raise max_in_flight"
            ),
            Self::Unasked => format!(
                "function '{name}' gave no proper answer: it switched protocols, and nobody had asked for that"
            ),
            Self::TimedOut { limit, waited } => {
                let part = waited.map_or_else(String::new, |(what, spent)| {
                    let what = match what {
                        Waited::InLine => "in line, because as many calls ran as may run",
                        Waited::ForReplica => "until a replica was ready",
                        Waited::ForConnection => "until a replica took a connection",
                    };
                    format!("; {:.1} s of it were spent {what}", spent.as_secs_f64())
                });
                format!(
                    "function '{name}' did not answer within {} of the request's start{part}: raise its label skep.timeout or the gateway's upstream_timeout",
                    duration::show(*limit)
                )
            }
            Self::BadBody(cause) => {
                format!("the request body for function '{name}' could not be read: {cause}")
            }
        }
    }

    pub(super) fn retry_after(&self) -> Option<u32> {
        matches!(
            self,
            Self::FunctionFull(_)
                | Self::GatewayFull(_)
                | Self::Refused(_)
                | Self::NothingListed(_)
                | Self::NoReplica { desired: 1.., .. }
                | Self::NoneReady { .. }
        )
        .then_some(1)
    }
}

impl fmt::Display for InvokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(cause) | Self::Broken(cause) | Self::BadBody(cause) => f.write_str(cause),
            other => write!(f, "{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_status_and_names_the_function() {
        let limit = Duration::from_millis(1500);
        let no_replica = |desired| InvokeError::NoReplica {
            desired,
            remedy: "do this".into(),
        };
        for (error, status, says) in [
            (
                InvokeError::Unknown(Some("echo".into())),
                404,
                "did you mean 'echo'?",
            ),
            (InvokeError::Unknown(None), 404, "GET /system/functions"),
            (InvokeError::Unlisted, 404, "not found"),
            (InvokeError::Elsewhere("attach it".into()), 404, "attach it"),
            (
                InvokeError::NothingListed("no docker".into()),
                503,
                "no docker",
            ),
            (no_replica(0), 503, "is scaled to 0; do this"),
            (no_replica(2), 503, "no running replica of 2: do this"),
            (
                InvokeError::NoneReady {
                    listed: 2,
                    remedy: "do this".into(),
                },
                503,
                "none accepts connections: do this",
            ),
            (InvokeError::Refused("x".into()), 503, "no replica accepted"),
            (InvokeError::Broken("x".into()), 502, "no proper answer"),
            (InvokeError::Unasked, 502, "nobody had asked"),
            (
                InvokeError::TimedOut {
                    limit,
                    waited: None,
                },
                504,
                "within 1s500ms of the request's start: raise its label skep.timeout",
            ),
            (InvokeError::BadBody("x".into()), 400, "request body"),
            (InvokeError::SlowBody(limit), 408, "within 1s500ms"),
            (InvokeError::TooLarge(1 << 20), 413, "more than 1 MiB"),
            (InvokeError::FunctionFull(2), 429, "skep.max-in-flight"),
            (InvokeError::GatewayFull(2), 503, "max_in_flight"),
        ] {
            assert_eq!(error.status().as_u16(), status, "{error:?}");
            let sentence = error.sentence("ech");
            assert!(
                sentence.contains("'ech'") && sentence.contains(says),
                "{sentence}"
            );
        }
    }
}
