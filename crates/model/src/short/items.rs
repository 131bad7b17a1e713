//! A short form read item by item: of ten thousand routes one changes, and the others are not looked at again.
//!
//! [`cut`] takes the routes out of the text; the rest is read as any short form is ([`frame`]), and each route alone
//! ([`parse`], [`Parsed::adapt`]). Only text without a mistake is read so: wherever something is odd there is nothing,
//! and the text is to be read as a whole, which tells what is wrong.

use std::collections::HashSet;
use std::sync::Arc;

use super::adapt::Adapter;
use super::{ShortForm, ShortRoute};
use crate::decode::{Decode, Decoder};
use crate::doc::{self, Doc};
use crate::expand::Lookup;
use crate::kind::gateway::Protocol;
use crate::read::{Read, read};
use crate::span::{Source, saturate};
use crate::value::Value;
use crate::yaml::{self, MAX_NODES, Part};

/// Fewer routes are read as a whole.
pub const CUT_FROM: usize = 32;

/// The most routes of a short form.
const MOST: usize = 100_000;

/// The text of a short form in pieces.
pub struct Cut<'t> {
    /// All but the routes, each line where it was.
    pub frame: String,
    /// The routes; their first lines count from that of the text.
    pub items: Vec<Part<'t>>,
}

/// Cuts a text at its routes; nothing when it is not certain where they begin and end.
///
/// A route begins with a `-` at the indentation of the first one. Inside of quotes and brackets YAML would allow
/// such a line to be something else; a piece is then no YAML of its own, and [`parse`] says so.
pub fn cut(text: &str) -> Option<Cut<'_>> {
    let start = match text.strip_prefix("routes:") {
        Some(_) => 0,
        None => text.find("\nroutes:")? + 1,
    };
    let end_of_line = |at: usize| text.get(at..)?.find('\n').map(|len| at + len + 1);
    let first = end_of_line(start)?;
    let rest = text.get(start + "routes:".len()..first)?.trim();
    if !rest.is_empty() && !rest.starts_with('#') {
        return None;
    }
    let mut items: Vec<Part<'_>> = Vec::new();
    let mut open: Option<(usize, usize)> = None;
    let mut indent = None;
    let (mut at, mut line, mut tail) = (first, 0, text.len());
    while at < text.len() {
        let next = end_of_line(at).unwrap_or(text.len());
        let whole = text.get(at..next)?;
        let content = whole.trim_start_matches(' ');
        let depth = whole.len() - content.len();
        let content = content.trim_end();
        if !content.is_empty() && !content.starts_with('#') {
            let is_item = content == "-" || content.starts_with("- ");
            let column = match indent {
                None if is_item => *indent.insert(depth),
                None => return None,
                Some(column) => column,
            };
            if depth == column && is_item {
                if let Some((from, line)) = open.replace((at, line)) {
                    items.push(Part { first_line: saturate(line), text: text.get(from..at)? });
                }
            } else if depth <= column {
                if depth > 0 {
                    return None;
                }
                tail = at;
                break;
            }
        }
        line += 1;
        at = next;
    }
    let (from, last) = open?;
    items.push(Part { first_line: saturate(last), text: text.get(from..tail)? });
    if !(CUT_FROM..=MOST).contains(&items.len()) {
        return None;
    }
    let before = text.get(..first)?;
    let lines_before = saturate(before.bytes().filter(|byte| *byte == b'\n').count());
    items.iter_mut().for_each(|item| item.first_line += lines_before);
    let mut frame = format!("{before}  []\n");
    if let Some(after) = text.get(tail..).filter(|after| !after.is_empty()) {
        frame.extend(std::iter::repeat_n('\n', line.saturating_sub(1)));
        frame.push_str(after);
    }
    Some(Cut { frame, items })
}

/// What routes take from the rest of their short form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Listeners that see requests: those of routes that name none.
    pub(super) http: Vec<Box<str>>,
    /// What each listener carries.
    pub(super) carries: Vec<(Box<str>, Protocol)>,
}

/// Reads a short form without its routes; nothing when it has a mistake, or no listeners of its own.
pub fn frame(source: &Arc<Source>, lookup: &mut dyn Lookup) -> Option<(Read, Frame)> {
    let mut diags = Vec::new();
    let mut parsed = yaml::parse(source, Some(lookup), &mut diags);
    let node = parsed.pop().filter(|_| parsed.is_empty() && diags.is_empty())?;
    if node.get("kind").is_some() || node.get("apiVersion").is_some() {
        return None;
    }
    let form = ShortForm::decode(&node, &mut Decoder::new(source, None, &mut diags))?;
    let frame = Frame::of(&form);
    if !diags.is_empty() || frame.carries.is_empty() {
        return None;
    }
    let read = read(source, Some(lookup), &[]);
    read.diags.is_empty().then_some((read, frame))
}

