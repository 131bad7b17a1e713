//! The dashboard: `ui/` → `ui/dist`, which is part of the tree so that a build of the binary needs no Node.js.

use crate::{peers, run};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// What it is made of.
const SOURCES: &[&str] = &["index.html", "tsconfig.json", "vite.config.js", "src", "public"];

/// Packages by version, and by content.
const PACKAGES: &[&str] = &["package.json", "package-lock.json"];

/// What it is made into.
const DIST: &str = "ui/dist";

/// Makes the files anew; with `check` they are compared only.
pub(crate) fn build(check: bool) -> Result<()> {
    let made = make()?;
    let (dist, made) = (Path::new(DIST), made.as_path());
    let stale = differing(dist, made)?;
    if stale.is_empty() {
        return Ok(());
    }
    if check {
        bail!("{DIST} is not fresh, run `cargo xtask ui`: {}", stale.join(", "));
    }
    if dist.exists() {
        std::fs::remove_dir_all(dist)?;
    }
    copy(made, dist)?;
    eprintln!("wrote {DIST}");
    Ok(())
}

/// Builds in the cache directory, where the packages are.
fn make() -> Result<std::path::PathBuf> {
    peers::ensure_node()?;
    let dir = run::cache()?.join("ui");
    std::fs::create_dir_all(&dir)?;
    let stamp = dir.join("installed");
    let wanted = PACKAGES.iter().map(|name| text(&Path::new("ui").join(name))).collect::<Result<String>>()?;
    if std::fs::read_to_string(&stamp).map_or(true, |have| have != wanted) {
        for name in PACKAGES {
            std::fs::copy(Path::new("ui").join(name), dir.join(name))?;
        }
        run::ok(
            Command::new("npm")
                .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"])
                .current_dir(&dir),
        )?;
        std::fs::write(stamp, wanted)?;
    }
    for name in SOURCES {
        let (from, to) = (Path::new("ui").join(name), dir.join(name));
        if to.is_dir() {
            std::fs::remove_dir_all(&to)?;
        }
        copy(&from, &to)?;
    }
    run::ok(
        Command::new("npm").args(["run", "--silent", "build"]).current_dir(&dir).env("RHUMB_UI_OUT", "dist"),
    )?;
    Ok(dir.join("dist"))
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        std::fs::copy(from, to).with_context(|| from.display().to_string())?;
        return Ok(());
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Files that are not the same on both sides. What is compressed follows from what is not, and depends on the version of
/// the compressor: it is looked for only.
fn differing(a: &Path, b: &Path) -> Result<Vec<String>> {
    let names = |dir: &Path| -> Result<BTreeSet<String>> {
        if !dir.is_dir() {
            return Ok(BTreeSet::new());
        }
        let entries = std::fs::read_dir(dir)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let (left, right) = (names(a)?, names(b)?);
    let mut found: Vec<String> = left.symmetric_difference(&right).cloned().collect();
    for name in left.intersection(&right).filter(|name| !name.ends_with(".gz")) {
        if std::fs::read(a.join(name))? != std::fs::read(b.join(name))? {
            found.push(name.clone());
        }
    }
    Ok(found)
}
