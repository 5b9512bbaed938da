//! The password that the gateway makes at its first start if none is given, kept in the data folder.

use std::io;
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use crate::regular_file;
use crate::state::{Document, State};

/// The user of a login that names none.
pub const USER: &str = "admin";
/// The document that keeps the password.
const NAME: &str = "password";
const VERSION: u32 = 1;
const MAX_FILE: u64 = 4096;
/// Random bytes of a password; it has two hex digits for each.
const BYTES: usize = 16;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    password: Option<String>,
}

/// A password that the gateway has made.
pub struct Made {
    /// The password.
    pub password: String,
    /// Whether it was made just now.
    pub is_new: bool,
}

/// Makes a password.
///
/// # Errors
/// When the system has no random bytes.
pub fn make() -> io::Result<String> {
    let mut bytes = [0; BYTES];
    // So few bytes come at once (getrandom(2)).
    if getrandom(&mut bytes[..], GetRandomFlags::empty())? != BYTES {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The password that is kept, or a new one, once it is kept. Of two gateways that start in one folder both get the same.
///
/// # Errors
/// When none can be kept.
pub fn open(state: &State) -> io::Result<Made> {
    let document: Document<Kept> = state.document(NAME, VERSION);
    if let Some(password) = document.value().password {
        let is_new = false;
        return Ok(Made { password, is_new });
    }
    if !document.has_file() {
        return Err(io::Error::other("there is no data folder"));
    }
    let fresh = make()?;
    let (_, made) = document.change(|kept| {
        let is_new = kept.password.is_none();
        let password = kept.password.get_or_insert(fresh).clone();
        Made { password, is_new }
    })?;
    Ok(made)
}

/// The password that a gateway keeps in this folder; looks only.
///
/// # Errors
/// One sentence: why there is none to be seen.
pub fn look(folder: &Path) -> Result<String, String> {
    let file = folder.join(format!("{NAME}.json"));
    let file = file.as_path();
    let text = regular_file::read_text(file, MAX_FILE).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "there is no password in {}: the gateway makes one at its first start, unless it is given one or basic_auth=false; name the gateway's folder with --data-dir if that is another",
            folder.display()
        ),
        _ => format!("cannot read {}: {error}", file.display()),
    })?;
    let kept = serde_json::from_str(&text).ok();
    let password = kept.and_then(|kept: Kept| kept.password);
    password.ok_or_else(|| format!("there is no password in {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_made_once_and_is_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("skep-password-{:x}", fastrand::u64(..)));
        assert!(look(&folder).unwrap_err().contains("--data-dir"));
        let [first, second] = [(), ()].map(|()| open(&State::open(&folder)).unwrap());
        assert!(first.is_new && !second.is_new && first.password == second.password);
        assert_eq!(first.password.len(), 2 * BYTES);
        assert_eq!(look(&folder).unwrap(), first.password);
        let file = folder.join("password.json").metadata().unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(open(&State::default()).is_err(), "without a folder");
    }
}
