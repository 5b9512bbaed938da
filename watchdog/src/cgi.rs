//! Request head → the command's environment; pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use hyper::HeaderMap;
use hyper::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderName, TRANSFER_ENCODING};
use hyper::http::request::Parts;

use crate::hops;
use crate::request_head;
use crate::strings::Strings;

/// What the kernel takes for one `NAME=value` of an environment, its closing NUL included.
const LONGEST_ENTRY: usize = 128 * 1024;

/// The variable that marks every process of a run.
pub(crate) const MARKER: &str = "SKEP_RUN";

/// The name of a header or of the query that is too long for an environment variable.
#[derive(Debug, PartialEq)]
pub(crate) struct TooLong(pub(crate) String);

/// The watchdog's own environment as its commands inherit it.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    plain: Strings,
    /// Strings that a request may have to replace: `exec` hands over duplicates, and the first one would win.
    http: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Inherited {
    /// Keeps everything but our private settings and a marker of an outer watchdog.
    pub(crate) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut inherited = Self::default();
        for (name, value) in variables {
            let (name, value) = (name.into_vec(), value.into_vec());
            if name.starts_with(b"skep_") || name == MARKER.as_bytes() {
                continue;
            }
            if name.starts_with(b"Http_") {
                inherited.http.push((name, value));
            } else {
                inherited.plain.push(&[&name, b"=", &value]);
            }
        }
        inherited
    }
}

/// Whether there is an entry of this name.
fn has(entries: &Strings, name: &[u8]) -> bool {
    entries.iter().any(|entry| {
        entry
            .strip_prefix(name)
            .is_some_and(|rest| rest.first() == Some(&b'='))
    })
}

/// Whose words are used for a request's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Everything.
    Classic,
    /// Without host and without a length that is not in the head, as in the modes that the classic one does not have.
    HeadOnly,
}

/// The whole environment of one run: inherited entries, marker, and what describes its request.
pub(crate) fn environment(inherited: &Inherited, marker: &str, request: &Strings) -> Strings {
    let mut entries = inherited.plain.clone();
    entries.push(&[MARKER.as_bytes(), b"=", marker.as_bytes()]);
    for (name, value) in &inherited.http {
        if !has(request, name) {
            entries.push(&[name, b"=", value]);
        }
    }
    entries.append(request);
    entries
}

/// Whether a percent-encoded path contains a NUL byte, which no environment can carry.
pub(crate) fn has_nul(path: &str) -> bool {
    path.contains("%00")
}

/// Header name in Go's canonical form: `x-github-event` → `X-Github-Event`.
pub(crate) fn canonical(name: &HeaderName) -> String {
    let mut upper = true;
    let letter = |c: char| {
        let c = if upper { c.to_ascii_uppercase() } else { c };
        upper = c == '-';
        c
    };
    name.as_str().chars().map(letter).collect()
}

/// The names of the headers that may reach the command: those of the connection stay there, `Proxy` would become
/// `HTTP_PROXY` in many languages' eyes, and `a_b` could pretend to be `a-b`.
pub(crate) fn passed(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    let named = hops::named(headers);
    headers.keys().filter(move |name| {
        name.as_str() != "proxy" && !name.as_str().contains('_') && !hops::is_of_one(name, &named)
    })
}

/// The body's length as the contract writes it: -1 if it comes in chunks, 0 if there is none.
fn content_length(headers: &HeaderMap) -> String {
    if headers.contains_key(TRANSFER_ENCODING) {
        return "-1".to_owned();
    }
    headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("0")
        .to_owned()
}

/// A request's head as `NAME=value` entries.
pub(crate) fn describe(head: &Parts, dialect: Dialect) -> Result<Strings, TooLong> {
    let mut entries = Strings::default();
    add_headers(head, dialect, &mut entries)?;
    add(&mut entries, "Http_Method", head.method.as_str().as_bytes())?;
    add(&mut entries, "Http_Path", &decoded(head.uri.path()))?;
    if let Some(query) = request_head::query(head).filter(|query| !query.is_empty()) {
        add(&mut entries, "Http_Query", query)?;
    }
    Ok(entries)
}

fn add_headers(head: &Parts, dialect: Dialect, entries: &mut Strings) -> Result<(), TooLong> {
    for name in passed(&head.headers).filter(|name| **name != CONTENT_LENGTH) {
        let values: Vec<&[u8]> = head
            .headers
            .get_all(name)
            .iter()
            .map(hyper::header::HeaderValue::as_bytes)
            .collect();
        // A cookie's value may have commas (RFC 9113, 8.2.3).
        let between: &[u8] = if *name == COOKIE { b"; " } else { b", " };
        let joined = values.join(between);
        let variable = format!("Http_{}", canonical(name).replace('-', "_"));
        // The computed Http_Method, Http_Path and Http_Query stand against headers of these names.
        let is_left_out = dialect == Dialect::HeadOnly && *name == HOST;
        if !is_left_out && !matches!(name.as_str(), "method" | "path" | "query" | "contentlength") {
            add(entries, &variable, &joined)?;
        }
    }
    match dialect {
        Dialect::Classic => {
            let length = content_length(&head.headers);
            add(entries, "Http_ContentLength", length.as_bytes())?;
            add(entries, "Http_Content_Length", length.as_bytes())?;
        }
        Dialect::HeadOnly => {
            if let Some(length) = head.headers.get(CONTENT_LENGTH) {
                add(entries, "Http_Content_Length", length.as_bytes())?;
            }
        }
    }
    Ok(())
}

