//! Any head: what crosses the gateway is what the documents say, found here in another way than the gateway does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use skep::invoke::{Origin, headers};
use skep::proxies::Proxies;
use skep::told::Ids;

use crate::choices::Choices;

type Fields = Vec<(String, Vec<u8>)>;

/// Fields that the gateway has an opinion of, and a few others; not many, so that they are often repeated.
const NAMES: [&str; 37] = [
    "connection",
    "connection",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "expect",
    "host",
    "x-call-id",
    "x-start-time",
    "x-forwarded-for",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-",
    "forwarded",
    "x-real-ip",
    "proxy",
    "x_forwarded_for",
    "content_length",
    "x-skep-not-accepted",
    "x-skep-watchdog",
    "x-function",
    "cookie",
    "set-cookie",
    "authorization",
    "x-secret",
    "x-a",
    "accept",
    "content-type",
];
const VALUES: [&str; 34] = [
    "",
    "close",
    "keep-alive",
    "upgrade",
    "Upgrade",
    "keep-alive, Upgrade",
    "chunked",
    "gzip, chunked",
    "5",
    "trailers",
    "gzip;q=1, trailers",
    "TRAILERS",
    "websocket",
    "h2c",
    "websocket, h2c",
    "HTTP/2.0",
    "TLS/1.2",
    "100-continue",
    "1.2.3.4",
    "1.2.3.4, 192.0.2.7",
    "192.0.2.7,10.0.0.1",
    "10.0.0.9",
    "[2001:db8::1]:80, fd00::1",
    "::ffff:10.1.1.1",
    "unknown",
    "https",
    "HTTPS",
    "wss",
    "shop.example:8443",
    "[::1]",
    "a/b",
    "a, b",
    "x-a",
    ", ,",
];
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "transfer-encoding",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
];
/// What frames, addresses or identifies a message.
const KEPT: [&str; 6] = [
    "content-length",
    "host",
    "trailer",
    "te",
    "x-call-id",
    "x-start-time",
];
const TOLD: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
/// What the function is told beside the rest of the head, which has none of it.
const IDS: [&str; 2] = ["x-call-id", "x-start-time"];
const TRUSTED: &str = "10.0.0.0/8, fd00::/8";

