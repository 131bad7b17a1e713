//! How dear requests are when not all can be served.
//!
//! A setting: it has no hook, and costs nothing while the proxy is not overloaded.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge};

/// Which requests are refused first when the proxy is overloaded.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// `low` is refused first, `high` last. Default without this policy: `normal`.
    pub level: Priority,
}

/// How dear a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Priority {
    /// Refused first.
    Low,
    /// Refused when refusing all of [`Priority::Low`] is not enough.
    #[default]
    Normal,
    /// Refused when nothing else is left.
    High,
}

impl Priority {
    /// The word in documents and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// A compiled priority.
pub struct RoutePriority {
    /// How dear.
    pub level: Priority,
}

impl HttpPolicy for RoutePriority {
    const KIND: &'static str = "priority";
    const HOOKS: Hooks = Hooks::NONE;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        Ok(Self { level: spec.level })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;

    #[test]
    fn three_levels_are_known() {
        for (text, level) in [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)]
        {
            let body = serde_json::json!({ "level": text });
            let policy = compile_alone::<RoutePriority>(serde_json::from_value(body).unwrap()).unwrap();
            assert_eq!((policy.level, level.as_str()), (level, text));
        }
        assert!(serde_json::from_value::<Spec>(serde_json::json!({ "level": "urgent" })).is_err());
    }
}
