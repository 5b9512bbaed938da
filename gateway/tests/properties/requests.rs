//! Any bytes from a client, in any pieces: the gateway's reader of HTTP/1.1 finds the requests that another reader finds in the whole,
//! and answers each once, in order.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Frame, SizeHint};
use hyper::header::{CONNECTION, EXPECT, HeaderValue};
use hyper::{HeaderMap, Method, Response, Version};
use skep::drain::Drain;
use skep::incoming::{Asked, Incoming};
use skep::reply::{Body, BodyError};
use skep::server::{ConnectionLimits, connection};
use skep::told::{Answered, Ids};
use tokio::runtime::{Builder, Runtime};

use crate::choices::Choices;
use crate::line::{Aside, Line, run};
use crate::strict::{self, End, Message};
use crate::traffic;

/// Timers are made here, and never ring.
static TIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());
/// The place of a request on its connection.
const NTH: &str = "x-nth";

/// What is read of further requests while one is answered.
const MOST_AHEAD: usize = 16 * 1024;

/// What becomes of a request's body.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    /// It is read before the answer.
    Read,
    /// The same, by somebody who takes time.
    ReadLate,
    /// It is the answer.
    Echo,
    /// It is read by somebody else, perhaps after the answer.
    GiveAway,
    /// One piece is read.
    Begin,
    /// Nothing is.
    Drop,
}

const ALL_READ: [Act; 3] = [Act::Read, Act::ReadLate, Act::Echo];
const ANY: [Act; 6] = [
    Act::Read,
    Act::ReadLate,
    Act::Echo,
    Act::GiveAway,
    Act::Begin,
    Act::Drop,
];

pub fn check(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    let mut choices = Choices::new(rest);
    let limits = ConnectionLimits {
        read_timeout: Duration::from_secs(3600),
        write_timeout: Duration::from_secs(3600),
        max_header_bytes: choices.of(&[16 * 1024, 16 * 1024, 300, 1500]),
        max_headers: choices.of(&[100, 10, 120]),
    };
    let plan: [u8; 4] = choices.array();
    let pieces: [u8; 5] = choices.array();
    let takes = choices.of(&[usize::MAX, 10, 100, 700]);
    let filler = choices.byte();
    let sent = if which % 4 == 0 {
        rest.to_vec()
    } else {
        traffic::made(&mut choices)
    };
    let mut case = Case::of(sent, limits);
    let acts = |known: &[Act]| {
        plan.iter()
            .map(|byte| known[usize::from(*byte) % known.len()])
            .collect()
    };
    let pieces: Vec<_> = pieces
        .iter()
        .map(|byte| 1 + usize::from(byte % 64))
        .collect();
    let whole = vec![case.sent.len().max(1)];
    // Byte by byte, as long as that takes no time.
    let least = vec![1 + case.sent.len() / 500];
    let reading: Vec<Act> = acts(&ALL_READ);
    for (pieces, takes) in [(&whole, usize::MAX), (&least, takes), (&pieces, takes)] {
        case.is_read(pieces, takes, &reading);
    }
    case.is_read_in_part(&pieces, takes, &acts(&ANY));
    if matches!(case.end, End::OfBytes | End::Refused) && filler != b'\n' {
        // Somebody who never comes to an end is refused.
        let most = case.sent.len().max(case.at + limits.max_header_bytes);
        case.sent.resize(most + 1000, filler);
        let case = Case::of(case.sent, limits);
        let seen = case.is_read(&[250], usize::MAX, &reading);
        // While an answer waits to be taken, so much is read behind its request.
        let ahead = if case.at > 0 { MOST_AHEAD } else { 0 };
        let read = seen.line.read_before();
        assert!(seen.is_refused && read <= most.max(case.at + ahead) + 250);
    }
}

/// What a client sends, and what is to be found in it.
struct Case {
    sent: Vec<u8>,
    limits: ConnectionLimits,
    expected: Vec<Message>,
    end: End,
    at: usize,
}

