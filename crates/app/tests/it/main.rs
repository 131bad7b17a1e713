//! The binary's verbs that need no running proxy, and the promises of the documentation.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod check;
mod docs;
mod identity;
mod verbs;

/// What a run of the binary brought.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the binary in `dir`, without the caller's `RHUMB_*` variables.
fn rhumb(dir: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhumb"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RHUMB_")) {
        command.env_remove(name);
    }
    let output = command.args(args).current_dir(dir).stdin(Stdio::null()).output().expect("the binary runs");
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// The root of the tree.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
