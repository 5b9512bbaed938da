//! Which scope each operation asks for. docs/api.md has the same as a table, which `gateway/tests/local/keys.rs` tries out.

use crate::auth::Scope;
use crate::router::Operation;

impl Operation {
    /// What a key must cover for this.
    pub(super) fn needs(&self) -> Scope {
        match self {
            Self::ListFunctions
            | Self::Describe(_)
            | Self::Logs
            | Self::ListReplicas(_)
            | Self::ListNamespaces
            | Self::DescribeNamespace(_)
            | Self::OpenApi
            | Self::Info => Scope::Read,
            Self::CreateFunction
            | Self::UpdateFunction
            | Self::RemoveFunction
            | Self::Scale(_)
            | Self::Alert
            | Self::EndReplicas(_)
            | Self::EndReplica(..)
            | Self::ListSecrets => Scope::Deploy,
            Self::ChangeNamespace
            | Self::CreateSecret
            | Self::UpdateSecret
            | Self::RemoveSecret
            | Self::ListKeys
            | Self::CreateKey
            | Self::RevokeKey(_) => Scope::Admin,
        }
    }
}
