//! Gateway API documents and our own kinds, as they would lie in a directory or come from Kubernetes.

use crate::gate::{json, local, seen};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::cert::Authority;
use rhumb_testkit::client::{self, Client};
use rhumb_testkit::message::Message;
use rhumb_testkit::port;
use rhumb_testkit::process::{Finished, Rhumb, finish};
use std::process::Command;

/// A running proxy on a directory with these documents; `A` and `B` in them are the backends' addresses, `PORT` and
/// `TLSPORT` free ports.
struct Site {
    rhumb: Rhumb,
    port: u16,
    tls: u16,
    _backends: [Backend; 2],
}

impl Site {
    fn new(documents: &str) -> Self {
        Self::started(documents, Rhumb::start_on)
    }

    fn started(documents: &str, start: fn(tempfile::TempDir, &str, u16) -> Rhumb) -> Self {
        let backends = [Backend::named("a"), Backend::named("b")];
        let (admin, port, tls) = (port::free(), port::free(), port::free());
        let dir = tempfile::tempdir().expect("a directory");
        let process = format!(
            "apiVersion: rhumb.dev/v1alpha1\nkind: ProxyConfig\nmetadata: {{name: rhumb}}\nspec:\n  workers: 1\n  admin: {{address: '127.0.0.1:{admin}'}}\n"
        );
        std::fs::write(dir.path().join("process.yaml"), process).expect("a file");
        let text = documents
            .replace("TLSPORT", &tls.to_string())
            .replace("PORT", &port.to_string())
            .replace("ADDRESS_A", &backends[0].address().to_string())
            .replace("ADDRESS_B", &backends[1].address().to_string());
        std::fs::write(dir.path().join("site.yaml"), text).expect("a file");
        Self { rhumb: start(dir, "", admin), port, tls, _backends: backends }
    }

    fn ask(&self, request: &str) -> Message {
        Client::connect(local(self.port)).exchange(request)
    }

    fn get(&self, authority: &str, target: &str) -> Message {
        client::get(local(self.port), authority, target)
    }

    /// The backend's name, or the status.
    fn chosen(&self, authority: &str, target: &str) -> String {
        let response = self.get(authority, target);
        response.field("x-backend").map_or_else(|| response.status().to_string(), str::to_owned)
    }
}

/// What `rhumb check` says about documents.
fn check(documents: &str) -> Finished {
    let dir = tempfile::tempdir().expect("a directory");
    let text = documents.replace("TLSPORT", "8443").replace("PORT", "8080");
    let text = text.replace("ADDRESS_A", "127.0.0.1:9001").replace("ADDRESS_B", "127.0.0.1:9002");
    std::fs::write(dir.path().join("site.yaml"), text).expect("a file");
    let mut command = Rhumb::command();
    command.arg("check").arg(dir.path());
    finish(command)
}

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: rhumb
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners:
    - {name: one, port: PORT, protocol: HTTP, hostname: '*.one.test'}
    - {name: two, port: PORT, protocol: HTTP, hostname: two.test, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: rhumb.dev/v1alpha1
kind: Backend
metadata: {name: a}
spec: {endpoints: ['ADDRESS_A']}
---
apiVersion: rhumb.dev/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: ['ADDRESS_B']}
";

fn route(name: &str, head: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n  {head}\n  rules:\n{rules}\n"
    )
}

const TO_A: &str = "backendRefs: [{group: rhumb.dev, kind: Backend, name: a}]";
const TO_B: &str = "backendRefs: [{group: rhumb.dev, kind: Backend, name: b}]";

#[test]
fn routes_attach_to_listeners_by_name_and_hostname() {
    let documents = [
        GATEWAY.to_owned(),
        route("to-one", "parentRefs: [{name: web, sectionName: one}]", &format!("    - {TO_A}")),
        route(
            "to-two",
            "parentRefs: [{name: web, sectionName: two}]\n  hostnames: [two.test]",
            &format!("    - {TO_B}"),
        ),
        // Its hostname fits one listener only.
        route(
            "narrow",
            "parentRefs: [{name: web}]\n  hostnames: [deep.one.test]",
            &format!("    - {{matches: [{{path: {{type: Exact, value: /only}}}}], {TO_B}}}"),
        ),
    ]
    .concat();
    let site = Site::new(&documents);
    for (authority, target, expected) in [
        ("x.one.test", "/", "a"),
        ("two.test", "/", "b"),
        ("one.test", "/", "404"),
        ("three.test", "/", "404"),
        ("deep.one.test", "/only", "b"),
        ("deep.one.test", "/other", "a"),
        ("two.test", "/only", "b"),
    ] {
        assert_eq!(site.chosen(authority, target), expected, "{authority}{target}");
    }
}

