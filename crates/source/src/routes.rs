//! Short forms whose routes are read one by one, so that a change of one is not a change of all.

use std::sync::Arc;

use foldhash::HashMap;
use rhumb_model::short::items::{self, Frame, Names, Took};
use rhumb_model::yaml::{MAX_NODES, Part};
use rhumb_model::{Doc, Read, Source};

use crate::lookup::{Reader, Referenced, Surroundings, hash};

/// A short form that was read route by route.
pub(crate) struct Routes {
    frame: Framed,
    items: Vec<Item>,
}

/// All of a short form but its routes.
struct Framed {
    source: Arc<Source>,
    read: Read,
    frame: Frame,
    referenced: Referenced,
}

/// A route.
struct Item {
    source: Arc<Source>,
    name: Option<Box<str>>,
    took: Box<[Took]>,
    docs: Box<[Arc<Doc>]>,
    /// How many values it is made of.
    nodes: usize,
    referenced: Referenced,
}

/// A route on its way.
enum Way {
    Known(Item),
    Fresh(Arc<Source>, Box<items::Parsed>, Referenced),
}

impl Routes {
    /// Reads a source, with what is left of `before` of the same; nothing when it has to be read as a whole.
    pub(crate) fn read(source: &Source, before: Option<Self>, around: &mut Surroundings<'_>) -> Option<Self> {
        let cut = items::cut(source.text())?;
        let (framed, before) = match before {
            Some(before) => (Some(before.frame), before.items),
            None => (None, Vec::new()),
        };
        let is_current = |framed: &Framed, reader: &mut Reader| {
            framed.source.text() == cut.frame
                && framed.source.first_line() == source.first_line()
                && reader.has_again(&framed.referenced)
        };
        let (frame, before) = match framed {
            Some(framed) if is_current(&framed, around.reader) => (framed, before),
            framed => {
                let source = Source::new(source.name().clone(), source.first_line(), cut.frame);
                let source = Arc::new(source);
                let (read, frame) = items::frame(&source, around)?;
                // What routes take from it has not changed, mostly.
                let before =
                    if framed.is_some_and(|framed| framed.frame == frame) { before } else { Vec::new() };
                (Framed { source, read, frame, referenced: around.take_referenced() }, before)
            }
        };
        let items = read_items(source, &cut.items, before, &frame.frame, around)?;
        Some(Self { frame, items })
    }

    /// Everything that it says.
    pub(crate) fn all(&self) -> Read {
        let own = self.frame.read.docs.iter();
        let docs = own.chain(self.items.iter().flat_map(|item| &item.docs)).cloned().collect();
        Read { docs, ..self.frame.read.clone() }
    }

    /// The files that it refers to.
    pub(crate) fn referenced(&self) -> Referenced {
        let mut all = self.frame.referenced.clone();
        all.extend(self.items.iter().flat_map(|item| item.referenced.iter().cloned()));
        all
    }
}

