//! Why a call has no answer from its command: each reason with its status and its sentence.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderName;

use crate::duration::show;

/// Says which watchdog answers: on the first answer of a connection, on health and readiness, and wherever it says that a call was
/// not accepted.
pub(crate) const IDENTITY: HeaderName = HeaderName::from_static("x-skep-watchdog");

/// Says that the call was not accepted, so that the gateway may try it elsewhere.
pub(crate) const NOT_ACCEPTED: HeaderName = HeaderName::from_static("x-skep-not-accepted");

/// Why a call has no answer from its command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// SIGTERM has come.
    Draining,
    /// `max_inflight` calls are being served.
    Busy { limit: usize },
    /// A verb that the classic contract does not have.
    Method,
    /// A health path asked with another verb than GET.
    HealthMethod,
    /// More than one `Host`: whoever stands in front may have believed another one than the command would.
    ManyHosts,
    /// The head can be read in two ways, or in none.
    Malformed { mistake: String },
    /// The request target is longer than hyper takes.
    TargetTooLong { limit: usize },
    /// The request has more header fields than hyper takes.
    TooManyFields { limit: usize },
    /// The head has more bytes than are read of one.
    LongHead { limit: usize },
    /// `%00`, which no environment can carry.
    NulInPath,
    /// A header, or the query, that no environment can carry.
    HeadTooLarge { variable: String },
    /// The command could not be started.
    CannotStart { command: String, error: String },
    /// The body did not arrive whole.
    BodyBroken { error: String },
    /// The body is larger than may be gathered.
    BodyTooLarge {
        limit: usize,
        /// Wants it gathered.
        variable: &'static str,
    },
    /// The run has written more than `mode=serializing` holds.
    OutputTooLarge { limit: usize },
    /// The body is not what `input_mode=args` asks for.
    NotArguments { mistake: String },
    /// The kernel does not take so much.
    ArgumentsTooLong,
    /// `read_timeout` while the body arrived.
    BodySlow { limit: Duration },
    /// `exec_timeout`.
    RunSlow { limit: Duration, status: StatusCode },
    /// `write_timeout` before there was an answer.
    AnswerSlow { limit: Duration },
    /// The function's own server is not there: nothing was passed on.
    NotUp { seconds: u64 },
    /// The function's own server did not answer in time.
    FunctionSlow { limit: Duration },
    /// The function's own server broke off before it answered.
    FunctionBroken { error: String },
    /// A verb that files do not have.
    FileMethod,
    /// No such file below `static_path`.
    NoFile,
    /// The exit status was taken by somebody else.
    ExitUnknown,
}

impl Refusal {
    /// Of a body that broke off. hyper's errors keep the cause to themselves; both are of use to the sender.
    pub(crate) fn broken(error: &hyper::Error) -> Self {
        let error = match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        Self::BodyBroken { error }
    }

    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Draining | Self::NotUp { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NoFile => StatusCode::NOT_FOUND,
            Self::Method | Self::HealthMethod | Self::FileMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::ManyHosts
            | Self::Malformed { .. }
            | Self::NulInPath
            | Self::BodyBroken { .. }
            | Self::NotArguments { .. } => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge { .. } | Self::ArgumentsTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge { .. } | Self::TooManyFields { .. } | Self::LongHead { .. } => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::CannotStart { .. }
            | Self::ExitUnknown
            | Self::OutputTooLarge { .. }
            | Self::FunctionBroken { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BodySlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::RunSlow { status, .. } => *status,
            Self::AnswerSlow { .. } | Self::FunctionSlow { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// One line for people: what happened, which limit it was and how to raise it.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Draining => "the function is shutting down and takes no new calls; send the call to another replica".to_owned(),
            Self::Busy { limit } => format!("{limit} calls are being served, which is the limit; retry, add replicas or raise max_inflight"),
            Self::Method => "the method is not allowed; use GET, POST, PUT, PATCH or DELETE".to_owned(),
            Self::HealthMethod => "the method is not allowed; use GET".to_owned(),
            Self::ManyHosts => "the request has more than one Host header; send one".to_owned(),
            Self::Malformed { mistake } => format!("the request is refused: {mistake}"),
            Self::TargetTooLong { limit } => format!("the request target has more than {limit} bytes; send less in the query, or send it in the body"),
            Self::TooManyFields { limit } => format!("the request has more than {limit} header fields; send fewer"),
            Self::LongHead { limit } => format!("the request's head has more than {limit} bytes; send less in it, or send it in the body"),
            Self::NulInPath => "the path contains %00, which cannot be passed to the command".to_owned(),
            Self::HeadTooLarge { variable } => {
                format!("{variable} is too long for the command's environment; send it in the body, or set cgi_headers=false")
            }
            Self::CannotStart { command, error } => format!("cannot start {command}: {error}"),
            Self::BodyBroken { error } => format!("the request body did not arrive whole, the run was ended: {error}"),
            Self::BodyTooLarge { limit, variable } => format!("the request body has more than {limit} bytes, which is the limit because {variable} is set; send less, or unset it"),
            Self::OutputTooLarge { limit } => format!("the run wrote more than {limit} bytes, which is the limit of mode=serializing, and was ended; use mode=streaming for long output"),
            Self::NotArguments { mistake } => format!("the request body is not a JSON array of arguments, nor an object with such an array as args: {mistake}"),
            Self::ArgumentsTooLong => "the arguments are too long for the kernel together with the environment; send less, or set input_mode=stdin".to_owned(),
            Self::BodySlow { limit } => format!("the request body took longer than {}, the run was ended; raise read_timeout", show(*limit)),
            Self::RunSlow { limit, .. } => format!("the run took longer than {} and was killed; raise exec_timeout", show(*limit)),
            Self::AnswerSlow { limit } => format!("there was no answer within {}, the run was ended; raise write_timeout", show(*limit)),
            Self::NotUp { .. } => "the function's process does not accept connections yet; retry".to_owned(),
            Self::FunctionSlow { limit } => format!("the function did not answer within {}; raise exec_timeout, or X-Timeout if the request has it", show(*limit)),
            Self::FunctionBroken { error } => format!("the function broke off before it answered: {error}"),
            Self::FileMethod => "the method is not allowed; use GET or HEAD".to_owned(),
            Self::NoFile => "there is no such file".to_owned(),
            Self::ExitUnknown => "the command's exit status is unknown: another process took it".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_its_status_and_names_its_variable() {
        let limit = Duration::from_millis(500);
        let table = [
            (Refusal::Busy { limit: 3 }, 429, "max_inflight"),
            (Refusal::BodySlow { limit }, 408, "read_timeout"),
            (
                Refusal::RunSlow {
                    limit,
                    status: StatusCode::REQUEST_TIMEOUT,
                },
                408,
                "exec_timeout",
            ),
            (Refusal::AnswerSlow { limit }, 504, "write_timeout"),
            (
                Refusal::BodyTooLarge {
                    limit: 5,
                    variable: "input_mode",
                },
                413,
                "input_mode",
            ),
            (
                Refusal::HeadTooLarge {
                    variable: "Http_X".to_owned(),
                },
                431,
                "cgi_headers",
            ),
        ];
        for (refusal, status, variable) in table {
            assert_eq!(refusal.status().as_u16(), status);
            let sentence = refusal.sentence();
            assert!(
                sentence.contains(variable) && !sentence.contains('\n'),
                "{sentence}"
            );
        }
    }
}
