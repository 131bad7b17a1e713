//! An explanation for people.

use std::fmt::Write;

use rhumb_plan::Retry;
use rhumb_policy::{Chain, Hooks};
use rhumb_route::Verdict;

use super::{Answer, Choice, Ending, Outcome, Sent, Served, described, facts, place};

/// Width of the first column.
const COLUMN: usize = 11;

/// An explanation as text, with a line break at its end.
pub(crate) fn to_text(answer: &Answer<'_>) -> String {
    let mut out = Page(String::new());
    let question = answer.question;
    let scheme = question.scheme.as_str();
    let _ = writeln!(out.0, "{} {scheme}://{}{}\n", question.method, question.authority, question.target);
    let host = answer.explanation.as_ref().map(|explanation| match explanation.listener {
        Some(host) => format!(", listener hostname {host}"),
        None => ", which has no listener for this host".to_owned(),
    });
    out.row(
        "port",
        &format!("{} ({}){}", described(answer.port), answer.port.name, host.unwrap_or_default()),
    );
    if let Some(path) = &answer.normal_path {
        out.row("path", &format!("{path} in normal form: this is matched and forwarded"));
    }
    match &answer.ending {
        Ending::BadPath(why) => out.row("answer", &format!("400: {why}")),
        Ending::NotFound => {
            out.row("route", "none");
            out.row("answer", "404");
        }
        Ending::MethodNotAllowed(allow) => {
            out.row("route", "none accepts this method");
            out.row("answer", &format!("405, allow: {allow}"));
        }
        Ending::Rule(served) => rule(&mut out, answer, served),
    }
    others(&mut out, answer);
    out.0
}

struct Page(String);

impl Page {
    fn row(&mut self, name: &str, text: &str) {
        let _ = writeln!(self.0, "{}", format!("{name:<COLUMN$}{text}").trim_end());
    }
}

fn rule(out: &mut Page, answer: &Answer<'_>, served: &Served<'_>) {
    let chosen = answer.explanation.iter().flat_map(|explanation| &explanation.candidates);
    for candidate in chosen.filter(|candidate| candidate.verdict == Verdict::Chosen) {
        let wants = wants(&facts::request_match(candidate.matched));
        out.row("route", &format!("{}: {wants}", place(candidate)));
    }
    policies(out, "policies", &served.rule.chain);
    match &served.outcome {
        Outcome::Refuses(why) => return out.row("answer", &format!("500: {why}")),
        Outcome::Answered(sent) => {
            message(out, "answer", sent);
            return;
        }
        Outcome::Resets => return out.row("answer", "none: a policy resets the stream or connection"),
        Outcome::Waits => out.row("then", "a policy asks another service: what follows holds when it agrees"),
        Outcome::Forwarded(sent) => message(out, "forwards", sent),
    }
    let timeouts = facts::timeouts(&served.rule.timeouts);
    let shown = [
        ("request", "request"),
        ("backendRequest", "attempt"),
        ("idle", "idle"),
        ("tunnelIdle", "tunnel idle"),
        ("stream", "stream"),
    ]
    .map(|(key, name)| {
        let is_default = timeouts[key]["default"].as_bool() == Some(true);
        let value = timeouts[key]["value"].as_str().unwrap_or("none");
        format!("{name} {value}{}", if is_default { " (default)" } else { "" })
    });
    out.row("timeouts", &shown.join(", "));
    if served.choices.is_empty() {
        out.row("backends", "none: 500");
    }
    for (index, choice) in served.choices.iter().enumerate() {
        backend(out, if index == 0 { "backends" } else { "" }, choice);
    }
    for (index, mirror) in served.rule.mirrors.iter().enumerate() {
        let name = if index == 0 { "mirrors" } else { "" };
        out.row(name, &format!("{}, {} % of requests", mirror.backend.name, mirror.share.as_percent()));
    }
}

fn policies(out: &mut Page, name: &str, chain: &Chain) {
    if chain.is_empty() {
        return out.row(name, "none");
    }
    for (index, item) in chain.items().iter().enumerate() {
        let hooks = item.policy.hooks();
        let sides: Vec<_> = [(Hooks::REQUEST, "request"), (Hooks::RESPONSE, "response")]
            .iter()
            .filter(|(hook, _)| hooks.has(*hook))
            .map(|(_, side)| *side)
            .collect();
        let (kind, sides) = (item.policy.kind(), sides.join(", "));
        let shadow = if item.is_shadow { " (shadow mode: not obeyed)" } else { "" };
        out.row(
            if index == 0 { name } else { "" },
            &format!("{}. {kind:<16} on {sides:<18} from {}{shadow}", index + 1, item.origin),
        );
    }
}

