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
    /// Provider and version.
    Info,
}

type Choice = (Method, fn(&str) -> Operation);

/// The operation of a path below `/system/`.
pub(super) fn operation(
    method: &Method,
    path: &str,
    namespace: &str,
) -> Result<Operation, Refusal> {
    use Operation as O;
    let (name, choices, allow): (&str, &[Choice], &'static str) =
        match path.split_once('/').unwrap_or((path, "")) {
            ("functions", "") if path == "functions" => (
                "",
                &[
                    (Method::GET, |_| O::ListFunctions),
                    (Method::POST, |_| O::CreateFunction),
                    (Method::PUT, |_| O::UpdateFunction),
                    (Method::DELETE, |_| O::RemoveFunction),
                ],
                "GET, HEAD, POST, PUT, DELETE",
            ),
            ("function", name) => (
                name,
                &[(Method::GET, |name| O::Describe(name.to_owned()))],
                "GET, HEAD",
            ),
            ("scale-function", name) => (
                name,
                &[(Method::POST, |name| O::Scale(name.to_owned()))],
                "POST",
            ),
            ("secrets", "") if path == "secrets" => (
                "",
                &[
                    (Method::GET, |_| O::ListSecrets),
                    (Method::POST, |_| O::CreateSecret),
                    (Method::PUT, |_| O::UpdateSecret),
                    (Method::DELETE, |_| O::RemoveSecret),
                ],
                "GET, HEAD, POST, PUT, DELETE",
            ),
            ("info", "") if path == "info" => ("", &[(Method::GET, |_| O::Info)], "GET, HEAD"),
            _ => return Err(Refusal::NoSuchPage),
        };
    let name = without_namespace(name, namespace);
    let is_named = path.contains('/');
    if is_named && !is_name(name) {
        return Err(Refusal::BadName);
    }
    let verb = if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let chosen = choices.iter().find(|(known, _)| known == verb);
    chosen
        .map(|(_, make)| make(name))
        .ok_or(Refusal::Method { allow })
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
            ("PUT", "secrets", Operation::UpdateSecret),
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
        ] {
            assert_eq!(at("GET", path), Err(Refusal::NoSuchPage), "{path}");
        }
        for path in [
            "function/",
            "function/..",
            "function/../info",
            "function/a/b",
            "function/a%2fb",
        ] {
            assert_eq!(at("GET", path), Err(Refusal::BadName), "{path}");
        }
    }
}
