//! The head of a request: read, and held against what makes two readers disagree.

use std::mem::MaybeUninit;
use std::task::{Context, Poll};

use httparse::{ParserConfig, Status};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{HeaderMap, Method, StatusCode, Uri, Version};
use smallvec::{SmallVec, smallvec};

use super::wire::Wire;
use super::{ConnectionLimits, Next};
use crate::http1::reading::{Place, Places, Reading, Rest, agreed, says};
use crate::http1::target::{self, NotATarget};
use crate::incoming::{Asked, Stream};
use crate::reply::{self, Failure};
use crate::server::h2::PREFACE;
use crate::told::{Answered, Ids};

/// As many fields as are parsed without an allocation.
const STACK_FIELDS: usize = 100;

/// A request, but for its body.
pub(super) struct Head {
    pub(super) request: Asked,
    pub(super) about: About,
    rest: Rest,
}

/// What a request says about itself and its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About {
    /// It is of HTTP/1.0.
    pub(super) is_old: bool,
    pub(super) is_head: bool,
    pub(super) has_body: bool,
    /// Another request may follow it.
    pub(super) keeps: bool,
    /// Its client waits for a word before it sends the body.
    pub(super) expects: bool,
    /// It asks for another protocol.
    pub(super) upgrades: bool,
    /// Its client understands trailers.
    pub(super) takes_trailers: bool,
}

/// Why what came is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// What is wrong with it.
    Malformed(&'static str),
    /// More bytes or fields than a head may have.
    TooLarge,
    TargetTooLong,
    /// It began, and did not come to its end in time.
    Late,
}

impl From<NotATarget> for Wrong {
    fn from(why: NotATarget) -> Self {
        match why {
            NotATarget::Malformed(what) => Self::Malformed(what),
            NotATarget::TooLong => Self::TargetTooLong,
        }
    }
}

impl Wrong {
    pub(super) fn answer(self) -> Answered {
        let (status, sentence) = match self {
            Self::Malformed(what) => (StatusCode::BAD_REQUEST, what),
            Self::TooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the head of the request is too large: send less of it, or raise the gateway's max_header_bytes or max_headers",
            ),
            Self::TargetTooLong => (
                StatusCode::URI_TOO_LONG,
                "the path and the query are too long: send them in a body",
            ),
            Self::Late => (
                StatusCode::REQUEST_TIMEOUT,
                "the head of the request did not come in time",
            ),
        };
        let ids = Ids::of(None);
        let response = reply::failure(&Failure {
            status,
            sentence: sentence.to_owned(),
            cause: String::new(),
            call_id: ids.call_id(),
            retry_after: None,
        });
        Answered { response, ids }
    }
}

/// Waits for the next request.
pub(super) fn poll<I: Stream>(
    wire: &mut Wire<I>,
    limits: ConnectionLimits,
    cx: &mut Context<'_>,
) -> Poll<Next> {
    let most = limits.max_header_bytes;
    loop {
        wire.reading.skip_empty_lines();
        let limits = ConnectionLimits {
            max_header_bytes: most.saturating_sub(wire.reading.skipped()),
            ..limits
        };
        if wire.reading.may_have_a_head() {
            let come = wire.reading.len();
            match take(&mut wire.reading, limits) {
                Ok(Some(mut head)) => {
                    wire.expect(std::mem::take(&mut head.rest), head.about.expects);
                    return Poll::Ready(Next::Request(head));
                }
                Ok(None) => {}
                Err(wrong)
                    if wire.reading.len() < come
                        || wire.request() > 0
                        || wire.reading.skipped() > 0 =>
                {
                    // A head it was, or follows one or an empty line: no preface, and no request.
                    return Poll::Ready(Next::Refused(wrong));
                }
                Err(_) if wire.reading.unread().starts_with(PREFACE) => {
                    return Poll::Ready(Next::Http2);
                }
                // Perhaps the rest of the preface is still on its way.
                Err(_) if PREFACE.starts_with(wire.reading.unread()) => {}
                Err(wrong) => return Poll::Ready(Next::Refused(wrong)),
            }
        }
        if wire.reading.skipped() + wire.reading.len() > most {
            return Poll::Ready(Next::Refused(Wrong::TooLarge));
        }
        match wire.poll_read(cx) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(0)) => return Poll::Ready(broken_off(wire.reading.unread(), limits)),
            Poll::Ready(Err(_)) => return Poll::Ready(Next::Ended),
            Poll::Pending => {
                wire.reading.release();
                return Poll::Pending;
            }
        }
    }
}

