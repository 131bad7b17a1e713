//! The dashboard, used with a real browser (`ui/test/dashboard.mjs`). With `UPDATE=1` its pictures go to docs/dashboard.

use rhumb_testkit::backend::Backend;
use rhumb_testkit::cert::Authority;
use rhumb_testkit::client::Client;
use rhumb_testkit::process::{Program, Rhumb, finish, node_script};
use rhumb_testkit::{port, wait};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// What the browser does.
pub(crate) const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ui/test/dashboard.mjs");

/// Where the pictures of the manual are.
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/dashboard");

/// Between two requests of one visitor of the shop.
const PAUSE: Duration = Duration::from_millis(12);

/// Visitors of the shop.
const VISITORS: usize = 3;

/// Runs a part of the script; what it printed, which is one line for each thing that works.
fn browse(part: &str, admin: u16, token: &Path, more: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let base = format!("http://127.0.0.1:{admin}");
    let token = token.to_str().expect("UTF-8");
    let finished = finish(node_script(SCRIPT.as_ref(), &[&[part, &base, token], more].concat(), dir.path()));
    assert_eq!(finished.code, Some(0), "{part}: {}", finished.output);
    finished.output
}

/// Where pictures go, when they are wanted.
pub(crate) fn pictures() -> Option<&'static str> {
    std::env::var_os("UPDATE")?;
    std::fs::create_dir_all(PICTURES).expect("a directory for the pictures");
    Some(PICTURES)
}

/// A gateway in front of a shop that people visit.
struct Shop {
    rhumb: Rhumb,
    admin: u16,
    _backends: Vec<Backend>,
    is_over: Arc<AtomicBool>,
    visitors: Vec<JoinHandle<()>>,
}

impl Shop {
    fn open() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let backends: Vec<_> = (1..=7).map(|at| Backend::named(&format!("b{at}"))).collect();
        let (web, secure, admin) = (port::free(), port::free(), port::free());
        let mut text = include_str!("dashboard/shop.yaml")
            .replace("@web", &web.to_string())
            .replace("@secure", &secure.to_string())
            .replace("@closed", &port::free().to_string());
        for (at, backend) in backends.iter().enumerate() {
            text = text.replace(&format!("@b{}", at + 1), &backend.address().port().to_string());
        }
        Authority::new("the shop's authority")
            .server(&["shop.example", "www.shop.example"])
            .write(dir.path(), "web");
        std::fs::write(dir.path().join("shop.yaml"), text).expect("documents");
        let config = format!("admin: {{ address: '127.0.0.1:{admin}' }}\n");
        std::fs::write(dir.path().join("process.yaml"), config).expect("a configuration");
        let rhumb = Rhumb::start_on(dir, "", admin);
        let is_over = Arc::new(AtomicBool::new(false));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, web));
        let visitor = |number: usize| {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || visit(address, number, &is_over))
        };
        let visitors = (0..VISITORS).map(visitor).collect();
        Self { rhumb, admin, _backends: backends, is_over, visitors }
    }

    fn token(&self) -> PathBuf {
        self.rhumb.admin_token()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        for visitor in self.visitors.drain(..) {
            // What a visitor has to complain about is not what is tested.
            let _ = visitor.join();
        }
    }
}

/// Walks through the shop until it is over.
fn visit(address: SocketAddr, number: usize, is_over: &AtomicBool) {
    const KEY: &str = "x-api-key: 2f1c9a7e5b3d8f60\r\n";
    let walk = [
        ("GET", "/users/echo", ""),
        ("GET", "/cart/echo", ""),
        ("GET", "/users/bytes/3000", ""),
        ("GET", "/orders/echo?page=2", KEY),
        ("GET", "/cart/bytes/900", ""),
        ("GET", "/pay/echo", ""),
        ("GET", "/users/echo", ""),
        ("GET", "/cart/status/204", ""),
        ("GET", "/pay/status/503", ""),
        ("GET", "/orders/echo", ""),
    ];
    let mut steps = walk.iter().cycle().skip(number * 3);
    while !is_over.load(Ordering::Acquire) {
        let Ok(mut client) = Client::try_connect(address) else { return };
        for (method, target, more) in steps.by_ref().take(50) {
            let request = format!("{method} {target} HTTP/1.1\r\nhost: shop.example\r\n{more}\r\n");
            if client.try_send(request).is_err()
                || client.try_response(rhumb_testkit::message::Kind::Response).is_err()
                || is_over.load(Ordering::Acquire)
            {
                break;
            }
            std::thread::park_timeout(PAUSE);
        }
    }
}

#[test]
fn a_failing_service_is_found_and_every_page_keeps_nobody_out() {
    let shop = Shop::open();
    wait::until("the endpoint that nobody answers at is out", || {
        shop.rhumb.admin("/api/v1/health").text().contains("shop/cart").then_some(())
    });
    let more: Vec<_> = ["shop/cart"].into_iter().chain(pictures()).collect();
    let found = browse("look", shop.admin, &shop.token(), &more);
    assert!(found.contains("ok a failing service is found within three clicks"), "{found}");
}

#[test]
fn who_has_no_token_sees_nothing_of_it() {
    let shop = Shop::open();
    let found = browse("door", shop.admin, &shop.token(), &[]);
    assert!(found.contains("ok the session is a cookie that scripts cannot read"), "{found}");
}

