//! Documents: kind, name, labels and typed body, from a value tree.

use crate::decode::{Decode, Decoder, Defs, Object, Table, list, nearest, object};
use crate::diag::{Diag, DocId, Origin, Rule};
use crate::kind::backend::Backend;
use crate::kind::backend_tls::BackendTlsPolicy;
use crate::kind::backend_traffic::BackendTrafficPolicy;
use crate::kind::consumer::Consumer;
use crate::kind::gateway::{Gateway, GatewayClass};
use crate::kind::grant::ReferenceGrant;
use crate::kind::grpc_route::GrpcRoute;
use crate::kind::http_route::HttpRoute;
use crate::kind::l4_route::{TcpRoute, TlsRoute, UdpRoute};
use crate::kind::mesh::{Mesh, Sidecar};
use crate::kind::policy::Policy;
use crate::kind::proxy_config::ProxyConfig;
use crate::kind::refs::{EXPERIMENTAL_GROUP, GATEWAY_GROUP, RHUMB_GROUP};
use crate::kind::secret::{ConfigMap, NamespaceDoc, Secret};
use crate::kind::service::{Service, Workload};
use crate::scalar::{Name, Namespace};
use crate::span::{Source, Span, Spanned};
use crate::value::Node;
use serde_json::json;
use std::sync::Arc;

/// The namespace of documents that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// One document as written: what it is called, and its body in types.
#[derive(Clone, Debug)]
pub struct Doc {
    /// Kind, namespace and name.
    pub id: Arc<DocId>,
    /// Labels, for selectors.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// `metadata.creationTimestamp` as written: the older of two equal routes wins (Gateway API); RFC 3339 in UTC
    /// compares as text. Files have none: their order counts.
    pub created: Option<Box<str>>,
    /// The body.
    pub spec: Spec,
    /// The text that it was read from.
    pub source: Arc<Source>,
    /// The place that stands for the whole document: its name.
    pub span: Span,
    /// Mistakes were noted: the body lacks what could not be read. A route with mistakes must refuse traffic rather
    /// than serve it without what was asked for.
    pub broken: bool,
}

impl Doc {
    /// The origin of a span of this document.
    pub fn origin(&self, span: Span) -> Origin {
        Origin { source: self.source.clone(), span, doc: Some(self.id.clone()) }
    }

    /// The namespace; empty for kinds that have none.
    pub fn namespace(&self) -> &str {
        &self.id.namespace
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.id.name
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
    }
}

