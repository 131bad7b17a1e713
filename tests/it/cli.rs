//! The command line.

use rhumb_testkit::backend::Backend;
use rhumb_testkit::config::Config;
use rhumb_testkit::process::{Finished, Program, Rhumb, finish, succeed};
use rhumb_testkit::{port, wait};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;

fn rhumb(args: &[&str]) -> Finished {
    let mut command = Rhumb::command();
    command.args(args);
    finish(command)
}

fn config(dir: &Path) -> PathBuf {
    let path = dir.join("rhumb.yaml");
    let text = Config::new()
        .listener("web", port::free(), "")
        .backend("users", "endpoints: ['127.0.0.1:9001']")
        .backend("orders", "endpoints: ['127.0.0.1:9002']")
        .route("name: users, match: {host: api.test, path: /users/*}, to: users")
        .route("name: orders, match: {host: api.test, path: /orders/*, method: GET}, to: [{backend: orders, weight: 90}, {backend: users, weight: 10}]")
        .route("name: closed, match: {host: api.test, path: /admin/*}, respond: {status: 403}")
        .text(port::free());
    std::fs::write(&path, text).expect("a file");
    path
}

#[test]
fn version_help_and_usage() {
    let version = rhumb(&["version"]);
    assert!(version.code == Some(0) && version.output.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    let help = rhumb(&["--help"]);
    for verb in ["run", "check", "adapt", "schema", "explain", "status", "version", "completion", "demo"] {
        assert!(help.output.contains(verb), "{verb}: {}", help.output);
    }
    for usage in [&["nonsense"][..], &["run", "--nonsense"], &["check"]] {
        let finished = rhumb(usage);
        // `check` without an argument may take the default file, which is missing here.
        assert!(matches!(finished.code, Some(2 | 3)), "{usage:?}: {finished:?}");
    }
    let missing = rhumb(&["check", "/nonexistent/rhumb.yaml"]);
    assert!(missing.code == Some(3) && missing.output.contains("/nonexistent/rhumb.yaml"), "{missing:?}");
}

#[test]
fn check_accepts_what_is_right() {
    let dir = tempfile::tempdir().expect("a directory");
    let finished = rhumb(&["check", config(dir.path()).to_str().expect("UTF-8")]);
    assert_eq!(finished.code, Some(0), "{}", finished.output);
}

#[test]
fn adapt_prints_documents_that_mean_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path());
    let documents = rhumb(&["adapt", path.to_str().expect("UTF-8")]);
    assert_eq!(documents.code, Some(0), "{}", documents.output);
    for kind in ["kind: Gateway", "kind: HTTPRoute", "kind: Backend", "kind: Policy"] {
        assert!(documents.output.contains(kind), "{kind}: {}", documents.output);
    }
    std::fs::remove_file(&path).expect("a file");
    std::fs::write(dir.path().join("documents.yaml"), &documents.output).expect("a file");
    let dir = dir.path().to_str().expect("UTF-8");
    let check = rhumb(&["check", dir]);
    assert_eq!(check.code, Some(0), "{}", check.output);
    let again = rhumb(&["adapt", dir]);
    assert_eq!(again.output, documents.output, "documents adapt to themselves");
}

#[test]
fn schema_is_json_schema() {
    let finished = rhumb(&["schema"]);
    let schema: serde_json::Value =
        serde_json::from_str(&finished.output).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    assert!(schema["$schema"].as_str().is_some_and(|uri| uri.contains("2020-12")), "{}", schema["$schema"]);
    for word in ["listeners", "HTTPRoute", "loadBalancing"] {
        assert!(finished.output.contains(word), "{word}");
    }
}

#[test]
fn completion_is_there_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let finished = rhumb(&["completion", shell]);
        assert!(finished.code == Some(0) && finished.output.contains("explain"), "{shell}: {finished:?}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("rhumb.bash");
    std::fs::write(&script, rhumb(&["completion", "bash"]).output).expect("a file");
    let mut bash = Command::new("bash");
    bash.arg("-n").arg(script);
    succeed(bash);
}

#[test]
fn explain_says_which_route_and_why_not_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path());
    let explain = |args: &[&str]| {
        let mut all = vec!["explain", "-c", path.to_str().expect("UTF-8")];
        all.extend(args);
        rhumb(&all)
    };
    let chosen = explain(&["GET", "http://api.test/users/7"]);
    assert_eq!(chosen.code, Some(0), "{chosen:?}");
    for word in ["users", "127.0.0.1:9001", "orders"] {
        assert!(chosen.output.contains(word), "{word}: {}", chosen.output);
    }
    let refused = explain(&["POST", "http://api.test/orders/7", "-H", "X-A: 1"]);
    assert!(
        refused.output.contains("405") || refused.output.contains("method_not_allowed"),
        "{}",
        refused.output
    );
    let unknown = explain(&["GET", "http://elsewhere.test/"]);
    assert!(
        unknown.output.contains("404") || unknown.output.contains("route_not_found"),
        "{}",
        unknown.output
    );
}

#[test]
fn status_asks_a_running_proxy() {
    let backend = Backend::start();
    let mut running = Rhumb::start(&Config::simple(port::free(), backend.address()));
    let admin = running.admin_address().to_string();
    let token = running.admin_token().display().to_string();
    let finished = rhumb(&["status", "--admin", &admin, "--admin-token-file", &token]);
    let web = running.program().log().contains("listening");
    assert!(finished.code == Some(0) && finished.output.contains("ready") && web, "{finished:?}");
    running.program().signal(Signal::TERM);
    running.program().wait();
    assert_eq!(rhumb(&["status", "--admin", &admin, "--admin-token-file", &token]).code, Some(1));
}

#[test]
fn demo_prints_a_line_that_works() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Rhumb::command();
    let (port, admin) = (port::free(), format!("127.0.0.1:{}", port::free()));
    command.args(["demo", "--port", &port.to_string(), "--admin", &admin]).current_dir(dir.path());
    let mut demo = Program::start(command, &dir.path().join("demo.log"));
    let line = wait::until("a curl line", || {
        assert!(demo.ended().is_none(), "{}", demo.log());
        demo.log().lines().find(|line| line.trim().starts_with("curl ")).map(|line| line.trim().to_owned())
    });
    let answer = wait::until("an answer", || {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{} -sS --max-time 5", line.split('#').next().unwrap_or(&line)));
        let finished = finish(shell);
        (finished.code == Some(0)).then_some(finished.output)
    });
    assert!(!answer.is_empty());
    demo.signal(Signal::INT);
    assert_eq!(demo.wait().code(), Some(0), "{}", demo.log());
}
