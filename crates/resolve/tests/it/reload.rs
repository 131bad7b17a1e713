//! What a change takes over from the plan before, and that nothing which runs is touched.

use std::net::SocketAddr;
use std::sync::Arc;

use rhumb_balance::{EndpointSpec, Nanos};
use rhumb_plan::{Backend, Plan};

use crate::read::{plan, resolved};

fn backend<'p>(plan: &'p Plan, name: &str) -> &'p Arc<Backend> {
    plan.backends.iter().find(|backend| backend.name.as_str() == name).unwrap()
}

fn addresses(backend: &Backend) -> Vec<String> {
    backend.endpoints.load().members().iter().map(|member| member.endpoint().label().to_owned()).collect()
}

const SHORT: &str = "
listeners: { web: { port: 8080 } }
backends:
  a: { endpoints: [\"127.0.0.1:9001\", \"127.0.0.1:9002\"] }
  b: { endpoints: [\"127.0.0.1:9003\"] }
  named: { dns: \"x.internal:80\" }
routes:
  - { match: { path: /a }, to: a }
  - { match: { path: /b }, to: b }
  - { match: { path: /named }, to: named }
";

#[test]
fn backends_that_did_not_change_are_the_same() {
    let before = plan(SHORT, None);
    let after = plan(&SHORT.replace("path: /b", "path: /c"), Some(&before));
    assert_eq!((before.revision, after.revision), (1, 2));
    for name in ["default/a", "default/b", "default/named"] {
        assert!(Arc::ptr_eq(backend(&before, name), backend(&after, name)), "{name}");
    }
}

#[test]
fn an_endpoint_that_stays_keeps_its_state_and_the_running_plan_its_set() {
    let before = plan(SHORT, None);
    let text = SHORT.replace("\"127.0.0.1:9002\"", "\"127.0.0.1:9009\"");
    let after = plan(&text, Some(&before));
    let (old, new) = (backend(&before, "default/a"), backend(&after, "default/a"));
    assert_eq!(addresses(old), ["127.0.0.1:9001", "127.0.0.1:9002"]);
    assert_eq!(addresses(new), ["127.0.0.1:9001", "127.0.0.1:9009"]);
    let (old_set, new_set) = (old.endpoints.load(), new.endpoints.load());
    assert!(Arc::ptr_eq(old_set.members()[0].endpoint(), new_set.members()[0].endpoint()));
    assert_eq!(old.target.key, new.target.key, "connections are kept");
    assert!(Arc::ptr_eq(backend(&before, "default/b"), backend(&after, "default/b")));
}

#[test]
fn endpoints_found_by_name_stay_until_the_next_answer() {
    let before = plan(SHORT, None);
    let found: SocketAddr = "10.0.0.7:80".parse().unwrap();
    let spec = EndpointSpec { hostname: Some("x.internal".into()), ..EndpointSpec::new(found) };
    backend(&before, "default/named").endpoints.publish(vec![spec], Nanos(0));

    let after = resolved(&SHORT.replace("dns: ", "connectTimeout: 1s, dns: "), Some(&before));
    let named = backend(&after.plan, "default/named");
    assert!(!Arc::ptr_eq(named, backend(&before, "default/named")));
    assert_eq!(addresses(named), ["10.0.0.7:80"]);
    assert_eq!(after.dns.len(), 1);
    assert!(Arc::ptr_eq(&after.dns[0].backend, named));

    let renamed = plan(&SHORT.replace("x.internal", "y.internal"), Some(&after.plan));
    assert!(addresses(backend(&renamed, "default/named")).is_empty());
}

#[test]
fn endpoints_found_by_name_stay_however_the_name_is_written_and_behind_srv_records() {
    for (dns, hostname) in [
        ("\"X.Internal.:80\"", "x.internal"),
        ("\"_http._tcp.X.internal\", dnsType: SRV", "node-1.x.internal"),
    ] {
        let text = SHORT.replace("\"x.internal:80\"", dns);
        let before = plan(&text, None);
        let found: SocketAddr = "10.0.0.7:80".parse().unwrap();
        let spec = EndpointSpec { hostname: Some(hostname.into()), ..EndpointSpec::new(found) };
        backend(&before, "default/named").endpoints.publish(vec![spec], Nanos(0));
        let after = plan(&text.replace("dns: ", "connectTimeout: 1s, dns: "), Some(&before));
        let (old, new) = (backend(&before, "default/named"), backend(&after, "default/named"));
        let (old_set, new_set) = (old.endpoints.load(), new.endpoints.load());
        assert_eq!(addresses(new), ["10.0.0.7:80"], "{dns}");
        assert!(Arc::ptr_eq(old_set.members()[0].endpoint(), new_set.members()[0].endpoint()), "{dns}");
        // Behind another name there are others.
        let renamed = plan(&text.replace("nternal", "nterior"), Some(&before));
        assert!(addresses(backend(&renamed, "default/named")).is_empty(), "{dns}");
    }
}

#[test]
fn another_protocol_or_tls_is_another_pool() {
    let before = plan(SHORT, None);
    for change in [", protocol: h2c }", ", tls: { ca: ca.pem } }"] {
        let text = SHORT.replace("[\"127.0.0.1:9003\"] }", &format!("[\"127.0.0.1:9003\"]{change}"));
        let after = plan(&text, Some(&before));
        let (old, new) = (backend(&before, "default/b"), backend(&after, "default/b"));
        assert_ne!(old.target.key, new.target.key, "{change}");
        assert_eq!(new.target.tls.is_some(), change.contains("tls"));
    }
}

const TLS: &str = "
listeners: { web: { port: 8443, tls: { certificates: [{ cert: web.pem, key: web.key }] } } }
backends:
  a: { endpoints: [\"127.0.0.1:9001\"], tls: { ca: ca.pem, serverName: a.test } }
routes: [{ to: a }]
";

#[test]
fn tls_that_did_not_change_is_taken_over() {
    let before = plan(TLS, None);
    let digest = |plan: &Plan| plan.ports[0].listeners[0].tls.as_ref().unwrap().0;
    let names =
        |plan: &Plan| plan.ports[0].listeners[0].tls.as_ref().unwrap().1.certificates()[0].names.clone();

    let same = plan(&TLS.replace("to: a", "to: a, timeout: 3s"), Some(&before));
    assert_eq!(digest(&same), digest(&before));
    let text = TLS.replace("web.pem", "other.pem").replace("web.key", "other.key");
    let other = plan(&text, Some(&before));
    assert_ne!(digest(&other), digest(&before));
    assert_eq!((names(&before), names(&other)), (vec!["web.test".into()], vec!["other.test".to_owned()]));

    let tuned = plan(&TLS.replace("tls: { ca", "idleTimeout: 5s, tls: { ca"), Some(&before));
    let (old, new) = (backend(&before, "default/a"), backend(&tuned, "default/a"));
    assert!(!Arc::ptr_eq(old, new));
    assert!(
        Arc::ptr_eq(old.target.tls.as_ref().unwrap(), new.target.tls.as_ref().unwrap()),
        "sessions are kept"
    );
}

#[test]
fn a_wrong_certificate_closes_the_port_and_leaves_the_running_one() {
    let before = plan(TLS, None);
    let after = resolved(&TLS.replace("web.key", "other.key"), Some(&before));
    assert!(after.diagnostics.iter().any(rhumb_model::Diag::is_error));
    assert!(after.plan.ports.is_empty());
    assert!(before.ports[0].tls.as_ref().unwrap().select(Some("web.test")).is_some());
}
