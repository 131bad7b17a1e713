//! Mistakes, as people are told about them.

use crate::span::{Source, Span};
use std::fmt;
use std::sync::Arc;

mod render;

pub use render::{Paint, render, render_all};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The document is not taken over as written.
    Error,
    /// It works, but probably not as meant.
    Warning,
}

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// The rule that was broken: a stable name for scripts, documentation and suppressions.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Rule {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name shown in brackets: `error[unknown-field]`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

rules! {
    /// The text is not YAML (or JSON).
    Syntax = "syntax",
    /// A budget is exhausted: size, depth, number of values, alias expansion.
    TooLarge = "too-large",
    /// A key is written twice in one mapping.
    DuplicateKey = "duplicate-key",
    /// A file or directory cannot be read.
    Unreadable = "unreadable",
    /// An environment variable is not set and has no default.
    MissingVariable = "missing-variable",
    /// The document's kind does not exist.
    UnknownKind = "unknown-kind",
    /// The kind or field exists, but this version cannot honour it.
    NotSupported = "not-supported",
    /// The mapping has no field of this name.
    UnknownField = "unknown-field",
    /// A field that must be written is absent.
    MissingField = "missing-field",
    /// The value has another type than the field.
    WrongType = "wrong-type",
    /// The value is none of those allowed.
    UnknownValue = "unknown-value",
    /// The value does not have the form that the field needs.
    BadValue = "bad-value",
    /// The number or length is outside of what is allowed.
    OutOfRange = "out-of-range",
    /// Fields are each right but do not go together.
    Conflict = "conflict",
    /// Two documents have the same kind, namespace and name.
    DuplicateDocument = "duplicate-document",
    /// A reference to something that does not exist.
    UnknownReference = "unknown-reference",
    /// A reference across namespaces that no ReferenceGrant allows.
    NotGranted = "not-granted",
    /// The document has no effect.
    NoEffect = "no-effect",
    /// A policy body is wrong.
    Policy = "policy",
    /// Certificates or keys are wrong.
    Certificate = "certificate",
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a document is called: its kind, namespace and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DocId {
    /// The kind, as written.
    pub kind: Box<str>,
    /// The namespace; empty for kinds that have none.
    pub namespace: Box<str>,
    /// The name; empty when it could not be read.
    pub name: Box<str>,
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.namespace.is_empty(), self.name.is_empty()) {
            (_, true) => write!(f, "{}", self.kind),
            (true, false) => write!(f, "{} {}", self.kind, self.name),
            (false, false) => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}

/// Where something was written: source, span and document.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The text.
    pub source: Arc<Source>,
    /// The place in the text.
    pub span: Span,
    /// The document it belongs to, if there is one.
    pub doc: Option<Arc<DocId>>,
}

impl Origin {
    /// The path of the field that covers the span, such as `spec.rules[0].name`; empty outside of any.
    pub fn path(&self) -> String {
        self.source.path_at(self.span)
    }
}

impl fmt::Display for Origin {
    /// `file:line:column`; the file alone when the source has no text (it could not be read).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.text().is_empty() {
            return f.write_str(self.source.name());
        }
        let at = self.source.position(self.span.start);
        write!(f, "{}:{}:{}", self.source.name(), at.line, at.column)
    }
}

/// One mistake: where, what, why it is one, and how to mend it.
#[derive(Clone, Debug)]
pub struct Diag {
    /// Error or warning.
    pub severity: Severity,
    /// The rule that was broken.
    pub rule: Rule,
    /// Where.
    pub at: Origin,
    /// What is wrong, in one lower-case sentence.
    pub what: String,
    /// A few words beside the caret.
    pub label: Option<String>,
    /// Why it is wrong, or what would be right.
    pub why: Option<String>,
    /// What to write instead.
    pub fix: Option<String>,
    /// Other places that belong to it, with a few words each.
    pub related: Vec<(Origin, String)>,
    /// The value is secret: the snippet must not show it.
    pub secret: bool,
    /// The place stands for the mapping around it, which lacks something.
    pub enclosing: bool,
}

impl Diag {
    /// An error.
    pub fn error(rule: Rule, at: Origin, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            rule,
            at,
            what: what.into(),
            label: None,
            why: None,
            fix: None,
            related: Vec::new(),
            secret: false,
            enclosing: false,
        }
    }

    /// A warning.
    pub fn warning(rule: Rule, at: Origin, what: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(rule, at, what) }
    }

    /// With a few words beside the caret.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// With the reason.
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// With what to write instead.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// With another place that belongs to it.
    pub fn related(mut self, at: Origin, words: impl Into<String>) -> Self {
        self.related.push((at, words.into()));
        self
    }

    /// The path of the field that is meant, such as `spec.rules[0].name`; empty outside of any.
    pub fn path(&self) -> String {
        let mut path = self.at.path();
        if self.enclosing {
            path.truncate(path.rfind('.').unwrap_or(0));
        }
        path
    }

    /// True for errors.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diag {
    /// One line: `file:line:column: error[rule]: what`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {word}[{}]: {}", self.at, self.rule, self.what)
    }
}
