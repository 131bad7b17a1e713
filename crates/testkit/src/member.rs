//! What lives on a control plane, each a process on this machine: gateways, sidecars with their applications, and whoever
//! asks them for something.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Finished, Program, Rhumb, finish};

/// Somebody with the token of an admin listener.
pub struct Operator {
    admin: String,
    token: PathBuf,
}

impl Operator {
    /// One who asks at `HOST:PORT`.
    pub fn new(admin: &str, token: PathBuf) -> Self {
        Self { admin: admin.to_owned(), token }
    }

    /// What comes of a verb.
    pub fn rhumb(&self, args: &[&str]) -> Finished {
        let mut command = Rhumb::command();
        command.args(args).args(["--admin", &self.admin]).arg("--admin-token-file").arg(&self.token);
        finish(command)
    }

    /// Applies documents, from `documents.yaml` beside the token.
    pub fn apply(&self, text: &str, more: &[&str]) -> Finished {
        let path = self.token.with_file_name("documents.yaml");
        std::fs::write(&path, text).expect("a file");
        self.rhumb(&[&["apply", path.to_str().expect("UTF-8")], more].concat())
    }
}

/// The join token that `rhumb token create` has made, in a file.
pub fn keep_join_token(made: &Finished, path: PathBuf) -> PathBuf {
    assert_eq!(made.code, Some(0), "{}", made.output);
    let line = made.output.lines().find(|line| line.starts_with("rhumb-join-"));
    std::fs::write(&path, line.expect("a token")).expect("a file");
    path
}

/// The gateway `shop/edge`, which has all its documents from control planes, the first of which it asks first. It needs a
/// token where `dir` has no certificate from before.
pub fn gateway(controls: &[&str], dir: &Path, token: Option<&Path>) -> Program {
    // Nothing is only this machine's business.
    let own = dir.join("own");
    std::fs::create_dir_all(&own).expect("a directory");
    let mut command = Rhumb::command();
    command.arg("run").arg("-c").arg(&own).args(["--gateway", "shop/edge"]);
    for control in controls {
        command.args(["--control", control]);
    }
    command.arg("--state").arg(dir.join("state"));
    if let Some(token) = token {
        command.arg("--join-token-file").arg(token);
    }
    Program::start(command, &dir.join("log"))
}

/// A sidecar that has everything from a control plane; its application does nothing but wait.
pub fn sidecar(control: &str, dir: &Path, token: &Path, account: &str, args: &[&str]) -> Program {
    std::fs::create_dir_all(dir).expect("a directory");
    let mut command = Rhumb::command();
    command.current_dir(dir).arg("sidecar").args(["--control", control]);
    command.arg("--join-token-file").arg(token).arg("--state").arg(dir.join("state"));
    command.args(["--service-account", account, "--address", "127.0.0.1"]).args(args);
    command.args(["--", "sleep", "600"]);
    Program::start(command, &dir.join("log"))
}

/// The port of an application that answers every request in the same way, for as long as the test lasts.
pub fn application(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut part = [0; 4096];
                while let Ok(length @ 1..) = (&stream).read(&mut part) {
                    request.extend_from_slice(&part[..length]);
                    if request.windows(4).any(|end| end == b"\r\n\r\n") {
                        request.clear();
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
                        if (&stream).write_all(format!("{head}{answer}").as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    port
}

/// What a port of this machine answers; nothing where nobody does.
pub fn asks(port: u16, path: &str) -> Option<String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    (&stream).write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    (&stream).read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Documents of the gateway `shop/edge`, which answers everything by itself.
pub fn gateway_documents(port: u16, answer: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  gatewayClassName: rhumb
  listeners: [{{name: web, port: {port}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: all, namespace: shop}}
spec:
  parentRefs: [{{name: edge}}]
  rules:
    - filters: [{{type: ExtensionRef, extensionRef: {{group: rhumb.dev, kind: Policy, name: answer}}}}]
---
apiVersion: rhumb.dev/v1alpha1
kind: Policy
metadata: {{name: answer, namespace: shop}}
spec: {{policies: {{directResponse: {{status: 200, body: {answer}}}}}}}
"
    )
}

/// A document: the Backend `users` with one endpoint.
pub fn backend_document(port: u16) -> String {
    format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {{name: users}}\nspec: {{endpoints: ['127.0.0.1:{port}']}}\n"
    )
}

/// A document: the Service `orders`, whose applications listen on a port.
pub fn service_document(app: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: orders}}\nspec: {{ports: [{{name: http, port: 80, targetPort: {app}, appProtocol: http}}]}}\n"
    )
}
