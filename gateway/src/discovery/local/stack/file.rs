//! A stack file as text: its fields (wire contract §7.3). Each scalar is the text that stands in the file.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::shape::Shape;
use super::variables::Template;

#[derive(Deserialize)]
struct StackFile {
    #[serde(default, deserialize_with = "or_default")]
    provider: ProviderPart,
    #[serde(deserialize_with = "or_default")]
    functions: Map<Nullable<FunctionPart>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ProviderPart {
    name: Scalar,
    gateway: Scalar,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct FunctionPart {
    pub(super) lang: Scalar,
    pub(super) handler: Option<Scalar>,
    pub(super) image: Scalar,
    pub(super) fprocess: Option<Scalar>,
    #[serde(deserialize_with = "or_default")]
    pub(super) environment: Map<Scalar>,
    #[serde(deserialize_with = "or_default")]
    pub(super) environment_file: Vec<Scalar>,
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: Map<Scalar>,
    #[serde(deserialize_with = "or_default")]
    pub(super) annotations: Map<Scalar>,
    #[serde(deserialize_with = "or_default")]
    pub(super) constraints: Vec<Scalar>,
    #[serde(deserialize_with = "or_default")]
    pub(super) secrets: Vec<Scalar>,
    #[serde(deserialize_with = "or_default")]
    pub(super) limits: ResourcePart,
    #[serde(deserialize_with = "or_default")]
    pub(super) requests: ResourcePart,
    pub(super) readonly_root_filesystem: Scalar,
    // Read for their form alone: they concern the building of an image.
    #[serde(deserialize_with = "or_default", rename = "build_args")]
    _build_args: Map<Scalar>,
    #[serde(deserialize_with = "or_default", rename = "build_options")]
    _build_options: Vec<Scalar>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ResourcePart {
    pub(super) memory: Option<Scalar>,
    pub(super) cpu: Option<Scalar>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EnvironmentFile {
    #[serde(deserialize_with = "or_default")]
    environment: Map<Scalar>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LanguageTemplate {
    fprocess: Scalar,
}

pub(super) type Map<T> = BTreeMap<String, T>;

/// A scalar as it is written: `0049123`, `NO` and `1e3` are texts to a function. Null is the empty text.
#[derive(Clone, Default)]
pub(super) struct Scalar(String);

impl From<Scalar> for String {
    fn from(scalar: Scalar) -> Self {
        scalar.0
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        if text.contains('\0') {
            return Err(D::Error::custom("a NUL byte, which no setting can have"));
        }
        Ok(Self(text))
    }
}

struct Nullable<T>(T);

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Nullable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        or_default(deserializer).map(Self)
    }
}

/// A key with nothing after it is as good as no key.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a stack file says, with its variables filled in.
#[derive(Default)]
pub(super) struct Content {
    pub(super) functions: Map<FunctionPart>,
    pub(super) gateway: Option<String>,
    pub(super) warnings: Vec<String>,
}

/// Reads the text of a stack file; `env` has the variables.
///
/// # Errors
/// Every mistake, a line each.
pub(super) fn read(
    text: &str,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Content, Vec<String>> {
    let template = Template::new(text, env).map_err(|why| vec![why])?;
    let wrong = |why: String| vec![format!("not a stack file: {}", template.shown(&why))];
    let shape: Shape = parse(&template.yaml).map_err(wrong)?;
    let (mut warnings, mistakes) = template.remarks(shape.scalars().into_iter());
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let file: StackFile = parse(&template.yaml).map_err(wrong)?;
    warnings.extend(shape.unknown_keys().iter().map(|why| template.shown(why)));
    let provider = template.fill(&file.provider.name.0);
    if !["", "openfaas", "faas"].contains(&provider.as_str()) {
        warnings.push(format!(
            "provider.name is '{provider}', which is not known: the file is read as one of openfaas"
        ));
    }
    let fill = |(name, Nullable(mut part)): (String, Nullable<FunctionPart>)| {
        part.fill(&template);
        (template.fill(&name), part)
    };
    Ok(Content {
        functions: file.functions.into_iter().map(fill).collect(),
        gateway: Some(template.fill(&file.provider.gateway.0)).filter(|url| !url.is_empty()),
        warnings,
    })
}

/// The variables of an environment file.
///
/// # Errors
/// Why it cannot be read, with line and column.
pub(super) fn environment(text: &str) -> Result<Map<Scalar>, String> {
    parse(text).map(|file: EnvironmentFile| file.environment)
}

/// The command that a language's template.yml names.
///
/// # Errors
/// Why it cannot be read, with line and column.
pub(super) fn template_fprocess(text: &str) -> Result<Option<String>, String> {
    let template: LanguageTemplate = parse(text)?;
    Ok(Some(template.fprocess.0).filter(|fprocess| !fprocess.is_empty()))
}

/// Parses YAML; a mistake has its line and column.
fn parse<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

impl FunctionPart {
    fn fill(&mut self, template: &Template) {
        let single = [
            &mut self.lang,
            &mut self.image,
            &mut self.readonly_root_filesystem,
        ];
        let resources = [&mut self.limits, &mut self.requests];
        let resources = resources
            .into_iter()
            .flat_map(|part| [&mut part.memory, &mut part.cpu]);
        let optional = [&mut self.handler, &mut self.fprocess]
            .into_iter()
            .chain(resources);
        let lists = [
            &mut self.environment_file,
            &mut self.constraints,
            &mut self.secrets,
        ];
        for scalar in single
            .into_iter()
            .chain(optional.flatten())
            .chain(lists.into_iter().flatten())
        {
            scalar.0 = template.fill(&scalar.0);
        }
        for map in [
            &mut self.environment,
            &mut self.labels,
            &mut self.annotations,
        ] {
            let pairs = std::mem::take(map).into_iter();
            *map = pairs
                .map(|(name, value)| (template.fill(&name), Scalar(template.fill(&value.0))))
                .collect();
        }
    }

    /// Whether the root file system shall be read-only.
    ///
    /// # Errors
    /// A text that is neither true nor false.
    pub(super) fn is_read_only(&self) -> Result<bool, String> {
        let text = self.readonly_root_filesystem.0.as_str();
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "" | "false" | "no" | "off" | "n" => Ok(false),
            _ => Err(format!(
                "readonly_root_filesystem: '{text}' is not true or false"
            )),
        }
    }
}
