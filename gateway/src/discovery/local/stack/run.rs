//! How a function of a stack file is run on this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{MAX_REPLICAS, UPSTREAM};
use crate::discovery::local::replica::environment;
use crate::discovery::operate::SCALE_MIN;
use crate::function::Spec;

/// Where the watchdog looks for programs when there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// The most that Linux takes of one variable, its name, `=` and a NUL byte included (`MAX_ARG_STRLEN`).
const LARGEST_VARIABLE: usize = 128 * 1024;

/// How a function is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// As processes of ours, behind watchdogs.
    Command {
        /// How many.
        replicas: usize,
        /// Where: its handler's folder, or the stack file's.
        folder: PathBuf,
    },
    /// It runs already, at this `host:port`.
    Upstream(String),
}

/// Whether a function says what it runs.
pub(super) fn has_command(spec: &Spec) -> bool {
    let is_static = |mode: &String| mode == "static";
    spec.env_process.is_some()
        || spec.env_vars.contains_key("function_process")
        || spec.env_vars.get("mode").is_some_and(is_static)
}

/// How a function is run that is a command: `folder` is where, `env` our own environment.
///
/// # Errors
/// Everything for which its watchdog would not start, or could not run the command.
pub(super) fn command(
    spec: &Spec,
    folder: PathBuf,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Run, Vec<String>> {
    let mut mistakes = Vec::new();
    // Only the lock file lies elsewhere for each replica.
    let environment = environment(spec, Path::new("/tmp"), env);
    mistakes.extend(environment.iter().filter_map(unpassable));
    match fwatchdog::check(|name| environment.get(name).cloned()) {
        Ok(words) => {
            let path = environment.get("PATH").map(String::as_str);
            mistakes.extend(
                words
                    .first()
                    .and_then(|program| missing(program, &folder, path)),
            );
        }
        Err(sentences) => mistakes.extend(sentences),
    }
    let replicas = match spec.labels.get(SCALE_MIN).map(|text| text.parse::<usize>()) {
        None | Some(Ok(0)) => 1,
        Some(Ok(count @ ..=MAX_REPLICAS)) => count,
        Some(_) => {
            mistakes.push(format!(
                "label {SCALE_MIN}: write a number from 1 to {MAX_REPLICAS}"
            ));
            1
        }
    };
    if mistakes.is_empty() {
        Ok(Run::Command { replicas, folder })
    } else {
        Err(mistakes)
    }
}

/// What is wrong with a variable that no process can be given.
fn unpassable((name, value): (&String, &String)) -> Option<String> {
    let why = if name.is_empty() || name.contains(['=', '\0']) {
        "its name is empty, or has a = or a NUL byte in it"
    } else if value.contains('\0') {
        "its value has a NUL byte in it"
    } else if name.len() + value.len() + 2 > LARGEST_VARIABLE {
        "it is longer than 128 KiB, which is the most that Linux passes to a process: put it into a file"
    } else {
        return None;
    };
    Some(format!(
        "the environment variable '{}': {why}",
        name.escape_debug()
    ))
}

/// The folder of a function's handler.
///
/// # Errors
/// It is not there.
pub(super) fn handler_folder(handler: &str, folder: &Path) -> Result<PathBuf, String> {
    let home = tidy(&folder.join(handler));
    if home.is_dir() {
        return Ok(home);
    }
    let shown = home.display();
    Err(if home.exists() {
        format!("handler: {handler} is not a folder: {shown} is a file")
    } else {
        format!(
            "handler: {handler} is not there: make the folder {shown}, or leave the line out to run the command where the stack file is"
        )
    })
}

/// `http://host:port` → `host:port`.
pub(super) fn upstream(url: &str) -> Result<String, String> {
    let wrong = || format!("annotation {UPSTREAM}: '{url}' is not like http://127.0.0.1:9000");
    let authority = url
        .strip_prefix("http://")
        .map(|rest| rest.trim_end_matches('/'))
        .ok_or_else(wrong)?;
    let parsed: hyper::http::uri::Authority = authority.parse().map_err(|_| wrong())?;
    let port = parsed.port_u16().unwrap_or(80);
    if authority.contains('@') {
        Err(wrong())
    } else {
        Ok(format!("{}:{port}", parsed.host()))
    }
}

/// Why a program cannot be run, if so. One with a slash in its name is looked for in the folder, another on PATH, like the watchdog does.
fn missing(program: &str, folder: &Path, path: Option<&str>) -> Option<String> {
    match look(program, folder, path) {
        Look::Found => None,
        Look::NotExecutable(file) => Some(format!(
            "the command '{program}' is not executable: chmod +x {}",
            file.display()
        )),
        Look::Nowhere => Some(format!(
            "the command '{program}' was not found in {} or on PATH",
            folder.display()
        )),
    }
}

/// Whether a program is on this machine.
pub(super) fn has_program(program: &str, folder: &Path, path: Option<&str>) -> bool {
    matches!(look(program, folder, path), Look::Found)
}

enum Look {
    Found,
    NotExecutable(PathBuf),
    Nowhere,
}

fn look(program: &str, folder: &Path, path: Option<&str>) -> Look {
    let places: Vec<PathBuf> = if program.contains('/') {
        vec![tidy(&folder.join(program))]
    } else {
        std::env::split_paths(path.unwrap_or(DEFAULT_PATH))
            .map(|entry| entry.join(program))
            .collect()
    };
    let mut denied = None;
    for file in places {
        match std::fs::metadata(&file) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {
                return Look::Found;
            }
            Ok(meta) if meta.is_file() => drop(denied.get_or_insert(file)),
            _ => {}
        }
    }
    denied.map_or(Look::Nowhere, Look::NotExecutable)
}

/// The same path without `.` in the middle, to be read and copied.
fn tidy(path: &Path) -> PathBuf {
    path.components().collect()
}
