//! The client commands carried out: ask the gateway, and show its answer as a table, a sentence or JSON.

use std::io::{IsTerminal, Read, Write};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::command::{At, Client, Invoke, Logs, Secret};
use super::gateway::Gateway;
use super::table::table;
use super::{deploy, doctor, keys};
use crate::config::Config;
use crate::duration;

/// The most that is read from stdin for a secret.
const MAX_SECRET: u64 = 1 << 20;

/// Carries a command out.
///
/// # Errors
/// One sentence: what did not work.
pub fn run(command: Client, config: &Config) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        match command {
            Client::Ls { at } => ls(&at).await,
            Client::Describe { name, at } => describe(&name, &at).await,
            Client::Deploy(asked) => deploy::deploy(&asked).await,
            Client::Rm { names, at } => rm(&names, &at).await,
            Client::Scale { name, replicas, at } => scale(&name, replicas, &at).await,
            Client::Invoke(asked) => invoke(&asked).await,
            Client::Logs(asked) => logs(&asked).await,
            Client::Secret(asked) => secret(&asked).await,
            Client::Keys(asked) => keys::keys(&asked).await,
            Client::Doctor { at } => doctor::examine(&gateway(&at)?, config, at.json).await,
        }
    })
}

pub(super) fn gateway(at: &At) -> Result<Gateway, String> {
    Gateway::find(at.gateway.as_deref(), at.ca.as_deref(), |name| {
        std::env::var(name).ok()
    })
}

/// Prints to stdout; a reader that is gone is no reason to complain.
pub(super) fn tell(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

pub(super) async fn get(gateway: &Gateway, path: &str) -> Result<Value, String> {
    let bytes = gateway.manage(Method::GET, path, None).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("the answer to {path} is no JSON: {error}"))
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "0".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

async fn ls(at: &At) -> Result<(), String> {
    let functions = get(&gateway(at)?, "/system/functions").await?;
    if at.json {
        tell(&format!("{functions}\n"));
        return Ok(());
    }
    let row = |function: &Value| {
        let ready = format!(
            "{}/{}",
            text(&function["availableReplicas"]),
            text(&function["replicas"])
        );
        [
            text(&function["name"]),
            ready,
            text(&function["invocationCount"]),
            text(&function["image"]),
        ]
    };
    let rows: Vec<_> = functions
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    tell(&table(["NAME", "READY", "CALLS", "IMAGE"], &rows));
    Ok(())
}

async fn describe(name: &str, at: &At) -> Result<(), String> {
    let gateway = gateway(at)?;
    let function = get(&gateway, &format!("/system/function/{name}")).await?;
    if at.json {
        tell(&format!("{function}\n"));
        return Ok(());
    }
    let plain = |value: &Value| match value {
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| format!("{name}={}", text(value)))
            .collect::<Vec<_>>()
            .join(" "),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(" "),
        other => text(other),
    };
    let mut rows = vec![[
        "url".to_owned(),
        format!("{}/function/{name}", gateway.address()),
    ]];
    let fields = function.as_object().into_iter().flatten();
    rows.extend(
        fields
            .filter(|(field, _)| *field != "endpoints")
            .map(|(field, value)| [field.clone(), plain(value)]),
    );
    for endpoint in function["endpoints"].as_array().into_iter().flatten() {
        rows.push([
            "endpoint".to_owned(),
            format!(
                "{} {} ({})",
                text(&endpoint["address"]),
                text(&endpoint["state"]),
                text(&endpoint["id"])
            ),
        ]);
    }
    tell(&table(["FIELD", "VALUE"], &rows));
    Ok(())
}

async fn rm(names: &[String], at: &At) -> Result<(), String> {
    let gateway = gateway(at)?;
    for name in names {
        gateway
            .manage(
                Method::DELETE,
                "/system/functions",
                Some(&json!({ "functionName": name })),
            )
            .await?;
        tell(&format!("{name} is removed\n"));
    }
    Ok(())
}

