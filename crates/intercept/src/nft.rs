//! The program `nft`.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

/// Why a ruleset is not in force. Each says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not installed.
    #[error(
        "the program nft is not on the path: install the package nftables (apt-get install nftables, dnf install \
         nftables, apk add nftables)"
    )]
    Missing,
    /// It cannot be started.
    #[error("nft does not start")]
    Start(#[source] io::Error),
    /// Changing rules needs a capability.
    #[error(
        "changing rules needs CAP_NET_ADMIN in this network namespace: run it as root (sudo), give the container \
         NET_ADMIN (an init container can have it alone), or join without root through explicit upstreams"
    )]
    Denied,
    /// The kernel has no nftables, or lacks a part of it.
    #[error(
        "the kernel lacks what the rules need ({said}): load the modules nf_tables, nft_chain_nat, nft_redir, nft_fib_inet \
         and nft_ct, or build the kernel with them"
    )]
    Kernel {
        /// What nft said.
        said: String,
    },
    /// It says something else.
    #[error("nft refuses the rules: {said}")]
    Refused {
        /// What it said.
        said: String,
    },
}

/// Hands a ruleset to `nft`: it is in force as a whole, or nothing has changed.
///
/// # Errors
/// Why not, and how to mend it.
pub fn apply(ruleset: &str) -> Result<(), NftError> {
    let mut child = start()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why itself.
        let _ = stdin.write_all(ruleset.as_bytes());
    }
    let done = child.wait_with_output().map_err(NftError::Start)?;
    if done.status.success() {
        return Ok(());
    }
    Err(explain(&String::from_utf8_lossy(&done.stderr)))
}

/// The name is tried first; distributions put the program where only root's path leads.
fn start() -> Result<Child, NftError> {
    for program in ["nft", "/usr/sbin/nft", "/sbin/nft"] {
        let started = Command::new(program)
            .args(["-f", "-"])
            // Messages are looked through below.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match started {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(NftError::Start(error)),
        }
    }
    Err(NftError::Missing)
}

fn explain(said: &str) -> NftError {
    if said.contains("Operation not permitted") || said.contains("Permission denied") {
        return NftError::Denied;
    }
    let said = said
        .lines()
        .map(str::trim)
        .find(|line| line.contains("rror"))
        .unwrap_or_else(|| said.trim())
        .to_owned();
    // What the kernel answers for an expression or a chain type that it does not know.
    if ["No such file or directory", "Operation not supported", "Protocol not supported", "not supported"]
        .iter()
        .any(|sign| said.contains(sign))
    {
        return NftError::Kernel { said };
    }
    NftError::Refused { said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nft_says_becomes_what_to_do() {
        let cases = [
            (
                "Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed",
                "CAP_NET_ADMIN",
            ),
            (
                "/dev/stdin:3:1-5: Error: Could not process rule: No such file or directory\nchain x\n^^^^^",
                "nf_tables",
            ),
            ("/dev/stdin:3:1-5: Error: syntax error, unexpected newline\nchain\n", "refuses"),
        ];
        for (said, expected) in cases {
            let told = explain(said).to_string();
            assert!(told.contains(expected), "{told}");
        }
    }
}
