//! YAML and JSON text to value trees, within budgets.
//!
//! A file is cut at its `---` lines first ([`split`]), so that a syntax error in one document leaves the others
//! alone and an unchanged document need not be parsed again. Each part is then parsed ([`parse`]) with the YAML 1.2
//! core schema: `yes`, `no` and `on` are text, `0o17` is octal, and JSON is a subset.

use crate::diag::{Diag, Origin, Rule};
use crate::expand::{self, Lookup};
use crate::span::{Source, Span, saturate};
use crate::value::{Entry, Node, Raw, Value};
use granit_parser::{Event, Parser, ScalarStyle, Tag};
use std::collections::HashMap;
use std::sync::Arc;

/// The largest file that is read. Unit: bytes.
pub const MAX_FILE_BYTES: usize = 16 << 20;

/// The deepest nesting of lists and mappings in a document.
pub const MAX_DEPTH: usize = 64;

/// The most values one document may have, those that aliases repeat included.
pub const MAX_NODES: usize = 2 << 20;

/// What aliases of one document may repeat in all: values and bytes of text.
pub const MAX_ALIAS_WEIGHT: usize = 4 << 20;

/// Mistakes reported for one document; what follows is counted only.
pub const MAX_DIAGS: usize = 100;

/// One document in the text of a file, not parsed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part<'t> {
    /// The line of the file, from 0, on which it starts.
    pub first_line: u32,
    /// Its text.
    pub text: &'t str,
}

/// Cuts the text of a file into its documents. Parts of comments and blank lines only are left out.
///
/// A line that starts with `---` ends a document wherever it stands, also inside quotes and block scalars
/// (YAML 1.2.2 §9.1.2), so this needs no parser.
pub fn split(text: &str) -> Vec<Part<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let mut start = 0;
    let mut line = 0;
    let ends = text.match_indices("\n---").map(|(at, _)| at + 1);
    for end in ends.filter(|end| text.get(*end..).is_some_and(is_document_start)).chain([text.len()]) {
        let part = text.get(start..end).unwrap_or("");
        if says_something(part) {
            parts.push(Part { first_line: saturate(line), text: part });
        }
        line += part.bytes().filter(|byte| *byte == b'\n').count();
        start = end;
    }
    parts
}

/// The sources of a file's documents, for [`parse`].
pub fn sources(name: &Arc<str>, text: &str) -> Vec<Arc<Source>> {
    let source = |part: Part<'_>| Arc::new(Source::new(name.clone(), part.first_line, part.text));
    split(text).into_iter().map(source).collect()
}

fn is_document_start(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn says_something(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim();
        let blank = line.is_empty() || line.starts_with('#') || line == "---" || line == "...";
        !blank && !line.starts_with("%YAML") && !line.starts_with("--- #")
    })
}

/// Parses the documents of one source. Mistakes go to `diags`; what is right before a syntax error is given up,
/// because a half-read document means something else.
///
/// `lookup` expands `${NAME}` and `file:` in scalars; `None` takes text as it is.
pub fn parse(source: &Arc<Source>, lookup: Option<&mut dyn Lookup>, diags: &mut Vec<Diag>) -> Vec<Node> {
    let mut builder = Builder { lookup, ..Builder::new(Some(source)) };
    let documents = builder.run(source.text());
    let mut found = builder.diags;
    if found.len() > MAX_DIAGS {
        let more = found.len() - MAX_DIAGS;
        found.truncate(MAX_DIAGS);
        let at = origin(source, Span::default());
        found.push(Diag::error(Rule::TooLarge, at, format!("{more} more mistakes are not shown")));
    }
    diags.append(&mut found);
    documents
}

/// The one value of a source that needs nothing around it, and how many values it is made of. Nothing when there is a
/// mistake, or an anchor or alias: they may have to do with another part of the text.
pub(crate) fn parse_alone(source: &Arc<Source>, lookup: &mut dyn Lookup) -> Option<(Node, usize)> {
    let mut builder = Builder { lookup: Some(lookup), ..Builder::new(Some(source)) };
    let mut documents = builder.run(source.text());
    let is_alone = builder.diags.is_empty() && !builder.has_anchors && documents.len() == 1;
    documents.pop().filter(|_| is_alone).map(|node| (node, builder.nodes))
}

/// The tree of a text for finding paths in it, or nothing when it does not parse.
pub(crate) fn parse_for_paths(text: &str) -> Option<Node> {
    Builder::new(None).run(text).into_iter().next()
}

