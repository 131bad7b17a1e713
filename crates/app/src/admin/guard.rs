//! Who may ask the admin listener for what.
//!
//! | path | from this machine | from elsewhere |
//! |---|---|---|
//! | `/livez`, `/readyz` | open | open |
//! | `/metrics`, `/version`, `/` | open | token |
//! | everything else | token | token |
//!
//! A request without a token must name an IP address or `localhost` as its host: a page in a browser on this machine
//! cannot use a name of its own that it lets point here (DNS rebinding).

use std::net::IpAddr;

/// What is asked of a request before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It is answered.
    Granted,
    /// It lacks the token: 401.
    TokenMissing,
    /// It came with a wrong token: 401.
    TokenWrong,
    /// It is for another host: 421 (RFC 9110 §15.5.20).
    HostRefused,
}

/// Decides. `token` is `None` when the request has none, otherwise whether it is the right one; `host` is the value of
/// the Host field.
pub(crate) fn access(path: &str, peer: IpAddr, host: Option<&str>, token: Option<bool>) -> Access {
    match token {
        Some(true) => return Access::Granted,
        Some(false) => return Access::TokenWrong,
        None => {}
    }
    if host.is_some_and(|host| !is_address(host)) {
        return Access::HostRefused;
    }
    let is_open = match path {
        "/livez" | "/readyz" => true,
        "/metrics" | "/version" | "/" => peer.to_canonical().is_loopback(),
        _ => false,
    };
    if is_open { Access::Granted } else { Access::TokenMissing }
}

/// True for an IP address or `localhost`, with or without a port.
fn is_address(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_are_open_to_all_and_metrics_to_this_machine() {
        let here = "127.0.0.1".parse().unwrap();
        let here_mapped = "::ffff:127.0.0.1".parse().unwrap();
        let there = "192.0.2.1".parse().unwrap();
        for (path, peer, host, token, expected) in [
            ("/livez", here, Some("localhost:9901"), None, Access::Granted),
            ("/readyz", there, Some("192.0.2.9:9901"), None, Access::Granted),
            ("/metrics", here, Some("127.0.0.1:9901"), None, Access::Granted),
            ("/metrics", here_mapped, Some("[::1]:9901"), None, Access::Granted),
            ("/metrics", there, Some("192.0.2.9:9901"), None, Access::TokenMissing),
            ("/metrics", there, Some("192.0.2.9:9901"), Some(true), Access::Granted),
            ("/config", here, Some("localhost"), None, Access::TokenMissing),
            ("/config", here, Some("localhost"), Some(false), Access::TokenWrong),
            ("/config", here, Some("localhost"), Some(true), Access::Granted),
            ("/anything", here, None, None, Access::TokenMissing),
            ("/livez", here, None, None, Access::Granted),
            ("/metrics", here, Some("evil.example:9901"), None, Access::HostRefused),
            ("/livez", here, Some("localhost.evil.example"), None, Access::HostRefused),
            ("/metrics", here, Some("rhumb.internal"), Some(true), Access::Granted),
            ("/metrics", here, Some("rhumb.internal"), Some(false), Access::TokenWrong),
        ] {
            assert_eq!(access(path, peer, host, token), expected, "{path} {peer} {host:?} {token:?}");
        }
    }
}
