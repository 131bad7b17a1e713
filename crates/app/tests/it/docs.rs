//! What the documentation shows works.

use super::{rhumb, root};
use rhumb_telemetry::Metric;
use rhumb_testkit::cert::Authority;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// README and every page of `docs/`.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let docs = fs::read_dir(root().join("docs")).expect("docs/");
    pages.extend(
        docs.map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "md")),
    );
    pages.sort();
    pages
}

/// The fenced blocks of a language, each with the line that it begins on.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut open {
            Some(_) if line.trim_start().starts_with("```") => blocks.extend(open.take()),
            Some((_, block)) => writeln!(block, "{line}").expect("text"),
            None if line.trim() == format!("```{language}") => open = Some((number + 2, String::new())),
            None => {}
        }
    }
    blocks
}

/// The certificates that examples name.
fn write_certificates(dir: &Path) {
    let certs = dir.join("certs");
    fs::create_dir(&certs).expect("a directory");
    let authority = Authority::new("docs");
    authority.server(&["example.com", "*.example.com"]).write(&certs, "example.com");
    for account in ["web", "orders", "egress"] {
        let id = format!("spiffe://cluster.local/ns/default/sa/{account}");
        authority.workload(&id).write(&certs, &format!("{account}.svid"));
    }
    fs::write(certs.join("ca.crt"), authority.pem()).expect("a file");
    fs::write(dir.join("orders.token"), "rhumb-join-v1.of-an-example").expect("a file");
}

#[test]
fn every_configuration_in_the_documentation_is_valid() {
    let dir = tempfile::tempdir().expect("a directory");
    write_certificates(dir.path());
    let (mut count, mut wrong) = (0, String::new());
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for (line, block) in blocks(&text, "yaml") {
            count += 1;
            fs::write(dir.path().join("rhumb.yaml"), &block).expect("a file");
            let ran = rhumb(dir.path(), &["check", "-c", "rhumb.yaml"]);
            if ran.code != Some(0) || ran.out.contains("warning") {
                writeln!(wrong, "{}, block at line {line}:\n{}{}", page.display(), ran.out, ran.err)
                    .expect("text");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count >= 10, "{count} blocks: are they still found?");
}

#[test]
fn every_metric_is_in_the_table() {
    let text = fs::read_to_string(root().join("docs/operations.md")).expect("a page");
    for metric in Metric::ALL {
        let family = metric.family();
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!(
            "| `{}` | {} | {} | {} |",
            family.name,
            family.kind.as_str(),
            labels.join(", "),
            family.help
        );
        assert!(text.contains(&row), "docs/operations.md lacks the row\n{row}");
    }
}

#[test]
fn every_verb_is_in_the_command_line_page() {
    let text = fs::read_to_string(root().join("docs/cli.md")).expect("a page");
    let help = rhumb(&root(), &["--help"]).out;
    let verbs =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs: Vec<_> =
        verbs.filter_map(|line| line.split_whitespace().next()).filter(|verb| *verb != "help").collect();
    assert!(verbs.len() >= 10, "{help}");
    for verb in verbs {
        assert!(text.contains(&format!("| `rhumb {verb}")), "docs/cli.md lacks `rhumb {verb}`");
    }
}

#[test]
fn links_of_the_documentation_lead_to_files() {
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            // BENCHMARKS.md is written by `cargo xtask bench`.
            if target.is_empty() || target.contains("://") || target.ends_with("BENCHMARKS.md") {
                continue;
            }
            let path = page.parent().expect("a directory").join(target);
            assert!(path.exists(), "{}: {target} does not exist", page.display());
        }
    }
}
