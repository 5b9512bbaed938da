//! The stack file (wire contract §7.3) → functions to run as local processes. All mistakes at once.

mod file;
mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::file::{EnvironmentFile, FunctionPart, ResourcePart, Scalar, StackFile, substitute};
pub use self::run::Run;
use self::run::{command, handler_folder, has_program, upstream};
use crate::discovery::local::operate::NO_SECRETS;
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
    /// Reads a stack file; `env` fills `${NAME}` and `${NAME:-default}` in.
    ///
    /// # Errors
    /// Every mistake, a line each.
    pub fn load(file: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let text = read_bounded(file).map_err(|why| vec![why])?;
        Self::parse(&substitute(&text, &env), folder_of(file), &env)
            .map_err(|mistakes| in_file(file, &mistakes))
    }

    fn parse(
        text: &str,
        folder: &Path,
        env: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<String>> {
        let (parts, mut mistakes) = parts(text)?;
        let mut stack = Self::default();
        for (name, part) in parts {
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
            Ok(stack)
        } else {
            Err(mistakes)
        }
    }
}

/// What a stack file says of its functions, to be made elsewhere: nothing needs to be on this machine. `env` fills variables in.
///
/// # Errors
/// Every mistake, a line each.
pub fn specs(
    file: &Path,
    env: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<FunctionName, Spec>, Vec<String>> {
    let text = read_bounded(file).map_err(|why| vec![why])?;
    let found = parts(&substitute(&text, &env));
    let (parts, mut mistakes) = found.map_err(|mistakes| in_file(file, &mistakes))?;
    let mut specs = BTreeMap::new();
    for (name, part) in parts {
        let named = FunctionName::new(&name).map_err(|error| error.to_string());
        match named.and_then(|name| Ok((name, spec(part, folder_of(file))?))) {
            Ok((name, spec)) => drop(specs.insert(name, spec)),
            Err(why) => mistakes.push(format!("function '{name}': {why}")),
        }
    }
    if mistakes.is_empty() {
        Ok(specs)
    } else {
        Err(in_file(file, &mistakes))
    }
}

type Parts = BTreeMap<String, FunctionPart>;

/// The functions of a stack file, and what else is wrong with it.
fn parts(text: &str) -> Result<(Parts, Vec<String>), Vec<String>> {
    let parsed: StackFile =
        serde_saphyr::from_str(text).map_err(|error| vec![format!("not a stack file: {error}")])?;
    let foreign = parsed
        .provider
        .filter(|provider| provider.name != "openfaas");
    let mistakes = foreign
        .map(|provider| format!("provider.name is '{}', and must be openfaas", provider.name));
    Ok((parsed.functions, mistakes.into_iter().collect()))
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
    let home = part.handler.as_ref().map_or_else(
        || Ok(folder.to_owned()),
        |handler| handler_folder(handler, folder),
    );
    let spec = spec(part, folder).map_err(|why| vec![why])?;
    if !spec.secrets.is_empty() {
        tracing::warn!(function = %name, "{NO_SECRETS}");
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
        None => command(&spec, home.map_err(|why| vec![why])?, env)?,
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

/// What the stack file says of a function, wherever it shall run.
fn spec(part: FunctionPart, folder: &Path) -> Result<Spec, String> {
    let mut env_vars = BTreeMap::new();
    for file in &part.environment_file {
        let text = read_bounded(&folder.join(file))?;
        let more: EnvironmentFile =
            serde_saphyr::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
        env_vars.extend(texts(more.environment));
    }
    // faas-cli's precedence: the files over the stack file (wire contract §7.3).
    for (name, value) in texts(part.environment) {
        env_vars.entry(name).or_insert(value);
    }
    Ok(Spec {
        image: part.image,
        env_process: part.fprocess.or_else(|| env_vars.remove("fprocess")),
        env_vars,
        constraints: part.constraints,
        secrets: part.secrets,
        labels: texts(part.labels),
        annotations: texts(part.annotations),
        limits: resources(part.limits),
        requests: resources(part.requests),
        read_only: part.readonly_root_filesystem,
        created_at: None,
        notes: Vec::new(),
    })
}

fn texts(map: BTreeMap<String, Scalar>) -> BTreeMap<String, String> {
    map.into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect()
}

fn resources(part: Option<ResourcePart>) -> Resources {
    part.map(|part| Resources {
        memory: part.memory.map(Into::into),
        cpu: part.cpu.map(Into::into),
    })
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "PATH" => Some("/bin:/usr/bin".to_owned()),
            "WHO" => Some("me".to_owned()),
            _ => None,
        }
    }

    fn parse(text: &str) -> Result<Stack, Vec<String>> {
        Stack::parse(&substitute(text, &env), Path::new("/tmp"), &env)
    }

    #[test]
    fn reads_what_clients_write() {
        let stack = parse(
            "version: 1.0\nprovider:\n  name: openfaas\n  gateway: http://127.0.0.1:8080\nfunctions:\n  cat:\n    lang: dockerfile\n    handler: ./\n    image: skep/cat\n    \
             fprocess: cat\n    environment:\n      write_debug: true\n      who: ${WHO}\n      level: ${LEVEL:-low}\n      n: 3\n    labels:\n      com.openfaas.scale.min: 2\n      \
             skep.timeout: 5s\n    limits:\n      memory: 40Mi\n    build_args:\n      X: y\n",
        )
        .unwrap();
        let cat = stack.functions.values().next().unwrap();
        assert_eq!(
            cat.run,
            Run::Command {
                replicas: 2,
                folder: "/tmp".into()
            }
        );
        let vars: Vec<_> = cat
            .spec
            .env_vars
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(vars, ["level=low", "n=3", "who=me", "write_debug=true"]);
        assert_eq!(cat.limits.timeout.unwrap().as_secs(), 5);
        assert_eq!(cat.spec.limits.memory.as_deref(), Some("40Mi"));
    }

    #[test]
    fn an_upstream_needs_no_command() {
        let stack = parse(
            "functions:\n  there:\n    annotations:\n      skep.upstream: http://localhost:9000/\n",
        )
        .unwrap();
        assert_eq!(
            stack.functions.values().next().unwrap().run,
            Run::Upstream("localhost:9000".to_owned())
        );
    }

    #[test]
    fn a_function_whose_runtime_is_missing_is_skipped_with_a_reason() {
        let stack = parse("functions:\n  x:\n    fprocess: nosuch run\n    annotations:\n      skep.requires: nosuch\n").unwrap();
        assert_eq!(
            stack.skipped.values().next().unwrap(),
            "nosuch is not on this machine"
        );
        assert!(stack.functions.is_empty());
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let mistakes = parse(
            "provider:\n  name: lambda\nfunctions:\n  a/b:\n    fprocess: cat\n  none:\n    image: x\n  missing:\n    fprocess: nosuchcommand -x\n  up:\n    \
             annotations:\n      skep.upstream: ftp://x\n  many:\n    fprocess: cat\n    labels:\n      com.openfaas.scale.min: 1000\n",
        )
        .unwrap_err();
        assert_eq!(mistakes.len(), 6, "{mistakes:?}");
        for part in [
            "must be openfaas",
            "'a/b'",
            "no fprocess",
            "'nosuchcommand' was not found",
            "skep.upstream",
            "from 1 to 64",
        ] {
            assert!(
                mistakes.iter().any(|line| line.contains(part)),
                "{part} in {mistakes:?}"
            );
        }
    }

    #[test]
    fn what_is_no_stack_file_is_refused_in_words() {
        for text in [
            "",
            "hello",
            "functions: 3",
            "functions: {}",
            "a: [1",
            "functions:\n  x: [1]\n",
        ] {
            assert!(!parse(text).unwrap_err().is_empty(), "{text}");
        }
        assert!(
            Stack::load(Path::new("/nosuch/stack.yml"), env).unwrap_err()[0]
                .contains("cannot read /nosuch/stack.yml")
        );
    }
}
