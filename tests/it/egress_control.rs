//! An egress gateway whose documents, as those of the workload that leaves through it, come from a control plane.

use crate::mesh::egress::Talker;
use crate::mesh_control::{PEERS, REGISTERED, Site, captured, curl, rest};
use rhumb_testkit::cert::Authority;
use rhumb_testkit::process::Program;
use rhumb_testkit::wait;

/// What the Mesh lets through, and a gateway that decides about it by a rule.
fn documents(destinations: &str, rule: &str) -> String {
    format!(
        "apiVersion: rhumb.dev/v1alpha1
kind: Mesh
metadata: {{name: mesh}}
spec: {{egress: deny, egressGateway: {{service: egress.shop, destinations: [{destinations}]}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: egress, namespace: shop}}
spec: {{ports: [{{port: 443}}]}}
---
apiVersion: rhumb.dev/v1alpha1
kind: Policy
metadata: {{name: who-may-leave, namespace: shop}}
spec:
  targetRefs: [{{kind: Service, name: egress}}]
  policies: {{authorization: {{rules: [{{when: \"{rule}\"}}]}}}}
"
    )
}

#[test]
fn connections_through_the_egress_gateway_end_when_an_applied_document_no_longer_allows_them() {
    let site = Site::new();
    let all = documents("api.example.com, www.example.com", "source.serviceAccount == 'web'");
    site.apply(&all, &[]);
    let (machine, gateway) = (site.network.machine("web"), site.network.machine("egress"));
    let outside = site.network.machine("outside");
    let identity = Authority::new("outside").server(&["api.example.com"]);
    let (crt, key) = identity.write(&site.path(""), "outside");
    let mut peer = outside.command("python3");
    peer.arg(format!("{PEERS}/outside_peer.py")).arg(outside.address().to_string()).arg(crt).arg(key);
    let peer = Program::start(peer, &site.path("outside.log"));
    wait::until("the host outside listens", || peer.log().contains("ready").then_some(()));
    gateway.nameservers(&[&outside.address().to_string()]);
    let egress =
        site.start(&gateway, "egress-1", "egress", &["--service", "egress", "--port", "443"], &rest());
    wait::until("the gateway is registered", || egress.program.log().contains(REGISTERED).then_some(()));
    let web = captured(&site, &machine, "web");
    let logs = || [web.program.log(), egress.program.log()].join("\n---\n");
    wait::until("a call that may leave", || {
        let done = curl(&machine, "http://api.example.com/");
        done.output.contains(&format!("from {}", gateway.address())).then_some(())
    });
    let talk = |host: &str, log: &str| Talker::start(&machine, host, &site.path(log));
    let (api, www) = (talk("api.example.com", "api.log"), talk("www.example.com", "www.log"));

    let fewer = documents("www.example.com", "source.serviceAccount == 'web'");
    let applied = site.apply(&fewer, &["--wait"]);
    assert!(applied.output.contains("live on 2 proxies"), "{applied:?}\n{}", logs());
    api.ends();
    www.goes_on();
    assert_ne!(curl(&machine, "http://api.example.com/").code, Some(0));

    let nobody = documents("www.example.com", "source.serviceAccount == 'batch'");
    site.apply(&nobody, &["--wait"]);
    www.ends();
    assert_ne!(curl(&machine, "http://www.example.com/").code, Some(0), "{}", logs());
    // And back.
    site.apply(&all, &["--wait"]);
    talk("www.example.com", "again.log").goes_on();
}
