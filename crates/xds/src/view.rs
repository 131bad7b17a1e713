//! One gRPC client's stream.
//!
//! The client asks by name, type by type; whatever it asks for comes from documents and endpoints of services, which this asks
//! the control plane for as any proxy does. So a change reaches only the clients that it concerns, and what a client has made of
//! it is known where it is known of proxies: a change is live when the client has acknowledged all that followed from it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use rhumb_ads::wire::{Any, DeltaRequest, DeltaResponse, Node as AdsNode, Refusal};
use rhumb_ads::{BadResponse, Change, Follower};

use crate::bundle::{Facts, Why};
use crate::name::ServicePort;
use crate::offer::{self, Client};
use crate::wire::{DiscoveryRequest, DiscoveryResponse, ResourceError, ResourceName};

/// The most names of one type that a client may want.
pub const MAX_NAMES: usize = 1_024;

/// The longest name. Unit: bytes.
pub const MAX_NAME: usize = 512;

/// `google.rpc.Code.NOT_FOUND` and `FAILED_PRECONDITION`.
const NOT_FOUND: i32 = 5;
const FAILED_PRECONDITION: i32 = 9;

/// The field of a node's metadata that names the certificate provider of its bootstrap.
pub const PROVIDER_FIELD: &str = "rhumb.dev/certificate-provider";

/// The field of a node's metadata that has the namespace of a client that has proven none.
pub const NAMESPACE_FIELD: &str = "rhumb.dev/namespace";

/// A type, in the order in which it is sent: nothing before what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Cluster,
    Endpoints,
    Listener,
    Route,
}

impl Type {
    const ALL: [Self; 4] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Route];

    fn url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// A response has every resource, and what is not in it does not exist.
    fn is_whole(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

/// What the client has been told of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Resource(Bytes),
    Not(i32, String),
}

/// What a client wants of a type, and what it has.
#[derive(Debug, Default)]
struct Lane {
    names: BTreeSet<Box<str>>,
    told: BTreeMap<Box<str>, Told>,
    version: u64,
    /// The nonce of the response that has not been answered.
    open: Option<u64>,
    /// Why the client did not take the last response.
    refusal: Option<String>,
}

/// A stream.
#[derive(Debug)]
pub struct View {
    client: Client,
    is_proven: bool,
    follower: Follower,
    facts: Facts,
    lanes: [Lane; 4],
    /// What has been heard and the client has not made something of.
    pending: Vec<Change>,
    /// Something was heard, or other names are wanted.
    is_stale: bool,
    nonce: u64,
    /// Why services are not offered, as it is told in the log.
    refused: BTreeMap<Box<str>, String>,
    news: Vec<(Box<str>, String)>,
}

/// The client's message is against the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Too many names.
    #[error("a client may want {MAX_NAMES} resources of a type")]
    TooMany,
    /// A name is too long.
    #[error("a name has at most {MAX_NAME} bytes")]
    TooLong,
    /// The type is none that is served.
    #[error("type `{0}` is not served")]
    UnknownType(String),
}

impl View {
    /// A stream of a client that has proven to be of a namespace, or nothing. `id` is what it is called at the control plane.
    pub fn new(proven: Option<&str>, id: String) -> Self {
        let node = AdsNode { id, user_agent_name: "grpc".to_owned(), ..AdsNode::default() };
        let mut follower = Follower::new(node);
        follower.begin();
        Self {
            client: Client { namespace: proven.unwrap_or("default").to_owned(), certificates: None },
            is_proven: proven.is_some(),
            follower,
            facts: Facts::default(),
            lanes: Default::default(),
            pending: Vec::new(),
            is_stale: true,
            nonce: 0,
            refused: BTreeMap::new(),
            news: Vec::new(),
        }
    }

