//! What it costs to read many routes, and to read them again when one has changed.
//!
//! `cargo run --release -p rhumb-source --example load_cost -- 10000`

#![allow(clippy::print_stdout)]

use rhumb_source::Files;
use std::fmt::Write;
use std::time::Instant;

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let dir = std::env::temp_dir().join(format!("rhumb-load-cost-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directory");
    let documents = dir.join("documents.yaml");
    let short = dir.join("short.yaml");
    std::fs::write(&documents, documents_text(count, 1)).expect("write");
    std::fs::write(&short, short_text(count)).expect("write");
    for (what, path) in [("documents", &documents), ("short form", &short)] {
        let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let mut files = Files::new(path);
        println!("{what}: {count} routes, {} KiB", bytes >> 10);
        for step in ["first", "again"] {
            let start = Instant::now();
            let loaded = files.load();
            println!(
                "  {step}: {:?} ({} docs, {} mistakes)",
                start.elapsed(),
                loaded.docs.len(),
                loaded.diags.len()
            );
        }
        if path == &documents {
            std::fs::write(path, documents_text(count, 2)).expect("write");
            let start = Instant::now();
            let loaded = files.load();
            println!("  one changed: {:?} ({} docs)", start.elapsed(), loaded.docs.len());
        }
    }
    let _ = std::fs::remove_dir_all(&dir);
}

fn documents_text(count: usize, weight: usize) -> String {
    let mut text = String::new();
    for i in 0..count {
        let weight = if i == count / 2 { weight } else { 1 };
        let _ = write!(
            text,
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: route-{i}\nspec:\n  parentRefs:\n  - name: web\n  hostnames:\n  - host-{}.example.com\n  rules:\n  - matches:\n    - path:\n        type: PathPrefix\n        value: /service-{i}\n    backendRefs:\n    - group: rhumb.dev\n      kind: Backend\n      name: backend\n      weight: {weight}\n",
            i % 100
        );
    }
    text
}

fn short_text(count: usize) -> String {
    let mut text =
        "listeners: { web: { port: 8080 } }\nbackends: { backend: 127.0.0.1:9000 }\nroutes:\n".to_owned();
    for i in 0..count {
        let _ = writeln!(
            text,
            "  - match: {{ host: host-{}.example.com, path: /service-{i}/* }}\n    to: backend",
            i % 100
        );
    }
    text
}
