//! `rhumb adapt`.

use std::path::PathBuf;

use rhumb_model::{emit, render_all};

use super::Exit;
use crate::config;
use crate::print;

/// Print the documents that the short form stands for
///
/// Gateway API documents (and a few of our own) say the same as the short form, and more. Documents that are in the
/// configuration already are printed as they are.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  rhumb adapt rhumb.yaml > gateway.yaml")]
pub(crate) struct Args {
    /// The configuration: a file or a directory
    path: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let (documents, diags) = rhumb_source::adapt(&args.path);
    print::err(&render_all(&diags, config::paint(&std::io::stderr())));
    if diags.iter().any(rhumb_model::Diag::is_error) {
        return Ok(Exit::Invalid);
    }
    print::out(&emit::to_yaml(&documents))?;
    Ok(Exit::Ok)
}
