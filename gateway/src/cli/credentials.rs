//! Credentials of the client commands: a login or an API key, given, saved by `skep login`, or saved by faas-cli.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::auth::key;

/// Files of credentials above this size are refused.
const MAX_FILE: u64 = 1 << 20;

/// What proves to a gateway who asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Credentials {
    /// An API key.
    Key { key: String },
    /// A user and a password.
    Login { user: String, password: String },
}

impl Credentials {
    /// A login, or the API key that stands in place of its password.
    pub(super) fn of_login(user: &str, password: &str) -> Self {
        if password.starts_with(key::PREFIX) {
            Self::Key {
                key: password.to_owned(),
            }
        } else {
            Self::Login {
                user: user.to_owned(),
                password: password.to_owned(),
            }
        }
    }

    /// The value of `Authorization`, marked as sensitive.
    ///
    /// # Errors
    /// A sentence when no header can have this value.
    pub(super) fn header(&self) -> Result<HeaderValue, String> {
        let text = match self {
            Self::Key { key } => format!("Bearer {key}"),
            Self::Login { user, password } => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| "the API key has characters that no key has".to_owned())?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Who they are for, without anything secret.
    pub(super) fn owner(&self) -> String {
        match self {
            Self::Login { user, .. } => user.clone(),
            Self::Key { key } => match key.split('_').nth(1) {
                Some(id) if !id.is_empty() => format!("key {id}"),
                _ => "an API key".to_owned(),
            },
        }
    }
}

/// The saved credentials of all gateways, by address.
#[derive(Default)]
pub(super) struct Saved {
    file: Option<PathBuf>,
    by_address: BTreeMap<String, Credentials>,
}

impl Saved {
    /// Reads the file of `skep login`; without one there is nothing.
    ///
    /// # Errors
    /// A sentence that names a file which cannot be used.
    pub(super) fn load(env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let Some(file) = own_file(&env) else {
            return Ok(Self::default());
        };
        let by_address = match read(&file)? {
            None => BTreeMap::new(),
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| format!("{} cannot be read: {error}", file.display()))?,
        };
        Ok(Self {
            file: Some(file),
            by_address,
        })
    }

    /// What is saved for this address.
    pub(super) fn get(&self, address: &str) -> Option<&Credentials> {
        self.by_address.get(address)
    }

    /// Keeps credentials, readable by this user alone, and returns the file.
    ///
    /// # Errors
    /// A sentence: nothing was changed.
    pub(super) fn set(mut self, address: &str, of: Credentials) -> Result<PathBuf, String> {
        self.by_address.insert(address.to_owned(), of);
        self.write()
    }

    /// Removes credentials; `false` where there were none.
    ///
    /// # Errors
    /// A sentence: nothing was changed.
    pub(super) fn remove(mut self, address: &str) -> Result<bool, String> {
        if self.by_address.remove(address).is_none() {
            return Ok(false);
        }
        self.write().map(|_| true)
    }

    fn write(&self) -> Result<PathBuf, String> {
        let file = self
            .file
            .clone()
            .ok_or("there is no folder to save a login in: set HOME or skep_config")?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let written = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .and_then(|()| {
                // The new file replaces the old one whole, whatever interrupts this.
                let new = folder.join(format!(".logins-{}.json", std::process::id()));
                let mut out = std::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&new)?;
                let text = serde_json::to_string_pretty(&self.by_address)?;
                let kept = out
                    .write_all(text.as_bytes())
                    .and_then(|()| out.sync_all())
                    .and_then(|()| std::fs::rename(&new, &file));
                kept.inspect_err(|_| drop(std::fs::remove_file(&new)))
            });
        written
            .map_err(|error| format!("the login cannot be saved in {}: {error}", file.display()))?;
        Ok(file)
    }
}

/// `logins.json` in `$skep_config`, `$XDG_CONFIG_HOME/skep` or `~/.config/skep`.
fn own_file(env: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let named = |name: &str| env(name).filter(|folder| !folder.is_empty());
    let folder = named("skep_config")
        .map(PathBuf::from)
        .or_else(|| named("XDG_CONFIG_HOME").map(|base| Path::new(&base).join("skep")))
        .or_else(|| named("HOME").map(|home| Path::new(&home).join(".config/skep")))?;
    Some(folder.join("logins.json"))
}

/// The login that faas-cli saved for this address (wire contract §7.1). A file that cannot be used counts as none.
pub(super) fn of_faas_cli(
    address: &str,
    env: impl Fn(&str) -> Option<String>,
) -> Option<Credentials> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        auths: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        gateway: String,
        #[serde(default)]
        auth: String,
        #[serde(default)]
        token: String,
    }
    let folder = env("OPENFAAS_CONFIG")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env("HOME")?).join(".openfaas")))?;
    let text = read(&folder.join("config.yml")).ok()??;
    let file: File = serde_saphyr::from_str(&text).ok()?;
    let same = |entry: &&Entry| {
        entry
            .gateway
            .trim_end_matches('/')
            .eq_ignore_ascii_case(address)
    };
    let entry = file.auths.iter().find(same)?;
    match entry.auth.as_str() {
        "basic" => {
            let login = String::from_utf8(STANDARD.decode(entry.token.trim()).ok()?).ok()?;
            let (user, password) = login.split_once(':')?;
            Some(Credentials::of_login(user, password))
        }
        // A token of its own kind; only one that is a key of ours means something here.
        _ => entry
            .token
            .starts_with(key::PREFIX)
            .then(|| Credentials::Key {
                key: entry.token.clone(),
            }),
    }
}

/// A regular file's text, or `None` where there is no file.
fn read(path: &Path) -> Result<Option<String>, String> {
    let wrong = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error)),
        Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_FILE => {
            return Err(format!("{} is not a file of logins", path.display()));
        }
        Ok(_) => {}
    }
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(wrong)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_place_of_a_password_is_sent_as_a_key() {
        let key = Credentials::of_login("key", "skep_0a_0b");
        assert_eq!(key.header().unwrap(), "Bearer skep_0a_0b");
        assert_eq!(key.owner(), "key 0a");
        let login = Credentials::of_login("admin", "s3:cret");
        assert_eq!(login.header().unwrap(), "Basic YWRtaW46czM6Y3JldA==");
        assert!(login.header().unwrap().is_sensitive());
    }
}
