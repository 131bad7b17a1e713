//! What a control plane knows of a gateway and of sidecars on machines of their own: calls, health, versions, certificates.

use crate::dashboard::{SCRIPT, pictures};
use crate::mesh_control::{Member, Site, curl, services};
use rhumb_testkit::netns::Machine;
use rhumb_testkit::process::{Finished, Program, Rhumb, finish, node_script};
use rhumb_testkit::wait;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// A gateway in front of the service `web`, and its mesh.
pub(crate) const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: rhumb
  listeners: [{name: web, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{kind: Service, group: '', name: web, port: 80}]}]
---
apiVersion: rhumb.dev/v1alpha1
kind: Mesh
metadata: {name: mesh}
spec: {}
";

/// A gateway, a service behind it, and one behind that.
struct Shop {
    site: Site,
    outside: Machine,
    at: String,
    gateway: Program,
    broken: PathBuf,
    _members: [Member; 2],
}

impl Shop {
    fn open() -> Self {
        let site = Site::new();
        site.apply(&format!("{GATEWAY}{}", services(["web".to_owned(), "orders".to_owned()])), &[]);
        let (web, orders) = (site.network.machine("web"), site.network.machine("orders"));
        let (edge, outside) = (site.network.machine("edge"), site.network.machine("outside"));
        let broken = site.path("broken");
        let served = ["--service", "orders", "--port", "80=9000:http"];
        let orders_member =
            site.start(&orders, "orders-1", "orders", &served, &application("orders", &broken, &[]));
        let calls = ["--service", "web", "--port", "80=9000:http", "--upstream", "orders=127.0.0.1:9100"];
        let never = site.path("never");
        let further = application("web", &never, &["http://127.0.0.1:9100/"]);
        let web_member = site.start(&web, "web-1", "web", &calls, &further);
        let gateway = gateway(&site, &edge);
        let at = format!("http://{}:8080/cart", edge.address());
        let shop = Self { site, outside, at, gateway, broken, _members: [web_member, orders_member] };
        wait::until("a call goes through", || (shop.call().output == "web < orders").then_some(()));
        shop
    }

    fn call(&self) -> Finished {
        curl(&self.outside, &self.at)
    }

    /// Somebody who calls again and again.
    fn visitor(&self) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do curl -s -o /dev/null --max-time 20 \"$0\"; done", &self.at]);
        Program::start(self.outside.enter(&command), &self.site.path("visitor.log"))
    }

    /// What a verb says in JSON.
    fn asked(&self, arguments: &[&str]) -> Value {
        let done = self.site.rhumb(&[arguments, &["-o", "json"]].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        serde_json::from_str(&done.output).unwrap_or_else(|error| panic!("{error}: {}", done.output))
    }

    /// What a verb lists, as soon as it is what is wanted; calls go on meanwhile.
    fn listed(&self, arguments: &[&str], list: &str, is_wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        wait::until(&arguments.join(" "), || {
            self.call();
            let found = self.asked(arguments)[list].as_array().cloned().unwrap_or_default();
            is_wanted(&found).then_some(found)
        })
    }
}

fn gateway(site: &Site, machine: &Machine) -> Program {
    let home = site.path("edge");
    std::fs::create_dir_all(home.join("own")).unwrap();
    let token = site.token("edge");
    std::fs::write(home.join("join"), token).unwrap();
    let mut command = Rhumb::command();
    command.arg("run").arg("-c").arg(home.join("own")).args(["--gateway", "shop/edge"]);
    command.args(["--control", &format!("{}:15012", site.plane.address())]);
    command.arg("--state").arg(home.join("state")).arg("--join-token-file").arg(home.join("join"));
    command.arg("--admin-token-file").arg(home.join("token"));
    Program::start(machine.enter(&command), &home.join("log"))
}

fn application(name: &str, broken: &std::path::Path, further: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/fleet_app.py")).args([name, "9000"]);
    command.arg(broken).args(further);
    command
}

fn edge<'a>(edges: &'a [Value], source: &str, target: &str) -> Option<&'a Value> {
    edges.iter().find(|edge| edge["source"] == source && edge["target"] == target)
}

