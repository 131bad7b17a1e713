//! Documents as the control plane sees them: what they are called, what they are attached to, and what they name.
//!
//! It does not know what bodies mean. What a document leads to is found by how references are written in all kinds:
//! `parentRefs` and `targetRefs` say what it is attached to, fields that end in `Ref` or `Refs` what it needs.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rhumb_base::unit::parse_duration;
use rhumb_model::doc::DEFAULT_NAMESPACE;
use serde_json::Value;

/// Nesting that references are looked for in.
const MAX_DEPTH: usize = 64;

/// What a document is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The kind.
    pub kind: Arc<str>,
    /// The namespace; empty for kinds that have none.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Key {
    /// A name from its parts.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
        (parts.next().is_none() && !kind.is_empty() && !name.is_empty())
            .then(|| Self::new(kind, namespace, name))
    }

    /// `NAMESPACE/NAME`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Key {
    /// `KIND/NAMESPACE/NAME`; the namespace is empty for kinds that have none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// A document.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it is called.
    pub key: Key,
    /// The whole of it.
    pub json: Bytes,
    /// The revision that brought it as it is.
    pub revision: u64,
    /// What it is attached to: routes to their parents, policies to their targets.
    pub attached: Vec<Key>,
    /// What it names otherwise and needs to work.
    pub needs: Vec<Key>,
    /// What membership of services goes by.
    pub role: Role,
}

/// What a document says about services and their endpoints.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Nothing.
    Other,
    /// A service.
    Service(Box<Service>),
    /// A workload.
    Workload(Box<Workload>),
    /// The settings of the mesh.
    Mesh(Box<Mesh>),
}

/// What a Service says about its endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Labels that its workloads have; without any, only those that name it are its workloads.
    pub selector: Vec<(Box<str>, Box<str>)>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// The address that it has where it comes from (`clusterIP`).
    pub address: Option<IpAddr>,
    /// Service accounts whose workloads may say that they are its endpoints; all of its namespace when there are none.
    pub accounts: Vec<Box<str>>,
}

/// The annotation of a Service with the service accounts of its workloads, separated by commas.
pub const ACCOUNTS: &str = "rhumb.dev/service-accounts";

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServicePort {
    /// Its name; may be empty when it is the only one.
    pub name: Box<str>,
    /// Its number.
    pub port: u16,
    /// Where the workload listens: a number, or the name of a port of the workload.
    pub target: Option<Target>,
}

/// Where a workload listens.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// On this port.
    Number(u16),
    /// On its port of this name.
    Name(Box<str>),
}

/// What a Workload says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// Its labels.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Its address.
    pub address: Box<str>,
    /// Its ports by name.
    pub ports: Vec<(Box<str>, u16)>,
    /// Its service account.
    pub service_account: Box<str>,
    /// Services that it names.
    pub services: Vec<Box<str>>,
    /// `REGION/ZONE`.
    pub locality: Box<str>,
    /// Its share.
    pub weight: Option<u32>,
    /// `strict`, `permissive` or `none`; empty when it is not said.
    pub mtls: Box<str>,
    /// How it is asked whether it is well, as JSON; empty when it is not.
    pub health: Box<str>,
}

/// Settings of the mesh that endpoints depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// The trust domain.
    pub trust_domain: Box<str>,
    /// `strict` or `permissive`.
    pub mtls: Box<str>,
    /// How long certificates live, where it is written.
    pub lifetimes: Lifetimes,
}

/// How long certificates live, where it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of a workload's.
    pub leaf: Option<Duration>,
    /// Of an intermediate's.
    pub intermediate: Option<Duration>,
    /// Of a root's.
    pub root: Option<Duration>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self { trust_domain: "cluster.local".into(), mtls: "strict".into(), lifetimes: Lifetimes::default() }
    }
}

/// The JSON is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotADocument {
    /// Not JSON.
    #[error("it is not JSON: {0}")]
    Syntax(String),
    /// No kind or name.
    #[error("it has no kind or no name")]
    Nameless,
}

impl Document {
    /// Reads a document that a revision brought.
    ///
    /// # Errors
    /// [`NotADocument`].
    pub fn parse(json: Bytes, revision: u64) -> Result<Self, NotADocument> {
        let value: Value =
            serde_json::from_slice(&json).map_err(|error| NotADocument::Syntax(error.to_string()))?;
        let key = key_of(&value).ok_or(NotADocument::Nameless)?;
        let mut edges = Edges { home: &key.namespace, attached: Vec::new(), needs: Vec::new() };
        edges.walk("", &value, MAX_DEPTH);
        let Edges { mut attached, mut needs, .. } = edges;
        for list in [&mut attached, &mut needs] {
            list.sort();
            list.dedup();
        }
        let spec = &value["spec"];
        let role = match &*key.kind {
            "Service" => Role::Service(Box::new(service(spec, &value["metadata"]["annotations"][ACCOUNTS]))),
            "Workload" => Role::Workload(Box::new(workload(spec, &value["metadata"]["labels"]))),
            "Mesh" => Role::Mesh(Box::new(mesh(spec))),
            _ => Role::Other,
        };
        Ok(Self { key, json, revision, attached, needs, role })
    }
}

