//! Keeps what is the operators' from pages of other sites in an operator's browser, and from functions. Calls of functions never
//! come here.
//!
//! A browser sends what a page of any site has it send: a form, or a script's request whose answer the script may not read; and by
//! DNS rebinding a page reads the answers, too, under a host name of its own that leads here. The first is known by `Origin` and
//! `Sec-Fetch-Site`, the second by the host that was asked for.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::api::Pages;
use crate::auth::HostNames;
use crate::incoming::Incoming;
use crate::invoke::Origin;
use crate::metrics::Refused;
use crate::reply::{self, Body, Failure};
use crate::router::Page;
use crate::told::Ids;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What a request asks for, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// Whether the gateway lives: balancers ask, for any host, from any network.
    Health,
    /// The help page.
    Help,
    /// Metrics, or a look through the management API.
    Look,
    /// A change through the management API.
    Change,
    /// Anything on the operators' port; what exactly is looked at afterwards.
    OperatorsPort,
}

impl Asks {
    pub(super) fn page(page: &Page) -> Self {
        match page {
            Page::Health | Page::Ready => Self::Health,
            Page::Help => Self::Help,
            Page::Metrics => Self::Look,
        }
    }

    pub(super) fn operation(method: &Method) -> Self {
        if matches!(*method, Method::GET | Method::HEAD) {
            Self::Look
        } else {
            Self::Change
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Guarded {
    /// It comes from the network of the functions.
    Function(IpAddr),
    /// Which addresses are functions' is not known yet, and it wants to change something.
    Unlisted,
    /// A page of another site has a browser send it.
    CrossSite,
    /// It is for a host that is not known to be ours.
    Host,
}

/// The answer to a request that is refused.
pub(super) fn guard(
    pages: &Pages,
    asks: Asks,
    request: &Request<Incoming>,
    origin: &Origin,
    ids: &Ids,
) -> Option<Response<Body>> {
    if asks == Asks::Health {
        return None;
    }
    let guarded = by_address(pages, asks, origin.socket()).or_else(|| {
        let is_site_seen = asks != Asks::OperatorsPort;
        is_site_seen
            .then(|| by_site(pages, request, origin))
            .flatten()
    })?;
    pages.metrics.refused(Refused::Forbidden);
    let (status, sentence) = match guarded {
        Guarded::Function(peer) => (
            StatusCode::FORBIDDEN,
            format!(
                "this is not for functions, and {peer} is an address of their network: ask from another network, or set allow_system_from_functions=true"
            ),
        ),
        Guarded::Unlisted => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "nothing was changed: which addresses are functions' is not known yet: {}",
                pages.why_nothing_is_known()
            ),
        ),
        Guarded::CrossSite => (
            StatusCode::FORBIDDEN,
            "a page of another site has sent this (Origin, Sec-Fetch-Site), and only pages of this host may".to_owned(),
        ),
        Guarded::Host => (
            StatusCode::FORBIDDEN,
            "without a login this answers to IP addresses, names without a dot, and the names that the setting hosts lists: add this host there, or set basic_auth=true".to_owned(),
        ),
    };
    Some(reply::failure(&Failure {
        status,
        sentence,
        cause: String::new(),
        call_id: ids.call_id(),
        retry_after: None,
    }))
}

/// The other end of the connection counts, and no header: a function could write one. A proxy on the functions' network is refused,
/// too, since a function can ask through it.
fn by_address(pages: &Pages, asks: Asks, socket: IpAddr) -> Option<Guarded> {
    if pages.access.admits_functions || asks == Asks::Help {
        return None;
    }
    if pages.table.snapshot().is_of_functions(socket) {
        return Some(Guarded::Function(socket));
    }
    let is_unknown =
        asks == Asks::Change && pages.access.has_network && !pages.table.is_published();
    is_unknown.then_some(Guarded::Unlisted)
}

fn by_site(pages: &Pages, request: &Request<Incoming>, origin: &Origin) -> Option<Guarded> {
    let headers = request.headers();
    let authority = request.uri().authority();
    let authority = authority.map(|authority| authority.as_str().as_bytes());
    let host = authority.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes));
    let proxied = origin.forwarded_host(headers).map(HeaderValue::as_bytes);
    if is_cross_site(request.method(), headers, [host, proxied]) {
        return Some(Guarded::CrossSite);
    }
    // HTTP/1.0 may name no host; no browser speaks that.
    let mut hosts = headers
        .get_all(HOST)
        .iter()
        .map(HeaderValue::as_bytes)
        .chain(authority)
        .chain(proxied);
    let is_ours = pages.access.has_login || hosts.all(|host| is_ours(host, &pages.access.hosts));
    (!is_ours).then_some(Guarded::Host)
}

/// Whether a browser says that a page of another site sends this. To follow a link from there is no harm: nothing is changed by it, and
/// the other site does not see the answer. Pure.
fn is_cross_site(method: &Method, headers: &HeaderMap, hosts: [Option<&[u8]>; 2]) -> bool {
    let is_foreign = |origin: &HeaderValue| {
        let mut hosts = hosts.iter().flatten();
        !hosts.any(|host| is_origin_of(origin.as_bytes(), host))
    };
    let is_only = |name: &HeaderName, wanted: &[u8]| {
        let mut values = headers.get_all(name).iter();
        values
            .next()
            .is_some_and(|value| value.as_bytes() == wanted)
            && values.next().is_none()
    };
    let is_link = *method == Method::GET
        && is_only(&FETCH_MODE, b"navigate")
        && is_only(&FETCH_DEST, b"document");
    let is_own = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    headers.get_all(ORIGIN).iter().any(is_foreign)
        || !is_link && !headers.get_all(&FETCH_SITE).iter().all(is_own)
}

