//! An answer on its way from an endpoint: its head, what frames its body (RFC 9112 §6.3), the body.

use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use httparse::{ParserConfig, Status};
use hyper::body::{Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use hyper::{Response, StatusCode};
use tokio::net::TcpStream;

use super::Unanswered;
use super::reading::{Broken, Places, Reading, Rest, agreed, says};

/// The bytes that the head of an answer may have, and how many fields.
const LARGEST_HEAD: usize = 256 * 1024;
const MOST_FIELDS: usize = 128;
/// Heads like `103 Early Hints` that may come before the answer; they are not passed on.
const MOST_INTERIM: u8 = 8;

/// Answers on one connection, one after the other, and where in one it is.
#[derive(Default)]
pub(super) struct Receiving {
    reading: Reading,
    has_begun: bool,
    /// The request was a HEAD.
    is_to_head: bool,
    /// The other side will take another request after this answer.
    is_kept: bool,
    interim: u8,
}

impl Receiving {
    /// Begins with the answer to a request.
    pub(super) fn begin(&mut self, is_to_head: bool) {
        self.reading.begin();
        self.reading.expect(Rest::ToClose);
        self.has_begun = true;
        self.is_to_head = is_to_head;
        (self.is_kept, self.interim) = (false, 0);
    }

    /// Whether a request may follow: it is the first, or the last answer has ended and left nothing.
    pub(super) fn may_begin(&self) -> bool {
        !self.has_begun || self.is_kept_after_all()
    }

    /// Whether the answer has ended and left nothing, and the other side takes more on this connection.
    pub(super) fn is_kept_after_all(&self) -> bool {
        self.is_over() && self.is_kept && self.reading.len() == 0
    }

    pub(super) fn is_over(&self) -> bool {
        self.reading.is_over()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.reading.size_hint()
    }

    pub(super) fn take_rest(&mut self) -> BytesMut {
        self.reading.take_rest()
    }

    /// The head of the answer.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut TcpStream,
    ) -> Poll<Result<Response<()>, Unanswered>> {
        loop {
            while self.reading.may_have_a_head() {
                let head = self.head().map_err(Unanswered::Nonsense)?;
                let Some((head, framing)) = head else { break };
                if !head.status().is_informational()
                    || head.status() == StatusCode::SWITCHING_PROTOCOLS
                {
                    let rest = self.rest(head.status(), framing);
                    self.reading.expect(rest);
                    return Poll::Ready(Ok(head));
                }
                self.interim += 1;
                if self.interim > MOST_INTERIM {
                    return Poll::Ready(Err(Unanswered::Nonsense("too many interim answers")));
                }
            }
            if self.reading.len() > LARGEST_HEAD {
                return Poll::Ready(Err(Unanswered::Nonsense("its head is too large")));
            }
            let has_begun = self.reading.len() > 0 || self.interim > 0;
            let closed = |error| match has_begun {
                // The other side has done something with the request.
                true => Unanswered::Nonsense("the connection ended within the head of the answer"),
                false => Unanswered::Closed(error),
            };
            let read = ready!(self.reading.poll_read(cx, io));
            if read.map_err(|error| closed(Some(error)))? == 0 {
                return Poll::Ready(Err(closed(None)));
            }
        }
    }

    /// The next piece of the body, or its end.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut TcpStream,
    ) -> Poll<Option<Result<Frame<Bytes>, Unanswered>>> {
        self.reading.poll_frame(cx, io).map_err(Unanswered::from)
    }

    /// Takes a head out of what was read; `None` if it is not whole.
    fn head(&mut self) -> Result<Option<(Response<()>, Framing)>, &'static str> {
        let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let read = self.reading.unread();
        if matches!(read, [b'\r' | b'\n', ..]) {
            // The parser would skip it; for other readers the answer begins there.
            return Err("an empty line before its status line");
        }
        let status = ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            read,
            &mut fields,
        );
        let length = match status {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => {
                self.reading.has_no_head();
                return Ok(None);
            }
            Err(httparse::Error::TooManyHeaders) => return Err("its head has too many fields"),
            Err(_) => return Err("malformed head"),
        };
        let status = parsed.code.map(StatusCode::from_u16);
        let Some(Ok(status)) = status else {
            return Err("malformed status");
        };
        let mut head = Response::new(());
        *head.status_mut() = status;
        if let Some(reason) = parsed
            .reason
            .filter(|reason| !reason.is_empty() && Some(*reason) != status.canonical_reason())
            && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
        {
            head.extensions_mut().insert(reason);
        }
        let is_first_version = parsed.version != Some(1);
        let mut places = Places::default();
        places.note(read, parsed.headers);
        let text = self.reading.take(length);
        let headers = head.headers_mut();
        headers.reserve(places.len());
        let mut says_close = is_first_version;
        let mut framing = Framing::default();
        for field in places.fields(&text) {
            let (name, value) = field.ok_or("malformed field")?;
            if name == CONNECTION {
                says_close |= says(&value, "close");
                if matches!(value.as_bytes(), b"close" | b"keep-alive") {
                    // That was all it had to say, and it was said to us.
                    continue;
                }
            } else if name == CONTENT_LENGTH {
                framing.length = Some(agreed(framing.length, &value)?);
            } else if name == TRANSFER_ENCODING {
                framing.chunk(&value)?;
            }
            headers.append(name, value);
        }
        // RFC 9112 §6.3: two readers could disagree where such an answer ends.
        let has_both = framing.is_chunked && framing.length.is_some();
        self.is_kept = !says_close && !has_both;
        if is_first_version && framing.is_chunked {
            return Err("HTTP/1.0 with a transfer coding");
        }
        Ok(Some((head, framing)))
    }

    /// The body that follows a head.
    fn rest(&mut self, status: StatusCode, framing: Framing) -> Rest {
        match (status, framing) {
            (StatusCode::SWITCHING_PROTOCOLS, _) => {
                // What follows is no longer HTTP's.
                self.is_kept = false;
                Rest::Over
            }
            (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => Rest::Over,
            _ if self.is_to_head => Rest::Over,
            (_, framing) if framing.is_chunked => Rest::chunked(),
            (
                _,
                Framing {
                    length: Some(length),
                    ..
                },
            ) => Rest::exactly(length),
            _ => {
                self.is_kept = false;
                Rest::ToClose
            }
        }
    }
}

/// What a head says of the end of its body.
#[derive(Clone, Copy, Default)]
struct Framing {
    length: Option<u64>,
    is_chunked: bool,
}

impl Framing {
    fn chunk(&mut self, coding: &HeaderValue) -> Result<(), &'static str> {
        if self.is_chunked || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("a transfer coding that is not chunked");
        }
        self.is_chunked = true;
        Ok(())
    }
}

impl From<Broken> for Unanswered {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Nonsense(what) => Self::Nonsense(what),
            Broken::Closed(error) => Self::Closed(error),
        }
    }
}
