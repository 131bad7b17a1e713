//! `rhumb drain`: has a running process finish and end.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::Exit;
use super::status::Running;
use crate::admin::client::{self, NoAnswer};
use crate::print;

/// How often a process that drains is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How often it is told how many connections are left.
const TELL: Duration = Duration::from_secs(5);

/// Have a running process finish what it has, and end
///
/// Does what SIGTERM does: `/readyz` turns to 503, after `timeouts.drainDelay` listeners close, and what runs may finish
/// within `timeouts.drain`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb drain
  rhumb drain --wait --admin 127.0.0.1:9902")]
pub(crate) struct Args {
    #[command(flatten)]
    running: Running,
    /// Return when the process has ended
    #[arg(long)]
    wait: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let Running { admin, admin_token_file, .. } = &args.running;
    let token_file = admin_token_file.as_deref();
    let answer = client::post(*admin, "/drain", token_file)?;
    let pid = state(&answer)?["pid"].clone();
    print::out(&format!("rhumb (pid {pid}) drains\n"))?;
    if !args.wait {
        return Ok(Exit::Ok);
    }
    let mut told = Instant::now();
    loop {
        std::thread::park_timeout(LOOK);
        let answer = match client::get(*admin, "/status", token_file) {
            Ok(answer) => answer,
            // It is gone, and its token's file with it; or another one has taken its place, with a token of its own.
            Err(NoAnswer::Unreachable(..) | NoAnswer::TokenFile(..) | NoAnswer::Locked(_)) => break,
            Err(error) => return Err(error.into()),
        };
        let state = state(&answer)?;
        if state["pid"] != pid {
            break;
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            print::out(&format!("{} connections are open\n", state["connections"]))?;
        }
    }
    print::out("it has ended\n")?;
    Ok(Exit::Ok)
}

fn state(answer: &str) -> anyhow::Result<Value> {
    serde_json::from_str(answer).context("the answer is not JSON: is it another program?")
}
