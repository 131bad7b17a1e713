//! The table against a linear reading of the specification, on random rules and requests.
//!
//! The reference knows the rules as text only and shares no code with the crate.

use std::cmp::Reverse;
use std::sync::Arc;

use rhumb_base::rng::Rng;
use rhumb_codec::field::FieldName;
use rhumb_codec::head::Method;
use rhumb_route::field::{FieldMatch, QueryMatch, ValueMatch};
use rhumb_route::path::PathMatch;
use rhumb_route::{Builder, Host, RequestMatch, Rule, Table, Verdict};

use crate::build::{found, request};

const HOSTS: &[&str] =
    &["*", "a.com", "b.a.com", "c.b.a.com", "*.com", "*.a.com", "*.b.a.com", "x.org", "*.org", "ba.com"];
const REQUEST_HOSTS: &[&str] = &[
    "a.com",
    "A.com:80",
    "b.a.com.",
    "c.b.a.com",
    "d.c.b.a.com",
    "x.org",
    "y.x.org",
    "com",
    "",
    "127.0.0.1",
    "ba.com",
];
const ELEMENTS: &[&str] = &["a", "b", "ab", "c.d", "one-that-is-longer-than-a-node-holds"];
const PATTERNS: &[&str] = &["/a.*", "/[ab]/.*", ".*b", "/"];
const METHODS: &[&str] = &["GET", "POST", "PUT"];
const NAMES: &[&str] = &["x", "accept", "y"];
const VALUES: &[&str] = &["1", "2"];

#[derive(Debug, Clone)]
struct Text {
    listener: &'static str,
    hosts: Vec<&'static str>,
    created: u64,
    route: String,
    index: u32,
    matches: Vec<MatchText>,
}

#[derive(Debug, Clone)]
struct MatchText {
    kind: char,
    path: String,
    method: Option<&'static str>,
    fields: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

struct RequestText {
    host: &'static str,
    method: &'static str,
    path: String,
    fields: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.below(of.len() as u32) as usize]
}

fn pairs(rng: &mut Rng, odds: u32) -> Vec<(&'static str, &'static str)> {
    let mut names = NAMES.to_vec();
    names.retain(|_| rng.below(odds) == 0);
    names.into_iter().map(|name| (name, one(rng, VALUES))).collect()
}

fn random_path(rng: &mut Rng) -> String {
    let mut path: String = (0..rng.below(4)).map(|_| format!("/{}", one(rng, ELEMENTS))).collect();
    if path.is_empty() || rng.below(5) == 0 {
        path.push('/');
    }
    path
}

fn random_match(rng: &mut Rng) -> MatchText {
    let kind = one(rng, &['=', 'p', 'p', '~']);
    let path = if kind == '~' { one(rng, PATTERNS).to_owned() } else { random_path(rng) };
    let method = (rng.below(3) == 0).then(|| one(rng, METHODS));
    MatchText { kind, path, method, fields: pairs(rng, 9), query: pairs(rng, 12) }
}

fn random_rule(rng: &mut Rng, i: usize) -> Text {
    let mut hosts = HOSTS[1..].to_vec();
    hosts.retain(|_| rng.below(6) == 0);
    Text {
        listener: one(rng, &["*", "*", "*", "*.com", "a.com"]),
        hosts,
        created: u64::from(rng.below(2)),
        route: format!("ns/{}", rng.below(3)),
        // Unique: the same rule of the same route cannot exist twice.
        index: i as u32,
        matches: (0..1 + rng.below(2)).map(|_| random_match(rng)).collect(),
    }
}

impl MatchText {
    fn compile(&self, patterns: &[(&str, PathMatch)]) -> RequestMatch {
        let path = match self.kind {
            '=' => PathMatch::exact(&self.path).unwrap(),
            '~' => patterns.iter().find(|(text, _)| *text == self.path).unwrap().1.clone(),
            _ => PathMatch::prefix(&self.path).unwrap(),
        };
        let name = |name: &str| FieldName::parse(name.as_bytes()).unwrap();
        let fields = self.fields.iter().map(|(n, v)| FieldMatch::new(name(n), ValueMatch::exact(v)).unwrap());
        let query = self.query.iter().map(|(n, v)| QueryMatch::new(n, ValueMatch::exact(v)));
        let method = self.method.map(|method| Method::of(method.as_bytes()));
        RequestMatch::new(path, method, fields.collect(), query.collect()).unwrap()
    }

    /// "a path element by element basis", "a trailing / is ignored"
    fn elements(&self) -> Vec<&str> {
        self.path.trim_end_matches('/').split('/').collect()
    }

    fn holds(&self, request: &RequestText) -> bool {
        let path = match self.kind {
            '=' => self.path == request.path,
            '~' => pattern_holds(&self.path, &request.path),
            _ => {
                let (wanted, got) = (self.elements(), request.path.split('/').collect::<Vec<_>>());
                got.len() >= wanted.len() && got[..wanted.len()] == wanted[..]
            }
        };
        path && self.method.is_none_or(|method| method == request.method)
            && self.fields.iter().all(|field| request.fields.contains(field))
            && self.query.iter().all(|parameter| request.query.contains(parameter))
    }
}

