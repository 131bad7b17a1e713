//! `cargo xtask bench`: the load bench lives in `bench/` with its own workspace; this only starts it.

use crate::run;
use anyhow::Result;
use std::process::Command;

pub(crate) fn bench(args: &[String]) -> Result<()> {
    run::ok(run::cargo().args(["build", "--release", "-p", "rhumb-app"]))?;
    let binary = run::target().join("release/rhumb");
    run::ok(Command::new("bash").arg("bench/setup.sh"))?;
    run::ok(Command::new("python3").arg("bench/run.py").args(args).env("RHUMB_BIN", binary))
}
