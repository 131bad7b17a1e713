//! Rules and requests in few words.

use std::sync::Arc;

use rhumb_base::name::RouteName;
use rhumb_codec::field::{FieldName, Known};
use rhumb_codec::head::{Method, RequestHead};
use rhumb_route::field::{FieldMatch, QueryMatch, ValueMatch};
use rhumb_route::path::PathMatch;
use rhumb_route::{Builder, Host, Lookup, RequestMatch, Rule, Table};

/// `=/exact`, `/prefix`, `~pattern`.
pub(crate) fn path(text: &str) -> PathMatch {
    match text.as_bytes()[0] {
        b'=' => PathMatch::exact(&text[1..]).unwrap(),
        b'~' => PathMatch::pattern(&text[1..]).unwrap(),
        _ => PathMatch::prefix(text).unwrap(),
    }
}

/// Path, then `METHOD`, `name:value` for fields and `name=value` for the query, in any number, separated by spaces.
pub(crate) fn matched(text: &str) -> RequestMatch {
    let mut words = text.split(' ');
    let path = path(words.next().unwrap());
    let (mut method, mut fields, mut query) = (None, Vec::new(), Vec::new());
    for word in words {
        if let Some((name, value)) = word.split_once(':') {
            let name = FieldName::parse(name.as_bytes()).unwrap();
            fields.push(FieldMatch::new(name, ValueMatch::exact(value)).unwrap());
        } else if let Some((name, value)) = word.split_once('=') {
            query.push(QueryMatch::new(name, ValueMatch::exact(value)));
        } else {
            method = Some(Method::of(word.as_bytes()));
        }
    }
    RequestMatch::new(path, method, fields, query).unwrap()
}

pub(crate) fn rule<T>(
    route: &str,
    index: u32,
    hosts: &[&str],
    matches: Vec<RequestMatch>,
    value: T,
) -> Rule<T> {
    let hosts = hosts.iter().map(|host| Host::parse(host).unwrap()).collect();
    Rule { route: RouteName::from(route), created: 0, index, hosts, matches: matches.into(), value }
}

/// `METHOD target`, then fields as `name:value`.
pub(crate) fn request(text: &str) -> RequestHead {
    let mut words = text.split(' ');
    let mut head = RequestHead::new();
    head.set_method(words.next().unwrap().as_bytes());
    head.set_target(words.next().unwrap().as_bytes());
    for (name, value) in words.filter_map(|word| word.split_once(':')) {
        head.fields.append_raw(Known::of(name.as_bytes()), name.as_bytes(), value.as_bytes());
    }
    head
}

/// One listener for every host.
pub(crate) fn table<T>(rules: Vec<Rule<T>>) -> Table<T> {
    let mut builder = Builder::new();
    let listener = builder.listener(&Host::Any);
    for rule in rules {
        builder.attach(listener, Arc::new(rule));
    }
    builder.build()
}

pub(crate) fn found<T: Copy>(table: &Table<T>, host: &str, head: &RequestHead) -> Option<T> {
    match table.find(host.as_bytes(), head) {
        Lookup::Found(found) => Some(found.rule.value),
        _ => None,
    }
}
