//! `rhumb apply`, `get`, `delete`, `history`, `diff` and `rollback`: documents of a control plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rhumb_model::{Source, emit, render_all};
use rhumb_plan::process::DEFAULT_ADMIN;
use serde_json::{Value, json};

use super::Exit;
use crate::admin::client::{self, Extra};
use crate::admin::v1::{AUTHOR, NO_NAMESPACE};
use crate::config::paint;
use crate::diff::diff as line_diff;
use crate::print;

/// How long one request waits for proxies.
const WAIT_SLICE: Duration = Duration::from_secs(5);

/// Revisions that are listed.
const LISTED: usize = 20;

/// How a control plane is found.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct At {
    /// Admin listener of the control plane
    #[arg(long, value_name = "ADDRESS", env = "RHUMB_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// File with its token. Default: found by itself
    #[arg(long, value_name = "FILE", env = "RHUMB_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

/// How a change is followed.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Follow {
    /// Return when every proxy that the change concerns runs it, and name those that do not. With a time, wait that long at
    /// most
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "60s", require_equals = true)]
    wait: Option<String>,
    /// Why, for the history
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Only if this revision is in force
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
}

/// Put documents into a control plane
///
/// Documents are checked here and there; all of them come into force as one revision, or none does. With --wait it
/// returns when every proxy that the revision concerns runs it. Ends with 1 when one refuses it or does not answer.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb apply shop.yaml
  rhumb apply --wait shop/
  rhumb apply --wait=30s --roll-back --message 'canary to 20 %' shop.yaml")]
pub(crate) struct ApplyArgs {
    /// Files and directories
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    follow: Follow,
    /// Go back to the revision before when a proxy refuses this one; waits
    #[arg(long)]
    roll_back: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    at: At,
}

/// Show documents of a control plane, or its proxies
///
/// Without a name all of a kind; without a kind all there are. `rhumb get proxies` lists proxies and what they run.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb get
  rhumb get HTTPRoute
  rhumb get Service orders -n shop -o yaml
  rhumb get proxies")]
pub(crate) struct GetArgs {
    /// Kind of documents, or `proxies`
    kind: Option<String>,
    /// Name of a document
    name: Option<String>,
    /// Namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// How it is printed
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "text")]
    format: GetFormat,
    #[command(flatten)]
    at: At,
}

/// How documents are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum GetFormat {
    /// A list.
    Text,
    /// Documents as YAML.
    Yaml,
    /// Documents as JSON.
    Json,
}

/// Take a document out of a control plane
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  rhumb delete HTTPRoute canary -n shop --wait")]
pub(crate) struct DeleteArgs {
    /// Its kind
    kind: String,
    /// Its name
    name: String,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    follow: Follow,
    #[command(flatten)]
    at: At,
}

/// List the revisions of a control plane
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  rhumb history --limit 5")]
pub(crate) struct HistoryArgs {
    /// How many
    #[arg(long, value_name = "NUMBER", default_value_t = LISTED)]
    limit: usize,
    #[command(flatten)]
    at: At,
}

/// Show what differs between two revisions
///
/// Without a second one, between a revision and the latest; without any, what the latest one changed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb diff
  rhumb diff 12
  rhumb diff 12 15")]
pub(crate) struct DiffArgs {
    /// The first revision
    from: Option<u64>,
    /// The second one
    to: Option<u64>,
    #[command(flatten)]
    at: At,
}

/// Go back to an earlier revision
///
/// Makes a new revision that says what the earlier one said.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  rhumb rollback 12 --wait")]
pub(crate) struct RollbackArgs {
    /// The revision to go back to
    to: u64,
    #[command(flatten)]
    follow: Follow,
    #[command(flatten)]
    at: At,
}

