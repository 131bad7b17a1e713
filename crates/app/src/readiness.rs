//! What a process waits for before it takes traffic: a member of a mesh without an identity could carry nothing, and one
//! that does not know everything that it asked the control plane for would refuse what is allowed.

use std::time::Duration;

use rhumb_plan::Plan;

use crate::reload::Live;
use crate::remote::Remote;

/// How often it is looked whether everything is there.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// What is missing, in words; nothing when traffic can be taken.
pub(crate) fn missing(live: &Live, plan: &Plan, remote: Option<&Remote>) -> Vec<String> {
    let mut missing = Vec::new();
    let membership = plan.mesh.as_ref().and_then(|mesh| mesh.membership.as_ref());
    if membership.is_some_and(|membership| !membership.is_ready()) {
        missing.push(match live.identity_trouble() {
            Some(why) => format!("identity: there is no certificate yet: {why}"),
            None => "identity: there is no certificate yet".to_owned(),
        });
    }
    if remote.is_some_and(Remote::lacks) {
        missing.push("configuration: not everything has come from the control plane yet".to_owned());
    }
    missing
}
