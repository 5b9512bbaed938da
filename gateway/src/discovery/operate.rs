//! Changing the world and looking closer at it: what the management API asks of a provider.

use std::future::Future;
use std::pin::Pin;
use std::time::SystemTime;

use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::mpsc;

use super::usage::Usage;
use crate::function::{FunctionName, SecretName, Spec};

/// The label that sets how many processes a function may have at once.
pub const PIDS: &str = "skep.pids";
/// The label that sets how many bytes `/tmp` of a function with a read-only root has.
pub const TMP_SIZE: &str = "skep.tmp-size";
/// The label that says how many replicas a function has at least, and begins with (wire contract §4).
pub const SCALE_MIN: &str = "com.openfaas.scale.min";
/// The label that says how many replicas a function has at most.
pub const SCALE_MAX: &str = "com.openfaas.scale.max";
/// The label that says by how many hundredths of the most an alert scales.
pub const SCALE_FACTOR: &str = "com.openfaas.scale.factor";
/// The prefix under which annotations are kept as labels (wire contract §5.1).
pub const ANNOTATION: &str = "com.openfaas.annotations.";
/// The prefix of the labels that keep amounts in the operator's own words, such as `skep.asked.limits.memory`.
pub const ASKED: &str = "skep.asked.";
/// Labels that the platform adds itself; nobody else may.
pub const OWN_LABELS: [&str; 5] = [
    "com.openfaas.function",
    "function",
    "faas_function",
    "com.openfaas.uid",
    MADE_HERE,
];
/// The label of services that were made through the management API, or changed there by an administrator.
pub const MADE_HERE: &str = "skep.managed";

/// Whether a label is the platform's or Docker's own.
#[must_use]
pub fn is_reserved(label: &str) -> bool {
    OWN_LABELS.contains(&label)
        || [ANNOTATION, ASKED, "com.docker."]
            .iter()
            .any(|prefix| label.starts_with(prefix))
}

/// Which functions a change may touch, and what it may give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// All of them, and Docker's own secrets.
    All,
    /// Those that were made through the management API.
    Api,
}

/// Something that a provider does, or why it did not.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failed>> + Send + 'a>>;

/// Somebody who can change which functions there are. Each change is whole or not made.
pub trait Operator: Send + Sync + 'static {
    /// Makes a new function.
    fn create(&self, wanted: Wanted, authority: Authority) -> Doing<'_, Notes>;
    /// Makes an existing function what is wanted now; its replicas stay as many as they are.
    fn update(&self, wanted: Wanted, authority: Authority) -> Doing<'_, Notes>;
    /// Sets how many replicas a function has; 0 is a number.
    fn scale(&self, name: FunctionName, replicas: u64, authority: Authority) -> Doing<'_, ()>;
    /// Removes a function with all its replicas.
    fn remove(&self, name: FunctionName, authority: Authority) -> Doing<'_, ()>;
    /// Reads a function's logs, replica by replica; whoever drops the receiver ends it.
    fn logs(&self, asked: LogsAsked) -> Doing<'_, mpsc::Receiver<LogLine>>;
    /// A function's replicas, also those that ended not long ago.
    fn replicas(&self, name: FunctionName) -> Doing<'_, Vec<Replica>>;
    /// What a function's replicas use, as far as it can be seen from here.
    fn usage(&self, name: FunctionName) -> Doing<'_, Option<Usage>>;
    /// Ends one replica; another takes its place.
    fn end_replica(&self, name: FunctionName, id: String, authority: Authority) -> Doing<'_, ()>;
    /// Replaces all replicas in turn.
    fn end_replicas(&self, name: FunctionName, authority: Authority) -> Doing<'_, ()>;
    /// The names of the secrets that functions may read; never a value.
    fn secrets(&self) -> Doing<'_, Vec<String>>;
    /// Makes a new secret.
    fn create_secret(&self, name: SecretName, value: SecretValue) -> Doing<'_, ()>;
    /// Gives an existing secret a new value, which the functions that have it see soon.
    fn update_secret(&self, name: SecretName, value: SecretValue) -> Doing<'_, ()>;
    /// Removes a secret that no function has.
    fn remove_secret(&self, name: SecretName) -> Doing<'_, ()>;
}