/// What the document in a value is called.
pub fn key_of(value: &Value) -> Option<Key> {
    let kind = value["kind"].as_str().filter(|kind| !kind.is_empty())?;
    let name = value["metadata"]["name"].as_str().filter(|name| !name.is_empty())?;
    let written = value["metadata"]["namespace"].as_str().unwrap_or("");
    let namespace = match (is_cluster_wide(kind), written) {
        (true, _) => "",
        (false, "") => DEFAULT_NAMESPACE,
        (false, written) => written,
    };
    Some(Key::new(kind, namespace, name))
}

/// Kinds that have no namespace.
fn is_cluster_wide(kind: &str) -> bool {
    matches!(kind, "GatewayClass" | "Namespace" | "Mesh")
}

struct Edges<'a> {
    home: &'a str,
    attached: Vec<Key>,
    needs: Vec<Key>,
}

impl Edges<'_> {
    /// Collects the references in a value that stands under a field.
    fn walk(&mut self, field: &str, value: &Value, depth: usize) {
        if depth == 0 {
            return;
        }
        match value {
            Value::Object(object) => {
                if field.ends_with("Ref") || field.ends_with("Refs") {
                    self.reference(field, value);
                }
                for (name, inner) in object {
                    // The Backend that a policy asks is named by this field.
                    if name == "backend"
                        && let Some(backend) = inner.as_str()
                    {
                        self.needs.push(Key::new("Backend", self.home, backend));
                    }
                    // Whoever leaves the mesh has to know the service that it goes through.
                    if name == "egressGateway"
                        && let Some(service) = inner["service"].as_str()
                    {
                        let (name, namespace) =
                            service.split_once('.').unwrap_or((service, DEFAULT_NAMESPACE));
                        self.needs.push(Key::new("Service", namespace, name));
                    }
                    if name == "gatewayClassName"
                        && let Some(class) = inner.as_str()
                    {
                        self.needs.push(Key::new("GatewayClass", "", class));
                    }
                    self.walk(name, inner, depth - 1);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(field, item, depth - 1)),
            _ => {}
        }
    }

    fn reference(&mut self, field: &str, value: &Value) {
        let Some(name) = value["name"].as_str() else { return };
        let namespace = value["namespace"].as_str().unwrap_or(self.home);
        let kind = match (value["kind"].as_str(), field) {
            (Some(kind), _) => kind,
            (None, "parentRefs") => "Gateway",
            (None, "secretRef" | "certificateRefs") => "Secret",
            (None, "caCertificateRefs" | "configMapRef") => "ConfigMap",
            (None, _) => "Service",
        };
        let namespace = if is_cluster_wide(kind) { "" } else { namespace };
        let key = Key::new(kind, namespace, name);
        match field {
            "parentRefs" | "targetRefs" | "targetRef" => self.attached.push(key),
            _ => self.needs.push(key),
        }
    }
}

fn service(spec: &Value, accounts: &Value) -> Service {
    let accounts = accounts.as_str().unwrap_or_default().split(',').map(str::trim);
    let port = |port: &Value| ServicePort {
        name: text(&port["name"]),
        port: number(&port["port"]).unwrap_or_default(),
        target: match &port["targetPort"] {
            Value::String(name) => Some(Target::Name(name.as_str().into())),
            other => number(other).map(Target::Number),
        },
    };
    Service {
        selector: pairs(&spec["selector"], |value| Some(text(value))),
        ports: spec["ports"].as_array().into_iter().flatten().map(port).collect(),
        address: text(&spec["clusterIP"]).parse().ok(),
        accounts: accounts.filter(|account| !account.is_empty()).map(Box::from).collect(),
    }
}

fn workload(spec: &Value, labels: &Value) -> Workload {
    let account = text(&spec["serviceAccount"]);
    let locality = &spec["locality"];
    Workload {
        labels: pairs(labels, |value| Some(text(value))),
        address: text(&spec["address"]),
        ports: pairs(&spec["ports"], number),
        service_account: if account.is_empty() { DEFAULT_NAMESPACE.into() } else { account },
        services: spec["services"].as_array().into_iter().flatten().map(text).collect(),
        locality: match locality {
            Value::Object(_) => format!("{}/{}", text(&locality["region"]), text(&locality["zone"])).into(),
            _ => text(locality),
        },
        weight: spec["weight"].as_u64().and_then(|weight| u32::try_from(weight).ok()),
        mtls: text(&spec["mtls"]),
        health: spec["health"].as_object().map(|_| spec["health"].to_string().into()).unwrap_or_default(),
    }
}

