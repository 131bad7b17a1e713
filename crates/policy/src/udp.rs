//! How long UDP sessions last and how many there may be. A setting, not a hook.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge};
use crate::proxy_protocol::limit;

/// How long a session may rest when nothing is written (Envoy's habit; nginx takes 10 minutes, which a flood of clients
/// turns into sockets).
pub const DEFAULT_IDLE: Duration = Duration::from_secs(60);

/// Sessions of a listener, over all workers, when nothing is written. Each has a socket.
pub const DEFAULT_SESSIONS: u32 = 16_384;

/// The most sessions of a listener that can be written.
pub const MAX_SESSIONS: u32 = 1_000_000;

/// Limits of the sessions of UDP listeners. A session is one client address and port.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// How long nothing may move before the session ends. Default: 60s.
    #[serde(default)]
    pub idle_timeout: Option<String>,
    /// Sessions of the listener at a time. One more ends the one that rested longest. Default: 16384.
    #[serde(default)]
    pub max_sessions: Option<u32>,
    /// The session ends after so many datagrams of the backend: 1 for DNS and the like. Default: no limit.
    #[serde(default)]
    pub responses: Option<u32>,
}

/// Compiled limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Rest.
    pub idle: Duration,
    /// Sessions of the listener, over all workers.
    pub max_sessions: u32,
    /// Datagrams of the backend that end a session; `None` is no limit.
    pub responses: Option<u32>,
}

impl Default for Udp {
    fn default() -> Self {
        Self { idle: DEFAULT_IDLE, max_sessions: DEFAULT_SESSIONS, responses: None }
    }
}

impl HttpPolicy for Udp {
    const KIND: &'static str = "udp";
    const HOOKS: Hooks = Hooks::NONE;
    const ATTACH: Attach = Attach::GATEWAY.or(Attach::LISTENER);
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        let idle = limit("idleTimeout", spec.idle_timeout.as_deref())?.unwrap_or(DEFAULT_IDLE);
        if idle.is_zero() {
            return Err(Invalid::new("idleTimeout", "is zero", "leave it out for 60s"));
        }
        let max_sessions = spec.max_sessions.unwrap_or(DEFAULT_SESSIONS);
        if !(1..=MAX_SESSIONS).contains(&max_sessions) {
            let why = format!("{max_sessions} is not between 1 and {MAX_SESSIONS}");
            return Err(Invalid::new("maxSessions", why, "leave it out for 16384"));
        }
        if spec.responses == Some(0) {
            return Err(Invalid::new("responses", "is zero", "leave it out for no limit"));
        }
        Ok(Self { idle, max_sessions, responses: spec.responses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::json;

    #[test]
    fn bounds_are_bounded() {
        let compile = |body| compile_alone::<Udp>(serde_json::from_value(body).unwrap());
        assert_eq!(compile(json!({})).unwrap(), Udp::default());
        for body in [
            json!({ "idleTimeout": "0s" }),
            json!({ "maxSessions": 0 }),
            json!({ "maxSessions": 1_000_001 }),
            json!({ "responses": 0 }),
        ] {
            assert!(compile(body.clone()).is_err(), "{body}");
        }
    }
}