/// What is worth telling about a change that was made: one sentence each.
pub type Notes = Vec<String>;

/// A function as somebody wants it to be: checked, every text kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: FunctionName,
    /// What was written.
    pub spec: Spec,
    /// The limits in numbers.
    pub limits: Amounts,
    /// The reservations in numbers.
    pub requests: Amounts,
    /// Who may pull its image, where that is not everybody.
    pub registry: Option<RegistryLogin>,
}

/// Memory and processor in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Bytes.
    pub memory: Option<i64>,
    /// Billionths of a processor.
    pub nano_cpus: Option<i64>,
}

/// A login at an image registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
}

impl std::fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegistryLogin({})", self.user)
    }
}

/// A replica, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// Its id: a task, or a local process.
    pub id: String,
    /// Where it runs; empty for a local one.
    pub node: String,
    /// What it does, in the provider's words.
    pub state: String,
    /// What it should do.
    pub desired_state: String,
    /// Since when there is one, RFC 3339; empty if nobody knows.
    pub created_at: String,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How many lines of a log are read ahead of whoever reads it.
pub const LOG_LINES_AHEAD: usize = 256;

/// Which lines of a function's logs are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsAsked {
    /// Whose.
    pub name: FunctionName,
    /// Of this replica alone.
    pub instance: Option<String>,
    /// This many of each replica's last lines; all, if nothing is said.
    pub tail: Option<u64>,
    /// Not those before.
    pub since: Option<SystemTime>,
    /// Also those that are still to come.
    pub follow: bool,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The replica that wrote it; empty for a word of ours.
    pub instance: String,
    /// When, as RFC 3339 writes it.
    pub timestamp: String,
    /// The line, without its end.
    pub text: String,
}

/// A secret's value: not to be printed.
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// The most bytes that Docker keeps of one.
    pub const MOST: usize = 511_999;

    /// Takes a value that can be kept.
    ///
    /// # Errors
    /// A sentence, when it is empty or too long.
    pub fn new(bytes: Vec<u8>) -> Result<Self, String> {
        if (1..=Self::MOST).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(format!(
                "must have 1 to {} bytes, and has {}",
                Self::MOST,
                bytes.len()
            ))
        }
    }

    /// The value, for the provider alone.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What kind of trouble.
    pub kind: Trouble,
    /// One sentence: what, why, what to do.
    pub sentence: String,
}

/// The kinds of trouble, each with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// What was asked cannot be.
    Invalid,
    /// What was sent is longer than anything of its kind.
    TooLarge,
    /// Somebody else may do it.
    Forbidden,
    /// There is none of that name.
    Unknown,
    /// Something of that name is there already, or somebody else changes it at the same time.
    Conflict,
    /// The provider refused for a reason of its own.
    Refused,
    /// This provider cannot do that.
    Unsupported,
    /// The provider is away: nothing was done.
    Away,
}

impl Trouble {
    /// The status of an answer that tells of it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Refused => StatusCode::BAD_GATEWAY,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::Away => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Failed {
    /// Trouble of this kind, in a sentence.
    pub fn new(kind: Trouble, sentence: impl Into<String>) -> Self {
        Self {
            kind,
            sentence: sentence.into(),
        }
    }

    /// There is no function of this name.
    #[must_use]
    pub fn no_function(name: &str) -> Self {
        Self::new(
            Trouble::Unknown,
            format!("function '{name}' not found; list them with GET /system/functions"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_has_its_status() {
        for (kind, status) in [
            (Trouble::Invalid, 400),
            (Trouble::TooLarge, 413),
            (Trouble::Forbidden, 403),
            (Trouble::Unknown, 404),
            (Trouble::Conflict, 409),
            (Trouble::Refused, 502),
            (Trouble::Unsupported, 501),
            (Trouble::Away, 503),
        ] {
            assert_eq!(kind.status().as_u16(), status);
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let login = RegistryLogin {
            user: "me".into(),
            password: "hunter2".into(),
        };
        assert_eq!(format!("{login:?}"), "RegistryLogin(me)");
    }
}
