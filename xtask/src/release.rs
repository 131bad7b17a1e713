//! `cargo xtask release`: the binary as it is given to users, laid out by what it does under load.
//!
//! The compiler is told which code runs, how often, and which never (profile-guided optimisation): an instrumented binary
//! serves every scenario of the bench and both sides of a mesh call, and the release is built with what it counted. What never
//! ran is made small and laid apart, so that a process maps less of the program. What a sidecar runs to start and to rest comes
//! first: there is one beside each workload, and the kernel maps 64 KiB around each page that is touched.

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
    // What the learner ran and the release has inlined everywhere is not there to be put in order.
    "-Clink-arg=-Wl,--no-warn-symbol-ordering",
];

/// How the learner is linked: as always.
const NOTHING: &[&str] = &[];

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
    let learner =
        build(&target.join("learner"), &format!("-Cprofile-generate={}", counted.display()), NOTHING)?;
    run::ok(Command::new("sh").arg("bench/setup.sh"))?;
    let mut training = Command::new("python3");
    training.arg("bench/train.py").arg("--rhumb").arg(&learner);
    // Processes add to a few files instead of each leaving its own.
    run::ok(training.env("LLVM_PROFILE_FILE", counted.join("%4m.profraw")))?;
    run::ok(Command::new(&profdata).arg("merge").arg("-o").arg(&profile).arg(&counted))?;
    let order = order(&profdata, &learner, &target)?;
    let mut linking: Vec<String> = LINKING.iter().map(ToString::to_string).collect();
    linking.push(format!("-Clink-arg=-Wl,--symbol-ordering-file={}", order.display()));
    let binary = build(&target.join("build"), &format!("-Cprofile-use={}", profile.display()), &linking)?;
    eprintln!("{}", binary.display());
    Ok(binary)
}

/// Writes down what processes ran that only rested.
fn order(profdata: &Path, learner: &Path, target: &Path) -> Result<PathBuf> {
    let rested = target.join("rested");
    if rested.exists() {
        std::fs::remove_dir_all(&rested)?;
    }
    let mut resting = Command::new("python3");
    resting.args(["bench/train.py", "--rest", "--rhumb"]).arg(learner);
    run::ok(resting.env("LLVM_PROFILE_FILE", rested.join("%4m.profraw")))?;
    let profile = target.join("rested.profdata");
    run::ok(Command::new(profdata).arg("merge").arg("-o").arg(&profile).arg(&rested))?;
    let shown =
        run::stdout(Command::new(profdata).args(["show", "--all-functions", "--counts"]).arg(&profile))?;
    let order = target.join("order.txt");
    std::fs::write(&order, executed(&String::from_utf8_lossy(&shown)).join("\n"))?;
    Ok(order)
}

/// The functions of a shown profile of which some part ran.
fn executed(shown: &str) -> Vec<&str> {
    let mut functions = Vec::new();
    let mut name = "";
    for line in shown.lines() {
        let text = line.trim();
        if let Some(counts) = text.strip_prefix("Block counts: [") {
            let mut counts = counts.trim_end_matches(']').split(',').map(str::trim);
            if counts.any(|count| !matches!(count, "" | "0")) {
                functions.push(name);
            }
        } else if line.strip_prefix("  ").is_some_and(|rest| !rest.starts_with(' ')) {
            // What is local to a unit is told with the unit: `UNIT;NAME:`.
            name = text.trim_end_matches(':').rsplit(';').next().unwrap_or(text);
        }
    }
    functions
}

fn build<L: AsRef<std::ffi::OsStr>>(target: &Path, flag: &str, linking: &[L]) -> Result<PathBuf> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_ran_are_found_in_a_shown_profile() {
        let shown = "Counters:\n  _ZN1a:\n    Hash: 0x01\n    Counters: 2\n    Block counts: [0, 3]\n  unit.1;_ZN1b:\n    \
                     Hash: 0x02\n    Counters: 1\n    Block counts: [0]\n  unit.1;_ZN1c:\n    Hash: 0x02\n    Counters: 1\n    \
                     Block counts: [1]\nFunctions shown: 3\n";
        assert_eq!(executed(shown), ["_ZN1a", "_ZN1c"]);
    }
}
