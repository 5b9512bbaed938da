//! Any verb, path and header: what is below `/function/` calls that function and nothing else, with the rest as it came.

use hyper::Method;
use skep::router::{Operation, Page, Refusal, Route, route};

use crate::choices::Choices;

const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "BREW",
];
const NAMESPACES: [&str; 4] = ["openfaas-fn", "", "a", "cat.a"];
/// What paths are made of, so that the edges of all routes are met often.
const PIECES: [&str; 44] = [
    "/function/",
    "/system/",
    "/function",
    "/system",
    "/",
    "//",
    "cat",
    "a",
    ".openfaas-fn",
    ".a",
    ".",
    "..",
    "/..",
    "%2e",
    "%2f",
    "%00",
    "\\",
    "functions",
    "function/",
    "function/cat/replicas",
    "/replicas/",
    "scale-function/",
    "secrets",
    "namespaces",
    "namespace/",
    "logs",
    "info",
    "alert",
    "openapi.json",
    "/healthz",
    "/readyz",
    "/metrics",
    "/metrics/",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
    "-",
    "_",
    " ",
    ";x",
    "?",
    "#",
    "é",
    "\0",
    "http://h",
    "*",
];
/// The longest name, by the contract.
const LONGEST: usize = 63;

pub fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let method: Method = choices.of(&METHODS).parse().unwrap();
    let namespace = choices.of(&NAMESPACES);
    let header = choices.one_in(3).then(|| text(&mut choices, 3));
    let header = header.as_ref().map(|header| header.as_bytes());
    let path = text(&mut choices, 8);
    let found = route(&method, &path, header, namespace);
    match &found {
        Route::Function { name, rest } => {
            is_called(&path, header, name, rest, namespace);
            assert_ne!(method, Method::CONNECT);
        }
        Route::Page(page) => {
            let known: &[&str] = match page {
                Page::Help => &["/"],
                Page::Health => &["/healthz"],
                Page::Ready => &["/readyz"],
                Page::Metrics => &["/metrics", "/metrics/"],
            };
            assert!(known.contains(&path.as_str()), "{path:?} is a page");
            assert!(method == Method::GET || method == Method::HEAD);
            assert!(header.is_none() || *page != Page::Help);
        }
        Route::Manage(operation) => is_managed(&path, operation),
        Route::Refused(refusal) => is_refused(&method, &path, header, *refusal, namespace),
    }
    if path.starts_with("/function/") {
        assert!(matches!(
            found,
            Route::Function { .. }
                | Route::Refused(Refusal::BadName | Refusal::NoSuchName)
                | Route::Refused(Refusal::Method { .. })
        ));
        only_the_segment_counts(&method, &path, header, namespace);
    }
}

/// A text of pieces that are known, and of bytes that may be anything.
fn text(choices: &mut Choices, most: usize) -> String {
    let mut text = String::new();
    for _ in 0..most {
        if choices.are_over() {
            break;
        }
        match choices.of(&[0, 0, 0, 0, 0, 1, 2]) {
            0 => text += choices.of(&PIECES),
            1 => text.push(char::from(choices.byte())),
            _ => {
                let count = choices.byte();
                text += &String::from_utf8_lossy(choices.some(usize::from(count % 8)));
            }
        }
    }
    text
}

/// By the contract's words: 1 to 63 of these characters, and no place in a folder.
fn is_name(text: &str) -> bool {
    let known = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    (1..=LONGEST).contains(&text.len())
        && text.chars().all(|c| known.contains(c))
        && ![".", ".."].contains(&text)
}

/// What a path or a header has where a name is expected, as a name.
fn named<'a>(text: &'a str, namespace: &str) -> Option<&'a str> {
    let short = text
        .strip_suffix(namespace)
        .and_then(|text| text.strip_suffix('.'));
    Some(short.unwrap_or(text)).filter(|name| is_name(name))
}

fn is_called(path: &str, header: Option<&[u8]>, name: &str, rest: &str, namespace: &str) {
    assert!(is_name(name), "{name:?} of {path:?}");
    assert!(path.ends_with(rest) && (rest.is_empty() || rest.starts_with('/')));
    match path.strip_prefix("/function/") {
        Some(after) => {
            let segment = after.split('/').next().unwrap();
            assert_eq!(named(segment, namespace), Some(name));
            assert_eq!(format!("/function/{segment}{rest}"), path);
        }
        None => {
            let header = std::str::from_utf8(header.unwrap()).unwrap();
            assert_eq!(named(header.trim(), namespace), Some(name));
            assert_eq!((path, rest), ("/", ""));
        }
    }
}

fn is_managed(path: &str, operation: &Operation) {
    let below = path
        .strip_prefix("/system/")
        .expect("management is below /system/");
    assert!(!below.contains(['%', '\\', '?', '#', '\0']), "{path:?}");
    let (name, id) = match operation {
        Operation::Describe(name)
        | Operation::Scale(name)
        | Operation::ListReplicas(name)
        | Operation::EndReplicas(name)
        | Operation::DescribeNamespace(name) => (Some(name), None),
        Operation::EndReplica(name, id) => (Some(name), Some(id)),
        _ => (None, None),
    };
    assert!(name.is_none_or(|name| is_name(name)), "{path:?}");
    assert!(id.is_none_or(|id| !id.is_empty() && !id.contains('/') && path.ends_with(id)));
    // Each part stands in the path as it is.
    let parts: Vec<_> = below.split('/').collect();
    assert!(name.is_none_or(|name| parts[1].starts_with(name.as_str())));
    assert!(parts.len() <= 4);
}

/// What could be called is not refused.
fn is_refused(
    method: &Method,
    path: &str,
    header: Option<&[u8]>,
    refusal: Refusal,
    namespace: &str,
) {
    if *method == Method::CONNECT {
        return assert!(matches!(refusal, Refusal::Method { .. }));
    }
    let segment = path
        .strip_prefix("/function/")
        .map(|after| after.split('/').next().unwrap());
    let by_header = header
        .filter(|_| path == "/")
        .and_then(|header| std::str::from_utf8(header).ok());
    if let Some(text) = segment.or(by_header.map(str::trim)) {
        assert_eq!(named(text, namespace), None, "{path:?}");
    }
}

/// Neither the header nor what is behind the segment changes which function is called.
fn only_the_segment_counts(method: &Method, path: &str, header: Option<&[u8]>, namespace: &str) {
    let name = |path: &str, header| match route(method, path, header, namespace) {
        Route::Function { name, .. } => Some(name.to_owned()),
        _ => None,
    };
    let called = name(path, header);
    let after = path.strip_prefix("/function/").unwrap();
    let segment = after.split('/').next().unwrap();
    for rest in [
        "",
        "/",
        "/../../system/info",
        "//function/dog",
        "/%2e%2e/healthz",
    ] {
        let other = format!("/function/{segment}{rest}");
        assert_eq!(name(&other, None), called);
        assert_eq!(name(&other, Some(b"dog".as_slice())), called);
    }
}
