//! Who the workloads of the demonstration are: an authority of its own, and what it hands out.

use std::path::Path;

use anyhow::Context;
use rhumb_base::spiffe::TrustDomain;
use rhumb_identity::{Authority, Lifetimes, hand_out};

use crate::health::unix_now;

/// The trust domain of the demonstration.
const TRUST_DOMAIN: &str = "cluster.local";

/// Makes an authority in `directory`, and gives each service account a certificate, a key and the roots in a directory of
/// its name below `homes`.
///
/// # Errors
/// When files cannot be written.
pub(crate) fn hand_out_to(accounts: &[&str], directory: &Path, homes: &Path) -> anyhow::Result<()> {
    let domain = TrustDomain::parse(TRUST_DOMAIN).context("the trust domain")?;
    let now = unix_now();
    let authority =
        Authority::open(directory, &domain, Lifetimes::default(), now).context("the authority")?;
    for account in accounts {
        let id = domain.workload("default", account).context("an identity")?;
        hand_out(&authority, &id, &homes.join(account), now)
            .with_context(|| format!("the identity of {account}"))?;
    }
    Ok(())
}
