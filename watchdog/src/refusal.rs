//! Every answer that the watchdog gives in the command's place: status, sentence, headers.

use std::time::Duration;

use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::body::Body;
use crate::duration::show;

/// Marks answers that do not come from the function.
pub(crate) const INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

/// Says that the call was not accepted, so that the gateway may try it elsewhere.
pub(crate) const NOT_ACCEPTED: HeaderName = HeaderName::from_static("x-skep-not-accepted");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

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
    /// `%00`, which no environment can carry.
    NulInPath,
    /// A header, or the query, that no environment can carry.
    HeadTooLarge { variable: String },
    /// The command could not be started.
    CannotStart { command: String, error: String },
    /// The body did not arrive whole.
    BodyBroken { error: String },
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
    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Draining | Self::NotUp { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NoFile => StatusCode::NOT_FOUND,
            Self::Method | Self::HealthMethod | Self::FileMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::ManyHosts | Self::NulInPath | Self::BodyBroken { .. } => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::CannotStart { .. } | Self::ExitUnknown | Self::FunctionBroken { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
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
            Self::NulInPath => "the path contains %00, which cannot be passed to the command".to_owned(),
            Self::HeadTooLarge { variable } => {
                format!("{variable} is too long for the command's environment; send it in the body, or set cgi_headers=false")
            }
            Self::CannotStart { command, error } => format!("cannot start {command}: {error}"),
            Self::BodyBroken { error } => format!("the request body did not arrive whole, the run was ended: {error}"),
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

    /// The whole answer.
    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::whole(self.sentence() + "\n"));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, TEXT);
        headers.insert(INTERNAL, HeaderValue::from_static("fwatchdog"));
        match self {
            Self::Draining => {
                headers.insert(NOT_ACCEPTED, HeaderValue::from_static("draining"));
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Busy { .. } => {
                headers.insert(NOT_ACCEPTED, HeaderValue::from_static("busy"));
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::NotUp { seconds } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
            }
            Self::Method => drop(headers.insert(
                ALLOW,
                HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"),
            )),
            Self::HealthMethod => drop(headers.insert(ALLOW, HeaderValue::from_static("GET"))),
            Self::FileMethod => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            _ => {}
        }
        response
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

    #[test]
    fn only_calls_that_were_not_accepted_say_so() {
        let header = |refusal: Refusal| refusal.response().headers().get(NOT_ACCEPTED).cloned();
        assert_eq!(header(Refusal::Draining).unwrap(), "draining");
        assert_eq!(header(Refusal::Busy { limit: 1 }).unwrap(), "busy");
        assert_eq!(header(Refusal::Method), None);
        assert_eq!(header(Refusal::ExitUnknown), None);
    }
}