/// What came of it.
struct Seen {
    line: Line,
    messages: Vec<Message>,
    answers: usize,
    is_refused: bool,
    /// The last answer says so, or breaks off.
    is_closed: bool,
}

impl Case {
    fn of(mut sent: Vec<u8>, limits: ConnectionLimits) -> Self {
        let (expected, end, at) = strict::read(&sent, limits.max_header_bytes, limits.max_headers);
        if end == End::Http2 {
            sent.truncate(at + strict::PREFACE.len());
        }
        Self {
            sent,
            limits,
            expected,
            end,
            at,
        }
    }

    /// Whoever reads all bodies gets all requests, and no more than those.
    fn is_read(&self, pieces: &[usize], takes: usize, acts: &[Act]) -> Seen {
        let seen = self.run(pieces, takes, acts);
        assert_eq!(seen.messages, self.expected);
        assert!(seen.answers == seen.messages.len() || self.end == End::OfBody);
        let left = &self.sent[self.at..];
        let is_too_large = left.len() > self.limits.max_header_bytes;
        let has_begun = left.iter().any(|byte| !b"\r\n".contains(byte));
        match self.end {
            End::OfBytes => assert_eq!(seen.is_refused, is_too_large || has_begun),
            End::Refused => assert!(seen.is_refused),
            End::OfBody | End::Said | End::Http2 => assert!(!seen.is_refused),
        }
        let is_told = seen.line.has_closed() || seen.is_closed;
        assert!(is_told, "the connection ends without a word");
        seen
    }

    /// Whoever does not may get fewer.
    fn is_read_in_part(&self, pieces: &[usize], takes: usize, acts: &[Act]) {
        let seen = self.run(pieces, takes, acts);
        assert!(seen.messages.len() <= self.expected.len());
        for (seen, expected) in seen.messages.into_iter().zip(&self.expected) {
            let (body, whole) = (&seen.body, &expected.body);
            assert!(whole.data.starts_with(&body.data));
            assert!(!body.is_whole || body == whole);
            let body = whole.clone();
            assert_eq!(&Message { body, ..seen }, expected);
        }
    }

    fn run(&self, pieces: &[usize], takes: usize, acts: &[Act]) -> Seen {
        let line = Line::new(&self.sent, pieces.to_vec(), takes);
        let (aside, messages) = (Aside::default(), Messages::default());
        let service = {
            let (line, aside, messages, acts) =
                (line.clone(), aside.clone(), messages.clone(), acts.to_vec());
            move |asked: Asked| {
                let body = messages.note(*asked);
                let act = act(&acts, body.nth, &messages.0.lock().unwrap()[body.nth]);
                answer(act, body, line.clone(), aside.clone())
            }
        };
        let drain = Drain::default();
        let _entered = TIME.enter();
        let connection = connection(line.clone(), service, self.limits, drain.guest(), ());
        run(&line, connection, &aside);
        let messages = std::mem::take(&mut *messages.0.lock().unwrap());
        let mut seen = Seen {
            line,
            messages,
            answers: 0,
            is_refused: false,
            is_closed: false,
        };
        if self.end == End::Http2 {
            seen.is_closed = true;
        } else {
            seen.read_answers(acts);
        }
        seen
    }
}

