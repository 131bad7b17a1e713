//! The contents of resources.

use bytes::Bytes;

/// Content of `Service`, `Self` and `Gateway`: documents.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Documents {
    /// The documents, ordered by kind, namespace and name.
    #[prost(message, repeated, tag = "1")]
    pub documents: Vec<Document>,
}

/// A document.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Document {
    /// The document as JSON.
    #[prost(bytes = "bytes", tag = "1")]
    pub json: Bytes,
    /// The revision that brought it, for messages.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
}

/// Content of `Endpoints`: where a service is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndpointSet {
    /// The endpoints, ordered by workload and address.
    #[prost(message, repeated, tag = "1")]
    pub endpoints: Vec<Endpoint>,
}

/// One place where a service is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Endpoint {
    /// The workload (`NAMESPACE/NAME`).
    #[prost(string, tag = "1")]
    pub workload: String,
    /// Its IP address.
    #[prost(string, tag = "2")]
    pub address: String,
    /// The ports of the service, by name.
    #[prost(message, repeated, tag = "3")]
    pub ports: Vec<Port>,
    /// The SPIFFE ID that it proves; empty without a proxy.
    #[prost(string, tag = "4")]
    pub identity: String,
    /// Its share of requests. 0 takes none.
    #[prost(uint32, tag = "5")]
    pub weight: u32,
    /// `REGION/ZONE`; empty when it is not known.
    #[prost(string, tag = "6")]
    pub locality: String,
    /// Whether connections to it are encrypted.
    #[prost(enumeration = "Mtls", tag = "7")]
    pub mtls: i32,
    /// It takes no new requests, and finishes what it has.
    #[prost(bool, tag = "8")]
    pub draining: bool,
    /// It says of itself that it cannot serve.
    #[prost(bool, tag = "9")]
    pub unhealthy: bool,
    /// The port of its proxy's tunnel; 0 is the usual one.
    #[prost(uint32, tag = "10")]
    pub tunnel: u32,
    /// How callers ask it whether it is well, as JSON (`spec.health` of its Workload). Empty behind a proxy, which asks.
    #[prost(string, tag = "11")]
    pub health: String,
}

/// A port of an endpoint.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Port {
    /// The name of the service's port; empty when it has one port without a name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The number at the endpoint.
    #[prost(uint32, tag = "2")]
    pub number: u32,
}

/// Whether connections to an endpoint are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Mtls {
    /// Always.
    Strict = 0,
    /// Always from proxies; it takes plain text of others too.
    Permissive = 1,
    /// Never: there is no proxy.
    None = 2,
}

/// Content of `Address`: what is behind an address or name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// The service (`NAMESPACE/NAME`).
    #[prost(string, tag = "1")]
    pub service: String,
    /// Addresses that stand for the service as a whole.
    #[prost(string, repeated, tag = "2")]
    pub virtual_addresses: Vec<String>,
    /// The workload (`NAMESPACE/NAME`) whose own address was asked for; empty otherwise.
    #[prost(string, tag = "3")]
    pub workload: String,
    /// Every service (`NAMESPACE/NAME`) that is found there: a workload may belong to several.
    #[prost(string, repeated, tag = "4")]
    pub services: Vec<String>,
}