macro_rules! kinds {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident($type:ty) = $kind:literal in $group:expr, $versions:expr, $scope:ident, $body:ident;
    )+) => {
        /// The body of a document.
        #[derive(Clone, Debug)]
        pub enum Spec {
            $($(#[doc = $doc])+ $variant(Arc<$type>),)+
            /// It could not be read at all; the mistakes are noted.
            Unreadable,
        }

        /// The kinds that are read.
        const KINDS: &[KindInfo] = &[$(KindInfo {
            kind: $kind,
            group: $group,
            versions: $versions,
            scope: Scope::$scope,
            body: Body::$body,
            decode: |node, cx| <$type>::decode(node, cx).map(|body| Spec::$variant(Arc::new(body))),
            schema: <$type>::schema,
            docs: concat!($($doc, "\n"),+),
        }),+];
    };
}

kinds! {
    /// A class of Gateways.
    GatewayClass(GatewayClass) = "GatewayClass" in GATEWAY_GROUP, &["v1", "v1beta1"], Cluster, Spec;
    /// Listeners.
    Gateway(Gateway) = "Gateway" in GATEWAY_GROUP, &["v1", "v1beta1"], Namespaced, Spec;
    /// Rules for HTTP requests.
    HttpRoute(HttpRoute) = "HTTPRoute" in GATEWAY_GROUP, &["v1", "v1beta1"], Namespaced, Spec;
    /// Rules for gRPC calls.
    GrpcRoute(GrpcRoute) = "GRPCRoute" in GATEWAY_GROUP, &["v1"], Namespaced, Spec;
    /// Where TCP connections go.
    TcpRoute(TcpRoute) = "TCPRoute" in GATEWAY_GROUP, &["v1", "v1alpha2"], Namespaced, Spec;
    /// Where TLS connections go, by server name.
    TlsRoute(TlsRoute) = "TLSRoute" in GATEWAY_GROUP, &["v1", "v1alpha3", "v1alpha2"], Namespaced, Spec;
    /// Where UDP datagrams go.
    UdpRoute(UdpRoute) = "UDPRoute" in GATEWAY_GROUP, &["v1", "v1alpha2"], Namespaced, Spec;
    /// Leave to refer to objects of another namespace.
    ReferenceGrant(ReferenceGrant) = "ReferenceGrant" in GATEWAY_GROUP, &["v1", "v1beta1"], Namespaced, Spec;
    /// TLS towards backends.
    BackendTlsPolicy(BackendTlsPolicy) = "BackendTLSPolicy" in GATEWAY_GROUP, &["v1", "v1alpha3"], Namespaced, Spec;
    /// Retry budgets of backends, and sessions that stay at one endpoint.
    BackendTrafficPolicy(BackendTrafficPolicy) = "XBackendTrafficPolicy" in EXPERIMENTAL_GROUP, &["v1alpha1"], Namespaced, Spec;
    /// Endpoints and how to talk to them.
    Backend(Backend) = "Backend" in RHUMB_GROUP, &["v1alpha1"], Namespaced, Spec;
    /// Policies and what they are attached to.
    Policy(Policy) = "Policy" in RHUMB_GROUP, &["v1alpha1"], Namespaced, Spec;
    /// A caller that is known, and its credentials.
    Consumer(Consumer) = "Consumer" in RHUMB_GROUP, &["v1alpha1"], Namespaced, Spec;
    /// Settings of the proxy.
    ProxyConfig(ProxyConfig) = "ProxyConfig" in RHUMB_GROUP, &["v1alpha1"], Namespaced, Spec;
    /// Something that is called by name in the mesh.
    Service(Service) = "Service" in "", &["v1"], Namespaced, Spec;
    /// Where a service runs.
    Workload(Workload) = "Workload" in RHUMB_GROUP, &["v1alpha1"], Namespaced, Spec;
    /// What holds for the whole mesh.
    Mesh(Mesh) = "Mesh" in RHUMB_GROUP, &["v1alpha1"], Cluster, Spec;
    /// What the proxy of one workload does.
    Sidecar(Sidecar) = "Sidecar" in RHUMB_GROUP, &["v1alpha1"], Namespaced, Spec;
    /// Secret content such as certificates with keys.
    Secret(Secret) = "Secret" in "", &["v1"], Namespaced, Whole;
    /// Content such as CA certificates.
    ConfigMap(ConfigMap) = "ConfigMap" in "", &["v1"], Namespaced, Whole;
    /// A namespace with its labels.
    Namespace(NamespaceDoc) = "Namespace" in "", &["v1"], Cluster, Whole;
}

struct KindInfo {
    kind: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    scope: Scope,
    body: Body,
    decode: fn(&Node, &mut Decoder<'_>) -> Option<Spec>,
    schema: fn(&mut Defs) -> serde_json::Value,
    docs: &'static str,
}

impl KindInfo {
    fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Cluster,
    Namespaced,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    /// Under `spec`, beside a `status` that is none of ours.
    Spec,
    /// Beside `metadata`.
    Whole,
}

/// Kinds that exist but are refused, with the reason.
const LATER: &[(&str, &str, &str)] = &[
    ("ListenerSet", GATEWAY_GROUP, "write the listeners into the Gateway"),
    ("XListenerSet", "gateway.networking.x-k8s.io", "write the listeners into the Gateway"),
    ("XBackend", "gateway.networking.x-k8s.io", "write a Backend of group rhumb.dev"),
    ("XMesh", "gateway.networking.x-k8s.io", "write a Mesh of group rhumb.dev"),
    ("BackendLBPolicy", GATEWAY_GROUP, "write `loadBalancing` into the Backend"),
    (
        "EndpointSlice",
        "discovery.k8s.io",
        "outside of Kubernetes write a Workload of group rhumb.dev for each",
    ),
    ("Endpoints", "", "outside of Kubernetes write a Workload of group rhumb.dev for each"),
    ("Ingress", "networking.k8s.io", "write a Gateway and an HTTPRoute"),
    ("Deployment", "apps", "workloads are run by Kubernetes, not by a proxy"),
    ("Pod", "", "workloads are run by Kubernetes, not by a proxy"),
];

/// A value that has no meaning for us and is not looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skip;

impl Decode for Skip {
    fn decode(_: &Node, _: &mut Decoder<'_>) -> Option<Self> {
        Some(Self)
    }
    fn absent(_: Span) -> Option<Self> {
        Some(Self)
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({})
    }
}

object! {
    /// What an object is called.
    pub struct Metadata as "metadata" {
        /// The name, unique among objects of the kind in the namespace.
        "name" name: Spanned<Name>,
        /// The namespace. Default: default.
        "namespace" namespace: Option<Spanned<Namespace>>,
        /// Words to choose objects by.
        "labels" labels: Table<Box<str>, 256>,
        /// Words for people and tools.
        "annotations" annotations: Table<Box<str>, 256>,
        /// Set by Kubernetes. Of two equal routes the older wins.
        "creationTimestamp" creation_timestamp: Option<Box<str>>,
        /// Set by Kubernetes.
        "uid" uid: Skip,
        /// Set by Kubernetes.
        "resourceVersion" resource_version: Skip,
        /// Set by Kubernetes.
        "generation" generation: Skip,
        /// Set by Kubernetes.
        "managedFields" managed_fields: Skip,
        /// Set by Kubernetes.
        "ownerReferences" owner_references: Skip,
        /// Set by Kubernetes.
        "finalizers" finalizers: Skip,
        /// Set by Kubernetes.
        "deletionTimestamp" deletion_timestamp: Skip,
        /// Set by Kubernetes.
        "selfLink" self_link: Skip,
    }
    later { "generateName": "the document needs a name to be told from others" }
}

/// Reads one document of a source. Notes every mistake; gives nothing when it is not known what it is.
pub fn decode(node: &Node, source: &Arc<Source>, diags: &mut Vec<Diag>) -> Option<Doc> {
    let mut cx = Decoder::new(source, None, diags);
    let object =
        Object::open(node, "a document", &["apiVersion", "kind", "metadata", "spec", "status"], &mut cx)?;
    let kind = object.field::<Spanned<Box<str>>>("kind", &mut cx);
    let api_version = object.field::<Spanned<Box<str>>>("apiVersion", &mut cx);
    let (kind, api_version) = (kind?, api_version?);
    let info = find_kind(&kind, &api_version, &mut cx)?;
    let mistakes = cx.errors();

    // Its name first, so that every mistake in it can say which document it is in.
    let written = |key: &str| {
        let text = node.get("metadata").and_then(|metadata| metadata.get(key)).and_then(Node::as_str);
        text.unwrap_or("").to_owned()
    };
    let namespace = match (info.scope, written("namespace")) {
        (Scope::Cluster, _) => String::new(),
        (Scope::Namespaced, written) if written.is_empty() => DEFAULT_NAMESPACE.to_owned(),
        (Scope::Namespaced, written) => written,
    };
    let id =
        Arc::new(DocId { kind: info.kind.into(), namespace: namespace.into(), name: written("name").into() });
    let mut cx = Decoder::new(source, Some(id.clone()), diags);
    let metadata = object.field::<Metadata>("metadata", &mut cx);
    if let (Scope::Cluster, Some(written)) =
        (info.scope, metadata.as_ref().and_then(|metadata| metadata.namespace.as_ref()))
    {
        let diag = cx
            .error(Rule::Conflict, written.span, format!("a {} has no namespace", info.kind))
            .why("it holds for all of them")
            .fix("remove `namespace`");
        cx.push(diag);
    }
    let spec = match info.body {
        Body::Whole => (info.decode)(node, &mut cx),
        Body::Spec => {
            object.close(&[], &mut cx);
            match node.get("spec") {
                Some(spec) => (info.decode)(spec, &mut cx),
                None => {
                    object.missing("spec", &mut cx);
                    None
                }
            }
        }
    };
    let broken = mistakes + cx.errors() > 0 || spec.is_none() || metadata.is_none();
    let span = node.get("metadata").and_then(|m| m.get("name")).map_or(kind.span, |name| name.span);
    let (labels, created) = match metadata {
        Some(metadata) => (
            metadata.labels.entries.into_iter().map(|(key, value)| (key.value, value)).collect(),
            metadata.creation_timestamp,
        ),
        None => (Box::default(), None),
    };
    Some(Doc {
        id,
        labels,
        created,
        spec: spec.unwrap_or(Spec::Unreadable),
        source: source.clone(),
        span,
        broken,
    })
}

fn find_kind(
    kind: &Spanned<Box<str>>,
    api_version: &Spanned<Box<str>>,
    cx: &mut Decoder<'_>,
) -> Option<&'static KindInfo> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if let Some(info) = KINDS.iter().find(|info| info.kind == &*kind.value && info.group == group) {
        if !info.versions.contains(&version) {
            let versions: Vec<String> =
                info.versions.iter().map(|version| info.api_version(version)).collect();
            let versions: Vec<&str> = versions.iter().map(|version| &**version).collect();
            let mut diag = cx
                .error(
                    Rule::UnknownValue,
                    api_version.span,
                    format!("version `{version}` of {kind} is not supported"),
                )
                .why(format!("supported: {}", list(&versions)));
            if let Some(first) = versions.first() {
                diag = diag.fix(format!("write `apiVersion: {first}`"));
            }
            cx.push(diag);
            return None;
        }
        return Some(info);
    }
    if let Some((_, _, reason)) = LATER.iter().find(|(name, of, _)| *name == &*kind.value && *of == group) {
        let whose = if group.starts_with("gateway.networking.") {
            "a valid Gateway API kind"
        } else {
            "a valid Kubernetes kind"
        };
        let diag = cx.error(
            Rule::NotSupported,
            kind.span,
            format!("{kind} is {whose}, not supported by this version"),
        );
        let later = reason.contains("later version");
        cx.push(if later { diag.why(*reason) } else { diag.fix(*reason) });
        return None;
    }
    // The right kind with a wrong group.
    if let Some(info) = KINDS.iter().find(|info| info.kind == &*kind.value) {
        let right = info.api_version(info.versions.first().unwrap_or(&""));
        let diag = cx
            .error(Rule::UnknownKind, api_version.span, format!("{kind} of `{api_version}` is not known"))
            .fix(format!("write `apiVersion: {right}`"));
        cx.push(diag);
        return None;
    }
    let known: Vec<&str> = KINDS.iter().map(|info| info.kind).collect();
    let all = KINDS.iter().map(|info| info.kind).chain(LATER.iter().map(|(kind, ..)| *kind));
    let mut diag = cx
        .error(Rule::UnknownKind, kind.span, format!("unknown kind `{}`", crate::value::clip(kind)))
        .why(format!("known: {}", list(&known)));
    if let Some(near) = nearest(kind, all) {
        diag = diag.fix(format!("did you mean `{near}`?"));
    }
    cx.push(diag);
    None
}

