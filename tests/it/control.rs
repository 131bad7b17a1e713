//! The control plane, as people use it.

use rhumb_testkit::process::{Finished, Program, Rhumb, finish};
use rhumb_testkit::{port, wait};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A control plane of its own.
struct Control {
    dir: TempDir,
    admin: String,
    program: Program,
}

impl Control {
    fn start() -> Self {
        Self::in_directory(tempfile::tempdir().expect("a directory"))
    }

    fn in_directory(dir: TempDir) -> Self {
        let admin = format!("127.0.0.1:{}", port::free());
        let mut command = Rhumb::command();
        command.arg("control").arg("--directory").arg(dir.path().join("store")).args(["--admin", &admin]);
        command.arg("--admin-token-file").arg(dir.path().join("token"));
        let program = Program::start(command, &dir.path().join("log"));
        let control = Self { dir, admin, program };
        wait::until("the control plane answers", || (control.rhumb(&["get"]).code == Some(0)).then_some(()));
        control
    }

    fn rhumb(&self, args: &[&str]) -> Finished {
        let mut command = Rhumb::command();
        command.args(args).args(["--admin", &self.admin]);
        command.arg("--admin-token-file").arg(self.dir.path().join("token"));
        finish(command)
    }

    /// The output of a verb that ends well.
    fn ok(&self, args: &[&str]) -> String {
        let finished = self.rhumb(args);
        assert_eq!(finished.code, Some(0), "{args:?}: {}\n{}", finished.output, self.program.log());
        finished.output
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    fn apply(&self, text: &str, more: &[&str]) -> Finished {
        let path = self.write("documents.yaml", text);
        self.rhumb(&[&["apply", utf8(&path)], more].concat())
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn backend(port: u16) -> String {
    format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {{name: users}}\nspec: {{endpoints: ['127.0.0.1:{port}']}}\n"
    )
}

#[test]
fn documents_are_applied_shown_compared_and_taken_back() {
    let control = Control::start();
    let first = control.apply(&backend(9001), &["--message", "the first"]);
    assert_eq!(first.code, Some(0), "{}", first.output);
    assert!(
        first.output.contains("revision 1") && first.output.contains("Backend/default/users added"),
        "{first:?}"
    );
    assert!(control.apply(&backend(9001), &[]).output.contains("revision 1 says so already"));
    assert!(control.apply(&backend(9002), &["--wait"]).output.contains("it concerns no proxy"));
    let history = control.ok(&["history"]);
    assert!(history.contains("the first") && history.contains("Backend/default/users changed"), "{history}");
    let diff = control.ok(&["diff", "1"]);
    assert!(diff.contains("-   - \"127.0.0.1:9001\"") && diff.contains("+   - \"127.0.0.1:9002\""), "{diff}");
    let dry = control.apply(&backend(9003), &["--dry-run"]);
    assert!(dry.output.contains("+   - \"127.0.0.1:9003\""), "{}", dry.output);
    assert!(
        control.ok(&["get", "Backend", "users", "-o", "yaml"]).contains("127.0.0.1:9002"),
        "nothing was applied"
    );
    assert!(control.ok(&["rollback", "1"]).contains("revision 3"));
    assert!(control.ok(&["get", "Backend", "users", "-o", "json"]).contains("127.0.0.1:9001"));
    assert!(control.ok(&["delete", "Backend", "users"]).contains("removed"));
    assert_eq!(control.rhumb(&["delete", "Backend", "users"]).code, Some(1));
    assert!(control.ok(&["get", "proxies"]).contains("PROXY"));
}

#[test]
fn what_is_in_force_survives_the_process() {
    let mut control = Control::start();
    assert_eq!(control.apply(&backend(9001), &[]).code, Some(0));
    control.program.signal(rustix::process::Signal::TERM);
    assert!(control.program.wait().success(), "{}", control.program.log());
    let Control { dir, .. } = control;
    let control = Control::in_directory(dir);
    assert!(control.ok(&["get"]).contains("users"));
    assert!(control.ok(&["history"]).contains("Backend/default/users added"));
}

#[test]
fn mistakes_are_told_with_their_place_and_change_nothing() {
    let control = Control::start();
    let wrong = control.apply(&backend(9001).replace("endpoints", "endpints"), &[]);
    assert_eq!(wrong.code, Some(3));
    assert!(
        wrong.output.contains("documents.yaml:4") && wrong.output.contains("endpoints"),
        "{}",
        wrong.output
    );
    assert!(!control.ok(&["get"]).contains("users"));
}

#[test]
fn a_change_can_depend_on_the_revision_that_somebody_saw() {
    let control = Control::start();
    assert_eq!(control.apply(&backend(9001), &["--if-revision", "0"]).code, Some(0));
    let late = control.apply(&backend(9002), &["--if-revision", "0"]);
    assert!(late.code != Some(0) && late.output.contains("revision 1 is in force, not 0"), "{late:?}");
    assert!(control.ok(&["get", "-o", "yaml"]).contains("9001"));
}

#[test]
fn the_store_is_for_one_process_and_documents_need_the_token() {
    let control = Control::start();
    let mut second = Rhumb::command();
    second.arg("control").arg("--directory").arg(control.dir.path().join("store"));
    second.args(["--admin", &format!("127.0.0.1:{}", port::free())]);
    let second = finish(second);
    assert!(
        second.code == Some(1) && second.output.contains("another process has the store open"),
        "{second:?}"
    );
    control.write("other-token", "0123456789abcdef0123456789abcdef");
    let mut stranger = Rhumb::command();
    stranger
        .args(["get", "--admin", &control.admin, "--admin-token-file"])
        .arg(control.dir.path().join("other-token"));
    assert_eq!(finish(stranger).code, Some(1));
}
