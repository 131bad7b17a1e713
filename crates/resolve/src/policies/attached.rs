//! One policy at one place: its kind, whose it is, and who enforces it.

use std::sync::Arc;

use rhumb_model::{Diag, Doc, Origin, Rule, Span};
use rhumb_policy::mesh::{Enforcer, enforcer};
use rhumb_policy::{Attach, KINDS, Merge, Parsed, Policy};
use serde_json::Value;

use crate::report::Report;

/// A policy at a place.
#[derive(Clone)]
pub(crate) struct Attached {
    /// Its kind, as an index into [`KINDS`].
    pub(super) kind: usize,
    /// The reason why it cannot be given: what it is attached to then refuses traffic.
    pub(super) policy: Result<Arc<Policy>, Arc<str>>,
    /// Which document attached it, in words.
    pub(super) origin: Arc<str>,
    pub(super) at: Origin,
    /// It is asked, and not obeyed.
    pub(super) is_shadow: bool,
    /// It replaces the prefix that a rule matched, so the rule must match one.
    pub(super) replaces_prefix: bool,
}

impl Attached {
    /// A policy that was compiled, or the reason why it was not.
    pub(crate) fn new(
        kind: &str,
        policy: Result<Parsed, Arc<str>>,
        origin: Arc<str>,
        at: Origin,
        body: &Value,
    ) -> Option<Self> {
        let kind = KINDS.iter().position(|known| known.name == kind)?;
        let replaces_prefix = body.pointer("/path/type").is_some_and(|kind| kind == "ReplacePrefixMatch");
        let is_shadow = policy.as_ref().is_ok_and(|parsed| parsed.is_shadow);
        let policy = policy.map(|parsed| Arc::new(parsed.policy));
        Some(Self { kind, policy, origin, at, is_shadow, replaces_prefix })
    }

    /// Something that is asked for and not there: what asks for it refuses traffic.
    pub(crate) fn missing(reason: String, origin: Arc<str>, at: Origin) -> Self {
        Self {
            kind: UNKNOWN,
            policy: Err(reason.into()),
            origin,
            at,
            is_shadow: false,
            replaces_prefix: false,
        }
    }

    /// True when only one of the two is to run. One in shadow mode takes the place of none that is obeyed.
    pub(super) fn is_same_kind(&self, other: &Self) -> bool {
        self.kind == other.kind && self.is_shadow == other.is_shadow
    }

    /// The key of its kind; empty for one that is not known.
    pub(crate) fn kind(&self) -> &'static str {
        KINDS.get(self.kind).map_or("", |kind| kind.name)
    }

    /// The policy, or why it cannot be given.
    pub(crate) fn policy(&self) -> Result<&Policy, &Arc<str>> {
        self.policy.as_ref().map(|policy| &**policy)
    }

    /// The same, to be kept.
    pub(crate) fn shared(&self) -> Result<&Arc<Policy>, &Arc<str>> {
        self.policy.as_ref()
    }

    /// It is asked, and not obeyed.
    pub(crate) fn is_shadow(&self) -> bool {
        self.is_shadow
    }

    /// Where it is written.
    pub(crate) fn at(&self) -> &Origin {
        &self.at
    }
}

/// The mistake of a policy that replaces the matched prefix, on a rule that has not exactly one.
pub(crate) fn prefix_conflict(attached: &Attached, doc: &Doc, rule: Span) -> Diag {
    let what = "`ReplacePrefixMatch` for a rule that has not exactly one match of type `PathPrefix`";
    Diag::error(Rule::Conflict, attached.at.clone(), what)
        .why("it would not be clear which prefix is replaced (Gateway API)")
        .fix("give each prefix a rule of its own, or use `ReplaceFullPath`")
        .related(doc.origin(rule), "the rule")
}

/// What is attached at one place, in the order of its kinds' documents.
pub(crate) type Level = Vec<Attached>;

/// Adds to a level. Of two policies of one kind that does not combine, the first stays and the other is told of.
pub(super) fn add(level: &mut Level, attached: Attached, report: &mut Report) {
    let combines = KINDS.get(attached.kind).is_some_and(|kind| kind.merge == Merge::Union);
    let before = level.iter().find(|other| attached.is_same_kind(other) && !combines);
    match before {
        Some(before) => overruled(&attached, before, report),
        None => level.push(attached),
    }
}

/// Tells that a policy has no effect because of another one at the same place.
pub(super) fn overruled(loser: &Attached, winner: &Attached, report: &mut Report) {
    let kind = KINDS.get(loser.kind).map_or("", |kind| kind.name);
    let diag = Diag::warning(Rule::NoEffect, loser.at.clone(), format!("this `{kind}` has no effect"))
        .why(format!("{} attaches the same kind to the same place, and comes first", winner.origin))
        .fix("remove one of them")
        .related(winner.at.clone(), "this one holds");
    report.push(diag);
}

/// As what a policy that is attached to a Service runs: at the listener of the side that enforces it, or, if it belongs to
/// each call of the service, as a policy of its backend.
pub(super) fn place_at_service(attached: &Attached) -> Attach {
    match KINDS.get(attached.kind) {
        Some(kind) if is_of_backend(attached) || enforcer(kind.name).is_none() => Attach::BACKEND,
        _ => Attach::LISTENER,
    }
}

/// True for what callers enforce on each call of a Service, wherever the route that leads there is attached.
pub(crate) fn is_of_backend(attached: &Attached) -> bool {
    let has_place = KINDS.get(attached.kind).is_some_and(|kind| kind.attach.has(Attach::BACKEND));
    has_place && enforcer(attached.kind()) == Some(Enforcer::Client)
}

/// True for what the proxy of a Service enforces. What is not known is refused there.
pub(crate) fn is_of_server(attached: &Attached) -> bool {
    enforcer(attached.kind()).is_none_or(|side| side != Enforcer::Client)
}

/// True for what callers do beside what they do on each call of a Service.
pub(crate) fn is_of_caller(attached: &Attached) -> bool {
    enforcer(attached.kind()).is_some_and(|side| side != Enforcer::Server) && !is_of_backend(attached)
}

/// The same policy, refused when its kind may not be attached to such a place.
pub(crate) fn at_place(attached: &Attached, place: Attach, what: &str, report: &mut Report) -> Attached {
    let mut attached = attached.clone();
    let Some(kind) = KINDS.get(attached.kind).filter(|kind| !kind.attach.has(place)) else {
        return attached;
    };
    let diag = Diag::error(
        Rule::Policy,
        attached.at.clone(),
        format!("`{}` cannot be attached to {what}", kind.name),
    )
    .why(format!("it can be attached to: {:?}", kind.attach));
    report.push(diag);
    attached.policy = Err(format!("`{}` cannot be attached to {what}", kind.name).into());
    attached
}

/// The kind of what cannot be told: it combines with nothing and is overruled by nothing.
pub(super) const UNKNOWN: usize = usize::MAX;
