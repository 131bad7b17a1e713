//! `rhumb bundle`: what somebody who helps from afar wants to know of a running process, as one file.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;
use rhumb_plan::process::DEFAULT_ADMIN;

use super::Exit;
use crate::admin::client;
use crate::health::unix_now;
use crate::print;

/// Write what a running process knows into one file, for a support case
///
/// Version and command line, documents, the compiled configuration, health, metrics, events, the latest messages, and what is
/// going on, without secrets: they are `(not shown)`. `manifest.json` in it says what is there and what was left out. Needs the
/// role admin.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb bundle
  rhumb bundle --file case-17.tar.gz --admin 127.0.0.1:9902")]
pub(crate) struct Args {
    /// The file, which must not be there yet; `-` is standard output. Default: rhumb-ADDRESS-TIME.tar.gz
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Admin listener of the running process
    #[arg(long, value_name = "ADDRESS", env = "RHUMB_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// File with a token of an admin. Default: found by itself
    #[arg(long, value_name = "FILE", env = "RHUMB_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let content = client::get_bytes(args.admin, "/api/v1/bundle", args.admin_token_file.as_deref())?;
    if args.file.as_deref().is_some_and(|file| file.as_os_str() == "-") {
        std::io::stdout().write_all(&content)?;
        return Ok(Exit::Ok);
    }
    let named = args.file.clone();
    let address = args.admin.to_string().replace([':', '[', ']'], "-");
    let file = named.unwrap_or_else(|| format!("rhumb-{address}-{}.tar.gz", unix_now()).into());
    let shown = file.display();
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .with_context(|| shown.to_string())?;
    out.write_all(&content).with_context(|| shown.to_string())?;
    print::out(&format!("{shown}: {} bytes; `tar tzf` lists what is in it\n", content.len()))?;
    Ok(Exit::Ok)
}
