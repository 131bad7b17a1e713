//! Documents by kind and name.

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use rhumb_model::kind::backend::Backend;
use rhumb_model::kind::backend_tls::BackendTlsPolicy;
use rhumb_model::kind::backend_traffic::BackendTrafficPolicy;
use rhumb_model::kind::consumer::Consumer;
use rhumb_model::kind::gateway::{Gateway, GatewayClass};
use rhumb_model::kind::grant::ReferenceGrant;
use rhumb_model::kind::grpc_route::GrpcRoute;
use rhumb_model::kind::http_route::HttpRoute;
use rhumb_model::kind::l4_route::{TcpRoute, TlsRoute, UdpRoute};
use rhumb_model::kind::mesh::{Mesh, Sidecar};
use rhumb_model::kind::policy::Policy;
use rhumb_model::kind::proxy_config::ProxyConfig;
use rhumb_model::kind::secret::{ConfigMap, Secret};
use rhumb_model::kind::service::{Service, Workload};
use rhumb_model::scalar::Namespace;
use rhumb_model::{Doc, DocId, Spanned, Spec};

use crate::trace::{Ask, Trace};

/// Namespace and name.
pub(crate) type Key<'a> = (&'a str, &'a str);

/// A document with its body.
pub(crate) struct Entry<'a, T> {
    pub(crate) doc: &'a Doc,
    pub(crate) spec: &'a T,
}

impl<T> Clone for Entry<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Entry<'_, T> {}

impl<T> Entry<'_, T> {
    /// Tells the document from every other one that exists.
    pub(crate) fn id(&self) -> usize {
        std::ptr::from_ref(self.doc).addr()
    }
}

/// Documents of one kind, by name, and in the order in which they win: the older first, then by namespace and name.
/// What is asked for by name leaves a read in the trace; going through `all` leaves none.
pub(crate) struct Kind<'a, T> {
    pub(crate) all: Vec<Entry<'a, T>>,
    by_key: OnceCell<HashMap<Key<'a>, usize>>,
    /// How often something was looked for in `all` as it is: for a few times that is less than a map costs.
    searches: Cell<u32>,
    /// No document tells its age: `all` is in the order of names.
    is_by_name: bool,
    name: &'static str,
    trace: Trace,
}

impl<'a, T> Kind<'a, T> {
    fn new(name: &'static str, is_by_name: bool, trace: &Trace) -> Self {
        let searches = Cell::new(0);
        Self { all: Vec::new(), by_key: OnceCell::new(), searches, is_by_name, name, trace: trace.clone() }
    }

    fn push(&mut self, doc: &'a Doc, spec: &'a Arc<T>) {
        self.all.push(Entry { doc, spec });
    }

    pub(crate) fn get(&self, key: Key<'_>) -> Option<Entry<'a, T>> {
        self.position(key).map(|at| self.all[at])
    }

    pub(crate) fn position(&self, key: Key<'_>) -> Option<usize> {
        self.trace.note(Ask::Document, self.name, key);
        if self.is_by_name && self.by_key.get().is_none() && self.searches.get() < SEARCHES {
            self.searches.set(self.searches.get() + 1);
            let after = self.all.partition_point(|entry| crate::collect::key(entry.doc) <= key);
            let at = after.checked_sub(1)?;
            return (crate::collect::key(self.all[at].doc) == key).then_some(at);
        }
        self.by_key().get(&key).copied()
    }

    fn by_key(&self) -> &HashMap<Key<'a>, usize> {
        self.by_key.get_or_init(|| {
            let mut by_key = HashMap::with_capacity(self.all.len());
            by_key.extend((0..).zip(&self.all).map(|(at, entry)| (key(entry.doc), at)));
            by_key
        })
    }

    /// Names in a namespace, for messages.
    pub(crate) fn names(&self, namespace: &str) -> impl Iterator<Item = &'a str> {
        self.trace.note(Ask::Names, self.name, ("", ""));
        self.all.iter().map(|entry| entry.doc).filter(move |doc| doc.namespace() == namespace).map(Doc::name)
    }

    /// A namespace other than `key`'s that has something of this name, for messages.
    pub(crate) fn elsewhere(&self, name: &str) -> Option<&'a str> {
        self.trace.note(Ask::Names, self.name, ("", ""));
        self.all.iter().find(|entry| entry.doc.name() == name).map(|entry| entry.doc.namespace())
    }
}

