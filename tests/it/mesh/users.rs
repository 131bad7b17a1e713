//! The end user, from the gateway that knows them to the services behind, in a token that the gateway's certificate signs.

use super::{Served, World, upstream};
use crate::gate::local;
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::Client;
use rhumb_testkit::{port, wait};
use std::net::SocketAddr;

const EDGE: &str = "spiffe://cluster.local/ns/default/sa/edge";

/// A service whose policies are these.
fn guarded(world: &mut World, name: &'static str, backend: &Backend, policies: &str) -> Served {
    let served = world.serve(name, 8080, ", appProtocol: http", backend.address());
    world.add(&format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {{name: {name}}}\n\
         spec: {{targetRefs: [{{kind: Service, name: {name}}}], policies: {{{policies}}}}}"
    ));
    served
}

fn ask(address: SocketAddr, fields: &[(&str, &str)]) -> (u16, String) {
    let mut client = Client::connect(address);
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"));
    let answer = client.response();
    (answer.status(), answer.text())
}

/// The claims of a token, not verified.
fn claims(token: &str) -> String {
    let digits = token.split('.').nth(1).expect("claims");
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let values = digits.bytes().map(|b| ALPHABET.iter().position(|&digit| digit == b).expect("a digit"));
    let (mut bits, mut count, mut bytes) = (0usize, 0, Vec::new());
    for value in values {
        (bits, count) = (bits << 6 | value, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).expect("a byte"));
        }
    }
    String::from_utf8(bytes).expect("text")
}

#[test]
fn a_service_knows_workload_and_user_and_believes_only_whom_it_lists() {
    let (web, orders, stock, billing, ledger) =
        (Backend::start(), Backend::start(), Backend::start(), Backend::start(), Backend::start());
    let mut world = World::new();
    let both =
        "authorization: {rules: [{when: \"source.serviceAccount == 'web' && principal.subject == 'ann'\"}]}";
    let web_is = guarded(
        &mut world,
        "web",
        &web,
        &format!("userToken: {{issuers: ['{EDGE}'], passOn: true, missing: Continue}}"),
    );
    let orders_is =
        guarded(&mut world, "orders", &orders, &format!("userToken: {{issuers: ['{EDGE}']}}, {both}"));
    let stock_is =
        guarded(&mut world, "stock", &stock, "userToken: {issuers: ['spiffe://cluster.local/ns/other/*']}");
    let billing_is = guarded(
        &mut world,
        "billing",
        &billing,
        &format!("userToken: {{issuers: ['{EDGE}'], audiences: [billing]}}"),
    );
    let ledger_is = guarded(
        &mut world,
        "ledger",
        &ledger,
        &format!(
            "issueUserToken: {{audience: ledger, exchange: {{issuers: ['{EDGE}']}}}}, \
             userToken: {{issuers: ['spiffe://cluster.local/ns/default/sa/web'], audiences: [ledger], passOn: true}}"
        ),
    );
    let all = [&web_is, &orders_is, &stock_is, &billing_is, &ledger_is];
    let _servers: Vec<_> = all.iter().map(|served| world.sidecar_of(served)).collect();
    let ports: Vec<(u16, SocketAddr)> = (0..4).map(|_| upstream()).collect();
    let called = [&orders_is, &stock_is, &billing_is, &ledger_is];
    let upstreams: Vec<(&Served, u16)> =
        called.into_iter().zip(&ports).map(|(served, port)| (served, port.0)).collect();
    let _web = world.caller("web", &upstreams);
    let [orders_at, stock_at, billing_at, ledger_at] = [0, 1, 2, 3].map(|at: usize| ports[at].1);
    let (other_port, other_at) = upstream();
    let _other = world.caller("other", &[(&orders_is, other_port)]);

    let gateway = port::free();
    let route = |name: &str, path: &str, policies: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\n\
             spec: {{parentRefs: [{{name: edge}}], rules: [{{matches: [{{path: {{value: {path}}}}}], \
             backendRefs: [{{name: web, port: 8080}}]}}]}}\n---\n\
             apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {{name: {name}}}\n\
             spec: {{targetRefs: [{{kind: HTTPRoute, name: {name}}}], policies: {{{policies}}}}}"
        )
    };
    world.add(&format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\n\
         spec: {{gatewayClassName: rhumb, addresses: [{{value: 127.0.0.1}}], \
         listeners: [{{name: web, port: {gateway}, protocol: HTTP}}]}}"
    ));
    world.add(&route(
        "long",
        "/",
        "apiKey: {keys: [{name: ann, key: key-of-ann-0123456789}]}, issueUserToken: {}",
    ));
    world.add(&route(
        "short",
        "/short",
        "apiKey: {keys: [{name: ann, key: key-of-ann-0123456789}]}, issueUserToken: {lifetime: 5s}",
    ));
    world.add(&route("open", "/open", "sizeLimit: {content: 1Mi}"));
    let tunnel = port::free();
    let _edge = world.sidecar("edge", &format!("tunnel: '127.0.0.1:{tunnel}'"), &world.identity("edge"));
    let mut client = Client::connect(local(gateway));
    let mut token_of = |path: &str, fields: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"));
        assert_eq!(client.response().status(), 200, "{path}");
        web.seen().last().and_then(|seen| seen.message.field("x-user-token").map(str::to_owned))
    };
    let key = "x-api-key: key-of-ann-0123456789\r\n";
    let token = token_of("/", &format!("{key}x-user-token: forged\r\n")).expect("a token");
    let said = claims(&token);
    assert!(said.contains("\"sub\":\"ann\"") && said.contains(&format!("\"iss\":\"{EDGE}\"")), "{said}");
    // What comes from outside gets nowhere, where nothing is signed too.
    assert_eq!(token_of("/open", &format!("x-user-token: {token}\r\n")), None);

    let with = |token: &str, address| ask(address, &[("x-user-token", token)]);
    assert_eq!(with(&token, orders_at).0, 200);
    assert!(orders.seen()[0].message.field("x-user-token").is_none(), "not asked to pass it on");
    assert_eq!(with(&token, other_at).0, 403, "the right user, by another workload");
    assert_eq!(ask(orders_at, &[]).0, 401, "the right workload, for nobody");
    let (body, signature) = token.rsplit_once('.').expect("a signature");
    let turned = format!("{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    for (token, address, why) in [
        (format!("{body}.{turned}"), orders_at, "its signature is not valid"),
        ("a.b.c".to_owned(), orders_at, "malformed"),
        (token.clone(), stock_at, "is not believed about users"),
        (token.clone(), billing_at, "another audience"),
    ] {
        let (status, text) = with(&token, address);
        assert!(status == 403 && text.contains(why), "{status} {text}");
    }
    // For one call only: the token becomes one of the workload's, with a narrower audience.
    assert_eq!(with(&token, ledger_at).0, 200);
    let exchanged = ledger.seen()[0].message.field("x-user-token").map(claims).expect("a token");
    for part in ["\"sub\":\"ann\"", "\"aud\":\"ledger\"", "sa/web\"", "\"act\":"] {
        assert!(exchanged.contains(part), "{exchanged}");
    }
    assert_eq!(with(&format!("{body}.{turned}"), ledger_at).0, 403);

    let short = token_of("/short", key).expect("a token");
    let late = wait::until("the token is too old", || {
        let (status, text) = with(&short, orders_at);
        (status == 403).then_some(text)
    });
    assert!(late.contains("it has expired"), "{late}");
}
