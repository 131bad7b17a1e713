//! Why a rule gets a request and others do not: a linear look at every rule, for people. Does not use the table's
//! index, so the two check each other in tests.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use rhumb_codec::head::{Method, RequestHead};

use crate::host::{Host, RequestHost};
use crate::rule::{RequestMatch, Rule};
use crate::table::{Table, precedence};

/// Most candidates in an explanation. Those that say the least are left out first.
pub const CANDIDATES_LIMIT: usize = 64;

/// Longest value of the request that an explanation repeats, in bytes; the rest is cut.
pub const SHOWN_VALUE_LIMIT: usize = 200;

/// What happens to a request and why.
#[derive(Debug)]
pub struct Explanation<'t, T> {
    /// Hostname of the listener that owns the request; `None` when no listener has its hostname.
    pub listener: Option<&'t Host>,
    /// The rules of that listener: the chosen one, then those that match as well in the order in which they would be
    /// chosen, then those that differ, the nearest first. At most [`CANDIDATES_LIMIT`].
    pub candidates: Vec<Candidate<'t, T>>,
    /// Number of matches that were left out.
    pub omitted: usize,
}

/// One match of one rule and what became of it.
#[derive(Debug)]
pub struct Candidate<'t, T> {
    /// The rule.
    pub rule: &'t Rule<T>,
    /// Its match.
    pub matched: &'t RequestMatch,
    /// Place of the match in the rule.
    pub index: usize,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets the request.
    Chosen,
    /// It would get the request if it were not for the chosen one, which is better by this.
    LostBy(Criterion),
    /// It does not match.
    Differs(Difference),
}

/// What decides between two matches that both hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// The other's hostname is more specific.
    Host,
    /// The other's path match is exact, a longer prefix, or of a kind that comes first.
    Path,
    /// The other asks for a method.
    Method,
    /// The other asks for more fields.
    Fields,
    /// The other asks for more query parameters.
    Query,
    /// The other's route is older.
    RouteAge,
    /// The other's route comes first in alphabetical order.
    RouteName,
    /// The other comes first in its route.
    RuleOrder,
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the chosen route's hostname is more specific",
            Self::Path => "the chosen path match is more specific",
            Self::Method => "the chosen match asks for a method",
            Self::Fields => "the chosen match asks for more header fields",
            Self::Query => "the chosen match asks for more query parameters",
            Self::RouteAge => "the chosen route is older",
            Self::RouteName => "the chosen route comes first in alphabetical order",
            Self::RuleOrder => "the chosen match comes first in its route",
        })
    }
}

/// The first condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which one.
    pub condition: Condition,
    /// What the match asks for.
    pub wanted: String,
    /// What the request has; `None` when it has nothing of the kind.
    pub got: Option<String>,
}

/// A condition of a match, in the order in which they are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The hostname.
    Host,
    /// The path.
    Path,
    /// The method.
    Method,
    /// The field with this name.
    Field(String),
    /// The cookie with this name.
    Cookie(String),
    /// The query parameter with this name.
    Query(String),
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Path => f.write_str("path"),
            Self::Method => f.write_str("method"),
            Self::Field(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::Query(name) => write!(f, "query parameter {name}"),
        }
    }
}

impl<T> Table<T> {
    /// Why [`Table::find`] says what it says. Takes time in proportion to the number of rules.
    pub fn explain(&self, host: &[u8], head: &RequestHead) -> Explanation<'_, T> {
        let host = RequestHost::of(host);
        let host = host.as_bytes();
        let Some(listener) = self.listener_for(host) else {
            return Explanation { listener: None, candidates: Vec::new(), omitted: 0 };
        };
        let mut looks: Vec<_> = listener
            .rules
            .iter()
            .filter_map(|&i| self.rules.get(i as usize))
            .flat_map(|rule| {
                let best = best_host(rule, host);
                rule.matches.iter().enumerate().map(move |(index, matched)| {
                    let stage = stage(best.is_some(), matched, head);
                    Look { rule, matched, index, host: best, stage }
                })
            })
            .collect();
        looks.sort_by(|a, b| b.stage.cmp(&a.stage).then_with(|| a.compare(b).0));
        let omitted = looks.len().saturating_sub(CANDIDATES_LIMIT);
        looks.truncate(CANDIDATES_LIMIT);
        let chosen = looks.first().filter(|look| look.stage == Stage::Holds).copied();
        let candidates = looks
            .iter()
            .enumerate()
            .map(|(i, look)| {
                let verdict = match (look.stage, &chosen) {
                    (Stage::Holds, _) if i == 0 => Verdict::Chosen,
                    (Stage::Holds, Some(chosen)) => Verdict::LostBy(chosen.compare(look).1),
                    _ => Verdict::Differs(difference(look, host, head)),
                };
                Candidate { rule: look.rule, matched: look.matched, index: look.index, verdict }
            })
            .collect();
        Explanation { listener: Some(&listener.host), candidates, omitted }
    }
}

