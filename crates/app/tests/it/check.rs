//! `rhumb check`.

use super::rhumb;
use serde_json::Value;

const GOOD: &str = "\
listeners: { web: { port: 8080 } }
backends: { app: '127.0.0.1:9001' }
routes: [{ to: app }]
";

const BAD: &str = "\
listeners: { web: { prot: 8080 } }
backends: { app: '127.0.0.1:9001' }
routes: [{ to: ap }, { to: app, timeout: 3x }]
";

#[test]
fn what_is_right_is_ok() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("rhumb.yaml"), GOOD).expect("a file");
    for args in [&["check"][..], &["check", "-c", "rhumb.yaml"], &["check", "rhumb.yaml"], &["check", "."]] {
        let ran = rhumb(dir.path(), args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        assert!(ran.out.contains("ok: ") && ran.out.contains("1 port, 1 rule, 1 backend"), "{ran:?}");
    }
}

#[test]
fn every_mistake_is_listed_with_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("bad.yaml"), BAD).expect("a file");
    let ran = rhumb(dir.path(), &["check", "-c", "bad.yaml"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    for part in ["bad.yaml:1:", "bad.yaml:3:", "prot", "`3x`", "errors"] {
        assert!(ran.out.contains(part), "{part} is not in\n{}", ran.out);
    }
}

#[test]
fn several_configurations_are_checked_one_by_one() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("good.yaml"), GOOD).expect("a file");
    std::fs::write(dir.path().join("bad.yaml"), BAD).expect("a file");
    let ran = rhumb(dir.path(), &["check", "--format", "json", "good.yaml", "bad.yaml"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let value: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((&value[0]["valid"], &value[1]["valid"]), (&true.into(), &false.into()));
    let lines: Vec<_> =
        value[1]["diagnostics"].as_array().into_iter().flatten().map(|d| d["line"].clone()).collect();
    assert!(lines.contains(&1.into()) && lines.contains(&3.into()), "{value:#}");
}

#[test]
fn no_configuration_is_wrong_usage_and_a_missing_one_is_invalid() {
    let dir = tempfile::tempdir().expect("a directory");
    let ran = rhumb(dir.path(), &["check"]);
    // A machine may have an /etc/rhumb of its own.
    if !std::path::Path::new("/etc/rhumb").is_dir() {
        assert!(ran.code == Some(2) && ran.err.contains("rhumb demo"), "{ran:?}");
    }
    let ran = rhumb(dir.path(), &["check", "nothing.yaml"]);
    assert!(ran.code == Some(3) && ran.out.contains("nothing.yaml"), "{ran:?}");
    let ran = rhumb(dir.path(), &["run", "-c", "nothing.yaml"]);
    assert!(ran.code == Some(3) && ran.err.contains("nothing.yaml"), "{ran:?}");
}
