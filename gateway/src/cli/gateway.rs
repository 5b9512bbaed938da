//! A gateway, seen by a client: its address, and requests to it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

const DEFAULT: &str = "http://127.0.0.1:8080";
/// How long a gateway may take to be reached, and to answer.
const TO_CONNECT: Duration = Duration::from_secs(5);
const TO_ANSWER: Duration = Duration::from_secs(60);
/// The most that is kept of an answer that is read whole.
const MOST: usize = 256 << 20;

/// A gateway.
pub(super) struct Gateway {
    authority: Authority,
    prefix: String,
    login: Option<HeaderValue>,
}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Gateway {
    /// The gateway of this address, or else of the environment's.
    ///
    /// # Errors
    /// A sentence that says what an address looks like.
    pub(super) fn find(
        given: Option<&str>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let named = || {
            env("skep_gateway")
                .or_else(|| env("OPENFAAS_URL"))
                .filter(|url| !url.is_empty())
        };
        let url = given
            .map(str::to_owned)
            .or_else(named)
            .unwrap_or_else(|| DEFAULT.to_owned());
        Self::parse(&url)
    }

    fn parse(url: &str) -> Result<Self, String> {
        let wrong = || {
            "a gateway's address looks like http://host:port, or http://user:password@host:port (https is not spoken here)".to_owned()
        };
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        let authority: Authority = host.parse().map_err(|_| wrong())?;
        let login = login.map(|login| {
            let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(login)))
                .map_err(|_| wrong())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        Ok(Self {
            authority,
            prefix: if path.trim_end_matches('/').is_empty() {
                String::new()
            } else {
                format!("/{}", path.trim_end_matches('/'))
            },
            login: login.transpose()?,
        })
    }

    /// Its address, without a login.
    pub(super) fn address(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// Sends a request of the management API, and returns its answer if it is a success.
    ///
    /// # Errors
    /// What the gateway says, or why it says nothing.
    pub(super) async fn manage(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, String> {
        self.ask(method, path, body).await?.success()
    }

    /// The same, whatever the answer's status.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let mut headers = Vec::new();
        if body.is_some() {
            headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        headers.extend(self.login.clone().map(|login| (AUTHORIZATION, login)));
        let response = self.send(method, path, headers, bytes.into()).await?;
        whole(response).await
    }

    /// Starts a request of the management API whose answer comes bit by bit.
    ///
    /// # Errors
    /// What the gateway says, or why it says nothing.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, String> {
        let headers = self
            .login
            .clone()
            .map(|login| (AUTHORIZATION, login))
            .into_iter()
            .collect();
        let response = self.send(Method::GET, path, headers, Bytes::new()).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        whole(response).await?.success()?;
        Err("the gateway answered with neither a success nor an error".to_owned())
    }

    /// Sends any request. The head of its answer is waited for.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let away = |why: String| format!("no answer from {}: {why}", self.address());
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header(HOST, self.authority.as_str())
            .header(USER_AGENT, crate::SERVED_BY)
            .body(Full::new(body))
            .map_err(|error| format!("this cannot be asked: {error}"))?;
        request.headers_mut().extend(headers);
        let port = self.authority.port_u16().unwrap_or(80);
        let host = self.authority.host().trim_matches(['[', ']']);
        let stream = tokio::time::timeout(TO_CONNECT, TcpStream::connect((host, port))).await;
        let stream = stream
            .map_err(|_| away(format!("not reached within {TO_CONNECT:?}")))?
            .map_err(|error| away(error.to_string()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| away(error.to_string()))?;
        // It ends with the answer's body.
        tokio::spawn(connection);
        let response = tokio::time::timeout(TO_ANSWER, sender.send_request(request)).await;
        response
            .map_err(|_| away(format!("nothing within {TO_ANSWER:?}")))?
            .map_err(|error| away(error.to_string()))
    }
}

async fn whole(response: Response<Incoming>) -> Result<Answer, String> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MOST).collect().await;
    let body = body
        .map_err(|error| format!("the answer broke off: {error}"))?
        .to_bytes();
    Ok(Answer { status, body })
}

impl Answer {
    /// The body of a success.
    pub(super) fn success(self) -> Result<Bytes, String> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let said = String::from_utf8_lossy(&self.body);
        let hint = if self.status == StatusCode::UNAUTHORIZED {
            "; write it into the address: http://user:password@host:port"
        } else {
            ""
        };
        Err(format!("{}: {}{hint}", self.status.as_u16(), said.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_login_and_a_path() {
        let plain = Gateway::parse("http://host:8080").unwrap();
        assert_eq!(
            (
                plain.address().as_str(),
                plain.prefix.as_str(),
                plain.login.is_none()
            ),
            ("http://host:8080", "", true)
        );
        let full = Gateway::parse("http://admin:s3:cret@host/faas/").unwrap();
        assert_eq!(
            (full.address().as_str(), full.prefix.as_str()),
            ("http://host", "/faas")
        );
        assert_eq!(full.login.unwrap(), "Basic YWRtaW46czM6Y3JldA==");
        for bad in ["https://host", "host:8080", "http://", "http://a b"] {
            assert!(Gateway::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_flag_comes_before_the_environment() {
        let env = |name: &str| (name == "OPENFAAS_URL").then(|| "http://env:1".to_owned());
        assert_eq!(
            Gateway::find(Some("http://flag:1"), env).unwrap().address(),
            "http://flag:1"
        );
        assert_eq!(Gateway::find(None, env).unwrap().address(), "http://env:1");
        assert_eq!(Gateway::find(None, |_| None).unwrap().address(), DEFAULT);
    }
}
