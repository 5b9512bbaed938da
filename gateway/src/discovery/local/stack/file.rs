//! A stack file as text: its fields (wire contract §7.3), and the variables that are filled in before it is read.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct StackFile {
    pub(super) provider: Option<ProviderPart>,
    pub(super) functions: BTreeMap<String, FunctionPart>,
}

#[derive(Deserialize)]
pub(super) struct ProviderPart {
    pub(super) name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct FunctionPart {
    pub(super) handler: Option<String>,
    pub(super) image: String,
    pub(super) fprocess: Option<String>,
    pub(super) environment: BTreeMap<String, Scalar>,
    pub(super) environment_file: Vec<String>,
    pub(super) labels: BTreeMap<String, Scalar>,
    pub(super) annotations: BTreeMap<String, Scalar>,
    pub(super) constraints: Vec<String>,
    pub(super) secrets: Vec<String>,
    pub(super) limits: Option<ResourcePart>,
    pub(super) requests: Option<ResourcePart>,
    pub(super) readonly_root_filesystem: bool,
}

#[derive(Deserialize)]
pub(super) struct EnvironmentFile {
    pub(super) environment: BTreeMap<String, Scalar>,
}

#[derive(Deserialize)]
pub(super) struct ResourcePart {
    pub(super) memory: Option<Scalar>,
    pub(super) cpu: Option<Scalar>,
}

/// People write `write_debug: true` and `replicas: 2`; both are texts to a function.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Bool(bool),
    Whole(i64),
    Real(f64),
    Text(String),
}

impl From<Scalar> for String {
    fn from(scalar: Scalar) -> String {
        match scalar {
            Scalar::Bool(value) => value.to_string(),
            Scalar::Whole(value) => value.to_string(),
            Scalar::Real(value) => value.to_string(),
            Scalar::Text(value) => value,
        }
    }
}

/// Fills `${NAME}` and `${NAME:-default}` in, as clients do before they read a stack file; `$` without a brace is text.
pub(super) fn substitute(text: &str, env: &impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(end) = rest[start..].find('}') else {
            break;
        };
        filled.push_str(&rest[..start]);
        let inside = &rest[start + 2..start + end];
        let (name, default) = inside.split_once(":-").unwrap_or((inside, ""));
        filled.push_str(
            &env(name)
                .filter(|value| !value.is_empty())
                .unwrap_or_else(|| default.to_owned()),
        );
        rest = &rest[start + end + 1..];
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_braces_are_substituted() {
        let fill = |text| substitute(text, &|name| (name == "WHO").then(|| "me".to_owned()));
        assert_eq!(
            fill("awk '{print $1}' ${WHO}${NONE}${NONE:-x} ${open"),
            "awk '{print $1}' mex ${open"
        );
    }
}
