//! What holds for all proxies of a mesh: the trust domain and plain text.

use rhumb_base::spiffe::TrustDomain;
use rhumb_model::kind::mesh::MeshMtls;
use rhumb_model::{Diag, Rule};

use super::Maker;
use crate::collect::Entry;

impl<'d> Maker<'d> {
    pub(super) fn settings(&mut self) {
        if let Some(Entry { doc, spec }) = self.mesh {
            match TrustDomain::parse(spec.trust_domain.as_str()) {
                Ok(domain) => self.trust_domain = domain,
                Err(invalid) => {
                    let what = format!("`{}` is no trust domain", spec.trust_domain.as_str());
                    let at = doc.origin(spec.trust_domain.span);
                    self.out.diags.push(Diag::error(Rule::BadValue, at, what).why(invalid.to_string()));
                }
            }
            self.out.is_permissive = *spec.mtls == MeshMtls::Permissive;
            self.egress(Entry { doc, spec });
        }
        if let Some(own) = self.sidecar.and_then(|sidecar| sidecar.spec.mtls.as_ref()) {
            self.out.is_permissive = **own == MeshMtls::Permissive;
        }
        self.out.trust_domain = Some(self.trust_domain.clone());
    }
}
