//! Backends whose endpoints are found by name.

use std::sync::Arc;

use rhumb_balance::EndpointSpec;
use rhumb_plan as plan;

/// A backend whose endpoints, or some of them, are found by name. Whoever looks the names up publishes the addresses
/// into [`rhumb_plan::Backend::endpoints`], those of all names and `fixed` together, each with the name as
/// [`EndpointSpec::hostname`]: by it the next plan knows which endpoints may stay until the first answer.
#[derive(Clone)]
pub struct DnsBackend {
    /// The backend.
    pub backend: Arc<plan::Backend>,
    /// Endpoints whose addresses are written.
    pub fixed: Vec<EndpointSpec>,
    /// Names to look up.
    pub names: Vec<DnsName>,
}

/// A name to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsName {
    /// The name.
    pub name: Arc<str>,
    /// Which records.
    pub kind: DnsKind,
    /// Port of the endpoints; 0 for SRV records, which have it.
    pub port: u16,
    /// Weight of each endpoint; SRV records have their own.
    pub weight: u32,
    /// Where they are.
    pub zone: Option<Arc<str>>,
    /// Their level.
    pub priority: u32,
}

impl DnsName {
    /// True when an endpoint with this hostname was found by the name. DNS compares without case, and a final dot says
    /// nothing (RFC 4343, RFC 1034 §3.1); hostnames of endpoints are in lower case and without it. Endpoints of SRV
    /// records have the names that these lead to; a Backend with such a name has no others.
    pub fn leads_to(&self, hostname: &str) -> bool {
        match self.kind {
            DnsKind::Addresses => self.is_called(hostname),
            DnsKind::Services => true,
        }
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.trim_end_matches('.').eq_ignore_ascii_case(name.trim_end_matches('.'))
    }
}

/// Which records are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DnsKind {
    /// A and AAAA.
    Addresses,
    /// SRV (RFC 2782).
    Services,
}
