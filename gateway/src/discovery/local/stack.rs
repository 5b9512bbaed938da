//! The stack file (wire contract §7.3) → functions to run as local processes. All mistakes at once.

mod file;
mod run;
mod shape;
mod variables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::file::{FunctionPart, Map, ResourcePart, Scalar};
pub use self::run::Run;
use self::run::{command, handler_folder, has_command, has_program, upstream};
use crate::discovery::local::operate::NO_SECRETS;
use crate::function::labels::{unknown_annotation, unknown_label};
use crate::function::route::{NotARoute, OwnRoute};
use crate::function::{FunctionName, Handling, Limits, Resources, Spec};
use crate::regular_file;

/// The stack files that are looked for where none is named, the first one first.
const DEFAULT_FILES: [&str; 2] = ["stack.yml", "stack.yaml"];
/// Names a server that already runs, instead of a command.
const UPSTREAM: &str = "skep.upstream";
/// Names a program without which the function is skipped instead of refused.
const REQUIRES: &str = "skep.requires";
/// The most copies of one function on one machine: a typing error shall not fill it with processes.
pub(super) const MAX_REPLICAS: usize = 64;
/// A stack file longer than this is something else.
const MAX_BYTES: u64 = 1 << 20;

/// A stack file, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// What to run, by name.
    pub functions: BTreeMap<FunctionName, StackFunction>,
    /// What is left out, each with the reason.
    pub skipped: BTreeMap<FunctionName, String>,
}

/// One function to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFunction {
    /// How it is run.
    pub run: Run,
    /// What the management API says of it.
    pub spec: Spec,
    /// Its own limits.
    pub limits: Limits,
    /// How its replicas are dealt with.
    pub handling: Handling,
    /// The host and path that it wants for itself, or what is wrong with the labels that say so.
    pub route: Result<Option<OwnRoute>, NotARoute>,
}

impl Stack {
    /// Reads a stack file; `env` fills variables in. What is odd in it is logged.
    ///
    /// # Errors
    /// Every mistake, a line each.
    pub fn load(file: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let text = read_bounded(file).map_err(|why| vec![why])?;
        let loaded = Self::parse(&text, folder_of(file), &env);
        let (stack, warnings) = loaded.map_err(|mistakes| in_file(file, &mistakes))?;
        for warning in in_file(file, &warnings) {
            tracing::warn!("{warning}");
        }
        Ok(stack)
    }

    fn parse(
        text: &str,
        folder: &Path,
        env: &impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<String>), Vec<String>> {
        let content = file::read(text, env)?;
        let (mut mistakes, mut warnings) = (Vec::new(), content.warnings);
        let mut stack = Self::default();
        for (name, part) in content.functions {
            warnings.extend(unknown_labels(&name, &part));
            match function(&name, part, folder, env) {
                Ok((name, Ok(function))) => drop(stack.functions.insert(name, function)),
                Ok((name, Err(skip))) => drop(stack.skipped.insert(name, skip)),
                Err(wrong) => {
                    mistakes.extend(wrong.iter().map(|why| format!("function '{name}': {why}")))
                }
            }
        }
        if stack.functions.is_empty() && stack.skipped.is_empty() && mistakes.is_empty() {
            mistakes.push("it names no function".to_owned());
        }
        if mistakes.is_empty() {
            Ok((stack, warnings))
        } else {
            Err(mistakes)
        }
    }
}

/// What a stack file says, to be made elsewhere: nothing needs to be on this machine.
#[derive(Debug)]
pub struct Deployments {
    /// The functions.
    pub specs: BTreeMap<FunctionName, Spec>,
    /// The gateway that it names.
    pub gateway: Option<String>,
    /// What is odd in it, a line each.
    pub warnings: Vec<String>,
}

