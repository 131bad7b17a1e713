//! What holds for every text and every tree.

use proptest::prelude::*;
use rhumb_model::expand::Lookup;
use rhumb_model::value::{Node, Value};
use rhumb_model::{Diag, Rule, Source, Span, emit, read, render_all, yaml};
use std::fmt::Write;
use std::sync::Arc;

struct Nothing;

impl Lookup for Nothing {
    fn variable(&mut self, _: &str) -> Option<String> {
        None
    }
    fn file(&mut self, _: &str) -> Result<String, String> {
        Err("no such file".to_owned())
    }
}

fn parse(text: &str) -> (Vec<Node>, Vec<Diag>) {
    let mut diags = Vec::new();
    let sources = yaml::sources(&Arc::from("f.yaml"), text);
    let nodes =
        sources.iter().flat_map(|source| yaml::parse(source, Some(&mut Nothing), &mut diags)).collect();
    (nodes, diags)
}

fn rules(text: &str) -> Vec<Rule> {
    parse(text).1.iter().map(|diag| diag.rule).collect()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9 :#\\-_./${}\\[\\],&*!|>'\"%@`~?=\\n\\t]{0,24}",
        "\\PC{0,12}",
        "(file:|\\$\\{|\\$\\$\\{|yes|no|null|true|0x1f|1e3|\\.5|-|~|---|\\? |- |10:20|2026-01-01)[a-z}\\n]{0,3}",
    ]
}

fn tree() -> impl Strategy<Value = Node> {
    let at = Span::default();
    let leaf = prop_oneof![
        Just(Node::new(Value::Null, at)),
        any::<bool>().prop_map(move |value| Node::new(Value::Bool(value), at)),
        any::<i64>().prop_map(move |value| Node::int(value, at)),
        text().prop_map(move |value| Node::text(value, at)),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(move |items| Node::seq(items, at)),
            prop::collection::btree_map(text(), inner, 0..6).prop_map(move |entries| Node::map(entries, at)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn a_printed_tree_reads_back_as_itself(tree in tree()) {
        let printed = emit::to_yaml(std::slice::from_ref(&tree));
        let (nodes, diags) = parse(&printed);
        prop_assert!(diags.is_empty(), "{}\n{printed}", render_all(&diags, rhumb_model::Paint::Plain));
        // A null alone says nothing: it is no document.
        let nodes: Vec<_> = nodes.iter().map(Node::to_json).collect();
        prop_assert_eq!(nodes, vec![tree.to_json()], "{}", printed);
    }

    #[test]
    fn any_text_is_read_without_panic_and_every_mistake_can_be_shown(
        lines in prop::collection::vec("[ ]{0,6}(- )?(kind|apiVersion|spec|routes|to|match|x|policies|listeners|data|metadata)?:? ?[a-zA-Z0-9:#./${}\\[\\],&*!|>'\"%\u{e9}\u{1F600}\\t-]{0,12}", 0..24)
    ) {
        let text = lines.join("\n");
        for source in yaml::sources(&Arc::from("f.yaml"), &text) {
            let read = read(&source, Some(&mut Nothing), &[]);
            let shown = render_all(&read.diags, rhumb_model::Paint::Coloured);
            prop_assert_eq!(shown.is_empty(), read.diags.is_empty());
            for doc in &read.docs {
                prop_assert!(doc.span.end as usize <= source.text().len());
            }
        }
    }
}

#[test]
fn nesting_is_bounded() {
    let flow = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(rules(&flow(yaml::MAX_DEPTH)), []);
    assert_eq!(rules(&flow(yaml::MAX_DEPTH + 1)), [Rule::TooLarge]);
    assert_eq!(rules(&flow(100_000)), [Rule::TooLarge]);
    let mut block = String::new();
    for depth in 0..200 {
        let _ = writeln!(block, "{}a:", " ".repeat(depth));
    }
    assert_eq!(rules(&block), [Rule::TooLarge]);
}

#[test]
fn aliases_cannot_repeat_without_bound() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let previous = format!("*a{}", level - 1);
        let _ = writeln!(bomb, "a{level}: &a{level} [{}]", vec![previous; 10].join(", "));
    }
    assert_eq!(rules(&bomb), [Rule::TooLarge]);
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 16), vec!["*a"; 10_000].join(", "));
    assert_eq!(rules(&long), [Rule::TooLarge]);
    assert_eq!(rules("a: &a [*a]\n"), [Rule::Syntax]);
}

