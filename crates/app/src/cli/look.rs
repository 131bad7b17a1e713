//! `rhumb tap` and `rhumb trace`: single exchanges of running processes.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};

use rhumb_plan::process::DEFAULT_ADMIN;
use serde_json::Value;

use super::documents::{escaped, plain};
use super::{Exit, Output};
use crate::admin::client::{self, NoAnswer};
use crate::print;

/// Whom to ask.
#[derive(clap::Args, Debug)]
struct Where {
    /// Admin listener of a running process; several are asked at the same time
    #[arg(long, value_name = "ADDRESS", env = "RHUMB_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: Vec<SocketAddr>,
    /// File with a token of an editor or an admin. Default: found by itself
    #[arg(long, value_name = "FILE", env = "RHUMB_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// How it is printed
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "text")]
    format: Output,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// Show requests as they end
///
/// FILTER is an expression over request and response (docs/expressions.md), for example
/// `response.status >= 500 && request.path.startsWith('/api')`. What is shown is what the access log would say, redacted in the
/// same way. It ends after a number of requests or a time; while nobody looks it costs nothing.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb tap
  rhumb tap 'response.status >= 500'
  rhumb tap \"route == 'shop/cart' && response.duration > duration('250ms')\" -o json")]
pub(crate) struct TapArgs {
    /// Which requests. Default: all
    #[arg(value_name = "FILTER", default_value = "")]
    filter: String,
    /// How many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// How many in a second
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rate: u64,
    #[command(flatten)]
    at: Where,
}

/// Show one request with every step
///
/// Waits for a request that FILTER wants, an expression over the request, and tells what each policy decided and changed,
/// what was forwarded, each attempt, and what the client got. With several --admin every process that carries the request tells
/// its part; a control plane tells the parts of all of its proxies, in their order. Values of fields that say credential are
/// not shown.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb trace
  rhumb trace \"request.headers['x-request-id'] == 'abc'\"
  rhumb trace \"request.path == '/cart'\" --admin 127.0.0.1:9901 --admin 127.0.0.1:9902")]
pub(crate) struct TraceArgs {
    /// Which request. Default: the next one
    #[arg(value_name = "FILTER", default_value = "")]
    filter: String,
    /// How many, of each process
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    limit: u64,
    #[command(flatten)]
    at: Where,
}

pub(crate) fn tap(args: &TapArgs) -> anyhow::Result<Exit> {
    let path = format!(
        "/api/v1/tap?filter={}&limit={}&rate={}&seconds={}",
        escaped(&args.filter),
        args.limit,
        args.rate,
        args.at.seconds
    );
    args.at.show(&path, tap_line)
}

pub(crate) fn trace(args: &TraceArgs) -> anyhow::Result<Exit> {
    let (limit, seconds) = (args.limit, args.at.seconds);
    let path = format!("/api/v1/trace?filter={}&limit={limit}&seconds={seconds}", escaped(&args.filter));
    args.at.show(&path, trace_text)
}

/// What a process tells.
enum Told {
    Event(SocketAddr, String, Value),
    Over(Result<(), NoAnswer>),
}

