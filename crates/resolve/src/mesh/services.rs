//! Services and their ports by name, and the Workloads that serve them.

use rhumb_model::kind::service::{Service, ServicePort, TargetPort, Workload};
use rhumb_model::{Diag, Doc, Rule, Spanned};

use super::{Maker, PortKey};
use crate::collect::Entry;

impl<'d> Maker<'d> {
    /// The Service that is named; when there is none that is told.
    pub(super) fn service(
        &mut self,
        doc: &Doc,
        span: &rhumb_model::Span,
        name: (&str, &str),
    ) -> Option<Entry<'d, Service>> {
        if let Some(service) = self.services.get(&name) {
            return Some(*service);
        }
        let what = format!("no Service `{}` in namespace `{}`", name.1, name.0);
        let mut diag = Diag::error(Rule::UnknownReference, doc.origin(*span), what);
        let mut names: Vec<&str> = self
            .services
            .keys()
            .filter(|(namespace, _)| *namespace == name.0)
            .map(|(_, name)| *name)
            .collect();
        names.sort_unstable();
        diag = match rhumb_model::decode::nearest(name.1, names.into_iter()) {
            Some(near) => diag.fix(format!("did you mean `{near}`?")),
            None => diag.fix("add a Service with its ports"),
        };
        self.out.diags.push(diag);
        None
    }

    /// The port that is written, or the only one.
    pub(super) fn one_port(
        &mut self,
        doc: &Doc,
        span: rhumb_model::Span,
        service: Entry<'d, Service>,
        written: Option<&Spanned<rhumb_model::scalar::Port>>,
    ) -> Option<u16> {
        let ports: Vec<u16> = service.spec.ports.iter().map(|port| port.port.number()).collect();
        let listed = || ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let diag = match (written, &*ports) {
            (Some(port), _) if ports.contains(&port.number()) => return Some(port.number()),
            (None, [only]) => return Some(*only),
            (Some(port), _) => {
                let what = format!("Service `{}` has no port {}", service.doc.name(), port.number());
                Diag::error(Rule::UnknownReference, doc.origin(port.span), what)
                    .why(format!("its ports: {}", listed()))
            }
            (None, _) => {
                let what = format!("Service `{}` has several ports", service.doc.name());
                Diag::error(Rule::MissingField, doc.origin(span), what)
                    .why(format!("its ports: {}", listed()))
                    .fix("add `port:`")
            }
        };
        self.out.diags.push(diag.related(service.doc.origin(service.doc.span), "the Service"));
        None
    }

    pub(super) fn port(&self, name: &PortKey) -> Option<(Entry<'d, Service>, &'d ServicePort)> {
        let service = *self.services.get(&(&*name.0, &*name.1))?;
        let port = service.spec.ports.iter().find(|port| port.port.number() == name.2)?;
        Some((service, port))
    }

    /// The name that proxies are asked for.
    pub(super) fn server_name(&self, name: &PortKey) -> String {
        format!("{}.{}.{}.svc.{}", name.2, name.1, name.0, self.trust_domain)
    }

    /// The Workloads that serve a Service.
    pub(super) fn workloads_of(&self, service: Entry<'d, Service>) -> Vec<Entry<'d, Workload>> {
        let all = self.workloads.get(service.doc.namespace()).into_iter().flatten();
        let selector = &service.spec.selector.entries;
        let serves = |workload: &&Entry<'d, Workload>| {
            workload.spec.services.iter().any(|name| name.as_str() == service.doc.name())
                || !selector.is_empty()
                    && selector.iter().all(|(key, value)| workload.doc.label(key) == Some(value))
        };
        all.filter(serves).copied().collect()
    }
}

/// Where a Workload listens for a port of a Service.
pub(super) fn target(port: &ServicePort, workload: &Workload) -> Option<u16> {
    match port.target_port.as_deref() {
        None => Some(port.port.number()),
        Some(TargetPort::Number(number)) => Some(number.number()),
        Some(TargetPort::Name(name)) => workload.ports.get(name.as_str()).map(|port| port.number()),
    }
}