#[test]
fn filters_of_routes_do_what_gateway_api_says() {
    let rules = format!(
        "    - matches: [{{path: {{type: PathPrefix, value: /modify}}}}]
      filters:
        - {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-set, value: v}}], remove: [x-gone]}}}}
        - {{type: ResponseHeaderModifier, responseHeaderModifier: {{add: [{{name: x-out, value: w}}]}}}}
      {TO_A}
    - matches: [{{path: {{type: PathPrefix, value: /move}}}}]
      filters:
        - {{type: RequestRedirect, requestRedirect: {{scheme: https, port: 443, statusCode: 301, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /moved}}}}}}
    - matches: [{{path: {{type: PathPrefix, value: /rewrite}}}}]
      filters:
        - {{type: URLRewrite, urlRewrite: {{hostname: inner.test, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /}}}}}}
      {TO_A}
    - matches: [{{path: {{type: PathPrefix, value: /cors}}}}]
      filters:
        - {{type: CORS, cors: {{allowOrigins: ['https://app.test']}}}}
      {TO_A}
    - matches: [{{path: {{type: PathPrefix, value: /nowhere}}}}]"
    );
    let site = Site::new(
        &[GATEWAY.to_owned(), route("filters", "parentRefs: [{name: web, sectionName: two}]", &rules)]
            .concat(),
    );
    let echo = site.ask("GET /modify/x HTTP/1.1\r\nHost: two.test\r\nX-Gone: 1\r\nX-Set: 0\r\n\r\n");
    assert_eq!(
        (seen(&echo, "x-set").as_deref(), seen(&echo, "x-gone"), echo.field("x-out")),
        (Some("v"), None, Some("w"))
    );
    let moved = site.get("two.test", "/move/x?y");
    assert_eq!((moved.status(), moved.field("location")), (301, Some("https://two.test/moved/x?y")));
    let echo = site.get("two.test", "/rewrite/x?y");
    assert_eq!(
        (json(&echo)["target"].as_str(), seen(&echo, "host").as_deref()),
        (Some("/x?y"), Some("inner.test"))
    );
    let cors = site.ask("GET /cors HTTP/1.1\r\nHost: two.test\r\nOrigin: https://app.test\r\n\r\n");
    assert_eq!(cors.field("access-control-allow-origin"), Some("https://app.test"));
    // Gateway API: a rule without backends and without a redirect is answered with 500.
    assert_eq!(site.get("two.test", "/nowhere").status(), 500);
}

#[test]
fn a_backend_of_another_namespace_needs_a_grant() {
    let other = "---\napiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {name: a, namespace: other}\nspec: {endpoints: ['ADDRESS_A']}\n";
    let cross = "backendRefs: [{group: rhumb.dev, kind: Backend, name: a, namespace: other}]";
    let rule = route("cross", "parentRefs: [{name: web, sectionName: two}]", &format!("    - {cross}"));
    let refused = check(&[GATEWAY, other, &rule].concat());
    assert!(refused.code == Some(3) && refused.output.contains("ReferenceGrant"), "{refused:?}");
    let grant = "---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: other}\nspec:\n  \
                 from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]\n  to: [{group: rhumb.dev, kind: Backend}]\n";
    let granted = Site::new(&[GATEWAY, other, &rule, grant].concat());
    assert_eq!(granted.chosen("two.test", "/"), "a");
}

#[test]
fn grpc_routes_match_services_and_methods() {
    let grpc = format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: g}}\nspec:\n  parentRefs: [{{name: web, sectionName: two}}]\n  rules:\n    \
         - {{matches: [{{method: {{service: test.Echo, method: Unary}}}}], {TO_A}}}\n    - {{matches: [{{method: {{service: test.Other}}}}], {TO_B}}}\n"
    );
    let site = Site::new(&[GATEWAY, &grpc].concat());
    let post = |path: &str| {
        let response = site.ask(&format!("POST {path} HTTP/1.1\r\nHost: two.test\r\nContent-Type: application/grpc\r\nTE: trailers\r\nConnection: TE\r\nContent-Length: 0\r\n\r\n"));
        response.field("x-backend").map_or_else(|| response.status().to_string(), str::to_owned)
    };
    assert_eq!((post("/test.Echo/Unary").as_str(), post("/test.Other/Any").as_str()), ("a", "b"));
    assert!(["200", "404"].contains(&post("/test.Echo/Missing").as_str()), "a refusal in trailers, or 404");
}

