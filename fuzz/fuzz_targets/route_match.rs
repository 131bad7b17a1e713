//! The index of a table and the linear explanation choose the same match for any rules and any request.
//!
//! Input, as text: first line `host method target name:value…`, then one rule per line: `listener hosts path` followed by
//! `METHOD`, `name:value` and `name=value`; hosts are separated by commas, `-` is none. `=` before the path means exact,
//! `~` a regular expression, `@service/method` a gRPC method.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rhumb_base::name::RouteName;
use rhumb_codec::field::{FieldName, Known};
use rhumb_codec::head::{Method, RequestHead};
use rhumb_route::field::{FieldMatch, QueryMatch, ValueMatch};
use rhumb_route::normalize::{Options, normalize_head};
use rhumb_route::path::{GrpcMatchType, PathMatch};
use rhumb_route::table::Missing;
use rhumb_route::{Builder, Host, Lookup, RequestMatch, Rule, Verdict};

const RULES_LIMIT: usize = 40;

fn path(text: &str) -> Option<PathMatch> {
    match text.split_at_checked(1)? {
        ("=", rest) => PathMatch::exact(rest).ok(),
        // Compiling is slow and not what is tested here.
        ("~", rest) if rest.len() < 12 => PathMatch::pattern(rest).ok(),
        ("@", rest) => match rest.split_once('/') {
            Some((service, method)) => {
                PathMatch::grpc(GrpcMatchType::Exact, Some(service), Some(method)).ok()
            }
            None => Some(PathMatch::grpc_any()),
        },
        _ => PathMatch::prefix(text).ok(),
    }
}

fn rule(line: &str, index: u32) -> Option<(Host, Rule<u32>)> {
    let mut words = line.split(' ');
    let listener = Host::parse(words.next()?).ok()?;
    let hosts: Option<Box<[Host]>> = match words.next()? {
        "-" => Some(Box::default()),
        hosts => hosts.split(',').map(|host| Host::parse(host).ok()).collect(),
    };
    let path = path(words.next()?)?;
    let (mut method, mut fields, mut query) = (None, Vec::new(), Vec::new());
    for word in words {
        if let Some((name, value)) = word.split_once(':') {
            let name = FieldName::parse(name.as_bytes()).ok()?;
            fields.push(FieldMatch::new(name, ValueMatch::exact(value)).ok()?);
        } else if let Some((name, value)) = word.split_once('=') {
            query.push(QueryMatch::new(name, ValueMatch::exact(value)));
        } else {
            method = Some(Method::of(word.as_bytes()));
        }
    }
    let matches = [RequestMatch::new(path, method, fields, query).ok()?].into();
    let route = RouteName::from(if line.len() % 2 == 0 { "a/a" } else { "a/b" });
    let created = u64::from(line.len() % 3 == 0);
    Some((listener, Rule { route, created, index, hosts: hosts?, matches, value: index }))
}

fuzz_target!(|data: &[u8]| {
    let Some(at) = data.iter().position(|&b| b == b'\n') else { return };
    let Ok(rules) = std::str::from_utf8(&data[at + 1..]) else { return };
    let mut words = data[..at].split(|&b| b == b' ');
    let (Some(host), Some(method), Some(target)) = (words.next(), words.next(), words.next()) else { return };
    let mut head = RequestHead::new();
    head.set_method(method);
    head.set_authority(host);
    head.set_target(target);
    for line in words {
        if let Some(colon) = line.iter().position(|&b| b == b':') {
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            head.fields.append_raw(Known::of(name), name, value);
        }
    }
    // Also what has no normal form must not confuse a table.
    let _ = normalize_head(&mut head, Options::default(), &mut Vec::new());

    let mut builder = Builder::new();
    for (index, line) in (0..).zip(rules.split('\n').take(RULES_LIMIT)) {
        if let Some((listener, rule)) = rule(line, index) {
            for host in &rule.hosts {
                let both = host.intersect(&listener);
                assert_eq!(both, listener.intersect(host));
                let meant = host.matches(head.authority()) && listener.matches(head.authority());
                assert_eq!(meant, both.is_some_and(|both| both.matches(head.authority())));
            }
            let listener = builder.listener(&listener);
            builder.attach(listener, Arc::new(rule));
        }
    }
    let table = builder.build();
    let explained = table.explain(head.authority(), &head);
    let chosen = explained.candidates.iter().find(|candidate| candidate.verdict == Verdict::Chosen);
    assert_eq!(table.listener(head.authority()), explained.listener);
    match table.find(head.authority(), &head) {
        Lookup::Found(found) => {
            let chosen = chosen.expect("found, so it is explained");
            assert_eq!(found.rule.value, chosen.rule.value);
            assert!(std::ptr::eq(found.matched, chosen.matched));
        }
        other => {
            assert!(chosen.is_none(), "{other:?} {chosen:?}");
            assert_eq!(matches!(other, Lookup::NotFound(Missing::Listener)), explained.listener.is_none());
        }
    }
});