    /// Takes a message of the client.
    ///
    /// # Errors
    /// [`BadRequest`]: the stream is to be ended.
    pub fn request(&mut self, request: DiscoveryRequest) -> Result<(), BadRequest> {
        if let Some(node) = &request.node {
            let field = |name: &str| {
                let value = node.metadata.as_ref()?.fields.get(name)?;
                value.string_value.clone().filter(|text| !text.is_empty())
            };
            self.client.certificates = field(PROVIDER_FIELD);
            if !self.is_proven
                && let Some(namespace) = field(NAMESPACE_FIELD)
            {
                self.client.namespace = namespace;
            }
        }
        let Some(kind) = Type::ALL.into_iter().find(|kind| kind.url() == request.type_url) else {
            return Err(BadRequest::UnknownType(request.type_url));
        };
        let lane = self.lane(kind);
        // A message about an older response was overtaken; it says nothing about names either.
        if !request.response_nonce.is_empty() {
            let nonce = request.response_nonce.parse().ok();
            match lane.open {
                Some(open) if nonce == Some(open) => {
                    lane.open = None;
                    lane.refusal = request.error_detail.map(|detail| detail.message);
                }
                // The last response was answered before: these are other names.
                None if nonce == Some(lane.version) => {}
                _ => return Ok(()),
            }
        }
        if request.resource_names.len() > MAX_NAMES {
            return Err(BadRequest::TooMany);
        }
        if request.resource_names.iter().any(|name| name.len() > MAX_NAME) {
            return Err(BadRequest::TooLong);
        }
        let names: BTreeSet<Box<str>> =
            request.resource_names.iter().map(|name| name.as_str().into()).collect();
        if names != lane.names {
            // What is wanted again later has to be sent again.
            lane.told.retain(|name, _| names.contains(name));
            lane.names = names;
            self.is_stale = true;
        }
        Ok(())
    }

    /// Takes what the control plane says.
    ///
    /// # Errors
    /// [`BadResponse`].
    pub fn heard(&mut self, response: DeltaResponse) -> Result<(), BadResponse> {
        let change = self.follower.response(response)?;
        for item in &change.items {
            self.facts.set(change.kind, &item.name, item.content.as_ref());
        }
        self.pending.push(change);
        self.is_stale = true;
        Ok(())
    }

    /// The next thing to say to the control plane. Ask [`respond`](Self::respond) before.
    pub fn ask(&mut self) -> Option<DeltaRequest> {
        let is_settled = !self.is_stale && self.lanes.iter().all(|lane| lane.open.is_none());
        if is_settled && !self.pending.is_empty() {
            let refusal = self.lanes.iter().find_map(|lane| lane.refusal.clone());
            for change in std::mem::take(&mut self.pending) {
                match &refusal {
                    Some(why) => self.follower.refuse(change, why.clone()),
                    None => self.follower.accept(change),
                }
            }
        }
        self.follower.request()
    }

    /// What leaves everything that was asked for, so that a client that is gone is missed by nobody.
    pub fn leave(&mut self) -> Option<DeltaRequest> {
        for name in self.facts.known() {
            self.forget(&name);
        }
        self.follower.request()
    }

    /// The next response.
    pub fn respond(&mut self) -> Option<DiscoveryResponse> {
        if !self.is_stale {
            return None;
        }
        self.ask_for_missing();
        for kind in Type::ALL {
            if self.lane(kind).open.is_some() {
                continue;
            }
            if let Some(response) = self.response(kind) {
                return Some(response);
            }
        }
        if self.lanes.iter().all(|lane| lane.open.is_none()) {
            self.is_stale = false;
        }
        None
    }

    /// Services that have begun or ceased to be withheld since the last call, and why; no reason for those that are offered
    /// now.
    pub fn take_news(&mut self) -> Vec<(Box<str>, String)> {
        std::mem::take(&mut self.news)
    }

    /// Wants what the names depend on, and leaves what they do not depend on any more.
    fn ask_for_missing(&mut self) {
        self.facts.begin();
        for kind in Type::ALL {
            for name in self.lane(kind).names.clone() {
                let _ = self.make(kind, &name);
            }
        }
        for (kind, name) in self.facts.take_missing() {
            self.follower.want(kind, &name);
        }
        let unused: Vec<Box<str>> =
            self.facts.known().into_iter().filter(|name| !self.facts.used().contains(name)).collect();
        unused.iter().for_each(|name| self.forget(name));
    }

    fn forget(&mut self, name: &str) {
        self.facts.forget(name);
        self.follower.leave(rhumb_ads::Kind::Service, name);
        self.follower.leave(rhumb_ads::Kind::Endpoints, name);
    }

