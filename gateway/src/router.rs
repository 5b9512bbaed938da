//! Request head → route. The path is looked at once, as it came, and never decoded: pure.
//!
//! | request | route |
//! |---|---|
//! | any verb `/function/<name>[/path]` | the function, called with the rest of the path |
//! | `/` with `X-Function` | that function, called at `/` |
//! | GET `/` | a help page |
//! | GET `/healthz` `/readyz` `/metrics` `/metrics/` | about the gateway |
//! | `/async-function/...` | 501: asynchronous calls are not there yet |
//! | `/system/...` | management: see [`Operation`] |
//!
//! With a port of their own for operators, what is theirs ([`is_for_operators`]) is not looked for here on a port for calls.
//! A host or a path that is a function's own (`table/routes.rs`) never comes here.

mod system;

use hyper::Method;

pub use self::system::Operation;
use crate::function::is_name;

const FUNCTION_PREFIX: &str = "/function/";
const ASYNC_PREFIX: &str = "/async-function/";
const SYSTEM_PREFIX: &str = "/system/";

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// Call a function. `rest` is what is left of the path: empty, or beginning with `/`.
    Function {
        /// Its name, well-formed, without the default namespace.
        name: &'a str,
        /// The path that the function is called with.
        rest: &'a str,
    },
    /// About the gateway.
    Page(Page),
    /// The management API.
    Manage(Operation),
    /// Not a request that we understand.
    Refused(Refusal),
}

/// A page of the gateway's own.
#[derive(Debug, PartialEq, Eq)]
pub enum Page {
    /// What this is and how to call a function.
    Help,
    /// Whether the process serves.
    Health,
    /// Whether calls should be sent here.
    Ready,
    /// Prometheus' text format.
    Metrics,
}

/// Why a request was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The function's segment of the path, or `X-Function`, could be read as another path, or names nothing.
    BadName,
    /// It is no name that a function can have.
    NoSuchName,
    /// More than one `X-Function`.
    SeveralNames,
    /// A call to `/` that names no function.
    NoFunctionNamed,
    /// No host, more than one, or one that is none (RFC 9112 §3.2).
    BadHost,
    /// A transfer coding other than `chunked` (RFC 9112 §6.1).
    TransferCoding,
    /// More header fields than this.
    TooManyFields(usize),
    /// More members in lists of field names than these may have.
    TooManyMembers,
    /// Nothing is here.
    NoSuchPage,
    /// Functions are called elsewhere.
    NoCallsHere,
    /// A function has this host for itself, and not this path.
    NotOwned,
    /// An asynchronous call.
    NoAsynchronousCalls,
    /// Something is here, for other verbs.
    Method {
        /// The verbs it has, for the `Allow` header.
        allow: &'static str,
    },
}