fn message(out: &mut Page, name: &str, sent: &Sent) {
    out.row(name, &sent.first);
    for (field, value) in &sent.fields {
        out.row("", &format!("{field}: {value}"));
    }
}

/// When requests are sent again, in words.
fn retries(retry: &Retry) -> String {
    if retry.attempts == 0 {
        return "no retries".to_owned();
    }
    let codes = retry.statuses().map(|status| status.to_string());
    let grpc = retry.grpc_statuses().map(|status| format!("gRPC {status}"));
    let reasons: Vec<String> = retry.failures().map(str::to_owned).chain(codes).chain(grpc).collect();
    let default = if *retry == Retry::default() { " (default)" } else { "" };
    format!("up to {} retries after {}{default}", retry.attempts, reasons.join(", "))
}

fn backend(out: &mut Page, name: &str, choice: &Choice<'_>) {
    let Choice { weight, share, .. } = choice;
    let Some(backend) = choice.backend else {
        return out.row(name, &format!("(not valid: 500), weight {weight}, {share:.0} % of requests"));
    };
    let set = backend.endpoints.load();
    let details = facts::backend(backend);
    let text = |key: &str| details[key].as_str().unwrap_or_default().to_owned();
    let tls = if backend.target.tls.is_some() { " over TLS" } else { "" };
    out.row(
        name,
        &format!(
            "{}, weight {weight}, {share:.0} % of requests; {}{tls}, {}, connect within {}",
            backend.name,
            text("protocol"),
            text("algorithm"),
            text("connectTimeout"),
        ),
    );
    out.row("", &format!("  {}; of all requests {}", retries(choice.retry), text("retryBudget")));
    if let Some(session) = choice.session {
        out.row("", &format!("  sessions stay at an endpoint by {}", facts::session(session)));
    }
    if !choice.policies.is_empty() {
        policies(out, "  policies", choice.policies);
    }
    if !backend.dns_names.is_empty() {
        out.row("", &format!("  found by name when it runs: {}", backend.dns_names.join(", ")));
    } else if set.members().is_empty() {
        out.row("", "  no endpoints: 503");
    }
    for member in set.members() {
        let endpoint = member.endpoint();
        let mut notes = String::new();
        if let Some(hostname) = endpoint.hostname() {
            let _ = write!(notes, " ({hostname})");
        }
        if member.weight() != 1 {
            let _ = write!(notes, ", weight {}", member.weight());
        }
        if !endpoint.is_eligible() {
            notes.push_str(", not eligible");
        }
        if choice.endpoint.as_deref() == Some(endpoint.label()) {
            notes.push_str(" <- this one");
        }
        out.row("", &format!("  {}{notes}", endpoint.label()));
    }
}

fn others(out: &mut Page, answer: &Answer<'_>) {
    let Some(explanation) = &answer.explanation else { return };
    let mut name = "others";
    for candidate in explanation.candidates.iter().filter(|candidate| candidate.verdict != Verdict::Chosen) {
        let why = match &candidate.verdict {
            Verdict::Chosen => continue,
            Verdict::LostBy(criterion) => format!("matches too, but {criterion}"),
            Verdict::Differs(difference) => {
                let got = difference
                    .got
                    .as_deref()
                    .map_or_else(|| "has none".to_owned(), |got| format!("is {got}"));
                format!("{} {got}, not {}", difference.condition, difference.wanted)
            }
        };
        out.row(name, &format!("{}: {why}", place(candidate)));
        name = "";
    }
    if explanation.omitted > 0 {
        out.row(name, &format!("and {} more", explanation.omitted));
    }
}

/// What a match asks for, from its dump.
fn wants(matched: &serde_json::Value) -> String {
    let mut parts = vec![format!("path {}", matched["path"].as_str().unwrap_or_default())];
    if let Some(method) = matched["method"].as_str() {
        parts.push(format!("method {method}"));
    }
    for (key, name) in [("headers", "header"), ("query", "query parameter")] {
        let conditions = matched[key].as_array().into_iter().flatten().filter_map(|value| value.as_str());
        parts.extend(conditions.map(|condition| format!("{name} {condition}")));
    }
    parts.join(", ")
}
