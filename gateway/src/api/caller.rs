//! Who asks the management API, and how errors are told to them.

use hyper::header::{ACCEPT, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Response, StatusCode};

use crate::auth::{self, Denied, Identity, Scope};
use crate::discovery::operate::Authority;
use crate::metrics::{Metrics, Refused};
use crate::reply::{self, Body, CALL_ID, Failure};

/// Who asks.
pub(super) struct Caller {
    /// Who it is.
    pub(super) who: Identity,
    /// Where from.
    pub(super) peer: String,
    /// The request's id.
    pub(super) id: HeaderValue,
    /// Whether errors shall be JSON.
    reads_json: bool,
}

impl Caller {
    /// Somebody whom nobody has asked yet.
    pub(super) fn of(headers: &HeaderMap, peer: &str) -> Self {
        let accept = headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        Self {
            who: Identity::Anyone,
            peer: peer.to_owned(),
            id: headers
                .get(CALL_ID)
                .cloned()
                .unwrap_or_else(|| HeaderValue::from_static("-")),
            reads_json: ["application/json", "application/problem+json"]
                .iter()
                .any(|json| accept.contains(json)),
        }
    }

    /// Which functions it may change.
    pub(super) fn authority(&self) -> Authority {
        match &self.who {
            Identity::Key(key) if !key.may(Scope::Admin) => Authority::Api,
            _ => Authority::All,
        }
    }

    pub(super) fn denied(&self, denied: Denied, metrics: &Metrics) -> Response<Body> {
        let sentence = match denied {
            Denied::Nothing => "the management API asks for a login (basic auth) or an API key (Authorization: Bearer <key>)".to_owned(),
            Denied::Unknown => "the management API asks for a login or an API key, and this one is not known, or was revoked".to_owned(),
            other => other.sentence("this"),
        };
        metrics.refused(Refused::Unauthorized);
        let mut response = self.refused(denied.status(), sentence, denied.retry_after());
        if denied.status() == StatusCode::UNAUTHORIZED {
            for challenge in [auth::CHALLENGE, auth::KEY_CHALLENGE] {
                response.headers_mut().append(WWW_AUTHENTICATE, challenge);
            }
        }
        response
    }

    pub(super) fn refused(
        &self,
        status: StatusCode,
        sentence: String,
        retry_after: Option<u32>,
    ) -> Response<Body> {
        let failure = Failure {
            status,
            sentence,
            cause: String::new(),
            call_id: self.id.to_str().unwrap_or("-"),
            retry_after,
        };
        if self.reads_json {
            reply::problem(&failure)
        } else {
            reply::failure(&failure)
        }
    }
}
