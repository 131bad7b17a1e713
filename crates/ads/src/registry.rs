//! Messages of `rhumb.control.v1alpha1.Registry`: workloads come and go.

use crate::resource::{Mtls, Port};

/// The name of the service.
pub const SERVICE: &str = "rhumb.control.v1alpha1.Registry";

/// The path of `Register`: a stream of what the workload says of itself; each message replaces the one before. The
/// endpoint lives as long as the stream, and a while longer when it breaks.
pub const REGISTER_PATH: &str = "/rhumb.control.v1alpha1.Registry/Register";

/// The path of `Withdraw`.
pub const WITHDRAW_PATH: &str = "/rhumb.control.v1alpha1.Registry/Withdraw";

/// What a port of a Service is called in a registration of who knows its number. No name of a port has a colon.
#[must_use]
pub fn registered_port(service: &str, number: u16) -> String {
    format!("{service}:{number}")
}

/// What a workload says of itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Registration {
    /// The workload (`NAMESPACE/NAME`).
    #[prost(string, tag = "1")]
    pub workload: String,
    /// Its IP address, as others reach it.
    #[prost(string, tag = "2")]
    pub address: String,
    /// The names of its services, of its own namespace.
    #[prost(string, repeated, tag = "3")]
    pub services: Vec<String>,
    /// Its ports: by the name of a Service's port, or as [`registered_port`] makes it of a Service's name and number.
    #[prost(message, repeated, tag = "4")]
    pub ports: Vec<Port>,
    /// The service account whose identity it proves.
    #[prost(string, tag = "5")]
    pub service_account: String,
    /// Its share of requests; 0 is 1.
    #[prost(uint32, tag = "6")]
    pub weight: u32,
    /// `REGION/ZONE`.
    #[prost(string, tag = "7")]
    pub locality: String,
    /// Whether connections to it are encrypted.
    #[prost(enumeration = "Mtls", tag = "8")]
    pub mtls: i32,
    /// It cannot serve at the moment.
    #[prost(bool, tag = "9")]
    pub unhealthy: bool,
    /// Which process this is: a successor with another one replaces it.
    #[prost(string, tag = "10")]
    pub instance: String,
    /// The port of its tunnel; 0 is the usual one.
    #[prost(uint32, tag = "11")]
    pub tunnel: u32,
}

/// An answer to a registration.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Registered {
    /// Services that it is an endpoint of, and that nobody has a document of.
    #[prost(string, repeated, tag = "1")]
    pub unknown_services: Vec<String>,
}

/// A workload is about to end.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Withdrawal {
    /// The workload (`NAMESPACE/NAME`).
    #[prost(string, tag = "1")]
    pub workload: String,
    /// Which process.
    #[prost(string, tag = "2")]
    pub instance: String,
    /// How long proxies are waited for. Unit: milliseconds.
    #[prost(uint32, tag = "3")]
    pub deadline_ms: u32,
}

/// Who knows that a workload has gone.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Withdrawn {
    /// Proxies that send nothing there any more.
    #[prost(uint32, tag = "1")]
    pub acked: u32,
    /// Proxies that did not say so in time.
    #[prost(string, repeated, tag = "2")]
    pub pending: Vec<String>,
}
