//! `cargo xtask check`: every step runs, also after a failed one, and the failed ones are listed at the end.

use crate::{dashboard, edges, generated, peers, run};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Runs all steps, or those in `only`.
pub(crate) fn check(install_deny: bool, only: &[String]) -> Result<()> {
    type Step = (&'static str, fn() -> Result<()>);
    const STEPS: &[Step] = &[
        ("fmt", fmt),
        ("edges", edges::check),
        ("paths", machine_paths),
        ("scripts", scripts),
        ("clippy", clippy),
        ("doc", doc),
        ("gen", fresh),
        ("ui", || dashboard::build(true)),
        ("deny", deny),
    ];
    if let Some(unknown) = only.iter().find(|name| !STEPS.iter().any(|(step, _)| step == name)) {
        bail!(
            "no step named {unknown}; steps: {}",
            STEPS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        );
    }
    if install_deny {
        peers::install_cargo_deny()?;
    }
    let mut failed = Vec::new();
    for (name, step) in STEPS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name)) {
        eprintln!("== {name}");
        if let Err(error) = step() {
            eprintln!("{name}: {error:#}");
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    eprintln!("check passed");
    Ok(())
}

fn fmt() -> Result<()> {
    run::ok(run::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    run::ok(run::cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}

fn doc() -> Result<()> {
    run::ok(
        run::cargo()
            .args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"),
    )
}

fn fresh() -> Result<()> {
    generated::generate(true)
}

/// Bans, licences and sources of deny.toml. Advisories need a database from the network and are not part of this.
fn deny() -> Result<()> {
    let Some(program) = peers::cargo_deny()? else {
        eprintln!("cargo-deny is not installed: skipped (`cargo xtask check --install-deny` builds it once)");
        return Ok(());
    };
    // The crates of every platform, also those that are never built here: the check reads all of them.
    run::ok(run::cargo().args(["fetch", "--quiet", "--locked"]))?;
    run::ok(Command::new(program).args([
        "--offline",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))
}

/// Files of the tree must not carry absolute paths of the machine they were made on.
fn machine_paths() -> Result<()> {
    // Written in two halves so that this file does not find itself.
    let needles: Vec<String> =
        [("/wo", "rk/"), ("/ro", "ot/"), ("/ho", "me/"), ("/Us", "ers/"), ("/tmp/bash", "_jobs")]
            .map(|(a, b)| format!("{a}{b}"))
            .to_vec();
    let mut found = Vec::new();
    for path in tracked("")? {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            if needles.iter().any(|needle| starts_a_path(line, needle)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    if !found.is_empty() {
        bail!("absolute paths of a machine:\n  {}", found.join("\n  "));
    }
    Ok(())
}

/// Whether `needle` stands in `line` at the beginning of a path, not in the middle of one (`/api/home/x` is a route).
fn starts_a_path(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "-_.~}*/".contains(c))
    })
}

/// Python and shell files at least parse.
fn scripts() -> Result<()> {
    let python = tracked("*.py")?;
    if !python.is_empty() {
        let parse =
            "import ast, sys\nfor name in sys.argv[1:]: ast.parse(open(name, encoding='utf-8').read(), name)";
        run::ok(Command::new("python3").args(["-c", parse]).args(python))?;
    }
    for path in
        tracked("*.sh")?.into_iter().chain([".ci/run".to_owned()]).filter(|path| Path::new(path).exists())
    {
        run::ok(Command::new("bash").args(["-n", &path]))?;
    }
    Ok(())
}

/// Files that git knows, or would take, under a pattern; the empty pattern is all.
fn tracked(pattern: &str) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    if !pattern.is_empty() {
        git.args(["--", pattern]);
    }
    let text = String::from_utf8(run::stdout(&mut git)?).context("a file name that is not UTF-8")?;
    Ok(text.lines().filter(|path| Path::new(path).is_file()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_machine_is_told_from_a_route() {
        let home = format!("/ho{}", "me/");
        for (line, expected) in [
            (format!("x = {home}me/x"), true),
            (format!("\"{home}a\""), true),
            (format!("/api{home}x"), false),
            (format!("~{home}"), false),
        ] {
            assert_eq!(starts_a_path(&line, &home), expected, "{line}");
        }
    }
}
