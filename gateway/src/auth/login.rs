//! The one login, from files or settings. Its password is known by its digest only.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::key;

/// The files of a login, below `secret_mount_path` (wire contract §3.1).
const USER_FILE: &str = "basic-auth-user";
const PASSWORD_FILE: &str = "basic-auth-password";
/// A file longer than this is no user's name and no password.
const MAX_SECRET: u64 = 4096;

/// The login that is asked for.
pub struct Login {
    pub(super) user: Arc<str>,
    digest: [u8; 32],
}

impl Login {
    /// This user with this password.
    #[must_use]
    pub fn of(user: &str, password: &str) -> Self {
        Self {
            user: user.into(),
            digest: digest(format!("{user}:{password}").as_bytes()),
        }
    }

    /// The login in the files of a folder. What is given already needs no file.
    ///
    /// # Errors
    /// One sentence: which file is missing or empty, and what to do.
    pub fn from_files(
        folder: &Path,
        user: Option<&str>,
        password: Option<&str>,
    ) -> Result<Self, String> {
        let part = |given: Option<&str>, file: &str, setting: &str| match given {
            Some(given) => Ok(given.to_owned()),
            None => read(&folder.join(file)).map_err(|why| {
                format!(
                    "basic_auth=true needs a login: {why}; put it into that file, or into {setting}"
                )
            }),
        };
        let user = part(user, USER_FILE, "basic_auth_user")?;
        let password = part(password, PASSWORD_FILE, "basic_auth_password")?;
        if user.contains(':') {
            return Err("basic auth: a user's name has no colon in it".to_owned());
        }
        if password.starts_with(key::PREFIX) {
            return Err(format!(
                "basic auth: a password that begins with {} would be taken for an API key: choose another",
                key::PREFIX
            ));
        }
        Ok(Self::of(&user, &password))
    }

    /// Whether `user:password` is this login; takes as long whatever it is.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        digest(given)[..].ct_eq(&self.digest[..]).into()
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn read(file: &Path) -> Result<String, String> {
    let wrong = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
    if std::fs::metadata(file).map_err(wrong)?.len() > MAX_SECRET {
        return Err(format!(
            "{} is longer than {MAX_SECRET} bytes",
            file.display()
        ));
    }
    let text = std::fs::read_to_string(file).map_err(wrong)?;
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("{} is empty", file.display()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_what_to_do() {
        let told = Login::from_files(Path::new("/nosuch"), None, None)
            .err()
            .unwrap();
        assert!(
            told.contains("/nosuch/basic-auth-user") && told.contains("basic_auth_user"),
            "{told}"
        );
        assert!(Login::from_files(Path::new("/nosuch"), Some("a"), Some("b")).is_ok());
        let like_a_key = Login::from_files(Path::new("/nosuch"), Some("a"), Some("skep_x"));
        assert!(like_a_key.err().unwrap().contains("API key"));
    }
}
