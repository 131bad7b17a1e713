//! Which side of a call within the mesh enforces a policy that is attached to a Service, and what of it can be enforced on
//! connections that are carried as they are.

use rhumb_codec::head::RequestHead;

use crate::exchange::Exchange;
use crate::list::Policy;
use crate::policy::{HttpPolicy, Verdict};

/// A side of a call within the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcer {
    /// The proxy of the caller: how the service is called.
    Client,
    /// The proxy of the service: who may call, and how much. No caller gets past it.
    Server,
    /// Both: what each does by itself.
    Both,
}

/// The proxy that enforces a kind of policy which is attached to a Service; `None` for kinds that mean nothing there.
pub fn enforcer(kind: &str) -> Option<Enforcer> {
    Some(match kind {
        "tracing" => Enforcer::Both,
        // What the caller decides, or can save the way for.
        "priority"
        | "circuitBreaker"
        | "fault"
        | "redirect"
        | "cohort"
        | "rewrite"
        | "oauth2ClientCredentials"
        | "issueUserToken"
        | "headerModifier"
        | "timeouts"
        | "retry" => Enforcer::Client,
        "securityFields"
        | "cors"
        | "ipAccess"
        | "sizeLimit"
        | "csrf"
        | "clientCertificate"
        | "userToken"
        | "jwt"
        | "basicAuth"
        | "apiKey"
        | "hmac"
        | "messageSignatures"
        | "oauth2Introspection"
        | "oidc"
        | "extAuthz"
        | "anonymous"
        | "authenticated"
        | "authorization"
        | "rateLimit"
        | "quota"
        | "concurrency"
        | "loadShedding"
        | "bandwidth"
        | "identityFields"
        | "directResponse"
        | "tcp" => Enforcer::Server,
        _ => return None,
    })
}

/// True for kinds that decide who may call. Only the proxy of a service can enforce them: a caller that does so itself could
/// as well not do it.
pub fn decides_who_may_call(kind: &str) -> bool {
    matches!(
        kind,
        "ipAccess"
            | "csrf"
            | "clientCertificate"
            | "jwt"
            | "basicAuth"
            | "apiKey"
            | "hmac"
            | "messageSignatures"
            | "oauth2Introspection"
            | "oidc"
            | "extAuthz"
            | "anonymous"
            | "authenticated"
            | "authorization"
    )
}

/// True for kinds that can decide about a connection without seeing requests.
pub fn decides_about_connections(kind: &str) -> bool {
    matches!(kind, "authorization" | "ipAccess")
}

/// Decides about a connection that is carried as it is. A policy that would have to see requests lets nothing pass.
pub fn admits_connection(policy: &Policy, cx: &mut Exchange<'_>) -> bool {
    match policy {
        Policy::Authorization(policy) => policy.admits_connection(cx),
        Policy::IpAccess(policy) => {
            let verdict = policy.on_request(&mut RequestHead::new(), &mut Default::default(), cx);
            matches!(verdict, Verdict::Continue)
        }
        _ => false,
    }
}

/// Decides once more about a request that is under way, when policies have changed. Those that are asked once per request
/// (limits, authentications) have nothing to say any more.
pub fn still_admits(policy: &Policy, req: &mut RequestHead, cx: &mut Exchange<'_>) -> bool {
    let verdict = match policy {
        Policy::Authorization(policy) => policy.on_request(req, &mut Default::default(), cx),
        Policy::IpAccess(policy) => policy.on_request(req, &mut Default::default(), cx),
        _ => return true,
    };
    matches!(verdict, Verdict::Continue)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KINDS;

    #[test]
    fn each_kind_is_enforced_somewhere_but_those_of_listeners() {
        let without: Vec<_> =
            KINDS.iter().map(|kind| kind.name).filter(|kind| enforcer(kind).is_none()).collect();
        assert_eq!(without, ["proxyProtocol", "udp"]);
    }
}
