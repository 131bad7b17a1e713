//! The mesh from files: workloads with a proxy each on this machine, called through addresses of their own.

mod requests;
mod connections;
mod changes;
mod deadlines;
mod demo;
pub(crate) mod egress;
mod faults;
mod hops;
mod leaving;
mod hbone;
mod namespaces;
mod plain;
mod sidecar;
mod traces;
mod users;
mod learn;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use crate::gate::local;
use rhumb_testkit::cert::{Authority, Identity};
use rhumb_testkit::port;
use rhumb_testkit::process::Rhumb;

/// What all workloads of a mesh know: its services and where they run.
struct World {
    authority: Authority,
    documents: String,
    /// More fields of every process.
    process: String,
}

/// A workload that serves a port of a service.
struct Served {
    service: &'static str,
    port: u16,
    /// Its proxy.
    tunnel: u16,
    /// Its application.
    target: SocketAddr,
}

impl World {
    fn new() -> Self {
        Self { authority: Authority::new("mesh"), documents: String::new(), process: String::new() }
    }

    fn add(&mut self, document: &str) {
        let _ = writeln!(self.documents, "---\n{document}");
    }

    /// A Service with one port and one Workload behind a proxy.
    fn serve(&mut self, service: &'static str, port: u16, more: &str, target: SocketAddr) -> Served {
        let tunnel = port::free();
        self.add(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {service}}}\n\
             spec: {{ports: [{{port: {port}{more}}}]}}"
        ));
        self.workload(service, service, &format!("ports: {{}}, tunnelPort: {tunnel}"), target, port);
        Served { service, port, tunnel, target }
    }

    /// A Workload of a service; its application listens where the service's port says.
    fn workload(&mut self, name: &str, service: &str, more: &str, target: SocketAddr, port: u16) {
        let _ = port;
        self.add(&format!(
            "apiVersion: rhumb.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\n\
             spec: {{address: {}, serviceAccount: {name}, services: [{service}], {more}}}",
            target.ip()
        ));
    }

    fn identity(&self, account: &str) -> Identity {
        self.authority.workload(&format!("spiffe://cluster.local/ns/default/sa/{account}"))
    }

    /// The proxy of a workload that serves.
    fn sidecar_of(&self, served: &Served) -> Rhumb {
        let Served { service, port, tunnel, target } = served;
        let body = format!(
            "tunnel: '127.0.0.1:{tunnel}', inbound: [{{service: {service}, port: {port}, target: '{target}'}}]"
        );
        self.sidecar(service, &body, &self.identity(service))
    }

    /// The proxy of a workload that calls services at addresses of its own.
    fn caller(&self, account: &str, upstreams: &[(&Served, u16)]) -> Rhumb {
        let upstreams: Vec<String> = upstreams
            .iter()
            .map(|(served, listen)| {
                format!(
                    "{{service: {}, port: {}, listen: '127.0.0.1:{listen}'}}",
                    served.service, served.port
                )
            })
            .collect();
        let body = format!("upstreams: [{}]", upstreams.join(", "));
        self.sidecar(account, &body, &self.identity(account))
    }

    fn sidecar(&self, name: &str, body: &str, identity: &Identity) -> Rhumb {
        let dir = tempfile::tempdir().expect("a directory");
        let admin = port::free();
        identity.write(dir.path(), "workload");
        std::fs::write(dir.path().join("bundle.pem"), self.authority.pem()).expect("a file");
        self.write(dir.path(), name, body, admin);
        Rhumb::start_on(dir, "mesh.yaml", admin)
    }

    /// Writes the documents of a proxy.
    fn write(&self, dir: &Path, name: &str, body: &str, admin: u16) {
        let text = format!(
            "apiVersion: rhumb.dev/v1alpha1\nkind: ProxyConfig\nmetadata: {{name: process}}\n\
             spec: {{workers: 1, admin: {{address: '127.0.0.1:{admin}'}}{}}}\n---\n\
             apiVersion: rhumb.dev/v1alpha1\nkind: Sidecar\nmetadata: {{name: {name}}}\n\
             spec: {{{body}, identity: {{certificate: 'file:workload.crt', key: 'file:workload.key', \
             bundle: 'file:bundle.pem'}}}}\n{}",
            self.process, self.documents
        );
        let fresh = dir.join("mesh.yaml.new");
        std::fs::write(&fresh, text).expect("a file");
        std::fs::rename(&fresh, dir.join("mesh.yaml")).expect("a rename");
    }
}

/// A free address for a workload to call a service at.
fn upstream() -> (u16, SocketAddr) {
    let port = port::free();
    (port, local(port))
}
