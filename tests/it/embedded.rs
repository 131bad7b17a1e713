//! A gateway that is the control plane of its mesh.

use rhumb_testkit::member::{self, Operator, application, asks, keep_join_token};
use rhumb_testkit::process::{Finished, Program, Rhumb, finish};
use rhumb_testkit::{port, wait};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The gateway, with what it needs.
struct Home {
    dir: TempDir,
    admin: u16,
    operator: Operator,
    control: String,
    web: u16,
    program: Program,
}

/// Its files: a way to a service, and one more answer.
fn documents(admin: u16, web: u16, more: &str) -> String {
    format!(
        "apiVersion: rhumb.dev/v1alpha1
kind: ProxyConfig
metadata: {{name: own}}
spec: {{admin: {{address: '127.0.0.1:{admin}'}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  gatewayClassName: rhumb
  listeners: [{{name: web, port: {web}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: shop}}
spec:
  parentRefs: [{{name: edge}}]
  rules:
    - matches: [{{path: {{type: PathPrefix, value: /}}}}]
      backendRefs: [{{kind: Service, group: '', name: orders, port: 80}}]
---
apiVersion: v1
kind: Service
metadata: {{name: orders}}
spec: {{ports: [{{name: http, port: 80, appProtocol: http}}]}}
{more}"
    )
}

impl Home {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (admin, web) = (port::free(), port::free());
        let control = format!("127.0.0.1:{}", port::free());
        std::fs::create_dir(dir.path().join("files")).expect("a directory");
        std::fs::write(dir.path().join("files/shop.yaml"), documents(admin, web, "")).expect("a file");
        let mut command = Rhumb::command();
        command.arg("run").arg("-c").arg(dir.path().join("files"));
        command.arg(format!("--control-plane={control}")).arg("--directory").arg(dir.path().join("control"));
        command.arg("--admin-token-file").arg(dir.path().join("token"));
        let program = Program::start(command, &dir.path().join("log"));
        let operator = Operator::new(&format!("127.0.0.1:{admin}"), dir.path().join("token"));
        let home = Self { dir, admin, operator, control, web, program };
        wait::until("the gateway answers people", || {
            (home.rhumb(&["get"]).code == Some(0)).then_some(()).or_else(|| {
                assert!(!home.program.log().contains("cannot run"), "{}", home.program.log());
                None
            })
        });
        home
    }

    fn rhumb(&self, args: &[&str]) -> Finished {
        self.operator.rhumb(args)
    }

    fn token(&self, account: &str) -> PathBuf {
        let mut command = Rhumb::command();
        command.args(["token", "create", "--service-account", account]);
        command.arg("--authority").arg(self.dir.path().join("control/authority"));
        keep_join_token(&finish(command), self.dir.path().join("join-token"))
    }

    fn sidecar(&self, dir: &Path, app: u16) -> Program {
        let (app, tunnel) = (format!("80={app}"), format!("127.0.0.1:{}", port::free()));
        let serves = ["--service", "orders", "--port", &app, "--tunnel", &tunnel];
        member::sidecar(&self.control, dir, &self.token("orders"), "orders", &serves)
    }
}

#[test]
fn a_gateway_is_the_control_plane_of_its_mesh() {
    let home = Home::start();
    let orders = home.sidecar(&home.dir.path().join("orders"), application("hello"));
    let told = |orders: &Program| format!("{}\n---\n{}", home.program.log(), orders.log());
    let found = wait::poll(Duration::from_secs(60), || {
        asks(home.web, "/").filter(|answer| answer.ends_with("hello"))
    });
    assert!(found.is_some(), "{:?}\n{}", asks(home.web, "/"), told(&orders));
    // Both sides have certificates of the authority that is in the gateway.
    assert!(home.dir.path().join("control/member/svid.json").exists());
    assert!(home.rhumb(&["get", "proxies"]).output.contains("default/orders"));
    // What files say is for files to change.
    let path = home.dir.path().join("documents.yaml");
    let apply = |text: &str| {
        std::fs::write(&path, text).expect("a file");
        home.rhumb(&["apply", path.to_str().expect("UTF-8")])
    };
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: orders}\nspec: {ports: [{name: http, port: 81}]}\n";
    let refused = apply(service);
    assert!(refused.code != Some(0) && refused.output.contains("shop.yaml:24:18"), "{}", refused.output);
    let gone = home.rhumb(&["delete", "Service", "orders"]);
    assert!(gone.output.contains("shop.yaml:24:18"), "{}", gone.output);
    let dry = home.rhumb(&["apply", "--dry-run", path.to_str().expect("UTF-8")]);
    assert!(dry.code != Some(0) && dry.output.contains("shop.yaml:24:18"), "{}", dry.output);
    // Others may be applied beside them: a policy of the server's side.
    let denied = "apiVersion: rhumb.dev/v1alpha1
kind: Policy
metadata: {name: closed}
spec:
  targetRefs: [{kind: Service, name: orders}]
  policies: {authorization: {rules: [{action: Deny, when: 'true'}]}}
";
    let applied = apply(denied);
    assert_eq!(applied.code, Some(0), "{}", applied.output);
    // Each document says who changes it.
    let token = std::fs::read_to_string(home.dir.path().join("token")).expect("a token");
    let address = ([127, 0, 0, 1], home.admin).into();
    let ask = |method: &str, path: &str, content: &str| {
        rhumb_testkit::client::Client::connect(address).exchange(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
            token.trim(),
            content.len()
        ))
    };
    let told_by = crate::gate::json(&ask("GET", "/api/v1/documents", ""));
    let owner = |name: &str| {
        let mut all = told_by["documents"].as_array().expect("documents").iter();
        let found = all.find(|one| one["document"]["metadata"]["name"] == name);
        let found = found.unwrap_or_else(|| panic!("{name}: {told_by}"));
        (
            found["owner"].as_str().expect("an owner").to_owned(),
            found["origin"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(owner("closed"), ("store".to_owned(), String::new()));
    let (whose, origin) = owner("orders");
    assert!(whose == "files" && origin.ends_with("shop.yaml:24:18"), "{whose} {origin}");
    // What is wrong is told with its place, in a dry run too.
    let wrong =
        r#"{"yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec:\n  ports: [{prot: 80}]\n"}"#;
    for path in ["/api/v1/documents?dryRun=true", "/api/v1/documents"] {
        let refused = ask("POST", path, wrong);
        let told = crate::gate::json(&refused);
        assert_eq!((refused.status(), told["code"].as_str()), (422, Some("documents_invalid")), "{told}");
        assert_eq!(
            (&told["diagnostics"][0]["line"], &told["diagnostics"][0]["column"]),
            (&5.into(), &12.into()),
            "{told}"
        );
    }
    wait::until("the service is closed", || asks(home.web, "/").filter(|answer| answer.contains(" 403 ")));
    assert_eq!(home.rhumb(&["delete", "Policy", "closed"]).code, Some(0));
    wait::until("it is open again", || asks(home.web, "/").filter(|answer| answer.ends_with("hello")));
    // A change of a file is a revision, and one with a mistake is none.
    let files = home.dir.path().join("files/shop.yaml");
    let more = "---
apiVersion: rhumb.dev/v1alpha1
kind: Backend
metadata: {name: more}
spec: {endpoints: ['127.0.0.1:9001']}
";
    std::fs::write(&files, documents(home.admin, home.web, more)).expect("a file");
    wait::until("the document is there", || {
        home.rhumb(&["get", "Backend"]).output.contains("more").then_some(())
    });
    assert!(home.rhumb(&["history"]).output.contains("files"));
    std::fs::write(&files, documents(home.admin, home.web, "")).expect("a file");
    wait::until("the document is gone", || {
        (!home.rhumb(&["get", "Backend"]).output.contains("more")).then_some(())
    });
    assert!(asks(home.web, "/").expect("an answer").ends_with("hello"));
}
