//! Who may ask the admin listener for what.
//!
//! | path | from this machine | from elsewhere |
//! |---|---|---|
//! | `/livez`, `/readyz` | open | open |
//! | `/metrics`, `/version`, `/` | open | viewer |
//! | `/status`, `/config`, `/endpoints` | viewer | viewer |
//! | `/drain` | admin | admin |
//! | `/api/v1/…` | what its description says | |
//! | everything else | viewer | viewer |
//!
//! A request without a token must name an IP address, `localhost` or one of `admin.hosts` as its host: a page in a browser
//! on this machine cannot use a name of its own that it lets point here (DNS rebinding).

use std::net::IpAddr;

use axum::http::Method;

use rhumb_model::kind::admin::CALLBACK;

use super::role::Role;

/// What is asked of a request before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It is answered.
    Granted,
    /// It lacks the token: 401.
    TokenMissing,
    /// Who asks has not this role: 403.
    RoleMissing(Role),
    /// It is for another host: 421 (RFC 9110 §15.5.20).
    HostRefused,
}

/// Decides. `role` is that of who asks, if anybody has shown who they are; `host` is the value of the Host field, beside the
/// names under which the listener may be asked.
pub(crate) fn access(
    path: &str,
    method: &Method,
    peer: IpAddr,
    (host, known): (Option<&str>, &[Box<str>]),
    role: Option<Role>,
) -> Access {
    let needed = if path == "/drain" && method != Method::OPTIONS { Role::Admin } else { Role::Viewer };
    if let Some(role) = role {
        return if role >= needed || is_api(path) { Access::Granted } else { Access::RoleMissing(needed) };
    }
    if host.is_some_and(|host| !is_known(host, known)) {
        return Access::HostRefused;
    }
    let is_open = match path {
        "/livez" | "/readyz" => true,
        "/metrics" | "/version" | "/" => peer.to_canonical().is_loopback(),
        // How one says who one is; the rest of it is looked at where it is described.
        "/api/v1/login" | "/api/v1/login/oidc" | CALLBACK => true,
        _ => false,
    };
    if is_open { Access::Granted } else { Access::TokenMissing }
}

fn is_api(path: &str) -> bool {
    path.starts_with("/api/v1/")
}

/// True for an IP address, `localhost` or one of these names, with or without a port.
fn is_known(host: &str, known: &[Box<str>]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || known.iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_are_open_to_all_and_metrics_to_this_machine() {
        let here = "127.0.0.1".parse().unwrap();
        let here_mapped = "::ffff:127.0.0.1".parse().unwrap();
        let there = "192.0.2.1".parse().unwrap();
        let viewer = Some(Role::Viewer);
        for (path, peer, host, role, expected) in [
            ("/livez", here, Some("localhost:9901"), None, Access::Granted),
            ("/readyz", there, Some("192.0.2.9:9901"), None, Access::Granted),
            ("/metrics", here, Some("127.0.0.1:9901"), None, Access::Granted),
            ("/metrics", here_mapped, Some("[::1]:9901"), None, Access::Granted),
            ("/metrics", there, Some("192.0.2.9:9901"), None, Access::TokenMissing),
            ("/metrics", there, Some("192.0.2.9:9901"), viewer, Access::Granted),
            ("/config", here, Some("localhost"), None, Access::TokenMissing),
            ("/config", here, Some("localhost"), viewer, Access::Granted),
            ("/drain", here, Some("localhost"), viewer, Access::RoleMissing(Role::Admin)),
            ("/drain", here, Some("localhost"), Some(Role::Editor), Access::RoleMissing(Role::Admin)),
            ("/drain", here, Some("localhost"), Some(Role::Admin), Access::Granted),
            ("/anything", here, None, None, Access::TokenMissing),
            ("/api/v1/login", here, None, None, Access::Granted),
            ("/api/v1/process", here, None, None, Access::TokenMissing),
            ("/api/v1/anything", here, None, None, Access::TokenMissing),
            ("/livez", here, None, None, Access::Granted),
            ("/metrics", here, Some("evil.example:9901"), None, Access::HostRefused),
            ("/api/v1/login", here, Some("evil.example:9901"), None, Access::HostRefused),
            ("/livez", here, Some("localhost.evil.example"), None, Access::HostRefused),
            ("/metrics", here, Some("rhumb.internal"), viewer, Access::Granted),
            ("/api/v1/login", here, Some("ops.example.com:9901"), None, Access::Granted),
            ("/api/v1/login/oidc", here, Some("OPS.example.com"), None, Access::Granted),
            ("/api/v1/login/oidc/callback", here, Some("x.ops.example.com"), None, Access::HostRefused),
            ("/metrics", here, Some("ops.example.com.evil.example"), None, Access::HostRefused),
        ] {
            let method = if path == "/drain" { Method::POST } else { Method::GET };
            let known = ["ops.example.com".into()];
            assert_eq!(
                access(path, &method, peer, (host, &known), role),
                expected,
                "{path} {peer} {host:?} {role:?}"
            );
        }
    }
}
