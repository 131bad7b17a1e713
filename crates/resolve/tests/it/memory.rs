//! What is resolved with a memory is what is resolved without one, whatever changes, and costs no more than it must.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use rhumb_base::rng::Rng;
use rhumb_model::{Doc, Paint, render_all};
use rhumb_plan::{Plan, dump};
use rhumb_resolve::{DnsBackend, Memory, Resolved, resolve};

use crate::read::{AROUND, docs};

/// Sequences of changes, and changes in each.
const SEQUENCES: u64 = 16;
const STEPS: usize = 40;

/// Kinds of documents, how many there are of each, and in how many ways each may be written. The last of them have mistakes.
const KINDS: &[(&str, u32, u32)] = &[
    ("Gateway", 2, 7),
    ("ProxyConfig", 1, 3),
    ("Namespace", 1, 2),
    ("Secret", 2, 3),
    ("ConfigMap", 1, 2),
    ("ReferenceGrant", 2, 2),
    ("Backend", 5, 7),
    ("BackendTLSPolicy", 2, 2),
    ("XBackendTrafficPolicy", 2, 3),
    ("Consumer", 2, 5),
    ("Policy", 7, 16),
    ("HTTPRoute", 8, 16),
    ("GRPCRoute", 2, 3),
    ("TLSRoute", 1, 2),
    ("TCPRoute", 1, 2),
];

