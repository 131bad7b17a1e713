//! Programs that the tests talk to: Debian packages, and packages of Python and Node.js in the cache directory. What is there already is left alone, so only a machine that lacks something needs root.

use crate::run;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// Program that must be on the path, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("nginx", "nginx"),
    ("h2load", "nghttp2-client"),
    ("openssl", "openssl"),
    ("nm", "binutils"),
    ("haproxy", "haproxy"),
    ("dnsmasq", "dnsmasq-base"),
    ("dig", "bind9-dnsutils"),
    // Its programs are off the path; the client comes with it.
    ("psql", "postgresql"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("wrk", "wrk"),
    ("redis-server", "redis-server"),
    // promtool comes with it.
    ("prometheus", "prometheus"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("chromium", "chromium"),
];

/// Pinned Python packages: peers that are independent of our code.
const REQUIREMENTS: &str = "tests/peers/requirements.txt";

/// OpenTelemetry's messages, in a directory of their own: a package of the others brings an old form of the same modules.
const OTLP_REQUIREMENTS: &str = "tests/peers/requirements-otlp.txt";

/// Pinned Node.js packages: an OpenID provider, and what drives the browser.
const NODE_PACKAGES: &str = "tests/peers/node/package.json";

/// Makes sure that everything is installed; returns the Python interpreter that has the packages.
pub(crate) fn ensure() -> Result<PathBuf> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !run::installed(program))
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        install_debian(&missing)?;
    }
    node()?;
    python()
}

/// Installs the packages of Node.js into the cache directory.
fn node() -> Result<()> {
    let wanted = std::fs::read_to_string(NODE_PACKAGES).context(NODE_PACKAGES)?;
    let dir = run::cache()?.join("node");
    let stamp = dir.join("installed.json");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("package.json"), &wanted)?;
    let args = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
    run::ok(Command::new("npm").args(args).current_dir(&dir))?;
    std::fs::write(stamp, wanted)?;
    Ok(())
}

/// Node.js and its package manager alone.
pub(crate) fn ensure_node() -> Result<()> {
    let missing: Vec<&str> = [("node", "nodejs"), ("npm", "npm")]
        .iter()
        .filter(|(program, _)| !run::installed(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() { Ok(()) } else { install_debian(&missing) }
}

fn install_debian(packages: &[&str]) -> Result<()> {
    if !run::installed("apt-get") {
        bail!("please install: {}", packages.join(" "));
    }
    let root = String::from_utf8_lossy(&run::stdout(Command::new("id").arg("-u"))?).trim() == "0";
    if !root && !run::installed("sudo") {
        bail!("not root and no sudo; please install: {}", packages.join(" "));
    }
    let apt = || {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.args(["-n", "apt-get"]);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run::ok(apt().args(["update", "-q"]))?;
    run::ok(apt().args(["install", "-y", "-q", "--no-install-recommends"]).args(packages))
}

fn python() -> Result<PathBuf> {
    let mut wanted = std::fs::read_to_string(REQUIREMENTS).context(REQUIREMENTS)?;
    wanted += &std::fs::read_to_string(OTLP_REQUIREMENTS).context(OTLP_REQUIREMENTS)?;
    let venv = run::cache()?.join("venv");
    let python = venv.join("bin/python");
    let stamp = venv.join("requirements.txt");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    std::fs::create_dir_all(&venv)?;
    let made = run::ok(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    if made.is_err() {
        // Debian keeps the venv module in a package of its own.
        install_debian(&["python3-venv"])?;
        run::ok(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--only-binary=:all:"];
    run::ok(Command::new(&python).args(pip).args(["-r", REQUIREMENTS]))?;
    let otlp = venv.join("otlp");
    let alone = ["--no-deps", "--upgrade", "-r", OTLP_REQUIREMENTS, "--target"];
    run::ok(Command::new(&python).args(pip).args(alone).arg(otlp))?;
    std::fs::write(stamp, wanted)?;
    Ok(python)
}

/// cargo-deny: on the path, or built into the cache directory earlier.
pub(crate) fn cargo_deny() -> Result<Option<PathBuf>> {
    if run::installed("cargo-deny") {
        return Ok(Some("cargo-deny".into()));
    }
    let built = run::cache()?.join("tools/bin/cargo-deny");
    Ok(built.exists().then_some(built))
}

/// Builds cargo-deny into the cache directory unless there is one.
pub(crate) fn install_cargo_deny() -> Result<()> {
    if cargo_deny()?.is_some() {
        return Ok(());
    }
    let tools = run::cache()?.join("tools");
    run::ok(
        run::cargo()
            .args(["install", "--locked", "--version", CARGO_DENY, "--root"])
            .arg(&tools)
            .arg("cargo-deny")
            .env("CARGO_TARGET_DIR", tools.join("target"))
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    )
}

/// The version whose findings this tree is clean of.
const CARGO_DENY: &str = "0.20.2";
