//! Speaking with a Docker engine in plain JSON: what bollard's models lose (task addresses, health checks) or refuse (unknown enum
//! values) is ours to keep. Requests carry no API version on purpose: every engine then speaks its newest (docs/decisions).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::{AbortHandle, JoinHandle};

/// The most that one answer of the engine may hold: ten thousand services with their tasks stay far below.
const MAX_ANSWER: usize = 256 << 20;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a Docker engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerHost {
    /// `unix:///var/run/docker.sock`
    Unix(PathBuf),
    /// `tcp://host:port`, such as a socket proxy.
    Tcp(String),
}

impl DockerHost {
    /// Reads the value of `DOCKER_HOST`.
    ///
    /// # Errors
    /// A sentence that says what it looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text
            .strip_prefix("unix://")
            .filter(|path| path.starts_with('/'))
        {
            return Ok(Self::Unix(path.into()));
        }
        match text
            .strip_prefix("tcp://")
            .map(|authority| authority.trim_end_matches('/'))
        {
            Some(authority)
                if authority
                    .parse::<hyper::http::uri::Authority>()
                    .is_ok_and(|a| a.port().is_some()) =>
            {
                Ok(Self::Tcp(authority.into()))
            }
            _ => Err(format!(
                "'{text}' is not an engine's address: write unix:///path/docker.sock or tcp://host:port"
            )),
        }
    }
}

impl fmt::Display for DockerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
        }
    }
}

/// Why the engine gave no answer that we can use.
#[derive(Debug)]
pub enum EngineError {
    /// Nobody answers there.
    Away(std::io::Error),
    /// It answers, with this status and message.
    Says(StatusCode, String),
    /// Something else: what was being done, and what happened.
    Broken(&'static str, String),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(error) => write!(f, "does not answer: {error}"),
            Self::Says(status, message) => write!(f, "answers {status}: {message}"),
            Self::Broken(doing, error) => write!(f, "{doing}: {error}"),
        }
    }
}

/// A Docker engine.
#[derive(Clone, Debug)]
pub struct Engine {
    host: DockerHost,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Engine {
    /// The engine at this address; nothing is dialled yet.
    #[must_use]
    pub fn new(host: DockerHost) -> Self {
        Self { host }
    }

    /// Where it listens.
    #[must_use]
    pub fn host(&self) -> &DockerHost {
        &self.host
    }

    /// `GET path`, its JSON answer read as `T`. Bounded in size and time.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        self.get_with(path, None).await
    }

    /// The same, perhaps with a registry's login for the engine to ask there with.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        registry: Option<HeaderValue>,
    ) -> Result<T, EngineError> {
        let mut request = request(Method::GET, path)?;
        log_in(&mut request, registry);
        let bytes = self.whole(request).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| EngineError::Broken("reading JSON", format!("GET {path}: {error}")))
    }

    /// `POST path` with JSON, and perhaps a registry's login for the engine to pull with. Returns its JSON answer, null if it is empty.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn post(
        &self,
        path: &str,
        body: &Value,
        registry: Option<HeaderValue>,
    ) -> Result<Value, EngineError> {
        let mut request = request(Method::POST, path)?;
        *request.body_mut() = Full::new(Bytes::from(body.to_string()));
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        log_in(&mut request, registry);
        let bytes = self.whole(request).await?;
        // Older engines answer an update with nothing, newer ones with warnings.
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn delete(&self, path: &str) -> Result<(), EngineError> {
        self.whole(request(Method::DELETE, path)?).await.map(drop)
    }

    /// `GET path`, whose answer comes bit by bit; its head is waited for.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn stream(&self, path: &str) -> Result<Streaming, EngineError> {
        let head = tokio::time::timeout(PATIENCE, self.send(request(Method::GET, path)?)).await;
        let (response, connection) = head.map_err(|_| too_late())??;
        let status = response.status();
        let streaming = Streaming {
            body: response.into_body(),
            connection: connection.abort_handle(),
        };
        if status.is_success() {
            return Ok(streaming);
        }
        let said = tokio::time::timeout(PATIENCE, streaming.rest()).await;
        Err(EngineError::Says(
            status,
            message(&said.unwrap_or_default()),
        ))
    }

    async fn whole(&self, request: Request<Full<Bytes>>) -> Result<Bytes, EngineError> {
        let exchange = async {
            let (response, connection) = self.send(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await;
            connection.abort();
            let bytes = body
                .map_err(|error| EngineError::Broken("reading an answer", error.to_string()))?
                .to_bytes();
            if status.is_success() {
                Ok(bytes)
            } else {
                Err(EngineError::Says(status, message(&bytes)))
            }
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        answer.unwrap_or_else(|_| Err(too_late()))
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, JoinHandle<Result<(), hyper::Error>>), EngineError> {
        let broken = |error: hyper::Error| EngineError::Broken("speaking HTTP", error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.dial().await?))
            .await
            .map_err(broken)?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok((response, driver))
    }

    async fn dial(&self) -> Result<Box<dyn Stream>, EngineError> {
        match &self.host {
            DockerHost::Unix(path) => UnixStream::connect(path)
                .await
                .map(|stream| Box::new(stream) as Box<dyn Stream>),
            DockerHost::Tcp(authority) => TcpStream::connect(authority)
                .await
                .map(|stream| Box::new(stream) as Box<dyn Stream>),
        }
        .map_err(EngineError::Away)
    }
}

/// An answer that comes bit by bit. Dropping it closes the connection.
pub struct Streaming {
    /// What comes.
    pub body: Incoming,
    connection: AbortHandle,
}

impl Streaming {
    /// All that is left, if it is as short as an error's message.
    async fn rest(mut self) -> Bytes {
        let body = Limited::new(&mut self.body, 64 << 10).collect().await;
        body.map(http_body_util::Collected::to_bytes)
            .unwrap_or_default()
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn too_late() -> EngineError {
    EngineError::Broken(
        "waiting for an answer",
        format!("nothing within {PATIENCE:?}"),
    )
}

fn request(method: Method, path: &str) -> Result<Request<Full<Bytes>>, EngineError> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "docker")
        .body(Full::default())
        .map_err(|error| EngineError::Broken("writing a request", error.to_string()))
}

fn log_in(request: &mut Request<Full<Bytes>>, registry: Option<HeaderValue>) {
    if let Some(login) = registry {
        request.headers_mut().insert("x-registry-auth", login);
    }
}

/// The engine's own sentence, or the first piece of whatever it said.
fn message(bytes: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        message: String,
    }
    match serde_json::from_slice::<Said>(bytes) {
        Ok(said) => said.message,
        Err(_) => String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_addresses_that_docker_hosts_have() {
        for good in ["unix:///var/run/docker.sock", "tcp://proxy:2375"] {
            assert_eq!(DockerHost::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "docker.sock",
            "unix://docker.sock",
            "tcp://proxy",
            "ssh://me@host",
            "tcp://a b:1",
        ] {
            assert!(
                DockerHost::parse(bad)
                    .unwrap_err()
                    .contains("not an engine's address"),
                "{bad}"
            );
        }
    }
}
