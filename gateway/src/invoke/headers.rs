//! What a message's head may carry across the gateway, each way. Pure.
//!
//! Hop-by-hop fields end here (RFC 9110 §7.6.1), and so does what a client could use to pretend.

use hyper::body::Body;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::{HeaderMap, Request};

use super::origin::Origin;
use super::retry::NOT_ACCEPTED;
use crate::endpoint::WATCHDOG;
use crate::reply::{CALL_ID, START_TIME};
use crate::told::{Ids, Told};

const FORWARDED_PREFIX: &str = "x-forwarded-";

/// Fields that describe one connection. `Trailer` stays, because declared trailers pass.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
];

/// Fields that frame, address or identify a message: naming one of them in `Connection` does not remove it.
const PROTECTED: [HeaderName; 6] = [CONTENT_LENGTH, HOST, TRAILER, TE, CALL_ID, START_TIME];

/// Makes a client's head fit for the function, without a word of what the function is told of the call. That, and whether the
/// client asks for an upgrade.
pub fn outbound<'a>(headers: &mut HeaderMap, origin: &'a Origin, ids: &'a Ids) -> (Told<'a>, bool) {
    // Before anything goes: naming it in `Connection` does not undo a trusted proxy's word.
    let told = origin.told(headers, ids);
    let found = Found::among(headers);
    let upgrade = found.upgrade.then(|| wanted_upgrade(headers)).flatten();
    let takes_trailers = found.te
        && headers
            .get_all(TE)
            .iter()
            .any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case("trailers")));
    strip_hop_by_hop(headers, &found);
    if found.te {
        headers.remove(TE);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if found.chunked {
        // Said again so that a GET with a chunked body keeps it.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if found.expect {
        headers.remove(EXPECT);
    }
    if headers.keys().any(pretends) {
        strip_pretence(headers);
    }
    if found.trailer {
        declare_harmless_trailers(headers);
    }
    if found.ids {
        headers.remove(CALL_ID);
        headers.remove(START_TIME);
    }
    let upgrades = upgrade.is_some();
    if let Some(protocol) = upgrade {
        switch(headers, protocol);
    }
    (told, upgrades)
}

/// Makes a request of HTTP/2 one that HTTP/1.1 can say: a body of unknown length is chunked, and the pieces of a `Cookie` are
/// one field again (RFC 9113 §8.2.3).
pub fn from_h2<B: Body>(request: &mut Request<B>) {
    let has_body = !request.body().is_end_stream();
    let headers = request.headers_mut();
    if has_body && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut pieces = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    if let (Some(first), Some(second)) = (pieces.next(), pieces.next()) {
        let all: Vec<_> = [first, second].into_iter().chain(pieces).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(b"; ".as_slice())) {
            headers.insert(COOKIE, joined);
        }
    }
}

/// Says on a head that the connection is to become, or becomes, another protocol.
pub fn switch(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// The protocol that a client wants its connection to become. Not HTTP/2: requests in such a tunnel would pass all that
/// is checked here, and whoever offers it is content with an ordinary answer.
fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_named = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(tokens)
        .any(|token| token.eq_ignore_ascii_case("upgrade"));
    let mut offers = headers.get_all(UPGRADE).iter();
    let (Some(one), None, true) = (offers.next(), offers.next(), is_named) else {
        return None;
    };
    let is_http = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("h2") || name.starts_with("http") || name.starts_with("tls")
    };
    let is_other = one.to_str().is_ok_and(|name| !name.is_empty()) && !tokens(one).any(is_http);
    is_other.then(|| one.clone())
}

/// Makes a function's head fit for the client.
pub fn inbound(headers: &mut HeaderMap) {
    let found = Found::among(headers);
    if found.chunked {
        // RFC 9112 §6.3: chunked overrides a length, which then must not be passed on.
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers, &found);
    if found.trailer {
        declare_harmless_trailers(headers);
    }
    // What the watchdog and the gateway have to say to each other is nobody else's business.
    if found.watchdog {
        headers.remove(NOT_ACCEPTED);
        headers.remove(WATCHDOG);
    }
}

