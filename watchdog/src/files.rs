//! `mode=static`: files of one directory, and nothing outside of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hyper::header::{
    ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, IF_RANGE, LOCATION, RANGE,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::body::Body;
use crate::cgi;
use crate::excerpt::Excerpt;
use crate::listing;
use crate::range::{self, Range};
use crate::refusal::Refusal;
use crate::request_head;
use crate::watchdog::Counted;

/// Content types by extension; what is not here is bytes.
const TYPES: [(&str, &str); 28] = [
    ("avif", "image/avif"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("gif", "image/gif"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xml", "text/xml; charset=utf-8"),
];

/// Answers one admitted call.
pub(crate) fn answer(root: &Path, head: &Parts, slot: Counted) -> Result<Response<Body>, Refusal> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Refusal::FileMethod);
    }
    let asked = cgi::decoded(head.uri.path());
    let found = find(root, &asked).ok_or(Refusal::NoFile)?;
    if !found.is_dir() {
        return send(root, &found, head, slot).ok_or(Refusal::NoFile);
    }
    if !asked.ends_with(b"/") {
        // Relative, and marked as such: a name with a colon would be a scheme, two slashes another host.
        let name = head.uri.path().rsplit('/').next().unwrap_or_default();
        let mut response = Response::new(Body::whole(""));
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let mut target = format!("./{name}/").into_bytes();
        if let Some(query) = request_head::query(head) {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        let target = HeaderValue::try_from(target).map_err(|_| Refusal::NoFile)?;
        response.headers_mut().insert(LOCATION, target);
        return Ok(response);
    }
    if let Some(index) =
        find(root, &[&asked[..], b"index.html"].concat()).filter(|path| path.is_file())
    {
        return send(root, &index, head, slot).ok_or(Refusal::NoFile);
    }
    let page = listing::page(&found).map_err(|_| Refusal::NoFile)?;
    let mut response = Response::new(Body::whole(page));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, html);
    Ok(response)
}

/// The file or directory of a decoded path, symbolic links followed, if it is inside of the root.
fn find(root: &Path, asked: &[u8]) -> Option<PathBuf> {
    let mut path = root.to_owned();
    for name in asked.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return None,
            name => path.push(std::ffi::OsStr::from_bytes(name)),
        }
    }
    let root = root.canonicalize().ok()?;
    let found = path.canonicalize().ok()?;
    // A slash at the end asks for a directory.
    let fits = found.starts_with(root) && (found.is_dir() || !asked.ends_with(b"/"));
    fits.then_some(found)
}

fn send(root: &Path, path: &Path, head: &Parts, slot: Counted) -> Option<Response<Body>> {
    let file = open(root, path).ok()?;
    let length = file
        .metadata()
        .ok()
        .filter(std::fs::Metadata::is_file)?
        .len();
    // A file has no validator here, so that a range under a condition is never known to be of the same file.
    let wanted = head
        .headers
        .get(RANGE)
        .filter(|_| !head.headers.contains_key(IF_RANGE))
        .and_then(|value| value.to_str().ok());
    let (start, count, status) = match range::read(wanted, length) {
        Range::All => (0, length, StatusCode::OK),
        Range::Part { first, last } => (first, last - first + 1, StatusCode::PARTIAL_CONTENT),
        Range::Outside => (0, 0, StatusCode::RANGE_NOT_SATISFIABLE),
    };
    let body = Excerpt::new(file, start, count, slot).ok()?;
    let mut response = Response::new(Body::file(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind(path)));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let told = match status {
        StatusCode::PARTIAL_CONTENT => {
            format!("bytes {start}-{}/{length}", start + count - 1)
        }
        StatusCode::RANGE_NOT_SATISFIABLE => format!("bytes */{length}"),
        _ => return Some(response),
    };
    headers.insert(CONTENT_RANGE, HeaderValue::try_from(told).ok()?);
    Some(response)
}

/// Opens a file that `find` has found. Something else may stand in its place by now: what has really been opened
/// decides, and a pipe must not hold us up.
fn open(root: &Path, path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if opened.starts_with(root.canonicalize()?) {
        Ok(file)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn kind(path: &Path) -> &'static str {
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    TYPES
        .iter()
        .find(|(known, _)| Some(*known) == extension.as_deref())
        .map_or("application/octet-stream", |(_, kind)| kind)
}
