//! `rhumb status` and `rhumb endpoints`: what a running process says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rhumb_plan::process::DEFAULT_ADMIN;
use serde_json::Value;

use super::{Exit, Output};
use crate::admin::client;
use crate::print;

/// Backends that the state lists.
const SHOWN_BACKENDS: usize = 20;

/// Proxies that the state lists, those with something wrong first.
const SHOWN_PROXIES: usize = 20;

/// How a running process is found.
#[derive(clap::Args, Debug)]
pub(crate) struct Running {
    /// Admin listener of the running process
    #[arg(long, value_name = "ADDRESS", env = "RHUMB_ADMIN", default_value = DEFAULT_ADMIN)]
    pub(super) admin: SocketAddr,
    /// File with its token. Default: found by itself
    #[arg(long, value_name = "FILE", env = "RHUMB_ADMIN_TOKEN_FILE")]
    pub(super) admin_token_file: Option<PathBuf>,
    /// How it is printed
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "text")]
    pub(super) format: Output,
    /// Print it again and again, every second or as often as is said
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", require_equals = true,
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    watch: Option<u64>,
}

/// Show the state of a running process
///
/// Version, revision, listeners, how the last change of the configuration went, proxies of a control plane, when
/// certificates end, and what is wrong: each with a code, what to do, and the page of the documentation. Ends with 1 when nothing
/// runs; with --check also when something does not work.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb status
  rhumb status --admin 127.0.0.1:9902 --format json")]
pub(crate) struct StatusArgs {
    /// Only what is wrong; ends with 1 when something does not work
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    running: Running,
}

/// Show the endpoints of a running process
///
/// State, requests under way and latency of each endpoint, by backend.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  rhumb endpoints")]
pub(crate) struct EndpointsArgs {
    #[command(flatten)]
    running: Running,
}

pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<Exit> {
    if args.check {
        let critical = std::cell::Cell::new(false);
        args.running.show_all(&["/api/v1/health"], |values| {
            let health = values.first().unwrap_or(&Value::Null);
            critical.set(health["level"] == "critical");
            health_text(health)
        })?;
        // Other formats do not come by there.
        let is_critical = critical.get()
            || args.running.format != Output::Text && {
                let file = args.running.admin_token_file.as_deref();
                client::get(args.running.admin, "/api/v1/health", file)?.contains("\"level\":\"critical\"")
            };
        return Ok(if is_critical { Exit::Runtime } else { Exit::Ok });
    }
    let pages = ["/status", "/api/v1/health", "/api/v1/certificates", "/api/v1/overview"];
    args.running.show_all(&pages, |values| {
        let [status, health, certificates, overview, ..] = values else { return String::new() };
        let proxies = if overview["counts"]["proxies"].is_null() {
            String::new()
        } else {
            args.running.ask("/api/v1/proxies").map(|proxies| proxies_text(&proxies)).unwrap_or_default()
        };
        let status = status_text(status);
        format!("{status}{}{proxies}{}", certificates_text(certificates), health_text(health))
    })
}

pub(crate) fn endpoints(args: &EndpointsArgs) -> anyhow::Result<Exit> {
    args.running.show("/endpoints", endpoints_text)
}

impl Running {
    pub(super) fn show(&self, path: &str, text: fn(&Value) -> String) -> anyhow::Result<Exit> {
        self.show_all(&[path], |values| text(values.first().unwrap_or(&Value::Null)))
    }

