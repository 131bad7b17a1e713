//! Golden directories: `NAME/in.yaml` and what is said about it (`diagnostics.txt`) or what it means (`docs.yaml`).
//!
//! `UPDATE=1 cargo test -p rhumb-model` writes the expectations anew; the review reads the difference.

use rhumb_model::expand::Lookup;
use rhumb_model::{Paint, Read, emit, read, render_all, yaml};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Variables and files that the cases may refer to.
struct Fixed;

impl Lookup for Fixed {
    fn variable(&mut self, name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8081".into()),
            "HOST" => Some("api.example.com".into()),
            "TOKEN" => Some("s3cret-token".into()),
            _ => None,
        }
    }

    fn file(&mut self, path: &str) -> Result<String, String> {
        match path {
            "certs/web.crt" => Ok("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()),
            "certs/web.key" => Ok("-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n".into()),
            "certs/ca.crt" => Ok("-----BEGIN CERTIFICATE-----\nCACA\n-----END CERTIFICATE-----\n".into()),
            _ => Err("no such file or directory".into()),
        }
    }
}

fn all(name: &str, text: &str) -> (Read, Vec<rhumb_model::value::Node>) {
    let mut whole = Read::default();
    let mut nodes = Vec::new();
    for source in yaml::sources(&Arc::from(name), text) {
        let one = read(&source, Some(&mut Fixed), &[]);
        whole.docs.extend(one.docs);
        whole.diags.extend(one.diags);
        nodes.extend(rhumb_model::adapt(&source, Some(&mut Fixed), &[], &mut Vec::new()));
    }
    (whole, nodes)
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> =
        fs::read_dir(root).expect("golden directory").map(|entry| entry.expect("entry").path()).collect();
    cases.sort();
    cases
}

#[test]
fn every_case_says_what_it_said() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let text = fs::read_to_string(case.join("in.yaml")).expect("in.yaml");
        let (whole, nodes) = all("in.yaml", &text);
        let (file, other, said) = if whole.diags.is_empty() {
            ("docs.yaml", "diagnostics.txt", emit::to_yaml(&nodes))
        } else {
            ("diagnostics.txt", "docs.yaml", render_all(&whole.diags, Paint::Plain))
        };
        assert!(!said.contains("s3cret"), "{} shows a secret:\n{said}", case.display());
        if update {
            fs::write(case.join(file), &said).expect("write");
            let _ = fs::remove_file(case.join(other));
        } else if fs::read_to_string(case.join(file)).ok().as_deref() != Some(&said) {
            wrong.push(format!("{}:\n{said}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "UPDATE=1 rewrites; differs:\n{}", wrong.join("\n"));
}

#[test]
fn what_adapt_prints_means_the_same_when_it_is_read_again() {
    for case in cases() {
        let text = fs::read_to_string(case.join("in.yaml")).expect("in.yaml");
        let (whole, nodes) = all("in.yaml", &text);
        if !whole.diags.is_empty() {
            continue;
        }
        let printed = emit::to_yaml(&nodes);
        let (again, nodes_again) = all("again.yaml", &printed);
        assert!(again.diags.is_empty(), "{}:\n{}", case.display(), render_all(&again.diags, Paint::Plain));
        let json = |nodes: &[rhumb_model::value::Node]| nodes.iter().map(|n| n.to_json()).collect::<Vec<_>>();
        assert_eq!(json(&nodes), json(&nodes_again), "{}", case.display());
        assert_eq!(whole.docs.len(), again.docs.len());
        assert_eq!(emit::to_yaml(&nodes_again), printed, "{}", case.display());
    }
}

#[test]
fn every_mistake_has_a_place_and_a_way_out() {
    let mut bare = Vec::new();
    for case in cases() {
        let text = fs::read_to_string(case.join("in.yaml")).expect("in.yaml");
        for diag in all("in.yaml", &text).0.diags {
            assert!(diag.at.span.end > 0, "{diag}");
            if diag.why.is_none() && diag.fix.is_none() && diag.related.is_empty() {
                bare.push(format!("{}: {diag}", case.display()));
            }
            assert!(!diag.what.ends_with('.') && !diag.what.contains("  "), "{diag}");
        }
    }
    assert!(bare.is_empty(), "without why or fix:\n{}", bare.join("\n"));
}
