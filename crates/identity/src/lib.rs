//! Who is who in a mesh: the certificate authority, how workloads prove who they are, and how they keep their SVIDs.
//!
//! [`Authority`] is the issuing side: a root and an intermediate in a directory, both rotated by themselves, and everything
//! that follows from the clock worked out in one place ([`Authority::tick`]). Time comes in as an argument, so that years pass
//! in a test.
//!
//! [`Issuer`] puts it on the wire, for [`Keeper`]s: what a proxy has to get its SVID, to renew it, and to hear at once of what
//! is not to be trusted any more. [`workload_api`] is SPIFFE's own way for the app beside a proxy, and for SPIRE as issuer.
//!
//! It deliberately does not know: documents, the data path, and what an identity may do.
//!
//! Start reading at [`Authority`], then [`Issuer`] and [`Keeper`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod clock;
mod lifetimes;
mod authority;
mod request;
mod token;
mod kubernetes;
pub mod wire;
mod issuer;
mod members;
mod channel;
mod keeper;
mod files;
mod hand_out;
mod inspect;
pub mod workload_api;
mod records;
mod file;
mod pem;
#[cfg(test)]
mod testing;

pub use authority::{Authority, Changed, Error, Forecast, Issued, Mounted, Phase, RootStatus};
pub use channel::over_tls;
pub use clock::{Clock, system_clock};
pub use files::{FileWatch, SvidFiles};
pub use hand_out::{hand_out, roots_pem, write_out};
pub use inspect::{Inspected, NotInspected, inspect, kept_domain};
pub use issuer::{Counts, Issuer, IssuerService, Refusal, serve};
pub use keeper::{Joining, Keeper, KeeperSettings, NotKept, Status};
pub use kubernetes::{FetchedKeys, Keys, Kubernetes, KubernetesSettings, NotTaken};
pub use lifetimes::{Lifetimes, TooShort};
pub use members::{MemberConnection, MemberPeer, accept};
pub use records::{Place, Shared};
pub use request::{KeyRequest, MAX_REQUEST, NewKey};
pub use token::{JoinToken, Malformed, Pin, Refused, Tokens};

/// The namespace of what belongs to the mesh itself.
pub const SYSTEM_NAMESPACE: &str = "rhumb-system";

/// The service account of control planes: `spiffe://TRUST-DOMAIN/ns/rhumb-system/sa/control`.
pub const CONTROL_ACCOUNT: &str = "control";