    /// What a page says.
    fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let answer = client::get(self.admin, path, self.admin_token_file.as_deref())?;
        serde_json::from_str(&answer).context("the answer is not JSON: is it another program?")
    }

    /// Shows what several pages say; other formats than text have the first one.
    fn show_all(&self, paths: &[&str], text: impl Fn(&[Value]) -> String) -> anyhow::Result<Exit> {
        loop {
            let mut values = Vec::new();
            for path in paths {
                values.push(self.ask(path)?);
            }
            let first: &Value = values.first().unwrap_or(&Value::Null);
            let shown = match self.format {
                Output::Text => text(&values),
                Output::Json => format!("{first:#}\n"),
                Output::Yaml => super::yaml(first),
            };
            let Some(seconds) = self.watch else {
                print::out(&shown)?;
                return Ok(Exit::Ok);
            };
            let is_seen = std::io::IsTerminal::is_terminal(&std::io::stdout());
            // To the first column of the first line, and nothing below (ECMA-48 §8.3.21, §8.3.39).
            print::out(&if is_seen && self.format == Output::Text {
                format!("\x1b[H\x1b[2J{shown}")
            } else {
                shown
            })?;
            std::thread::sleep(Duration::from_secs(seconds));
        }
    }
}

fn status_text(status: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| out.push_str(&format!("{name:<12}{value}\n"));
    let ago = |at: &Value| {
        at.as_u64().map(|at| format!("{} ago", span(crate::health::unix_now().saturating_sub(at))))
    };
    line("rhumb", format!("{} (pid {})", plain(&status["version"]), plain(&status["pid"])));
    line(
        "state",
        format!("{}, up {}", plain(&status["state"]), span(status["uptimeSeconds"].as_u64().unwrap_or(0))),
    );
    for missing in status["missing"].as_array().into_iter().flatten() {
        line("waits for", plain(missing));
    }
    let live = ago(&status["liveSince"]).map_or_else(String::new, |ago| format!(", live since {ago}"));
    line("revision", format!("{}{live}", plain(&status["revision"])));
    line("config", plain(&status["config"]));
    line(
        "workers",
        format!("{}, {} open connections", plain(&status["workers"]), plain(&status["connections"])),
    );
    let overload = &status["overload"];
    if overload["state"].is_string() {
        let why = overload["cause"].as_str().map_or_else(String::new, |cause| {
            let share = overload["refusedPercent"].as_u64().unwrap_or(0);
            format!(" because of {cause}, {share} % of requests refused")
        });
        let mib = |field: &str| overload[field].as_u64().unwrap_or(0) >> 20;
        let rest = format!(
            ", queue delay {} ms, {} MiB resident, {} MiB in buffers",
            plain(&overload["queueDelayMs"]),
            mib("residentBytes"),
            mib("bufferBytes")
        );
        line("overload", format!("{}{why}{rest}", plain(&overload["state"])));
    }
    for (index, listener) in status["listeners"].as_array().into_iter().flatten().enumerate() {
        let tls = if listener["tls"].as_bool() == Some(true) { "TLS" } else { "plain text" };
        let name = if index == 0 { "listeners" } else { "" };
        line(
            name,
            format!(
                "{} {} ({tls}, {} rules)",
                plain(&listener["address"]),
                plain(&listener["name"]),
                plain(&listener["rules"])
            ),
        );
    }
    let backends = status["backends"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, backend) in backends.iter().take(SHOWN_BACKENDS).enumerate() {
        let name = if index == 0 { "backends" } else { "" };
        let (eligible, all) = (plain(&backend["eligible"]), plain(&backend["endpoints"]));
        line(name, format!("{} ({eligible} of {all} endpoints)", plain(&backend["name"])));
    }
    if backends.len() > SHOWN_BACKENDS {
        line("", format!("and {} more: see rhumb endpoints", backends.len() - SHOWN_BACKENDS));
    }
    let attempt = &status["lastAttempt"];
    if let Some(why) = attempt["refused"].as_str() {
        line("refused", format!("{}: {why}", ago(&attempt["at"]).unwrap_or_default()));
    }
    for diagnostic in attempt["diagnostics"].as_array().into_iter().flatten() {
        line("", plain(diagnostic));
    }
    out
}