pub(crate) fn apply(args: &ApplyArgs) -> anyhow::Result<Exit> {
    let mut documents = Vec::new();
    for path in &args.paths {
        // Mistakes are told here, where files and lines are known.
        let loaded = rhumb_source::Files::new(path).load();
        print::err(&render_all(&loaded.diags, paint(&std::io::stderr())));
        if loaded.diags.iter().any(rhumb_model::Diag::is_error) {
            return Ok(Exit::Invalid);
        }
        documents.extend(rhumb_source::adapt(path).0.iter().map(rhumb_model::value::Node::to_json));
    }
    if args.dry_run {
        let content = json!({ "documents": documents });
        let answer = args.at.change("POST", "/api/v1/documents?dryRun=true", &args.follow, &content)?;
        let Some(answer) = answer else { return Ok(Exit::Invalid) };
        print::out(&differences(&answer["differences"]))?;
        tell_warnings(&answer);
        return Ok(Exit::Ok);
    }
    let patience = args.follow.patience()?;
    let content = json!({ "documents": documents, "message": args.follow.message });
    let Some(answer) = args.at.change("POST", "/api/v1/documents", &args.follow, &content)? else {
        return Ok(Exit::Invalid);
    };
    print::out(&made(&answer))?;
    tell_warnings(&answer);
    let revision = answer["revision"].as_u64().unwrap_or_default();
    if changes(&answer).is_empty() {
        return Ok(Exit::Ok);
    }
    let patience = patience.or_else(|| args.roll_back.then_some(Duration::from_secs(60)));
    let Some(patience) = patience else { return Ok(Exit::Ok) };
    let standing = args.at.wait(revision, patience)?;
    print::out(&standing.text())?;
    if standing.is_refused && args.roll_back {
        let message = format!("back from revision {revision}, which a proxy refused");
        let follow = Follow { if_revision: Some(revision), message: message.clone(), ..args.follow.clone() };
        let content = json!({ "to": revision.saturating_sub(1), "message": message });
        if let Some(answer) = args.at.change("POST", "/api/v1/rollback", &follow, &content)? {
            print::out(&made(&answer))?;
        }
    }
    Ok(if standing.waiting.is_empty() { Exit::Ok } else { Exit::Runtime })
}

pub(crate) fn get(args: &GetArgs) -> anyhow::Result<Exit> {
    if args.kind.as_deref().is_some_and(|kind| ["proxies", "proxy"].contains(&kind)) && args.name.is_none() {
        return proxies(args);
    }
    let query = [("kind", &args.kind), ("namespace", &args.namespace), ("name", &args.name)];
    let query =
        query.iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(value.as_deref()?))));
    let path = format!("/api/v1/documents?{}", query.collect::<Vec<_>>().join("&"));
    let Some(answer) = args.at.ask("GET", &path, &Extra::default())? else { return Ok(Exit::Runtime) };
    let found = answer["documents"].as_array().map_or(&[][..], Vec::as_slice);
    if found.is_empty() && args.name.is_some() {
        bail!("there is no such document");
    }
    let documents = found.iter().map(|found| &found["document"]);
    print::out(&match args.format {
        GetFormat::Json => format!("{:#}\n", json!(documents.collect::<Vec<_>>())),
        GetFormat::Yaml => documents.map(yaml).collect::<Vec<_>>().join("---\n"),
        GetFormat::Text => {
            let row = |found: &Value| {
                let metadata = &found["document"]["metadata"];
                [
                    plain(&found["document"]["kind"]),
                    plain(&metadata["namespace"]),
                    plain(&metadata["name"]),
                    plain(&found["revision"]),
                ]
            };
            print::table(
                ["KIND", "NAMESPACE", "NAME", "REVISION"],
                &found.iter().map(row).collect::<Vec<_>>(),
            )
        }
    })?;
    Ok(Exit::Ok)
}

fn proxies(args: &GetArgs) -> anyhow::Result<Exit> {
    let Some(answer) = args.at.ask("GET", "/api/v1/proxies", &Extra::default())? else {
        return Ok(Exit::Runtime);
    };
    if args.format != GetFormat::Text {
        print::out(&format!("{:#}\n", answer["proxies"]))?;
        return Ok(Exit::Ok);
    }
    let row = |proxy: &Value| {
        let connected = if proxy["connected"] == true { "connected" } else { "gone" };
        let refused = proxy["refused"].as_array().map_or(&[][..], Vec::as_slice);
        let refused = refused
            .iter()
            .map(|refused| format!("{}: {}", plain(&refused["resource"]), plain(&refused["why"])));
        [
            plain(&proxy["proxy"]),
            connected.to_owned(),
            format!("{} s", plain(&proxy["forSeconds"])),
            format!("{} of {}", plain(&proxy["current"]), plain(&proxy["wants"])),
            super::status::told_of(proxy),
            super::status::first_end(proxy),
            proxy["version"].as_str().unwrap_or("-").to_owned(),
            refused.collect::<Vec<_>>().join("; "),
        ]
    };
    let rows: Vec<_> = answer["proxies"].as_array().into_iter().flatten().map(row).collect();
    let titles = ["PROXY", "STATE", "FOR", "CURRENT", "HEALTH", "CERTIFICATE", "VERSION", "REFUSES"];
    print::out(&print::table(titles, &rows))?;
    Ok(Exit::Ok)
}

pub(crate) fn delete(args: &DeleteArgs) -> anyhow::Result<Exit> {
    let namespace = match &*args.kind {
        "GatewayClass" | "Namespace" | "Mesh" => NO_NAMESPACE,
        _ => &args.namespace,
    };
    let path =
        format!("/api/v1/documents/{}/{}/{}", escaped(&args.kind), escaped(namespace), escaped(&args.name));
    finish(&args.at, &args.follow, args.at.change("DELETE", &path, &args.follow, &Value::Null)?)
}