/// Whether `scheme://host[:port]` is this `host[:port]`. A proxy that ends TLS changes the scheme, which is why it counts for the default
/// port only. Pure.
fn is_origin_of(origin: &[u8], host: &[u8]) -> bool {
    let (Ok(origin), Ok(host)) = (std::str::from_utf8(origin), std::str::from_utf8(host)) else {
        return false;
    };
    let (default, origin) = match origin.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("80", rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("443", rest),
        _ => return false,
    };
    let ((name, port), (host, asked)) = (split(origin), split(host));
    !name.is_empty()
        && name.eq_ignore_ascii_case(host)
        && port.unwrap_or(default) == asked.unwrap_or(default)
}

/// Whether a host that was asked for can only mean this gateway: nobody else can have a name without a dot, or an address, lead here.
/// Pure.
fn is_ours(host: &[u8], names: &HostNames) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let (name, _) = split(host);
    let bare = name
        .strip_prefix('[')
        .and_then(|inside| inside.strip_suffix(']'));
    match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None if name.is_empty() => false,
        None => {
            !name.contains('.') && !name.contains(':')
                || name.parse::<std::net::Ipv4Addr>().is_ok()
                || names.has(name)
        }
    }
}

/// A host and its port, if it has one.
fn split(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => {
            (name, Some(port).filter(|port| !port.is_empty()))
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn an_origin_is_compared_with_the_host_by_name_and_port() {
        for (origin, host, same) in [
            ("http://localhost:8080", "localhost:8080", true),
            ("HTTP://LocalHost:8080", "localhost:8080", true),
            ("https://faas.example.com", "faas.example.com", true),
            ("https://faas.example.com", "faas.example.com:443", true),
            ("http://faas.example.com:80", "faas.example.com", true),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("http://[::1]", "[::1]", true),
            ("https://faas.example.com", "faas.example.com:80", false),
            ("http://localhost:3000", "localhost:8080", false),
            ("http://localhost", "localhost:8080", false),
            ("http://evil.example", "localhost:8080", false),
            (
                "http://localhost:8080.evil.example",
                "localhost:8080",
                false,
            ),
            ("http://localhost:8080/", "localhost:8080", false),
            ("null", "localhost:8080", false),
            ("", "localhost:8080", false),
            ("http://", "", false),
            ("file://", "", false),
            ("localhost:8080", "localhost:8080", false),
        ] {
            let is = is_origin_of(origin.as_bytes(), host.as_bytes());
            assert_eq!(is, same, "{origin} {host}");
        }
    }

    #[test]
    fn what_a_browser_marks_as_cross_site_is_known() {
        let host = Some(&b"localhost:8080"[..]);
        let link = [
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        let site = |site| [("sec-fetch-site", site)];
        for (method, fields, expected) in [
            (Method::POST, vec![], false),
            (Method::POST, site("same-origin").to_vec(), false),
            (Method::POST, site("none").to_vec(), false),
            (Method::POST, site("cross-site").to_vec(), true),
            (Method::POST, site("same-site").to_vec(), true),
            (Method::POST, site("Cross-Site").to_vec(), true),
            (Method::GET, site("cross-site").to_vec(), true),
            (
                Method::GET,
                [&site("cross-site")[..], &link].concat(),
                false,
            ),
            (
                Method::POST,
                [&site("cross-site")[..], &link].concat(),
                true,
            ),
            (
                Method::GET,
                vec![
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "iframe"),
                ],
                true,
            ),
            (
                Method::POST,
                [site("same-origin"), site("cross-site")].concat(),
                true,
            ),
            (
                Method::POST,
                vec![("origin", "http://localhost:8080")],
                false,
            ),
            (Method::GET, vec![("origin", "null")], true),
            (
                Method::POST,
                vec![
                    ("origin", "http://localhost:8080"),
                    ("origin", "http://evil.example"),
                ],
                true,
            ),
        ] {
            let is = is_cross_site(&method, &headers(&fields), [host, None]);
            assert_eq!(is, expected, "{method} {fields:?}");
        }
        let proxied = headers(&[("origin", "https://faas.example.com")]);
        let hosts = [host, Some(&b"faas.example.com"[..])];
        assert!(!is_cross_site(&Method::POST, &proxied, hosts));
    }

    #[test]
    fn a_host_is_ours_by_address_dotless_or_by_its_setting() {
        let names = HostNames::parse("faas.example.com, Other.Example").unwrap();
        for (host, expected) in [
            ("127.0.0.1", true),
            ("192.0.2.7:8080", true),
            ("[::1]:8080", true),
            ("[fe80::1]", true),
            ("localhost", true),
            ("localhost:8080", true),
            ("gateway", true),
            ("faas.example.com", true),
            ("FAAS.example.com:8080", true),
            ("other.example", true),
            ("evil.example", false),
            ("faas.example.com.evil.example", false),
            ("evil.faas.example.com", false),
            ("localhost.", false),
            ("127.0.0.1.evil.example", false),
            ("256.0.0.1", false),
            ("[::1", false),
            ("[evil.example]", false),
            ("::1", false),
            ("", false),
            (":8080", false),
        ] {
            assert_eq!(is_ours(host.as_bytes(), &names), expected, "{host}");
        }
    }
}