/// Finds the route of a request: its verb, its raw path, the value of `X-Function`, and the namespace that may be left out.
#[must_use]
pub fn route<'a>(
    method: &Method,
    path: &'a str,
    x_function: Option<&'a [u8]>,
    namespace: &str,
) -> Route<'a> {
    if *method == Method::CONNECT {
        // A tunnel, not a request; functions get none.
        return Route::Refused(Refusal::Method {
            allow: "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        });
    }
    if let Some(after) = path.strip_prefix(FUNCTION_PREFIX) {
        // A name in the path wins over one in the header.
        let (name, rest) = after.split_at(after.find('/').unwrap_or(after.len()));
        return function(name, rest, namespace);
    }
    if path.starts_with(ASYNC_PREFIX) {
        return Route::Refused(Refusal::NoAsynchronousCalls);
    }
    if path == "/" {
        return match x_function.map(std::str::from_utf8) {
            Some(Ok(name)) => function(name.trim(), "", namespace),
            Some(Err(_)) => Route::Refused(Refusal::BadName),
            None if is_read(method) => Route::Page(Page::Help),
            None => Route::Refused(Refusal::NoFunctionNamed),
        };
    }
    if let Some(below) = path.strip_prefix(SYSTEM_PREFIX) {
        return match system::operation(method, below, namespace) {
            Ok(operation) => Route::Manage(operation),
            Err(refusal) => Route::Refused(refusal),
        };
    }
    match page(path) {
        Ok(page) if is_read(method) => Route::Page(page),
        Ok(_) => Route::Refused(Refusal::Method { allow: "GET, HEAD" }),
        Err(refusal) => Route::Refused(refusal),
    }
}

/// Whether a path is the operators' alone, whoever asks for it: a port for calls does not tell that it is there.
#[must_use]
pub fn is_for_operators(path: &str) -> bool {
    path.starts_with(SYSTEM_PREFIX) || page(path) == Ok(Page::Metrics)
}

/// Whether somebody watches the gateway by this path, and wants an answer before any function is known.
#[must_use]
pub fn is_page(path: &str) -> bool {
    page(path).is_ok()
}

fn page(path: &str) -> Result<Page, Refusal> {
    match path {
        "/healthz" => Ok(Page::Health),
        "/readyz" => Ok(Page::Ready),
        "/metrics" | "/metrics/" => Ok(Page::Metrics),
        _ => Err(Refusal::NoSuchPage),
    }
}

fn function<'a>(name: &'a str, rest: &'a str, namespace: &str) -> Route<'a> {
    let name = without_namespace(name, namespace);
    if is_name(name) {
        Route::Function { name, rest }
    } else {
        Route::Refused(not_a_name(name))
    }
}

/// Why this is not called: no function can have such a name; unless another reader of the path could see more than a name in it.
fn not_a_name(segment: &str) -> Refusal {
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let is_separator = match (byte, after) {
            (b'%', [high, low, ..]) => is_escaped_separator(*high, *low),
            _ => matches!(byte, b'/' | b'\\') || byte.is_ascii_control(),
        };
        if is_separator {
            return Refusal::BadName;
        }
    }
    if matches!(segment, "." | "..") || segment.starts_with("..") {
        return Refusal::BadName;
    }
    Refusal::NoSuchName
}

/// Whether this stands, escaped, for a slash, a backslash, a dot, a percent sign or a control character.
fn is_escaped_separator(high: u8, low: u8) -> bool {
    let high = char::from(high).to_digit(16);
    match (high, low.to_ascii_lowercase()) {
        (Some(0 | 1), _) => true,
        (Some(2), low) => matches!(low, b'f' | b'e' | b'5'),
        (Some(5), low) => low == b'c',
        (Some(7), low) => low == b'f',
        _ => false,
    }
}

