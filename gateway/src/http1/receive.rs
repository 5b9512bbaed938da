//! An answer on its way from an endpoint: its head, what frames its body (RFC 9112 §6.3), the body.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use httparse::{ParserConfig, Status};
use hyper::body::{Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{Response, StatusCode};
use tokio::net::TcpStream;

use super::chunks::{Chunks, Found};
use super::{Unanswered, poll_read};

/// The bytes that the head of an answer may have, and how many fields.
const LARGEST_HEAD: usize = 256 * 1024;
const MOST_FIELDS: usize = 128;
/// Heads like `103 Early Hints` that may come before the answer; they are not passed on.
const MOST_INTERIM: u8 = 8;
/// How much is read at once: little at first, more while it comes in full.
const FIRST_READ: usize = 4 * 1024;
const LARGEST_READ: usize = 64 * 1024;

/// What was read on one connection, and where in an answer it is.
#[derive(Default)]
pub(super) struct Receiving {
    read: BytesMut,
    room: usize,
    state: State,
    /// The request was a HEAD.
    is_to_head: bool,
    /// The other side will take another request after this answer.
    is_kept: bool,
    /// So much of an unfinished head has been looked through for its end.
    seen: usize,
    interim: u8,
}

#[derive(Default)]
enum State {
    Head,
    /// So much of the body is to come.
    Exact(u64),
    Chunked(Chunks),
    /// Until the connection is closed.
    ToClose,
    #[default]
    Over,
}

impl Receiving {
    /// Begins with the answer to a request.
    pub(super) fn begin(&mut self, is_to_head: bool) {
        self.state = State::Head;
        self.room = FIRST_READ;
        self.is_to_head = is_to_head;
        (self.is_kept, self.seen, self.interim) = (false, 0, 0);
    }

    /// Whether a request may follow: it is the first, or the last answer has ended and left nothing.
    pub(super) fn may_begin(&self) -> bool {
        let is_first = self.room == 0;
        is_first || self.is_kept_after_all()
    }

    /// Whether the answer has ended and left nothing, and the other side takes more on this connection.
    pub(super) fn is_kept_after_all(&self) -> bool {
        self.is_over() && self.is_kept && self.read.is_empty()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.state {
            State::Over => SizeHint::with_exact(0),
            State::Exact(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }

    pub(super) fn into_rest(self) -> BytesMut {
        self.read
    }

    /// The head of the answer.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut TcpStream,
    ) -> Poll<Result<Response<()>, Unanswered>> {
        loop {
            while self.may_have_a_head() {
                let head = self.head().map_err(Unanswered::Nonsense)?;
                let Some((head, framing)) = head else { break };
                if !head.status().is_informational()
                    || head.status() == StatusCode::SWITCHING_PROTOCOLS
                {
                    self.state = self.body(head.status(), framing);
                    return Poll::Ready(Ok(head));
                }
                self.interim += 1;
                if self.interim > MOST_INTERIM {
                    return Poll::Ready(Err(Unanswered::Nonsense("too many interim answers")));
                }
            }
            if self.read.len() > LARGEST_HEAD {
                return Poll::Ready(Err(Unanswered::Nonsense("its head is too large")));
            }
            if ready!(self.poll_read(cx, io)).map_err(broken)? == 0 {
                return Poll::Ready(Err(Unanswered::Closed(None)));
            }
        }
    }

    /// The next piece of the body, or its end.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut TcpStream,
    ) -> Poll<Option<Result<Frame<Bytes>, Unanswered>>> {
        loop {
            match &mut self.state {
                State::Over | State::Exact(0) => {
                    self.state = State::Over;
                    return Poll::Ready(None);
                }
                State::Head => unreachable!("a body is polled after its head has come"),
                State::Exact(left) if !self.read.is_empty() => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let data = self.read.split_to(most.min(self.read.len())).freeze();
                    *left -= data.len() as u64;
                    if *left == 0 {
                        self.state = State::Over;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                State::ToClose if !self.read.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(self.read.split().freeze()))));
                }
                State::Chunked(chunks) => match chunks.next(&mut self.read) {
                    Ok(Found::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Found::End(trailers)) => {
                        self.state = State::Over;
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                    }
                    Ok(Found::Nothing) => {}
                    Err(what) => return Poll::Ready(Some(Err(Unanswered::Nonsense(what)))),
                },
                State::Exact(_) | State::ToClose => {}
            }
            match ready!(self.poll_read(cx, io)) {
                Ok(0) if matches!(self.state, State::ToClose) => self.state = State::Over,
                Ok(0) => return Poll::Ready(Some(Err(Unanswered::Closed(None)))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(broken(error)))),
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, io: &mut TcpStream) -> Poll<io::Result<usize>> {
        let read = ready!(poll_read(cx, io, &mut self.read, self.room))?;
        if read >= self.room {
            self.room = (self.room * 2).min(LARGEST_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// Whether it is worth while to look for a head: at what has come first, and again when an empty line has come.
    fn may_have_a_head(&self) -> bool {
        let new = &self.read[self.seen.saturating_sub(2).min(self.read.len())..];
        match self.seen {
            0 => !new.is_empty(),
            _ => {
                new.windows(2).any(|two| two == b"\n\n")
                    || new.windows(3).any(|three| three == b"\n\r\n")
            }
        }
    }

    /// Takes a head out of what was read; `None` if it is not whole.
    fn head(&mut self) -> Result<Option<(Response<()>, Framing)>, &'static str> {
        let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let read = &self.read[..];
        let status = ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            read,
            &mut fields,
        );
        let length = match status {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => {
                self.seen = read.len();
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
        // Values are pieces of what was read, not copies of it. Where they stand is noted, until the head is cut off.
        let mut places = [Place::default(); MOST_FIELDS];
        let count = parsed.headers.len();
        for (place, field) in places.iter_mut().zip(parsed.headers.iter()) {
            place.name = within(read, field.name.as_bytes());
            place.value = within(read, field.value);
        }
        let text = self.read.split_to(length).freeze();
        let headers = head.headers_mut();
        // With room for what the gateway adds.
        headers.reserve(count + 4);
        let mut says_close = is_first_version;
        let mut framing = Framing::default();
        for place in &places[..count] {
            let name = HeaderName::from_bytes(&text[range(place.name)]);
            let value = HeaderValue::from_maybe_shared(text.slice(range(place.value)));
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err("malformed field");
            };
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
        self.is_kept = !says_close;
        self.seen = 0;
        if is_first_version && framing.is_chunked {
            return Err("HTTP/1.0 with a transfer coding");
        }
        Ok(Some((head, framing)))
    }

    /// The body that follows a head.
    fn body(&mut self, status: StatusCode, framing: Framing) -> State {
        match (status, framing) {
            (StatusCode::SWITCHING_PROTOCOLS, _) => {
                // What follows is no longer HTTP's.
                self.is_kept = false;
                State::Over
            }
            (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => State::Over,
            _ if self.is_to_head => State::Over,
            (
                _,
                Framing {
                    is_chunked: true, ..
                },
            ) => State::Chunked(Chunks::begin()),
            (
                _,
                Framing {
                    length: Some(0), ..
                },
            ) => State::Over,
            (
                _,
                Framing {
                    length: Some(length),
                    ..
                },
            ) => State::Exact(length),
            _ => {
                self.is_kept = false;
                State::ToClose
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

/// Where a name and a value stand: first byte, and the one after the last.
#[derive(Clone, Copy, Default)]
struct Place {
    name: (u32, u32),
    value: (u32, u32),
}

fn within(whole: &[u8], piece: &[u8]) -> (u32, u32) {
    let start = piece.as_ptr().addr() - whole.as_ptr().addr();
    let at = |index: usize| u32::try_from(index).expect("a head is smaller than 4 GiB");
    (at(start), at(start + piece.len()))
}

fn range((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}

/// Whether a list has this token.
fn says(list: &HeaderValue, token: &str) -> bool {
    let tokens = list.to_str().unwrap_or_default().split(',');
    tokens
        .map(str::trim)
        .any(|one| one.eq_ignore_ascii_case(token))
}

/// The length that all `Content-Length` fields agree on.
fn agreed(before: Option<u64>, value: &HeaderValue) -> Result<u64, &'static str> {
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err("its Content-Length is no number");
    }
    let length = value.to_str().ok().and_then(|digits| digits.parse().ok());
    match (before, length) {
        (_, None) => Err("its Content-Length is too large"),
        (Some(before), Some(length)) if before != length => Err("it has two lengths"),
        (_, Some(length)) => Ok(length),
    }
}

fn broken(error: io::Error) -> Unanswered {
    Unanswered::Closed(Some(error))
}