#[test]
fn a_document_ends_at_its_marker_even_inside_quotes() {
    let (nodes, diags) = parse("a: \"open\n---\nb: 1\n");
    assert_eq!(diags.len(), 1);
    assert_eq!(nodes.iter().map(Node::to_json).collect::<Vec<_>>(), [serde_json::json!({ "b": 1 })]);
    let (nodes, diags) = parse("%YAML 1.2\n---\na: |\n  ---\n  x\n--- # second\nb: 1\n...\n---\n");
    assert!(diags.is_empty(), "{diags:?}");
    assert_eq!(
        nodes.iter().map(Node::to_json).collect::<Vec<_>>(),
        [serde_json::json!({ "a": "---\nx\n" }), serde_json::json!({ "b": 1 })]
    );
}

#[test]
fn scalars_follow_the_core_schema_of_yaml_1_2() {
    let (nodes, _) = parse(
        "[yes, on, No, 0o17, 0x1F, 017, 1.5, .5, 1e3, ~, null, Null, TRUE, '8', !!str 8, !!int '8', +7, 1_000, 10:20]",
    );
    let json: Vec<_> = nodes.iter().map(Node::to_json).collect();
    assert_eq!(
        json,
        [serde_json::json!([
            "yes", "on", "No", 15, 31, 17, 1.5, 0.5, 1000.0, null, null, null, true, "8", "8", 8, 7, "1_000",
            "10:20"
        ])]
    );
}

#[test]
fn paths_lead_to_nodes_and_nodes_to_paths() {
    let text = "spec:\n  rules:\n  - name: a\n    a.b: {c: [1, 2]}\n";
    let source = Source::new("f.yaml", 0, text);
    let (nodes, _) = parse(text);
    let two = nodes[0].find("spec.rules[0].name");
    assert_eq!(source.path_at(two.span), "spec.rules[0].name");
    assert_eq!(
        source.slice(nodes[0].find("spec.rules[0].nothing.else").span).lines().next(),
        Some("name: a")
    );
    let at = text.find('2').map_or(0, |at| u32::try_from(at).unwrap_or(0));
    assert_eq!(source.path_at(Span::new(at, at + 1)), "spec.rules[0].\"a.b\".c[1]");
}

#[test]
fn mistakes_of_one_document_are_bounded() {
    let many = format!("apiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {{name: a}}\nspec:\n{}", {
        let mut lines = String::new();
        for i in 0..10_000 {
            let _ = writeln!(lines, "  field{i}: 1");
        }
        lines
    });
    let sources = yaml::sources(&Arc::from("f.yaml"), &many);
    let read = read(&sources[0], None, &[]);
    assert_eq!(read.diags.len(), yaml::MAX_DIAGS + 1);
}

#[test]
fn every_reference_of_the_schema_leads_somewhere() {
    fn walk(value: &serde_json::Value, seen: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                if let Some(reference) = map.get("$ref").and_then(|value| value.as_str()) {
                    seen.push(reference.to_owned());
                }
                map.values().for_each(|value| walk(value, seen));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|value| walk(value, seen)),
            _ => {}
        }
    }
    let cors = serde_json::json!({ "type": "object", "title": "cors" });
    for schema in [
        rhumb_model::schema::file_schema(&[("cors", cors.clone())]),
        rhumb_model::schema::short_form_schema(&[("cors", cors)]),
    ] {
        let mut references = Vec::new();
        walk(&schema, &mut references);
        assert!(references.len() > 20);
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("a local reference");
            assert!(schema.pointer(pointer).is_some_and(serde_json::Value::is_object), "{reference}");
        }
        assert_eq!(
            schema.pointer("/$defs/ShortRoute/properties/policies/properties/cors/title"),
            Some(&"cors".into())
        );
    }
}