impl Seen {
    /// There is one for each request, in their order; whatever is not says that it is the last.
    fn read_answers(&mut self, acts: &[Act]) {
        let got = self.line.got();
        let (mut left, mut words) = (&got[..], 0);
        while !left.is_empty() {
            assert!(!self.is_closed, "something follows the last answer");
            let asked = self.messages.get(self.answers);
            let is_to_head = asked.is_some_and(|asked| asked.method == Method::HEAD);
            let Some(answer) = strict::answer(left, is_to_head) else {
                break;
            };
            left = &left[answer.length..];
            if answer.code == 100 {
                words += 1;
                continue;
            }
            self.is_closed = answer.is_last;
            let field = answer.headers.get(NTH);
            let Some(nth) = field.map(|nth| nth.to_str().unwrap().parse::<usize>().unwrap()) else {
                self.is_refused = true;
                assert!(matches!(answer.code, 400 | 414 | 431) && answer.is_last);
                continue;
            };
            assert_eq!(nth, self.answers);
            self.answers += 1;
            let (body, asked) = (answer.body, &self.messages[nth]);
            if act(acts, nth, asked) == Act::Echo {
                let sent = &asked.body;
                assert!(sent.data.starts_with(&body.data));
                assert!(!sent.is_whole || body.is_whole && body.data.len() == sent.data.len());
            } else if !is_to_head {
                assert!(body.is_whole && body.data == nth.to_string().as_bytes());
            }
        }
        let last = self.messages.len().wrapping_sub(1);
        let broken = self.messages.last().filter(|asked| !asked.body.is_whole);
        // Such an answer breaks off, too.
        let broken = broken.filter(|asked| act(acts, last, asked) == Act::Echo);
        self.is_closed |= broken.is_some();
        // Where nothing but the close says where it ends, that does not look like an end.
        let has_no_end = |asked: &Message| asked.is_old && !says_length(&asked.headers);
        assert_eq!(self.line.is_cut(), broken.is_some_and(has_no_end));
        let waits = |asked: &&Message| asked.headers.contains_key(EXPECT);
        assert!(words <= self.messages.iter().filter(waits).count());
    }
}

/// Whether the echo of a request with this head says how long it is, if it can. Without that one in HTTP/1.0 ends its connection.
fn says_length(headers: &HeaderMap) -> bool {
    headers.contains_key(CONNECTION)
}

/// What becomes of the body of this request, if it may: to a HEAD there is no body, and who waits for the word to send one gets an
/// answer in its place.
fn act(acts: &[Act], nth: usize, asked: &Message) -> Act {
    match acts[nth % acts.len()] {
        Act::Echo if asked.method == Method::HEAD || asked.headers.contains_key(EXPECT) => {
            Act::Read
        }
        act => act,
    }
}

async fn answer(act: Act, mut body: Noted, line: Line, aside: Aside) -> Answered {
    let nth = body.nth;
    let mut text = Body::from(nth.to_string());
    match act {
        Act::Echo => text = Body::stream(body),
        Act::Read => body.read().await,
        Act::ReadLate => {
            line.pause().await;
            body.read().await;
            line.pause().await;
        }
        Act::GiveAway => {
            aside.spawn(body.read());
            line.pause().await;
        }
        Act::Begin => drop(body.next().await),
        Act::Drop => drop(body),
    }
    let mut response = Response::new(text);
    response.headers_mut().insert(NTH, HeaderValue::from(nth));
    Answered {
        response,
        ids: Ids::of(None),
    }
}

/// The requests that were seen, with as much of their bodies as was read.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<Vec<Message>>>);

impl Messages {
    fn note(&self, asked: hyper::Request<Incoming>) -> Noted {
        let (head, incoming) = asked.into_parts();
        let mut messages = self.0.lock().unwrap();
        let nth = messages.len();
        let says_length = says_length(&head.headers);
        messages.push(Message {
            method: head.method,
            uri: head.uri,
            is_old: head.version == Version::HTTP_10,
            headers: head.headers,
            body: strict::Body {
                is_whole: incoming.is_end_stream(),
                ..strict::Body::default()
            },
        });
        Noted {
            incoming,
            nth,
            says_length,
            messages: self.clone(),
        }
    }
}

/// A body that is noted as it is read.
struct Noted {
    incoming: Incoming,
    nth: usize,
    says_length: bool,
    messages: Messages,
}

impl Noted {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await
    }

    async fn read(mut self) {
        while let Some(Ok(_)) = self.next().await {}
    }
}

impl hyper::body::Body for Noted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        let body = &mut self.messages.0.lock().unwrap()[self.nth].body;
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            body.data.extend(frame.data_ref().into_iter().flatten());
            body.trailers
                .extend(frame.trailers_ref().cloned().unwrap_or_default());
        }
        body.is_whole = self.incoming.is_end_stream();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.says_length {
            self.incoming.size_hint()
        } else {
            SizeHint::default()
        }
    }
}
