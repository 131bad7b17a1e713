//! Cases from the text of the Gateway API specification.

use std::sync::Arc;

use rhumb_codec::head::Method;
use rhumb_route::explain::{Condition, Criterion};
use rhumb_route::path::{GrpcMatchType, PathMatch};
use rhumb_route::table::Missing;
use rhumb_route::{Builder, Host, Lookup, RequestMatch, Rule, Verdict};

use crate::build::{found, matched, request, rule, table};

fn check(rules: Vec<Rule<&'static str>>, cases: &[(&str, &str, Option<&str>)]) {
    let table = table(rules);
    for &(host, text, expected) in cases {
        let head = request(text);
        assert_eq!(found(&table, host, &head), expected, "{host} {text}");
        let explained = table.explain(host.as_bytes(), &head);
        let chosen = explained.candidates.iter().find(|c| c.verdict == Verdict::Chosen).map(|c| c.rule.value);
        assert_eq!(chosen, expected, "{host} {text} explained");
    }
}

#[test]
fn a_rule_holds_when_any_of_its_matches_holds_and_a_match_when_all_of_it_holds() {
    check(
        vec![
            rule("ns/a", 0, &[], vec![matched("/foo version:v2"), matched("/v2/foo")], "a"),
            rule("ns/b", 0, &[], vec![matched("/m POST color:red q=1")], "b"),
        ],
        &[
            ("h", "GET /foo version:v2", Some("a")),
            ("h", "GET /foo/bar version:v2", Some("a")),
            ("h", "GET /foo", None),
            ("h", "GET /foo version:v1", None),
            ("h", "GET /v2/foo", Some("a")),
            ("h", "GET /v2/foobar", None),
            ("h", "POST /m?q=1 color:red", Some("b")),
            ("h", "GET /m?q=1 color:red", None),
            ("h", "POST /m?q=2 color:red", None),
            ("h", "POST /m?q=1", None),
        ],
    );
}

#[test]
fn path_decides_before_method_fields_and_query() {
    check(
        vec![
            rule("ns/a", 0, &[], vec![matched("/ GET a:1 b:2 q=1")], "root"),
            rule("ns/a", 1, &[], vec![matched("/a")], "prefix"),
            rule("ns/a", 2, &[], vec![matched("/a/b/")], "longer"),
            rule("ns/a", 3, &[], vec![matched("=/a/b")], "exact"),
            rule("ns/a", 4, &[], vec![matched("~/a/b/c.*")], "regex below a prefix"),
        ],
        &[
            ("h", "GET /?q=1 a:1 b:2", Some("root")),
            ("h", "GET /a?q=1 a:1 b:2", Some("prefix")),
            ("h", "GET /a/b?q=1 a:1 b:2", Some("exact")),
            ("h", "GET /a/b/?q=1 a:1 b:2", Some("longer")),
            ("h", "GET /a/b/cd", Some("regex below a prefix")),
            ("h", "GET /ab?q=1 a:1 b:2", Some("root")),
            ("h", "GET /x", None),
        ],
    );
}

#[test]
fn method_then_fields_then_query_decide() {
    check(
        vec![
            rule("ns/a", 0, &[], vec![matched("/p")], "plain"),
            rule("ns/a", 1, &[], vec![matched("/p q=1 r=2")], "two parameters"),
            rule("ns/a", 2, &[], vec![matched("/p a:1")], "field"),
            rule("ns/a", 3, &[], vec![matched("/p a:1 q=1")], "field and parameter"),
            rule("ns/a", 4, &[], vec![matched("/p a:1 b:2")], "two fields"),
            rule("ns/a", 5, &[], vec![matched("/p PATCH")], "method"),
        ],
        &[
            ("h", "GET /p", Some("plain")),
            ("h", "GET /p?q=1&r=2", Some("two parameters")),
            ("h", "GET /p?q=1&r=2 a:1", Some("field and parameter")),
            ("h", "GET /p?r=2 a:1", Some("field")),
            ("h", "GET /p?q=1&r=2 a:1 b:2", Some("two fields")),
            ("h", "PATCH /p?q=1&r=2 a:1 b:2", Some("method")),
        ],
    );
}

#[test]
fn age_then_name_then_order_decide_ties() {
    let aged = |created, rule: Rule<&'static str>| Rule { created, ..rule };
    check(
        vec![
            aged(20, rule("a/young", 0, &[], vec![matched("/age")], "young")),
            aged(10, rule("z/old", 0, &[], vec![matched("/age")], "old")),
            aged(10, rule("b/x", 0, &[], vec![matched("/name")], "b/x")),
            aged(10, rule("a/y", 7, &[], vec![matched("/name")], "a/y")),
            rule("r/r", 1, &[], vec![matched("/order")], "second"),
            rule("r/r", 0, &[], vec![matched("/other"), matched("/order")], "first"),
        ],
        &[
            ("h", "GET /age", Some("old")),
            ("h", "GET /name", Some("a/y")),
            ("h", "GET /order", Some("first")),
        ],
    );
}

