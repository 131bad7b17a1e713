//! The allowed edges between crates (ARCHITECTURE.md, "Crates") and the fences around external dependencies,
//! compared with what the manifests say.

use crate::run;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;

/// Crate, and the workspace crates that its code may name. A crate that is not listed is an error: placing it is a
/// decision. Every entry is a claim of ARCHITECTURE.md; widen it only together with that page.
const EDGES: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("codec", &["base"]),
    ("cel", &["base"]),
    ("telemetry", &["base", "codec"]),
    ("balance", &["base"]),
    ("model", &["base"]),
    ("net", &["base", "telemetry"]),
    ("intercept", &["base"]),
    ("dns", &["base", "telemetry", "net"]),
    ("route", &["base", "codec"]),
    ("store", &["net"]),
    ("policy", &["base", "cel", "codec", "route", "store"]),
    ("tls", &["base", "codec", "net"]),
    ("conn", &["base", "codec", "net", "tls"]),
    ("upstream", &["base", "codec", "telemetry", "net", "tls", "conn", "balance"]),
    ("plan", &["base", "codec", "telemetry", "tls", "route", "policy", "balance", "upstream"]),
    ("source", &["base", "model", "conn", "tls"]),
    ("database", &["base", "net", "tls"]),
    ("grpc", &[]),
    // policy: the tokens of service accounts.
    ("identity", &["base", "net", "policy", "tls", "database", "grpc"]),
    (
        "proxy",
        &[
            "base",
            "codec",
            "telemetry",
            "net",
            "tls",
            "conn",
            "route",
            "policy",
            "balance",
            "upstream",
            "plan",
        ],
    ),
    (
        "resolve",
        &[
            "base",
            "codec",
            "telemetry",
            "model",
            "net",
            "tls",
            "route",
            "policy",
            "balance",
            "upstream",
            "plan",
        ],
    ),
    ("signals", &["telemetry"]),
    ("ads", &[]),
    ("xds", &["base", "model", "policy", "ads"]),
    ("control", &["base", "model", "ads", "xds", "grpc", "database", "signals"]),
    ("agent", &["base", "net", "model", "ads", "grpc"]),
    (
        "app",
        &[
            "ads",
            "database",
            "control",
            "agent",
            "base",
            "codec",
            "telemetry",
            "signals",
            "net",
            "intercept",
            "dns",
            "tls",
            "identity",
            "conn",
            "route",
            "policy",
            "store",
            "balance",
            "upstream",
            "plan",
            "model",
            "source",
            "resolve",
            "proxy",
        ],
    ),
    ("whoami", &[]),
    ("testkit", &[]),
    ("tests", &["testkit"]),
    ("xtask", &[]),
];

/// External dependency, and the crates that may name it: heavy or dangerous things have one door.
const FENCES: &[(&str, &[&str])] = &[
    ("rustls", &["tls"]),
    ("rustls-webpki", &["tls"]),
    // conn: the SHA-1 of a WebSocket handshake (RFC 6455 §4.2.2).
    // policy: signatures, keyed hashes and sealed states of credentials.
    // identity: randomness, and hashes of join tokens.
    // database: what is sealed.
    // app: hashes of named tokens and of sessions.
    ("aws-lc-rs", &["tls", "conn", "policy", "identity", "database", "app"]),
    ("tokio-postgres", &["database"]),
    ("rcgen", &["identity"]),
    ("httparse", &["codec"]),
    ("nix", &["net"]),
    ("hickory-resolver", &["net", "upstream"]),
    ("hickory-proto", &["dns"]),
    ("notify", &["source"]),
    ("granit-parser", &["model", "source"]),
    ("axum", &["app"]),
    ("clap", &["app", "xtask"]),
    ("anyhow", &["app", "xtask"]),
    (
        "tokio",
        &[
            "net", "dns", "tls", "database", "grpc", "identity", "conn", "upstream", "source", "proxy",
            "control", "agent", "app",
        ],
    ),
    ("tonic", &["grpc", "identity", "control", "agent", "app"]),
    ("mimalloc", &["app"]),
];

/// Every edge that the tables do not allow, one line each.
pub(crate) fn check() -> Result<()> {
    let text = run::stdout(run::cargo().args(["metadata", "--format-version=1", "--no-deps", "--quiet"]))?;
    let metadata: Value = serde_json::from_slice(&text)?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let wrong = violations(packages);
    if !wrong.is_empty() {
        bail!(
            "crate edges that ARCHITECTURE.md does not allow (xtask/src/edges.rs):\n  {}",
            wrong.join("\n  ")
        );
    }
    Ok(())
}

fn violations(packages: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in packages {
        let name = short(package["name"].as_str().unwrap_or_default());
        let Some((_, allowed)) = EDGES.iter().find(|(from, _)| *from == name) else {
            wrong.push(format!("{name}: not in the table"));
            continue;
        };
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Dev-dependencies may be anything: they are not in the product.
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let to = dependency["name"].as_str().unwrap_or_default();
            if dependency["path"].is_string() {
                if !allowed.contains(short(to)) {
                    wrong.push(format!("{name} -> {}", short(to)));
                }
            } else if let Some((_, doors)) = FENCES.iter().find(|(fenced, _)| *fenced == to)
                && !doors.contains(&name)
                && !["testkit", "tests"].contains(&name)
            {
                wrong.push(format!("{name} -> {to} (only through {})", doors.join(", ")));
            }
        }
    }
    wrong
}

fn short(package: &str) -> &str {
    package.strip_prefix("rhumb-").unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: &[(&str, bool, Option<&str>)]) -> Value {
        let dependencies: Vec<Value> = dependencies
            .iter()
            .map(|(name, local, kind)| json!({"name": name, "path": local.then_some("x"), "kind": kind}))
            .collect();
        json!({"name": name, "dependencies": dependencies})
    }

    #[test]
    fn only_listed_edges_pass() {
        let cases: &[(Value, &[&str])] = &[
            (package("rhumb-codec", &[("rhumb-base", true, None), ("httparse", false, None)]), &[]),
            (package("rhumb-codec", &[("rhumb-model", true, None)]), &["codec -> model"]),
            (package("rhumb-proxy", &[("rustls", false, None)]), &["proxy -> rustls (only through tls)"]),
            (
                package(
                    "rhumb-codec",
                    &[("tokio", false, Some("dev")), ("rhumb-testkit", true, Some("dev"))],
                ),
                &[],
            ),
            (package("rhumb-new", &[]), &["new: not in the table"]),
        ];
        for (package, expected) in cases {
            assert_eq!(violations(std::slice::from_ref(package)), *expected, "{package}");
        }
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Each crate may only name crates that stand above it.
        for (at, (name, allowed)) in EDGES.iter().enumerate() {
            let above: Vec<&str> = EDGES[..at].iter().map(|(n, _)| *n).collect();
            assert!(allowed.iter().all(|to| above.contains(to)), "{name}");
        }
    }
}