fn read_items(
    source: &Source,
    parts: &[Part<'_>],
    before: Vec<Item>,
    frame: &Frame,
    around: &mut Surroundings<'_>,
) -> Option<Vec<Item>> {
    let (mut names, mut nodes) = (Names::default(), 0);
    let mut ways = Vec::with_capacity(parts.len());
    let mut old = Old::new(before, parts);
    for (index, part) in parts.iter().enumerate() {
        let first_line = source.first_line() + part.first_line;
        let made = || Source::new(source.name().clone(), first_line, part.text).item("routes", index);
        let known =
            old.take(part.text, parts.len() - index).filter(|item| around.reader.has_again(&item.referenced));
        let way = match known {
            Some(item) if item.source.first_line() == first_line && item.source.index() == Some(index) => {
                Way::Known(item)
            }
            Some(item) => Way::Known(item.at(Arc::new(made()))),
            None => {
                let source = Arc::new(made());
                let parsed = items::parse(&source, around)?;
                Way::Fresh(source, Box::new(parsed), around.take_referenced())
            }
        };
        match &way {
            Way::Known(item) => {
                nodes += item.nodes;
                item.name.iter().for_each(|name| names.take(name));
            }
            Way::Fresh(_, parsed, _) => {
                nodes += parsed.nodes;
                parsed.name().iter().for_each(|name| names.take(name));
            }
        }
        ways.push(way);
    }
    if nodes > MAX_NODES {
        return None;
    }
    let mut items = Vec::with_capacity(ways.len());
    for way in ways {
        let (source, parsed, referenced) = match way {
            Way::Known(item) if names.take_again(&item.took) => {
                items.push(item);
                continue;
            }
            // Another route has the name that it had.
            Way::Known(item) => {
                let parsed = items::parse(&item.source, around)?;
                (item.source, parsed, around.take_referenced())
            }
            Way::Fresh(source, parsed, referenced) => (source, *parsed, referenced),
        };
        let (docs, took) = parsed.adapt(&source, frame, &mut names)?;
        items.push(Item {
            name: parsed.name().map(Into::into),
            took: took.into(),
            docs: docs.into(),
            nodes: parsed.nodes,
            referenced,
            source,
        });
    }
    Some(items)
}

impl Item {
    /// The same route at another place.
    fn at(self, source: Arc<Source>) -> Self {
        let moved = |doc: &Arc<Doc>| Arc::new(Doc { source: Arc::clone(&source), ..Doc::clone(doc) });
        let docs = self.docs.iter().map(moved).collect();
        Self { docs, source, ..self }
    }
}

/// Routes of the last time. What did not change stands at the beginning and at the end, mostly: found by comparing in
/// order. What was moved is found by its hash.
struct Old {
    front: std::vec::IntoIter<Item>,
    moved: HashMap<u64, Item>,
    back: std::vec::IntoIter<Item>,
}

impl Old {
    fn new(mut items: Vec<Item>, parts: &[Part<'_>]) -> Self {
        let is_same = |(item, part): &(&Item, &Part<'_>)| item.source.text() == part.text;
        let first = items.iter().zip(parts).take_while(is_same).count();
        let both = items.len().min(parts.len()) - first;
        let last = items.iter().rev().zip(parts.iter().rev()).take(both).take_while(is_same).count();
        let back = items.split_off(items.len() - last).into_iter();
        let moved = items.split_off(first).into_iter();
        let moved = moved.map(|item| (hash(item.source.text()), item)).collect();
        Self { front: items.into_iter(), moved, back }
    }

    /// The next route, if it was there; `left` of them are to come with it.
    fn take(&mut self, text: &str, left: usize) -> Option<Item> {
        if let Some(item) = self.front.next() {
            return Some(item);
        }
        if left <= self.back.len() {
            return self.back.next();
        }
        self.moved.remove(&hash(text)).filter(|item| item.source.text() == text)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::fs;

    use rhumb_base::rng::Rng;
    use rhumb_model::{Paint, Span, render_all};

    use super::*;
    use crate::Files;

    /// A route of a short form, in one of several ways; the last ones are wrong or need what is around them.
    fn route(rng: &mut Rng) -> String {
        let n = rng.below(60);
        let ways = if rng.below(25) == 0 { 14 } else { 11 };
        match rng.below(ways) {
            0 => format!("  - match: {{path: /r{n}/*}}\n    to: a\n"),
            1 => format!("  - {{match: {{path: /r{n}}}, to: 'b'}}\n"),
            2 => format!(
                "  - name: named-{n}\n    match: {{path: [/x{n}, /y{n}/*], host: h{n}.test}}\n    to: [a, {{backend: b, weight: 3}}]\n"
            ),
            3 => format!("  # to an address\n  - match: {{path: /i{n}}}\n    to: 127.0.0.1:90{:02}\n", n % 5),
            4 => format!(
                "  -\n    match:\n      - {{host: a{n}.test}}\n      - {{host: b{n}.test}}\n\n    redirect: https\n"
            ),
            5 => format!(
                "  - match: {{path: /p{n}}}\n    respond: {{status: 200, body: \"say\n      - {n}\"}}\n"
            ),
            6 => format!(
                "  - match: {{path: /f{n}}}\n    to: a\n    requestHeaders:\n      set:\n        x-a: |-\n          text\n"
            ),
            7 => format!("  - match: {{path: /v{n}}}\n    to: \"${{NOWHERE:-a}}\"\n"),
            8 => format!("  - {{on: raw, to: b, name: raw-{n}}}\n"),
            9 => format!("  - match: {{path: /t{n}}}\n    respond: {{status: 200, body: 'file:text'}}\n"),
            10 => format!("  - {{name: r{n}, to: a, match: {{path: /q{n}}}}}\n"),
            11 => format!("  - match: {{path: /w{n}}}\n    too: a\n"),
            12 => format!("  - &anchor {{match: {{path: /n{n}}}, to: a}}\n"),
            _ => format!("  - match: {{path: [/u{n}\n    to: a\n"),
        }
    }

    struct Form {
        frame: u32,
        routes: Vec<String>,
    }

    impl Form {
        fn text(&self) -> String {
            let mut text = String::from(
                "# a short form\nlisteners:\n  web: {port: 8080}\n  raw: {port: 9000, protocol: TCP}\n",
            );
            if self.frame % 3 == 1 {
                text.push_str("  more: {port: 8081}\n");
            }
            text.push_str("backends: {a: '127.0.0.1:1', b: '127.0.0.1:2'}\nroutes: # many\n");
            if self.frame % 2 == 1 {
                text.push_str("  # comment\n\n");
            }
            self.routes.iter().for_each(|route| text.push_str(route));
            if self.frame % 5 > 2 {
                text.push_str("# the rest\npolicies: {cors: {allowOrigins: ['https://a.test']}}\n");
            }
            text
        }
    }

    /// A document with each span as the place and the text that it means.
    fn placed(doc: &Doc) -> String {
        let debug = format!("{:?}", doc.spec);
        let mut pieces = debug.split("Span { start: ");
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (span, rest) = piece.split_once(" }").expect("a span");
            let (start, end) = span.split_once(", end: ").expect("a span");
            let span = Span::new(start.parse().expect("number"), end.parse().expect("number"));
            let origin = doc.origin(span);
            let _ =
                write!(text, "<{origin} {} {:?}>{rest}", origin.path(), doc.source.slice(span).trim_end());
        }
        text
    }

    /// Everything that can be seen of documents and mistakes.
    fn said(read: &Read) -> String {
        let docs = read.docs.iter();
        let docs = docs.map(|doc| format!("{} {} {}\n", doc.id, doc.origin(doc.span), placed(doc)));
        docs.collect::<String>() + &render_all(&read.diags, Paint::Plain)
    }

    #[test]
    fn a_short_form_says_the_same_read_route_by_route_and_as_a_whole() {
        let (mut by_route, mut as_whole) = (0, 0);
        for seed in 0..6 {
            let dir = tempfile::tempdir().expect("directory");
            let path = dir.path().join("rhumb.yaml");
            let mut rng = Rng::new(seed);
            let routes = (0..40 + rng.below(20)).map(|_| route(&mut rng)).collect();
            let mut form = Form { frame: 0, routes };
            let mut files = Files::new(&path);
            for step in 0..12 {
                for _ in 0..rng.below(3) {
                    let at = rng.below(u32::try_from(form.routes.len()).expect("few")) as usize;
                    match rng.below(6) {
                        0 => drop(form.routes.remove(at)),
                        1 => form.routes.insert(at, route(&mut rng)),
                        2 => form.routes.swap(0, at),
                        3 => form.frame = rng.below(30),
                        _ => form.routes[at] = route(&mut rng),
                    }
                }
                fs::write(dir.path().join("text"), format!("{}", rng.below(2))).expect("write");
                let text = form.text();
                fs::write(&path, &text).expect("write");
                let loaded = files.load();
                let source = Arc::new(Source::new(&*path.display().to_string(), 0, &*text));
                let mut reader = Reader::default();
                let mut around = Surroundings {
                    reader: &mut reader,
                    directory: dir.path().to_owned(),
                    referenced: Vec::new(),
                };
                let whole = rhumb_model::read(&source, Some(&mut around), &[]);
                let (mut whole, mut loaded) =
                    (whole.clone(), Read { docs: loaded.docs, diags: loaded.diags, ..whole });
                if whole.diags.is_empty() {
                    by_route += 1
                } else {
                    as_whole += 1
                }
                // Names that are given twice are dropped later, and the rest of the file stands elsewhere in the order.
                let names = |read: &Read| read.docs.iter().map(|doc| doc.id.to_string()).collect::<Vec<_>>();
                for read in [&mut whole, &mut loaded] {
                    read.docs.sort_by(|a, b| a.id.cmp(&b.id));
                    read.docs.dedup_by(|a, b| a.id == b.id);
                    read.diags.retain(|diag| diag.rule != rhumb_model::Rule::DuplicateDocument);
                }
                assert_eq!(names(&whole), names(&loaded), "seed {seed} step {step}\n{text}");
                assert_eq!(said(&whole), said(&loaded), "seed {seed} step {step}\n{text}");
            }
        }
        assert!(by_route > 20 && as_whole > 5, "{by_route} {as_whole}");
    }

    #[test]
    fn a_changed_route_leaves_the_documents_of_others_alone() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("rhumb.yaml");
        let write = |changed: &str| {
            let routes = (0..50).map(|n| {
                let to = if n == 20 { changed } else { "a" };
                format!("  - {{match: {{path: /r{n}}}, to: {to}}}\n")
            });
            let text = format!(
                "listeners: {{web: {{port: 8080}}}}\nbackends: {{a: '127.0.0.1:1', b: '127.0.0.1:2'}}\nroutes:\n{}",
                routes.collect::<String>()
            );
            fs::write(&path, text).expect("write");
        };
        write("a");
        let mut files = Files::new(&path);
        let before = files.load();
        for changed in ["b", "[a, b]", "a}\n\n  # {"] {
            write(changed);
            let after = files.load();
            assert!(after.diags.is_empty(), "{:?}", after.diags);
            let is_same = |doc: &&Arc<Doc>| before.docs.iter().any(|other| Arc::ptr_eq(doc, other));
            let fresh: Vec<_> = after.docs.iter().filter(|doc| !is_same(doc)).map(|doc| doc.name()).collect();
            match changed {
                "b" | "[a, b]" => assert_eq!(fresh, ["r20"], "{changed}"),
                // Those after it stand elsewhere.
                _ => assert_eq!(fresh.len(), 30, "{fresh:?}"),
            }
        }
    }
}
