//! One connection to an endpoint that can carry calls: one at a time over HTTP/1.1, many side by side over HTTP/2.

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use hyper::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use hyper::{Request, Response, Version};

use crate::upload::Upload;

/// A connection, ready to carry a request.
pub enum Connection {
    /// Carries one call after the other.
    One(http1::SendRequest<Upload>),
    /// Carries calls side by side; this is one of its handles.
    Many(http2::SendRequest<Upload>),
}

impl Connection {
    /// Whether a request can be sent at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::One(connection) => connection.is_ready(),
            Self::Many(connection) => connection.is_ready(),
        }
    }

    /// Whether it can carry nothing any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match self {
            Self::One(connection) => connection.is_closed(),
            Self::Many(connection) => connection.is_closed(),
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

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// The request comes back if nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        match self {
            Self::One(connection) => connection.try_send_request(request).await,
            Self::Many(connection) => connection.try_send_request(in_h2(request)).await,
        }
    }
}

/// A request in the words of HTTP/2: the host stands in the target, and framing is the protocol's own.
fn in_h2<B>(mut request: Request<B>) -> Request<B> {
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    let host = headers.remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let path = request.uri().path_and_query().cloned();
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
    use super::*;

    #[test]
    fn the_host_becomes_the_authority_and_framing_is_left_behind() {
        let request = Request::post("/a%2Fb?c=d")
            .header(HOST, "shop.example:80")
            .header(TRANSFER_ENCODING, "chunked")
            .header("te", "trailers")
            .body(());
        let request = in_h2(request.unwrap());
        assert_eq!(request.uri(), "http://shop.example:80/a%2Fb?c=d");
        assert_eq!(request.headers().len(), 1);
        let nameless = in_h2(Request::get("/").body(()).unwrap());
        assert_eq!(nameless.uri(), "http://function/");
    }
}
