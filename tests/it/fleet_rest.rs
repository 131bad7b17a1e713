//! Proxies that rest, and what they tell of the traffic that ends it.

use crate::mesh_control::{Site, curl, services};
use rhumb_testkit::process::Program;
use rhumb_testkit::wait;
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// For so long the thread that records does nothing when it rests; otherwise it looks every two seconds.
const QUIET: Duration = Duration::from_secs(6);

/// How often the thread that records has waited so far.
fn waits(of: &Program) -> Option<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", of.pid())).ok()?;
    let is_recorder = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "signals")
    };
    let recorder = tasks.filter_map(|task| Some(task.ok()?.path())).find(is_recorder)?;
    let status = std::fs::read_to_string(recorder.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

fn until_it_rests(of: &Program) {
    let mut last = (waits(of), Instant::now());
    wait::until("the proxy rests", || {
        let now = waits(of);
        if now.is_none() || now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > QUIET).then_some(())
    });
}

#[test]
fn what_comes_after_a_rest_reaches_the_control_plane() {
    let site = Site::new();
    site.apply(&services(["orders".to_owned()]), &[]);
    let (orders, web) = (site.network.machine("orders"), site.network.machine("web"));
    let mut application = Command::new("python3");
    application.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/fleet_app.py")).args(["orders", "9000"]);
    application.arg(site.path("never"));
    let served = ["--service", "orders", "--port", "80=9000:http"];
    let called = site.start(&orders, "orders-1", "orders", &served, &application);
    let mut nothing = Command::new("sleep");
    nothing.arg("100000");
    let calls = ["--upstream", "orders=127.0.0.1:9100"];
    let caller = site.start(&web, "web-1", "web", &calls, &nothing);
    for member in [&called, &caller] {
        wait::until("it runs", || member.program.log().contains("configuration is live").then_some(()));
        until_it_rests(&member.program);
    }

    wait::until("a call goes through", || {
        (curl(&web, "http://127.0.0.1:9100/first").output == "orders").then_some(())
    });
    wait::until("the call is told", || {
        let done = site.rhumb(&["top", "edge", "--window", "60", "-o", "json"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let top: Value = serde_json::from_str(&done.output).expect("JSON");
        let is_called =
            |item: &Value| item["name"] == "shop/web>shop/orders:80" && item["requests"].as_u64() > Some(0);
        top["items"].as_array()?.iter().any(is_called).then_some(())
    });
    let apis = wait::until("what was asked is told", || {
        let apis: Value = serde_json::from_str(&site.rhumb(&["apis", "-o", "json"]).output).ok()?;
        (apis["apis"]["operations"][0]["path"] == "/first").then_some(apis)
    });
    assert_eq!(
        apis["apis"]["operations"][0]["callers"]["shop/web"].as_u64(),
        apis["apis"]["operations"][0]["requests"].as_u64(),
        "{apis:#}"
    );
}
