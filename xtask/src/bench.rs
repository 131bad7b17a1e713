//! `cargo xtask bench`: the load bench lives in `bench/` with its own workspace; this only starts it, and that of the mesh after it.

use crate::{peers, release, run};
use anyhow::Result;
use std::process::Command;

/// Measures the binary that users are given, or with `plain` what `cargo build --release` makes.
pub(crate) fn bench(plain: bool, args: &[String]) -> Result<()> {
    let binary = if plain {
        run::ok(run::cargo().args(["build", "--release", "-p", "rhumb-app"]))?;
        run::target().join("release/rhumb")
    } else {
        release::release()?
    };
    run::ok(Command::new("bash").arg("bench/setup.sh"))?;
    run::ok(Command::new("python3").arg("bench/run.py").args(args).env("RHUMB_BIN", &binary))?;
    if args.is_empty() {
        let mut cost = Command::new("python3");
        cost.args(["bench/cost.py", "--publish"]).env("RHUMB_BIN", &binary);
        // The collector is a test peer.
        run::ok(cost.env("RHUMB_PYTHON", peers::ensure()?))?;
    }
    // Whoever asks for scenarios asks for these alone.
    let of_mesh: &[&str] = match args {
        [] => &["--publish"],
        [quick] if quick == "--quick" => &["--quick"],
        _ => return Ok(()),
    };
    run::ok(Command::new("python3").arg("bench/mesh.py").args(of_mesh).env("RHUMB_BIN", &binary))
}