/// JSON Schema of one document, and of the named types that it uses.
pub(crate) fn schema(defs: &mut Defs) -> serde_json::Value {
    let metadata = Metadata::schema(defs);
    let mut branches = Vec::new();
    for info in KINDS {
        let body = (info.schema)(defs);
        let versions: Vec<String> = info.versions.iter().map(|version| info.api_version(version)).collect();
        let then = match info.body {
            Body::Spec => json!({
                "type": "object",
                "description": crate::schema::description(info.docs),
                "properties": {
                    "apiVersion": { "enum": versions },
                    "kind": { "const": info.kind },
                    "metadata": metadata,
                    "spec": body,
                    "status": {},
                },
                "required": ["apiVersion", "kind", "metadata", "spec"],
                "additionalProperties": false,
            }),
            Body::Whole => json!({
                "allOf": [body],
                "properties": { "apiVersion": { "enum": versions }, "metadata": metadata },
                "required": ["apiVersion", "kind", "metadata"],
            }),
        };
        branches.push(json!({
            "if": { "properties": { "kind": { "const": info.kind } }, "required": ["kind"] },
            "then": then,
        }));
    }
    let kinds: Vec<&str> = KINDS.iter().map(|info| info.kind).collect();
    json!({
        "type": "object",
        "properties": { "kind": { "enum": kinds } },
        "required": ["apiVersion", "kind"],
        "allOf": branches,
    })
}
