//! The mistakes that are found, and the words that several kinds of them share.
//!
//! What is found while a part is worked out can be logged, to be told once more where the part is kept.

use foldhash::{HashMap, HashSet};
use std::sync::Arc;

use rhumb_model::decode::nearest;
use rhumb_model::{Diag, Doc, Origin, Rule, Source, Span};

use crate::trace::{Frame, Trace};

/// Names that a message lists at most.
const LISTED: usize = 8;

/// Unknown references for which near names are looked for: each costs a comparison with every name.
const SUGGESTIONS: usize = 64;

/// Collects mistakes.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) diags: Vec<Diag>,
    /// What was told of which place: a Secret that several listeners use is wrong once.
    told: HashSet<(*const Source, Span, String)>,
    /// Where lines begin, by source: origins of policies ask for many places of few sources.
    lines: HashMap<*const Source, Box<[u32]>>,
    suggested: usize,
    trace: Trace,
    logs: Vec<Log>,
}

/// What happens to all of what is resolved while a part of it is worked out.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A mistake was told.
    Told(Box<Diag>),
    /// A backend was named by a rule: its place among those that were made.
    Backend(usize),
    /// A filter named a Policy: its namespace and name.
    Policy(Box<(Box<str>, Box<str>)>),
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    is_quiet: bool,
}

/// In texts up to this length lines are counted each time; of longer ones, where many places are asked for, their starts
/// are kept. **Unit**: bytes.
const COUNTED: usize = 4 << 10;

impl Report {
    /// Nothing found; `trace` notes what messages depend on.
    pub(crate) fn new(trace: Trace) -> Self {
        Self { trace, ..Self::default() }
    }

    /// Begins a part that is logged. `is_quiet`: its mistakes are not told until [`Self::tell`] does.
    pub(crate) fn begin(&mut self, is_quiet: bool) {
        self.trace.begin();
        self.logs.push(Log { events: Vec::new(), is_quiet });
    }

    /// What happened in the part that was begun last, and what it has asked for.
    pub(crate) fn end(&mut self) -> (Box<[Event]>, Frame) {
        (self.logs.pop().unwrap_or_default().events.into(), self.trace.end())
    }

    /// Something happened beside mistakes.
    pub(crate) fn log(&mut self, event: Event) {
        if let Some(log) = self.logs.last_mut() {
            log.events.push(event);
        }
    }

    /// Tells the mistakes of a part that was logged.
    pub(crate) fn tell(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Told(diag) = event {
                self.push((**diag).clone());
            }
        }
    }

    pub(crate) fn push(&mut self, diag: Diag) {
        if let Some(log) = self.logs.last_mut() {
            log.events.push(Event::Told(Box::new(diag.clone())));
            if log.is_quiet {
                return;
            }
        }
        if self.told.insert((Arc::as_ptr(&diag.at.source), diag.at.span, diag.what.clone())) {
            self.diags.push(diag);
        }
    }

    /// A reference to nothing. `names` are those that would have been right.
    pub(crate) fn unknown<'n>(
        &mut self,
        at: Origin,
        what: String,
        written: &str,
        names: impl Iterator<Item = &'n str> + Clone,
    ) -> Diag {
        let mut diag = Diag::error(Rule::UnknownReference, at, what);
        // How many were before it is not known of a part that is kept.
        self.trace.note_volatile();
        self.suggested += 1;
        if self.suggested > SUGGESTIONS {
            return diag;
        }
        if let Some(near) = nearest(written, names.clone()) {
            diag = diag.fix(format!("did you mean `{near}`?"));
        }
        let listed: Vec<String> = names.clone().take(LISTED).map(|name| format!("`{name}`")).collect();
        match listed.len() {
            0 => diag,
            LISTED if names.count() > LISTED => {
                diag.why(format!("there are {} and others", listed.join(", ")))
            }
            1 => diag.why(format!("there is {}", listed.join(""))),
            _ => diag.why(format!("there are {}", listed.join(", "))),
        }
    }

    /// `file:line` of a place in a document.
    pub(crate) fn place(&mut self, doc: &Doc, span: Span) -> String {
        let source = &doc.source;
        if source.text().is_empty() {
            return source.name().to_string();
        }
        let line_of =
            |before: usize| format!("{}:{}", source.name(), source.first_line() as usize + before + 1);
        if source.text().len() <= COUNTED {
            let before = source.text().as_bytes().get(..span.start as usize).unwrap_or_default();
            return line_of(before.iter().filter(|byte| **byte == b'\n').count());
        }
        let starts = self.lines.entry(Arc::as_ptr(source)).or_insert_with(|| {
            let newlines = source.text().bytes().zip(1u32..).filter(|(byte, _)| *byte == b'\n');
            newlines.map(|(_, next)| next).collect()
        });
        let before = starts.partition_point(|&start| start <= span.start);
        line_of(before)
    }
}
