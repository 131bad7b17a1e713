//! `rhumb check`.

use std::path::PathBuf;

use rhumb_balance::Nanos;
use rhumb_model::{Diag, Severity};
use serde_json::{Value, json};

use super::{Exit, Format};
use crate::config::{self, Config, Reading};
use crate::print;

/// Check a configuration without running it
///
/// Prints every mistake with file, line, reason and fix, and ends with 3 when there is one. Several configurations are
/// checked one by one.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb check
  rhumb check -c rhumb.yaml
  rhumb check --format json examples/*.yaml")]
pub(crate) struct Args {
    /// A configuration: a file or a directory. Default: rhumb.yaml, then the directory rhumb, then /etc/rhumb
    #[arg(short, long, value_name = "PATH", env = "RHUMB_CONFIG")]
    config: Vec<PathBuf>,
    /// Further configurations
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How mistakes are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

pub(crate) fn run(mut args: Args) -> anyhow::Result<Exit> {
    let mut paths = std::mem::take(&mut args.config);
    paths.append(&mut args.paths);
    if paths.is_empty() {
        match config::usual_path() {
            Ok(path) => paths.push(path),
            Err(error) => {
                print::err(&format!("rhumb: {error}\n"));
                return Ok(Exit::Usage);
            }
        }
    }
    let mut exit = Exit::Ok;
    let mut all = Vec::new();
    for path in paths {
        let reading = Config::at(&path).read(None, Nanos::default());
        if reading.errors() > 0 {
            exit = Exit::Invalid;
        }
        let path = path.display().to_string();
        match args.format {
            Format::Text => {
                let mut text = reading.report(config::paint(&std::io::stdout()));
                if reading.errors() == 0 {
                    text.push_str(&format!("{path}: ok: {}\n", reading.summary()));
                }
                print::out(&text)?;
            }
            Format::Json => all.push(json(&path, &reading)),
        }
    }
    if args.format == Format::Json {
        print::out(&format!("{:#}\n", Value::Array(all)))?;
    }
    Ok(exit)
}

fn json(path: &str, reading: &Reading) -> Value {
    json!({
        "path": path,
        "valid": reading.errors() == 0,
        "errors": reading.errors(),
        "warnings": reading.warnings(),
        "diagnostics": reading.diags.iter().map(diagnostic).collect::<Vec<_>>(),
    })
}

fn diagnostic(diag: &Diag) -> Value {
    let (start, end) =
        (diag.at.source.position(diag.at.span.start), diag.at.source.position(diag.at.span.end));
    json!({
        "severity": match diag.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "rule": diag.rule.name(),
        "file": **diag.at.source.name(),
        "line": start.line,
        "column": start.column,
        "endLine": end.line,
        "endColumn": end.column,
        "document": diag.at.doc.as_ref().map(ToString::to_string),
        "field": diag.path(),
        "what": diag.what,
        "why": diag.why,
        "fix": diag.fix,
    })
}
