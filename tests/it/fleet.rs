//! What a control plane knows of a gateway and of sidecars on machines of their own: calls, health, versions, certificates.

use crate::mesh_control::{Member, Site, curl, services};
use rhumb_testkit::netns::Machine;
use rhumb_testkit::process::{Finished, Program, Rhumb};
use rhumb_testkit::wait;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

const GATEWAY: &str = "
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
    let items = shop.listed(&lately, "items", |items| {
        count(items, first).is_some_and(|requests| requests > 5) && count(items, second).is_some()
    });
    let (one, other) = (count(&items, first).unwrap(), count(&items, second).unwrap());
    assert!(one.abs_diff(other) <= one / 2, "{items:#?}");
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

    // A proxy that goes is told of, and what it said goes with it.
    let Shop { site, gateway, .. } = shop;
    drop(gateway);
    wait::until("the gateway is gone", || {
        let status = site.rhumb(&["status", "--check"]).output;
        (status.contains("proxy_gone") && status.contains("gateway/shop/edge")).then_some(())
    });
}