/// What a head has that needs a hand, by one walk over its names: each look-up by name would hash that name, and most
/// heads have none of them.
#[derive(Default)]
struct Found {
    /// One bit for each of [`HOP_BY_HOP`].
    hop_by_hop: u8,
    connection: bool,
    upgrade: bool,
    chunked: bool,
    te: bool,
    trailer: bool,
    expect: bool,
    ids: bool,
    watchdog: bool,
}

impl Found {
    fn among(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            if let Some(at) = HOP_BY_HOP.iter().position(|hop| hop == name) {
                found.hop_by_hop |= 1 << at;
            }
            found.connection |= name == CONNECTION;
            found.upgrade |= name == UPGRADE;
            found.chunked |= name == TRANSFER_ENCODING;
            found.te |= name == TE;
            found.trailer |= name == TRAILER;
            found.expect |= name == EXPECT;
            found.ids |= name == CALL_ID || name == START_TIME;
            found.watchdog |= name == NOT_ACCEPTED || name == WATCHDOG;
        }
        found
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap, found: &Found) {
    if found.connection {
        let named = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(tokens)
            // What nearly everybody sends, and what names no field.
            .filter(|token| !matches!(*token, "keep-alive" | "close"))
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok());
        for name in named.collect::<Vec<_>>() {
            if !PROTECTED.contains(&name) {
                headers.remove(name);
            }
        }
    }
    for (at, name) in HOP_BY_HOP.iter().enumerate() {
        if found.hop_by_hop & (1 << at) != 0 {
            headers.remove(name);
        }
    }
}

/// Leaves only those names in `Trailer` that may stand in a head as well: what is not declared there is not passed on.
fn declare_harmless_trailers(headers: &mut HeaderMap) {
    let names = headers.get_all(TRAILER).iter().flat_map(tokens);
    let names = names.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
    let harmless: Vec<_> = names
        .filter(|name| !pretends(name) && !PROTECTED.contains(name) && !HOP_BY_HOP.contains(name))
        .collect();
    headers.remove(TRAILER);
    for name in harmless {
        headers.append(TRAILER, HeaderValue::from(name));
    }
}

/// Removes what only serves to pretend: forwarding fields, `Proxy` (httpoxy), and names with `_`, which a CGI
/// environment cannot tell from names with `-`.
fn strip_pretence(headers: &mut HeaderMap) {
    let pretending: Vec<_> = headers
        .keys()
        .filter(|name| pretends(name))
        .cloned()
        .collect();
    for name in pretending {
        headers.remove(name);
    }
}

fn pretends(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with(FORWARDED_PREFIX)
        || name.contains('_')
        || matches!(
            name,
            "forwarded" | "x-real-ip" | "proxy" | "x-skep-not-accepted" | "x-skep-watchdog"
        )
}

/// Whether this can stand for a host: names, addresses in brackets, a port. Byte by byte, because it is done for every request.
#[must_use]
pub fn is_host(value: &HeaderValue) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(byte);
    value.as_bytes().iter().all(fits)
}

