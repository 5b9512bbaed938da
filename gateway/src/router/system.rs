//! What is below `/system/`: verb and path → an operation of the management API (wire contract §3.2). Pure.

use hyper::Method;

use super::{Refusal, without_namespace};
use crate::function::is_name;

/// What a client wants of the management API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Every function.
    ListFunctions,
    /// A new function.
    CreateFunction,
    /// A function as it shall be now.
    UpdateFunction,
    /// A function less.
    RemoveFunction,
    /// One function.
    Describe(String),
    /// Another number of replicas.
    Scale(String),
    /// The names of all secrets.
    ListSecrets,
    /// A new secret.
    CreateSecret,
    /// Another value of a secret.
    UpdateSecret,
    /// A secret less.
    RemoveSecret,
    /// Every key, without its secret.
    ListKeys,
    /// A new key.
    CreateKey,
    /// A key less.
    RevokeKey(String),
    /// A function's log lines.
    Logs,
    /// A function's replicas.
    ListReplicas(String),
    /// Replaces all of a function's replicas.
    EndReplicas(String),
    /// Ends one replica of a function.
    EndReplica(String, String),
    /// Every namespace.
    ListNamespaces,
    /// One namespace.
    DescribeNamespace(String),
    /// A namespace made, changed or removed.
    ChangeNamespace,
    /// Prometheus found something.
    Alert,
    /// This API, described.
    OpenApi,
    /// Provider and version.
    Info,
}

/// The verbs that a path has: each with what it means, and all of them for the `Allow` field.
type Choices = (&'static [(Method, fn(String) -> Operation)], &'static str);

const FUNCTIONS: Choices = (
    &[
        (Method::GET, |_| Operation::ListFunctions),
        (Method::POST, |_| Operation::CreateFunction),
        (Method::PUT, |_| Operation::UpdateFunction),
        (Method::DELETE, |_| Operation::RemoveFunction),
    ],
    "GET, HEAD, POST, PUT, DELETE",
);
const SECRETS: Choices = (
    &[
        (Method::GET, |_| Operation::ListSecrets),
        (Method::POST, |_| Operation::CreateSecret),
        (Method::PUT, |_| Operation::UpdateSecret),
        (Method::DELETE, |_| Operation::RemoveSecret),
    ],
    "GET, HEAD, POST, PUT, DELETE",
);
const KEYS: Choices = (
    &[
        (Method::GET, |_| Operation::ListKeys),
        (Method::POST, |_| Operation::CreateKey),
    ],
    "GET, HEAD, POST",
);
const KEY: Choices = (&[(Method::DELETE, Operation::RevokeKey)], "DELETE");
const REPLICAS: Choices = (
    &[
        (Method::GET, Operation::ListReplicas),
        (Method::DELETE, Operation::EndReplicas),
    ],
    "GET, HEAD, DELETE",
);
const DESCRIBE: Choices = (&[(Method::GET, Operation::Describe)], "GET, HEAD");
const SCALE: Choices = (&[(Method::POST, Operation::Scale)], "POST");
const NAMESPACES: Choices = (&[(Method::GET, |_| Operation::ListNamespaces)], "GET, HEAD");
const NAMESPACE: Choices = (
    &[
        (Method::GET, Operation::DescribeNamespace),
        (Method::POST, |_| Operation::ChangeNamespace),
        (Method::PUT, |_| Operation::ChangeNamespace),
        (Method::DELETE, |_| Operation::ChangeNamespace),
    ],
    "GET, HEAD, POST, PUT, DELETE",
);
const LOGS: Choices = (&[(Method::GET, |_| Operation::Logs)], "GET, HEAD");
const INFO: Choices = (&[(Method::GET, |_| Operation::Info)], "GET, HEAD");
const OPENAPI: Choices = (&[(Method::GET, |_| Operation::OpenApi)], "GET, HEAD");
const ALERT: Choices = (&[(Method::POST, |_| Operation::Alert)], "POST");

