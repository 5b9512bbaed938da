//! How a function of a stack file is run on this machine.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{MAX_REPLICAS, UPSTREAM};
use crate::discovery::operate::SCALE_MIN;

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

pub(super) fn command(
    fprocess: Option<&str>,
    labels: &BTreeMap<String, String>,
    folder: PathBuf,
    path: Option<&str>,
) -> Result<Run, String> {
    let fprocess = fprocess.ok_or("no fprocess: say which command to run, or name a running server with the annotation skep.upstream")?;
    let program = fprocess
        .split_whitespace()
        .next()
        .ok_or("fprocess is empty")?;
    if find_program(program, &folder, path).is_none() {
        return Err(format!(
            "the command '{program}' was not found in {} or on PATH",
            folder.display()
        ));
    }
    let replicas = match labels.get(SCALE_MIN).map(|text| text.parse::<usize>()) {
        None | Some(Ok(0)) => 1,
        Some(Ok(count @ ..=MAX_REPLICAS)) => count,
        Some(_) => {
            return Err(format!(
                "label {SCALE_MIN}: write a number from 1 to {MAX_REPLICAS}"
            ));
        }
    };
    Ok(Run::Command { replicas, folder })
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

/// A program with a slash in its name is looked for in the folder, another on PATH.
pub(super) fn find_program(program: &str, folder: &Path, path: Option<&str>) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        std::fs::metadata(file)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(folder.join(program)).filter(is_program);
    }
    std::env::split_paths(path?)
        .map(|entry| entry.join(program))
        .find(is_program)
}
