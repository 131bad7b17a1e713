//! `rhumb learn`: rules for who may call a service, from who has called it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use rhumb_plan::process::DEFAULT_ADMIN;
use rhumb_signals::apis::{Apis, Operation};
use serde_json::Value;

use super::Exit;
use crate::admin::client;
use crate::print;

/// Propose rules for who may call what, from what was called
///
/// Asks the proxies of services which operations workloads of the mesh have called, and prints a Policy with `authorization` for
/// each Service that allows just these: by caller, method and template of the path. In shadow mode, unless told otherwise: what
/// the rules would refuse is counted and logged, and passes.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb learn > learned.yaml
  rhumb learn --admin 10.0.0.5:9901 --admin 10.0.0.6:9901 --admin-token-file reader.token
  rhumb learn --enforce > learned.yaml && rhumb apply learned.yaml")]
pub(crate) struct Args {
    /// Admin listener of a service's proxy; may be repeated
    #[arg(long, value_name = "ADDRESS", env = "RHUMB_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: Vec<SocketAddr>,
    /// File with the token that opens them. Default: found by itself
    #[arg(long, value_name = "FILE", env = "RHUMB_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Rules that are obeyed, instead of those in shadow mode
    #[arg(long)]
    enforce: bool,
}

/// Most conditions of one rule; more make further rules.
const CONDITIONS: usize = 32;

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut learned = Learned::default();
    for admin in &args.admin {
        let answer = client::get(*admin, "/api/v1/apis", args.admin_token_file.as_deref())?;
        let apis: Apis = serde_json::from_str(&answer).with_context(|| {
            format!("the answer of {admin} is not what it should be: is it another program?")
        })?;
        apis.operations.iter().for_each(|operation| learned.see(operation));
    }
    if learned.0.is_empty() {
        print::err(
            "rhumb: no workload of the mesh was seen to call a service here: ask the proxies of services\n",
        );
        return Ok(Exit::Runtime);
    }
    print::out(&learned.text(!args.enforce))?;
    Ok(Exit::Ok)
}

/// Services (`NAMESPACE/NAME`), who called them, and what.
#[derive(Default)]
struct Learned(BTreeMap<(String, String), Calls>);

#[derive(Default)]
struct Calls {
    /// By namespace and account of the caller, and method: paths and how often.
    by: BTreeMap<(String, String, String), BTreeMap<String, u64>>,
    /// Requests of callers that have no identity.
    unknown: u64,
}

impl Learned {
    fn see(&mut self, operation: &Operation) {
        // A call counts where it was served, and what was refused for the caller's own fault proves no right.
        let is_served = operation.statuses.keys().any(|status| !matches!(status, 401 | 403 | 404 | 405));
        let services: BTreeSet<(&str, &str)> =
            operation.routes.keys().filter_map(|route| service(route)).collect();
        if !is_served {
            return;
        }
        for (namespace, name) in services {
            let calls = self.0.entry((namespace.to_owned(), name.to_owned())).or_default();
            for (caller, requests) in &operation.callers {
                let Some((namespace, account)) = caller.split_once('/') else {
                    calls.unknown += requests;
                    continue;
                };
                let key = (namespace.to_owned(), account.to_owned(), operation.method.clone());
                *calls.by.entry(key).or_default().entry(operation.path.clone()).or_default() += requests;
            }
        }
    }

    fn text(&self, is_shadow: bool) -> String {
        let mut text = String::new();
        for (number, ((namespace, name), calls)) in self.0.iter().enumerate() {
            if number > 0 {
                text.push_str("---\n");
            }
            calls.write(&mut text, namespace, name, is_shadow);
        }
        text
    }
}

