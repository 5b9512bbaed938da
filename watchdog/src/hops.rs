//! Headers that belong to one connection and not to the call; pure.

use hyper::HeaderMap;
use hyper::header::{CONNECTION, EXPECT, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};

use crate::refusal::{IDENTITY, NOT_ACCEPTED};

/// Headers of one hop, besides those that `Connection` names. `Trailer` is not among them: declared trailers pass.
const ONE_HOP: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    UPGRADE,
];

/// The watchdog has answered the expectation itself; `Proxy` would become `HTTP_PROXY` in many languages' eyes; how a body
/// is framed is said anew.
const NOT_FOR_FUNCTIONS: [HeaderName; 3] =
    [EXPECT, HeaderName::from_static("proxy"), TRANSFER_ENCODING];

/// Only the watchdog may say that it is one, and that a call was not accepted; how a body is framed is hyper's to say.
const NOT_FOR_CLIENTS: [HeaderName; 3] = [IDENTITY, NOT_ACCEPTED, TRANSFER_ENCODING];

/// Whether the client asks for an upgrade.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && names(headers).any(|name| name == "upgrade")
}

/// Prepares a request's headers for the function; a wish for an upgrade is passed on.
pub(crate) fn towards_function(headers: &mut HeaderMap) {
    let upgrade = is_upgrade(headers)
        .then(|| headers.get(UPGRADE).cloned())
        .flatten();
    let wants_trailers = headers
        .get_all(TE)
        .iter()
        .any(|value| value.to_str().is_ok_and(|text| text.contains("trailers")));
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    remove(headers, &NOT_FOR_FUNCTIONS);
    // hyper writes a GET without a body unless it is told that there is one.
    if is_chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Whether a message has no transfer coding but one `chunked`.
pub(crate) fn is_chunked_at_most(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

/// Prepares an answer's headers for the client.
pub(crate) fn towards_client(headers: &mut HeaderMap, is_upgrade: bool) {
    let upgrade = is_upgrade.then(|| headers.get(UPGRADE).cloned()).flatten();
    remove(headers, &NOT_FOR_CLIENTS);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Looks at each header there is once: messages have few, and a look-up is dearer than a few comparisons.
fn remove(headers: &mut HeaderMap, others: &[HeaderName]) {
    let named = named(headers);
    let is_removed = |name: &&HeaderName| is_of_one(name, &named) || others.contains(name);
    let removed: Vec<_> = headers.keys().filter(is_removed).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

/// The headers that `Connection` names; usually none.
pub(crate) fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    names(headers)
        .filter_map(|name| HeaderName::try_from(name).ok())
        // A sender that names the length or the host here would make a different message of it.
        .filter(|name| !matches!(name.as_str(), "content-length" | "host" | "trailer"))
        .collect()
}

/// Whether a header is of one hop, given those that `Connection` names.
pub(crate) fn is_of_one(name: &HeaderName, named: &[HeaderName]) -> bool {
    ONE_HOP.contains(name) || named.contains(name)
}

fn names(headers: &HeaderMap) -> impl Iterator<Item = String> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn what_belongs_to_the_connection_stays_there() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Mine, Host"),
            ("keep-alive", "5"),
            ("x-mine", "1"),
            ("x-other", "2"),
            ("host", "h"),
            ("proxy", "evil"),
            ("upgrade", "not asked for"),
        ]);
        assert!(!is_upgrade(&headers));
        towards_function(&mut headers);
        assert_eq!(headers, map(&[("x-other", "2"), ("host", "h")]));
    }

    #[test]
    fn upgrades_trailers_and_chunks_are_said_again() {
        let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert!(is_upgrade(&headers));
        towards_function(&mut headers);
        assert_eq!(
            headers,
            map(&[("connection", "upgrade"), ("upgrade", "websocket")])
        );
        let mut headers = map(&[("te", "trailers"), ("transfer-encoding", "chunked")]);
        assert!(!is_upgrade(&headers));
        towards_function(&mut headers);
        assert_eq!(headers.get("te").unwrap(), "trailers");
        assert_eq!(headers.get("transfer-encoding").unwrap(), "chunked");
    }

    #[test]
    fn a_function_cannot_say_that_its_call_was_not_accepted_or_that_it_is_a_watchdog() {
        let mut headers = map(&[
            ("x-skep-not-accepted", "busy"),
            ("x-skep-watchdog", "9"),
            ("trailer", "x-sum"),
        ]);
        towards_client(&mut headers, false);
        assert_eq!(headers, map(&[("trailer", "x-sum")]));
    }
}