#[test]
fn the_most_specific_hostname_decides_first_and_others_are_tried_after_it() {
    check(
        vec![
            rule("ns/any", 0, &[], vec![matched("=/x a:1 b:2"), matched("/any")], "any"),
            rule("ns/com", 0, &["*.com"], vec![matched("/")], "*.com"),
            rule("ns/wild", 0, &["*.example.com", "other.net"], vec![matched("=/x a:1")], "*.example.com"),
            rule("ns/exact", 0, &["a.example.com"], vec![matched("/x"), matched("/y")], "a.example.com"),
        ],
        &[
            ("a.example.com", "GET /x a:1 b:2", Some("a.example.com")),
            ("A.Example.com:8080", "GET /x", Some("a.example.com")),
            ("b.a.example.com", "GET /x a:1 b:2", Some("*.example.com")),
            ("a.example.com", "GET /z", Some("*.com")),
            ("example.com", "GET /x a:1", Some("*.com")),
            ("com", "GET /x a:1 b:2", Some("any")),
            ("a.example.com", "GET /any", Some("*.com")),
            ("other.net", "GET /x a:1", Some("*.example.com")),
            ("other.net", "GET /any", Some("any")),
            ("other.net", "GET /y", None),
            ("[::1]:80", "GET /any", Some("any")),
        ],
    );
}

// Gateway API, Listener: "Listeners that are distinct only by Hostname".
#[test]
fn the_most_specific_listener_owns_the_request() {
    let mut builder = Builder::new();
    let everything = builder.listener(&Host::Any);
    let wildcard = builder.listener(&Host::parse("*.example.com").unwrap());
    let nested = builder.listener(&Host::parse("*.foo.example.com").unwrap());
    let exact = builder.listener(&Host::parse("bar.example.com").unwrap());
    assert_eq!(builder.listener(&Host::parse("BAR.example.com").unwrap()), exact);
    for (listener, hosts, text, value) in [
        (everything, &[][..], "/", "everything"),
        (wildcard, &[], "/w", "wildcard"),
        (wildcard, &["bar.example.com", "example.net"], "/", "hidden by a listener"),
        (wildcard, &["*.com"], "/c", "wider than the listener"),
        (nested, &["a.foo.example.com"], "/", "nested"),
    ] {
        builder.attach(listener, Arc::new(rule("ns/r", 0, hosts, vec![matched(text)], value)));
    }
    let table = builder.build();
    for (host, target, expected, listener) in [
        ("example.com", "/", Some("everything"), "*"),
        ("x.example.com", "/w", Some("wildcard"), "*.example.com"),
        ("x.example.com", "/c", Some("wider than the listener"), "*.example.com"),
        ("x.example.com", "/other", None, "*.example.com"),
        ("bar.example.com", "/", None, "bar.example.com"),
        ("x.bar.example.com", "/w", Some("wildcard"), "*.example.com"),
        ("a.foo.example.com", "/", Some("nested"), "*.foo.example.com"),
        ("b.foo.example.com", "/w", None, "*.foo.example.com"),
        ("foo.example.com", "/w", Some("wildcard"), "*.example.com"),
        ("example.net", "/", Some("everything"), "*"),
    ] {
        assert_eq!(found(&table, host, &request(&format!("GET {target}"))), expected, "{host}{target}");
        assert_eq!(table.listener(host.as_bytes()).map(Host::to_string).as_deref(), Some(listener));
    }
}

#[test]
fn grpc_matches_rank_by_service_then_method() {
    let grpc = |service, method| {
        let path = PathMatch::grpc(GrpcMatchType::Exact, Some(service), Some(method)).unwrap();
        RequestMatch::new(path, None, vec![], vec![]).unwrap()
    };
    let pattern =
        PathMatch::grpc(GrpcMatchType::RegularExpression, Some("foo\\.(Bar|Qux)"), Some("Re.*")).unwrap();
    let any = RequestMatch::new(PathMatch::grpc_any(), None, vec![], vec![]).unwrap();
    check(
        vec![
            rule("ns/a", 0, &[], vec![any], "any"),
            rule("ns/a", 1, &[], vec![grpc("", "Baz")], "method"),
            rule("ns/a", 2, &[], vec![grpc("foo.Bar", "")], "service"),
            rule("ns/a", 3, &[], vec![grpc("foo.Bar", "Baz")], "both"),
            rule("ns/a", 4, &[], vec![RequestMatch::new(pattern, None, vec![], vec![]).unwrap()], "pattern"),
        ],
        &[
            ("h", "POST /foo.Bar/Baz", Some("both")),
            ("h", "POST /foo.Bar/Other", Some("service")),
            ("h", "POST /foo.Bar/Read", Some("pattern")),
            ("h", "POST /foo.Qux/Read", Some("pattern")),
            ("h", "POST /foo.Qux/Baz", Some("method")),
            ("h", "POST /foo.Qux/Other", Some("any")),
            ("h", "POST /foo.Qux", None),
        ],
    );
}