pub(crate) fn rollback(args: &RollbackArgs) -> anyhow::Result<Exit> {
    let content = json!({ "to": args.to, "message": args.follow.message });
    finish(&args.at, &args.follow, args.at.change("POST", "/api/v1/rollback", &args.follow, &content)?)
}

/// Tells what a change made, and waits if that is asked for.
fn finish(at: &At, follow: &Follow, answer: Option<Value>) -> anyhow::Result<Exit> {
    let Some(answer) = answer else { return Ok(Exit::Runtime) };
    print::out(&made(&answer))?;
    let (Some(patience), false) = (follow.patience()?, changes(&answer).is_empty()) else {
        return Ok(Exit::Ok);
    };
    let standing = at.wait(answer["revision"].as_u64().unwrap_or_default(), patience)?;
    print::out(&standing.text())?;
    Ok(if standing.waiting.is_empty() { Exit::Ok } else { Exit::Runtime })
}

pub(crate) fn history(args: &HistoryArgs) -> anyhow::Result<Exit> {
    let path = format!("/api/v1/revisions?limit={}", args.limit);
    let Some(answer) = args.at.ask("GET", &path, &Extra::default())? else { return Ok(Exit::Runtime) };
    let now = crate::health::unix_now();
    let row = |revision: &Value| {
        let changed = changes(revision);
        let what = match &changed[..] {
            [one] => one.clone(),
            many => format!("{} documents", many.len()),
        };
        let ago = now.saturating_sub(revision["atMs"].as_u64().unwrap_or_default() / 1_000);
        [
            plain(&revision["revision"]),
            format!("{} ago", span(ago)),
            plain(&revision["author"]),
            what,
            plain(&revision["message"]),
        ]
    };
    let rows: Vec<_> = answer["revisions"].as_array().into_iter().flatten().map(row).collect();
    print::out(&print::table(["REVISION", "WHEN", "WHO", "WHAT", "WHY"], &rows))?;
    Ok(Exit::Ok)
}

pub(crate) fn diff(args: &DiffArgs) -> anyhow::Result<Exit> {
    let query = [("from", args.from), ("to", args.to)];
    let query = query.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
    let path = format!("/api/v1/diff?{}", query.collect::<Vec<_>>().join("&"));
    let Some(answer) = args.at.ask("GET", &path, &Extra::default())? else { return Ok(Exit::Runtime) };
    print::out(&differences(&answer["differences"]))?;
    Ok(Exit::Ok)
}

/// Who runs a revision.
struct Standing {
    live: u64,
    /// Names with what is said about them.
    waiting: Vec<String>,
    is_refused: bool,
}

impl Standing {
    fn text(&self) -> String {
        let proxies = |count: u64| if count == 1 { "1 proxy".to_owned() } else { format!("{count} proxies") };
        if self.waiting.is_empty() {
            return match self.live {
                0 => "it concerns no proxy\n".to_owned(),
                live => format!("live on {}\n", proxies(live)),
            };
        }
        let mut text = format!("live on {}, not on:\n", proxies(self.live));
        self.waiting.iter().for_each(|waiting| text.push_str(&format!("  {waiting}\n")));
        text
    }
}

impl Follow {
    fn patience(&self) -> anyhow::Result<Option<Duration>> {
        let parse = |text: &String| {
            rhumb_base::unit::parse_duration(text).map_err(|error| anyhow::anyhow!("--wait={text}: {error}"))
        };
        self.wait.as_ref().map(parse).transpose()
    }
}

