//! A backend: a set of endpoints, how to choose among them, and how to talk to them.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use rhumb_balance::{Ask, Endpoint, Endpoints, InFlight, Nanos, NotPicked, RetryBudget};
use rhumb_base::name::BackendName;
use rhumb_base::rng::Rng;
use rhumb_codec::field::FieldName;
use rhumb_codec::head::RequestHead;
use rhumb_route::field::cookie;
use rhumb_telemetry::metrics::BackendId;
use rhumb_upstream::{Check, Target};

use crate::mesh::Way;

/// A backend.
pub struct Backend {
    /// Its document.
    pub name: BackendName,
    /// Hash of everything that is written about it: with the same one it is taken over from plan to plan.
    pub digest: u64,
    /// Its endpoints. Shared by every revision of the backend: churn and health do not rebuild the plan.
    pub endpoints: Arc<Endpoints>,
    /// True for algorithms that choose by a key of the request.
    pub needs_key: bool,
    /// What they look at.
    pub hash_on: HashOn,
    /// How connections are made.
    pub target: Target,
    /// How many of its requests may be retries. Shared by every revision of the backend.
    pub budget: Arc<RetryBudget>,
    /// How endpoints are asked whether they are well; `None` when they are not.
    pub check: Option<Arc<Check>>,
    /// Names in DNS that some or all endpoints are found by, for dumps; empty when every address is written.
    pub dns_names: Box<[Box<str>]>,
    /// It is a service of the mesh: `target` is for endpoints behind a proxy of the mesh.
    pub mesh: Option<Box<Way>>,
    /// The backend's series in the metrics registry, found at its first request.
    pub metrics_id: OnceLock<BackendId>,
}

/// What ring hash and maglev hash.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum HashOn {
    /// The client's address.
    #[default]
    SourceIp,
    /// The path.
    Path,
    /// A field of the request; requests without it are spread at random.
    Header(FieldName),
    /// A cookie; requests without it are spread at random.
    Cookie(Box<str>),
}

impl Backend {
    /// How connections are made.
    #[inline]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// How and where a connection to an endpoint is made.
    #[inline]
    pub fn way(&self, endpoint: &Endpoint) -> (&Target, SocketAddr) {
        let address = endpoint.address();
        match &self.mesh {
            None => (&self.target, address),
            Some(way) => match endpoint.tunnel() {
                0 => (&way.plain, address),
                tunnel => (&self.target, SocketAddr::new(address.ip(), tunnel)),
            },
        }
    }

    /// Chooses an endpoint and counts the request in; `tried` failed this request already and are left out while
    /// there are others.
    ///
    /// # Errors
    /// When there is no endpoint, or no room for the request.
    #[inline]
    pub fn begin(
        &self,
        req: &RequestHead,
        client: IpAddr,
        now: Nanos,
        rng: &mut Rng,
        tried: &[Arc<Endpoint>],
    ) -> Result<InFlight, NotPicked> {
        let key = if self.needs_key { self.key(req, client) } else { None };
        // RFC 9110 §9.2.2: what tries out an endpoint may have to be sent again.
        let ask = Ask { key, now, may_probe: req.method().is_idempotent(), tried };
        self.endpoints.begin(ask, rng)
    }

    /// The same for what is no request: only the client's address tells one from another, and nothing is lost by
    /// connecting once more.
    ///
    /// # Errors
    /// When there is no endpoint, or no room.
    pub fn begin_for(
        &self,
        client: IpAddr,
        now: Nanos,
        rng: &mut Rng,
        tried: &[Arc<Endpoint>],
    ) -> Result<InFlight, NotPicked> {
        let key = (self.needs_key && self.hash_on == HashOn::SourceIp).then(|| address_key(client));
        self.endpoints.begin(Ask { key, now, may_probe: true, tried }, rng)
    }

    fn key(&self, req: &RequestHead, client: IpAddr) -> Option<u64> {
        let bytes = match &self.hash_on {
            HashOn::SourceIp => {
                return Some(address_key(client));
            }
            HashOn::Path => Some(req.path()),
            HashOn::Header(name) => req.fields.find(name),
            HashOn::Cookie(name) => cookie(req, name.as_bytes()),
        };
        bytes.map(rhumb_balance::hash::key)
    }
}

fn address_key(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(v4) => rhumb_balance::hash::key(&v4.octets()),
        IpAddr::V6(v6) => rhumb_balance::hash::key(&v6.octets()),
    }
}
