//! `skep invoke`: one call of a function, its answer on stdout as it comes.

use std::io::{IsTerminal, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Response};
use serde_json::{Map, Value, json};

use super::client::{gateway, print, read_stdin};
use super::command::Invoke;

/// Calls a function.
///
/// # Errors
/// One sentence, also where the answer is no success.
pub(super) async fn invoke(asked: &Invoke) -> Result<(), String> {
    let method = Method::from_bytes(asked.method.as_bytes())
        .map_err(|_| format!("'{}' is not an HTTP method", asked.method))?;
    let (headers, body) = (headers(asked)?, body(asked)?);
    let path = format!("/function/{}", asked.name);
    let response = gateway(&asked.at)?
        .call(method, &path, headers, body)
        .await?;
    let status = response.status();
    if asked.at.json {
        print_json(response).await?;
    } else {
        print_body(response).await?;
    }
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("{} answered {status}", asked.name))
    }
}

fn headers(asked: &Invoke) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
    for field in &asked.header {
        let wrong = || format!("--header '{field}': write NAME: VALUE");
        let (name, value) = field.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        if name == CONTENT_TYPE {
            headers.retain(|(known, _)| *known != name);
        }
        headers.push((name, value));
    }
    Ok(headers)
}

fn body(asked: &Invoke) -> Result<Bytes, String> {
    match asked.data.as_deref() {
        Some("@-") => read_stdin(u64::MAX),
        Some(data) => match data.strip_prefix('@') {
            Some(file) => std::fs::read(file)
                .map(Bytes::from)
                .map_err(|error| format!("--data @{file}: {error}")),
            None => Ok(data.to_owned().into()),
        },
        None if std::io::stdin().is_terminal() => Ok(Bytes::new()),
        None => read_stdin(u64::MAX),
    }
}

async fn print_body(response: Response<Incoming>) -> Result<(), String> {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
        if let Some(data) = frame.data_ref() {
            let mut out = std::io::stdout();
            // The reader of a pipe may have closed it.
            if out.write_all(data).and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Status, headers and body; a body that is not UTF-8 in base64, as `bodyBase64`.
async fn print_json(response: Response<Incoming>) -> Result<(), String> {
    let (head, body) = response.into_parts();
    let body = body.collect().await;
    let body = body
        .map_err(|error| format!("the answer broke off: {error}"))?
        .to_bytes();
    let mut headers = Map::new();
    for (name, value) in &head.headers {
        let values = headers
            .entry(name.as_str())
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(String::from_utf8_lossy(value.as_bytes()).into());
        }
    }
    let mut answer = json!({ "status": head.status.as_u16(), "headers": headers });
    match std::str::from_utf8(&body) {
        Ok(text) => answer["body"] = text.into(),
        Err(_) => answer["bodyBase64"] = STANDARD.encode(&body).into(),
    }
    print(&format!("{answer}\n"));
    Ok(())
}