impl Where {
    fn show(&self, path: &str, text: fn(&Value) -> String) -> anyhow::Result<Exit> {
        let (tx, rx) = channel();
        for address in self.admin.clone() {
            let (tx, path, file) = (tx.clone(), path.to_owned(), self.admin_token_file.clone());
            std::thread::spawn(move || listen(address, &path, file.as_deref(), &tx));
        }
        drop(tx);
        let mut failed = None;
        let mut shown = 0;
        for told in rx {
            match told {
                Told::Over(Ok(())) => {}
                Told::Over(Err(error)) => failed = Some(error),
                Told::Event(address, event, data) => match event.as_str() {
                    "exchange" | "trace" => {
                        shown += 1;
                        let from = if self.admin.len() > 1 { format!("[{address}] ") } else { String::new() };
                        let from = from + &hop_text(&data);
                        print::out(&match self.format {
                            Output::Text => format!("{from}{}", text(&data)),
                            Output::Json => format!("{data}\n"),
                            Output::Yaml => format!("---\n{}", super::yaml(&data)),
                        })?;
                    }
                    "dropped" => {
                        print::err(&format!("{} more were not shown (--rate)\n", plain(&data["count"])));
                    }
                    "refused" => {
                        print::err(&format!(
                            "{} tells nothing: {}\n",
                            plain(&data["proxy"]),
                            plain(&data["why"])
                        ));
                    }
                    _ => {}
                },
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        if shown == 0 {
            print::err("no such request has come\n");
        }
        Ok(Exit::Ok)
    }
}

fn listen(address: SocketAddr, path: &str, file: Option<&std::path::Path>, tx: &Sender<Told>) {
    let over = client::events(address, path, file, &mut |event, data| {
        let data = serde_json::from_str(data).unwrap_or_default();
        let is_over = event == "end";
        match tx.send(Told::Event(address, event.to_owned(), data)) {
            Ok(()) if !is_over => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    });
    // Without a receiver the verb is ending.
    let _ = tx.send(Told::Over(over));
}

/// Which proxy tells, and which part of the request it has, where a control plane was asked.
fn hop_text(data: &Value) -> String {
    match (data["proxy"].as_str(), data["part"].as_u64()) {
        (Some(proxy), Some(part)) => format!("{part} of {}  {proxy}\n", plain(&data["parts"])),
        (Some(proxy), None) => format!("[{proxy}] "),
        (None, _) => String::new(),
    }
}

/// One exchange on one line.
fn tap_line(exchange: &Value) -> String {
    let text = |name: &str| plain(&exchange[name]);
    let time = exchange["duration_ms"]["total"].as_f64();
    let time = time.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    let failure = exchange["failure_code"].as_str();
    let failure = failure.map_or_else(String::new, |failure| format!("  {failure}"));
    let ts = text("ts");
    let clock = ts.split_once('T').map_or(ts.as_str(), |(_, clock)| clock);
    format!(
        "{clock}  {} {:<6} {}{}  {time}  {} > {} {}{failure}\n",
        text("status"),
        text("method"),
        text("host"),
        text("path"),
        text("client_ip"),
        text("route"),
        text("endpoint"),
    )
}

/// One exchange, step by step.
pub(super) fn trace_text(trace: &Value) -> String {
    let mut out = tap_line(&trace["exchange"]);
    out.push_str(&format!("  request {}, trace {}\n", plain(&trace["requestId"]), plain(&trace["traceId"])));
    for step in trace["steps"].as_array().into_iter().flatten() {
        out.push_str(&step_text(step));
    }
    out
}

fn step_text(step: &Value) -> String {
    let text = |name: &str| plain(&step[name]);
    let at = step["atUs"].as_f64().unwrap_or_default() / 1000.0;
    let what = match step["step"].as_str().unwrap_or_default() {
        "policy" => {
            let shadow = if step["shadow"] == true { " (shadow)" } else { "" };
            let status = match (step["status"].as_u64(), step["code"].as_str()) {
                (Some(status), Some(code)) => format!(" {status} {code}"),
                (Some(status), None) => format!(" {status}"),
                _ => String::new(),
            };
            format!(
                "{} {}{shadow}: {}{status}    {}",
                text("side"),
                text("policy"),
                text("decision"),
                text("origin")
            )
        }
        "routed" if step["route"].is_null() => "no route takes it".to_owned(),
        "routed" => format!("route {} rule {} ({})", text("route"), text("rule"), text("template")),
        "forwarded" => format!("forwarded to {}", text("backend")),
        "response" => format!("attempt {}: answer of {}", text("attempt"), text("endpoint")),
        "failure" => format!("attempt {}: {} failed: {}", text("attempt"), text("endpoint"), text("code")),
        "sent" => "sent to the client".to_owned(),
        other => other.to_owned(),
    };
    let mut out = format!("  {at:>9.2} ms  {what}\n");
    for change in step["changes"].as_array().into_iter().flatten() {
        let name = plain(&change["what"]);
        out.push_str(&match (change["before"].as_str(), change["after"].as_str()) {
            (Some(before), None) => format!("                 - {name}: {before}\n"),
            (None, Some(after)) => format!("                 + {name}: {after}\n"),
            (before, after) => format!(
                "                 ~ {name}: {} > {}\n",
                before.unwrap_or_default(),
                after.unwrap_or_default()
            ),
        });
    }
    for line in step["message"].as_array().into_iter().flatten() {
        out.push_str(&format!("                   {}: {}\n", plain(&line[0]), plain(&line[1])));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_trace_tells_who_decided_what() {
        let text = trace_text(&json!({
            "requestId": "r", "traceId": "t",
            "exchange": { "ts": "2026-01-02T03:04:05Z", "status": 403, "method": "GET", "host": "a", "path": "/x", "duration_ms": { "total": 1.26 } },
            "steps": [
                { "step": "routed", "atUs": 12, "route": "ns/r", "rule": 0, "template": "/x" },
                { "step": "policy", "atUs": 30, "side": "request", "policy": "authorization", "origin": "f.yaml:3", "decision": "respond",
                  "status": 403, "code": "access_denied", "changes": [{ "what": "x-a", "before": null, "after": "b" }] },
            ],
        }));
        for part in
            ["403 GET", "route ns/r rule 0", "request authorization: respond 403 access_denied", "+ x-a: b"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
