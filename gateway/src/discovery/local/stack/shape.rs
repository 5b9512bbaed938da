//! The keys of a stack file with their lines, whatever is in them: which of them are not known.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::function::labels::near;

const FILE: [&str; 4] = ["version", "provider", "functions", "configuration"];
const PROVIDER: [&str; 3] = ["name", "gateway", "network"];
const FUNCTION: [&str; 22] = [
    "name",
    "lang",
    "handler",
    "image",
    "registry_auth",
    "fprocess",
    "environment",
    "environment_file",
    "secrets",
    "skip_build",
    "constraints",
    "labels",
    "annotations",
    "limits",
    "requests",
    "readonly_root_filesystem",
    "build_options",
    "build_args",
    "build_secrets",
    "platforms",
    "namespace",
    "network",
];
const RESOURCES: [&str; 2] = ["memory", "cpu"];
const CONFIGURATION: [&str; 2] = ["templates", "copy"];

/// A node of YAML.
pub(super) enum Shape {
    Map(Vec<(Spanned<String>, Shape)>),
    List(Vec<Shape>),
    Text(String),
    /// A number, a boolean or null.
    Other,
}

impl Shape {
    /// Every scalar and key that is text.
    pub(super) fn scalars(&self) -> Vec<&str> {
        match self {
            Self::Map(pairs) => pairs
                .iter()
                .flat_map(|(key, value)| std::iter::once(key.value.as_str()).chain(value.scalars()))
                .collect(),
            Self::List(items) => items.iter().flat_map(Self::scalars).collect(),
            Self::Text(text) => vec![text],
            Self::Other => Vec::new(),
        }
    }

    fn pairs(&self) -> &[(Spanned<String>, Shape)] {
        match self {
            Self::Map(pairs) => pairs,
            _ => &[],
        }
    }

    fn get(&self, name: &str) -> &Shape {
        let mut pairs = self.pairs().iter();
        let found = pairs.find(|(key, _)| key.value == name);
        found.map_or(&Self::Other, |(_, value)| value)
    }

    /// A line for each key that a stack file does not have; keys that begin with `x-` are the user's own.
    pub(super) fn unknown_keys(&self) -> Vec<String> {
        let mut unknown = Vec::new();
        self.compare("", &FILE, &mut unknown);
        self.get("provider")
            .compare("provider.", &PROVIDER, &mut unknown);
        self.get("configuration")
            .compare("configuration.", &CONFIGURATION, &mut unknown);
        for (name, function) in self.get("functions").pairs() {
            let path = format!("functions.{}.", name.value);
            function.compare(&path, &FUNCTION, &mut unknown);
            for part in ["limits", "requests"] {
                let path = format!("{path}{part}.");
                function.get(part).compare(&path, &RESOURCES, &mut unknown);
            }
        }
        unknown
    }

    fn compare(&self, path: &str, known: &[&'static str], unknown: &mut Vec<String>) {
        for (key, _) in self.pairs() {
            let name = key.value.as_str();
            if known.contains(&name) || name.starts_with("x-") {
                continue;
            }
            let hint = near(name, known.iter().copied());
            let hint = hint.map_or_else(String::new, |near| format!(": did you mean {near}?"));
            let line = key.referenced.line();
            unknown.push(format!(
                "line {line}: {path}{name} is not known, and ignored{hint}"
            ));
        }
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("YAML")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Shape::Map(pairs))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Shape::List(items))
    }

    fn visit_str<E>(self, text: &str) -> Result<Shape, E> {
        Ok(Shape::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_none<E>(self) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        Shape::deserialize(deserializer)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Shape, E> {
        Ok(Shape::Other)
    }
}