fn add(entries: &mut Strings, name: &str, value: &[u8]) -> Result<(), TooLong> {
    if name.len() + value.len() + 2 > LONGEST_ENTRY {
        return Err(TooLong(name.to_owned()));
    }
    entries.push(&[name.as_bytes(), b"=", value]);
    Ok(())
}

/// Percent-decoding; what is not a valid escape stays as it is.
pub(crate) fn decoded(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten();
        match escape.and_then(|digits| Some(hex(digits[0])? * 16 + hex(digits[1])?)) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    if out.is_empty() { b"/".to_vec() } else { out }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn lines(head: &Parts) -> Vec<String> {
        let inherited = Inherited::new([
            ("HOME".into(), "/root".into()),
            ("Http_Path".into(), "/own".into()),
            ("skep_x".into(), "1".into()),
        ]);
        let entries = environment(
            &inherited,
            "r-1",
            &describe(head, Dialect::Classic).unwrap(),
        );
        entries
            .iter()
            .map(|entry| String::from_utf8_lossy(entry).into_owned())
            .collect()
    }

    #[test]
    fn a_request_is_described_as_the_contract_says() {
        let parts = head(
            "POST",
            "/a%20b%2Fc?x=1&y=%20",
            &[
                ("x-github-event", "push"),
                ("host", "f:8080"),
                ("content-length", "5"),
            ],
        );
        let lines = lines(&parts);
        for line in [
            "HOME=/root",
            "SKEP_RUN=r-1",
            "Http_X_Github_Event=push",
            "Http_Host=f:8080",
            "Http_Method=POST",
            "Http_Path=/a b/c",
            "Http_Query=x=1&y=%20",
            "Http_ContentLength=5",
            "Http_Content_Length=5",
        ] {
            assert!(
                lines.iter().any(|have| have == line),
                "{line} is not in {lines:?}"
            );
        }
        assert!(
            !lines
                .iter()
                .any(|line| line == "Http_Path=/own" || line.starts_with("skep_")),
            "{lines:?}"
        );
    }

    #[test]
    fn no_name_stands_twice() {
        let parts = head(
            "GET",
            "/p?q",
            &[
                ("method", "evil"),
                ("path", "/evil"),
                ("query", "evil"),
                ("contentlength", "9"),
                ("content-length", "3"),
            ],
        );
        let lines = lines(&parts);
        let mut names: Vec<_> = lines
            .iter()
            .map(|line| line.split('=').next().unwrap())
            .collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("evil")), "{lines:?}");
    }

    #[test]
    fn proxy_and_underscores_are_dropped_and_repeats_are_joined() {
        let parts = head(
            "GET",
            "/",
            &[
                ("proxy", "http://evil"),
                ("a_b", "1"),
                ("accept", "x"),
                ("accept", "y"),
            ],
        );
        let lines = lines(&parts);
        assert!(lines.contains(&"Http_Accept=x, y".to_owned()), "{lines:?}");
        assert!(
            !lines
                .iter()
                .any(|line| line.contains("evil") || line.contains("A_b")),
            "{lines:?}"
        );
    }

    #[test]
    fn chunked_bodies_have_length_minus_one_and_absent_ones_zero() {
        assert!(
            lines(&head("POST", "/", &[("transfer-encoding", "chunked")]))
                .contains(&"Http_ContentLength=-1".to_owned())
        );
        let none = lines(&head("GET", "/", &[]));
        assert!(none.contains(&"Http_Content_Length=0".to_owned()));
        assert!(
            !none
                .iter()
                .any(|line| line.starts_with("Http_Query") || line.starts_with("Http_Host"))
        );
    }

    #[test]
    fn the_other_dialect_has_no_host_and_no_length_of_its_own() {
        let parts = head("POST", "/", &[("host", "h"), ("content-length", "4")]);
        let described = describe(&parts, Dialect::HeadOnly).unwrap();
        let entries = environment(&Inherited::default(), "m", &described);
        assert_eq!(
            entries.iter().collect::<Vec<_>>(),
            [
                &b"SKEP_RUN=m"[..],
                b"Http_Content_Length=4",
                b"Http_Method=POST",
                b"Http_Path=/"
            ]
        );
    }

    #[test]
    fn without_cgi_headers_only_the_marker_is_added() {
        let inherited = Inherited::new([
            ("HOME".into(), "/".into()),
            ("SKEP_RUN".into(), "outer".into()),
            ("Http_X".into(), "1".into()),
        ]);
        let entries = environment(&inherited, "m", &Strings::default());
        assert_eq!(
            entries.iter().collect::<Vec<_>>(),
            [&b"HOME=/"[..], b"SKEP_RUN=m", b"Http_X=1"]
        );
    }

    #[test]
    fn an_entry_longer_than_the_kernel_takes_is_refused_by_name() {
        let long = "x".repeat(LONGEST_ENTRY);
        let parts = head("GET", "/", &[("x-long", &long)]);
        assert_eq!(
            describe(&parts, Dialect::Classic).unwrap_err(),
            TooLong("Http_X_Long".to_owned())
        );
    }

    #[test]
    fn bad_escapes_stay_as_they_are() {
        assert_eq!(decoded("/%zz%4"), b"/%zz%4");
        assert_eq!(decoded(""), b"/");
        assert_eq!(decoded("//a/../b"), b"//a/../b");
        assert!(has_nul("/a%00b") && !has_nul("/a%0"));
    }
}
