//! What documents say, worked out without any of the code that is tried: from what the simulation wrote into them.

use std::collections::BTreeSet;

use bytes::Bytes;
use rhumb_base::rng::Rng;
use rhumb_control::document::{Document, Key};
use serde_json::{Value, json};

use super::plane::Change;

/// Services, each with two workloads.
pub(super) const SERVICES: usize = 3;

/// Workloads with a proxy, each with a service account of its own.
pub(super) const NODES: usize = 6;

/// The address of a workload that has no proxy, at first.
pub(super) const LEGACY: &str = "10.0.9.9";

/// The service that it belongs to.
pub(super) const LEGACY_SERVICE: usize = 2;

/// What one revision says.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    pub(super) services: [Rules; SERVICES],
    /// The workload without a proxy is called in plain text.
    pub(super) is_legacy_plain: bool,
    /// Workloads take plain text.
    pub(super) is_permissive: bool,
}

/// What is said of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// The only accounts that may call it; nothing when all may.
    allow: Option<BTreeSet<usize>>,
    /// An account that may not.
    deny: Option<usize>,
    /// A policy is written in a way that nobody can enforce.
    pub(super) is_bad: bool,
    /// Where a route leads its requests.
    pub(super) leads_to: Option<usize>,
}

impl Truth {
    /// Whether an account may call a service.
    pub(super) fn allows(&self, service: usize, account: usize) -> bool {
        let rules = &self.services[service];
        !rules.is_bad
            && rules.allow.as_ref().is_none_or(|allow| allow.contains(&account))
            && rules.deny != Some(account)
    }

    /// The services, before anybody has said anything about them.
    pub(super) fn first(&mut self) -> Vec<Change> {
        self.is_legacy_plain = true;
        let service = |number: usize| {
            let port = json!({ "name": "http", "port": 80, "targetPort": 9000, "appProtocol": "http" });
            change("v1", "Service", &format!("s{number}"), json!({ "ports": [port] }))
        };
        (0..SERVICES).map(service).chain([self.legacy()]).collect()
    }

    /// Something else is said from here on.
    pub(super) fn change(&mut self, rng: &mut Rng) -> Vec<Change> {
        let service = rng.below(SERVICES as u32) as usize;
        match rng.below(12) {
            0..4 => {
                let some = (0..NODES).filter(|_| rng.below(2) == 0).collect();
                let rules = &mut self.services[service];
                (rules.allow, rules.is_bad) = (Some(some), false);
                vec![rules.allowed(service)]
            }
            4 => {
                let rules = &mut self.services[service];
                (rules.allow, rules.is_bad) = (None, false);
                vec![rules.allowed(service)]
            }
            5..8 => {
                let rules = &mut self.services[service];
                rules.deny = (rng.below(4) > 0).then(|| rng.below(NODES as u32) as usize);
                vec![rules.denied(service)]
            }
            8 => {
                self.services[service].is_bad = true;
                vec![self.services[service].allowed(service)]
            }
            9 => {
                let to = rng.below(SERVICES as u32) as usize;
                self.services[service].leads_to = (to != service).then_some(to);
                vec![self.services[service].route(service)]
            }
            10 => {
                self.is_legacy_plain = !self.is_legacy_plain;
                vec![self.legacy()]
            }
            _ => {
                self.is_permissive = !self.is_permissive;
                let mtls = if self.is_permissive { "permissive" } else { "strict" };
                vec![change("rhumb.dev/v1alpha1", "Mesh", "mesh", json!({ "mtls": mtls }))]
            }
        }
    }

    /// Every mistake is mended.
    pub(super) fn mend(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (service, rules) in self.services.iter_mut().enumerate().filter(|(_, rules)| rules.is_bad) {
            rules.is_bad = false;
            changes.push(rules.allowed(service));
        }
        changes
    }

    fn legacy(&self) -> Change {
        let mtls = if self.is_legacy_plain { "none" } else { "strict" };
        let spec = json!({ "address": LEGACY, "services": [format!("s{LEGACY_SERVICE}")], "mtls": mtls,
            "serviceAccount": "legacy" });
        change("rhumb.dev/v1alpha1", "Workload", "legacy", spec)
    }
}

impl Rules {
    /// The policy that says who may call.
    fn allowed(&self, service: usize) -> Change {
        let name = format!("allow-{service}");
        let rule = |account: &usize| json!({ "when": format!("source.serviceAccount == 'a{account}'") });
        let rules: Vec<Value> = match &self.allow {
            _ if self.is_bad => vec![json!({ "when": "source.serviceAccount ==" })],
            None => return gone("Policy", &name),
            // A policy has a rule; this one holds for nobody.
            Some(allow) if allow.is_empty() => vec![json!({ "when": "false" })],
            Some(allow) => allow.iter().map(rule).collect(),
        };
        policy(&name, service, &rules)
    }

    /// The policy that says who may not.
    fn denied(&self, service: usize) -> Change {
        let name = format!("deny-{service}");
        let Some(account) = self.deny else { return gone("Policy", &name) };
        let when = format!("source.serviceAccount == 'a{account}'");
        policy(&name, service, &[json!({ "action": "Deny", "when": when })])
    }

    fn route(&self, service: usize) -> Change {
        let name = format!("of-{service}");
        let Some(to) = self.leads_to else { return gone("HTTPRoute", &name) };
        let spec = json!({
            "parentRefs": [{ "group": "", "kind": "Service", "name": format!("s{service}") }],
            "rules": [{ "backendRefs": [{ "name": format!("s{to}"), "port": 80 }] }],
        });
        change("gateway.networking.k8s.io/v1", "HTTPRoute", &name, spec)
    }
}

fn policy(name: &str, service: usize, rules: &[Value]) -> Change {
    let spec = json!({
        "targetRefs": [{ "kind": "Service", "name": format!("s{service}") }],
        "policies": { "authorization": { "rules": rules } },
    });
    change("rhumb.dev/v1alpha1", "Policy", name, spec)
}

fn change(version: &str, kind: &str, name: &str, spec: Value) -> Change {
    let document = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": "default" }, "spec": spec });
    let mut document = document;
    if kind == "Mesh" {
        document["metadata"] = json!({ "name": name });
    }
    let json = Bytes::from(document.to_string());
    (Document::parse(json.clone(), 0).expect("a document").key, Some(json))
}

fn gone(kind: &str, name: &str) -> Change {
    (Key::new(kind, "default", name), None)
}