fn origin(source: &Arc<Source>, span: Span) -> Origin {
    Origin { source: source.clone(), span, doc: None }
}

struct Builder<'s, 'l> {
    source: Option<&'s Arc<Source>>,
    lookup: Option<&'l mut dyn Lookup>,
    diags: Vec<Diag>,
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    documents: Vec<Node>,
    nodes: usize,
    alias_weight: usize,
    has_anchors: bool,
}

/// A list or mapping whose end has not come yet.
struct Open {
    start: u32,
    anchor: usize,
    weight: usize,
    kind: OpenKind,
}

enum OpenKind {
    Seq(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<Key>, seen: HashMap<Box<str>, Span> },
}

/// The key whose value comes next.
struct Key {
    text: Box<str>,
    span: Span,
    /// It cannot be there, which is noted: its value is dropped.
    dropped: bool,
}

/// Mappings beyond this many keys look for duplicates in a hash table.
const LINEAR_KEYS: usize = 12;

/// Parsing cannot go on; the mistake is noted.
struct Stop;

impl<'s> Builder<'s, '_> {
    fn new(source: Option<&'s Arc<Source>>) -> Self {
        Self {
            source,
            lookup: None,
            diags: Vec::new(),
            stack: Vec::new(),
            anchors: HashMap::new(),
            documents: Vec::new(),
            nodes: 0,
            alias_weight: 0,
            has_anchors: false,
        }
    }

    fn run(&mut self, text: &str) -> Vec<Node> {
        let mut options = granit_parser::options! {
            flow_nesting_limit: MAX_DEPTH + 1,
            block_nesting_limit: MAX_DEPTH + 1,
            emit_unresolved_aliases: true,
        };
        options.set_emit_comments(false);
        for event in Parser::new_from_str_with_options(text, options) {
            let outcome = match event {
                Ok((event, span)) => self.event(event, to_span(&span)),
                Err(error) => {
                    let at = saturate(error.marker().byte_offset().unwrap_or(0));
                    self.syntax_error(text, at, &error.info());
                    Err(Stop)
                }
            };
            if outcome.is_err() {
                return Vec::new();
            }
        }
        std::mem::take(&mut self.documents)
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(open) = self.stack.last_mut()
                    && let OpenKind::Map { key: key @ None, .. } = &mut open.kind
                {
                    *key = Some(Key { text: text.into(), span, dropped: false });
                    return self.check_key(span, style == ScalarStyle::Plain);
                }
                let node = self.scalar(&text, style, tag.as_deref(), span);
                self.place(node, anchor, 1 + text.len())
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", span);
                self.open(span, anchor, OpenKind::Seq(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", span);
                self.open(
                    span,
                    anchor,
                    OpenKind::Map { entries: Vec::new(), key: None, seen: HashMap::new() },
                )
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.stack.pop() else { return Ok(()) };
                let (value, last) = match open.kind {
                    OpenKind::Seq(items) => {
                        let last = items.last().map(|item| item.span.end);
                        (Value::Seq(items), last)
                    }
                    OpenKind::Map { entries, .. } => {
                        let last = entries.last().map(|entry| entry.value.span.end.max(entry.key_span.end));
                        (Value::Map(entries), last)
                    }
                };
                // A block collection ends where the next token begins; what it covers ends with its last value.
                let end = if span.end > span.start { span.end } else { last.unwrap_or(span.end) };
                self.place(
                    Node::new(value, Span::new(open.start, end.max(open.start))),
                    open.anchor,
                    open.weight,
                )
            }
            Event::Alias(id) => self.alias(id, span),
            Event::UnresolvedAlias(name) => {
                if let Some(source) = self.source {
                    let what = format!("alias `*{name}` has no anchor `&{name}` before it");
                    self.push(
                        Diag::error(Rule::Syntax, origin(source, span), what)
                            .fix("put text that starts with `*` into quotes"),
                    );
                }
                self.place(Node::new(Value::Mistake, span), 0, 1)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, span: Span, anchor: usize, kind: OpenKind) -> Result<(), Stop> {
        if let Some(Open { kind: OpenKind::Map { key: None, .. }, .. }) = self.stack.last() {
            if let Some(source) = self.source {
                self.push(
                    Diag::error(Rule::Syntax, origin(source, span), "a list or mapping cannot be a key")
                        .fix("put text that starts with `{` or `[` into quotes"),
                );
            }
            return Err(Stop);
        }
        if self.stack.len() >= MAX_DEPTH {
            self.note(Rule::TooLarge, span, format!("nested deeper than {MAX_DEPTH} levels"));
            return Err(Stop);
        }
        self.stack.push(Open { start: span.start, anchor, weight: 1, kind });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, node: Node, anchor: usize, weight: usize) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.note(Rule::TooLarge, node.span, format!("more than {MAX_NODES} values in one document"));
            return Err(Stop);
        }
        if anchor != 0 {
            self.has_anchors = true;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(open) = self.stack.last_mut() else {
            self.documents.push(node);
            self.anchors.clear();
            return Ok(());
        };
        open.weight += weight;
        match &mut open.kind {
            OpenKind::Seq(items) => items.push(node),
            OpenKind::Map { entries, key, .. } => {
                if let Some(key) = key.take()
                    && !key.dropped
                {
                    entries.push(Entry { key: key.text, key_span: key.span, value: node });
                }
            }
        }
        Ok(())
    }

    /// The key that was just read: it must not be in the mapping yet, and no merge key.
    fn check_key(&mut self, span: Span, plain: bool) -> Result<(), Stop> {
        let Some(Open { kind: OpenKind::Map { entries, key: Some(key), seen }, .. }) = self.stack.last_mut()
        else {
            return Ok(());
        };
        if entries.len() == LINEAR_KEYS && seen.is_empty() {
            seen.extend(entries.iter().map(|entry| (entry.key.clone(), entry.key_span)));
        }
        let first = if seen.is_empty() {
            entries.iter().find(|entry| entry.key == key.text).map(|entry| entry.key_span)
        } else {
            let first = seen.get(&key.text).copied();
            if first.is_none() {
                seen.insert(key.text.clone(), span);
            }
            first
        };
        let merges = plain && &*key.text == "<<";
        key.dropped = merges || first.is_some();
        let key = key.text.clone();
        if let (Some(first), Some(source)) = (first, self.source) {
            let diag = Diag::error(
                Rule::DuplicateKey,
                origin(source, span),
                format!("key `{key}` is written twice"),
            )
            .label("again here")
            .why("only one of the two could count")
            .fix("delete one of them, or write a list if both are meant")
            .related(origin(source, first), "first here");
            self.push(diag);
        }
        if merges && let Some(source) = self.source {
            let diag =
                Diag::error(Rule::NotSupported, origin(source, span), "merge keys (`<<`) are not supported")
                    .why("they are not part of YAML 1.2")
                    .fix("write the fields out, or use an alias for a whole value");
            self.push(diag);
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), Stop> {
        self.has_anchors = true;
        if let Some(Open { kind: OpenKind::Map { key: None, .. }, .. }) = self.stack.last() {
            self.note(Rule::Syntax, span, "an alias cannot be a key");
            return Err(Stop);
        }
        let Some((node, weight)) = self.anchors.get(&id) else {
            self.note(Rule::Syntax, span, "the alias stands inside of the value that it names");
            return Err(Stop);
        };
        let weight = *weight;
        self.alias_weight = self.alias_weight.saturating_add(weight);
        if self.alias_weight > MAX_ALIAS_WEIGHT || self.stack.len() + depth(node) > MAX_DEPTH {
            self.note(Rule::TooLarge, span, "aliases repeat too much");
            return Err(Stop);
        }
        let node = node.clone();
        self.place(node, 0, weight)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        let plain = style == ScalarStyle::Plain;
        let forced = tag.and_then(|tag| self.scalar_tag(tag, span));
        let plain = match forced {
            Some(Forced::Text) => false,
            Some(Forced::Plain) => true,
            None => plain,
        };
        if expand::is_candidate(text)
            && let (Some(lookup), Some(source)) = (self.lookup.as_deref_mut(), self.source)
        {
            let raw = Raw { text: text.into(), plain };
            match expand::expand(text, lookup) {
                Ok(expanded) => {
                    let value = if plain { resolve_plain(&expanded) } else { Value::String(expanded.into()) };
                    return Node { value, span, raw: Some(Box::new(raw)) };
                }
                Err(mistake) => {
                    let diag = mistake.into_diag(origin(source, span));
                    self.push(diag);
                    return Node { value: Value::Mistake, span, raw: Some(Box::new(raw)) };
                }
            }
        }
        Node::new(if plain { resolve_plain(text) } else { Value::String(text.into()) }, span)
    }

    fn scalar_tag(&mut self, tag: &Tag, span: Span) -> Option<Forced> {
        match tag.core_suffix() {
            Some("str") => Some(Forced::Text),
            Some("int" | "float" | "bool" | "null") => Some(Forced::Plain),
            _ if tag.original() == "!" => Some(Forced::Text),
            _ => {
                self.unknown_tag(tag, span);
                None
            }
        }
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, wanted: &str, span: Span) {
        if let Some(tag) = tag
            && tag.core_suffix() != Some(wanted)
        {
            self.unknown_tag(tag, span);
        }
    }

    fn unknown_tag(&mut self, tag: &Tag, span: Span) {
        if let Some(source) = self.source {
            let what = format!("tag `{}` is not supported", tag.original());
            self.push(
                Diag::error(Rule::NotSupported, origin(source, span), what)
                    .fix("remove the tag, or put text that starts with `!` into quotes"),
            );
        }
    }

    fn note(&mut self, rule: Rule, span: Span, what: impl Into<String>) {
        if let Some(source) = self.source {
            let diag = Diag::error(rule, origin(source, span), what);
            self.push(diag);
        }
    }

    fn push(&mut self, diag: Diag) {
        self.diags.push(diag);
    }

    fn syntax_error(&mut self, text: &str, at: u32, info: &str) {
        let Some(source) = self.source else { return };
        let (_, line) = source.line_of(at);
        let what = if info.contains("nesting") || info.contains("recursion limit") {
            self.note(Rule::TooLarge, Span::new(at, at), format!("nested deeper than {MAX_DEPTH} levels"));
            return;
        } else {
            format!("not valid YAML: {info}")
        };
        let mut diag = Diag::error(Rule::Syntax, origin(source, Span::new(at, at.saturating_add(1))), what);
        let indent = line.len() - line.trim_start().len();
        if line.get(..indent).is_some_and(|blank| blank.contains('\t')) {
            diag = diag.why("YAML does not allow tabs for indentation").fix("indent with spaces");
        } else if info.starts_with("unclosed") {
            diag = diag.fix("close it");
        } else if info.contains("quoted scalar") {
            diag = diag.fix("check that the quote above is closed");
        } else if line.contains("{{") {
            diag = diag.why("`{{` starts a mapping inside a mapping").fix("put the value into quotes");
        } else if line.matches('"').count() % 2 == 1 || line.matches('\'').count() % 2 == 1 {
            diag = diag.fix("check that each quote on this line is closed");
        } else if line.split_once(": ").is_some_and(|(_, value)| {
            let value = value.trim();
            !value.starts_with(['"', '\'']) && value.contains(": ")
        }) {
            diag = diag.why("`: ` inside of a value starts another mapping").fix("put the value into quotes");
        } else if line.trim_start().starts_with(['@', '`', '%', '*', '&'])
            || line.split_once(": ").is_some_and(|(_, value)| value.starts_with(['@', '`', '%', '*', '&']))
        {
            diag = diag
                .why("values that start with `*`, `&`, `%`, `@` or a backtick have a meaning in YAML")
                .fix("put the value into quotes");
        } else if at as usize >= text.len() {
            diag = diag.fix("a bracket, brace or quote above is not closed");
        } else {
            diag = diag.fix("check the indentation of this line and of the one before");
        }
        self.push(diag);
    }
}

enum Forced {
    Text,
    Plain,
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Seq(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
        _ => 0,
    }
}

fn to_span(span: &granit_parser::Span) -> Span {
    let start = saturate(span.start.byte_offset().unwrap_or(0));
    let end = saturate(span.end.byte_offset().unwrap_or(0));
    Span::new(start, end.max(start))
}

/// The value of a plain scalar in the core schema (YAML 1.2.2 §10.3.2).
pub(crate) fn resolve_plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    // Most scalars are words: one look at the first byte tells.
    let first = text.bytes().next().unwrap_or(0);
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return Value::String(text.into());
    }
    if is_int(text) {
        Value::Int(text.into())
    } else if is_float(text) {
        Value::Float(text.into())
    } else {
        Value::String(text.into())
    }
}

fn is_int(text: &str) -> bool {
    if let Some(octal) = text.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (unsigned.get(..at).unwrap_or(""), unsigned.get(at + 1..)),
        None => (unsigned, None),
    };
    let exponent_ok = exponent.is_none_or(|digits| {
        let digits = digits.strip_prefix(['-', '+']).unwrap_or(digits);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    exponent_ok && all_digits && !(whole.is_empty() && fraction.is_empty())
}