/// What came of this, after which nothing more comes. The client may still want to hear that.
fn broken_off(read: &[u8], limits: ConnectionLimits) -> Next {
    match Parsed::parse(read, limits, &mut Places::default()) {
        // It has been looked at only as long as that was worth while.
        Err(wrong) => Next::Refused(wrong),
        Ok(_) if is_empty(read) => Next::Ended,
        Ok(_) => Next::Refused(Wrong::Malformed(
            "the head of the request ends before its empty line",
        )),
    }
}

/// Whether that is not yet the beginning of a request: empty lines before one are nothing (RFC 9112 §2.2).
pub(super) fn is_empty(read: &[u8]) -> bool {
    read.trim_ascii_start().is_empty()
}

/// Takes a head out of what was read; `None` if it is not whole.
fn take(reading: &mut Reading, limits: ConnectionLimits) -> Result<Option<Head>, Wrong> {
    let mut places = Places::default();
    let Some(parsed) = Parsed::parse(reading.unread(), limits, &mut places)? else {
        reading.has_no_head();
        return Ok(None);
    };
    let text = reading.take(parsed.length);
    let target = parsed.target.of(&text);
    let length = target.len();
    let mut request: Asked = Box::default();
    let uri = match Uri::from_maybe_shared(target) {
        Ok(uri) if target::is_whole(&uri, length) => uri,
        _ => {
            let (uri, raw) = target::read(parsed.target.of(&text), &parsed.method)?;
            if let Some(raw) = raw {
                request.extensions_mut().insert(raw);
            }
            uri
        }
    };
    (*request.method_mut(), *request.uri_mut()) = (parsed.method, uri);
    let is_old = parsed.is_old;
    *request.version_mut() = if is_old {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    let said = Said::gather(&places, &text, is_old, request.headers_mut())?;
    let rest = said.rest()?;
    let about = About {
        is_old,
        is_head: *request.method() == Method::HEAD,
        has_body: !matches!(rest, Rest::Over),
        keeps: said.keeps(is_old),
        // Before HTTP/1.1 nobody knew what to do with the word.
        expects: said.expects && !is_old,
        upgrades: said.upgrades && !is_old,
        takes_trailers: said.takes_trailers,
    };
    Ok(Some(Head {
        request,
        about,
        rest,
    }))
}

/// A whole head, as the parser saw it, but for its fields.
struct Parsed {
    length: usize,
    method: Method,
    target: Place,
    is_old: bool,
}

impl Parsed {
    /// Notes the places of its fields where they are used: they are too many to be moved about. `None` if it is not whole.
    fn parse(
        read: &[u8],
        limits: ConnectionLimits,
        places: &mut Places,
    ) -> Result<Option<Self>, Wrong> {
        match Self::parse_text(read, limits, places) {
            Err(Wrong::Malformed(_)) if let Some(text) = target::as_text(read) => {
                // Places are the same in both.
                Self::parse_text(&text, limits, places)
            }
            parsed => parsed,
        }
    }

    fn parse_text(
        read: &[u8],
        limits: ConnectionLimits,
        places: &mut Places,
    ) -> Result<Option<Self>, Wrong> {
        let mut fields: SmallVec<[_; STACK_FIELDS]> = if limits.max_headers > STACK_FIELDS {
            smallvec![MaybeUninit::uninit(); limits.max_headers]
        } else {
            SmallVec::from_buf([const { MaybeUninit::uninit() }; STACK_FIELDS])
        };
        let mut parsed = httparse::Request::new(&mut []);
        let status = ParserConfig::default().parse_request_with_uninit_headers(
            &mut parsed,
            read,
            &mut fields,
        );
        let length = match status {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Wrong::TooLarge),
            Err(error) => return Err(Wrong::Malformed(sentence(error))),
        };
        let (Some(method), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Ok(None);
        };
        if length > limits.max_header_bytes {
            return Err(Wrong::TooLarge);
        }
        if target.len() > target::LONGEST {
            return Err(Wrong::TargetTooLong);
        }
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| Wrong::Malformed("the request's method is none"))?;
        places.note(read, parsed.headers);
        Ok(Some(Self {
            length,
            method,
            target: Place::within(read, target.as_bytes()),
            is_old: version == 0,
        }))
    }
}