/// From this many searches on a map pays.
const SEARCHES: u32 = 64;

/// All documents.
pub(crate) struct Docs<'a> {
    pub(crate) classes: Kind<'a, GatewayClass>,
    pub(crate) gateways: Kind<'a, Gateway>,
    pub(crate) http_routes: Kind<'a, HttpRoute>,
    pub(crate) grpc_routes: Kind<'a, GrpcRoute>,
    pub(crate) tls_routes: Kind<'a, TlsRoute>,
    pub(crate) tcp_routes: Kind<'a, TcpRoute>,
    pub(crate) udp_routes: Kind<'a, UdpRoute>,
    pub(crate) grants: Kind<'a, ReferenceGrant>,
    pub(crate) backend_tls: Kind<'a, BackendTlsPolicy>,
    pub(crate) backend_traffic: Kind<'a, BackendTrafficPolicy>,
    pub(crate) backends: Kind<'a, Backend>,
    pub(crate) policies: Kind<'a, Policy>,
    pub(crate) consumers: Kind<'a, Consumer>,
    pub(crate) configs: Kind<'a, ProxyConfig>,
    pub(crate) services: Kind<'a, Service>,
    pub(crate) workloads: Kind<'a, Workload>,
    pub(crate) meshes: Kind<'a, Mesh>,
    pub(crate) sidecars: Kind<'a, Sidecar>,
    pub(crate) secrets: Kind<'a, Secret>,
    pub(crate) config_maps: Kind<'a, ConfigMap>,
    namespaces: HashMap<&'a str, &'a Doc>,
    /// Kind, namespace and name of what is there but could not be read: why was said, and references to it are no
    /// mistakes of their own.
    unreadable: HashSet<(&'a str, &'a str, &'a str)>,
    pub(crate) trace: Trace,
}

impl<'a> Docs<'a> {
    /// Sorts documents into their kinds. They come in the order in which they win ([`in_order`]);
    /// `are_ageless`: none of them tells its age.
    pub(crate) fn collect(docs: &'a [Arc<Doc>], are_ageless: bool) -> Self {
        let trace = &Trace::default();
        let mut this = Self {
            classes: Kind::new("GatewayClass", are_ageless, trace),
            gateways: Kind::new("Gateway", are_ageless, trace),
            http_routes: Kind::new("HTTPRoute", are_ageless, trace),
            grpc_routes: Kind::new("GRPCRoute", are_ageless, trace),
            tls_routes: Kind::new("TLSRoute", are_ageless, trace),
            tcp_routes: Kind::new("TCPRoute", are_ageless, trace),
            udp_routes: Kind::new("UDPRoute", are_ageless, trace),
            grants: Kind::new("ReferenceGrant", are_ageless, trace),
            backend_tls: Kind::new("BackendTLSPolicy", are_ageless, trace),
            backend_traffic: Kind::new("XBackendTrafficPolicy", are_ageless, trace),
            backends: Kind::new("Backend", are_ageless, trace),
            policies: Kind::new("Policy", are_ageless, trace),
            consumers: Kind::new("Consumer", are_ageless, trace),
            configs: Kind::new("ProxyConfig", are_ageless, trace),
            services: Kind::new("Service", are_ageless, trace),
            workloads: Kind::new("Workload", are_ageless, trace),
            meshes: Kind::new("Mesh", are_ageless, trace),
            sidecars: Kind::new("Sidecar", are_ageless, trace),
            secrets: Kind::new("Secret", are_ageless, trace),
            config_maps: Kind::new("ConfigMap", are_ageless, trace),
            namespaces: HashMap::new(),
            unreadable: HashSet::new(),
            trace: trace.clone(),
        };
        for doc in docs.iter().map(|doc| &**doc) {
            match &doc.spec {
                Spec::GatewayClass(spec) => this.classes.push(doc, spec),
                Spec::Gateway(spec) => this.gateways.push(doc, spec),
                Spec::HttpRoute(spec) => this.http_routes.push(doc, spec),
                Spec::GrpcRoute(spec) => this.grpc_routes.push(doc, spec),
                Spec::TlsRoute(spec) => this.tls_routes.push(doc, spec),
                Spec::TcpRoute(spec) => this.tcp_routes.push(doc, spec),
                Spec::UdpRoute(spec) => this.udp_routes.push(doc, spec),
                Spec::ReferenceGrant(spec) => this.grants.push(doc, spec),
                Spec::BackendTlsPolicy(spec) => this.backend_tls.push(doc, spec),
                Spec::BackendTrafficPolicy(spec) => this.backend_traffic.push(doc, spec),
                Spec::Backend(spec) => this.backends.push(doc, spec),
                Spec::Consumer(spec) => this.consumers.push(doc, spec),
                Spec::Policy(spec) => this.policies.push(doc, spec),
                Spec::ProxyConfig(spec) => this.configs.push(doc, spec),
                Spec::Service(spec) => this.services.push(doc, spec),
                Spec::Workload(spec) => this.workloads.push(doc, spec),
                Spec::Mesh(spec) => this.meshes.push(doc, spec),
                Spec::Sidecar(spec) => this.sidecars.push(doc, spec),
                Spec::Secret(spec) => this.secrets.push(doc, spec),
                Spec::ConfigMap(spec) => this.config_maps.push(doc, spec),
                Spec::Namespace(_) => {
                    this.namespaces.insert(doc.name(), doc);
                }
                Spec::Unreadable => {
                    this.unreadable.insert((&doc.id.kind, doc.namespace(), doc.name()));
                }
            }
        }
        this
    }