/// What is wrong, and how to mend it.
fn health_text(health: &Value) -> String {
    let mut out = String::new();
    let checks = health["checks"].as_array().map_or(&[][..], Vec::as_slice);
    if checks.is_empty() {
        return format!("{:<12}ok, nothing is wrong\n", "health");
    }
    for check in checks {
        let about = &check["about"];
        out.push_str(&format!(
            "{} {}: {} {}: {}\n    {}\n    to mend it: {}\n    see docs/{}\n",
            if check["level"] == "critical" { "×" } else { "!" },
            plain(&check["code"]),
            plain(&about["kind"]),
            plain(&about["name"]),
            plain(&check["title"]),
            plain(&check["detail"]),
            plain(&check["fix"]),
            plain(&check["docs"]),
        ));
    }
    out
}

/// Proxies of a control plane: what each runs, how it is, and when its certificate ends.
fn proxies_text(answer: &Value) -> String {
    let proxies = answer["proxies"].as_array().map_or(&[][..], Vec::as_slice);
    let is_fine = |proxy: &&Value| {
        proxy["connected"] == true && proxy["current"] == proxy["wants"] && proxy["level"] == "ok"
    };
    let mut out = format!(
        "{:<12}{} known, {} as they should be\n",
        "proxies",
        proxies.len(),
        proxies.iter().filter(is_fine).count()
    );
    let mut shown: Vec<&Value> = proxies.iter().collect();
    shown.sort_by_key(|proxy| is_fine(proxy));
    for proxy in shown.into_iter().take(SHOWN_PROXIES) {
        let state = if proxy["connected"] == true { told_of(proxy) } else { "gone".to_owned() };
        out.push_str(&format!(
            "{:<12}{} runs {} of {}, {state}, certificate {}, {}\n",
            "",
            plain(&proxy["proxy"]),
            plain(&proxy["current"]),
            plain(&proxy["wants"]),
            first_end(proxy),
            plain(&proxy["version"]),
        ));
    }
    if proxies.len() > SHOWN_PROXIES {
        out.push_str(&format!(
            "{:<12}and {} more: see rhumb get proxies\n",
            "",
            proxies.len() - SHOWN_PROXIES
        ));
    }
    out
}

/// How a proxy says that it is.
pub(super) fn told_of(proxy: &Value) -> String {
    let checks = proxy["checks"].as_array().map_or(&[][..], Vec::as_slice);
    match (proxy["level"].as_str(), checks) {
        (None, _) => "-".to_owned(),
        (Some(level), []) => level.to_owned(),
        (Some(level), [one]) => format!("{level} ({})", plain(&one["code"])),
        (Some(level), [one, rest @ ..]) => {
            format!("{level} ({} and {} more)", plain(&one["code"]), rest.len())
        }
    }
}

/// When the first of a proxy's certificates ends.
pub(super) fn first_end(proxy: &Value) -> String {
    match proxy["certificates"][0]["secondsLeft"].as_i64() {
        None => "-".to_owned(),
        Some(left) => {
            u64::try_from(left).map_or_else(|_| "ended".to_owned(), |left| format!("ends in {}", span(left)))
        }
    }
}

/// When certificates end.
fn certificates_text(certificates: &Value) -> String {
    let mut out = String::new();
    for (index, certificate) in certificates["items"].as_array().into_iter().flatten().enumerate() {
        let name = if index == 0 { "certificates" } else { "" };
        let left = certificate["secondsLeft"].as_i64().unwrap_or_default();
        let ends = match u64::try_from(left) {
            Ok(left) => format!("ends in {}", span(left)),
            Err(_) => "has ended".to_owned(),
        };
        out.push_str(&format!("{name:<12} {} {ends}\n", plain(&certificate["name"])));
    }
    out
}

