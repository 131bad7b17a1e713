//! How the process was started, without what opens something.

use serde_json::{Value, json};

use super::VERSION;
use super::shelf::{MASK, says_credential};

/// Version, machine, command line, and which variables of the environment there are.
pub(super) fn started() -> Value {
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let mut variables: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    variables.sort();
    json!({
        "version": VERSION,
        "system": std::env::consts::OS,
        "machine": std::env::consts::ARCH,
        "isDebugBuild": cfg!(debug_assertions),
        "pid": std::process::id(),
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "commandLine": shown(&arguments),
        "variables": variables,
    })
}

/// A command line without credentials: neither those behind options whose name says so, nor those in URLs. The path of a
/// file that has one is none.
fn shown(arguments: &[String]) -> Vec<String> {
    let mut is_next_hidden = false;
    let one = |argument: &String| {
        let was_hidden = std::mem::take(&mut is_next_hidden);
        if let Some(option) = argument.strip_prefix("--") {
            let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
            let hides = hides(name);
            return match value {
                Some(_) if hides => format!("--{name}={MASK}"),
                Some(value) => format!("--{name}={}", without_user(value)),
                None => {
                    is_next_hidden = hides;
                    argument.clone()
                }
            };
        }
        if was_hidden { MASK.to_owned() } else { without_user(argument) }
    };
    arguments.iter().map(one).collect()
}

fn hides(option: &str) -> bool {
    let is_path = ["file", "directory", "path"].iter().any(|end| option.ends_with(end));
    !is_path && option.split('-').any(says_credential)
}

/// A URL without who asks, and what proves it (RFC 3986 §3.2.1).
fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{MASK}@{host}{path}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_without_credentials() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (given, expected) in [
            ("rhumb run -c a.yaml", "rhumb run -c a.yaml"),
            (
                "rhumb control --database postgres://u:hunter2@db/x",
                "rhumb control --database postgres://(not_shown)@db/x",
            ),
            ("x --token hunter2 y", "x --token (not_shown) y"),
            ("x --join-token=hunter2", "x --join-token=(not_shown)"),
            ("x --admin-token-file /run/t", "x --admin-token-file /run/t"),
            ("x --seal-key hunter2", "x --seal-key (not_shown)"),
        ] {
            let told = shown(&words(given)).join(" ").replace(MASK, "(not_shown)");
            assert_eq!(told, expected);
        }
    }
}
