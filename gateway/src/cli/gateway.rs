//! A gateway as its clients see it: address, credentials, requests.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, DATE, HOST, HeaderName, HeaderValue, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::command::At;
use super::credentials::{self, Credentials, Saved};
use super::tls::Tls;
use crate::auth::KEY_CHALLENGE;

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
    credentials: Option<Credentials>,
    /// The credentials as a header.
    authorization: Option<HeaderValue>,
    /// For https.
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
    /// The gateway of this command: its address, its credentials, and the certificates to trust, each from the flag, else
    /// from the environment, else from what was saved or the default.
    ///
    /// # Errors
    /// A sentence that says what an address looks like, or which file cannot be used. It never has the URL, which may have a password.
    pub(super) fn find(at: &At, env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        Self::find_or(at, env, None)
    }

    /// The same, with another default for the address.
    pub(super) fn find_or(
        at: &At,
        env: impl Fn(&str) -> Option<String>,
        default: Option<&str>,
    ) -> Result<Self, String> {
        let named = |name: &str| env(name).filter(|value| !value.is_empty());
        let url = at
            .gateway
            .clone()
            .or_else(|| named("skep_gateway"))
            .or_else(|| named("OPENFAAS_URL"))
            .unwrap_or_else(|| default.unwrap_or(DEFAULT).to_owned());
        let ca = at.ca.clone().or_else(|| named("skep_ca").map(Into::into));
        let key = at.key.clone().or_else(|| named("skep_key"));
        let (mut gateway, in_url) = Self::parse(&url, ca.as_deref())?;
        let address = gateway.address();
        gateway.credentials = match (key, in_url) {
            (Some(key), _) => Some(Credentials::Key { key }),
            (None, Some(login)) => Some(login),
            (None, None) => {
                let saved = Saved::load(&env)?;
                let saved = saved.get(&address).cloned();
                saved.or_else(|| credentials::of_faas_cli(&address, &env))
            }
        };
        gateway.authorization = gateway
            .credentials
            .as_ref()
            .map(Credentials::header)
            .transpose()?;
        Ok(gateway)
    }

    /// Understands `[http[s]://][user:password@]host[:port][/prefix]`.
    fn parse(url: &str, ca: Option<&Path>) -> Result<(Self, Option<Credentials>), String> {
        let wrong = || {
            "a gateway's address looks like host:port, http://host:port, https://host or https://user:password@host".to_owned()
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => None,
            "https" => Some(Tls::trusting(ca)?),
            _ => return Err(wrong()),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        let authority: Authority = host.to_ascii_lowercase().parse().map_err(|_| wrong())?;
        let path = path.trim_matches('/');
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
        if authority.host().is_empty() || !path.bytes().all(is_plain) {
            return Err(wrong());
        }
        let decoded = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(Into::into).map_err(|_| wrong())
        };
        let login = login.map(|login| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let (user, password): (String, String) = (decoded(user)?, decoded(password)?);
            Ok::<_, String>(Credentials::of_login(&user, &password))
        });
        let gateway = Self {
            authority,
            prefix: if path.is_empty() {
                String::new()
            } else {
                format!("/{path}")
            },
            credentials: None,
            authorization: None,
            tls,
        };
        Ok((gateway, login.transpose()?))
    }

    /// The same gateway, asked with other credentials.
    ///
    /// # Errors
    /// A sentence when no header can carry them.
    pub(super) fn with(self, credentials: &Credentials) -> Result<Self, String> {
        Ok(Self {
            authorization: Some(credentials.header()?),
            credentials: Some(credentials.clone()),
            ..self
        })
    }

    /// Its address as a client writes it, without credentials.
    pub(super) fn address(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.prefix)
    }

    /// Calls a function. A function that asks for an API key gets the call again with the key, if there is one here; the
    /// others never see it, because they are given the header as it was sent.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let key = match (&self.credentials, &self.authorization) {
            (Some(Credentials::Key { .. }), Some(key)) => key.clone(),
            _ => return self.send(method, path, headers, body).await,
        };
        let first = self.send(method.clone(), path, headers.clone(), body.clone());
        let first = first.await?;
        let asks_for_a_key = first.status() == StatusCode::UNAUTHORIZED
            && first.headers().get(WWW_AUTHENTICATE) == Some(&KEY_CHALLENGE)
            && headers.iter().all(|(name, _)| name != AUTHORIZATION);
        if !asks_for_a_key {
            return Ok(first);
        }
        let mut headers = headers;
        headers.push((AUTHORIZATION, key));
        self.send(method, path, headers, body).await
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
        headers.extend(
            self.authorization
                .clone()
                .map(|value| (AUTHORIZATION, value)),
        );
        let response = self.send(method, path, headers, bytes.into()).await?;
        whole(response).await
    }

    /// Starts a request of the management API whose answer comes bit by bit.
    ///
    /// # Errors
    /// What the gateway says, or why it says nothing.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, String> {
        let headers = self
            .authorization
            .clone()
            .map(|value| (AUTHORIZATION, value))
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
            .map_err(|error| format!("{path} cannot be requested: {error}"))?;
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
                (true, None) => away(format!("{error}: if the server speaks TLS, write https://")),
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

    /// Whether credentials are sent to another machine without TLS.
    pub(super) fn is_overheard(&self) -> bool {
        let own = self.host().parse::<IpAddr>().map(|ip| ip.is_loopback());
        let is_own = own.unwrap_or(self.host() == "localhost");
        self.authorization.is_some() && self.tls.is_none() && !is_own
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
            "; run `skep login`, or give an API key with --key"
        } else {
            ""
        };
        Err(format!("{}: {}{hint}", self.status.as_u16(), said.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> At {
        At {
            gateway: Some(url.to_owned()),
            ..At::default()
        }
    }

    fn of(url: &str) -> Gateway {
        Gateway::find(&at(url), |_| None).unwrap()
    }

    #[test]
    fn an_address_may_lack_a_scheme_and_have_a_login_and_a_path() {
        for (url, address) in [
            ("http://host:8080", "http://host:8080"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("localhost:9000/faas/", "http://localhost:9000/faas"),
            ("HTTP://Host/", "http://host"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("http://admin:s3:cret@host/faas/", "http://host/faas"),
        ] {
            assert_eq!(of(url).address(), address, "{url}");
        }
        for bad in ["ftp://host", "http://", "http://a b", "host/?q", ":80"] {
            let wrong = Gateway::find(&at(bad), |_| None).err().unwrap();
            assert!(wrong.contains("looks like"), "{bad}: {wrong}");
        }
    }

    #[test]
    fn a_login_in_an_address_is_decoded_and_never_shown() {
        let gateway = of("http://a%40b:p%2Fs%3As%20@host");
        assert_eq!(
            gateway.authorization.as_ref().unwrap(),
            "Basic YUBiOnAvczpzIA=="
        );
        assert_eq!(gateway.address(), "http://host");
        let wrong = Gateway::find(&at("http://admin:s3cret@ho st"), |_| None);
        assert!(!wrong.err().unwrap().contains("s3cret"));
        let key = of("http://key:skep_0a_0b@host");
        assert_eq!(key.authorization.unwrap(), "Bearer skep_0a_0b");
    }

    #[test]
    fn flags_come_before_the_environment_and_a_key_before_a_login() {
        let env = |name: &str| match name {
            "OPENFAAS_URL" => Some("http://user:pass@env:1".to_owned()),
            "skep_key" => Some("skep_0a_env".to_owned()),
            _ => None,
        };
        let found = |at: &At| Gateway::find(at, env).unwrap();
        assert_eq!(found(&at("http://flag:1")).address(), "http://flag:1");
        assert_eq!(found(&At::default()).address(), "http://env:1");
        let sent = |at: &At| found(at).authorization.unwrap();
        assert_eq!(sent(&At::default()), "Bearer skep_0a_env");
        let key = Some("skep_0a_flag".to_owned());
        let by_flag = At {
            key,
            ..At::default()
        };
        assert_eq!(sent(&by_flag), "Bearer skep_0a_flag");
        assert_eq!(
            Gateway::find(&At::default(), |_| None).unwrap().address(),
            DEFAULT
        );
    }
}
