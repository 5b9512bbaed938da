//! A FunctionDeployment (wire contract §4) → a function as wanted. Pure: what the client wrote is checked here, field by field, and
//! nothing that it wrote is dropped in silence.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::fields::Fields;
use crate::discovery::operate::{
    Amounts, PIDS, RegistryLogin, SCALE_FACTOR, SCALE_MAX, SCALE_MIN, TMP_SIZE, Wanted, is_reserved,
};
use crate::escaped::{escaped, is_harmful};
use crate::function::route::{NotARoute, OwnRoute};
use crate::function::{FunctionName, Handling, Limits, MAX_REPLICAS, Resources, SecretName, Spec};
use crate::quantity;
use crate::router::without_namespace;

/// Where this gateway's functions are: what a request may say of it, and nothing else.
pub(super) struct Home<'a> {
    /// The one namespace.
    pub(super) namespace: &'a str,
    /// The network that calls are routed on, if there is one.
    pub(super) network: Option<&'a str>,
}

impl Home<'_> {
    /// Reads the fields of a deployment.
    ///
    /// # Errors
    /// All mistakes in one line, each named by its field.
    pub(super) fn wanted(&self, mut fields: Fields) -> Result<Wanted, String> {
        let name = self.name(&mut fields, "service");
        self.check_namespace(&mut fields);
        self.check_network(&mut fields);
        let (written_limits, limits) = resources(&mut fields, "limits");
        let (written_requests, requests) = resources(&mut fields, "requests");
        let spec = Spec {
            image: image(&mut fields),
            env_process: fields.text("envProcess"),
            env_vars: fields.text_map("envVars"),
            constraints: fields.texts("constraints"),
            secrets: fields.texts("secrets"),
            labels: fields.text_map("labels"),
            annotations: fields.text_map("annotations"),
            limits: written_limits,
            requests: written_requests,
            read_only: fields.flag("readOnlyRootFilesystem"),
            created_at: None,
            notes: Vec::new(),
        };
        check_order(&mut fields, limits, requests);
        check_environment(&mut fields, &spec);
        check_lists(&mut fields, &spec);
        check_labels(&mut fields, name.as_ref(), &spec);
        let registry = registry(&mut fields);
        let wanted = name.map(|name| Wanted {
            name,
            spec,
            limits,
            requests,
            registry,
        });
        // Without a name there was a mistake.
        let wanted = fields.finish(wanted)?;
        wanted.ok_or_else(|| "service: is missing".to_owned())
    }

    /// A function's name in a field, its namespace left out.
    pub(super) fn name(&self, fields: &mut Fields, field: &str) -> Option<FunctionName> {
        let text = fields.required(field);
        if text.is_empty() {
            return None;
        }
        match FunctionName::new(without_namespace(&text, self.namespace)) {
            Ok(name) if is_service_name(name.as_str()) => Some(name),
            _ => {
                let hint = "a name has 1 to 63 letters, digits, - and _, and begins and ends with a letter or digit";
                fields.mistake(
                    field,
                    format!(
                        "'{}' cannot be used: {hint}; the one namespace here is {}",
                        escaped(&text),
                        self.namespace
                    ),
                );
                None
            }
        }
    }

    /// Refuses another namespace than the one there is.
    pub(super) fn check_namespace(&self, fields: &mut Fields) {
        if let Some(why) = fields
            .text("namespace")
            .and_then(|asked| self.not_here(&asked))
        {
            fields.mistake("namespace", why);
        }
    }

    /// Why a namespace cannot be used, if it cannot.
    pub(super) fn not_here(&self, namespace: &str) -> Option<String> {
        (namespace != self.namespace).then(|| {
            format!(
                "there is no '{}' here; the one namespace is {}",
                escaped(namespace),
                self.namespace
            )
        })
    }

    fn check_network(&self, fields: &mut Fields) {
        if let (Some(asked), Some(network)) = (fields.text("network"), self.network)
            && asked != network
        {
            fields.mistake(
                "network",
                format!(
                    "functions are on '{network}', not on '{}': leave it out",
                    escaped(&asked)
                ),
            );
        }
    }
}

/// What Swarm takes as a service's name: a part of a host's name.
fn is_service_name(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    is_end(bytes.first()) && is_end(bytes.last()) && !bytes.contains(&b'.')
}

fn image(fields: &mut Fields) -> String {
    let image = fields.required("image");
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    if image.len() > 512 || !image.bytes().all(is_allowed) {
        fields.mistake(
            "image",
            format!("'{}' is no image's name", image.escape_debug()),
        );
    }
    image
}

/// Memory and processor, as they were written and in numbers.
fn resources(fields: &mut Fields, field: &str) -> (Resources, Amounts) {
    let mut object = fields.object(field);
    let mut read = |what: &str, parse: fn(&str) -> Result<i64, String>| {
        let written = match object.remove(what) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(_) => Err("must be a text such as 40Mi or 100m".to_owned()),
        };
        let amount = written.and_then(|text| {
            let amount = text.as_deref().map(parse).transpose()?;
            Ok((text, amount))
        });
        amount.unwrap_or_else(|why| {
            fields.mistake(&format!("{field}.{what}"), why);
            (None, None)
        })
    };
    let (memory, bytes) = read("memory", quantity::memory);
    let (cpu, nano_cpus) = read("cpu", quantity::cpu);
    for unit in object.keys().filter(|name| name.ends_with("/gpu")) {
        fields.mistake(
            &format!("{field}.{unit}"),
            "this gateway places no function by graphics processors",
        );
    }
    let amounts = Amounts {
        memory: bytes,
        nano_cpus,
    };
    (Resources { memory, cpu }, amounts)
}

