//! Which of the policies at several places run, and in what order.

use std::sync::Arc;

use rhumb_model::{Diag, Rule};
use rhumb_policy::{Chain, Hooks, Item, KINDS, Merge, Policy, Priority, Retry, Timeouts, Tracing};

use super::attached::{Attached, Level, overruled};
use crate::report::Report;

/// What a rule does: its chain, and those of its backendRefs.
pub(crate) struct Chains {
    /// Policies of the rule.
    pub(crate) rule: Chain,
    /// Policies of each backendRef; an error refuses the requests that would go there.
    pub(crate) backends: Vec<Result<Chain, Arc<str>>>,
    /// Settings of the rule.
    pub(crate) settings: Settings,
    /// Settings of each backendRef.
    pub(crate) backend_settings: Vec<Settings>,
    /// Why the rule refuses traffic.
    pub(crate) invalid: Option<Arc<str>>,
    /// Replaces the prefix that the rule matched.
    pub(crate) replaces_prefix: Option<Attached>,
}

/// Policies without hooks: what forwarding obeys.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Option<Retry>,
    pub(crate) priority: Priority,
    pub(crate) tracing: Option<Arc<Tracing>>,
}

impl Settings {
    /// What is chosen, and what is `inherited` where nothing is.
    fn of(chosen: &[&Attached], inherited: &Self) -> Self {
        let mut settings = inherited.clone();
        for attached in chosen {
            match attached.policy.as_deref() {
                Ok(Policy::Timeouts(timeouts)) => settings.timeouts = *timeouts,
                Ok(Policy::Priority(priority)) => settings.priority = priority.level,
                Ok(Policy::Retry(retry)) => settings.retry = Some(retry.clone()),
                Ok(Policy::Tracing(tracing)) => {
                    let further = settings.tracing.as_deref();
                    let tracing = further.map_or_else(|| tracing.clone(), |further| tracing.or(further));
                    settings.tracing = Some(Arc::new(tracing));
                }
                _ => {}
            }
        }
        settings
    }
}

/// Works out which policies run. `front` has the levels from the Gateway to the rule's filters, `backends` for each
/// backendRef that of the Backend and that of its filters.
pub(crate) fn chains(front: &[&Level], backends: &[[&Level; 2]]) -> Chains {
    let mut chains = Chains {
        rule: Chain::default(),
        backends: Vec::with_capacity(backends.len()),
        settings: Settings::default(),
        backend_settings: Vec::with_capacity(backends.len()),
        invalid: None,
        replaces_prefix: None,
    };
    // A kind that a backendRef has as well is nearer there: it then runs behind the choice of the backend, for all.
    let moves = |attached: &Attached| {
        KINDS.get(attached.kind).is_some_and(|kind| kind.merge == Merge::MostSpecific)
            && backends.iter().flatten().any(|level| level.iter().any(|other| other.is_same_kind(attached)))
    };
    if front.iter().any(|level| !level.is_empty()) {
        let chosen = choose(front.iter().copied());
        chains.invalid = chosen.iter().find_map(|attached| attached.policy.as_ref().err().cloned());
        chains.replaces_prefix =
            chosen.iter().find(|attached| attached.replaces_prefix).map(|a| (*a).clone());
        chains.settings = Settings::of(&chosen, &Settings::default());
        chains.rule = chain(chosen.into_iter().filter(|attached| !moves(attached)));
    }
    for levels in backends {
        if backends.iter().flatten().all(|level| level.is_empty()) {
            chains.backends.push(Ok(Chain::default()));
            chains.backend_settings.push(chains.settings.clone());
            continue;
        }
        let moved: Level =
            front.iter().flat_map(|level| level.iter()).filter(|a| moves(a)).cloned().collect();
        let chosen = choose([&moved].into_iter().chain(levels.iter().copied()));
        if let Some(replaces) = chosen.iter().find(|attached| attached.replaces_prefix) {
            chains.replaces_prefix = Some((*replaces).clone());
        }
        let error = chosen.iter().find_map(|attached| attached.policy.as_ref().err().cloned());
        chains.backend_settings.push(Settings::of(&chosen, &chains.settings));
        chains.backends.push(match error {
            Some(error) => Err(error),
            None => Ok(chain(chosen.into_iter())),
        });
    }
    chains
}

/// A level with a nearer one over it.
pub(crate) fn nearest(wide: Level, near: Level) -> Level {
    choose([&wide, &near].into_iter()).into_iter().cloned().collect()
}

/// Those that run, from the widest to the nearest.
pub(super) fn choose<'l>(levels: impl Iterator<Item = &'l Level>) -> Vec<&'l Attached> {
    let mut chosen: Vec<&Attached> = Vec::new();
    for attached in levels.flatten() {
        if KINDS.get(attached.kind).is_some_and(|kind| kind.merge == Merge::MostSpecific) {
            chosen.retain(|other| !other.is_same_kind(attached));
        }
        chosen.push(attached);
    }
    chosen
}

pub(super) fn chain<'l>(chosen: impl Iterator<Item = &'l Attached>) -> Chain {
    let items = chosen.filter_map(|attached| {
        let policy = Arc::clone(attached.policy.as_ref().ok()?);
        // Settings have nothing to run.
        if policy.hooks() == Hooks::NONE {
            return None;
        }
        Some(Item { policy, origin: Arc::clone(&attached.origin), is_shadow: attached.is_shadow })
    });
    Chain::new(items.collect())
}

/// The level of a rule's or backendRef's filters. `others` is that of Policies at the same place, which filters overrule.
pub(crate) fn filters(level: Level, others: &Level, report: &mut Report) -> Level {
    let mut filters = Level::new();
    for attached in level {
        let combines = KINDS.get(attached.kind).is_none_or(|kind| kind.merge == Merge::Union);
        if let Some(before) =
            filters.iter().find(|other: &&Attached| attached.is_same_kind(other) && !combines)
        {
            let kind = KINDS.get(attached.kind).map_or("", |kind| kind.name);
            let what = format!("`{kind}` twice in the filters of one place");
            let reason = Err(Arc::from(what.as_str()));
            let diag = Diag::error(Rule::Conflict, attached.at.clone(), what)
                .why("it is not clear which one is meant")
                .fix("remove one of them")
                .related(before.at.clone(), "the other");
            report.push(diag);
            filters.push(Attached { policy: reason, ..attached });
            continue;
        }
        if let Some(other) = others.iter().find(|other| attached.is_same_kind(other) && !combines) {
            overruled(other, &attached, report);
        }
        filters.push(attached);
    }
    filters
}
