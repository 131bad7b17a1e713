//! `rhumb apis`: which APIs there are, and how they differ from what is declared.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rhumb_model::value::{Node, Value as Tree};
use rhumb_model::{Source, Span};
use rhumb_plan::process::DEFAULT_ADMIN;
use rhumb_signals::apis::{Apis, Operation};
use rhumb_signals::openapi::{Declaration, Report, compare, export};
use serde_json::{Value, json};

use super::Exit;
use crate::admin::client;
use crate::health::unix_now;
use crate::print;

/// Show which APIs there are, as traffic tells
///
/// Operations that were seen: host, method, template of the path, callers, last use. With OpenAPI files (3.0 and 3.1), what
/// is declared and unused, what is seen and not declared (shadow), and what is seen to be other than declared (drift).
/// Rules of the configuration that nobody uses are unused too. A control plane tells what all of its proxies saw.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb apis
  rhumb apis --openapi shop.yaml --openapi users.json --unused-days 7
  rhumb apis --export-openapi > seen.yaml")]
pub(crate) struct Args {
    /// Compare with this OpenAPI file, in YAML or JSON; may be repeated
    #[arg(long, value_name = "FILE")]
    openapi: Vec<PathBuf>,
    /// What was not seen for so many days is unused
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    unused_days: u64,
    /// Print what was seen as OpenAPI 3.1, one document per host
    #[arg(long, conflicts_with = "openapi")]
    export_openapi: bool,
    /// Admin listener of the running process
    #[arg(long, value_name = "ADDRESS", env = "RHUMB_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// File with its token. Default: found by itself
    #[arg(long, value_name = "FILE", env = "RHUMB_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// How it is printed. Default: text; of `--export-openapi` yaml
    #[arg(short = 'o', long, value_name = "FORMAT")]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

/// The longest OpenAPI file that is read. **Unit**: bytes.
const MAX_FILE: u64 = 16 << 20;

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let declarations = match args.openapi.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>() {
        Ok(declarations) => declarations,
        Err(error) => {
            print::err(&format!("rhumb: {error:#}\n"));
            return Ok(Exit::Invalid);
        }
    };
    let answer = client::get(args.admin, "/api/v1/apis", args.admin_token_file.as_deref())?;
    let apis: Apis = serde_json::from_str(&answer)
        .context("the answer is not what it should be: is it another program?")?;
    if args.export_openapi {
        let documents = export(&apis);
        print::out(&match (args.format, &*documents) {
            (Some(Format::Json), [one]) => format!("{one:#}\n"),
            (Some(Format::Json), _) => format!("{:#}\n", Value::from(documents)),
            _ => rhumb_model::emit::to_yaml(&documents.iter().map(node).collect::<Vec<_>>()),
        })?;
        return Ok(Exit::Ok);
    }
    let unused_before = unix_now().saturating_sub(args.unused_days.saturating_mul(24 * 3600));
    let report = compare(&apis, &declarations, unused_before);
    let whole = || json!({ "apis": apis, "report": report });
    print::out(&match args.format {
        Some(Format::Json) => format!("{:#}\n", whole()),
        Some(Format::Yaml) => rhumb_model::emit::to_yaml(&[node(&whole())]),
        _ => text(&apis, &report, !declarations.is_empty()),
    })?;
    Ok(Exit::Ok)
}

/// Reads a file: JSON is YAML.
fn read(path: &Path) -> anyhow::Result<Declaration> {
    let name = path.display().to_string();
    let length = std::fs::metadata(path).with_context(|| name.clone())?.len();
    anyhow::ensure!(length <= MAX_FILE, "{name}: has more than {} MiB", MAX_FILE >> 20);
    let content = std::fs::read_to_string(path).with_context(|| name.clone())?;
    let source = std::sync::Arc::new(Source::new(name.as_str(), 1, content));
    let mut mistakes = Vec::new();
    let documents = rhumb_model::yaml::parse(&source, None, &mut mistakes);
    if let Some(mistake) = mistakes.first() {
        anyhow::bail!("{mistake}");
    }
    let document = documents.first().map_or(Value::Null, Node::to_json);
    Declaration::read(&document).with_context(|| name)
}

fn node(value: &Value) -> Node {
    let at = Span::default();
    match value {
        Value::Null => Node::new(Tree::Null, at),
        Value::Bool(is) => Node::new(Tree::Bool(*is), at),
        Value::Number(number) if number.is_f64() => Node::new(Tree::Float(number.to_string().into()), at),
        Value::Number(number) => Node::new(Tree::Int(number.to_string().into()), at),
        Value::String(text) => Node::text(text.as_str(), at),
        Value::Array(items) => Node::seq(items.iter().map(node).collect(), at),
        Value::Object(fields) => {
            Node::map(fields.iter().map(|(name, value)| (name.as_str(), node(value))).collect::<Vec<_>>(), at)
        }
    }
}

fn text(apis: &Apis, report: &Report, is_compared: bool) -> String {
    let mut out = String::new();
    let now = unix_now();
    let ago = |at: u64| format!("{} ago", span(now.saturating_sub(at)));
    if is_compared || !report.unused.is_empty() {
        section(
            &mut out,
            "UNUSED",
            report.unused.iter().map(|unused| {
                let last = unused.last_seen_at.map_or_else(|| "never seen".to_owned(), ago);
                [unused.operation.clone(), unused.of.clone(), last]
            }),
        );
    }
    if is_compared {
        section(
            &mut out,
            "SHADOW",
            report.shadow.iter().map(|shadow| {
                let callers = if shadow.callers.is_empty() {
                    String::new()
                } else {
                    format!(", called by {}", shadow.callers.join(", "))
                };
                [
                    shadow.operation.clone(),
                    shadow.host.clone(),
                    format!("{} requests{callers}", shadow.requests),
                ]
            }),
        );
        section(
            &mut out,
            "DRIFT",
            report.drift.iter().flat_map(|drift| {
                drift.what.iter().map(|what| [drift.operation.clone(), drift.of.clone(), what.clone()])
            }),
        );
        let _ = writeln!(out, "{} operations are as declared.", report.matching);
        return out;
    }
    section(
        &mut out,
        "SEEN",
        apis.operations.iter().map(|operation: &Operation| {
            let callers: Vec<_> = operation.callers.keys().map(String::as_str).collect();
            let by = if callers.is_empty() { String::new() } else { format!(" by {}", callers.join(", ")) };
            let name = format!("{} {}", operation.method, operation.path);
            [
                name,
                operation.host.clone(),
                format!("{} requests{by}, last {}", operation.requests, ago(operation.last_seen_at)),
            ]
        }),
    );
    if apis.dropped > 0 {
        let _ = writeln!(
            out,
            "{} requests were not looked at: there were too many different ones.",
            apis.dropped
        );
    }
    out
}

fn section(out: &mut String, title: &str, rows: impl Iterator<Item = [String; 3]>) {
    let rows: Vec<_> = rows.collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let _ = writeln!(out, "{title} ({})", rows.len());
    for [a, b, c] in &rows {
        let _ = writeln!(out, "  {a:<first$}  {b:<second$}  {c}");
    }
    out.push('\n');
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
