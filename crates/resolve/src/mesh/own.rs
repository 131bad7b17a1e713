//! Who this process is in the mesh.

use rhumb_model::kind::mesh::{Sidecar, SidecarIdentity};
use rhumb_model::{Diag, Doc, Rule, Spec};
use rhumb_plan::{Plan, mesh as plan};
use rhumb_tls::mesh::{Bundle, Membership, MeshClient, Svid};
use rhumb_tls::{CertificateSource, ServerTls};

use super::Expanded;
use crate::report::Report;
use crate::settings::Surroundings;

/// Who this process is in the mesh.
#[derive(Default)]
pub(crate) struct Own {
    pub(crate) membership: Option<Membership>,
    pub(super) identity: Option<Box<(Svid, Bundle)>>,
    /// For proxies of callers.
    pub(super) server: Option<ServerTls>,
    pub(super) keeping: Option<plan::Keeping>,
    pub(super) app_socket: Option<plan::AppSocket>,
}

impl Own {
    /// What the Sidecar says about it. The membership is that of the plan before, so that connections live on.
    pub(crate) fn find(
        mesh: &Expanded,
        previous: Option<&Plan>,
        around: &Surroundings,
        report: &mut Report,
    ) -> Self {
        let (Some(doc), Some(domain)) = (&mesh.sidecar, &mesh.trust_domain) else { return Self::default() };
        let Spec::Sidecar(spec) = &doc.spec else { return Self::default() };
        let Some(written) = &spec.identity else {
            if !spec.inbound.is_empty() {
                let diag =
                    Diag::error(Rule::MissingField, doc.origin(spec.span), "field `identity` is missing")
                        .why("the workload serves others of the mesh, who want to know whom they talk to")
                        .fix("add `identity: {certificate: file:PATH, key: file:PATH, bundle: file:PATH}`");
                report.push(diag);
            }
            return Self::default();
        };
        let before = previous.and_then(|plan| plan.mesh.as_ref()?.membership.clone());
        let membership = before
            .filter(|before| before.trust_domain() == domain)
            .unwrap_or_else(|| Membership::new(domain.clone()));
        let mut this = Self::default();
        if let (Some(certificate), Some(key), Some(bundle)) =
            (&written.certificate, &written.key, &written.bundle)
        {
            let origin = format!("{}: identity", doc.id);
            let source = CertificateSource {
                chain: certificate.value.0.as_bytes().to_vec(),
                key: key.value.0.as_bytes().to_vec(),
                origin: origin.as_str().into(),
            };
            let own = Svid::parse(&source).map_err(|error| (certificate.span, error));
            let bundle =
                Bundle::parse(bundle.value.as_bytes(), domain, &origin).map_err(|error| (bundle.span, error));
            let both = own.and_then(|own| {
                let bundle = bundle?;
                let now = u64::try_from(around.unix_seconds).unwrap_or(0);
                // A trial: what peers would not take is told now, not when it is in force.
                let trial = Membership::new(domain.clone());
                trial.swap(own.clone(), bundle.clone(), now).map_err(|error| (certificate.span, error))?;
                Ok((own, bundle))
            });
            match both {
                Ok(both) => this.identity = Some(Box::new(both)),
                Err((span, error)) => {
                    let what = format!("this identity cannot be used: {error}");
                    report.push(Diag::error(Rule::Certificate, doc.origin(span), what));
                    return this;
                }
            }
        }
        this.keeping = keeping(doc, spec, written);
        this.app_socket = written.serve.as_ref().map(|serve| plan::AppSocket {
            path: serve.socket.value.clone(),
            users: serve.users.iter().filter_map(|user| u32::try_from(user.get()).ok()).collect(),
        });
        match ServerTls::member(&membership, MeshClient::Required, vec![b"h2".to_vec()]) {
            Ok(server) => this.server = Some(server),
            Err(error) => {
                let what = format!("nobody can be served: {error}");
                report.push(Diag::error(Rule::Certificate, doc.origin(written.span), what));
            }
        }
        this.membership = Some(membership);
        this
    }
}

/// Who gives certificates out, where it is not the documents.
fn keeping(doc: &Doc, sidecar: &Sidecar, written: &SidecarIdentity) -> Option<plan::Keeping> {
    if let Some(api) = &written.workload_api {
        return Some(plan::Keeping::WorkloadApi { socket: api.socket.value.clone() });
    }
    let control = written.control.as_ref()?;
    let directory = control.state_directory.as_ref().map(|path| path.value.clone());
    let named = sidecar.workload.as_ref().and_then(|own| own.name.as_ref());
    let name = named.map_or_else(|| doc.id.name.to_string(), |name| name.value.to_string());
    Some(plan::Keeping::Issuer {
        addresses: control
            .addresses
            .iter()
            .map(|address| match address.host().contains(':') {
                true => format!("[{}]:{}", address.host(), address.port()).into(),
                false => format!("{}:{}", address.host(), address.port()).into(),
            })
            .collect(),
        token: control.token.as_ref().map(|token| token.value.0.clone()),
        service_account: control
            .service_account
            .as_ref()
            .map(|account| (account.token.value.clone(), account.bundle.value.clone())),
        directory: directory.unwrap_or_else(|| format!("/var/lib/rhumb/{}.{name}", doc.id.namespace).into()),
    })
}