fn endpoints_text(answer: &Value) -> String {
    let mut rows = Vec::new();
    for backend in answer["backends"].as_array().into_iter().flatten() {
        let name = plain(&backend["backend"]);
        let endpoints = backend["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
        if endpoints.is_empty() {
            let mut row: [String; 9] = Default::default();
            (row[0], row[1]) = (name.clone(), "(none)".to_owned());
            rows.push(row);
        }
        for endpoint in endpoints {
            let latency =
                endpoint["latencyMs"].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
            rows.push([
                name.clone(),
                plain(&endpoint["address"]),
                state_text(endpoint),
                endpoint["sinceSeconds"].as_f64().map_or_else(|| "-".to_owned(), |s| span(s as u64)),
                plain(&endpoint["inFlight"]),
                latency,
                plain(&endpoint["started"]),
                plain(&endpoint["failed"]),
                reason_text(endpoint),
            ]);
        }
    }
    let title =
        ["BACKEND", "ENDPOINT", "STATE", "SINCE", "IN FLIGHT", "LATENCY", "REQUESTS", "FAILED", "WHY"];
    let mut out = print::table(title, &rows);
    for backend in answer["backends"].as_array().into_iter().flatten() {
        for name in
            backend["names"].as_array().into_iter().flatten().filter(|name| name["trouble"].is_string())
        {
            let next = name["nextInSeconds"]
                .as_u64()
                .map_or_else(String::new, |next| format!(", next attempt in {}", span(next)));
            let (query, trouble) = (plain(&name["query"]), plain(&name["trouble"]));
            out.push_str(&format!("{}: {query}: {trouble}{next}\n", plain(&backend["backend"])));
        }
    }
    out
}

/// The state, with the share of an endpoint that has not all of its own.
fn state_text(endpoint: &Value) -> String {
    let share = endpoint["share"].as_f64().unwrap_or(1.0);
    let state = plain(&endpoint["state"]);
    if share > 0.0 && share < 1.0 { format!("{state} {:.0} %", share * 100.0) } else { state }
}

/// Why it is not in full use, and what comes next.
fn reason_text(endpoint: &Value) -> String {
    match (endpoint["why"].as_str(), endpoint["next"].as_str()) {
        (Some(why), Some(next)) => format!("{why}; {next}"),
        (Some(text), None) | (None, Some(text)) => text.to_owned(),
        (None, None) => String::new(),
    }
}

/// A value without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// A time span for people: its two largest units.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refused_reload_is_told_with_its_mistakes() {
        let text = status_text(&json!({
            "version": "1.2.3", "pid": 7, "state": "ready", "uptimeSeconds": 3_700, "revision": 4, "workers": 2,
            "config": "rhumb.yaml",
            "listeners": [{ "name": "ns/g/web", "address": "0.0.0.0:8080", "tls": false, "rules": 3 }],
            "liveSince": 1,
            "lastAttempt": { "at": 2, "refused": "the configuration has an error", "diagnostics": ["rhumb.yaml:1:1: error[x]: y"] },
        }));
        for part in [
            "1.2.3 (pid 7)",
            "ready, up 1h 1m",
            "0.0.0.0:8080 ns/g/web (plain text, 3 rules)",
            "the configuration has an error",
            "rhumb.yaml:1:1",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_backend_without_endpoints_is_shown() {
        let text = endpoints_text(&json!({ "backends": [
            { "backend": "ns/a", "endpoints": [{ "address": "1.2.3.4:5", "state": "ramping", "share": 0.254, "sinceSeconds": 3.2,
                "why": "5 failed requests in a row", "next": "full share in 6.8 s",
                "inFlight": 1, "latencyMs": 2.25, "started": 9, "failed": 5 }] },
            { "backend": "ns/b", "endpoints": [], "names": [{ "query": "x:80", "trouble": "gone", "nextInSeconds": 2 }] },
        ]}));
        for part in [
            "ns/a     1.2.3.4:5  ramping 25 %  3s     1          2.2 ms   9         5       5 failed requests in a row; full share in 6.8 s",
            "ns/b     (none)",
            "ns/b: x:80: gone, next attempt in 2s",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