/// A document: the `n`th of its kind, written in way `v`.
fn text(kind: &str, n: u32, v: u32) -> String {
    let gateway_api = "apiVersion: gateway.networking.k8s.io/v1";
    let ours = "apiVersion: rhumb.dev/v1alpha1";
    let away = if n % 4 == 3 { ", namespace: away" } else { "" };
    let named = |name: &str| format!("kind: {kind}\nmetadata: {{name: {name}{n}{away}}}\n");
    match kind {
        "Gateway" => {
            let more = [
                "",
                "",
                "  tls: {backend: {clientCertificateRef: {name: s0}}}\n",
                "  infrastructure: {parametersRef: {group: rhumb.dev, kind: ProxyConfig, name: pc0}}\n",
                "",
                "",
                "  nonsense: 1\n",
            ][v as usize];
            let port = 8000 + n * 10;
            let from = ["Same", "All", "Selector", "All", "All", "All", "All"][v as usize];
            let selector = if from == "Selector" { ", selector: {matchLabels: {tier: web}}" } else { "" };
            let allowed = format!("allowedRoutes: {{namespaces: {{from: {from}{selector}}}}}");
            let tls = match v {
                4 => format!(
                    "\n    - {{name: s, port: {}, protocol: HTTPS, tls: {{certificateRefs: [{{name: s1}}]}}, {allowed}}}",
                    port + 1
                ),
                5 => format!(
                    "\n    - {{name: t, port: {}, protocol: TLS, tls: {{mode: Passthrough}}, {allowed}}}\n    - {{name: c, port: {}, protocol: TCP, {allowed}}}",
                    port + 2,
                    port + 3
                ),
                _ => String::new(),
            };
            format!(
                "{gateway_api}\nkind: Gateway\nmetadata: {{name: g{n}}}\nspec:\n  gatewayClassName: rhumb\n{more}  listeners:\n    - {{name: a, port: {port}, protocol: HTTP, {allowed}}}\n    - {{name: b, port: {port}, protocol: HTTP, hostname: \"*.b.test\", {allowed}}}{tls}\n"
            )
        }
        "ProxyConfig" => {
            let spec = [
                "{zone: east}",
                "{sessionKey: abcdefghijklmnopqrstuvwxyz012345}",
                "{limits: {headers: 4000}}",
            ][v as usize];
            format!("{ours}\nkind: ProxyConfig\nmetadata: {{name: pc{n}}}\nspec: {spec}\n")
        }
        "Namespace" => {
            let tier = ["web", "db"][v as usize];
            format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: away, labels: {{tier: {tier}}}}}\n")
        }
        "Secret" => {
            let file = ["web", "other", "missing"][v as usize];
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: s{n}}}\ntype: kubernetes.io/tls\nstringData: {{tls.crt: \"file:{file}.pem\", tls.key: \"file:{file}.key\"}}\n"
            )
        }
        "ConfigMap" => {
            let data = ["ca.crt: \"file:ca.pem\"", "other: x"][v as usize];
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca{n}}}\ndata: {{{data}}}\n")
        }
        "ReferenceGrant" => {
            let (from, to) = [("default", "away"), ("away", "default")][n as usize];
            let kind_of = ["HTTPRoute", "GRPCRoute"][v as usize];
            format!(
                "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: rg{n}, namespace: {to}}}\nspec:\n  from: [{{group: gateway.networking.k8s.io, kind: {kind_of}, namespace: {from}}}]\n  to: [{{group: rhumb.dev, kind: Backend}}]\n"
            )
        }
        "Backend" => {
            let spec = [
                format!("{{endpoints: [\"127.0.0.1:90{n}0\"]}}"),
                format!("{{endpoints: [\"127.0.0.1:90{n}1\"], idleTimeout: 7s}}"),
                "{dns: \"x.internal:80\"}".to_owned(),
                format!(
                    "{{endpoints: [\"127.0.0.1:90{n}0\"], tls: {{serverName: b.test, ca: {{kind: ConfigMap, name: ca0}}}}}}"
                ),
                format!(
                    "{{endpoints: [\"127.0.0.1:90{n}0\"], tls: {{serverName: b.test, insecureSkipVerify: true}}}}"
                ),
                "{endpoints: [\"nowhere\"], connectTimeout: 0s}".to_owned(),
                format!("{{endpoints: [\"127.0.0.1:90{n}0\"], connectTimeout: 0s}}"),
            ];
            format!("{ours}\n{}spec: {}\n", named("be"), spec[v as usize])
        }
        "BackendTLSPolicy" => {
            let target = ["be0", "be1"][v as usize];
            format!(
                "{gateway_api}\nkind: BackendTLSPolicy\nmetadata: {{name: bt{n}}}\nspec:\n  targetRefs: [{{group: rhumb.dev, kind: Backend, name: {target}}}]\n  validation: {{hostname: b.test, caCertificateRefs: [{{group: \"\", kind: ConfigMap, name: ca0}}]}}\n"
            )
        }
        "XBackendTrafficPolicy" => {
            let spec = [
                "retryConstraint: {budget: {percent: 30}}",
                "sessionPersistence: {sessionName: s}",
                "retryConstraint: {budget: {percent: 40}}, sessionPersistence: {type: Header}",
            ][v as usize];
            format!(
                "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\nmetadata: {{name: tr{n}}}\nspec: {{targetRefs: [{{group: rhumb.dev, kind: Backend, name: be{n}}}], {spec}}}\n"
            )
        }
        "Consumer" => {
            let credentials = [
                format!("plan: a, credentials: {{apiKeys: [{{key: the-key-of-consumer-{n}}}]}}"),
                "credentials: {apiKeys: [{key: {secretRef: {name: s0, key: tls.key}}}]}".to_owned(),
                "plan: b".to_owned(),
                "credentials: {apiKeys: [{key: short}]}".to_owned(),
                "credentials: {apiKeys: [{}]}".to_owned(),
            ];
            format!("{ours}\n{}spec: {{{}}}\n", named("c"), credentials[v as usize])
        }
        "Policy" => {
            let r = n % 3;
            let cors = format!("cors: {{allowOrigins: [\"https://p{n}.test\"]}}");
            let header = format!("headerModifier: {{request: {{set: [{{name: x-p, value: \"{n}\"}}]}}}}");
            let spec = [
                format!("{{targetRefs: [{{kind: HTTPRoute, name: r{r}}}], policies: {{{cors}}}}}"),
                format!("{{targetRefs: [{{kind: HTTPRoute, name: r{r}}}, {{kind: HTTPRoute, name: r{}}}], policies: {{{header}}}}}", r + 4),
                format!("{{targetRefs: [{{kind: HTTPRoute, name: r{r}, sectionName: first}}], policies: {{{cors}, {header}}}}}"),
                format!("{{targetRefs: [{{kind: Gateway, name: g{}}}], policies: {{{cors}}}}}", n % 2),
                format!("{{targetRefs: [{{kind: Gateway, name: g0, sectionName: b}}], policies: {{{header}}}}}"),
                format!("{{targetRefs: [{{kind: Backend, name: be{r}}}], policies: {{{header}}}}}"),
                format!("{{policies: {{{header}, {cors}}}}}"),
                "{targetRefs: [{kind: GRPCRoute, name: gr0}], policies: {timeouts: {request: 3s}}}".to_owned(),
                "{targetRefs: [{kind: TLSRoute, name: tls0}, {kind: TCPRoute, name: tcp0}], policies: {tcp: {idleTimeout: 9s}}}".to_owned(),
                format!("{{targetRefs: [{{kind: HTTPRoute, name: r{r}}}], policies: {{corz: {{}}}}}}"),
                format!("{{targetRefs: [{{kind: HTTPRoute, name: r{r}}}], policies: {{cors: {{allowOrigins: 3}}}}}}"),
                format!("{{targetRefs: [{{kind: HTTPRoute, name: nobody}}, {{kind: HTTPRoute, name: r{r}, sectionName: none}}], policies: {{{cors}}}}}"),
                format!("{{targetRefs: [{{kind: HTTPRoute, name: r{r}}}], policies: {{apiKey: {{}}}}}}"),
                "{targetRefs: [{kind: Gateway, name: g0}], policies: {apiKey: {}}}".to_owned(),
                format!("{{targetRefs: [{{kind: Consumer, name: c{}}}], policies: {{{header}}}}}", n % 2),
                format!("{{targetRefs: [{{kind: Consumer, name: c0}}], policies: {{{cors}}}}}"),
            ];
            format!("{ours}\nkind: Policy\nmetadata: {{name: p{n}}}\nspec: {}\n", spec[v as usize])
        }
        "HTTPRoute" => {
            let backend = |name: &str| format!("{{group: rhumb.dev, kind: Backend, name: {name}}}");
            let matches = format!("matches: [{{path: {{value: /r{n}}}}}]");
            let parents =
                ["{name: g0}", "{name: g0}, {name: g1}", "{name: g1, sectionName: b}"][(n % 3) as usize];
            let (hosts, rules) = match v {
                0 => ("", format!("[{{{matches}, backendRefs: [{}]}}]", backend("be0"))),
                1 => ("", format!("[{{name: first, {matches}, backendRefs: [{}]}}]", backend("be1"))),
                2 => (
                    "hostnames: [\"x.b.test\"], ",
                    format!("[{{{matches}, backendRefs: [{}, {}]}}]", backend("be0"), backend("be2")),
                ),
                3 => (
                    "",
                    format!(
                        "[{{{matches}, filters: [{{type: RequestRedirect, requestRedirect: {{hostname: x{n}.test}}}}]}}]"
                    ),
                ),
                4 => (
                    "",
                    format!(
                        "[{{name: first, {matches}, filters: [{{type: ExtensionRef, extensionRef: {{group: rhumb.dev, kind: Policy, name: p{}}}}}], backendRefs: [{}]}}]",
                        n % 7,
                        backend("be0")
                    ),
                ),
                5 => (
                    "",
                    format!(
                        "[{{{matches}, backendRefs: [{{group: rhumb.dev, kind: Backend, name: be3, namespace: away}}]}}]"
                    ),
                ),
                6 => (
                    "",
                    format!(
                        "[{{{matches}, filters: [{{type: RequestMirror, requestMirror: {{backendRef: {}}}}}], backendRefs: [{}]}}]",
                        backend("be2"),
                        backend("be1")
                    ),
                ),
                7 => (
                    "",
                    format!(
                        "[{{{matches}, sessionPersistence: {{sessionName: s}}, backendRefs: [{}]}}]",
                        backend("be0")
                    ),
                ),
                8 => (
                    "",
                    format!(
                        "[{{name: first, {matches}, timeouts: {{request: {n}s}}, backendRefs: [{}]}}, {{backendRefs: [{}]}}]",
                        backend("be0"),
                        backend("be1")
                    ),
                ),
                9 => (
                    "hostnames: [\"elsewhere.test\"], ",
                    format!("[{{{matches}, backendRefs: [{}]}}]", backend("be4")),
                ),
                10 => ("", format!("[{{{matches}}}]")),
                11 => (
                    "",
                    format!(
                        "[{{{matches}, backendRefs: [{{group: rhumb.dev, kind: Backend, name: be1, filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-q, value: v}}]}}}}]}}]}}]"
                    ),
                ),
                12 => ("", format!("[{{{matches}, backendRefs: [{}]}}]", backend("be9"))),
                13 => (
                    "",
                    format!(
                        "[{{matches: [{{path: {{type: RegularExpression, value: \"(\"}}}}], backendRefs: [{}]}}]",
                        backend("be0")
                    ),
                ),
                14 => ("", format!("[{{{matches}, backendRef: [{}]}}]", backend("be0"))),
                _ => (
                    "",
                    format!(
                        "[{{name: first, {matches}, filters: [{{type: ExtensionRef, extensionRef: {{group: rhumb.dev, kind: Policy, name: none}}}}, {{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /}}}}}}]}}]"
                    ),
                ),
            };
            let parents = if away.is_empty() {
                parents.to_owned()
            } else {
                "{name: g0, namespace: default}".to_owned()
            };
            format!("{gateway_api}\n{}spec: {{parentRefs: [{parents}], {hosts}rules: {rules}}}\n", named("r"))
        }
        "GRPCRoute" => {
            let name = ["be0", "be2", "be9"][v as usize];
            format!(
                "{gateway_api}\nkind: GRPCRoute\nmetadata: {{name: gr{n}}}\nspec: {{parentRefs: [{{name: g{n}}}], rules: [{{matches: [{{method: {{service: s{v}}}}}], backendRefs: [{{group: rhumb.dev, kind: Backend, name: {name}}}]}}]}}\n"
            )
        }
        "TLSRoute" => {
            let host = ["a.test", "b.test"][v as usize];
            format!(
                "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TLSRoute\nmetadata: {{name: tls{n}}}\nspec: {{parentRefs: [{{name: g0, sectionName: t}}], hostnames: [{host}], rules: [{{backendRefs: [{{group: rhumb.dev, kind: Backend, name: be0}}]}}]}}\n"
            )
        }
        _ => {
            let name = ["be1", "be3"][v as usize];
            format!(
                "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {{name: tcp{n}}}\nspec: {{parentRefs: [{{name: g0, sectionName: c}}], rules: [{{backendRefs: [{{group: rhumb.dev, kind: Backend, name: {name}}}]}}]}}\n"
            )
        }
    }
}