#[test]
fn requests_without_a_rule_say_how_far_they_got() {
    let mut builder = Builder::new();
    let listener = builder.listener(&Host::parse("*.example.com").unwrap());
    for (host, text) in [
        ("a.example.com", "/x GET"),
        ("a.example.com", "/x DELETE a:1"),
        ("*.example.com", "/x PUT"),
        ("*.example.com", "=/y POST"),
    ] {
        builder.attach(listener, Arc::new(rule("ns/r", 0, &[host], vec![matched(text)], ())));
    }
    let only = Builder::<()>::new();
    let none = only.build();
    let table = builder.build();
    let allowed = |host: &str, text: &str| match table.find(host.as_bytes(), &request(text)) {
        Lookup::MethodNotAllowed { allow } => {
            let mut value = Vec::new();
            allow.write_allow(&mut value);
            Ok(String::from_utf8(value).unwrap())
        }
        Lookup::NotFound(missing) => Err(missing),
        Lookup::Found(_) => unreachable!("{host} {text}"),
    };
    assert_eq!(allowed("example.net", "GET /x"), Err(Missing::Listener));
    assert_eq!(allowed("a.example.com", "GET /z"), Err(Missing::Rule));
    assert_eq!(allowed("a.example.com", "POST /x"), Ok("GET, PUT".into()));
    assert_eq!(allowed("a.example.com", "BREW /x a:1"), Ok("GET, PUT, DELETE".into()));
    assert_eq!(allowed("b.example.com", "GET /x"), Ok("PUT".into()));
    assert_eq!(allowed("b.example.com", "GET /y"), Ok("POST".into()));
    assert!(matches!(none.find(b"h", &request("GET /")), Lookup::NotFound(Missing::Listener)));
    let mut hostless = Builder::new();
    let listener = hostless.listener(&Host::Any);
    hostless.attach(listener, Arc::new(rule("ns/r", 0, &["a.example"], vec![matched("/")], ())));
    assert!(matches!(hostless.build().find(b"h", &request("GET /")), Lookup::NotFound(Missing::Host)));
}

#[test]
fn an_explanation_says_why_each_rule_won_lost_or_differs() {
    let table = table(vec![
        rule("ns/a", 0, &["a.example"], vec![matched("/x")], "chosen"),
        rule("ns/b", 0, &["*.example"], vec![matched("=/x")], "host"),
        rule("ns/c", 0, &["a.example"], vec![matched("/")], "path"),
        rule("ns/d", 0, &["a.example"], vec![matched("/x")], "name"),
        rule("ns/e", 0, &["b.example", "c.example"], vec![matched("/x")], "other host"),
        rule("ns/f", 0, &["a.example"], vec![matched("/y")], "other path"),
        rule("ns/g", 0, &["a.example"], vec![matched("/x POST")], "other method"),
        rule("ns/h", 0, &["a.example"], vec![matched("/x a:1 b:1")], "other field"),
        rule("ns/i", 0, &["a.example"], vec![matched("/x q=1")], "other query"),
        rule("ns/a", 1, &["a.example"], vec![matched("/x")], "order"),
    ]);
    let explained = table.explain(b"a.example:80", &request("GET /x?q=%32 a:1"));
    assert_eq!((explained.listener, explained.omitted), (Some(&Host::Any), 0));
    let verdict = |value: &str| {
        let mut all = explained.candidates.iter().filter(|c| c.rule.value == value);
        all.next().unwrap().verdict.clone()
    };
    assert_eq!(explained.candidates[0].rule.value, "chosen");
    for (value, verdict_expected) in [
        ("chosen", Verdict::Chosen),
        ("host", Verdict::LostBy(Criterion::Host)),
        ("path", Verdict::LostBy(Criterion::Path)),
        ("name", Verdict::LostBy(Criterion::RouteName)),
        ("order", Verdict::LostBy(Criterion::RuleOrder)),
    ] {
        assert_eq!(verdict(value), verdict_expected, "{value}");
    }
    for (value, condition, wanted, got) in [
        ("other host", Condition::Host, "b.example, c.example", Some("a.example")),
        ("other path", Condition::Path, "/y/*", Some("/x")),
        ("other method", Condition::Method, "POST", Some("GET")),
        ("other field", Condition::Field("b".into()), "= 1", None),
        ("other query", Condition::Query("q".into()), "= 1", Some("2")),
    ] {
        let Verdict::Differs(difference) = verdict(value) else { unreachable!("{value}") };
        assert_eq!(
            (difference.condition, difference.wanted.as_str(), difference.got.as_deref()),
            (condition, wanted, got),
            "{value}"
        );
    }
}

#[test]
fn an_explanation_is_bounded() {
    let rules = (0..500).map(|i| rule("ns/a", i, &[], vec![matched(&format!("/{i}"))], i)).collect();
    let table = table(rules);
    let explained = table.explain(b"h", &request("GET /499"));
    assert_eq!((explained.candidates.len(), explained.omitted), (64, 436));
    assert_eq!(explained.candidates[0].rule.value, 499);
}

#[test]
fn other_methods_than_the_named_are_one() {
    let other = RequestMatch::new(PathMatch::default(), Some(Method::Other), vec![], vec![]).unwrap();
    check(
        vec![rule("ns/a", 0, &[], vec![other], "other")],
        &[("h", "BREW /", Some("other")), ("h", "GET /", None)],
    );
}