fn check_order(fields: &mut Fields, limits: Amounts, requests: Amounts) {
    for (what, limit, request) in [
        ("memory", limits.memory, requests.memory),
        ("cpu", limits.nano_cpus, requests.nano_cpus),
    ] {
        if let (Some(limit), Some(request)) = (limit, request)
            && request > limit
        {
            fields.mistake(
                &format!("requests.{what}"),
                format!("is more than limits.{what}"),
            );
        }
    }
}

fn check_environment(fields: &mut Fields, spec: &Spec) {
    for (name, value) in &spec.env_vars {
        if name.is_empty() || name.contains('=') || name.contains(is_harmful) {
            fields.mistake(
                &format!("envVars.{name}"),
                "a variable's name has no = and no control characters in it",
            );
        } else if value.contains('\0') {
            fields.mistake(&format!("envVars.{name}"), "has a NUL in it");
        }
    }
    if spec.env_process.is_some() && spec.env_vars.contains_key("fprocess") {
        fields.mistake(
            "envVars.fprocess",
            "says the same as envProcess: leave one out",
        );
    }
    if spec
        .env_process
        .as_ref()
        .is_some_and(|command| command.contains('\0'))
    {
        fields.mistake("envProcess", "has a NUL in it");
    }
}

fn check_lists(fields: &mut Fields, spec: &Spec) {
    for constraint in &spec.constraints {
        let sides = constraint
            .split_once("==")
            .or_else(|| constraint.split_once("!="));
        if constraint.contains(is_harmful)
            || !sides.is_some_and(|(key, value)| !key.trim().is_empty() && !value.trim().is_empty())
        {
            fields.mistake(
                "constraints",
                format!("'{}' is not like node.role == worker", escaped(constraint)),
            );
        }
    }
    for (number, secret) in spec.secrets.iter().enumerate() {
        if SecretName::new(secret).is_none() {
            fields.mistake(
                "secrets",
                format!("'{}' is no secret's name", secret.escape_debug()),
            );
        } else if spec.secrets[..number].contains(secret) {
            fields.mistake("secrets", format!("'{secret}' is there twice"));
        }
    }
}

fn check_labels(fields: &mut Fields, name: Option<&FunctionName>, spec: &Spec) {
    for (label, value) in &spec.labels {
        let is_name_again = ["com.openfaas.function", "faas_function"].contains(&label.as_str())
            && name.is_some_and(|name| name.as_str() == value);
        if label.is_empty() || is_reserved(label) && !is_name_again {
            fields.mistake(&format!("labels.{label}"), "is reserved: leave it out");
        }
    }
    if spec.annotations.contains_key("") {
        fields.mistake("annotations", "one has no name");
    }
    for (field, texts) in [("labels", &spec.labels), ("annotations", &spec.annotations)] {
        for (name, value) in texts {
            let field = || format!("{field}.{name}");
            if name.contains(is_harmful) {
                fields.mistake(&field(), "its name has control characters in it");
            } else if value.contains('\0') {
                fields.mistake(&field(), "has a NUL in it");
            }
        }
    }
    if spec
        .labels
        .get("skep.enable")
        .is_some_and(|value| value != "true")
    {
        fields.mistake("labels.skep.enable", "would make it no function");
    }
    let mut wrong = Vec::new();
    let mut note = |label: &'static str, why: String| wrong.push((label, why));
    let written = |label: &str| spec.labels.get(label).map(String::as_str);
    Limits::read(written, &mut note);
    Handling::read(written, &mut note);
    if let Err(NotARoute { label, why }) = OwnRoute::read(written) {
        note(label, why);
    }
    let number = |label: &str| spec.labels.get(label).map(|text| text.parse::<u64>());
    for (label, most) in [
        ("skep.port", 65_535),
        (PIDS, 4_194_304),
        (SCALE_MIN, MAX_REPLICAS),
        (SCALE_MAX, MAX_REPLICAS),
        (SCALE_FACTOR, 100),
    ] {
        let least = if label.starts_with("skep.") { 1 } else { 0 };
        if number(label)
            .is_some_and(|number| !number.is_ok_and(|number| (least..=most).contains(&number)))
        {
            wrong.push((label, format!("write a number from {least} to {most}")));
        }
    }
    if let Some(Err(why)) = written(TMP_SIZE).map(quantity::memory) {
        wrong.push((TMP_SIZE, why));
    }
    if let (Some(Ok(min)), Some(Ok(max))) = (number(SCALE_MIN), number(SCALE_MAX))
        && min > max
    {
        wrong.push((SCALE_MIN, format!("is more than {SCALE_MAX}")));
    }
    for (label, why) in wrong {
        fields.mistake(&format!("labels.{label}"), why);
    }
}

fn registry(fields: &mut Fields) -> Option<RegistryLogin> {
    let text = fields.text("registryAuth")?;
    let decoded = STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let login = decoded
        .as_deref()
        .and_then(|login| login.split_once(':'))
        .filter(|(user, _)| !user.is_empty() && !user.contains(is_harmful));
    if login.is_none() {
        fields.mistake("registryAuth", "must be user:password in base64");
    }
    login.map(|(user, password)| RegistryLogin {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