fn mesh(spec: &Value) -> Mesh {
    let default = Mesh::default();
    let or = |value: &Value, default: Box<str>| match text(value) {
        written if written.is_empty() => default,
        written => written,
    };
    Mesh {
        trust_domain: or(&spec["trustDomain"], default.trust_domain),
        mtls: or(&spec["mtls"], default.mtls),
        lifetimes: {
            let written = |field: &str| parse_duration(spec["certificates"][field].as_str()?).ok();
            Lifetimes {
                leaf: written("leafLifetime"),
                intermediate: written("intermediateLifetime"),
                root: written("rootLifetime"),
            }
        },
    }
}

fn text(value: &Value) -> Box<str> {
    value.as_str().unwrap_or_default().into()
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn pairs<T>(value: &Value, of: impl Fn(&Value) -> Option<T>) -> Vec<(Box<str>, T)> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.as_str().into(), of(value)?))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A document of a test.
    pub(crate) fn document(value: &Value, revision: u64) -> Document {
        Document::parse(value.to_string().into(), revision).unwrap()
    }

    #[test]
    fn references_are_found_wherever_they_stand() {
        let route = document(
            &json!({
                "kind": "HTTPRoute", "metadata": { "name": "r", "namespace": "shop" },
                "spec": {
                    "parentRefs": [{ "kind": "Service", "group": "", "name": "orders" }, { "name": "gate", "namespace": "edge" }],
                    "rules": [{
                        "filters": [{ "requestMirror": { "backendRef": { "name": "copy" } } },
                                    { "extensionRef": { "kind": "Policy", "name": "p" } }],
                        "backendRefs": [{ "name": "orders", "port": 80 }, { "kind": "Backend", "name": "b", "namespace": "x" }],
                    }],
                },
            }),
            1,
        );
        assert_eq!(
            route.attached,
            [Key::new("Gateway", "edge", "gate"), Key::new("Service", "shop", "orders")]
        );
        assert_eq!(
            route.needs,
            [
                Key::new("Backend", "x", "b"),
                Key::new("Policy", "shop", "p"),
                Key::new("Service", "shop", "copy"),
                Key::new("Service", "shop", "orders"),
            ]
        );
        let policy = document(
            &json!({
                "kind": "Policy", "metadata": { "name": "p" },
                "spec": { "targetRefs": [{ "kind": "Service", "name": "orders" }], "policies": {
                    "extAuthz": { "backend": "guard" }, "jwt": { "secret": { "secretRef": { "name": "s", "key": "k" } } } } },
            }),
            1,
        );
        assert_eq!(policy.attached, [Key::new("Service", "default", "orders")]);
        assert_eq!(
            policy.needs,
            [Key::new("Backend", "default", "guard"), Key::new("Secret", "default", "s")]
        );
    }

    #[test]
    fn kinds_without_namespace_have_none() {
        let mesh = document(&json!({ "kind": "Mesh", "metadata": { "name": "mesh", "namespace": "x" } }), 1);
        assert_eq!(mesh.key.to_string(), "Mesh//mesh");
        assert_eq!(mesh.role, Role::Mesh(Box::default()));
        assert_eq!(Key::parse("Mesh//mesh"), Some(mesh.key));
        for text in ["", "a", "a/b", "a/b/", "/b/c", "a/b/c/d"] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for json in ["", "[]", "{}", r#"{"kind":"Service"}"#, r#"{"kind":"Service","metadata":{"name":7}}"#] {
            assert!(Document::parse(json.to_owned().into(), 1).is_err(), "{json}");
        }
    }

    #[test]
    fn services_and_workloads_say_what_endpoints_need() {
        let service = document(
            &json!({ "kind": "Service", "apiVersion": "v1", "metadata": { "name": "orders" }, "spec": {
                "selector": { "app": "orders" },
                "ports": [{ "name": "http", "port": 80, "targetPort": 9000 }, { "name": "admin", "port": 81, "targetPort": "adm" }, { "port": 82 }] } }),
            1,
        );
        let Role::Service(service) = service.role else { panic!() };
        assert_eq!(&*service.selector[0].1, "orders");
        let targets: Vec<_> = service.ports.iter().map(|port| (port.port, port.target.clone())).collect();
        assert_eq!(
            targets,
            [(80, Some(Target::Number(9000))), (81, Some(Target::Name("adm".into()))), (82, None)]
        );
        let workload = document(
            &json!({ "kind": "Workload", "metadata": { "name": "w", "labels": { "app": "orders" } }, "spec": {
                "address": "10.0.0.1", "ports": { "adm": 9100 }, "locality": { "region": "r", "zone": "z" }, "weight": 3 } }),
            1,
        );
        let Role::Workload(workload) = workload.role else { panic!() };
        assert_eq!(
            (&*workload.service_account, &*workload.locality, workload.weight),
            ("default", "r/z", Some(3))
        );
    }
}