/// Documents on disk, so to say: what was read once stays the same document.
#[derive(Default)]
struct Written {
    read: HashMap<String, Vec<Arc<Doc>>>,
    now: BTreeMap<(&'static str, u32), String>,
}

impl Written {
    fn write(&mut self, kind: &'static str, n: u32, v: u32) {
        let text = text(kind, n, v);
        let read = self.read.entry(text.clone()).or_insert_with(|| docs(&text).docs);
        assert!(!read.is_empty(), "a document that is none:\n{text}");
        self.now.insert((kind, n), text);
    }

    fn docs(&self) -> Vec<Arc<Doc>> {
        self.now.values().filter_map(|text| self.read.get(text)).flatten().cloned().collect()
    }

    /// Writes or removes a document.
    fn change(&mut self, rng: &mut Rng) -> String {
        let all: u32 = KINDS.iter().map(|(_, count, _)| count).sum();
        // Those that concern everything come first; they would leave little to keep.
        let everything = if rng.below(4) > 0 { KINDS[0].1 + KINDS[1].1 } else { 0 };
        let mut at = everything + rng.below(all - everything);
        let Some((kind, n, ways)) = KINDS.iter().find_map(|&(kind, count, ways)| {
            if at < count {
                Some((kind, at, ways))
            } else {
                at -= count;
                None
            }
        }) else {
            unreachable!("below the sum");
        };
        if rng.below(5) == 0 {
            self.now.remove(&(kind, n));
            return format!("{kind} {n} removed");
        }
        let v = rng.below(ways);
        self.write(kind, n, v);
        format!("{kind} {n} way {v}")
    }
}

/// All that resolving says, as text.
fn said(resolved: &Resolved) -> String {
    let mut text = serde_json::to_string_pretty(&dump(&resolved.plan)).expect("JSON");
    let _ = write!(text, "\n{}\n{:?}\n", render_all(&resolved.diagnostics, Paint::Plain), resolved.process);
    for DnsBackend { backend, fixed, names } in &resolved.dns {
        let _ = writeln!(text, "{} {fixed:?} {names:?}", backend.name);
    }
    text
}

/// Backends that a rule has and its plan does not: their endpoints would be kept up to date by nobody.
fn strangers(plan: &Plan) -> Vec<String> {
    let rules = plan.ports.iter().flat_map(|port| port.table.rules());
    let to = rules.flat_map(|(_, rule)| {
        let backends = rule.value.backends.iter().filter_map(|to| to.backend.as_ref());
        backends.chain(rule.value.mirrors.iter().map(|mirror| &mirror.backend))
    });
    to.filter(|one| !plan.backends.iter().any(|other| Arc::ptr_eq(one, other)))
        .map(|one| one.name.to_string())
        .collect()
}

#[test]
fn whatever_changes_a_memory_makes_no_difference() {
    let only: Option<u64> = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..SEQUENCES, |seed| seed..seed + 1) {
        let mut rng = Rng::new(seed);
        let mut written = Written::default();
        for (kind, count, ways) in KINDS {
            for n in 0..*count {
                written.write(kind, n, rng.below((*ways).min(if *kind == "HTTPRoute" { 12 } else { 4 })));
            }
        }
        let (mut memory, mut previous, mut history) = (Memory::default(), None::<Plan>, Vec::new());
        for step in 0..STEPS {
            for _ in 0..rng.below(4) {
                history.push(written.change(&mut rng));
            }
            let docs = written.docs();
            let kept = memory.resolve(&docs, previous.as_ref(), &AROUND);
            let fresh = resolve(&docs, previous.as_ref(), &AROUND);
            let (kept_said, fresh_said) = (said(&kept), said(&fresh));
            let differs = kept_said.lines().zip(fresh_said.lines()).find(|(kept, fresh)| kept != fresh);
            assert!(
                kept_said == fresh_said,
                "SEED={seed} step {step}: {differs:#?}\n--- with memory\n{kept_said}\n--- without\n{fresh_said}\n{history:#?}"
            );
            assert_eq!(strangers(&kept.plan), [""; 0], "SEED={seed} step {step}: {history:#?}");
            // Not every configuration is taken over.
            if rng.below(3) > 0 {
                previous = Some(kept.plan);
            }
        }
    }
}

