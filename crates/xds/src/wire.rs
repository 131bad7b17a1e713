//! Messages of Envoy's API, as far as gRPC clients know them and they are sent here. Fields that are not here are skipped when
//! read.

use bytes::Bytes;
use prost::Message;
use rhumb_ads::wire::{Any, Refusal};

/// The path of the method.
pub const SOTW_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// From the client: every name of a type that it wants, and what it made of a response.
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryRequest {
    /// The version that it uses.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Who asks; in the first message of a stream.
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    /// Every name that is wanted.
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// The type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// The response that this message is about; empty at the beginning.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Why that response was refused.
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<Refusal>,
}

/// From the control plane: resources of a type.
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryResponse {
    /// The version of these resources.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// The resources.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Any>,
    /// The type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// What an answer names.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Resources that are not sent, and why (gRFC A88).
    #[prost(message, repeated, tag = "7")]
    pub resource_errors: Vec<ResourceError>,
}

/// Why a resource is not sent.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceError {
    /// Its name.
    #[prost(message, optional, tag = "1")]
    pub resource_name: Option<ResourceName>,
    /// Why.
    #[prost(message, optional, tag = "2")]
    pub error_detail: Option<Refusal>,
}

/// The name of a resource.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceName {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Who asks.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// Which client.
    #[prost(string, tag = "1")]
    pub id: String,
    /// What it is a part of.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// More about it.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
    /// The program.
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
    /// Its version.
    #[prost(string, tag = "7")]
    pub user_agent_version: String,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub struct Struct {
    /// The fields.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: std::collections::BTreeMap<String, Value>,
}

/// `google.protobuf.Value`, when it is text.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// The text.
    #[prost(string, optional, tag = "3")]
    pub string_value: Option<String>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Duration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// The rest. Unit: nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Self {
        // The longest that `google.protobuf.Duration` may have is 10 000 years.
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).min(315_576_000_000);
        Self { seconds, nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default() }
    }
}

/// `google.protobuf.UInt32Value`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Number {
    /// The number.
    #[prost(uint32, tag = "1")]
    pub value: u32,
}

/// `google.protobuf.BoolValue`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Flag {
    /// Yes or no.
    #[prost(bool, tag = "1")]
    pub value: bool,
}

/// A message without fields.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// Where a resource comes from: this stream.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ConfigSource {
    /// The stream.
    #[prost(message, optional, tag = "3")]
    pub ads: Option<Empty>,
    /// The version of the API: 2 is v3.
    #[prost(int32, tag = "6")]
    pub resource_api_version: i32,
}

impl ConfigSource {
    /// This stream.
    pub const ADS: Self = Self { ads: Some(Empty {}), resource_api_version: 2 };
}

/// `envoy.config.listener.v3.Listener`.
#[derive(Clone, PartialEq, Message)]
pub struct Listener {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What clients without a proxy do.
    #[prost(message, optional, tag = "19")]
    pub api_listener: Option<ApiListener>,
}

/// What clients without a proxy do.
#[derive(Clone, PartialEq, Message)]
pub struct ApiListener {
    /// An [`HttpConnectionManager`].
    #[prost(message, optional, tag = "1")]
    pub api_listener: Option<Any>,
}

/// How requests are carried.
#[derive(Clone, PartialEq, Message)]
pub struct HttpConnectionManager {
    /// A name for numbers.
    #[prost(string, tag = "2")]
    pub stat_prefix: String,
    /// Where the routes are.
    #[prost(message, optional, tag = "3")]
    pub rds: Option<Rds>,
    /// What happens to requests; the last one routes them.
    #[prost(message, repeated, tag = "5")]
    pub http_filters: Vec<HttpFilter>,
}

/// Where routes are.
#[derive(Clone, PartialEq, Message)]
pub struct Rds {
    /// The source.
    #[prost(message, optional, tag = "1")]
    pub config_source: Option<ConfigSource>,
    /// The name.
    #[prost(string, tag = "2")]
    pub route_config_name: String,
}

/// Something that happens to requests.
#[derive(Clone, PartialEq, Message)]
pub struct HttpFilter {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its settings.
    #[prost(message, optional, tag = "4")]
    pub typed_config: Option<Any>,
}

/// `envoy.config.route.v3.RouteConfiguration`.
#[derive(Clone, PartialEq, Message)]
pub struct RouteConfiguration {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Routes by host.
    #[prost(message, repeated, tag = "2")]
    pub virtual_hosts: Vec<VirtualHost>,
}

/// Routes of some hosts.
#[derive(Clone, PartialEq, Message)]
pub struct VirtualHost {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The hosts.
    #[prost(string, repeated, tag = "2")]
    pub domains: Vec<String>,
    /// The routes; the first that matches is taken.
    #[prost(message, repeated, tag = "3")]
    pub routes: Vec<Route>,
}