/// The parts of a list. One that is no text is no token, and hides none of the others.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let parts = value.as_bytes().split(|byte| *byte == b',');
    parts.map(|part| std::str::from_utf8(part.trim_ascii()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        let pairs = fields.iter().map(|(name, value)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        });
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    fn origin() -> Origin {
        Origin::of([192, 0, 2, 7].into(), false, false)
    }

    fn out(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = head(fields);
        outbound(&mut headers, &origin(), &Ids::of(None));
        headers
    }

    #[test]
    fn hop_by_hop_fields_and_those_named_in_connection_end_here() {
        let headers = out(&[
            ("connection", "keep-alive, X-Secret"),
            ("connection", "close"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "x"),
            ("expect", "100-continue"),
            ("accept", "a"),
        ]);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept"]);
    }

    #[test]
    fn an_upgrade_passes_if_it_is_one_and_not_to_another_http() {
        let asks = |fields: &[(&str, &str)]| {
            let mut headers = head(fields);
            let (_, upgrades) = outbound(&mut headers, &origin(), &Ids::of(None));
            assert_eq!(upgrades, headers.contains_key(UPGRADE));
            assert_eq!(upgrades, headers.contains_key(CONNECTION));
            upgrades
        };
        let named = ("connection", "keep-alive, Upgrade");
        assert!(asks(&[named, ("upgrade", "websocket")]));
        assert!(asks(&[named, ("upgrade", "my-protocol/2, other")]));
        // What is no text is no protocol, and does not hide one.
        for refused in ["h2c", "websocket, H2C", "HTTP/2.0", "TLS/1.2", "", "h2c, é"] {
            assert!(!asks(&[named, ("upgrade", refused)]), "{refused}");
        }
        assert!(asks(&[
            ("connection", "é, upgrade"),
            ("upgrade", "websocket")
        ]));
        assert!(!asks(&[("upgrade", "websocket")]), "not named");
        assert!(!asks(&[named, ("upgrade", "a"), ("upgrade", "b")]));
    }

    #[test]
    fn framing_cannot_be_removed_by_naming_it() {
        let headers = out(&[
            ("connection", "content-length, host, trailer"),
            ("content-length", "3"),
            ("host", "h"),
            ("trailer", "x-sum"),
        ]);
        assert_eq!(
            (
                &headers["content-length"],
                &headers["host"],
                &headers["trailer"]
            ),
            (
                &"3".parse().unwrap(),
                &"h".parse().unwrap(),
                &"x-sum".parse().unwrap()
            )
        );
    }

    #[test]
    fn chunked_bodies_and_trailers_stay_what_they_are() {
        let headers = out(&[
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("trailer", "x-sum"),
        ]);
        assert_eq!(headers["transfer-encoding"], "chunked");
        assert_eq!(headers["te"], "trailers");
        assert!(!out(&[("te", "gzip")]).contains_key(TE));
    }

    #[test]
    fn trailers_that_pretend_are_not_declared_and_so_not_passed() {
        let headers = out(&[
            ("trailer", "X-Sum, X-Forwarded-For, X_A"),
            ("trailer", "Content-Length, X-Call-Id, Proxy"),
        ]);
        assert_eq!(
            headers.get_all("trailer").iter().collect::<Vec<_>>(),
            ["x-sum"]
        );
    }

    #[test]
    fn a_chunked_answer_has_no_length() {
        let mut headers = head(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        inbound(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn what_the_function_is_told_stands_in_no_head() {
        let told = ["x-call-id", "x-start-time", "x-forwarded-for"];
        let told = told
            .into_iter()
            .chain(["x-forwarded-proto", "x-forwarded-host"]);
        for name in told.clone() {
            assert!(out(&[(name, "1"), (name, "2")]).is_empty(), "{name}");
        }
        let all: Vec<_> = told.map(|name| (name, "1")).collect();
        let named = "x-call-id, x-start-time, x-forwarded-for, x-forwarded-proto, x-forwarded-host";
        let mut headers = head(&[&[("connection", named)], &all[..]].concat());
        let (ids, origin) = (Ids::of(None), origin());
        let (told, _) = outbound(&mut headers, &origin, &ids);
        assert!(headers.is_empty(), "{headers:?}");
        told.put_on(&mut headers, None);
        assert_eq!(headers.len(), 4, "told all the same: {headers:?}");
    }

    #[test]
    fn a_client_cannot_pretend() {
        let headers = out(&[
            ("host", "shop.example"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "5.6.7.8"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("proxy", "http://evil"),
            ("authorization", "Bearer x"),
        ]);
        for gone in [
            "x-forwarded-for",
            "x-forwarded-prefix",
            "x-real-ip",
            "forwarded",
            "x_forwarded_for",
            "proxy",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(
            headers["authorization"], "Bearer x",
            "the function's own business"
        );
    }

    #[test]
    fn repeated_fields_pass_and_the_watchdogs_word_does_not() {
        let mut headers = head(&[
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("x-skep-not-accepted", "busy"),
            ("connection", "close"),
            ("trailer", "x"),
        ]);
        inbound(&mut headers);
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert!(
            !headers.contains_key("x-skep-not-accepted") && !headers.contains_key("connection")
        );
        assert!(headers.contains_key("trailer"));
    }
}
