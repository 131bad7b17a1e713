//! Which APIs a mesh has, asked of its control plane: what one proxy saw and what another saw is one thing.

use crate::fleet::GATEWAY;
use crate::mesh_control::{Site, services};
use rhumb_testkit::netns::Machine;
use rhumb_testkit::process::{Program, Rhumb, finish};
use rhumb_testkit::wait;
use serde_json::{Value, json};
use std::process::Command;

/// A route that nobody uses any more.
const BEFORE: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: before, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {value: /old}}]
    backendRefs: [{kind: Service, group: '', name: web, port: 80}]
";

const SHOP: &str = "
openapi: 3.1.0
info: {title: shop, version: '1'}
servers: [{url: 'http://shop.example/v2'}]
paths:
  /items:
    get:
      parameters: [{name: page, in: query}]
      responses: {'200': {}}
  /items/{item}:
    get: {responses: {'200': {}}}
    delete: {responses: {'204': {}}}
";

const ORDERS: &str = "
openapi: 3.1.0
info: {title: orders, version: '1'}
servers: [{url: 'http://orders.shop.svc.cluster.local'}]
paths:
  /web: {get: {responses: {'200': {}}}}
  /refunds: {post: {responses: {'201': {}}}}
";

/// One of several proxies of the same Gateway.
fn gateway(site: &Site, machine: &Machine, name: &str) -> Program {
    let home = site.path(name);
    std::fs::create_dir_all(home.join("own")).unwrap();
    std::fs::write(home.join("join"), site.token("edge")).unwrap();
    let mut command = Rhumb::command();
    command.arg("run").arg("-c").arg(home.join("own")).args(["--gateway", "shop/edge"]);
    command.args(["--control", &format!("{}:15012", site.plane.address())]);
    command.arg("--state").arg(home.join("state")).arg("--join-token-file").arg(home.join("join"));
    command.arg("--admin-token-file").arg(home.join("token"));
    Program::start(machine.enter(&command), &home.join("log"))
}

fn application(site: &Site, name: &str, further: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/fleet_app.py")).args([name, "9000"]);
    command.arg(site.path("never")).args(further);
    command
}

/// The status of an answer to a request for the shop at one of its gateways.
fn ask(from: &Machine, gateway: &Machine, method: &str, target: &str) -> String {
    let mut command = from.command("curl");
    command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "60", "-X", method]);
    command.args(["-H", "Host: shop.example", &format!("http://{}:8080{target}", gateway.address())]);
    finish(command).output
}

fn operation<'a>(report: &'a Value, host: &str, path: &str) -> &'a Value {
    let mut all = report["apis"]["operations"].as_array().expect("a list").iter();
    all.find(|one| one["host"] == host && one["path"] == path).unwrap_or(&Value::Null)
}

fn names(report: &Value, kind: &str) -> Vec<String> {
    let all = report["report"][kind].as_array().expect("a list").iter();
    let mut names: Vec<_> = all.map(|one| one["operation"].as_str().unwrap_or_default().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_all_proxies_saw_names_the_planted_operations_of_the_mesh_and_no_other() {
    let site = Site::new();
    site.apply(&format!("{GATEWAY}{BEFORE}{}", services(["web".to_owned(), "orders".to_owned()])), &[]);
    let [web, orders, one, other, outside] =
        ["web", "orders", "edge-1", "edge-2", "outside"].map(|name| site.network.machine(name));
    let served = ["--service", "orders", "--port", "80=9000:http"];
    let _orders = site.start(&orders, "orders-1", "orders", &served, &application(&site, "orders", &[]));
    let calls = ["--service", "web", "--port", "80=9000:http", "--upstream", "orders=127.0.0.1:9100"];
    let further = application(&site, "web", &["http://127.0.0.1:9100/"]);
    let _web = site.start(&web, "web-1", "web", &calls, &further);
    let gateways = [gateway(&site, &one, "edge-1"), gateway(&site, &other, "edge-2")];
    for gateway in [&one, &other] {
        wait::until("a call goes through", || {
            (ask(&outside, gateway, "GET", "/v2/items/0") == "200").then_some(())
        });
    }

    // What no document has goes by one gateway, what is not as declared by the other; who tries a method adds nothing.
    assert_eq!(ask(&outside, &one, "GET", "/v2/items?page=1"), "200");
    assert_eq!(ask(&outside, &one, "GET", "/v2/internal/7/dump"), "200");
    assert_eq!(ask(&outside, &other, "GET", "/v2/items?debug=1"), "200");
    assert_eq!(ask(&outside, &other, "DELETE", "/v2/items/7"), "501");

    let documents = [("shop.yaml", SHOP), ("orders.yaml", ORDERS)].map(|(name, text)| {
        let path = site.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let compared = ["apis", "--openapi", &documents[0], "--openapi", &documents[1]];
    let report = wait::until("both gateways and both services have told", || {
        let done = site.rhumb(&[&compared[..], &["-o", "json"]].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        let report: Value = serde_json::from_str(&done.output).expect("JSON");
        let is_told = operation(&report, "shop.example", "/v2/items")["requests"] == 2
            && operation(&report, "shop.example", "/v2/internal/{id}/dump")["requests"] == 1
            && operation(&report, "web.shop.svc.cluster.local", "/v2/items")["requests"] == 2
            // Of its callers the service tells, and so does who called it; of its routes the service alone.
            && operation(&report, "orders.shop.svc.cluster.local", "/web")["routes"]
                .as_object()
                .is_some_and(|routes| !routes.is_empty());
        is_told.then_some(report)
    });
    assert_eq!(names(&report, "unused"), ["/old/*", "DELETE /items/{item}", "POST /refunds"], "{report:#}");
    assert_eq!(names(&report, "shadow"), ["GET /v2/internal/{id}/dump"], "{report:#}");
    assert_eq!(names(&report, "drift"), ["GET /items"], "{report:#}");
    let what = json!(["query parameter `debug` is not declared"]);
    assert_eq!(report["report"]["drift"][0]["what"], what, "{report:#}");
    assert_eq!(report["report"]["matching"], 2, "{report:#}");

    // A service is one host, whatever it is called by; of a call between proxies the called one says who called.
    let callers = |host: &str, path: &str| {
        let callers = operation(&report, host, path)["callers"].as_object().cloned().unwrap_or_default();
        callers.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(callers("orders.shop.svc.cluster.local", "/web"), ["shop/web"], "{report:#}");
    assert_eq!(callers("web.shop.svc.cluster.local", "/v2/items"), ["shop/edge"], "{report:#}");
    let hosts = report["apis"]["operations"].as_array().unwrap().iter();
    assert!(hosts.clone().all(|one| one["host"] != "127.0.0.1:9100"), "{report:#}");

    let text = site.rhumb(&compared).output;
    assert!(text.contains("SHADOW (1)\n  GET /v2/internal/{id}/dump"), "{text}");
    // Two gateways of one Gateway are two proxies.
    let proxies = site.rhumb(&["get", "proxies"]).output;
    assert_eq!(proxies.matches("gateway/shop/edge/").count(), 2, "{proxies}");
    for gateway in &gateways {
        assert!(!gateway.log().contains("connected again"), "{}", gateway.log());
    }

    let rules = site.rhumb(&["learn"]).output;
    assert!(rules.contains("learned-orders") && rules.contains("learned-web"), "{rules}");
}
