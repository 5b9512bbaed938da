//! One connection to an endpoint that can carry calls: one at a time over HTTP/1.1, many side by side over HTTP/2.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{TrySendError, http2};
use hyper::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use hyper::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use hyper::{Request, Response, Version};
use tokio::time::{Instant, timeout_at};

use crate::function::Protocol;
use crate::http1::{Http1, Unanswered};
use crate::reply::BodyError;
use crate::told::Told;
use crate::upload::{self, Upload};

/// A connection, ready to carry a request.
pub enum Connection {
    /// Carries one call after the other.
    One(Box<Http1>),
    /// Carries calls side by side; this is one of its handles.
    Many(Shared),
}

/// Requests that wait on one connection until the function takes another stream, those included whose callers have gone: hyper keeps
/// them all. A function that takes no more would fill the gateway's memory with them.
const MOST_QUEUED: usize = 10_000;

/// A handle to a connection that calls share.
#[derive(Clone)]
pub struct Shared {
    requests: http2::SendRequest<Upload>,
    queued: Arc<AtomicUsize>,
}

/// A request that waits for its stream, counted until it has that. It travels with the request.
#[derive(Clone)]
struct Queued {
    _counted: Arc<Counted>,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// The first handle to a connection.
    #[must_use]
    pub fn new(requests: http2::SendRequest<Upload>) -> Self {
        Self {
            requests,
            queued: Arc::default(),
        }
    }

    fn send(mut self, mut request: Request<Upload>) -> Waiting {
        let counted = Arc::new(Counted(self.queued.clone()));
        if self.queued.fetch_add(1, Ordering::Relaxed) >= MOST_QUEUED {
            return Waiting::Refused;
        }
        request
            .extensions_mut()
            .insert(Queued { _counted: counted });
        Waiting::Many(Box::pin(self.requests.try_send_request(request)))
    }
}

/// An answer's body as it comes; it holds the connection that it comes on.
pub enum Received {
    /// Nobody else is on it.
    One(Box<Http1>),
    /// Others are.
    Many(Incoming),
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum SendError {
    /// Nothing of it was sent: the cause.
    Unsent(String),
    /// The same, and another try on this connection would be in vain: the cause.
    Full(String),
    /// The caller's body did not come to its end.
    Caller(upload::Error),
    /// The other side says that it has processed nothing of it, and will not (RFC 9113 §8.7): the cause.
    Unprocessed(String),
    /// The connection ended before a byte of the answer came. It may have run: the cause.
    Closed(String),
    /// It may have run: the cause.
    Broken(String),
}

impl Connection {
    /// Whether a request can be sent at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::One(connection) => connection.is_free(),
            Self::Many(connection) => connection.requests.is_ready(),
        }
    }

    /// What is spoken on it.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::One(_) => Protocol::Http1,
            Self::Many(_) => Protocol::H2c,
        }
    }

    /// Another handle, if calls can share this connection.
    #[must_use]
    pub fn shared(&self) -> Option<Self> {
        match self {
            Self::One(_) => None,
            Self::Many(connection) => Some(Self::Many(connection.clone())),
        }
    }

    /// Begins a request, with what its function is told, if it is a call. It is sent while its answer is waited for.
    #[must_use]
    pub fn send<B>(self, head: &Request<B>, told: Option<&Told<'_>>, body: Upload) -> Waiting {
        match self {
            Self::One(mut connection) => {
                connection.begin(head, told, body);
                Waiting::One(connection)
            }
            Self::Many(connection) => connection.send(in_h2(head, told, body)),
        }
    }
}

/// What becomes of a request sent over HTTP/2.
type Coming =
    Pin<Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload>>>> + Send>>;

/// A request whose answer has not come yet.
pub enum Waiting {
    /// On a connection of its own.
    One(Box<Http1>),
    /// On one that calls share.
    Many(Coming),
    /// Too many wait on that already.
    Refused,
}

impl Waiting {
    /// The head of the answer, or why there is none.
    ///
    /// # Errors
    /// It has not come by then, and may still.
    pub async fn answer_by(
        self,
        due: Instant,
    ) -> Result<Result<Response<Received>, SendError>, Self> {
        match self {
            Self::One(mut connection) => match connection.answer_by(due).await {
                None => Err(Self::One(connection)),
                Some(Ok(answer)) => Ok(Ok(answer.map(|()| Received::One(connection)))),
                Some(Err(error)) => Ok(Err(error.into())),
            },
            Self::Refused => {
                let what = format!("{MOST_QUEUED} requests wait for a stream already");
                Ok(Err(SendError::Full(what)))
            }
            Self::Many(mut coming) => match timeout_at(due, &mut coming).await {
                Err(_elapsed) => Err(Self::Many(coming)),
                Ok(Ok(answer)) => Ok(Ok(answer.map(Received::Many))),
                Ok(Err(mut error)) => Ok(Err(match error.take_message() {
                    Some(_unsent) => SendError::Unsent(error.error().to_string()),
                    None => unanswered(error.error()),
                })),
            },
        }
    }
}

impl From<Unanswered> for SendError {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Unsent(error) => Self::Unsent(error.to_string()),
            Unanswered::Caller(error) => Self::Caller(error),
            Unanswered::Closed(None) => {
                Self::Closed("it closed the connection before it answered".to_owned())
            }
            why @ Unanswered::Closed(Some(_)) => Self::Closed(why.to_string()),
            why => Self::Broken(why.to_string()),
        }
    }
}