/// How far a match holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Nothing,
    Host,
    Path,
    Method,
    Holds,
}

struct Look<'t, T> {
    rule: &'t Rule<T>,
    matched: &'t RequestMatch,
    index: usize,
    /// Specificity of the route's hostname that matches.
    host: Option<(u8, usize)>,
    stage: Stage,
}

impl<T> Clone for Look<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Look<'_, T> {}

impl<T> Look<'_, T> {
    /// Less is better; and what decides.
    fn compare(&self, other: &Self) -> (Ordering, Criterion) {
        let (a, b) = (self.matched, other.matched);
        let steps = [
            (Reverse(self.host).cmp(&Reverse(other.host)), Criterion::Host),
            (Reverse(a.path().rank()).cmp(&Reverse(b.path().rank())), Criterion::Path),
            (a.method().is_none().cmp(&b.method().is_none()), Criterion::Method),
            (b.fields().len().cmp(&a.fields().len()), Criterion::Fields),
            (b.query().len().cmp(&a.query().len()), Criterion::Query),
            (self.rule.created.cmp(&other.rule.created), Criterion::RouteAge),
            (self.rule.route.cmp(&other.rule.route), Criterion::RouteName),
        ];
        let last = precedence(self.rule, other.rule).then(self.index.cmp(&other.index));
        steps.into_iter().find(|(order, _)| order.is_ne()).unwrap_or((last, Criterion::RuleOrder))
    }
}

fn best_host<T>(rule: &Rule<T>, host: &[u8]) -> Option<(u8, usize)> {
    if rule.hosts.is_empty() {
        return Some(Host::Any.specificity());
    }
    rule.hosts.iter().filter(|wanted| wanted.covers(host)).map(Host::specificity).max()
}

fn stage(host_matches: bool, matched: &RequestMatch, head: &RequestHead) -> Stage {
    if !host_matches {
        Stage::Nothing
    } else if !matched.path().matches(head.path()) {
        Stage::Host
    } else if matched.method().is_some_and(|method| method != head.method()) {
        Stage::Path
    } else if !matched.conditions_hold(head) {
        Stage::Method
    } else {
        Stage::Holds
    }
}

fn difference<T>(look: &Look<'_, T>, host: &[u8], head: &RequestHead) -> Difference {
    let matched = look.matched;
    match look.stage {
        Stage::Nothing => {
            let hosts: Vec<_> = look.rule.hosts.iter().map(Host::to_string).collect();
            Difference { condition: Condition::Host, wanted: hosts.join(", "), got: Some(shown(host)) }
        }
        Stage::Host => Difference {
            condition: Condition::Path,
            wanted: matched.path().to_string(),
            got: Some(shown(head.path())),
        },
        Stage::Path => Difference {
            condition: Condition::Method,
            wanted: match matched.method() {
                Some(Method::Other) | None => "a method without a name of its own".to_owned(),
                Some(method) => method.name().to_owned(),
            },
            got: Some(shown(head.method_name())),
        },
        Stage::Method | Stage::Holds => condition_difference(matched, head),
    }
}

fn condition_difference(matched: &RequestMatch, head: &RequestHead) -> Difference {
    if let Some(field) = matched.fields().iter().find(|field| !field.matches(head)) {
        return Difference {
            condition: match field.cookie_name() {
                Some(name) => Condition::Cookie(shown(name)),
                None => Condition::Field(shown(field.name().as_bytes())),
            },
            wanted: field.value().to_string(),
            got: field.found(head).map(|value| shown(&value)),
        };
    }
    let query = head.query().unwrap_or_default();
    let parameter = matched.query().iter().find(|parameter| !parameter.matches(query));
    Difference {
        condition: Condition::Query(parameter.map_or_else(String::new, |p| shown(p.name()))),
        wanted: parameter.map_or_else(String::new, |p| p.value().to_string()),
        got: parameter.and_then(|p| p.found(query)).map(|value| shown(&value)),
    }
}

fn shown(value: &[u8]) -> String {
    let cut = value.get(..SHOWN_VALUE_LIMIT).unwrap_or(value);
    let mut text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < value.len() {
        text.push('…');
    }
    text
}
