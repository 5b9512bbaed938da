//! A function's own route: the host and the path that it has for itself, as its labels say. Pure.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::FunctionName;

/// Names the host.
pub const HOST: &str = "skep.route.host";
/// Names the path.
pub const PATH: &str = "skep.route.path";
/// Says whether the function sees the path without the route's.
pub const STRIP: &str = "skep.route.strip";

/// The longest name a host can have (RFC 1035 §2.3.4).
pub const MAX_HOST: usize = 253;
/// The longest path that a route can have.
pub const MAX_PATH: usize = 256;

/// First segments of paths that are the gateway's own, now or later: no function can have them on any host.
const RESERVED: [&str; 8] = [
    "function",
    "async-function",
    "system",
    "metrics",
    "healthz",
    "readyz",
    "ui",
    // Certificates are asked for below it.
    ".well-known",
];

/// A host, a path or both that a function has for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRoute {
    /// In small letters; `None`: on every host that is nobody's own.
    pub host: Option<Arc<str>>,
    /// Begins with `/` and does not end with one; empty for the whole of a host.
    pub path: Arc<str>,
    /// Whether the function sees the path without this one.
    pub strip: bool,
}

/// What is wrong with a route's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotARoute {
    /// The label.
    pub label: &'static str,
    /// What is wrong with it, and what to write.
    pub why: String,
}

impl OwnRoute {
    /// Reads a function's labels; `None`: it has no route of its own.
    ///
    /// # Errors
    /// The label that is wrong. Half a route would be another one than was meant, so there is none then.
    pub fn read<'a>(label: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Self>, NotARoute> {
        let wrong = |label| move |why: String| NotARoute { label, why };
        let host = label(HOST).map(host).transpose().map_err(wrong(HOST))?;
        let path = label(PATH).map(path).transpose().map_err(wrong(PATH))?;
        let strip = match label(STRIP) {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(other) => {
                let why = format!("'{other}' is not known: write true or false");
                return Err(wrong(STRIP)(why));
            }
        };
        let path = path.unwrap_or_default();
        if host.is_none() && path.is_empty() {
            return match (label(PATH), strip) {
                (None, None) => Ok(None),
                (None, Some(_)) => Err(wrong(STRIP)(format!("needs a route: write {PATH}, too"))),
                (Some(_), _) => {
                    let why = format!(
                        "'/' without a host is the gateway's own: write {HOST}, too, or a path such as /shop"
                    );
                    Err(wrong(PATH)(why))
                }
            };
        }
        Ok(Some(Self {
            host,
            path,
            strip: strip.unwrap_or(true),
        }))
    }

    /// The path as people write it.
    #[must_use]
    pub fn shown_path(&self) -> &str {
        if self.path.is_empty() {
            "/"
        } else {
            &self.path
        }
    }

    /// Why somebody who wants this route does not get it.
    #[must_use]
    pub fn taken_by(&self, owner: &FunctionName) -> String {
        format!("{self} belongs to function '{owner}': write another {HOST} or {PATH}")
    }
}

impl fmt::Display for OwnRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host.as_deref().unwrap_or_default())?;
        f.write_str(self.shown_path())
    }
}

/// A host as requests are compared with it. Names without a dot, such as localhost, and addresses are how the gateway itself
/// is reached: whoever had one of them would be told the login that was meant for `/system`.
fn host(text: &str) -> Result<Arc<str>, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.contains('*') {
        return Err(format!(
            "'{text}': a host is one name; there are no wildcards"
        ));
    }
    if !name.is_ascii() {
        return Err(format!(
            "'{text}' is not ASCII: write the name as DNS has it, with xn--"
        ));
    }
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = name.len() <= MAX_HOST && name.split('.').all(is_label);
    if !is_name {
        return Err(format!(
            "'{}' is no host: write a name such as shop.example.com, without a port",
            text.escape_debug()
        ));
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    // Browsers take whatever ends in a number for an address.
    let is_address =
        name.parse::<IpAddr>().is_ok() || last.bytes().all(|byte| byte.is_ascii_digit());
    if is_address || !name.contains('.') {
        return Err(format!(
            "'{text}' may be how the gateway itself is reached: write a name with a dot, such as shop.example.com"
        ));
    }
    Ok(name.into())
}

