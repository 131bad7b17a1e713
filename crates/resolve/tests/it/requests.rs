//! What Gateway API says about which rule a request gets, from documents to the answer of the table.

use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use rhumb_plan::Plan;
use rhumb_route::Lookup;

use crate::read::{plan, resolved};

/// `PORT METHOD HOST PATH [name=value]…`, answered with `route#rule → backend`, or why there is none.
fn answer(plan: &Plan, request: &str) -> String {
    let mut words = request.split(' ');
    let port: u16 = words.next().unwrap().parse().unwrap();
    let mut head = RequestHead::new();
    head.set_method(words.next().unwrap().as_bytes());
    let host = words.next().unwrap();
    head.set_authority(host.as_bytes());
    head.set_target(words.next().unwrap().as_bytes());
    for field in words {
        let (name, value) = field.split_once('=').unwrap();
        match name {
            "accept" => head.fields.append(Known::Accept, value.as_bytes()),
            "origin" => head.fields.append(Known::Origin, value.as_bytes()),
            other => panic!("{other}"),
        }
    }
    let Some(port) = plan.ports.iter().find(|one| one.address.port() == port) else {
        return "closed".to_owned();
    };
    match port.table.find(host.as_bytes(), &head) {
        Lookup::NotFound(_) => "404".to_owned(),
        Lookup::MethodNotAllowed { .. } => "405".to_owned(),
        Lookup::Found(found) => {
            let rule = &found.rule.value;
            if rule.invalid.is_some() {
                return format!("{}#{} → 500", rule.route, rule.index);
            }
            let backends: Vec<String> = rule
                .backends
                .iter()
                .map(|one| match &one.backend {
                    Some(backend) => format!("{}:{}", backend.name, one.weight),
                    None => format!("500:{}", one.weight),
                })
                .collect();
            format!("{}#{} → {}", rule.route, rule.index, backends.join(" "))
        }
    }
}

fn check(plan: &Plan, cases: &[(&str, &str)]) {
    for (request, expected) in cases {
        assert_eq!(answer(plan, request), *expected, "{request}");
    }
}

const BACKENDS: &str = r#"
---
{ apiVersion: rhumb.dev/v1alpha1, kind: Backend, metadata: { name: a }, spec: { endpoints: ["127.0.0.1:9001"] } }
---
{ apiVersion: rhumb.dev/v1alpha1, kind: Backend, metadata: { name: b }, spec: { endpoints: ["127.0.0.1:9002"] } }
---
"#;

/// An HTTPRoute in short.
fn route(name: &str, more: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: {name}{more} }}\nspec: {spec}\n"
    )
}

const TO_A: &str = "backendRefs: [{ group: rhumb.dev, kind: Backend, name: a }]";
const TO_B: &str = "backendRefs: [{ group: rhumb.dev, kind: Backend, name: b }]";

fn gateway(listeners: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{ name: web }}\nspec: {{ gatewayClassName: rhumb, listeners: [{listeners}] }}\n{BACKENDS}"
    )
}

#[test]
fn a_listener_is_isolated_from_the_others_of_its_port() {
    // Gateway API conformance, HTTPRouteHTTPSListener and GatewayHTTPListenerIsolation.
    let mut text = gateway(
        "{ name: any, port: 80, protocol: HTTP }, \
         { name: wild, port: 80, protocol: HTTP, hostname: '*.example.com' }, \
         { name: wilder, port: 80, protocol: HTTP, hostname: '*.foo.example.com' }, \
         { name: exact, port: 80, protocol: HTTP, hostname: abc.foo.example.com }",
    );
    for (name, section) in [("any", "any"), ("wild", "wild"), ("wilder", "wilder"), ("exact", "exact")] {
        let spec = format!(
            "{{ parentRefs: [{{ name: web, sectionName: {section} }}], rules: [{{ matches: [{{ path: {{ value: /{name} }} }}], {TO_A} }}] }}"
        );
        text += &route(name, "", &spec);
    }
    check(
        &plan(&text, None),
        &[
            ("80 GET bar.com /any", "default/any#0 → default/a:1"),
            ("80 GET bar.com /wild", "404"),
            ("80 GET bar.example.com /wild", "default/wild#0 → default/a:1"),
            ("80 GET bar.example.com /any", "404"),
            ("80 GET bar.foo.example.com /wilder", "default/wilder#0 → default/a:1"),
            ("80 GET bar.foo.example.com /wild", "404"),
            ("80 GET abc.foo.example.com /exact", "default/exact#0 → default/a:1"),
            ("80 GET abc.foo.example.com /wilder", "404"),
            ("81 GET bar.com /any", "closed"),
        ],
    );
}

