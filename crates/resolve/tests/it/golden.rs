//! Golden directories: `NAME/in.yaml` and the plan that it means (`plan.json`), and what is wrong with it
//! (`diagnostics.txt`) if something is.
//!
//! `UPDATE=1 cargo test -p rhumb-resolve` writes the expectations anew; the review reads the difference.

use std::fs;
use std::path::{Path, PathBuf};

use rhumb_model::{Paint, render_all};
use rhumb_plan::{PortSettings, dump};
use serde_json::{Value, json};

use crate::read::resolved;

#[test]
fn every_case_means_what_it_meant() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let text = fs::read_to_string(case.join("in.yaml")).expect("in.yaml");
        let resolved = resolved(&text, None);
        let mut plan = dump(&resolved.plan);
        tidy(&mut plan);
        let plan = serde_json::to_string_pretty(&plan).expect("JSON") + "\n";
        let told = render_all(&resolved.diagnostics, Paint::Plain);
        for (name, got) in [("plan.json", plan), ("diagnostics.txt", told)] {
            let path = case.join(name);
            let expected = fs::read_to_string(&path).unwrap_or_default();
            if got == expected {
                continue;
            }
            if !update {
                wrong.push(format!("{}\n--- expected\n{expected}--- got\n{got}", path.display()));
            } else if got.is_empty() {
                let _ = fs::remove_file(&path);
            } else {
                fs::write(&path, got).expect("expectation is written");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(root).expect("golden directory");
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    cases.sort();
    cases
}

/// Leaves out what every case has in common, and the validity of certificates, which are made anew in each run.
fn tidy(plan: &mut Value) {
    let plain = rhumb_plan::Plan {
        ports: vec![std::sync::Arc::new(rhumb_plan::Port {
            address: ([127, 0, 0, 1], 1).into(),
            name: "".into(),
            listeners: Box::default(),
            tls: None,
            table: rhumb_route::Builder::new().build(),
            priority: None,
            settings: PortSettings::default(),
            l4: None,
            role: None,
        })],
        ..rhumb_plan::Plan::default()
    };
    let usual = dump(&plain).pointer("/ports/0/settings").cloned();
    for port in plan["ports"].as_array_mut().into_iter().flatten() {
        if port.get("settings") == usual.as_ref() {
            port.as_object_mut().and_then(|port| port.remove("settings"));
        }
        for listener in port["listeners"].as_array_mut().into_iter().flatten() {
            for certificate in
                listener.get_mut("certificates").and_then(Value::as_array_mut).into_iter().flatten()
            {
                *certificate = json!({ "origin": certificate["origin"], "names": certificate["names"] });
            }
        }
    }
}
