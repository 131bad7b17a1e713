//! `cargo xtask gen`: files in the tree that the binary itself writes, so that they cannot disagree with it.

use crate::run;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Arguments of the binary, and the file that holds its output.
const FILES: &[(&[&str], &str)] = &[
    (&["schema"], "docs/schema/rhumb.schema.json"),
    (&["schema", "reference"], "docs/reference.md"),
    (&["completion", "bash"], "docs/completion/rhumb.bash"),
    (&["completion", "zsh"], "docs/completion/_rhumb"),
    (&["completion", "fish"], "docs/completion/rhumb.fish"),
];

/// Writes every generated file, or with `check` compares.
pub(crate) fn generate(check: bool) -> Result<()> {
    run::ok(run::cargo().args(["build", "--quiet", "-p", "rhumb-app"]))?;
    let binary = run::target().join("debug/rhumb");
    let mut stale = Vec::new();
    for &(args, path) in FILES {
        let mut text = run::stdout(Command::new(&binary).args(args))?;
        if text.is_empty() {
            bail!("rhumb {} printed nothing", args.join(" "));
        }
        if text.last() != Some(&b'\n') {
            text.push(b'\n');
        }
        let path = Path::new(path);
        if std::fs::read(path).is_ok_and(|old| old == text) {
            continue;
        }
        if check {
            stale.push(path.display().to_string());
            continue;
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
        eprintln!("wrote {}", path.display());
    }
    if !stale.is_empty() {
        bail!("not fresh, run `cargo xtask gen`: {}", stale.join(", "));
    }
    Ok(())
}