/// A route.
#[derive(Clone, PartialEq, Message)]
pub struct Route {
    /// Which requests.
    #[prost(message, optional, tag = "1")]
    pub r#match: Option<RouteMatch>,
    /// Where they go, or that they go nowhere.
    #[prost(oneof = "Action", tags = "2, 18")]
    pub action: Option<Action>,
    /// The name.
    #[prost(string, tag = "14")]
    pub name: String,
}

/// What is done with requests.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Action {
    /// They go somewhere.
    #[prost(message, tag = "2")]
    Route(RouteAction),
    /// They fail.
    #[prost(message, tag = "18")]
    None(Empty),
}

/// Which requests.
#[derive(Clone, PartialEq, Message)]
pub struct RouteMatch {
    /// By path.
    #[prost(oneof = "PathSpecifier", tags = "1, 2, 10")]
    pub path: Option<PathSpecifier>,
    /// By fields; all of them.
    #[prost(message, repeated, tag = "6")]
    pub headers: Vec<HeaderMatcher>,
}

/// How a path is compared.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum PathSpecifier {
    /// It begins so.
    #[prost(string, tag = "1")]
    Prefix(String),
    /// It is this.
    #[prost(string, tag = "2")]
    Path(String),
    /// All of it matches.
    #[prost(message, tag = "10")]
    Regex(RegexMatcher),
}

/// A regular expression (RE2).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegexMatcher {
    /// The expression.
    #[prost(string, tag = "2")]
    pub regex: String,
}

/// A condition on a field.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderMatcher {
    /// The field.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How it is compared.
    #[prost(oneof = "HeaderSpecifier", tags = "4, 11")]
    pub specifier: Option<HeaderSpecifier>,
}

/// How a field is compared.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum HeaderSpecifier {
    /// It is this.
    #[prost(string, tag = "4")]
    Exact(String),
    /// All of it matches.
    #[prost(message, tag = "11")]
    Regex(RegexMatcher),
}

/// Where requests go.
#[derive(Clone, PartialEq, Message)]
pub struct RouteAction {
    /// To one Cluster or several.
    #[prost(oneof = "ClusterSpecifier", tags = "1, 3")]
    pub cluster: Option<ClusterSpecifier>,
    /// The authority becomes the endpoint's (gRFC A81).
    #[prost(message, optional, tag = "7")]
    pub auto_host_rewrite: Option<Flag>,
    /// When they are repeated (gRFC A44).
    #[prost(message, optional, tag = "9")]
    pub retry_policy: Option<RetryPolicy>,
    /// How long they may take (gRFC A31).
    #[prost(message, optional, tag = "36")]
    pub max_stream_duration: Option<MaxStreamDuration>,
}

/// One Cluster or several.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ClusterSpecifier {
    /// One.
    #[prost(string, tag = "1")]
    Cluster(String),
    /// Several by weight.
    #[prost(message, tag = "3")]
    Weighted(WeightedCluster),
}

/// Clusters by weight.
#[derive(Clone, PartialEq, Message)]
pub struct WeightedCluster {
    /// The Clusters.
    #[prost(message, repeated, tag = "1")]
    pub clusters: Vec<ClusterWeight>,
}

/// A Cluster and its share.
#[derive(Clone, PartialEq, Message)]
pub struct ClusterWeight {
    /// The Cluster.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its share.
    #[prost(message, optional, tag = "2")]
    pub weight: Option<Number>,
}

/// How long a call may take.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct MaxStreamDuration {
    /// At most.
    #[prost(message, optional, tag = "1")]
    pub max_stream_duration: Option<Duration>,
}

/// When a call is repeated.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RetryPolicy {
    /// After these statuses, separated by commas.
    #[prost(string, tag = "1")]
    pub retry_on: String,
    /// How often at most.
    #[prost(message, optional, tag = "2")]
    pub num_retries: Option<Number>,
    /// What is waited before.
    #[prost(message, optional, tag = "8")]
    pub retry_back_off: Option<RetryBackOff>,
}

/// What is waited before a call is repeated.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct RetryBackOff {
    /// At first.
    #[prost(message, optional, tag = "1")]
    pub base_interval: Option<Duration>,
    /// At most.
    #[prost(message, optional, tag = "2")]
    pub max_interval: Option<Duration>,
}

/// `envoy.config.cluster.v3.Cluster`.
#[derive(Clone, PartialEq, Message)]
pub struct Cluster {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Where its endpoints come from: 3 is EDS.
    #[prost(int32, tag = "2")]
    pub r#type: i32,
    /// Where its endpoints are.
    #[prost(message, optional, tag = "3")]
    pub eds_cluster_config: Option<EdsClusterConfig>,
    /// How connections are protected.
    #[prost(message, optional, tag = "24")]
    pub transport_socket: Option<TransportSocket>,
}

