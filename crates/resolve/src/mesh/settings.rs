//! What holds for all proxies of a mesh: the trust domain, plain text, what may leave.

use rhumb_base::spiffe::TrustDomain;
use rhumb_model::kind::mesh::{Egress, MeshMtls, Outside};
use rhumb_model::{Diag, Rule};
use rhumb_plan::mesh as plan;

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
            if *spec.egress == Egress::Deny {
                let (mut addresses, mut names) = (Vec::new(), Vec::<Box<str>>::new());
                for name in &spec.allowed_names {
                    match &name.value {
                        Outside::Address(address) => addresses.push(address.to_canonical()),
                        Outside::Name(name) => names.push(name.as_str().to_ascii_lowercase().into()),
                    }
                }
                self.out.egress = plan::Egress::Deny { addresses: addresses.into(), names: names.into() };
            } else if let Some(name) = spec.allowed_names.first() {
                let diag = Diag::warning(
                    Rule::NoEffect,
                    doc.origin(name.span),
                    "`allowedNames` without `egress: deny`",
                )
                .why("everything is allowed already")
                .fix("write `egress: deny`");
                self.out.diags.push(diag);
            }
        }
        if let Some(own) = self.sidecar.and_then(|sidecar| sidecar.spec.mtls.as_ref()) {
            self.out.is_permissive = **own == MeshMtls::Permissive;
        }
        self.out.trust_domain = Some(self.trust_domain.clone());
    }
}
