//! Certificates of a mesh: made, looked at, rotated and revoked from the command line, and judged by OpenSSL.

use std::path::Path;
use std::process::Command;

use super::rhumb;

fn ok(dir: &Path, args: &[&str]) -> String {
    let ran = rhumb(dir, args);
    assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
    ran.out
}

fn openssl(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).current_dir(dir).output().expect("openssl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn openssl_takes_what_is_issued() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path();
    let issue = ["cert", "issue", "--namespace", "shop", "--service-account", "orders"];
    let issue = [&issue[..], &["--out", "svid", "--authority", "ca", "--trust-domain", "td.test"]].concat();
    let told = ok(dir, &issue);
    assert!(told.starts_with("spiffe://td.test/ns/shop/sa/orders\n"), "{told}");

    for purpose in ["sslserver", "sslclient"] {
        let chain = ["-untrusted", "svid/tls.crt", "svid/tls.crt"];
        let verify = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", "svid/ca.crt"];
        openssl(dir, &[&verify[..], &chain].concat());
    }
    let text = openssl(dir, &["x509", "-in", "svid/tls.crt", "-noout", "-text"]);
    for part in ["URI:spiffe://td.test/ns/shop/sa/orders", "CA:FALSE", "Digital Signature", "prime256v1"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.contains("X509v3 Subject Alternative Name: critical"), "{text}");

    let shown = ok(dir, &["cert", "show", "svid/tls.crt"]);
    assert!(shown.contains("spiffe://td.test/ns/shop/sa/orders"), "{shown}");
    let json = ok(dir, &["cert", "show", "svid/tls.crt", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["name"], "spiffe://td.test/ns/shop/sa/orders");
    assert_eq!(json[1]["name"], "spiffe://td.test");
}

#[test]
fn an_authority_is_rotated_and_revokes_from_the_command_line() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path();
    let ran = rhumb(dir, &["cert", "authority", "--authority", "ca"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("no certificate authority there"), "{ran:?}");

    ok(dir, &["cert", "issue", "--out", "svid", "--authority", "ca"]);
    let token = ["token", "create", "--service-account", "orders", "--authority", "ca"];
    let text = ok(dir, &token);
    assert!(text.starts_with("rhumb-join-v1.") && text.lines().count() == 1, "{text}");
    let ran = rhumb(dir, &[&token[..], &["--life", "25h"]].concat());
    assert_eq!(ran.code, Some(2), "{ran:?}");

    let status = |dir: &Path| -> serde_json::Value {
        let text = ok(dir, &["cert", "authority", "--authority", "ca", "--format", "json"]);
        serde_json::from_str(&text).expect("JSON")
    };
    assert_eq!(status(dir)["roots"][0]["phase"], "active");
    ok(dir, &["cert", "rotate", "--authority", "ca"]);
    assert_eq!(status(dir)["roots"][1]["phase"], "announced");
    // A token from now on names both roots.
    assert!(ok(dir, &token).len() > text.len());
    let again = rhumb(dir, &["cert", "rotate", "--authority", "ca"]);
    assert!(again.err.contains("under way already"), "{again:?}");

    let id = "spiffe://cluster.local/ns/default/sa/orders";
    ok(dir, &["cert", "revoke", id, "--authority", "ca"]);
    ok(dir, &["cert", "revoke", "--serial", "0A1b", "--authority", "ca"]);
    assert_eq!(status(dir)["revoked"], 2);
    let other = rhumb(dir, &["cert", "revoke", "spiffe://b.test/ns/a/sa/b", "--authority", "ca"]);
    assert_eq!(other.code, Some(1), "{other:?}");
    let none = rhumb(dir, &["cert", "revoke", "orders", "--authority", "ca"]);
    assert_eq!(none.code, Some(2), "{none:?}");
}