/// What the expressions of [`PATTERNS`] mean.
fn pattern_holds(pattern: &str, path: &str) -> bool {
    match pattern {
        "/a.*" => path.starts_with("/a"),
        "/[ab]/.*" => path.starts_with("/a/") || path.starts_with("/b/"),
        ".*b" => path.ends_with('b'),
        _ => path == pattern,
    }
}

fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => suffix.is_empty() || host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

/// "Characters in a matching non-wildcard hostname", "Characters in a matching hostname".
fn host_rank(pattern: &str) -> (usize, usize) {
    let named = if pattern.starts_with('*') { 0 } else { pattern.len() };
    (named, if pattern == "*" { 0 } else { pattern.len() })
}

fn expected(rules: &[Text], listeners: &[&'static str], request: &RequestText) -> Option<usize> {
    let host = request.host.to_ascii_lowercase();
    let host = host.split(':').next().unwrap().trim_end_matches('.');
    let owner = listeners.iter().filter(|l| host_matches(l, host)).max_by_key(|l| host_rank(l))?;
    let mut best = None;
    for (i, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.listener == *owner) {
        let hosts = if rule.hosts.is_empty() { &["*"][..] } else { &rule.hosts };
        for pattern in hosts.iter().filter(|pattern| host_matches(pattern, host)) {
            for (k, matched) in rule.matches.iter().enumerate().filter(|(_, m)| m.holds(request)) {
                let path = match matched.kind {
                    '=' => (2, 0),
                    '~' => (1, 0),
                    _ => (0, matched.path.trim_end_matches('/').len()),
                };
                let key = (
                    Reverse(host_rank(pattern)),
                    Reverse(path),
                    Reverse(matched.method.is_some()),
                    Reverse(matched.fields.len()),
                    Reverse(matched.query.len()),
                    rule.created,
                    rule.route.clone(),
                    (rule.index, k),
                );
                if best.as_ref().is_none_or(|(other, _)| key < *other) {
                    best = Some((key, i));
                }
            }
        }
    }
    best.map(|(_, i)| i)
}

/// Listeners and a table to build of rules.
fn attached(rules: &[Text], patterns: &[(&str, PathMatch)]) -> (Vec<&'static str>, Builder<usize>) {
    let mut listeners = vec!["*.b.a.com"];
    let mut builder = Builder::new();
    builder.listener(&Host::parse("*.b.a.com").unwrap());
    for (i, rule) in rules.iter().enumerate() {
        listeners.push(rule.listener);
        let listener = builder.listener(&Host::parse(rule.listener).unwrap());
        builder.attach(
            listener,
            Arc::new(Rule {
                route: rule.route.as_str().into(),
                created: rule.created,
                index: rule.index,
                hosts: rule.hosts.iter().map(|host| Host::parse(host).unwrap()).collect(),
                matches: rule.matches.iter().map(|m| m.compile(patterns)).collect(),
                value: i,
            }),
        );
    }
    (listeners, builder)
}

#[test]
fn find_and_explain_agree_with_a_linear_reading_of_the_specification() {
    let patterns: Vec<_> = PATTERNS.iter().map(|text| (*text, PathMatch::pattern(text).unwrap())).collect();
    let (mut hits, mut misses) = (0, 0);
    for seed in 0..1500 {
        let mut rng = Rng::new(seed);
        let count = [1, 5, 20, 60][rng.below(4) as usize];
        let mut rules: Vec<Text> = (0..count).map(|i| random_rule(&mut rng, i)).collect();
        let mut before: Option<Table<usize>> = None;
        // Once built from nothing, then after a table of the same rules, and of ones that differ a little.
        for change in 0..4 {
            let at = rng.below(u32::try_from(count).unwrap()) as usize;
            match change {
                2 => rules[at] = random_rule(&mut rng, at),
                3 => rules.truncate(at.max(1)),
                _ => {}
            }
            let (listeners, builder) = attached(&rules, &patterns);
            let table = builder.build_after(before.as_ref());
            for _ in 0..15 {
                let ask = RequestText {
                    host: one(&mut rng, REQUEST_HOSTS),
                    method: one(&mut rng, METHODS),
                    path: random_path(&mut rng),
                    fields: pairs(&mut rng, 2),
                    query: pairs(&mut rng, 2),
                };
                let query: Vec<_> = ask.query.iter().map(|(n, v)| format!("{n}={v}")).collect();
                let fields: String = ask.fields.iter().map(|(n, v)| format!(" {n}:{v}")).collect();
                let text = format!("{} {}?{}{fields}", ask.method, ask.path, query.join("&"));
                let head = request(&text);
                let expected = expected(&rules, &listeners, &ask);
                let show = || format!("seed {seed}: {} {text}\n{rules:#?}", ask.host);
                assert_eq!(found(&table, ask.host, &head), expected, "{}", show());
                let explained = table.explain(ask.host.as_bytes(), &head);
                let first = explained.candidates.first().filter(|c| c.verdict == Verdict::Chosen);
                assert_eq!(first.map(|c| c.rule.value), expected, "explained, {}", show());
                if expected.is_some() { hits += 1 } else { misses += 1 }
            }
            before = Some(table);
        }
    }
    assert!(hits > 20_000 && misses > 10_000, "{hits} hits, {misses} misses");
}
