//! What holds for all proxies of a mesh: the trust domain and plain text.

use rhumb_base::spiffe::TrustDomain;
use rhumb_model::kind::mesh::MeshMtls;
use rhumb_model::scalar::PreciseHostname;
use rhumb_model::{Diag, Doc, Rule, Spanned};

use super::Maker;
use crate::collect::Entry;

impl<'d> Maker<'d> {
    pub(super) fn settings(&mut self) {
        if let Some(Entry { doc, spec }) = self.mesh {
            self.belong_to(doc, &spec.trust_domain);
            self.out.is_permissive = *spec.mtls == MeshMtls::Permissive;
            self.egress(Entry { doc, spec });
        }
        if let Some(doc) = self.unreadable {
            self.let_nothing_leave(doc);
        }
        if let Some(own) = self.sidecar.and_then(|sidecar| sidecar.spec.mtls.as_ref()) {
            self.out.is_permissive = **own == MeshMtls::Permissive;
        }
        let control = self.sidecar.and_then(|sidecar| {
            let control = sidecar.spec.identity.as_ref()?.control.as_ref()?;
            Some((sidecar.doc, control.trust_domain.as_ref()?))
        });
        // Whoever gives certificates out knows what they are of.
        if let Some((doc, domain)) = control {
            self.belong_to(doc, domain);
        }
        self.out.trust_domain = Some(self.trust_domain.clone());
    }

    fn belong_to(&mut self, doc: &Doc, written: &Spanned<PreciseHostname>) {
        match TrustDomain::parse(written.as_str()) {
            Ok(domain) => self.trust_domain = domain,
            Err(invalid) => {
                let what = format!("`{}` is no trust domain", written.as_str());
                let at = doc.origin(written.span);
                self.out.diags.push(Diag::error(Rule::BadValue, at, what).why(invalid.to_string()));
            }
        }
    }
}
