//! The names under which the gateway is reached, as its operator lists them.

use std::sync::Arc;

use crate::function::route::MAX_HOST;

/// Names of hosts, in small letters. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(Arc<[String]>);

impl HostNames {
    /// Reads names (`faas.example.com, faas.internal`), or `off`.
    ///
    /// # Errors
    /// A sentence for each that is no host's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names = text.split([',', ' ']).filter(|name| !name.is_empty());
        let names: Vec<_> = names
            .filter(|_| text != "off")
            .map(str::to_ascii_lowercase)
            .collect();
        let is_name = |name: &&String| {
            name.len() <= MAX_HOST
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let wrong: Vec<_> = names
            .iter()
            .filter(|name| !is_name(name))
            .map(|name| {
                format!("'{name}' is no host's name such as faas.example.com, without a port")
            })
            .collect();
        if wrong.is_empty() {
            Ok(Self(names.into()))
        } else {
            Err(wrong.join("; "))
        }
    }

    /// Whether this name is listed.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_every_mistake_is_reported() {
        let names = HostNames::parse("A.example b.example,").unwrap();
        assert!(names.has("a.EXAMPLE") && names.has("b.example") && !names.has("example"));
        assert_eq!(HostNames::parse("off").unwrap(), HostNames::default());
        let wrong = HostNames::parse("http://a, b:80, *.c, fine.example").unwrap_err();
        assert_eq!(wrong.matches("is no host's name").count(), 3, "{wrong}");
    }
}