/// The operation of a path below `/system/`.
pub(super) fn operation(
    method: &Method,
    path: &str,
    namespace: &str,
) -> Result<Operation, Refusal> {
    let parts: Vec<&str> = path.splitn(5, '/').collect();
    let named = |name: &str| {
        let name = without_namespace(name, namespace);
        is_name(name)
            .then(|| name.to_owned())
            .ok_or(Refusal::BadName)
    };
    let (choices, name) = match parts.as_slice() {
        ["functions"] => (FUNCTIONS, Ok(String::new())),
        ["secrets"] => (SECRETS, Ok(String::new())),
        ["keys"] => (KEYS, Ok(String::new())),
        ["keys", id] => (KEY, Ok((*id).to_owned())),
        ["namespaces"] => (NAMESPACES, Ok(String::new())),
        // Where clients make one; its name is in the body.
        ["namespace", ""] if *method == Method::POST => (NAMESPACE, Ok(String::new())),
        ["logs"] => (LOGS, Ok(String::new())),
        ["info"] => (INFO, Ok(String::new())),
        ["openapi.json"] => (OPENAPI, Ok(String::new())),
        ["alert"] => (ALERT, Ok(String::new())),
        ["function", name] => (DESCRIBE, named(name)),
        ["scale-function", name] => (SCALE, named(name)),
        ["namespace", name] => (NAMESPACE, named(name)),
        ["function", name, "replicas"] => (REPLICAS, named(name)),
        ["function", name, "replicas", id] => {
            if *method != Method::DELETE {
                return Err(Refusal::Method { allow: "DELETE" });
            }
            // A local replica's id has its port behind a colon.
            let is_id = |id: &str| {
                !id.is_empty()
                    && id
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
            };
            return match named(name) {
                Ok(name) if is_id(id) => Ok(Operation::EndReplica(name, (*id).to_owned())),
                _ => Err(Refusal::BadName),
            };
        }
        ["function", name, ..] if named(name).is_err() => return Err(Refusal::BadName),
        _ => return Err(Refusal::NoSuchPage),
    };
    let verb = if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let (choices, allow) = choices;
    let chosen = choices.iter().find(|(known, _)| known == verb);
    let (_, make) = chosen.ok_or(Refusal::Method { allow })?;
    name.map(make)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: &str, path: &str) -> Result<Operation, Refusal> {
        operation(&method.parse().unwrap(), path, "openfaas-fn")
    }

    #[test]
    fn a_path_and_a_verb_are_an_operation() {
        for (method, path, wanted) in [
            ("GET", "functions", Operation::ListFunctions),
            ("HEAD", "functions", Operation::ListFunctions),
            ("POST", "functions", Operation::CreateFunction),
            ("PUT", "functions", Operation::UpdateFunction),
            ("DELETE", "functions", Operation::RemoveFunction),
            (
                "GET",
                "function/cat.openfaas-fn",
                Operation::Describe("cat".into()),
            ),
            ("POST", "scale-function/cat", Operation::Scale("cat".into())),
            ("GET", "info", Operation::Info),
            ("GET", "secrets", Operation::ListSecrets),
            (
                "GET",
                "function/cat/replicas",
                Operation::ListReplicas("cat".into()),
            ),
            (
                "DELETE",
                "function/cat/replicas",
                Operation::EndReplicas("cat".into()),
            ),
            (
                "DELETE",
                "function/cat/replicas/t1",
                Operation::EndReplica("cat".into(), "t1".into()),
            ),
            (
                "GET",
                "namespace/openfaas-fn",
                Operation::DescribeNamespace("openfaas-fn".into()),
            ),
            ("POST", "namespace/", Operation::ChangeNamespace),
            ("PUT", "namespace/mine", Operation::ChangeNamespace),
            ("DELETE", "namespace/mine", Operation::ChangeNamespace),
            ("POST", "alert", Operation::Alert),
            ("PUT", "secrets", Operation::UpdateSecret),
            ("GET", "keys", Operation::ListKeys),
            ("POST", "keys", Operation::CreateKey),
            ("DELETE", "keys/0a", Operation::RevokeKey("0a".into())),
        ] {
            assert_eq!(at(method, path), Ok(wanted), "{method} {path}");
        }
    }

    #[test]
    fn another_verb_is_told_which_there_are() {
        for (method, path, allow) in [
            ("PATCH", "functions", "GET, HEAD, POST, PUT, DELETE"),
            ("DELETE", "function/cat", "GET, HEAD"),
            ("GET", "scale-function/cat", "POST"),
            ("PUT", "info", "GET, HEAD"),
            ("GET", "keys/0a", "DELETE"),
            ("PATCH", "namespace/mine", "GET, HEAD, POST, PUT, DELETE"),
            ("GET", "function/cat/replicas/t1", "DELETE"),
        ] {
            assert_eq!(
                at(method, path),
                Err(Refusal::Method { allow }),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn paths_are_exact_and_names_are_names() {
        for path in [
            "",
            "functions/",
            "functions/x",
            "info/",
            "nosuch",
            "Functions",
            "function",
            "function/a/b",
        ] {
            assert_eq!(at("GET", path), Err(Refusal::NoSuchPage), "{path}");
        }
        for path in [
            "function/",
            "function/..",
            "function/../info",
            "function/a%2fb",
        ] {
            assert_eq!(at("GET", path), Err(Refusal::BadName), "{path}");
        }
    }
}