#[test]
fn policies_attach_to_routes_and_gateways() {
    let policies = "---\napiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: closed}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: closed}]\n  \
                    policies: {directResponse: {status: 451, body: gone}}\n---\napiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: cors}\nspec:\n  \
                    targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}]\n  policies: {cors: {allowOrigins: ['https://app.test']}}\n";
    let routes = [
        route(
            "closed",
            "parentRefs: [{name: web, sectionName: two}]",
            &format!("    - {{matches: [{{path: {{value: /closed}}}}], {TO_A}}}"),
        ),
        route("open", "parentRefs: [{name: web, sectionName: two}]", &format!("    - {TO_A}")),
    ]
    .concat();
    let site = Site::new(&[GATEWAY, &routes, policies].concat());
    assert_eq!(site.get("two.test", "/closed/x").status(), 451);
    assert_eq!(site.chosen("two.test", "/open"), "a");
    let cors = site.ask("GET /open HTTP/1.1\r\nHost: two.test\r\nOrigin: https://app.test\r\n\r\n");
    assert_eq!(cors.field("access-control-allow-origin"), Some("https://app.test"));
}

#[test]
fn secrets_carry_certificates() {
    let ca = Authority::new("test");
    let identity = ca.server(&["two.test"]);
    let indent = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let documents = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: cert}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: tls}}\nspec:\n  gatewayClassName: rhumb\n  addresses: [{{type: IPAddress, value: 127.0.0.1}}]\n  listeners:\n    \
         - {{name: s, port: TLSPORT, protocol: HTTPS, hostname: two.test, tls: {{certificateRefs: [{{name: cert}}]}}}}\n---{GATEWAY}{}",
        indent(&identity.certificate),
        indent(&identity.key),
        route("r", "parentRefs: [{name: tls}]", &format!("    - {TO_A}")),
    );
    let site = Site::new(&documents);
    std::fs::write(site.rhumb.dir().join("ca.pem"), ca.pem()).expect("a file");
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--max-time",
        "20",
        "--noproxy",
        "*",
        "--resolve",
        &format!("two.test:{}:127.0.0.1", site.tls),
        "--cacert",
    ])
    .arg(site.rhumb.dir().join("ca.pem"))
    .arg(format!("https://two.test:{}/echo", site.tls));
    let finished = finish(curl);
    assert!(finished.code == Some(0) && finished.output.contains("\"target\":\"/echo\""), "{finished:?}");
}

#[test]
fn every_bad_document_is_told_and_the_good_ones_are_not() {
    let bad = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: bad}\nspec: {parentRefs: [{name: web}], rulez: []}\n\
               ---\napiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {name: tcp}\nspec: {}\n";
    let good = route("good", "parentRefs: [{name: web, sectionName: two}]", &format!("    - {TO_A}"));
    let checked = check(&[GATEWAY, bad, &good].concat());
    assert_eq!(checked.code, Some(3), "{}", checked.output);
    assert!(checked.output.contains("rulez") && checked.output.contains("TCPRoute"), "{}", checked.output);
    assert!(!checked.output.contains("default/good"), "{}", checked.output);
}

#[test]
fn a_backend_by_name_is_resolved() {
    let backend = Backend::start();
    let (admin, port) = (port::free(), port::free());
    let config = rhumb_testkit::config::Config::new()
        .listener("web", port, "")
        .backend("named", &format!("dns: 'localhost:{}'", backend.address().port()))
        .route("to: named");
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("rhumb.yaml"), config.text(admin)).expect("a file");
    let _rhumb = Rhumb::start_on(dir, "rhumb.yaml", admin);
    rhumb_testkit::wait::until("the name is resolved", || {
        (client::get(local(port), "a.test", "/bytes/3").status() == 200).then_some(())
    });
}

#[test]
fn a_partial_configuration_serves_what_is_right_and_refuses_the_rest() {
    let other = "---\napiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {name: a, namespace: other}\nspec: {endpoints: ['ADDRESS_A']}\n";
    let parent = "parentRefs: [{name: web, sectionName: two}]";
    let stolen = "backendRefs: [{group: rhumb.dev, kind: Backend, name: a, namespace: other}]";
    let bad = route("bad", parent, &format!("    - {{matches: [{{path: {{value: /bad}}}}], {stolen}}}"));
    let good = route("good", parent, &format!("    - {TO_A}"));
    let unsafe_policy = "---\napiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: p}\nspec:\n  \
                         targetRefs: [{kind: HTTPRoute, name: guarded}]\n  policies: {cors: {allowOrigins: []}}\n";
    let guarded =
        route("guarded", parent, &format!("    - {{matches: [{{path: {{value: /guarded}}}}], {TO_A}}}"));
    let documents = [GATEWAY, other, &bad, &good, unsafe_policy, &guarded].concat();
    let site = Site::started(&documents, Rhumb::start_partial);
    assert_eq!(site.chosen("two.test", "/"), "a");
    for refused in ["/bad", "/guarded"] {
        let response = site.get("two.test", refused);
        assert_eq!(
            (response.status(), json(&response)["code"].as_str()),
            (500, Some("configuration_invalid")),
            "{refused}"
        );
    }
    let log = site.rhumb.log();
    assert!(log.contains("not-granted") && log.contains("allowOrigins"), "{log}");
}