#[test]
fn hostnames_of_route_and_listener_intersect() {
    // Gateway API conformance, HTTPRouteHostnameIntersection.
    let listeners = "{ name: specific, port: 80, protocol: HTTP, hostname: very.specific.com }, \
                     { name: wildcard, port: 80, protocol: HTTP, hostname: '*.wildcard.io' }";
    let to = |hosts: &str, path: &str| {
        format!(
            "{{ parentRefs: [{{ name: web }}], hostnames: [{hosts}], rules: [{{ matches: [{{ path: {{ value: {path} }} }}], {TO_A} }}] }}"
        )
    };
    let text = gateway(listeners)
        + &route("s-s", "", &to("non.matching.com, '*.nonmatchingwildcard.io', very.specific.com", "/s1"))
        + &route("w-s", "", &to("non.matching.com, wildcard.io, foo.wildcard.io, bar.wildcard.io", "/s2"))
        + &route("s-w", "", &to("'*.specific.com'", "/s3"))
        + &route("w-w", "", &to("'*.anotherwildcard.io', '*.wildcard.io'", "/s4"));
    check(
        &plan(&text, None),
        &[
            ("80 GET very.specific.com /s1", "default/s-s#0 → default/a:1"),
            ("80 GET non.matching.com /s1", "404"),
            ("80 GET foo.nonmatchingwildcard.io /s1", "404"),
            ("80 GET foo.wildcard.io /s1", "404"),
            ("80 GET foo.wildcard.io /s2", "default/w-s#0 → default/a:1"),
            ("80 GET bar.wildcard.io:80 /s2", "default/w-s#0 → default/a:1"),
            ("80 GET wildcard.io /s2", "404"),
            ("80 GET very.specific.com /s3", "default/s-w#0 → default/a:1"),
            ("80 GET other.specific.com /s3", "404"),
            ("80 GET foo.bar.wildcard.io /s4", "default/w-w#0 → default/a:1"),
            ("80 GET foo.anotherwildcard.io /s4", "404"),
        ],
    );
}

#[test]
fn the_most_specific_rule_of_any_route_wins() {
    let listeners = "{ name: http, port: 80, protocol: HTTP }";
    let of = |name: &str, more: &str, matches: &str, to: &str| {
        route(
            name,
            more,
            &format!("{{ parentRefs: [{{ name: web }}], rules: [{{ matches: [{matches}], {to} }}] }}"),
        )
    };
    let text = gateway(listeners)
        + &of("prefix", "", "{ path: { value: /v2 } }", TO_A)
        + &of("longer", "", "{ path: { value: /v2/users } }", TO_A)
        + &of("exact", "", "{ path: { type: Exact, value: /v2/users } }", TO_A)
        + &of("method", "", "{ path: { value: /v2 }, method: PATCH }", TO_A)
        + &of("field", "", "{ path: { value: /v2 }, headers: [{ name: origin, value: o }] }", TO_A)
        + &of(
            "fields",
            "",
            "{ path: { value: /v2 }, headers: [{ name: origin, value: o }, { name: accept, value: a }] }",
            TO_A,
        )
        + &of("query", "", "{ path: { value: /v2 }, queryParams: [{ name: q, value: '1' }] }", TO_A)
        // Equal but for age and name.
        + &of("young", ", creationTimestamp: '2024-05-01T00:00:02Z'", "{ path: { value: /age } }", TO_A)
        + &of("zold", ", creationTimestamp: '2024-05-01T00:00:01Z'", "{ path: { value: /age } }", TO_B)
        + &of("name-b", "", "{ path: { value: /name } }", TO_B)
        + &of("name-a", "", "{ path: { value: /name } }", TO_A)
        + &route(
            "order",
            "",
            &format!(
                "{{ parentRefs: [{{ name: web }}], rules: [{{ matches: [{{ path: {{ value: /order }} }}], {TO_A} }}, \
                 {{ matches: [{{ path: {{ value: /order }} }}], {TO_B} }}] }}"
            ),
        );
    check(
        &plan(&text, None),
        &[
            ("80 GET x /v2", "default/prefix#0 → default/a:1"),
            ("80 GET x /v2/users", "default/exact#0 → default/a:1"),
            ("80 GET x /v2/users/1", "default/longer#0 → default/a:1"),
            ("80 GET x /v2users", "404"),
            ("80 PATCH x /v2", "default/method#0 → default/a:1"),
            ("80 GET x /v2 origin=o", "default/field#0 → default/a:1"),
            ("80 PATCH x /v2 origin=o", "default/method#0 → default/a:1"),
            ("80 GET x /v2 origin=o accept=a", "default/fields#0 → default/a:1"),
            ("80 GET x /v2?q=1", "default/query#0 → default/a:1"),
            ("80 GET x /v2?q=1 origin=o", "default/field#0 → default/a:1"),
            ("80 GET x /age", "default/zold#0 → default/b:1"),
            ("80 GET x /name", "default/name-a#0 → default/a:1"),
            ("80 GET x /order", "default/order#0 → default/a:1"),
        ],
    );
}

