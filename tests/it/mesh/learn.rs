//! `rhumb learn`: rules from traffic allow what was seen, and nothing else.

use super::{World, upstream};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::{Client, get};
use rhumb_testkit::process::{Rhumb, finish};
use rhumb_testkit::wait;
use std::net::SocketAddr;
use std::time::Duration;

fn post(address: SocketAddr, target: &str) -> u16 {
    let mut client = Client::connect(address);
    client.send(format!("POST {target} HTTP/1.1\r\nHost: orders\r\nContent-Length: 0\r\n\r\n"));
    client.response().status()
}

#[test]
fn what_was_seen_is_allowed_and_nothing_else() {
    let backend = Backend::start();
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", appProtocol: http", backend.address());
    let server = world.sidecar_of(&orders);
    let ((web_port, web_at), (other_port, other_at)) = (upstream(), upstream());
    let _web = world.caller("web", &[(&orders, web_port)]);
    let _other = world.caller("other", &[(&orders, other_port)]);
    for id in 1..=3 {
        assert_eq!(get(web_at, "orders", &format!("/orders/{id}")).status(), 200);
    }
    assert_eq!(get(web_at, "orders", "/stock").status(), 200);
    assert_eq!(post(other_at, "/reports"), 200);
    let learn = |more: &[&str]| {
        let mut command = Rhumb::command();
        command.args(["learn", "--admin", &server.admin_address().to_string()]).args(more);
        command.arg("--admin-token-file").arg(server.admin_token());
        finish(command)
    };
    // Workers tell what they saw once in a while.
    let seen = |text: &str| {
        ["default-web-get", "default-other-post", "# 4 requests", "/orders/[^/]+"]
            .iter()
            .all(|part| text.contains(part))
    };
    let proposed = wait::poll(Duration::from_secs(60), || Some(learn(&[]).output).filter(|text| seen(text)));
    let proposed = proposed.unwrap_or_else(|| panic!("{}", learn(&[]).output));
    assert!(proposed.contains("shadow: true"), "{proposed}");
    let rules = learn(&["--enforce"]);
    assert!(rules.code == Some(0) && !rules.output.contains("shadow"), "{}", rules.output);
    drop(server);
    world.add(&rules.output);
    let _server = world.sidecar_of(&orders);
    wait::until("the service is back", || (get(web_at, "orders", "/orders/4").status() == 200).then_some(()));
    assert_eq!(get(web_at, "orders", "/stock").status(), 200);
    wait::until("the other caller finds it", || (post(other_at, "/reports") == 200).then_some(()));
    for (address, target) in
        [(web_at, "/orders"), (web_at, "/orders/4/items"), (web_at, "/admin"), (other_at, "/stock")]
    {
        assert_eq!(get(address, "orders", target).status(), 403, "{target}");
    }
    assert_eq!(post(web_at, "/stock"), 403);
}
