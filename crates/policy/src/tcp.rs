//! How long connections of TCP and TLS listeners may rest and live. A setting, not a hook.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge};
use crate::proxy_protocol::limit;

/// How long a connection may rest in both directions when nothing is written (the habit of Envoy and of L4 load
/// balancers in clouds).
pub const DEFAULT_IDLE: Duration = Duration::from_secs(3600);

/// Limits of connections on TCP and TLS listeners.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// How long nothing may move in either direction before the connection is closed. Default: 1h. Zero: no limit.
    #[serde(default)]
    pub idle_timeout: Option<String>,
    /// How long a connection may live at all. Default: no limit. Zero: no limit.
    #[serde(default)]
    pub max_duration: Option<String>,
}

/// Compiled limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Rest in both directions; `None` is no limit.
    pub idle: Option<Duration>,
    /// Life; `None` is no limit.
    pub life: Option<Duration>,
}

impl Default for Tcp {
    fn default() -> Self {
        Self { idle: Some(DEFAULT_IDLE), life: None }
    }
}

impl HttpPolicy for Tcp {
    const KIND: &'static str = "tcp";
    const HOOKS: Hooks = Hooks::NONE;
    const ATTACH: Attach = Attach::GATEWAY.or(Attach::LISTENER).or(Attach::ROUTE);
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        let idle = limit("idleTimeout", spec.idle_timeout.as_deref())?.unwrap_or(DEFAULT_IDLE);
        let life = limit("maxDuration", spec.max_duration.as_deref())?;
        Ok(Self {
            idle: Some(idle).filter(|idle| !idle.is_zero()),
            life: life.filter(|life| !life.is_zero()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::json;

    #[test]
    fn zero_is_no_limit() {
        let compile = |body| compile_alone::<Tcp>(serde_json::from_value(body).unwrap());
        assert_eq!(compile(json!({})).unwrap(), Tcp::default());
        let none = compile(json!({ "idleTimeout": "0s", "maxDuration": "0s" })).unwrap();
        assert_eq!(none, Tcp { idle: None, life: None });
        assert!(compile(json!({ "maxDuration": "1 day" })).is_err());
    }
}