    /// A resource, encoded.
    fn make(&mut self, kind: Type, name: &str) -> Result<Bytes, Why> {
        let (facts, client) = (&mut self.facts, &self.client);
        let port = || {
            ServicePort::of_server_name(name)
                .ok_or_else(|| Why::Absent(format!("`{name}` is no name of a port of a service")))
        };
        Ok(match kind {
            Type::Listener => offer::listener(facts, client, name)?.encode_to_vec(),
            Type::Route => offer::route_configuration(facts, client, &port()?)?.encode_to_vec(),
            Type::Cluster => offer::cluster(facts, client, &port()?)?.encode_to_vec(),
            Type::Endpoints => offer::load_assignment(facts, client, &port()?)?.encode_to_vec(),
        }
        .into())
    }

    /// A response of a type, if there is something new to say.
    fn response(&mut self, kind: Type) -> Option<DiscoveryResponse> {
        let mut fresh: BTreeMap<Box<str>, Told> = BTreeMap::new();
        for name in self.lane(kind).names.clone() {
            let told = match self.make(kind, &name) {
                Ok(bytes) => Told::Resource(bytes),
                // It goes on as before until more is known.
                Err(Why::Unknown) => continue,
                Err(Why::Absent(why)) => Told::Not(NOT_FOUND, why),
                Err(Why::Refused(why)) => Told::Not(FAILED_PRECONDITION, why),
            };
            if kind == Type::Listener {
                self.note(&name, &told);
            }
            if self.lane(kind).told.get(&name) != Some(&told) {
                fresh.insert(name, told);
            }
        }
        if fresh.is_empty() {
            return None;
        }
        self.nonce += 1;
        let nonce = self.nonce;
        let lane = self.lane(kind);
        let sent = if kind.is_whole() {
            lane.told.append(&mut fresh);
            lane.told.clone()
        } else {
            lane.told.extend(fresh.iter().map(|(name, told)| (name.clone(), told.clone())));
            fresh
        };
        lane.open = Some(nonce);
        lane.version = nonce;
        lane.refusal = None;
        let mut response = DiscoveryResponse {
            version_info: nonce.to_string(),
            type_url: kind.url().to_owned(),
            nonce: nonce.to_string(),
            ..DiscoveryResponse::default()
        };
        for (name, told) in sent {
            match told {
                Told::Resource(value) => {
                    response.resources.push(Any { type_url: kind.url().to_owned(), value });
                }
                Told::Not(code, message) => response.resource_errors.push(ResourceError {
                    resource_name: Some(ResourceName { name: name.into() }),
                    error_detail: Some(Refusal { code, message }),
                }),
            }
        }
        Some(response)
    }

    fn note(&mut self, name: &str, told: &Told) {
        match told {
            Told::Resource(_) => {
                if self.refused.remove(name).is_some() {
                    self.news.push((name.into(), String::new()));
                }
            }
            Told::Not(_, why) => {
                if self.refused.get(name) != Some(why) {
                    self.refused.insert(name.into(), why.clone());
                    self.news.push((name.into(), why.clone()));
                }
            }
        }
    }