/// Where endpoints are.
#[derive(Clone, PartialEq, Message)]
pub struct EdsClusterConfig {
    /// The source.
    #[prost(message, optional, tag = "1")]
    pub eds_config: Option<ConfigSource>,
    /// The name.
    #[prost(string, tag = "2")]
    pub service_name: String,
}

/// How connections are protected.
#[derive(Clone, PartialEq, Message)]
pub struct TransportSocket {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// An [`UpstreamTlsContext`].
    #[prost(message, optional, tag = "3")]
    pub typed_config: Option<Any>,
}

/// TLS towards a server (gRFC A29).
#[derive(Clone, PartialEq, Message)]
pub struct UpstreamTlsContext {
    /// Certificates.
    #[prost(message, optional, tag = "1")]
    pub common_tls_context: Option<CommonTlsContext>,
    /// The server name that is asked for (gRFC A101).
    #[prost(string, tag = "2")]
    pub sni: String,
}

/// Certificates of both sides.
#[derive(Clone, PartialEq, Message)]
pub struct CommonTlsContext {
    /// What the server's has to be.
    #[prost(message, optional, tag = "3")]
    pub validation_context: Option<CertificateValidationContext>,
    /// The client's own.
    #[prost(message, optional, tag = "14")]
    pub tls_certificate_provider_instance: Option<ProviderInstance>,
}

/// What a certificate has to be.
#[derive(Clone, PartialEq, Message)]
pub struct CertificateValidationContext {
    /// One of these is among its names.
    #[prost(message, repeated, tag = "9")]
    pub match_subject_alt_names: Vec<StringMatcher>,
    /// Where its roots come from.
    #[prost(message, optional, tag = "13")]
    pub ca_certificate_provider_instance: Option<ProviderInstance>,
}

/// How text is compared.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StringMatcher {
    /// It is this.
    #[prost(string, optional, tag = "1")]
    pub exact: Option<String>,
}

/// A certificate provider of the client's bootstrap.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ProviderInstance {
    /// Its name there.
    #[prost(string, tag = "1")]
    pub instance_name: String,
}

/// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
#[derive(Clone, PartialEq, Message)]
pub struct ClusterLoadAssignment {
    /// The name.
    #[prost(string, tag = "1")]
    pub cluster_name: String,
    /// The endpoints.
    #[prost(message, repeated, tag = "2")]
    pub endpoints: Vec<LocalityLbEndpoints>,
}

/// Endpoints of a place.
#[derive(Clone, PartialEq, Message)]
pub struct LocalityLbEndpoints {
    /// The place.
    #[prost(message, optional, tag = "1")]
    pub locality: Option<Locality>,
    /// The endpoints.
    #[prost(message, repeated, tag = "2")]
    pub lb_endpoints: Vec<LbEndpoint>,
    /// The place's share of calls.
    #[prost(message, optional, tag = "3")]
    pub load_balancing_weight: Option<Number>,
}

/// A place.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Locality {
    /// The region.
    #[prost(string, tag = "1")]
    pub region: String,
    /// The zone.
    #[prost(string, tag = "2")]
    pub zone: String,
    /// What is told apart within it.
    #[prost(string, tag = "3")]
    pub sub_zone: String,
}

/// An endpoint and its state.
#[derive(Clone, PartialEq, Message)]
pub struct LbEndpoint {
    /// The endpoint.
    #[prost(message, optional, tag = "1")]
    pub endpoint: Option<Endpoint>,
    /// Its state: 1 is healthy, 2 is not, 3 takes no new calls.
    #[prost(int32, tag = "2")]
    pub health_status: i32,
    /// Its share, for policies that know one.
    #[prost(message, optional, tag = "4")]
    pub load_balancing_weight: Option<Number>,
}

/// An endpoint.
#[derive(Clone, PartialEq, Message)]
pub struct Endpoint {
    /// Where it is.
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
    /// The authority of calls that go there (gRFC A81).
    #[prost(string, tag = "3")]
    pub hostname: String,
}

/// Where an endpoint is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Address {
    /// Address and port.
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

/// Address and port.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SocketAddress {
    /// The IP address.
    #[prost(string, tag = "2")]
    pub address: String,
    /// The port.
    #[prost(uint32, tag = "3")]
    pub port_value: u32,
}

/// A message with its type.
pub fn any(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: Bytes::from(message.encode_to_vec()) }
}

/// Types of messages within others.
pub mod url {
    /// [`HttpConnectionManager`](super::HttpConnectionManager).
    pub const HTTP_CONNECTION_MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    /// The filter that routes.
    pub const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    /// [`UpstreamTlsContext`](super::UpstreamTlsContext).
    pub const UPSTREAM_TLS: &str =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
}
