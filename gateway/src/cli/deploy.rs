//! `skep deploy`: creates or updates functions, given by flags or by a stack file, and waits for them.

use std::path::{Path, PathBuf};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{env, print, report, text};
use super::command::{At, Deploy};
use super::convergence::{self, Before};
use super::gateway::Gateway;
use crate::discovery::local::stack;
use crate::escaped::escaped;
use crate::function::{Resources, Spec};

/// Creates or updates the functions that are named, and waits until each has converged.
///
/// # Errors
/// One sentence, or a line for each mistake of a stack file.
pub(super) async fn deploy(asked: &Deploy) -> Result<(), String> {
    let (gateway, deployments) = match &asked.image {
        Some(_) => {
            let name = asked.name.as_deref().unwrap_or_default();
            let gateway = Gateway::find(&asked.at, env)?;
            (gateway, vec![deployment(name, &spec(asked)?)])
        }
        None => of_file(asked)?,
    };
    let mut begun = Vec::new();
    for deployment in &deployments {
        let name = text(&deployment["service"]);
        let before = Before::look(&gateway, &name).await?;
        put_or_post(&asked.at, &gateway, deployment).await?;
        begun.push((name, before));
    }
    if asked.no_wait {
        return Ok(());
    }
    let mut failures = Vec::new();
    for (name, before) in &begun {
        match convergence::wait(&gateway, name, before).await {
            Ok(line) => print_success(asked, &gateway, name, &line),
            Err(why) => failures.push(why),
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("\nskep: "))
    }
}

/// The deployments of a stack file, and the gateway that they are for.
fn of_file(asked: &Deploy) -> Result<(Gateway, Vec<Value>), String> {
    let here = Path::new("");
    let file = match asked.file.as_deref().filter(|file| *file != Path::new(".")) {
        Some(folder) if folder.is_dir() => file_of(folder, asked.name.as_deref())?,
        Some(file) => file.to_owned(),
        None => file_of(here, asked.name.as_deref())?,
    };
    let read = stack::deployments(&file, env).map_err(|mistakes| mistakes.join("\nskep: "))?;
    for warning in &read.warnings {
        eprintln!("skep: warning: {}", escaped(warning));
    }
    let is_asked = |name: &str| asked.name.as_deref().is_none_or(|only| only == name);
    let all = read
        .specs
        .iter()
        .filter(|(name, _)| is_asked(name.as_str()));
    let deployments: Vec<_> = all
        .map(|(name, spec)| deployment(name.as_str(), spec))
        .collect();
    if deployments.is_empty() {
        return Err(format!("there is no such function in {}", file.display()));
    }
    let gateway = Gateway::find_or(&asked.at, env, read.gateway.as_deref());
    let gateway = gateway.map_err(|why| match &read.gateway {
        Some(_) if asked.at.gateway.is_none() => {
            format!("{why} (see provider.gateway of {}, too)", file.display())
        }
        _ => why,
    })?;
    Ok((gateway, deployments))
}

/// The stack file of a folder, where none is named.
fn file_of(folder: &Path, function: Option<&str>) -> Result<PathBuf, String> {
    let [first, second] = ["stack.yml", "stack.yaml"].map(|name| folder.join(name));
    match (first.exists(), second.exists()) {
        (true, both) => {
            if both {
                eprintln!(
                    "skep: there are stack.yml and stack.yaml: stack.yml is taken; name the other one with -f stack.yaml"
                );
            }
            Ok(first)
        }
        (false, true) => Ok(second),
        (false, false) => {
            let image = function.map_or_else(
                || "NAME --image IMAGE".to_owned(),
                |name| format!("{name} --image IMAGE"),
            );
            let place = match folder.to_str() {
                Some("") => "this folder".into(),
                _ => folder.to_string_lossy(),
            };
            Err(format!(
                "there is neither stack.yml nor stack.yaml in {place}: name a stack file with -f FILE, or an image: skep deploy {image}"
            ))
        }
    }
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

/// Updates a function, or creates it where there is none. The gateway's notes go to stderr.
async fn put_or_post(at: &At, gateway: &Gateway, deployment: &Value) -> Result<(), String> {
    let path = "/system/functions";
    let updated = gateway.ask(Method::PUT, path, Some(deployment)).await?;
    let (done, notes) = match updated.status {
        StatusCode::NOT_FOUND => (
            "Created",
            gateway.manage(Method::POST, path, Some(deployment)).await?,
        ),
        _ => ("Updated", updated.success()?),
    };
    let name = text(&deployment["service"]);
    report(at, &name, &done.to_lowercase(), &format!("{done} {name}"));
    eprint!("{}", String::from_utf8_lossy(&notes));
    Ok(())
}

/// The last lines of a success: that it is one, the URL, and a command to try it.
fn print_success(asked: &Deploy, gateway: &Gateway, name: &str, line: &str) {
    let url = format!("{}/function/{name}", gateway.address());
    if asked.at.json {
        print(&format!(
            "{}\n",
            json!({ "name": name, "status": "ready", "message": line, "url": url })
        ));
    } else {
        print(&format!(
            "{line}\n  url  {url}\n  try  curl -d hello {url}\n"
        ));
    }
}
