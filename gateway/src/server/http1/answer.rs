//! The head of an answer, and how its body is framed (RFC 9112 §6).

use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hyper::body::Body as _;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING};
use hyper::{Response, StatusCode};
use rustix::time::{ClockId, clock_gettime};

use super::request::About;
use crate::http1::reading::says;
use crate::http1::writing::{Length, Writing, write_field, write_length};
use crate::reply::Body;
use crate::told::Answered;

/// Lets go of a body that is not sent but for its length: the request's may be taken through it, and until nobody has that it cannot be
/// said whether it comes to its end.
pub(super) fn leave_unsent(response: &mut Response<Body>, about: About) {
    if !has_none(response.status(), about) {
        return;
    }
    let body = std::mem::replace(response.body_mut(), Body::from(Bytes::new()));
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        let headers = response.headers_mut();
        headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
}

/// Begins to write an answer, after what is left to say before it. Says whether it is the last one on its connection.
pub(super) fn begin(
    writing: &mut Writing<Body>,
    before: &[u8],
    answered: Answered,
    about: About,
    mut closes: bool,
) -> bool {
    let Answered { response, ids } = answered;
    let (head, body) = response.into_parts();
    let into = writing.begin();
    into.extend_from_slice(before);
    write_status(into, head.status, head.extensions.get(), about.is_old);
    let mut said_length = None;
    let (mut has_date, mut has_connection, mut has_trailers) = (false, false, false);
    for (name, value) in &head.headers {
        if name == CONTENT_LENGTH {
            said_length = value.to_str().ok().and_then(|length| length.parse().ok());
            continue;
        } else if name == TRANSFER_ENCODING || Answered::is_said_beside(name) {
            continue;
        } else if name == CONNECTION {
            has_connection = true;
            closes |= says(value, "close");
        } else if name == TRAILER {
            has_trailers = true;
        } else if name == DATE {
            has_date = true;
        }
        write_field(into, name, value);
    }
    let length = length(head.status, about, said_length, &body);
    closes |= length == Some(Length::ToClose);
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if !has_connection && !switches {
        match (closes, about.is_old) {
            (true, _) => into.extend_from_slice(b"connection: close\r\n"),
            (false, true) => into.extend_from_slice(b"connection: keep-alive\r\n"),
            (false, false) => {}
        }
    }
    Answered::write_beside(&ids, into);
    if !has_date {
        write_date(into);
    }
    match length {
        None => {
            // The length of what a GET would have had.
            let may_say = about.is_head || head.status == StatusCode::NOT_MODIFIED;
            if let Some(length) = said_length.filter(|_| may_say) {
                write_length(into, length);
            }
            writing.follow(Length::Exact(0), None);
        }
        Some(length) => {
            match length {
                Length::Exact(length) => write_length(into, length),
                Length::Chunked | Length::ChunkOpen => {
                    into.extend_from_slice(b"transfer-encoding: chunked\r\n");
                }
                Length::ToClose => {}
            }
            if has_trailers && about.takes_trailers {
                writing.declare(&head.headers);
            }
            let body = Some(body).filter(|_| length != Length::Exact(0));
            writing.follow(length, body);
        }
    }
    closes
}

/// Whether no body may follow.
fn has_none(status: StatusCode, about: About) -> bool {
    about.is_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// How the body says where it ends; `None` if none may follow.
fn length(status: StatusCode, about: About, said: Option<u64>, body: &Body) -> Option<Length> {
    if has_none(status, about) {
        return None;
    }
    if body.is_end_stream() {
        return Some(Length::Exact(0));
    }
    Some(match said.or_else(|| body.size_hint().exact()) {
        Some(length) => Length::Exact(length),
        None if about.is_old => Length::ToClose,
        None => Length::Chunked,
    })
}

fn write_status(
    into: &mut Vec<u8>,
    status: StatusCode,
    reason: Option<&ReasonPhrase>,
    is_old: bool,
) {
    let version: &[u8] = if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
    let usual = || status.canonical_reason().unwrap_or("-").as_bytes();
    let reason = reason.map_or_else(usual, ReasonPhrase::as_bytes);
    for piece in [version, status.as_str().as_bytes(), b" ", reason, b"\r\n"] {
        into.extend_from_slice(piece);
    }
}

thread_local! {
    /// The last date that was written, and its second.
    static DATE_LINE: Cell<(i64, [u8; 29])> = const { Cell::new((i64::MIN, [0; 29])) };
}

/// RFC 9110 §6.6.1.
fn write_date(into: &mut Vec<u8>) {
    for piece in [b"date: ".as_slice(), &date(), b"\r\n"] {
        into.extend_from_slice(piece);
    }
}

/// What time it is, as a field says it. The second changes seldom, and to look at the coarse clock costs next to nothing.
pub(in crate::server) fn date() -> [u8; 29] {
    let now = clock_gettime(ClockId::RealtimeCoarse).tv_sec;
    let (mut second, mut date) = DATE_LINE.get();
    if second != now {
        let since = Duration::from_secs(now.try_into().unwrap_or_default());
        let text = httpdate::fmt_http_date(UNIX_EPOCH + since);
        second = now;
        // It has this length up to the year 9999.
        date.copy_from_slice(&text.as_bytes()[..29]);
        DATE_LINE.set((second, date));
    }
    date
}
