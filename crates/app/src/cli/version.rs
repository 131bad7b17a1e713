//! `rhumb version`.

use serde_json::json;

use super::Exit;
use crate::admin::VERSION;
use crate::print;

/// Print the version
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  rhumb version --format json")]
pub(crate) struct Args {
    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: super::Format,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    print::out(&match args.format {
        super::Format::Text => format!("rhumb {VERSION} ({system} {machine})\n"),
        super::Format::Json => format!(
            "{}\n",
            json!({ "name": "rhumb", "version": VERSION, "system": system, "machine": machine })
        ),
    })?;
    Ok(Exit::Ok)
}
