//! The text of one source to documents.

use crate::diag::{Diag, Origin, Rule};
use crate::doc::{self, Doc};
use crate::expand::Lookup;
use crate::short;
use crate::span::{Source, Span};
use crate::value::{Node, Value};
use crate::yaml;
use std::sync::Arc;

/// What one source says.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// The documents, in order; those with mistakes are marked ([`Doc::broken`]).
    pub docs: Vec<Arc<Doc>>,
    /// Every mistake.
    pub diags: Vec<Diag>,
    /// Listeners that a short form here has.
    pub listeners: Vec<Box<str>>,
    /// A short form here has none and uses those of others.
    pub borrows: bool,
}

/// Reads the documents of one source (see [`yaml::sources`]): documents with `kind`, a `List` of them, or the short form.
///
/// `lookup` expands variables and `file:`; `None` takes text as it is (objects of Kubernetes). `others` are listeners of
/// other short forms that belong to the same configuration.
pub fn read(source: &Arc<Source>, lookup: Option<&mut dyn Lookup>, others: &[Box<str>]) -> Read {
    let mut read = Read::default();
    let mut found = Listeners::default();
    let nodes = adapt_with(source, lookup, others, &mut found, &mut read.diags);
    (read.listeners, read.borrows) = (found.own, found.borrows);
    let mistakes: Vec<Span> =
        read.diags.iter().filter(|diag| diag.is_error()).map(|diag| diag.at.span).collect();
    for node in &nodes {
        let told = read.diags.len();
        let doc = doc::decode(node, source, &mut read.diags);
        // A mistake in the short form may show up in its document once more.
        let mut later = read.diags.split_off(told);
        later.retain(|diag| !mistakes.iter().any(|at| at.start == diag.at.span.start));
        read.diags.append(&mut later);
        if let Some(mut doc) = doc {
            // What was wrong before it was decoded breaks the document it stands in, not its neighbours.
            doc.broken |= mistakes.iter().any(|at| node.span.start <= at.start && at.end <= node.span.end);
            read.docs.push(Arc::new(doc));
        }
    }
    read
}

/// The documents of one source as value trees, the short form adapted: what `rhumb adapt` prints.
pub fn adapt(
    source: &Arc<Source>,
    lookup: Option<&mut dyn Lookup>,
    others: &[Box<str>],
    diags: &mut Vec<Diag>,
) -> Vec<Node> {
    adapt_with(source, lookup, others, &mut Listeners::default(), diags)
}

/// The listeners that short forms of one source have, without a look at anything else.
pub fn listeners(source: &Arc<Source>) -> Vec<Box<str>> {
    let parsed = yaml::parse(source, None, &mut Vec::new());
    parsed.iter().filter(|node| matches!(shape(node), Shape::Short)).flat_map(short::listeners).collect()
}

/// Listeners of the short forms of one source.
#[derive(Default)]
struct Listeners {
    own: Vec<Box<str>>,
    borrows: bool,
}

fn adapt_with(
    source: &Arc<Source>,
    mut lookup: Option<&mut dyn Lookup>,
    others: &[Box<str>],
    found: &mut Listeners,
    diags: &mut Vec<Diag>,
) -> Vec<Node> {
    let parsed = match &mut lookup {
        Some(lookup) => yaml::parse(source, Some(&mut **lookup), diags),
        None => yaml::parse(source, None, diags),
    };
    let mut nodes = Vec::with_capacity(parsed.len());
    for node in parsed {
        match shape(&node) {
            Shape::Nothing => {}
            Shape::Document => nodes.push(node),
            Shape::List => flatten(node, source, diags, &mut nodes),
            Shape::Short => {
                found.own.extend(short::listeners(&node));
                found.borrows |= node.get("listeners").is_none();
                let mut adapted = match &mut lookup {
                    Some(lookup) => short::adapt(&node, source, Some(&mut **lookup), others, diags),
                    None => short::adapt(&node, source, None, others, diags),
                };
                nodes.append(&mut adapted);
            }
            Shape::Other => {
                let at = Origin { source: source.clone(), span: node.span, doc: None };
                diags.push(
                    Diag::error(Rule::WrongType, at, format!("{} where a document is expected", node.describe()))
                        .why("a document is a mapping with `apiVersion` and `kind`, or the short form with `routes`"),
                );
            }
        }
    }
    nodes
}

enum Shape {
    Nothing,
    Document,
    List,
    Short,
    Other,
}

fn shape(node: &Node) -> Shape {
    match &node.value {
        Value::Null => Shape::Nothing,
        Value::Map(_) => match (node.get("kind"), node.get("apiVersion")) {
            (Some(kind), _)
                if kind.as_str().is_some_and(|kind| kind.ends_with("List"))
                    && node.get("items").is_some() =>
            {
                Shape::List
            }
            (None, None) => Shape::Short,
            _ => Shape::Document,
        },
        _ => Shape::Other,
    }
}

/// The items of a `kind: List`, as `kubectl get -o yaml` prints them.
fn flatten(node: Node, source: &Arc<Source>, diags: &mut Vec<Diag>, nodes: &mut Vec<Node>) {
    let Value::Map(entries) = node.value else { return };
    for entry in entries {
        let span = entry.value.span;
        match (&*entry.key, entry.value.value) {
            ("items", Value::Seq(items)) => nodes.extend(items),
            ("items", _) => {
                let at = Origin { source: source.clone(), span, doc: None };
                diags.push(Diag::error(Rule::WrongType, at, "`items` of a List is a list of documents"));
            }
            ("apiVersion" | "kind" | "metadata", _) => {}
            (key, _) => {
                let at = Origin { source: source.clone(), span: entry.key_span, doc: None };
                diags.push(
                    Diag::error(Rule::UnknownField, at, format!("unknown field `{key}`"))
                        .label("not a field of a List")
                        .why("allowed here: `apiVersion`, `kind`, `metadata`, `items`"),
                );
            }
        }
    }
}

impl Origin {
    /// The origin that is a file or directory as a whole.
    pub fn file(name: &str) -> Self {
        Self { source: Arc::new(Source::new(name, 0, "")), span: Span::default(), doc: None }
    }
}
