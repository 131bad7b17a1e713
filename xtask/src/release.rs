//! `cargo xtask release`: the binary as it is given to users, laid out by what it does under load.
//!
//! The compiler is told which code runs, how often, and which never (profile-guided optimisation): an instrumented binary
//! serves every scenario of the bench and both sides of a mesh call, and the release is built with what it counted. What never
//! ran is made small and laid apart, so that a process maps less of the program.

use crate::run;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is hot, cold or only for the start stands together in the file; relocations take 10 KiB instead of 800 (glibc 2.36);
/// functions that are the same are there once.
const LINKING: &[&str] = &[
    "-Clink-arg=-Wl,-z,keep-text-section-prefix",
    "-Clink-arg=-Wl,-z,pack-relative-relocs",
    "-Clink-arg=-Wl,--icf=safe",
];

/// Builds the binary; returns where it is.
pub(crate) fn release() -> Result<PathBuf> {
    let target = run::target().join("trained");
    let profile = target.join("profile.profdata");
    let counted = target.join("counts");
    let profdata = tool("llvm-profdata")?;

    if counted.exists() {
        std::fs::remove_dir_all(&counted)?;
    }
    std::fs::create_dir_all(&counted)?;
    let learner = build(&target.join("learner"), &format!("-Cprofile-generate={}", counted.display()), &[])?;
    run::ok(Command::new("sh").arg("bench/setup.sh"))?;
    let mut training = Command::new("python3");
    training.arg("bench/train.py").arg("--rhumb").arg(learner);
    // Processes add to a few files instead of each leaving its own.
    run::ok(training.env("LLVM_PROFILE_FILE", counted.join("%4m.profraw")))?;
    run::ok(Command::new(profdata).arg("merge").arg("-o").arg(&profile).arg(&counted))?;
    let binary = build(&target.join("build"), &format!("-Cprofile-use={}", profile.display()), LINKING)?;
    eprintln!("{}", binary.display());
    Ok(binary)
}

fn build(target: &Path, flag: &str, linking: &[&str]) -> Result<PathBuf> {
    let mut cargo = run::cargo();
    cargo.args(["rustc", "--release", "-p", "rhumb-app", "--bin", "rhumb", "--"]).args(linking);
    run::ok(cargo.env("CARGO_TARGET_DIR", target).env("RUSTFLAGS", flag))?;
    Ok(target.join("release/rhumb"))
}

/// A program of the compiler's own version, from its component `llvm-tools`.
fn tool(name: &str) -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let root = run::stdout(Command::new(&rustc).args(["--print", "target-libdir"]))?;
    let libraries = PathBuf::from(String::from_utf8(root).context("a path that is not text")?.trim());
    let program = libraries.with_file_name("bin").join(name);
    if !program.exists() {
        if !run::installed("rustup") {
            bail!("{name} of this compiler is missing: install its component llvm-tools");
        }
        run::ok(Command::new("rustup").args(["component", "add", "llvm-tools"]))?;
    }
    Ok(program)
}
