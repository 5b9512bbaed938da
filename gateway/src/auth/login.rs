//! The one login, from settings or files. Its password is known by its digest only.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::key;
use crate::regular_file;

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

    /// The same, for a user and a password that can be one.
    ///
    /// # Errors
    /// One sentence: what cannot be, and what to do.
    pub fn checked(user: &str, password: &str) -> Result<Self, String> {
        if user.contains(':') {
            return Err("basic auth: a user's name has no colon in it".to_owned());
        }
        if password.starts_with(key::PREFIX) {
            return Err(format!(
                "basic auth: a password that begins with {} would be taken for an API key: choose another",
                key::PREFIX
            ));
        }
        Ok(Self::of(user, password))
    }

    /// Whether `user:password` is this login; takes as long whatever it is.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        digest(given)[..].ct_eq(&self.digest[..]).into()
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// What the operator gives of a login; what is missing can be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Given {
    /// The user's name.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
}

impl Given {
    /// Completes what the settings give from the files of a folder. A file may be missing, unless the operator names the folder.
    ///
    /// # Errors
    /// One sentence: which file is missing, empty or cannot be read, and what to do.
    pub fn read(
        folder: &Path,
        is_named: bool,
        user: Option<&str>,
        password: Option<&str>,
    ) -> Result<Self, String> {
        let part = |given: Option<&str>, file: &str, setting: &str| match given {
            Some(given) => Ok(Some(given.to_owned())),
            None => read(&folder.join(file), is_named).map_err(|why| {
                format!(
                    "basic_auth=true needs a login: {why}; put it into that file, or into {setting}"
                )
            }),
        };
        Ok(Self {
            user: part(user, USER_FILE, "basic_auth_user")?,
            password: part(password, PASSWORD_FILE, "basic_auth_password")?,
        })
    }
}

fn read(file: &Path, must_be_there: bool) -> Result<Option<String>, String> {
    let text = match regular_file::read_text(file, MAX_SECRET) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !must_be_there => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("{} is empty", file.display()));
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_what_to_do() {
        let read = |is_named, user| Given::read(Path::new("/nosuch"), is_named, user, Some("b"));
        let told = read(true, None).unwrap_err();
        assert!(
            told.contains("/nosuch/basic-auth-user") && told.contains("basic_auth_user"),
            "{told}"
        );
        assert!(read(true, Some("a")).is_ok());
        assert_eq!(read(false, None).unwrap().user, None);
        let like_a_key = Login::checked("a", "skep_x");
        assert!(like_a_key.err().unwrap().contains("API key"));
    }
}
