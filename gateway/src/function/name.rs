//! The names of functions and secrets.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest name a function can have: a DNS label (wire contract §4).
pub const MAX_NAME: usize = 63;

/// The name of a function: 1 to 63 characters of `A-Z a-z 0-9 - _ .`, never `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName(Arc<str>);

/// Why a text is not a function's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAName;

impl fmt::Display for NotAName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a function's name has 1 to {MAX_NAME} of the characters A-Z a-z 0-9 - _ ."
        )
    }
}

impl FunctionName {
    /// Takes a text that [`is_name`] accepts.
    ///
    /// # Errors
    /// [`NotAName`] for every other text.
    pub fn new(text: &str) -> Result<Self, NotAName> {
        if is_name(text) {
            Ok(Self(text.into()))
        } else {
            Err(NotAName)
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// Lets a table keyed by names be asked with a piece of a request's path, without an allocation.
impl Borrow<str> for FunctionName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Whether a text can be a function's name: nothing that a path, a header or a log line could misread.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The name of a secret: a DNS-1123 subdomain as clients check it, short enough to bear a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName(Arc<str>);

impl SecretName {
    /// Takes a text that is a name; `None` for every other.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let fits = bytes.len() <= 54
            && is_end(bytes.first())
            && is_end(bytes.last())
            && bytes.iter().all(is_inner);
        fits.then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_path_cannot_misread() {
        for good in [
            "a",
            "my-fn_2",
            "Cat.service",
            "x.openfaas-fn",
            &"n".repeat(63),
        ] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a%2fb",
            "a b",
            "a\0",
            "é",
            "a\\b",
            "a;b",
            &"n".repeat(64),
        ] {
            assert_eq!(FunctionName::new(bad), Err(NotAName), "{bad}");
        }
    }
}
