//! A gateway, seen by a client: its address, and requests to it.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::Tls;

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
    // For https.
    tls: Option<Tls>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// When the gateway sent it, by its own clock.
    pub(super) date: Option<SystemTime>,
}

impl Gateway {
    /// The gateway of this address, or else of the environment's; for https, of whom this file's certificates vouch.
    ///
    /// # Errors
    /// A sentence that says what an address looks like, or what is wrong with the file.
    pub(super) fn find(
        given: Option<&str>,
        ca: Option<&Path>,
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
        let ca = ca.map(Path::to_owned).or_else(|| {
            env("skep_ca")
                .filter(|file| !file.is_empty())
                .map(Into::into)
        });
        Self::parse(&url, ca.as_deref())
    }

    fn parse(url: &str, ca: Option<&Path>) -> Result<Self, String> {
        let wrong = || {
            "a gateway's address looks like http://host:port, https://host or https://user:password@host:port".to_owned()
        };
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (None, rest),
            Some(("https", rest)) => (Some(Tls::trusting(ca)?), rest),
            _ => return Err(wrong()),
        };
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
            tls,
        })
    }

    /// Its address, without a login.
    pub(super) fn address(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
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
        let stream = self.connect().await.map_err(away)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| away(error.to_string()))?;
        // It ends with the answer's body.
        tokio::spawn(connection);
        let response = tokio::time::timeout(TO_ANSWER, sender.send_request(request)).await;
        response
            .map_err(|_| away(format!("nothing within {TO_ANSWER:?}")))?
            .map_err(|error| match (error.is_parse(), &self.tls) {
                (true, None) => away(format!(
                    "{error}: what listens there may speak TLS: write https://"
                )),
                _ => away(error.to_string()),
            })
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let connected = async {
            let stream = self.dial().await?;
            Ok(match &self.tls {
                None => Box::new(stream) as Box<dyn Stream>,
                Some(tls) => Box::new(tls.connect(self.host(), stream).await?),
            })
        };
        let connected = tokio::time::timeout(TO_CONNECT, connected).await;
        connected.map_err(|_| format!("not reached within {TO_CONNECT:?}"))?
    }

    async fn dial(&self) -> Result<TcpStream, String> {
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = self.authority.port_u16().unwrap_or(default);
        let stream = TcpStream::connect((self.host(), port)).await;
        stream.map_err(|error| error.to_string())
    }

    fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// Whether it refuses a management request without a login.
    pub(super) async fn asks_for_a_login(&self) -> bool {
        let asked = self.send(Method::GET, "/system/info", Vec::new(), Bytes::new());
        asked
            .await
            .is_ok_and(|answer| answer.status() == StatusCode::UNAUTHORIZED)
    }

    /// Whether a login is sent to another machine without TLS.
    pub(super) fn is_overheard(&self) -> bool {
        let own = self.host().parse::<IpAddr>().map(|ip| ip.is_loopback());
        let is_own = own.unwrap_or(self.host() == "localhost");
        self.login.is_some() && self.tls.is_none() && !is_own
    }

    /// When its certificate ends; nothing without one, or if that is out of sight.
    ///
    /// # Errors
    /// Why it was not reached.
    pub(super) async fn certificate_ends(&self) -> Result<Option<SystemTime>, String> {
        let Some(tls) = &self.tls else {
            return Ok(None);
        };
        let connected = async { tls.connect(self.host(), self.dial().await?).await };
        let connected = tokio::time::timeout(TO_CONNECT, connected).await;
        let stream = connected.map_err(|_| format!("not reached within {TO_CONNECT:?}"))??;
        Ok(tls.end_of(self.host(), &stream))
    }
}

async fn whole(response: Response<Incoming>) -> Result<Answer, String> {
    let status = response.status();
    let date = response.headers().get(DATE);
    let date = date
        .and_then(|date| date.to_str().ok())
        .and_then(|date| httpdate::parse_http_date(date).ok());
    let body = Limited::new(response.into_body(), MOST).collect().await;
    let body = body
        .map_err(|error| format!("the answer broke off: {error}"))?
        .to_bytes();
    Ok(Answer { status, body, date })
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
        let plain = Gateway::parse("http://host:8080", None).unwrap();
        assert_eq!(
            (
                plain.address().as_str(),
                plain.prefix.as_str(),
                plain.login.is_none()
            ),
            ("http://host:8080", "", true)
        );
        let full = Gateway::parse("http://admin:s3:cret@host/faas/", None).unwrap();
        assert_eq!(
            (full.address().as_str(), full.prefix.as_str()),
            ("http://host", "/faas")
        );
        assert_eq!(full.login.unwrap(), "Basic YWRtaW46czM6Y3JldA==");
        for bad in ["ftp://host", "host:8080", "http://", "http://a b"] {
            assert!(Gateway::parse(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_flag_comes_before_the_environment() {
        let env = |name: &str| (name == "OPENFAAS_URL").then(|| "http://env:1".to_owned());
        assert_eq!(
            Gateway::find(Some("http://flag:1"), None, env)
                .unwrap()
                .address(),
            "http://flag:1"
        );
        assert_eq!(
            Gateway::find(None, None, env).unwrap().address(),
            "http://env:1"
        );
        assert_eq!(
            Gateway::find(None, None, |_| None).unwrap().address(),
            DEFAULT
        );
    }
}
