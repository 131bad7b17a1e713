//! Any bytes as a configuration file: no panic, every mistake can be shown, and what is read prints as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_model::expand::Lookup;
use rhumb_model::value::Node;
use rhumb_model::{Paint, emit, read, render_all, yaml};
use std::sync::Arc;

struct Fixed;

impl Lookup for Fixed {
    fn variable(&mut self, name: &str) -> Option<String> {
        (name.len() < 4).then(|| name.to_lowercase())
    }
    fn file(&mut self, path: &str) -> Result<String, String> {
        if path.len() < 4 { Ok(format!("-----BEGIN {path}-----\n")) } else { Err("no such file".to_owned()) }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for source in yaml::sources(&Arc::from("fuzz.yaml"), text) {
        let read = read(&source, Some(&mut Fixed), &[]);
        let shown = render_all(&read.diags, Paint::Plain);
        assert_eq!(shown.is_empty(), read.diags.is_empty());
        let mut diags = Vec::new();
        let nodes = rhumb_model::adapt(&source, Some(&mut Fixed), &[], &mut diags);
        if !diags.is_empty() || nodes.is_empty() {
            continue;
        }
        let printed = emit::to_yaml(&nodes);
        let mut again = Vec::new();
        for source in yaml::sources(&Arc::from("printed.yaml"), &printed) {
            again.extend(yaml::parse(&source, Some(&mut Fixed), &mut diags));
        }
        assert!(diags.is_empty(), "{}\n{printed}", render_all(&diags, Paint::Plain));
        let json = |nodes: &[Node]| nodes.iter().map(Node::to_json).collect::<Vec<_>>();
        assert_eq!(json(&nodes), json(&again), "{printed}");
    }
});
