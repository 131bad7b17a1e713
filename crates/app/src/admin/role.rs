//! What who may do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What somebody may do. Each one may do what those before it may.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Looks at everything that is no secret.
    Viewer,
    /// Changes documents, and looks at requests.
    Editor,
    /// Everything: credentials, the audit log, the end of the process.
    Admin,
}

impl Role {
    /// Every role, the least first.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Viewer, Self::Editor, Self::Admin];

    /// The one at a place among all of them ([`rhumb_plan::admin::Role::rank`]).
    pub(crate) fn of_rank(rank: u8) -> Option<Self> {
        rhumb_plan::admin::Role::ALL.into_iter().find(|role| role.rank() == rank).map(Self::from)
    }

    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }
}

impl From<rhumb_plan::admin::Role> for Role {
    fn from(role: rhumb_plan::admin::Role) -> Self {
        match role {
            rhumb_plan::admin::Role::Viewer => Self::Viewer,
            rhumb_plan::admin::Role::Editor => Self::Editor,
            rhumb_plan::admin::Role::Admin => Self::Admin,
        }
    }
}