#[test]
fn the_control_plane_knows_who_calls_whom_how_well_and_what_is_wrong_with_each_proxy() {
    let shop = Shop::open();
    let both = |edges: &[Value]| {
        edge(edges, "shop/edge", "shop/web:80").is_some()
            && edge(edges, "shop/web", "shop/orders:80").is_some()
    };
    let edges = shop.listed(&["edges"], "edges", both);
    assert!(edges.len() == 2 && edges.iter().all(|edge| edge["mtls"] == true), "{edges:#?}");
    // Both sides of a call have counted it; it is told once. Of the gateway's calls none is left by now that never arrived.
    let named = |items: &[Value], name: &str| items.iter().find(|item| item["name"] == name).cloned();
    let count = |items: &[Value], name: &str| named(items, name).and_then(|item| item["requests"].as_u64());
    let (first, second) = ("shop/edge>shop/web:80", "shop/web>shop/orders:80");
    let lately = ["top", "edge", "--window", "10"];
    shop.listed(&lately, "items", |items| {
        let both = count(items, first).zip(count(items, second));
        both.is_some_and(|(one, other)| one > 5 && one.abs_diff(other) <= one / 2)
    });
    let endpoints = shop.asked(&["top", "endpoint"]);
    let found = endpoints["items"].as_array().cloned().unwrap_or_default();
    let is_orders =
        |item: &&Value| item["name"].as_str().is_some_and(|name| name.starts_with("shop/orders:80 "));
    assert_eq!(found.iter().filter(is_orders).count(), 1, "{endpoints:#}");

    let proxies = shop.asked(&["get", "proxies"]);
    let proxies = proxies.as_array().cloned().unwrap_or_default();
    assert_eq!(proxies.len(), 3, "{proxies:#?}");
    for proxy in &proxies {
        assert_eq!(proxy["version"], env!("CARGO_PKG_VERSION"), "{proxy:#}");
        assert_eq!(proxy["state"], "ready", "{proxy:#}");
        assert!(proxy["certificates"][0]["secondsLeft"].as_i64() > Some(0), "{proxy:#}");
    }

    // A service fails: it is said of the edge that fails, and of nobody else's fault.
    std::fs::write(&shop.broken, "").unwrap();
    shop.listed(&lately, "items", |items| {
        named(items, second).is_some_and(|edge| edge["errorRatio"].as_f64() > Some(0.9))
    });
    let health = wait::until("the service is said to fail", || {
        shop.call();
        let health = shop.site.rhumb(&["status", "--check"]).output;
        health.contains("service_failing: backend shop/orders:80").then_some(health)
    });
    assert!(health.contains("called by shop/web"), "{health}");

    // People find it in the dashboard of the control plane.
    let browser = tempfile::tempdir().unwrap();
    let token = shop.site.path("control-token");
    let token = token.to_str().unwrap();
    let words = ["fleet", "http://127.0.0.1:9901", token, "shop/orders:80", "shop/web"];
    let words: Vec<&str> = words.into_iter().chain(pictures()).collect();
    let visitor = shop.visitor();
    let found = finish(shop.site.plane.enter(&node_script(SCRIPT.as_ref(), &words, browser.path())));
    drop(visitor);
    assert_eq!(found.code, Some(0), "{}", found.output);
    assert!(
        found.output.contains("ok a failing service of the mesh is found within three clicks"),
        "{found:?}"
    );

    // A proxy that goes is told of, and what it said goes with it.
    let Shop { site, gateway, .. } = shop;
    drop(gateway);
    wait::until("the gateway is gone", || {
        let status = site.rhumb(&["status", "--check"]).output;
        (status.contains("proxy_gone") && status.contains("gateway/shop/edge")).then_some(())
    });
}

#[test]
fn one_request_is_traced_from_the_gateway_to_the_last_service() {
    let shop = Shop::open();
    let trace = |filter: &'static str, verb: &'static str| {
        let _visitor = shop.visitor();
        let done = shop.site.rhumb(&[verb, filter, "--limit", "1", "--seconds", "60", "-o", "json"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let lines = done.output.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    // The filter fits up to the first service: the rest is found by what the request is called.
    let parts = trace("request.path == '/cart'", "trace");
    let proxies: Vec<&str> = parts.iter().map(|part| part["proxy"].as_str().unwrap()).collect();
    let (web, orders) = ("sidecar/shop/web-1 (shop/web)", "sidecar/shop/orders-1 (shop/orders)");
    assert!(
        proxies[0].starts_with("gateway/shop/edge/") && proxies[0].ends_with(" (shop/edge)"),
        "{parts:#?}"
    );
    assert_eq!(proxies[1..], [web, web, orders], "{parts:#?}");
    assert!(parts.iter().all(|part| part["requestId"] == parts[0]["requestId"]), "{parts:#?}");
    assert!(
        parts.iter().all(|part| part["steps"].as_array().is_some_and(|steps| steps.len() > 2)),
        "{parts:#?}"
    );
    assert_eq!(parts[3]["exchange"]["path"], "/web");

    let seen = trace("backend == 'shop/orders:80'", "tap");
    assert_eq!(seen.len(), 1, "{seen:#?}");
    assert_eq!(seen[0]["proxy"], web);
    let wrong = shop.site.rhumb(&["tap", "request.nothing == 1"]);
    assert!(wrong.code != Some(0) && wrong.output.contains("filter"), "{wrong:?}");
}