impl Frame {
    fn of(form: &ShortForm) -> Self {
        let all = form.listeners.entries.iter();
        let carries: Vec<(Box<str>, Protocol)> =
            all.map(|(name, listener)| (name.value.clone(), listener.carries())).collect();
        let http = carries.iter().filter(|(_, carries)| carries.has_requests());
        Self { http: http.map(|(name, _)| name.clone()).collect(), carries }
    }
}

/// Names that routes of one short form have in common.
#[derive(Default)]
pub struct Names {
    /// Names of routes in use.
    pub(super) taken: HashSet<String>,
    /// Names of backends made for `to: HOST:PORT`.
    pub(super) inline: HashSet<String>,
    /// What was taken since the log was begun.
    pub(super) log: Vec<Took>,
}

/// A name that a route took.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Took {
    /// A name for itself: the one that it wanted, and the one that was free.
    Route(Box<str>, Box<str>),
    /// That of a backend for an address, and whether no route before had taken it.
    Backend(Box<str>, bool),
}

impl Names {
    /// A name that a route has by its own words.
    pub fn take(&mut self, name: &str) {
        if !self.taken.contains(name) {
            self.taken.insert(name.to_owned());
        }
    }

    /// Takes what a route took when it was read, if it would take the same again.
    pub fn take_again(&mut self, took: &[Took]) -> bool {
        for (count, one) in took.iter().enumerate() {
            let is_same = match one {
                Took::Route(wanted, got) => {
                    let free = self.free(wanted);
                    let is_same = free == **got;
                    if !is_same {
                        self.taken.remove(&free);
                    }
                    is_same
                }
                Took::Backend(name, is_first) => {
                    let is_new = self.inline.insert(name.to_string());
                    if is_new && !is_first {
                        self.inline.remove(&**name);
                    }
                    is_new == *is_first
                }
            };
            if !is_same {
                for one in took.iter().take(count) {
                    match one {
                        Took::Route(_, got) => self.taken.remove(&**got),
                        Took::Backend(name, true) => self.inline.remove(&**name),
                        Took::Backend(_, false) => false,
                    };
                }
                return false;
            }
        }
        true
    }

    fn free(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 2;
        while !self.taken.insert(name.clone()) {
            name = format!("{wanted}-{number}");
            number += 1;
        }
        name
    }

    /// A name that no other route has.
    pub(super) fn free_name(&mut self, wanted: &str) -> String {
        let name = self.free(wanted);
        self.log.push(Took::Route(wanted.into(), name.as_str().into()));
        name
    }

    /// True when no backend of this name was made before.
    pub(super) fn is_new_backend(&mut self, name: &str) -> bool {
        let is_new = self.inline.insert(name.to_owned());
        self.log.push(Took::Backend(name.into(), is_new));
        is_new
    }
}

/// A route, read but not adapted.
pub struct Parsed {
    route: ShortRoute,
    /// How many values it is made of.
    pub nodes: usize,
}

/// Reads one route, written as the only item of a list; nothing when it has a mistake.
pub fn parse(source: &Arc<Source>, lookup: &mut dyn Lookup) -> Option<Parsed> {
    let (node, nodes) = yaml::parse_alone(source, lookup)?;
    let Value::Seq(items) = &node.value else { return None };
    let [item] = &**items else { return None };
    let mut diags = Vec::new();
    let route = ShortRoute::decode(item, &mut Decoder::new(source, None, &mut diags))?;
    (diags.is_empty() && nodes <= MAX_NODES).then_some(Parsed { route, nodes })
}

impl Parsed {
    /// The name that the route has by its own words.
    pub fn name(&self) -> Option<&str> {
        self.route.name.as_ref().and_then(|name| name.node.as_str())
    }

    /// The documents of the route, and the names that it took; nothing when there is a mistake.
    pub fn adapt(
        &self,
        source: &Arc<Source>,
        frame: &Frame,
        names: &mut Names,
    ) -> Option<(Vec<Arc<Doc>>, Vec<Took>)> {
        let mut diags = Vec::new();
        names.log.clear();
        let nodes = Adapter::new(source, None, names, &mut diags).one_route(&self.route, frame);
        let mut docs = Vec::with_capacity(nodes.len());
        for node in &nodes {
            docs.push(Arc::new(doc::decode(node, source, &mut diags)?));
        }
        diags.is_empty().then(|| (docs, std::mem::take(&mut names.log)))
    }
}
