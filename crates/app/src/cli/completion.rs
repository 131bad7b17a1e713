//! `rhumb completion`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit};
use crate::print;

/// Print a completion script for a shell
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb completion bash > /etc/bash_completion.d/rhumb
  rhumb completion zsh > \"${fpath[1]}/_rhumb\"
  rhumb completion fish > ~/.config/fish/completions/rhumb.fish")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rhumb", &mut script);
    print::out(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
