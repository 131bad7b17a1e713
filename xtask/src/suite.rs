//! `cargo xtask test`: peers installed, binary built, unit tests and the tests over real sockets.

use crate::{peers, run};
use anyhow::Result;

/// Runs the suite; `args` go to the runner. The last line printed is the runner's summary.
pub(crate) fn test(unit: bool, args: &[String]) -> Result<()> {
    let nextest = run::installed("cargo-nextest");
    let mut runner = run::cargo();
    runner.args(if nextest { &["nextest", "run"][..] } else { &["test"] }).arg("--workspace");
    if unit {
        runner.args(["--exclude", "rhumb-tests"]);
    } else {
        let python = peers::ensure()?;
        run::ok(run::cargo().args(["build", "-p", "rhumb-app"]))?;
        runner.env("RHUMB_BIN", run::target().join("debug/rhumb")).env("RHUMB_PYTHON", python);
    }
    // nextest leaves examples in the documentation out.
    if nextest && args.is_empty() {
        run::ok(run::cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    }
    run::ok(runner.args(args))
}