#[test]
fn a_reference_that_is_not_valid_gets_its_share_of_500() {
    let text = gateway("{ name: http, port: 80, protocol: HTTP }")
        + &route(
            "r",
            "",
            "{ parentRefs: [{ name: web }], rules: [{ backendRefs: [\
             { group: rhumb.dev, kind: Backend, name: a, weight: 8 }, \
             { group: rhumb.dev, kind: Backend, name: nowhere, weight: 2 }, \
             { group: rhumb.dev, kind: Backend, name: b, weight: 0 }] }] }",
        );
    let resolved = resolved(&text, None);
    assert_eq!(resolved.diagnostics.len(), 1);
    check(&resolved.plan, &[("80 GET x /", "default/r#0 → default/a:8 500:2 default/b:0")]);
}

#[test]
fn a_route_without_rules_gets_nothing_and_one_without_matches_everything() {
    let text = gateway(
        "{ name: http, port: 80, protocol: HTTP, hostname: a.test }, { name: other, port: 81, protocol: HTTP }",
    ) + &route("none", "", "{ parentRefs: [{ name: web, sectionName: http }] }")
        + &route("all", "", &format!("{{ parentRefs: [{{ name: web, port: 81 }}], rules: [{{ {TO_A} }}] }}"));
    check(
        &resolved(&text, None).plan,
        &[
            ("80 GET a.test /", "404"),
            ("81 GET a.test /", "default/all#0 → default/a:1"),
            ("81 OPTIONS a.test *", "default/all#0 → default/a:1"),
        ],
    );
}

#[test]
fn a_listener_that_is_refused_keeps_its_requests_from_others() {
    let text = gateway(
        "{ name: broken, port: 443, protocol: HTTPS, hostname: a.test, tls: { certificateRefs: [{ name: nowhere }] } }, \
         { name: any, port: 443, protocol: HTTPS, tls: { certificateRefs: [{ name: web }] } }",
    ) + &route("r", "", &format!("{{ parentRefs: [{{ name: web }}], rules: [{{ {TO_A} }}] }}"))
        + "---\n{ apiVersion: v1, kind: Secret, metadata: { name: web }, type: kubernetes.io/tls, stringData: { tls.crt: 'file:web.pem', tls.key: 'file:web.key' } }\n";
    let resolved = resolved(&text, None);
    check(&resolved.plan, &[("443 GET a.test /", "404"), ("443 GET b.test /", "default/r#0 → default/a:1")]);
    let tls = resolved.plan.ports[0].tls.as_ref().unwrap();
    assert!(tls.select(Some("a.test")).is_some(), "the other listener's certificate: it owns every name");
}
