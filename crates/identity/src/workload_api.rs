//! The SPIFFE Workload API, both sides: what the app beside a proxy asks, and what SPIRE is asked.
//!
//! **Source**: SPIFFE Workload API, SPIFFE Workload Endpoint.

use std::collections::HashMap;

mod server;
mod client;

pub use client::{NotFetched, WorkloadClient};
pub use server::{NotServed, WorkloadServer};

/// The service's name; it has no package.
const SERVICE: &str = "SpiffeWorkloadAPI";
const FETCH_SVIDS: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
const FETCH_BUNDLES: &str = "/SpiffeWorkloadAPI/FetchX509Bundles";

/// Each request carries this, so that none can be made by a browser that somebody misleads. Workload Endpoint §6.
const HEADER: &str = "workload.spiffe.io";

/// The largest message. Unit: bytes.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    /// DER, one certificate after the other, the leaf first.
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    /// PKCS #8 in DER.
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    /// DER, one certificate after the other.
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    hint: String,
}

impl std::fmt::Debug for X509Svid {
    // The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509Svid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct BundlesResponse {
    #[prost(bytes = "vec", repeated, tag = "1")]
    crl: Vec<Vec<u8>>,
    /// By the SPIFFE ID of the trust domain.
    #[prost(map = "string, bytes", tag = "2")]
    bundles: HashMap<String, Vec<u8>>,
}
