//! The head of a request on its way to an endpoint, and how its body is framed.

use bytes::Bytes;
use hyper::Request;
use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue, TRAILER, TRANSFER_ENCODING};

use super::target::RawTarget;
use super::writing::{Length, Writing, write_field, write_length};

use crate::told::Told;

/// Begins with a request and what its function is told; its head says how its body is framed, and that is said again in one way
/// only.
pub(super) fn begin<A, B: Body<Data = Bytes>>(
    writing: &mut Writing<B>,
    head: &Request<A>,
    told: Option<&Told<'_>>,
    body: B,
) {
    let into = writing.begin();
    let said = write_head(into, head, told);
    let (length, body) = match said.length {
        Some(length) if !said.is_chunked => {
            write_length(into, length);
            (Length::Exact(length), (length > 0).then_some(body))
        }
        None if !said.is_chunked && body.is_end_stream() => (Length::Exact(0), None),
        _ => {
            let chunked = HeaderValue::from_static("chunked");
            write_field(into, &TRANSFER_ENCODING, &chunked);
            (Length::Chunked, Some(body))
        }
    };
    if said.has_trailers {
        writing.declare(head.headers());
    }
    writing.follow(length, body);
}

/// What the fields of a request say of its body.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    is_chunked: bool,
    has_trailers: bool,
}

/// The request line and the fields, then what the function is told; without what frames the body, and without the empty line.
fn write_head<A>(into: &mut Vec<u8>, head: &Request<A>, told: Option<&Told<'_>>) -> Said {
    let target = match head.extensions().get::<RawTarget>() {
        Some(raw) => raw.as_bytes(),
        None => {
            let target = head.uri().path_and_query();
            target.map_or("/", |target| target.as_str()).as_bytes()
        }
    };
    for piece in [
        head.method().as_str().as_bytes(),
        b" ",
        target,
        b" HTTP/1.1\r\n",
    ] {
        into.extend_from_slice(piece);
    }
    let (mut said, mut host) = (Said::default(), None);
    for (name, value) in head.headers() {
        if name == CONTENT_LENGTH {
            let length = || value.to_str().ok()?.parse().ok();
            said.length = said.length.or_else(length);
            continue;
        } else if name == TRANSFER_ENCODING {
            said.is_chunked = true;
            continue;
        } else if name == TRAILER {
            said.has_trailers = true;
        } else if name == HOST {
            host = Some(value);
        }
        write_field(into, name, value);
    }
    if let Some(told) = told {
        told.write(into, host);
    }
    said
}