pub fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let (is_proxy, secure) = (choices.one_in(2), choices.one_in(2));
    let peer = choices.of(&["10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "192.0.2.1"]);
    let peer: IpAddr = peer.parse().unwrap();
    let fields = fields(&mut choices);
    let origin = Origin::of(peer, secure, is_proxy);
    outbound_is_right(&fields, &origin, peer.to_canonical(), secure, is_proxy);
    inbound_is_right(&fields);
    if is_proxy {
        caller_is_no_invention(&fields, &origin, peer.to_canonical());
    }
}

fn fields(choices: &mut Choices) -> Fields {
    let mut fields = Fields::new();
    while !choices.are_over() && fields.len() < 24 {
        let name = choices.of(&NAMES);
        let mut value = Vec::new();
        match choices.of(&[0, 0, 0, 1, 1, 2]) {
            0 => value.extend(choices.of(&VALUES).bytes()),
            1 => {
                // A list, as in `Connection` and `Trailer`.
                for _ in 0..=choices.byte() % 4 {
                    value.extend(choices.of(&[",", ", ", " ,\t", ""]).bytes());
                    let word = if choices.one_in(3) {
                        choices.of(&VALUES)
                    } else {
                        choices.of(&NAMES)
                    };
                    let word = if choices.one_in(3) {
                        word.to_uppercase()
                    } else {
                        word.to_owned()
                    };
                    value.extend(word.bytes());
                }
            }
            _ => {
                let count = choices.byte() % 12;
                let is_fit = |byte: &&u8| matches!(byte, b'\t' | 32..=126 | 128..);
                value.extend(choices.some(count.into()).iter().filter(is_fit));
            }
        }
        // A parser hands values over without the space around them.
        fields.push((name.to_owned(), value.trim_ascii().to_owned()));
    }
    fields
}

fn map(fields: &Fields) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

/// The values of a field, in order.
fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a [u8]> {
    let named = fields.iter().filter(|(known, _)| known == name);
    named.map(|(_, value)| value.as_slice()).collect()
}

/// The parts of all lists of a field, in small letters; what is no text is no part.
fn parts(fields: &Fields, name: &str) -> Vec<String> {
    let all = values(fields, name).join(&b","[..]);
    let parts = all.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    parts
        .filter_map(|part| Some(std::str::from_utf8(part).ok()?.to_ascii_lowercase()))
        .collect()
}

/// What ends here: the connection's fields, and those that it names and may name.
fn of_connection(fields: &Fields) -> BTreeSet<String> {
    let mut names: BTreeSet<_> = parts(fields, "connection").into_iter().collect();
    for kept in KEPT {
        names.remove(kept);
    }
    names.extend(HOP_BY_HOP.map(str::to_owned));
    names
}

fn pretends(name: &str) -> bool {
    let known = [
        "forwarded",
        "x-real-ip",
        "proxy",
        "x-skep-not-accepted",
        "x-skep-watchdog",
    ];
    name.starts_with("x-forwarded-") || name.contains('_') || known.contains(&name)
}

/// What says how a message is to be read or who it is from.
const HEAD_ONLY: [&str; 15] = [
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "location",
    "max-forwards",
    "range",
    "set-cookie",
    "www-authenticate",
    "x-function",
    "x-openfaas-internal",
    "x-served-by",
];

/// The trailers that may be declared: those that could stand in a head.
fn trailers(fields: &Fields) -> Fields {
    let names = parts(fields, "trailer").into_iter().filter(|name| {
        !pretends(name)
            && !HEAD_ONLY.contains(&name.as_str())
            && !KEPT.contains(&name.as_str())
            && !HOP_BY_HOP.contains(&name.as_str())
            && HeaderName::from_bytes(name.as_bytes()).is_ok()
    });
    names
        .map(|name| ("trailer".to_owned(), name.into_bytes()))
        .collect()
}

fn outbound_is_right(fields: &Fields, origin: &Origin, peer: IpAddr, secure: bool, is_proxy: bool) {
    let ended = of_connection(fields);
    let mut expected: Fields = fields
        .iter()
        .filter(|(name, _)| !ended.contains(name) && !pretends(name))
        .filter(|(name, _)| !["te", "trailer", "expect", "cookie"].contains(&name.as_str()))
        .filter(|(name, _)| !IDS.contains(&name.as_str()))
        .cloned()
        .collect();
    expected.extend(trailers(fields));
    let mut add = |name: &str, value: &[u8]| expected.push((name.to_owned(), value.to_owned()));
    if parts(fields, "te").iter().any(|part| part == "trailers") {
        add("te", b"trailers");
    }
    let cookies = values(fields, "cookie");
    if !cookies.is_empty() && !ended.contains("cookie") {
        add("cookie", &cookies.join(&b"; "[..]));
    }
    if !values(fields, "transfer-encoding").is_empty() {
        add("transfer-encoding", b"chunked");
    }
    let upgrade = wanted_upgrade(fields);
    if let Some(protocol) = upgrade {
        add("connection", b"upgrade");
        add("upgrade", protocol);
    }
    let ids = Ids::of(None);
    let mut passed = map(fields);
    let (told, upgrades) = headers::outbound(&mut passed, origin, &ids);
    assert_eq!(upgrades, upgrade.is_some());
    assert_eq!(passed, map(&expected), "from {:?}", map(fields));
    if !is_proxy {
        let mut twice = passed.clone();
        headers::outbound(&mut twice, origin, &ids);
        assert_eq!(twice, passed, "the second time changes nothing");
    }

    let mut expected = Fields::new();
    let mut add = |name: &str, value: &[u8]| expected.push((name.to_owned(), value.to_owned()));
    let said = |name| values(fields, name).into_iter().filter(|_| is_proxy);
    let mut list: Vec<_> = said(TOLD[0]).filter(|line| is_text(line)).collect();
    let peer = peer.to_string();
    list.push(peer.as_bytes());
    add(TOLD[0], &list.join(&b", "[..]));
    let only = |name| said(name).next().filter(|_| said(name).count() == 1);
    let proto = only(TOLD[1]).map(<[u8]>::to_ascii_lowercase);
    let schemes = [&b"http"[..], b"https", b"ws", b"wss"];
    let shown = if secure { &b"https"[..] } else { b"http" };
    let proto = proto.filter(|proto| schemes.contains(&proto.as_slice()));
    add(TOLD[1], proto.as_deref().unwrap_or(shown));
    let host = only(TOLD[2]).filter(|host| !host.is_empty() && is_host(host));
    if let Some(host) = host.or(values(fields, "host").first().copied()) {
        add(TOLD[2], host);
    }
    let mut heard = HeaderMap::new();
    let host = values(fields, "host").first().copied();
    told.put_on(
        &mut heard,
        host.map(|host| HeaderValue::from_bytes(host).unwrap()),
    );
    for id in IDS {
        assert!(heard.remove(id).is_some());
    }
    assert_eq!(heard, map(&expected), "from {:?}", map(fields));
}

fn wanted_upgrade(fields: &Fields) -> Option<&[u8]> {
    let [protocol] = values(fields, "upgrade")[..] else {
        return None;
    };
    let is_named = parts(fields, "connection")
        .iter()
        .any(|part| part == "upgrade");
    let is_http = |part: &String| {
        ["h2", "http", "tls"]
            .iter()
            .any(|http| part.starts_with(http))
    };
    let is_other = is_text(protocol) && !parts(fields, "upgrade").iter().any(is_http);
    (is_named && is_other && !protocol.is_empty()).then_some(protocol)
}

/// Visible ASCII with spaces and tabs: what lists and tokens are written in.
fn is_text(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

fn is_host(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else {
        return false;
    };
    let known = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    let is_port =
        |port: &str| port.chars().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if text.starts_with('[') {
        let (address, port) = text.split_once(']').unwrap_or(("", "x"));
        let is_address = address
            .get(1..)
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = text.split_once(':').unwrap_or((text, "0"));
    !name.is_empty() && name.chars().all(|c| known.contains(c)) && is_port(port)
}

fn inbound_is_right(fields: &Fields) {
    let ended = of_connection(fields);
    let is_chunked = !values(fields, "transfer-encoding").is_empty();
    let ours = ["trailer", "x-skep-not-accepted", "x-skep-watchdog"];
    let mut expected: Fields = fields
        .iter()
        .filter(|(name, _)| !ended.contains(name) && !ours.contains(&name.as_str()))
        .filter(|(name, _)| !is_chunked || name != "content-length")
        .cloned()
        .collect();
    expected.extend(trailers(fields));
    let mut passed = map(fields);
    headers::inbound(&mut passed);
    assert_eq!(passed, map(&expected), "from {:?}", map(fields));
    let mut twice = passed.clone();
    headers::inbound(&mut twice);
    assert_eq!(twice, passed, "the second time changes nothing");
}

/// Whoever counts as the caller stands in a list, with trusted proxies alone behind it, or is the connection's own.
fn caller_is_no_invention(fields: &Fields, origin: &Origin, peer: IpAddr) {
    let proxies = Proxies::parse(TRUSTED).unwrap();
    let is_ours = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.octets()[0] == 0xfd,
    };
    let caller = origin.caller(&map(fields), &proxies);
    let seen = values(fields, TOLD[0]).join(&b","[..]);
    let seen = seen.split(|byte| *byte == b',').rev().map(|hop| {
        let hop = std::str::from_utf8(hop).ok()?.trim();
        let bare = hop.rsplit_once("]:").map_or(hop, |(address, _)| address);
        let bare = bare.trim_matches(['[', ']']);
        Some(bare.parse::<IpAddr>().ok()?.to_canonical())
    });
    let mut hops = vec![peer];
    hops.extend(seen.map_while(|hop| hop));
    let at = hops
        .iter()
        .position(|hop| *hop == caller)
        .expect("somebody who was seen");
    assert!(
        hops[..at].iter().all(|hop| is_ours(*hop)),
        "{caller} in {hops:?}"
    );
    assert!(
        !is_ours(caller) || at == hops.len() - 1 || hops[at + 1..].contains(&caller) || at >= 32
    );
}