/// What the fields of a head say about its connection and its body.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    /// There is a transfer coding; whether the last one is `chunked`.
    coding: Option<bool>,
    /// Codings are said in a way that others may read differently.
    is_ambiguous: bool,
    close: bool,
    keep_alive: bool,
    expects: bool,
    upgrades: bool,
    takes_trailers: bool,
}

impl Said {
    /// Takes the fields over into the map.
    fn gather(
        places: &Places,
        text: &bytes::Bytes,
        is_old: bool,
        headers: &mut HeaderMap,
    ) -> Result<Self, Wrong> {
        let mut said = Self::default();
        headers.reserve(places.len());
        for field in places.fields(text) {
            let (name, value) = field.ok_or(Wrong::Malformed("a header field is malformed"))?;
            if name == CONTENT_LENGTH {
                let agreed = agreed(said.length, &value);
                let length = agreed.map_err(|_| Wrong::Malformed("the Content-Length is none"))?;
                if said.length.replace(length).is_some() {
                    continue;
                }
            } else if name == TRANSFER_ENCODING {
                if is_old {
                    return Err(Wrong::Malformed("HTTP/1.0 has no transfer codings"));
                }
                said.is_ambiguous |=
                    said.coding.is_some() || value.as_bytes().len() != b"chunked".len();
                said.coding = Some(ends_chunked(&value));
            } else if name == CONNECTION {
                said.close |= says(&value, "close");
                said.keep_alive |= says(&value, "keep-alive");
            } else if name == EXPECT {
                said.expects = value.as_bytes().eq_ignore_ascii_case(b"100-continue");
            } else if name == UPGRADE {
                said.upgrades = true;
            } else if name == TE {
                said.takes_trailers |= says(&value, "trailers");
            }
            headers.append(name, value);
        }
        if said.coding.is_some() && said.length.is_some() {
            // RFC 9112 §6.3: the coding overrides the length, which then is not passed on.
            headers.remove(CONTENT_LENGTH);
        }
        Ok(said)
    }

    /// The body that follows (RFC 9112 §6.3).
    fn rest(&self) -> Result<Rest, Wrong> {
        match (self.coding, self.length) {
            (Some(true), _) => Ok(Rest::chunked()),
            (Some(false), _) => Err(Wrong::Malformed(
                "a body with a transfer coding ends with chunked",
            )),
            (None, length) => Ok(Rest::exactly(length.unwrap_or_default())),
        }
    }

    /// Whether another request may follow. Not if two readers could disagree where this one ends.
    fn keeps(&self, is_old: bool) -> bool {
        let has_both = self.coding.is_some() && self.length.is_some();
        !self.close && !has_both && !self.is_ambiguous && (!is_old || self.keep_alive)
    }
}

/// Whether the last of these codings is `chunked`.
fn ends_chunked(codings: &HeaderValue) -> bool {
    let last = codings.as_bytes().rsplit(|byte| *byte == b',').next();
    last.is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

fn sentence(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "the name of a header field is malformed",
        httparse::Error::HeaderValue => "the value of a header field is malformed",
        httparse::Error::Version => {
            "the only versions spoken here are HTTP/1.0, HTTP/1.1 and HTTP/2"
        }
        httparse::Error::NewLine => "a line of the request's head does not end as it should",
        _ => "this is not a request of HTTP",
    }
}
