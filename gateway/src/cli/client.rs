//! Runs the client commands: asks the gateway, and prints the answer as a table, a sentence or JSON.

use std::io::{Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use super::command::{At, Client, Secret};
use super::gateway::Gateway;
use super::table::table;
use super::{deploy, doctor, invoke, keys, login, logs};
use crate::config::Config;

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
            Client::Invoke(asked) => invoke::invoke(&asked).await,
            Client::Logs(asked) => logs::logs(&asked).await,
            Client::Login(asked) => login::login(&asked).await,
            Client::Logout { at } => login::logout(&at),
            Client::Secret(asked) => secret(&asked).await,
            Client::Keys(asked) => keys::keys(&asked).await,
            Client::Doctor { at } => doctor::examine(&gateway(&at)?, config, at.json).await,
        }
    })
}

pub(super) fn gateway(at: &At) -> Result<Gateway, String> {
    Gateway::find(at, env)
}

pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reports a change that was made: as a sentence, or as JSON.
pub(super) fn report(at: &At, name: &str, status: &str, sentence: &str) {
    if at.json {
        print(&format!("{}\n", json!({ "name": name, "status": status })));
    } else {
        print(&format!("{sentence}\n"));
    }
}

/// Prints to stdout. That the reader has closed the pipe is no error.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

pub(super) async fn get(gateway: &Gateway, path: &str) -> Result<Value, String> {
    let bytes = gateway.manage(Method::GET, path, None).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("the answer to {path} is not JSON: {error}"))
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
        print(&format!("{functions}\n"));
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
    print(&table(["NAME", "READY", "CALLS", "IMAGE"], &rows));
    Ok(())
}

async fn describe(name: &str, at: &At) -> Result<(), String> {
    let gateway = gateway(at)?;
    let path = format!("/system/function/{name}");
    let mut function = get(&gateway, &path).await?;
    let replicas = get(&gateway, &format!("{path}/replicas")).await?;
    if at.json {
        function["tasks"] = replicas;
        print(&format!("{function}\n"));
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
    for replica in replicas.as_array().into_iter().flatten() {
        let error = replica["error"].as_str().unwrap_or_default();
        let line = format!(
            "{} {} {error}",
            text(&replica["id"]),
            text(&replica["state"])
        );
        rows.push(["replica".to_owned(), line]);
    }
    print(&table(["FIELD", "VALUE"], &rows));
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
        report(at, name, "removed", &format!("Removed {name}"));
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
    report(at, name, "scaled", &format!("Scaled {name} to {replicas}"));
    Ok(())
}

async fn secret(asked: &Secret) -> Result<(), String> {
    let path = "/system/secrets";
    let (method, name, at, done) = match asked {
        Secret::Ls { at } => return ls_secrets(at).await,
        Secret::Create { name, at } => (Method::POST, name, at, "Created"),
        Secret::Update { name, at } => (Method::PUT, name, at, "Updated"),
        Secret::Rm { name, at } => (Method::DELETE, name, at, "Removed"),
    };
    let mut body = json!({ "name": name });
    if method != Method::DELETE {
        body["rawValue"] = STANDARD.encode(read_stdin(MAX_SECRET)?).into();
    }
    gateway(at)?.manage(method, path, Some(&body)).await?;
    let sentence = format!("{done} secret {name}");
    report(at, name, &done.to_lowercase(), &sentence);
    Ok(())
}

async fn ls_secrets(at: &At) -> Result<(), String> {
    let secrets = get(&gateway(at)?, "/system/secrets").await?;
    if at.json {
        print(&format!("{secrets}\n"));
        return Ok(());
    }
    let rows: Vec<_> = secrets
        .as_array()
        .into_iter()
        .flatten()
        .map(|secret| [text(&secret["name"])])
        .collect();
    print(&table(["NAME"], &rows));
    Ok(())
}

pub(super) fn read_stdin(most: u64) -> Result<Bytes, String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(most).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot read stdin: {error}"))?;
    Ok(bytes.into())
}