/// Reads a stack file for its deployments; `env` fills variables in.
///
/// # Errors
/// Every mistake, a line each.
pub fn deployments(
    file: &Path,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Deployments, Vec<String>> {
    let text = read_bounded(file).map_err(|why| vec![why])?;
    let content = file::read(&text, &env).map_err(|mistakes| in_file(file, &mistakes))?;
    let (mut specs, mut mistakes) = (BTreeMap::new(), Vec::new());
    let mut warnings = content.warnings;
    for (name, part) in content.functions {
        warnings.extend(unknown_labels(&name, &part));
        let named = FunctionName::new(&name).map_err(|error| error.to_string());
        match named.and_then(|name| Ok((name, spec(part, folder_of(file))?))) {
            Ok((name, spec)) => drop(specs.insert(name, spec)),
            Err(why) => mistakes.push(format!("function '{name}': {why}")),
        }
    }
    if mistakes.is_empty() {
        Ok(Deployments {
            specs,
            gateway: content.gateway,
            warnings: in_file(file, &warnings),
        })
    } else {
        Err(in_file(file, &mistakes))
    }
}

/// A line for each label and annotation of a function that looks like one of ours and is none.
fn unknown_labels(name: &str, part: &FunctionPart) -> Vec<String> {
    let labels = part.labels.keys();
    let labels = labels.filter_map(|label| Some(("label", label, unknown_label(label)?)));
    let annotations = part.annotations.keys();
    let annotations =
        annotations.filter_map(|label| Some(("annotation", label, unknown_annotation(label)?)));
    let line = |(kind, label, why)| format!("function '{name}': {kind} {label} ignored: {why}");
    labels.chain(annotations).map(line).collect()
}

/// The stack file of a folder, where none is named.
///
/// # Errors
/// There is none.
pub fn default_file(folder: &Path) -> Result<PathBuf, String> {
    let [first, second] = DEFAULT_FILES.map(|name| folder.join(name));
    match (first.exists(), second.exists()) {
        (true, true) => {
            tracing::warn!(
                "{} is read, and {} is not: name it to run that one",
                first.display(),
                second.display()
            );
            Ok(first)
        }
        (true, false) => Ok(first),
        (false, true) => Ok(second),
        (false, false) => Err(format!(
            "there is no {} and no {} in this folder: go to the folder of your functions, or name the file: skep local FILE",
            DEFAULT_FILES[0], DEFAULT_FILES[1]
        )),
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn in_file(file: &Path, mistakes: &[String]) -> Vec<String> {
    let line = |mistake: &String| format!("{}: {mistake}", file.display());
    mistakes.iter().map(line).collect()
}

fn read_bounded(file: &Path) -> Result<String, String> {
    let wrong = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
    regular_file::read_text(file, MAX_BYTES).map_err(|error| match error.kind() {
        std::io::ErrorKind::FileTooLarge => format!(
            "{} is larger than {MAX_BYTES} bytes: that is no stack file",
            file.display()
        ),
        _ => wrong(error),
    })
}

/// A function, or the reason why it is skipped on this machine.
type Wanted = Result<StackFunction, String>;

fn function(
    name: &str,
    part: FunctionPart,
    folder: &Path,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<(FunctionName, Wanted), Vec<String>> {
    let name = FunctionName::new(name).map_err(|error| vec![error.to_string()])?;
    let handler = part.handler.clone().map(String::from);
    let home = handler.map_or_else(
        || Ok(folder.to_owned()),
        |handler| handler_folder(&handler, folder),
    );
    let lang = String::from(part.lang.clone());
    let mut spec = spec(part, folder).map_err(|why| vec![why])?;
    if !spec.secrets.is_empty() {
        tracing::warn!(function = %name, "{NO_SECRETS}");
    }
    let is_its_own = has_command(&spec);
    if !is_its_own {
        spec.env_process = fprocess_of(&lang, folder).map_err(|why| vec![why])?;
    }
    let (labels, annotations) = (&spec.labels, &spec.annotations);
    if let Some(program) = annotations.get(REQUIRES)
        && !has_program(
            program,
            home.as_deref().unwrap_or(folder),
            env("PATH").as_deref(),
        )
    {
        return Ok((name, Err(format!("{program} is not on this machine"))));
    }
    let run = match annotations.get(UPSTREAM) {
        Some(url) => Run::Upstream(upstream(url).map_err(|why| vec![why])?),
        None if !has_command(&spec) => return Ok((name, Err(no_command(&lang)))),
        None => match home
            .map_err(|why| vec![why])
            .and_then(|home| command(&spec, home, env))
        {
            Ok(run) => run,
            // The template's command is for its image: that it does not run here does not stop the others.
            Err(why) if !is_its_own => return Ok((name, Err(why.join("; ")))),
            Err(why) => return Err(why),
        },
    };
    let warn = |label: &'static str, why: String| {
        tracing::warn!(function = %name, label, "label ignored: {why}");
    };
    let limits = Limits::read(|label| labels.get(label).map(String::as_str), warn);
    // The contract has the path of readiness among the annotations.
    let either = |name: &str| labels.get(name).or_else(|| annotations.get(name));
    let handling = Handling::read(|name| either(name).map(String::as_str), warn);
    let route = OwnRoute::read(|label| labels.get(label).map(String::as_str));
    if let Err(wrong) = &route {
        warn(wrong.label, wrong.why.clone());
    }
    let function = StackFunction {
        run,
        spec,
        limits,
        handling,
        route,
    };
    Ok((name, Ok(function)))
}

/// The command of a language, from its template beside the stack file.
fn fprocess_of(lang: &str, folder: &Path) -> Result<Option<String>, String> {
    let is_name = !lang.is_empty() && !lang.starts_with('.') && !lang.contains('/');
    let file = folder.join("template").join(lang).join("template.yml");
    if !is_name || !file.exists() {
        return Ok(None);
    }
    let fprocess = file::template_fprocess(&read_bounded(&file)?);
    fprocess.map_err(|why| format!("{}: {why}", file.display()))
}

fn no_command(lang: &str) -> String {
    let template = match lang {
        "" => String::new(),
        _ => format!(", and there is none in template/{lang}/template.yml"),
    };
    format!(
        "it has no fprocess{template}: say which command to run, or name a running server with the annotation {UPSTREAM}"
    )
}

/// What the stack file says of a function, wherever it shall run.
fn spec(part: FunctionPart, folder: &Path) -> Result<Spec, String> {
    let mut env_vars = BTreeMap::new();
    let read_only = part.is_read_only()?;
    for file in part.environment_file {
        let file = String::from(file);
        let text = read_bounded(&folder.join(&file))?;
        let more = file::environment(&text).map_err(|why| format!("{file}: {why}"))?;
        env_vars.extend(texts(more));
    }
    // faas-cli's precedence: the files over the stack file (wire contract §7.3).
    for (name, value) in texts(part.environment) {
        env_vars.entry(name).or_insert(value);
    }
    Ok(Spec {
        image: part.image.into(),
        env_process: part
            .fprocess
            .map(Into::into)
            .or_else(|| env_vars.remove("fprocess")),
        env_vars,
        constraints: part.constraints.into_iter().map(Into::into).collect(),
        secrets: part.secrets.into_iter().map(Into::into).collect(),
        labels: texts(part.labels),
        annotations: texts(part.annotations),
        limits: resources(part.limits),
        requests: resources(part.requests),
        read_only,
        created_at: None,
        notes: Vec::new(),
    })
}

fn texts(map: Map<Scalar>) -> BTreeMap<String, String> {
    map.into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect()
}

fn resources(part: ResourcePart) -> Resources {
    Resources {
        memory: part.memory.map(Into::into),
        cpu: part.cpu.map(Into::into),
    }
}

#[cfg(test)]
#[path = "stack_tests.rs"]
mod tests;