    fn lane(&mut self, kind: Type) -> &mut Lane {
        let [cluster, endpoints, listener, route] = &mut self.lanes;
        match kind {
            Type::Cluster => cluster,
            Type::Endpoints => endpoints,
            Type::Listener => listener,
            Type::Route => route,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        Action, Cluster, ClusterLoadAssignment, ClusterSpecifier, Node, PathSpecifier, RouteConfiguration,
        Struct, UpstreamTlsContext, Value,
    };
    use rhumb_ads::Kind;
    use rhumb_ads::resource::{Document, Documents, Endpoint, EndpointSet, Mtls, Port};
    use rhumb_ads::wire::{Any as AdsAny, Resource};
    use serde_json::{Value as Json, json};

    const CLUSTER: &str = "80.orders.shop.svc.cluster.local";

    fn service(name: &str) -> Json {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "shop" },
            "spec": { "ports": [{ "name": "grpc", "port": 80, "appProtocol": "grpc" }] } })
    }

    fn endpoint(address: &str, weight: u32, mtls: Mtls) -> Endpoint {
        Endpoint {
            workload: format!("shop/{address}"),
            address: address.to_owned(),
            ports: vec![Port { name: "grpc".to_owned(), number: 9000 }],
            identity: "spiffe://cluster.local/ns/shop/sa/orders".to_owned(),
            weight,
            mtls: mtls.into(),
            ..Endpoint::default()
        }
    }

    /// A stream, and a control plane that says the same to whoever asks.
    struct Scene {
        view: View,
        documents: Vec<Json>,
        endpoints: Vec<Endpoint>,
        number: u64,
        answers: Vec<DeltaRequest>,
    }

    impl Scene {
        fn new(documents: Vec<Json>, endpoints: Vec<Endpoint>) -> Self {
            Self {
                view: View::new(Some("shop"), "c".to_owned()),
                documents,
                endpoints,
                number: 0,
                answers: Vec::new(),
            }
        }

        fn with_certificates(mut self) -> Self {
            let value = Value { string_value: Some("default".to_owned()) };
            let metadata = Struct { fields: [(PROVIDER_FIELD.to_owned(), value)].into() };
            let node = Node { metadata: Some(metadata), ..Node::default() };
            let request = DiscoveryRequest {
                node: Some(node),
                type_url: Type::Listener.url().to_owned(),
                ..DiscoveryRequest::default()
            };
            self.view.request(request).unwrap();
            self
        }

        fn want(&mut self, kind: Type, name: &str, nonce: &str, error: Option<&str>) {
            let error_detail = error.map(|why| Refusal { code: 3, message: why.to_owned() });
            let request = DiscoveryRequest {
                type_url: kind.url().to_owned(),
                resource_names: vec![name.to_owned()],
                response_nonce: nonce.to_owned(),
                error_detail,
                ..DiscoveryRequest::default()
            };
            self.view.request(request).unwrap();
        }

        /// What the control plane says of everything that it is asked for.
        fn tell(&mut self, kind: Kind) {
            self.number += 1;
            let documents = self
                .documents
                .iter()
                .map(|document| Document { json: document.to_string().into(), revision: 1 });
            let content: Bytes = match kind {
                Kind::Service => Documents { documents: documents.collect() }.encode_to_vec().into(),
                _ => EndpointSet { endpoints: self.endpoints.clone() }.encode_to_vec().into(),
            };
            let resource = |name: &str| Resource {
                version: format!("{}.{:x}", self.number, self.number),
                resource: Some(AdsAny { type_url: kind.url().to_owned(), value: content.clone() }),
                name: name.to_owned(),
            };
            let response = DeltaResponse {
                type_url: kind.url().to_owned(),
                nonce: self.number.to_string(),
                resources: vec![resource("shop/orders"), resource("shop/next")],
                ..DeltaResponse::default()
            };
            self.view.heard(response).unwrap();
        }

        /// Until there is nothing more to say to the client.
        fn settle(&mut self) -> Vec<DiscoveryResponse> {
            let mut all = Vec::new();
            loop {
                while let Some(response) = self.view.respond() {
                    all.push(response);
                }
                let mut asked = BTreeSet::new();
                while let Some(request) = self.view.ask() {
                    if !request.resource_names_subscribe.is_empty() {
                        asked.insert(Kind::of_url(&request.type_url).unwrap());
                    }
                    self.answers.push(request);
                }
                if asked.is_empty() {
                    return all;
                }
                asked.into_iter().for_each(|kind| self.tell(kind));
            }
        }

        /// The one resource of a type, or why there is none.
        fn ask<T: Message + Default>(&mut self, kind: Type, name: &str) -> Result<T, String> {
            self.want(kind, name, "", None);
            let responses = self.settle();
            let response =
                responses.iter().find(|response| response.type_url == kind.url()).expect("a response");
            match response.resources.first() {
                Some(resource) => Ok(T::decode(resource.value.clone()).unwrap()),
                None => Err(response.resource_errors[0].error_detail.as_ref().unwrap().message.clone()),
            }
        }
    }

    #[test]
    fn nothing_is_said_before_it_is_known_and_then_each_thing_once() {
        let mut scene = Scene::new(vec![service("orders")], vec![endpoint("10.0.0.1", 1, Mtls::None)]);
        scene.want(Type::Listener, "orders.shop:80", "", None);
        assert_eq!(scene.view.respond(), None);
        let first = scene.settle();
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].resources.len(), 1);
        // While a response is open, a change waits.
        scene.documents.push(json!({ "apiVersion": "rhumb.dev/v1alpha1", "kind": "Policy", "metadata": { "name": "p", "namespace": "shop" },
            "spec": { "targetRefs": [{ "kind": "Service", "name": "orders" }], "policies": { "fault": {} } } }));
        scene.tell(Kind::Service);
        assert_eq!(scene.settle(), []);
        scene.want(Type::Listener, "orders.shop:80", &first[0].nonce, None);
        let second = scene.settle();
        assert!(second[0].resources.is_empty() && second[0].resource_errors.len() == 1, "{second:?}");
        assert!(scene.view.take_news()[0].1.contains("`fault` of Policy shop/p"));
    }

    #[test]
    fn a_change_is_acknowledged_when_the_client_has_and_refused_when_it_does() {
        let mut scene = Scene::new(vec![service("orders")], vec![endpoint("10.0.0.1", 1, Mtls::None)]);
        scene.want(Type::Endpoints, CLUSTER, "", None);
        let first = scene.settle();
        let answered = |scene: &mut Scene| -> Vec<bool> {
            let about = std::mem::take(&mut scene.answers).into_iter();
            about.filter(|a| !a.response_nonce.is_empty()).map(|a| a.error_detail.is_none()).collect()
        };
        assert_eq!(answered(&mut scene), [true], "documents: nothing followed from them alone");
        scene.want(Type::Endpoints, CLUSTER, &first[0].nonce, None);
        scene.settle();
        assert_eq!(answered(&mut scene), [true], "endpoints");
        scene.endpoints.push(endpoint("10.0.0.2", 1, Mtls::None));
        scene.tell(Kind::Endpoints);
        let second = scene.settle();
        scene.want(Type::Endpoints, CLUSTER, &second[0].nonce, Some("no"));
        scene.settle();
        assert_eq!(answered(&mut scene), [false]);
        // A message about what was overtaken says nothing.
        scene.want(Type::Endpoints, "other", &first[0].nonce, None);
        assert_eq!(scene.settle(), []);
    }

    #[test]
    fn endpoints_of_the_same_weight_share_a_locality_whose_weight_is_theirs() {
        let endpoints = vec![
            endpoint("10.0.0.1", 1, Mtls::None),
            endpoint("10.0.0.2", 1, Mtls::None),
            endpoint("10.0.0.3", 5, Mtls::None),
            endpoint("10.0.0.4", 0, Mtls::None),
        ];
        let mut scene = Scene::new(vec![service("orders")], endpoints);
        let assignment: ClusterLoadAssignment = scene.ask(Type::Endpoints, CLUSTER).unwrap();
        let shares: Vec<_> = assignment
            .endpoints
            .iter()
            .map(|place| (place.lb_endpoints.len(), place.load_balancing_weight.unwrap().value))
            .collect();
        assert_eq!(shares, [(2, 2), (1, 5)]);
    }

    #[test]
    fn who_has_certificates_goes_through_proxies_and_takes_only_identities_of_the_service() {
        let endpoints = || vec![endpoint("10.0.0.1", 1, Mtls::Strict), endpoint("10.0.0.2", 1, Mtls::None)];
        let mut scene = Scene::new(vec![service("orders")], endpoints()).with_certificates();
        let cluster: Cluster = scene.ask(Type::Cluster, CLUSTER).unwrap();
        let tls = cluster.transport_socket.unwrap().typed_config.unwrap();
        let tls = UpstreamTlsContext::decode(tls.value).unwrap();
        let names = tls.common_tls_context.unwrap().validation_context.unwrap().match_subject_alt_names;
        assert_eq!(names[0].exact.as_deref(), Some("spiffe://cluster.local/ns/shop/sa/orders"));
        let assignment: ClusterLoadAssignment = scene.ask(Type::Endpoints, CLUSTER).unwrap();
        let only = assignment.endpoints[0].lb_endpoints[0].endpoint.clone().unwrap();
        assert_eq!(only.address.unwrap().socket_address.unwrap().port_value, 15008);
        assert_eq!(only.hostname, CLUSTER);

        let mut scene = Scene::new(vec![service("orders")], endpoints());
        let cluster: Cluster = scene.ask(Type::Cluster, CLUSTER).unwrap();
        assert_eq!(cluster.transport_socket, None);
        let mut scene = Scene::new(vec![service("orders")], vec![endpoint("10.0.0.1", 1, Mtls::Strict)]);
        let why = scene.ask::<Cluster>(Type::Cluster, CLUSTER).unwrap_err();
        assert!(why.contains("take mutual TLS only"), "{why}");
        // Nobody is there yet: no certificate will do.
        let mut scene = Scene::new(vec![service("orders")], Vec::new()).with_certificates();
        let cluster: Cluster = scene.ask(Type::Cluster, CLUSTER).unwrap();
        let tls = UpstreamTlsContext::decode(cluster.transport_socket.unwrap().typed_config.unwrap().value)
            .unwrap();
        let names = tls.common_tls_context.unwrap().validation_context.unwrap().match_subject_alt_names;
        assert_eq!(names[0].exact.as_deref(), Some("spiffe://"));
    }

    fn route(rules: Json) -> Json {
        json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "r", "namespace": "shop" },
            "spec": { "parentRefs": [{ "group": "", "kind": "Service", "name": "orders" }], "rules": rules } })
    }

    fn routes(rules: Json) -> Result<RouteConfiguration, String> {
        let documents = vec![service("orders"), service("next"), route(rules)];
        Scene::new(documents, vec![endpoint("10.0.0.1", 1, Mtls::None)]).ask(Type::Route, CLUSTER)
    }

    #[test]
    fn routes_are_sent_in_the_order_in_which_they_win() {
        let to = |name: &str| json!([{ "name": name, "port": 80 }]);
        let configuration = routes(json!([
            { "backendRefs": to("orders") },
            { "matches": [{ "path": { "value": "/a.B" } }], "backendRefs": to("next"), "timeouts": { "request": "2s" },
              "retry": { "codes": [503], "attempts": 4 } },
            { "matches": [{ "path": { "type": "Exact", "value": "/a.B/C" }, "headers": [{ "name": "X-A", "value": "1" }] },
                          { "method": "GET" }], "backendRefs": [{ "name": "orders", "port": 80, "weight": 0 }] },
        ]))
        .unwrap();
        let routes = &configuration.virtual_hosts[0].routes;
        let paths: Vec<_> = routes.iter().map(|route| route.r#match.clone().unwrap().path.unwrap()).collect();
        let expected = [
            PathSpecifier::Path("/a.B/C".to_owned()),
            PathSpecifier::Path("/a.B".to_owned()),
            PathSpecifier::Prefix("/a.B/".to_owned()),
            PathSpecifier::Prefix(String::new()),
        ];
        assert_eq!(paths, expected, "calls are POST: a match of GET meets none");
        assert!(matches!(routes[0].action, Some(Action::None(_))), "no weight, no backend");
        let Some(Action::Route(action)) = &routes[1].action else { panic!() };
        assert_eq!(
            action.cluster,
            Some(ClusterSpecifier::Cluster("80.next.shop.svc.cluster.local".to_owned()))
        );
        assert_eq!(action.max_stream_duration.unwrap().max_stream_duration.unwrap().seconds, 2);
        let retry = action.retry_policy.clone().unwrap();
        assert_eq!((&*retry.retry_on, retry.num_retries.unwrap().value), ("unavailable", 4));
    }

    #[test]
    fn what_a_client_cannot_do_is_not_offered() {
        let to = json!([{ "name": "orders", "port": 80 }]);
        for (rule, why) in [
            (json!({ "backendRefs": to, "timeouts": { "backendRequest": "1s" } }), "timeouts.backendRequest"),
            (json!({ "backendRefs": to, "retry": { "codes": [500] } }), "a retry after 500"),
            (
                json!({ "backendRefs": [{ "group": "rhumb.dev", "kind": "Backend", "name": "b" }] }),
                "backendRef to a Backend",
            ),
            (
                json!({ "backendRefs": [{ "name": "orders", "namespace": "other", "port": 80 }] }),
                "no ReferenceGrant",
            ),
            (
                json!({ "backendRefs": to, "matches": [{ "headers": [{ "name": "authorization", "value": "a" }] }] }),
                "`authorization`",
            ),
            (
                json!({ "backendRefs": to, "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "remove": ["a"] } }] }),
                "RequestHeaderModifier",
            ),
        ] {
            let told = routes(json!([rule])).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