/// A path as requests are compared with it: nothing that one reader could take for another path than another reader does.
fn path(text: &str) -> Result<Arc<str>, String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain);
    let mut segments = path.split('/');
    let begins_well = segments.next() == Some("") && text.starts_with('/');
    if !begins_well || text.len() > MAX_PATH || !segments.all(is_segment) {
        return Err(format!(
            "'{}' is no path: write one such as /shop, of letters, digits and - . _ ~",
            text.escape_debug()
        ));
    }
    let first = path.split('/').nth(1).unwrap_or_default();
    // A reader in front of the gateway may not tell large letters from small ones.
    if RESERVED.iter().any(|one| first.eq_ignore_ascii_case(one)) {
        return Err(format!("/{first} is the gateway's own: write another path"));
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[(&str, &'static str)]) -> Result<Option<OwnRoute>, NotARoute> {
        OwnRoute::read(|name| {
            let mut found = labels.iter().filter(|(known, _)| *known == name);
            found.next().map(|(_, value)| *value)
        })
    }

    #[test]
    fn a_host_a_path_or_both_are_a_route() {
        for (labels, shown, strip) in [
            (&[(HOST, "Shop.Example.")][..], "shop.example/", true),
            (
                &[(HOST, "shop.example"), (PATH, "/")],
                "shop.example/",
                true,
            ),
            (&[(PATH, "/shop/")], "/shop", true),
            (&[(PATH, "/a/b-1/.c"), (STRIP, "true")], "/a/b-1/.c", true),
            (
                &[
                    (HOST, "xn--bcher-kva.example"),
                    (PATH, "/v1"),
                    (STRIP, "false"),
                ],
                "xn--bcher-kva.example/v1",
                false,
            ),
            (&[(HOST, "shop.localhost")], "shop.localhost/", true),
            (
                &[(PATH, "/functions"), (STRIP, "false")],
                "/functions",
                false,
            ),
            (&[(PATH, "/Shop")], "/Shop", true),
        ] {
            let route = read(labels).unwrap().unwrap();
            assert_eq!((route.to_string().as_str(), route.strip), (shown, strip));
        }
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("skep.timeout", "1s")]), Ok(None));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a.".repeat(128).leak();
        for host in [
            "",
            ".",
            "shop..example",
            "shop.example..",
            ".shop.example",
            "shop.example:80",
            "http://shop.example",
            "shop.example/x",
            "me@shop.example",
            "shop example.com",
            "shop.example\0",
            "-shop.example",
            "shop-.example",
            "*.example.com",
            "bücher.example",
            "shop%2eexample.com",
            "[::1]",
            "::1",
            "127.0.0.1",
            "127.1",
            "shop.0",
            "localhost",
            "gateway",
            "gateway.",
            long,
        ] {
            assert_eq!(read(&[(HOST, host)]).unwrap_err().label, HOST, "{host}");
        }
    }

    #[test]
    fn what_is_no_path_or_the_gateways_own_is_refused() {
        let long = format!("/{}", "a".repeat(MAX_PATH)).leak();
        for path in [
            "",
            "shop",
            "//",
            "//shop",
            "/shop//",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a%2fb",
            "/%61",
            "/a;b",
            "/a?b",
            "/a#b",
            "/a b",
            "/a\\b",
            "/a*",
            "/é",
            "/a\0",
            "*",
            long,
            "/function",
            "/function/",
            "/function/x",
            "/async-function/x",
            "/system",
            "/System/info",
            "/metrics",
            "/metrics/",
            "/healthz",
            "/readyz",
            "/ui",
            "/ui/x",
            "/.well-known/acme-challenge",
        ] {
            for labels in [&[(PATH, path)][..], &[(HOST, "shop.example"), (PATH, path)]] {
                assert_eq!(read(labels).unwrap_err().label, PATH, "{path}");
            }
        }
        assert_eq!(read(&[(PATH, "/")]).unwrap_err().label, PATH);
    }

    #[test]
    fn strip_is_true_or_false_and_needs_a_route() {
        for labels in [
            &[(PATH, "/a"), (STRIP, "yes")][..],
            &[(PATH, "/a"), (STRIP, "")],
            &[(STRIP, "true")],
        ] {
            assert_eq!(read(labels).unwrap_err().label, STRIP, "{labels:?}");
        }
    }
}
