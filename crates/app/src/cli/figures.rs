//! `rhumb top` and `rhumb edges`: who has the most, and who calls whom.

use serde_json::Value;

use super::Exit;
use super::documents::plain;
use super::status::Running;
use crate::print;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// Routes.
    Route,
    /// Rules of routes.
    Rule,
    /// Backends.
    Backend,
    /// Endpoints.
    Endpoint,
    /// Consumers.
    Consumer,
    /// Callers and what they call.
    Edge,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Sort {
    /// The most requests.
    Requests,
    /// The most failures.
    Errors,
    /// The slowest.
    P99,
    /// The name.
    Name,
}

/// Show who has the most requests, failures or latency
///
/// Rates of the last seconds by route, backend, endpoint, consumer or edge.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb top
  rhumb top consumer --sort errors
  rhumb top backend --watch")]
pub(crate) struct TopArgs {
    /// What is listed
    #[arg(value_enum, default_value = "route")]
    by: By,
    /// What comes first
    #[arg(long, value_enum, default_value = "requests")]
    sort: Sort,
    /// How many
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
    /// Over how long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    window: u64,
    #[command(flatten)]
    running: Running,
}

/// Show who calls whom
///
/// Callers and services with rate, failures, latency, and whether mutual TLS protects them.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb edges
  rhumb edges --watch=5 -o json")]
pub(crate) struct EdgesArgs {
    #[command(flatten)]
    running: Running,
}

pub(crate) fn top(args: &TopArgs) -> anyhow::Result<Exit> {
    let path = format!(
        "/api/v1/top?by={}&sort={}&limit={}&window={}",
        word(args.by),
        word(args.sort),
        args.limit,
        args.window
    );
    args.running.show(&path, top_text)
}

/// The word of a choice.
fn word(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

pub(crate) fn edges(args: &EdgesArgs) -> anyhow::Result<Exit> {
    args.running.show("/api/v1/edges", edges_text)
}

fn top_text(answer: &Value) -> String {
    let row = |item: &Value| {
        let [rate, errors, p50, p95, p99] = golden(item);
        [plain(&item["name"]), rate, errors, p50, p95, p99]
    };
    if answer["by"] == "edge" {
        let row = |item: &Value| {
            let [name, rate, errors, p50, p95, p99] = row(item);
            let [opened, open, _] = connections(item);
            [name, rate, errors, p50, p95, p99, opened, open]
        };
        let rows: Vec<_> = answer["items"].as_array().into_iter().flatten().map(row).collect();
        return table(["EDGE", "REQUESTS", "ERRORS", "P50", "P95", "P99", "CONNECTIONS", "OPEN"], &rows);
    }
    let rows: Vec<_> = answer["items"].as_array().into_iter().flatten().map(row).collect();
    let by = plain(&answer["by"]).to_uppercase();
    let by = if by.is_empty() { "NAME".to_owned() } else { by };
    table([&by, "REQUESTS", "ERRORS", "P50", "P95", "P99"], &rows)
}

fn edges_text(answer: &Value) -> String {
    let row = |edge: &Value| {
        let [rate, errors, p50, p95, p99] = golden(edge);
        let mtls = if edge["mtls"] == true { "mTLS" } else { "-" };
        let [opened, open, failed] = connections(edge);
        [
            plain(&edge["source"]),
            plain(&edge["target"]),
            mtls.to_owned(),
            rate,
            errors,
            p50,
            p95,
            p99,
            opened,
            open,
            failed,
        ]
    };
    let rows: Vec<_> = answer["edges"].as_array().into_iter().flatten().map(row).collect();
    table(
        [
            "SOURCE",
            "TARGET",
            "TLS",
            "REQUESTS",
            "ERRORS",
            "P50",
            "P95",
            "P99",
            "CONNECTIONS",
            "OPEN",
            "FAILED",
        ],
        &rows,
    )
}

/// A table, with a word where it is empty: whoever has just sent a request looks for it.
fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let none = if rows.is_empty() { "nothing lately; figures come every ten seconds\n" } else { "" };
    print::table(head, rows) + none
}

/// Connections that began, that are open, and that failed, for people.
fn connections(of: &Value) -> [String; 3] {
    let all = &of["connections"];
    let number = |name: &str| all[name].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    let opened = all["openedPerSecond"].as_f64();
    let opened = opened.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}/s"));
    [opened, number("open"), number("failed")]
}

/// Rate, share of failures and latencies for people.
fn golden(of: &Value) -> [String; 5] {
    let time = |name: &str| of[name].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    let rate = of["requestsPerSecond"].as_f64().unwrap_or_default();
    let errors = of["errorRatio"].as_f64();
    let errors = errors.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
    [format!("{rate:.1}/s"), errors, time("p50Ms"), time("p95Ms"), time("p99Ms")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_have_their_units() {
        let text = top_text(&json!({ "by": "route", "items": [
            { "name": "ns/a", "requestsPerSecond": 12.52, "errorRatio": 0.014, "p50Ms": 1.25, "p95Ms": 4.0, "p99Ms": null },
        ] }));
        assert_eq!(
            text,
            "ROUTE  REQUESTS  ERRORS  P50     P95     P99\nns/a   12.5/s    1.4 %   1.2 ms  4.0 ms  -\n"
        );
    }

    #[test]
    fn what_is_empty_says_so() {
        let text = top_text(&json!({ "by": "route", "items": [] }));
        assert!(text.ends_with("every ten seconds\n"), "{text}");
    }

    #[test]
    fn an_edge_has_its_connections_beside_its_requests() {
        let text = edges_text(&json!({ "edges": [
            { "source": "shop/web", "target": "shop/db:5432", "mtls": true, "requestsPerSecond": 0.0,
              "connections": { "openedPerSecond": 0.25, "open": 3, "failed": 1 } },
        ] }));
        assert!(text.ends_with("0.0/s     -       -    -    -    0.2/s        3     1\n"), "{text}");
    }
}
