//! `skep deploy`: functions from flags or from a stack file, made or changed, and waited for.

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{gateway, get, print, text};
use super::command::Deploy;
use super::gateway::Gateway;
use crate::discovery::local::stack;
use crate::function::{Resources, Spec};

/// How long a deployment is waited for.
const READY_PATIENCE: Duration = Duration::from_secs(120);
const READY_PAUSE: Duration = Duration::from_millis(250);
/// Makes the functions that are named, or changes them, and waits until they can be called.
///
/// # Errors
/// One sentence, or a line for each mistake of a stack file.
pub(super) async fn deploy(asked: &Deploy) -> Result<(), String> {
    let gateway = gateway(&asked.at)?;
    let deployments = match &asked.file {
        Some(file) => {
            let specs = stack::specs(file, |name| std::env::var(name).ok())
                .map_err(|mistakes| mistakes.join("\nskep: "))?;
            let is_asked = |name: &str| asked.name.as_deref().is_none_or(|only| only == name);
            let all = specs.iter().filter(|(name, _)| is_asked(name.as_str()));
            all.map(|(name, spec)| deployment(name.as_str(), spec))
                .collect()
        }
        None => vec![deployment(
            asked.name.as_deref().unwrap_or_default(),
            &spec(asked)?,
        )],
    };
    if deployments.is_empty() {
        return Err(format!(
            "there is no such function in {}",
            asked.file.as_deref().unwrap_or("".as_ref()).display()
        ));
    }
    for deployment in &deployments {
        put_or_post(&gateway, deployment).await?;
    }
    for deployment in deployments.iter().filter(|_| !asked.no_wait) {
        ready(&gateway, &text(&deployment["service"])).await?;
    }
    Ok(())
}

fn spec(asked: &Deploy) -> Result<Spec, String> {
    let pairs = |pairs: &[String], flag: &str| {
        let pair = |pair: &String| match pair.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!("--{flag} {pair}: write NAME=VALUE")),
        };
        pairs.iter().map(pair).collect::<Result<_, _>>()
    };
    let mut spec = Spec {
        image: asked.image.clone().unwrap_or_default(),
        env_process: asked.fprocess.clone(),
        env_vars: pairs(&asked.env, "env")?,
        labels: pairs(&asked.label, "label")?,
        constraints: asked.constraint.clone(),
        secrets: asked.secret.clone(),
        read_only: asked.read_only,
        ..Spec::default()
    };
    spec.limits.memory.clone_from(&asked.memory);
    spec.limits.cpu.clone_from(&asked.cpu);
    Ok(spec)
}

fn deployment(name: &str, spec: &Spec) -> Value {
    let resources = |of: &Resources| json!({ "memory": of.memory, "cpu": of.cpu });
    json!({
        "service": name, "image": spec.image, "envProcess": spec.env_process, "envVars": spec.env_vars,
        "constraints": spec.constraints, "secrets": spec.secrets, "labels": spec.labels, "annotations": spec.annotations,
        "limits": resources(&spec.limits), "requests": resources(&spec.requests), "readOnlyRootFilesystem": spec.read_only,
    })
}

/// Changes a function, or makes it if there is none.
async fn put_or_post(gateway: &Gateway, deployment: &Value) -> Result<(), String> {
    let path = "/system/functions";
    let changed = gateway.ask(Method::PUT, path, Some(deployment)).await?;
    let (done, said) = match changed.status {
        StatusCode::NOT_FOUND => (
            "made",
            gateway.manage(Method::POST, path, Some(deployment)).await?,
        ),
        _ => ("changed", changed.success()?),
    };
    let name = text(&deployment["service"]);
    print(&format!(
        "{name} is {done}: {}/function/{name}\n",
        gateway.address()
    ));
    eprint!("{}", String::from_utf8_lossy(&said));
    Ok(())
}

/// Waits until a replica takes calls; says on stderr what is waited for.
async fn ready(gateway: &Gateway, name: &str) -> Result<(), String> {
    let began = Instant::now();
    let mut told = String::new();
    loop {
        let function = get(gateway, &format!("/system/function/{name}")).await?;
        let number = |field: &str| function[field].as_u64().unwrap_or(0);
        let (available, wanted) = (number("availableReplicas"), number("replicas"));
        if available > 0 || wanted == 0 {
            return Ok(());
        }
        let now = format!("{name}: {available} of {wanted} replicas take calls\n");
        if now != told {
            eprint!("{now}");
            told = now;
        }
        if began.elapsed() > READY_PATIENCE {
            return Err(format!(
                "{name} takes no calls after {READY_PATIENCE:?}: skep logs {name}, docker service ps --no-trunc {name}"
            ));
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
}
