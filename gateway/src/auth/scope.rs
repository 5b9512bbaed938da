//! What a key may do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of deed. Which request of the management API asks for which one is said in `api/scopes.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at functions, their replicas and logs.
    Read,
    /// Call functions that ask for a key.
    Invoke,
    /// Make, change, scale and remove functions; and look at them.
    Deploy,
    /// Everything; alone: keys, and the values of secrets.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Read, Self::Invoke, Self::Deploy, Self::Admin];

    /// Its name, as it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Invoke => "invoke",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// Whether who has this one may do what asks for `needed`.
    #[must_use]
    pub fn covers(self, needed: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Deploy => matches!(needed, Self::Deploy | Self::Read),
            Self::Read | Self::Invoke => self == needed,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_itself_and_what_is_below_it() {
        let covered = |scope: Scope| Scope::ALL.map(|needed| scope.covers(needed));
        for (scope, read, invoke, deploy, admin) in [
            (Scope::Read, true, false, false, false),
            (Scope::Invoke, false, true, false, false),
            (Scope::Deploy, true, false, true, false),
            (Scope::Admin, true, true, true, true),
        ] {
            assert_eq!(covered(scope), [read, invoke, deploy, admin], "{scope}");
            assert_eq!(Scope::named(scope.name()), Some(scope));
        }
        assert_eq!(Scope::named("Admin"), None);
    }
}