impl At {
    /// The content of an answer; nothing when it is a refusal, which is told.
    pub(super) fn ask(&self, method: &str, path: &str, extra: &Extra) -> anyhow::Result<Option<Value>> {
        let (status, text) =
            client::request(method, self.admin, path, self.admin_token_file.as_deref(), extra)?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(Some(value));
        }
        if status == 404 && value["code"].is_null() {
            bail!("the rhumb at {} is no control plane: see `rhumb control --help`", self.admin);
        }
        print::err(&format!("rhumb: {}\n", value["detail"].as_str().unwrap_or_else(|| text.trim())));
        for mistake in value["mistakes"].as_array().into_iter().flatten() {
            print::err(&format!("{}\n", plain(mistake)));
        }
        Ok(None)
    }

    fn change(
        &self,
        method: &str,
        path: &str,
        follow: &Follow,
        content: &Value,
    ) -> anyhow::Result<Option<Value>> {
        let mut fields = vec![(AUTHOR, author())];
        if let Some(revision) = follow.if_revision {
            fields.push(("If-Match", format!("\"{revision}\"")));
        }
        let content = (!content.is_null()).then(|| content.to_string());
        self.ask(method, path, &Extra { fields, content })
    }

    /// Waits until every proxy has answered.
    fn wait(&self, revision: u64, patience: Duration) -> anyhow::Result<Standing> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let slice = left.min(WAIT_SLICE).as_millis();
            let path = format!("/api/v1/revisions/{revision}/audience?waitMs={slice}");
            let answer = self.ask("GET", &path, &Extra::default())?.context("nobody knows who runs it")?;
            let waiting = answer["waiting"].as_array().map_or(&[][..], Vec::as_slice);
            let is_pending = waiting.iter().any(|waiting| waiting["state"] == "pending");
            if is_pending && !left.is_zero() {
                continue;
            }
            let told = |waiting: &Value| {
                let why = waiting["why"].as_str().map_or_else(String::new, |why| format!(": {why}"));
                format!("{} ({}){why}", plain(&waiting["proxy"]), plain(&waiting["state"]))
            };
            return Ok(Standing {
                live: answer["live"].as_u64().unwrap_or_default(),
                waiting: waiting.iter().map(told).collect(),
                is_refused: waiting.iter().any(|waiting| waiting["state"] == "refused"),
            });
        }
    }
}

/// What a change made.
fn made(answer: &Value) -> String {
    let changed = changes(answer);
    let revision = plain(&answer["revision"]);
    if changed.is_empty() {
        return format!("nothing has changed: revision {revision} says so already\n");
    }
    let mut text = format!("revision {revision}\n");
    changed.iter().for_each(|change| text.push_str(&format!("  {change}\n")));
    text
}

/// What is wrong with the documents of the control plane as a whole that was not before.
fn tell_warnings(answer: &Value) {
    for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        print::err(&format!("rhumb: warning: {warning}\n"));
    }
}

fn changes(answer: &Value) -> Vec<String> {
    let all = answer["changes"].as_array().into_iter().flatten();
    all.map(|change| format!("{} {}", plain(&change["document"]), plain(&change["action"]))).collect()
}

/// Differences, document by document.
fn differences(all: &Value) -> String {
    let mut text = String::new();
    for difference in all.as_array().into_iter().flatten() {
        let side = |side: &Value| if side.is_null() { String::new() } else { yaml(&veiled(side)) };
        let (before, after) = (side(&difference["before"]), side(&difference["after"]));
        text.push_str(&format!("{}\n", plain(&difference["document"])));
        let lines = line_diff(&before, &after);
        text.push_str(if lines.is_empty() { "  (its secret content)\n" } else { &lines });
    }
    if text.is_empty() { "nothing differs\n".to_owned() } else { text }
}

/// A document without the content of secrets.
fn veiled(document: &Value) -> Value {
    let mut document = document.clone();
    if document["kind"] == "Secret" {
        for field in ["data", "stringData"] {
            for (_, value) in document[field].as_object_mut().into_iter().flatten() {
                *value = json!("(not shown)");
            }
        }
    }
    document
}

fn yaml(document: &Value) -> String {
    let source = Arc::new(Source::new("document", 1, document.to_string()));
    emit::to_yaml(&rhumb_model::adapt(&source, None, &[], &mut Vec::new()))
}

/// Who runs this command, for the history.
fn author() -> String {
    let name = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
    let is_plain = |c: &char| c.is_ascii_graphic();
    let name: String = name.chars().filter(is_plain).collect();
    if name.is_empty() { "somebody".to_owned() } else { name }
}

/// Text as a part of a path or query (RFC 3986 §2.3).
pub(super) fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_in_differences() {
        let secret = |value: &str| json!({ "kind": "Secret", "apiVersion": "v1", "metadata": { "name": "s" }, "data": { "k": value } });
        let text = differences(
            &json!([{ "document": "Secret/default/s", "before": secret("b2xk"), "after": secret("bmV3") }]),
        );
        assert_eq!(text, "Secret/default/s\n  (its secret content)\n");
    }

    #[test]
    fn who_does_not_run_it_is_named() {
        let standing = Standing { live: 1, waiting: vec!["p (refused): no".to_owned()], is_refused: true };
        assert_eq!(standing.text(), "live on 1 proxy, not on:\n  p (refused): no\n");
        let all = Standing { live: 1, waiting: Vec::new(), is_refused: false };
        assert_eq!(all.text(), "live on 1 proxy\n");
    }

    #[test]
    fn names_are_escaped_in_paths() {
        assert_eq!(escaped("a b/ü"), "a%20b%2F%C3%BC");
    }
}