async fn scale(name: &str, replicas: u64, at: &At) -> Result<(), String> {
    let body = json!({ "serviceName": name, "replicas": replicas });
    gateway(at)?
        .manage(
            Method::POST,
            &format!("/system/scale-function/{name}"),
            Some(&body),
        )
        .await?;
    tell(&format!("{name} is given {replicas} replicas\n"));
    Ok(())
}

async fn invoke(asked: &Invoke) -> Result<(), String> {
    let method = Method::from_bytes(asked.method.as_bytes())
        .map_err(|_| format!("'{}' is no verb", asked.method))?;
    let body = match &asked.data {
        Some(data) => Bytes::from(data.clone()),
        None if std::io::stdin().is_terminal() => Bytes::new(),
        None => stdin(u64::MAX)?,
    };
    let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
    for field in &asked.header {
        let wrong = || format!("--header '{field}': write NAME: VALUE");
        let (name, value) = field.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        headers.retain(|(known, _)| *known != name);
        headers.push((name, value));
    }
    let response = gateway(&asked.at)?
        .send(method, &format!("/function/{}", asked.name), headers, body)
        .await?;
    let status = response.status();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
        if let Some(data) = frame.data_ref() {
            let mut out = std::io::stdout();
            // A reader that is gone needs no more.
            if out.write_all(data).and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
        }
    }
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("{} answered {status}", asked.name))
    }
}

async fn logs(asked: &Logs) -> Result<(), String> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("name", &asked.name);
    query.append_pair("follow", if asked.follow { "true" } else { "false" });
    if let Some(lines) = asked.tail {
        query.append_pair("tail", &lines.to_string());
    }
    if let Some(text) = &asked.since {
        let ago = duration::parse(text).map_err(|why| format!("--since: {why}"))?;
        let since = SystemTime::now()
            .checked_sub(ago)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        query.append_pair(
            "since",
            &humantime::format_rfc3339_millis(since).to_string(),
        );
    }
    if let Some(instance) = &asked.instance {
        query.append_pair("instance", instance);
    }
    let mut body = gateway(&asked.at)?
        .stream(&format!("/system/logs?{}", query.finish()))
        .await?;
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the logs broke off: {error}"))?;
        rest.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            tell(&shown(&line, asked.at.json));
        }
    }
    Ok(())
}

/// A line of the gateway's, as people read it.
fn shown(line: &[u8], as_json: bool) -> String {
    match serde_json::from_slice::<Value>(line) {
        Ok(message) if !as_json => format!(
            "{} {} {}\n",
            text(&message["timestamp"]),
            text(&message["instance"]),
            text(&message["text"])
        ),
        _ => String::from_utf8_lossy(line).into_owned(),
    }
}

async fn secret(asked: &Secret) -> Result<(), String> {
    let path = "/system/secrets";
    let (method, name, at, done) = match asked {
        Secret::Ls { at } => return ls_secrets(at).await,
        Secret::Create { name, at } => (Method::POST, name, at, "made"),
        Secret::Update { name, at } => (Method::PUT, name, at, "changed"),
        Secret::Rm { name, at } => (Method::DELETE, name, at, "removed"),
    };
    let mut body = json!({ "name": name });
    if method != Method::DELETE {
        body["rawValue"] = STANDARD.encode(stdin(MAX_SECRET)?).into();
    }
    gateway(at)?.manage(method, path, Some(&body)).await?;
    tell(&format!("secret {name} is {done}\n"));
    Ok(())
}

async fn ls_secrets(at: &At) -> Result<(), String> {
    let secrets = get(&gateway(at)?, "/system/secrets").await?;
    if at.json {
        tell(&format!("{secrets}\n"));
        return Ok(());
    }
    let rows: Vec<_> = secrets
        .as_array()
        .into_iter()
        .flatten()
        .map(|secret| [text(&secret["name"])])
        .collect();
    tell(&table(["NAME"], &rows));
    Ok(())
}

fn stdin(most: u64) -> Result<Bytes, String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(most).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot read stdin: {error}"))?;
    Ok(bytes.into())
}
