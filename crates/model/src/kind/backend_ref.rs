//! What the backendRefs of all kinds of route have in common.

use super::grpc_route::GrpcBackendRef;
use super::http_route::HttpBackendRef;
use super::l4_route::L4BackendRef;
use crate::scalar::{Group, KindName, Name, Namespace, Port};
use crate::span::Spanned;

/// Where a backendRef leads, and its share.
#[derive(Clone, Copy, Debug)]
pub struct BackendTarget<'a> {
    /// Group of the backend.
    pub group: &'a Spanned<Group>,
    /// Kind of the backend.
    pub kind: &'a Spanned<KindName>,
    /// Namespace of the backend. Default: that of the route.
    pub namespace: Option<&'a Spanned<Namespace>>,
    /// Name of the backend.
    pub name: &'a Spanned<Name>,
    /// Port of a Service.
    pub port: Option<&'a Spanned<Port>>,
    /// This of the sum of all goes there.
    pub weight: u32,
}

macro_rules! leads_somewhere {
    ($($reference:ty),*) => {$(
        impl $reference {
            /// Where it leads, whatever kind of route it is of.
            pub fn target(&self) -> BackendTarget<'_> {
                BackendTarget {
                    group: &self.group,
                    kind: &self.kind,
                    namespace: self.namespace.as_ref(),
                    name: &self.name,
                    port: self.port.as_ref(),
                    weight: u32::try_from(self.weight.get()).unwrap_or(0),
                }
            }
        }
    )*};
}

leads_somewhere!(HttpBackendRef, GrpcBackendRef, L4BackendRef);