/// What hyper says of a request that has no answer.
fn unanswered(error: &hyper::Error) -> SendError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if error.is_user() {
        // A body's own error is in there, as it was.
        return match std::error::Error::source(error).and_then(|body| body.downcast_ref()) {
            Some(upload::Overrun(most)) => SendError::Caller(Box::new(upload::Overrun(*most))),
            None => SendError::Caller(text.into()),
        };
    }
    let cause = std::error::Error::source(error);
    let stream = cause.and_then(|cause| cause.downcast_ref());
    if stream.is_some_and(is_unprocessed) {
        return SendError::Unprocessed(format!("it did not take the request ({text})"));
    }
    let what = format!("it closed the connection before it answered ({text})");
    // hyper takes an error of the connection itself out of h2's.
    if cause.is_some_and(|cause| cause.is::<std::io::Error>()) {
        SendError::Closed(what)
    } else {
        SendError::Broken(what)
    }
}

/// Whether the other side says of a stream that it has done nothing for it (RFC 9113 §8.7). A GOAWAY without an error ends only the
/// streams above the last one that it names; of one with an error h2 does not tell which.
fn is_unprocessed(cause: &h2::Error) -> bool {
    let reason = cause.reason().filter(|_| cause.is_remote());
    match reason {
        Some(h2::Reason::NO_ERROR) => cause.is_go_away(),
        Some(h2::Reason::REFUSED_STREAM) => cause.is_reset(),
        _ => false,
    }
}

impl Received {
    /// What becomes of the connection, once the body has ended. One that calls share is kept elsewhere.
    #[must_use]
    pub fn after(self) -> After {
        match self {
            Self::One(connection) if connection.is_ahead() => After::Ahead(connection),
            Self::One(connection) if connection.is_free() => {
                After::Free(Connection::One(connection))
            }
            Self::One(_) => After::Spent,
            Self::Many(_) => After::Shared,
        }
    }
}

/// A connection whose answer has ended.
pub enum After {
    /// Another request can follow.
    Free(Connection),
    /// The request goes on: its answer came early.
    Ahead(Box<Http1>),
    /// Calls share it, and it is kept elsewhere. The request may go on: its answer came early.
    Shared,
    /// No other request can follow.
    Spent,
}

impl Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::One(connection) => connection.poll_frame(cx).map_err(Into::into),
            Self::Many(body) => poll_shared(body, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::One(connection) => connection.is_end_stream(),
            Self::Many(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::One(connection) => connection.size_hint(),
            Self::Many(body) => body.size_hint(),
        }
    }
}

/// The next piece of an answer over HTTP/2. It ends where its stream says so and nowhere else: hyper takes a reset with NO_ERROR, and
/// a GOAWAY that gives the stream up, for the end of it.
fn poll_shared(
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Ready(None) if !body.is_end_stream() => {
            let what = "it gave its stream up before the end of the answer";
            Poll::Ready(Some(Err(what.into())))
        }
        polled => polled.map_err(Into::into),
    }
}

/// A request in the words of HTTP/2: the host stands in the target, and framing is the protocol's own.
fn in_h2<A, B>(head: &Request<A>, told: Option<&Told<'_>>, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method().clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers().clone();
    let headers = request.headers_mut();
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    let host = headers.remove(HOST);
    let authority = host
        .as_ref()
        .and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if let Some(told) = told {
        told.put_on(headers, host);
    }
    let path = head.uri().path_and_query().cloned();
    let mut target = hyper::http::uri::Parts::default();
    target.scheme = Some(Scheme::HTTP);
    target.authority = Some(authority.unwrap_or_else(|| Authority::from_static("function")));
    target.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Ok(target) = Uri::from_parts(target) {
        *request.uri_mut() = target;
    }
    request
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use hyper::Method;
    use hyper::header::HeaderValue;

    use super::*;
    use crate::connect::connect;
    use crate::function::Protocol;
    use crate::told::Ids;

    #[tokio::test]
    async fn requests_that_wait_for_a_stream_are_bounded() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let limit = std::time::Duration::from_secs(5);
        let connection = connect(Protocol::H2c, to, limit).await.ok().unwrap();
        let send = || {
            let connection = connection.shared().unwrap();
            connection.send(&Request::get("/").body(()).unwrap(), None, Upload::empty())
        };
        // Nothing of it is polled, so that none gets its stream.
        let waiting: Vec<_> = (0..MOST_QUEUED).map(|_| send()).collect();
        assert!(matches!(waiting.last(), Some(Waiting::Many(_))));
        assert!(matches!(send(), Waiting::Refused));
        drop(waiting);
        tokio::task::yield_now().await;
        assert!(matches!(send(), Waiting::Many(_)), "those have been let go");
    }

    #[test]
    fn the_host_becomes_the_authority_and_framing_is_left_behind() {
        let request = Request::post("/a%2Fb?c=d")
            .header(HOST, "shop.example:80")
            .header(TRANSFER_ENCODING, "chunked")
            .header("te", "trailers")
            .body(());
        let ids = Ids::of(None);
        let told = Told {
            ids: &ids,
            list: Cow::Owned(HeaderValue::from_static("192.0.2.7")),
            proto: "http",
            host: None,
        };
        let request = in_h2(&request.unwrap(), Some(&told), ());
        assert_eq!(request.uri(), "http://shop.example:80/a%2Fb?c=d");
        assert_eq!(
            (request.method(), request.headers().len()),
            (&Method::POST, 6)
        );
        assert_eq!(request.headers()["x-forwarded-host"], "shop.example:80");
        let nameless = Request::get("/").body(()).unwrap();
        let nameless = in_h2(&nameless, None, ());
        assert_eq!(nameless.uri(), "http://function/");
    }
}