    /// True when a document of this kind and name is there but could not be read.
    pub(crate) fn is_unreadable(&self, kind: &str, key: Key<'_>) -> bool {
        self.trace.note(Ask::Document, kind, key);
        self.unreadable.contains(&(kind, key.0, key.1))
    }

    /// The label of a namespace. Kubernetes gives each one a label with its name.
    pub(crate) fn namespace_label<'n>(&self, namespace: &'n str, label: &str) -> Option<&'n str>
    where
        'a: 'n,
    {
        self.trace.note(Ask::Document, "Namespace", ("", namespace));
        let written = self.namespaces.get(namespace).and_then(|doc| doc.label(label));
        written.or_else(|| (label == "kubernetes.io/metadata.name").then_some(namespace))
    }
}

/// Of two documents of one kind the lesser wins: the older one, then that of the first name.
pub(crate) fn in_order(doc: &Doc) -> (u64, &DocId) {
    (created(doc), &doc.id)
}

/// The namespace that a reference names, else that of the document.
pub(crate) fn namespace_or<'a>(written: Option<&'a Spanned<Namespace>>, doc: &'a Doc) -> &'a str {
    match written {
        Some(namespace) => namespace.as_str(),
        None => doc.namespace(),
    }
}

pub(crate) fn key(doc: &Doc) -> Key<'_> {
    (doc.namespace(), doc.name())
}

/// When a document was created. Unit: seconds since 1970; 0, older than any, when that is not known.
pub(crate) fn created(doc: &Doc) -> u64 {
    doc.created.as_deref().and_then(seconds_since_1970).unwrap_or(0)
}

/// Reads `2024-05-01T12:00:00Z` (RFC 3339 in UTC, as Kubernetes writes it); fractions of seconds are dropped.
fn seconds_since_1970(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let is_shaped = text.is_ascii() && text.ends_with('Z') && text.get(10..11) == Some("T");
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !is_shaped || year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days from civil (Howard Hinnant): years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creation_times_are_read() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:34:56Z", Some(951_827_696)),
            ("2024-05-01T00:00:00.123456Z", Some(1_714_521_600)),
            ("2024-13-01T00:00:00Z", None),
            ("yesterday", None),
            ("2024-05-01 00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(seconds_since_1970(text), seconds, "{text}");
        }
    }
}