#[test]
fn a_browser_is_logged_in_by_an_identity_provider() {
    let provider = crate::operators::Provider::start();
    let rhumb = provider.gate();
    provider.next(&serde_json::json!({ "groups": ["dev"], "email": "ann@example.com" }));
    let token = rhumb.admin_token();
    let found = browse("provider", rhumb.admin_address().port(), token.as_ref(), &["The Provider"]);
    assert!(found.contains("ok a browser is logged in by the provider"), "{found}");
}

#[test]
fn its_files_may_be_kept_and_load_nothing_from_elsewhere() {
    let shop = Shop::open();
    let ask = |target: &str, more: &str| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, shop.admin));
        // A name, and no token: the files are no secret.
        Client::connect(address).exchange(format!("GET {target} HTTP/1.1\r\nhost: rhumb.test\r\n{more}\r\n"))
    };
    let page = ask("/ui/", "");
    assert_eq!(page.status(), 200);
    let policy = page.field("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let text = page.text();
    let script = text.split("src=\"./").nth(1).and_then(|rest| rest.split('"').next()).expect("a script");
    let tag = page.field("etag").expect("a tag").to_owned();
    assert_eq!(ask("/ui/", &format!("if-none-match: {tag}\r\n")).status(), 304);
    let plain = ask(&format!("/ui/{script}"), "");
    let packed = ask(&format!("/ui/{script}"), "accept-encoding: gzip\r\n");
    assert!(plain.field("cache-control").is_some_and(|value| value.contains("immutable")));
    assert_eq!(packed.field("content-encoding"), Some("gzip"));
    assert!(packed.content.len() * 2 < plain.content.len());
    assert_eq!(ask("/ui/0000000000000000/app.js", "").status(), 404);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, shop.admin));
    let browser = Client::connect(address)
        .exchange("GET / HTTP/1.1\r\nhost: localhost\r\naccept: text/html,application/xhtml+xml\r\n\r\n");
    assert!(
        (300..400).contains(&browser.status()) && browser.field("location") == Some("/ui/"),
        "{browser:?}"
    );
}

/// A control plane and a gateway that runs what it says.
struct Fleet {
    dir: TempDir,
    admin: u16,
    web: u16,
    _control: Program,
    _member: Program,
}

impl Fleet {
    fn start(answer: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (admin, listen, web) = (port::free(), port::free(), port::free());
        let path = |name: &str| dir.path().join(name);
        let mut command = Rhumb::command();
        command
            .arg("control")
            .arg("--directory")
            .arg(path("store"))
            .arg("--authority")
            .arg(path("authority"));
        command.args(["--admin", &format!("127.0.0.1:{admin}"), "--listen", &format!("127.0.0.1:{listen}")]);
        command.arg("--admin-token-file").arg(path("token"));
        let control = Program::start(command, &path("control.log"));
        let rhumb = |args: &[&str]| {
            let mut command = Rhumb::command();
            command.args(args).args(["--admin", &format!("127.0.0.1:{admin}")]);
            command.arg("--admin-token-file").arg(path("token"));
            finish(command)
        };
        wait::until("the control plane answers", || (rhumb(&["get"]).code == Some(0)).then_some(()));
        let documents = include_str!("dashboard/fleet.yaml").replace("@web", &web.to_string());
        std::fs::write(path("fleet.yaml"), documents.replace("@answer", answer)).expect("documents");
        let applied =
            rhumb(&["apply", path("fleet.yaml").to_str().expect("UTF-8"), "--message", "the first"]);
        assert_eq!(applied.code, Some(0), "{}", applied.output);
        let mut command = Rhumb::command();
        command.args(["token", "create", "--namespace", "shop", "--service-account", "edge"]);
        command.arg("--authority").arg(path("authority"));
        let token = finish(command);
        let line = token.output.lines().find(|line| line.starts_with("rhumb-join-")).expect("a token");
        std::fs::write(path("join"), line).expect("a file");
        std::fs::create_dir_all(path("own")).expect("a directory");
        let mut command = Rhumb::command();
        command.arg("run").arg("-c").arg(path("own")).args(["--control", &format!("127.0.0.1:{listen}")]);
        command.args(["--gateway", "shop/edge"]).arg("--state").arg(path("state"));
        command.arg("--join-token-file").arg(path("join"));
        let member = Program::start(command, &path("member.log"));
        wait::until("the gateway answers", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, web)).ok().or_else(|| {
                assert!(!member.log().contains("rhumb ends"), "{}", member.log());
                None
            })
        });
        Self { dir, admin, web, _control: control, _member: member }
    }
}

#[test]
fn a_change_is_reviewed_applied_seen_live_and_rolled_back() {
    let fleet = Fleet::start("the old words");
    let gate = format!("http://127.0.0.1:{}/", fleet.web);
    let mut more = vec![&*gate, "Policy", "shop", "answer", "the old words", "the new words"];
    more.extend(pictures());
    let found = browse("change", fleet.admin, &fleet.dir.path().join("token"), &more);
    for step in ["ok what is said to be live is live", "ok what was rolled back is as before"] {
        assert!(found.contains(step), "{found}");
    }
}
