//! The types of resources.

/// What a resource is about. The order is the order in which waiting resources are sent: endpoints first, because a request
/// fails without them and because they are small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The endpoints of a service (`NAMESPACE/NAME`).
    Endpoints,
    /// The documents that a workload's own proxy needs to receive (`NAMESPACE/WORKLOAD`).
    Own,
    /// The documents that clients of a service need (`NAMESPACE/NAME`).
    Service,
    /// The documents of a gateway (`NAMESPACE/NAME`).
    Gateway,
    /// What is behind an IP address or a name of a host.
    Address,
}

impl Kind {
    /// Every type, in the order in which waiting resources are sent.
    pub const ALL: [Self; 5] = [Self::Endpoints, Self::Own, Self::Service, Self::Gateway, Self::Address];

    /// The type URL.
    pub fn url(self) -> &'static str {
        match self {
            Self::Endpoints => "type.rhumb.dev/Endpoints",
            Self::Own => "type.rhumb.dev/Self",
            Self::Service => "type.rhumb.dev/Service",
            Self::Gateway => "type.rhumb.dev/Gateway",
            Self::Address => "type.rhumb.dev/Address",
        }
    }

    /// The type of a URL.
    pub fn of_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// True for documents, which say what is allowed; the others say only where something is.
    pub fn is_of_documents(self) -> bool {
        matches!(self, Self::Own | Self::Service | Self::Gateway)
    }

    /// A short word for logs, metrics and file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endpoints => "endpoints",
            Self::Own => "self",
            Self::Service => "service",
            Self::Gateway => "gateway",
            Self::Address => "address",
        }
    }

    /// Its place in [`Kind::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Endpoints => 0,
            Self::Own => 1,
            Self::Service => 2,
            Self::Gateway => 3,
            Self::Address => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_url_and_stands_at_its_place() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(Kind::of_url(kind.url()), Some(kind));
            assert_eq!(kind.index(), place);
        }
        assert_eq!(Kind::of_url("type.googleapis.com/envoy.config.cluster.v3.Cluster"), None);
    }
}