/// `<name>.<namespace>` is `<name>` when the namespace is the default one: clients always write it (wire contract §7.2).
#[must_use]
pub fn without_namespace<'a>(name: &'a str, namespace: &str) -> &'a str {
    let short = name.strip_suffix(namespace);
    short
        .and_then(|short| short.strip_suffix('.'))
        .unwrap_or(name)
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Route<'_> {
        route(&Method::GET, path, None, "openfaas-fn")
    }

    fn call<'a>(name: &'a str, rest: &'a str) -> Route<'a> {
        Route::Function { name, rest }
    }

    #[test]
    fn a_function_is_named_by_its_path_segment() {
        assert_eq!(get("/function/cat"), call("cat", ""));
        assert_eq!(get("/function/my-fn_2/"), call("my-fn_2", "/"));
        assert_eq!(
            get("/function/cat/a/../b%2fc//d"),
            call("cat", "/a/../b%2fc//d"),
            "the rest is the function's business"
        );
        assert_eq!(get("/function/cat.openfaas-fn/x"), call("cat", "/x"));
        assert_eq!(
            get("/function/cat.other"),
            call("cat.other", ""),
            "another namespace is another name"
        );
    }

    #[test]
    fn a_namespace_may_have_dots_itself() {
        let get = |path| route(&Method::GET, path, None, "my.ns");
        assert_eq!(get("/function/cat.my.ns/x"), call("cat", "/x"));
        assert_eq!(get("/function/cat.ns"), call("cat.ns", ""));
        assert_eq!(
            get("/function/..my.ns"),
            Route::Refused(Refusal::BadName),
            "the name would be a dot"
        );
    }

    #[test]
    fn a_segment_that_is_no_name_is_refused() {
        for path in [
            "/function/",
            "/function//cat",
            "/function/.openfaas-fn",
            "/function/a$b",
            "/function/a%20b",
            "/function/a;b",
            "/function/caf%C3%A9",
            "/function/a%",
        ] {
            assert_eq!(get(path), Route::Refused(Refusal::NoSuchName), "{path}");
        }
        for path in [
            "/function/..",
            "/function/.",
            "/function/..;",
            "/function/%252e",
            "/function/a%0a",
            "/function/../system/info",
            "/function/%2e%2e/x",
            "/function/a%2fb",
            "/function/a%5cb",
            "/function/a%00",
            "/function/a\\b",
        ] {
            assert_eq!(get(path), Route::Refused(Refusal::BadName), "{path}");
        }
    }

    #[test]
    fn the_root_is_routed_by_header() {
        let root = |method, header| route(method, "/", header, "openfaas-fn");
        assert_eq!(
            root(&Method::POST, Some(b"cat".as_slice())),
            call("cat", "")
        );
        assert_eq!(
            root(&Method::GET, Some(b" cat.openfaas-fn ".as_slice())),
            call("cat", "")
        );
        for bad in [b"../x".as_slice(), b"a/b", b"\xff"] {
            assert_eq!(
                root(&Method::POST, Some(bad)),
                Route::Refused(Refusal::BadName)
            );
        }
        for none in [b"a b".as_slice(), b"a$b", b""] {
            assert_eq!(
                root(&Method::POST, Some(none)),
                Route::Refused(Refusal::NoSuchName)
            );
        }
        assert_eq!(
            root(&Method::POST, None),
            Route::Refused(Refusal::NoFunctionNamed)
        );
        assert_eq!(root(&Method::HEAD, None), Route::Page(Page::Help));
        let both = route(&Method::POST, "/function/cat", Some(b"dog"), "openfaas-fn");
        assert_eq!(both, call("cat", ""), "the path wins");
    }

    #[test]
    fn a_tunnel_is_refused() {
        let connect = route(&Method::CONNECT, "/function/cat", None, "openfaas-fn");
        assert!(matches!(connect, Route::Refused(Refusal::Method { .. })));
    }

    #[test]
    fn what_is_routed_here_is_no_functions_own() {
        use crate::function::route::{OwnRoute, PATH};
        for path in [
            "/",
            "/function/cat",
            "/async-function/cat",
            "/system/info",
            "/healthz",
            "/readyz",
            "/metrics",
            "/metrics/",
        ] {
            let is_ours = get(path) != Route::Refused(Refusal::NoSuchPage);
            let wanted = OwnRoute::read(|label| (label == PATH).then_some(path));
            assert!(is_ours && wanted.is_err(), "{path}");
        }
    }

    #[test]
    fn pages_are_exact_and_read_only() {
        for (path, page) in [
            ("/healthz", Page::Health),
            ("/readyz", Page::Ready),
            ("/metrics", Page::Metrics),
            ("/metrics/", Page::Metrics),
        ] {
            assert_eq!(get(path), Route::Page(page), "{path}");
            assert_eq!(
                route(&Method::DELETE, path, None, "openfaas-fn"),
                Route::Refused(Refusal::Method { allow: "GET, HEAD" }),
                "{path}"
            );
        }
        for path in [
            "/function",
            "/functions/cat",
            "/system",
            "/system/",
            "//function/cat",
            "/FUNCTION/cat",
            "/system/functions/",
            "/%66unction/cat",
            "*",
        ] {
            assert_eq!(get(path), Route::Refused(Refusal::NoSuchPage), "{path}");
        }
        assert_eq!(get("/system/info"), Route::Manage(Operation::Info));
    }
}