impl Calls {
    fn write(&self, text: &mut String, namespace: &str, name: &str, is_shadow: bool) {
        let mut add = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        if self.unknown > 0 {
            add(&format!("# {} requests of callers without an identity are not covered", self.unknown));
        }
        add("apiVersion: rhumb.dev/v1alpha1");
        add("kind: Policy");
        add(&format!(
            "metadata: {{ name: {}, namespace: {} }}",
            quoted(&format!("learned-{name}")),
            quoted(namespace)
        ));
        add("spec:");
        add(&format!("  targetRefs: [{{ kind: Service, name: {} }}]", quoted(name)));
        add("  policies:");
        add("    authorization:");
        if is_shadow {
            add("      shadow: true");
        }
        if self.by.is_empty() {
            add("      rules: [{ name: nobody, action: Deny, when: 'true' }]");
            return;
        }
        add("      rules:");
        for ((caller_namespace, account, method), paths) in &self.by {
            let all: Vec<(&String, &u64)> = paths.iter().collect();
            for (part, paths) in all.chunks(CONDITIONS).enumerate() {
                let requests: u64 = paths.iter().map(|(_, requests)| **requests).sum();
                let conditions: Vec<String> = paths.iter().map(|(path, _)| condition(path)).collect();
                let who = format!(
                    "source.namespace == {} && source.serviceAccount == {} && request.method == {}",
                    quoted(caller_namespace),
                    quoted(account),
                    quoted(method)
                );
                let when = format!("{who} && ({})", conditions.join(" || "));
                let mut rule = format!("{caller_namespace}-{account}-{}", method.to_ascii_lowercase());
                if part > 0 {
                    let _ = write!(rule, "-{}", part + 1);
                }
                add(&format!("        # {requests} requests"));
                add(&format!("        - name: {}", quoted(&rule)));
                add(&format!("          when: {}", quoted(&when)));
            }
        }
    }
}

/// Text as YAML and CEL take it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The Service of an inbound route, `NAMESPACE/inbound/SERVICE:PORT`.
fn service(route: &str) -> Option<(&str, &str)> {
    let (namespace, rest) = route.split_once('/')?;
    let (name, _) = rest.strip_prefix("inbound/")?.rsplit_once(':')?;
    Some((namespace, name))
}

/// The condition that a path is of a template. Templates have no slash at the end, paths may.
fn condition(template: &str) -> String {
    let path = template.trim_end_matches('/');
    if path.is_empty() {
        return "request.path == \"/\"".to_owned();
    }
    let mut pattern = String::from("^");
    for segment in path.split('/').skip(1) {
        pattern.push('/');
        if segment.starts_with('{') && segment.ends_with('}') {
            pattern.push_str("[^/]+");
            continue;
        }
        for c in segment.chars() {
            // In a class of its own a character stands for itself.
            match c {
                '.' | '+' | '*' | '?' | '(' | ')' | '|' | '$' | '{' | '}' => {
                    pattern.push('[');
                    pattern.push(c);
                    pattern.push(']');
                }
                '\\' | '^' | '[' | ']' => pattern.push('.'),
                c => pattern.push(c),
            }
        }
    }
    pattern.push_str("/?$");
    format!("request.path.matches({})", quoted(&pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_a_condition_on_the_path() {
        for (template, expected) in [
            ("/", "request.path == \"/\""),
            ("/store", "request.path.matches(\"^/store/?$\")"),
            ("/v1/users/{id}/a.b", "request.path.matches(\"^/v1/users/[^/]+/a[.]b/?$\")"),
        ] {
            assert_eq!(condition(template), expected);
        }
    }

    #[test]
    fn rules_are_by_caller_and_method_and_say_how_much_they_cover() {
        let operation = |method: &str, path: &str, callers: &[(&str, u64)], status: u16| Operation {
            method: method.to_owned(),
            path: path.to_owned(),
            callers: callers.iter().map(|(caller, count)| ((*caller).to_owned(), *count)).collect(),
            routes: [("shop/inbound/orders:8080".to_owned(), 1)].into(),
            statuses: [(status, rhumb_signals::apis::Answered::default())].into(),
            ..Operation::default()
        };
        let mut learned = Learned::default();
        learned.see(&operation("GET", "/", &[("shop/web", 3), ("unknown", 2)], 200));
        learned.see(&operation("GET", "/orders/{id}", &[("shop/web", 4)], 200));
        learned.see(&operation("GET", "/secret", &[("shop/web", 4)], 403));
        let text = learned.text(true);
        for part in [
            "# 7 requests",
            "# 2 requests of callers without",
            "shadow: true",
            "learned-orders",
            "shop-web-get",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(service("shop/orders"), None);
    }
}