#[test]
fn a_change_leaves_the_rules_of_other_routes_alone() {
    let mut written = Written::default();
    for (kind, n, v) in [
        ("Gateway", 0, 1),
        ("Gateway", 1, 1),
        ("Backend", 0, 0),
        ("Backend", 1, 0),
        ("Policy", 0, 0),
        ("Policy", 1, 6),
        ("HTTPRoute", 0, 0),
        ("HTTPRoute", 1, 4),
        ("HTTPRoute", 4, 1),
        ("HTTPRoute", 6, 3),
        ("GRPCRoute", 0, 0),
    ] {
        written.write(kind, n, v);
    }
    let rules = |plan: &Plan| -> BTreeMap<String, Arc<rhumb_route::Rule<rhumb_plan::Rule>>> {
        let of = |port: &Arc<rhumb_plan::Port>| {
            let rules = port.table.rules();
            let named = rules
                .map(|(host, rule)| (format!("{} {host} {}", rule.route, port.address), Arc::clone(rule)));
            named.collect::<Vec<_>>()
        };
        plan.ports.iter().flat_map(of).collect()
    };
    let mut memory = Memory::default();
    let mut before = memory.resolve(&written.docs(), None, &AROUND).plan;
    assert_eq!(rules(&before).len(), 5 * 2 + 2 * 2, "every route at both listeners of its Gateways");
    for (kind, n, v, expected) in [
        ("HTTPRoute", 6, 10, &["default/r6"][..]),
        ("Policy", 0, 1, &["default/r0", "default/r4"]),
        ("Policy", 1, 11, &["default/r1"]),
        ("Backend", 1, 1, &["default/r4"]),
        ("Backend", 2, 1, &[]),
        ("Consumer", 0, 0, &[]),
        ("Policy", 1, 12, &["default/r1"]),
        ("Consumer", 1, 2, &["default/r1"]),
    ] {
        written.write(kind, n, v);
        let after = memory.resolve(&written.docs(), Some(&before), &AROUND).plan;
        let (old, new) = (rules(&before), rules(&after));
        let changed =
            new.iter().filter(|(name, rule)| !old.get(*name).is_some_and(|old| Arc::ptr_eq(old, rule)));
        let mut changed: Vec<&str> = changed.filter_map(|(name, _)| name.split(' ').next()).collect();
        changed.dedup();
        assert_eq!(changed, expected, "{kind} {n}");
        before = after;
    }
}
