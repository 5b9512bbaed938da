//! What a message's head may carry across the gateway, each way. Pure.
//!
//! Hop-by-hop fields end here (RFC 9110 §7.6.1), and so does what a client could use to pretend.

use std::net::Ipv6Addr;

use hyper::body::Body;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, LOCATION, RANGE, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
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

/// How many members `Connection`, `TE` and `Trailer` of one head may have together: more than there may be fields. Each costs a look-up.
pub const MOST_MEMBERS: usize = 256;

/// Fields that say how a message is to be read or who it is from, which is too late behind its body.
const HEAD_ONLY: [HeaderName; 15] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    LOCATION,
    RANGE,
    SET_COOKIE,
    WWW_AUTHENTICATE,
    HeaderName::from_static("x-function"),
    crate::reply::INTERNAL,
    crate::told::SERVED_BY,
    HeaderName::from_static("max-forwards"),
];

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
    if found.cookie {
        join_cookies(headers);
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

/// Makes a request of HTTP/2 one that HTTP/1.1 can say: a body of unknown length is chunked.
pub fn from_h2<B: Body>(request: &mut Request<B>) {
    let has_body = !request.body().is_end_stream();
    let headers = request.headers_mut();
    if has_body && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Several `Cookie` fields, which HTTP/2 allows, are one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
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
    cookie: bool,
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
            found.cookie |= name == COOKIE;
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

/// Whether a field may stand behind a body: none that frames, addresses, identifies or vouches for its message (RFC 9110 §6.5.1), and
/// none that would not cross the gateway in a head.
fn may_trail(name: &HeaderName) -> bool {
    !(pretends(name)
        || PROTECTED.contains(name)
        || HOP_BY_HOP.contains(name)
        || HEAD_ONLY.contains(name))
}

/// Leaves only what may stand behind a body, whichever protocol brings it.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    keep(trailers, may_trail);
}

/// The same of an answer's. gRPC allows `_` in their names, and nobody makes a CGI environment of an answer.
pub fn strip_answer_trailers(trailers: &mut HeaderMap) {
    keep(trailers, |name| {
        may_trail(name) || name.as_str().contains('_')
    });
}

fn keep(trailers: &mut HeaderMap, is_fit: impl Fn(&HeaderName) -> bool) {
    let names = trailers.keys().filter(|name| !is_fit(name));
    for name in names.cloned().collect::<Vec<_>>() {
        trailers.remove(name);
    }
}

/// Leaves only those names in `Trailer` that may stand in a head as well: what is not declared there is not passed on.
fn declare_harmless_trailers(headers: &mut HeaderMap) {
    let names = headers.get_all(TRAILER).iter().flat_map(tokens);
    let names = names.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
    let harmless: Vec<_> = names.filter(may_trail).take(MOST_MEMBERS).collect();
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

/// Whether this is a host and perhaps a port, as a URL has them (RFC 3986 §3.2): a name or an IPv4 address, or an IPv6 address in
/// brackets. No user, no list. By hand, because it is done for every request.
#[must_use]
pub fn is_host(text: &[u8]) -> bool {
    let end = if text.starts_with(b"[") {
        end_of_address(text)
    } else {
        end_of_name(text)
    };
    match &text[end..] {
        _ if end == 0 => false,
        [] => true,
        [b':', port @ ..] => is_port(port),
        _ => false,
    }
}

/// Where a name ends that begins this.
fn end_of_name(text: &[u8]) -> usize {
    let mut end = 0;
    while let Some(byte) = text.get(end) {
        end += match byte {
            b'-' | b'.' | b'_' | b'~' => 1,
            b'%' if text.get(end + 1..end + 3).is_some_and(is_hex) => 3,
            byte if byte.is_ascii_alphanumeric() => 1,
            _ => break,
        };
    }
    end
}

/// Where an IPv6 address in brackets ends that begins this, with its zone if it has one; 0 if there is none.
fn end_of_address(text: &[u8]) -> usize {
    let Some(end) = text.iter().position(|byte| *byte == b']') else {
        return 0;
    };
    let inner = std::str::from_utf8(&text[1..end]).unwrap_or_default();
    let (address, zone) = inner.split_once('%').unwrap_or((inner, "0"));
    let is_zone = !zone.is_empty() && end_of_name(zone.as_bytes()) == zone.len();
    if address.parse::<Ipv6Addr>().is_ok() && is_zone {
        end + 1
    } else {
        0
    }
}

fn is_hex(digits: &[u8]) -> bool {
    digits.iter().all(u8::is_ascii_hexdigit)
}

fn is_port(text: &[u8]) -> bool {
    let number = text.iter().try_fold(0u16, |number, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit as u16)
    });
    number.is_some() && !text.is_empty()
}

/// How many members a list has at most, those that are empty included.
#[must_use]
pub fn members(list: &HeaderValue) -> usize {
    let commas = list.as_bytes().iter().filter(|byte| **byte == b',');
    1 + commas.count()
}

/// The parts of a list. One that is no text is no token, and hides none of the others.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let parts = value.as_bytes().split(|byte| *byte == b',');
    parts.map(|part| std::str::from_utf8(part.trim_ascii()).unwrap_or_default())
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
