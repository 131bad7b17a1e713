//! TLS towards the endpoints of a Backend.

use foldhash::{HashMap, HashMapExt};
use std::hash::{DefaultHasher, Hash, Hasher};

use rhumb_balance::EndpointSpec;
use rhumb_model::kind::backend::{
    Backend, BackendProtocol, BackendTls, CaSource, CertificateSource, TlsVersion,
};
use rhumb_model::kind::backend_tls::{BackendTlsPolicy, SubjectAltNameKind};
use rhumb_model::kind::refs::RHUMB_GROUP;
use rhumb_model::{Diag, Doc, Rule, Span};
use rhumb_tls::{self as tls, Certificate, ClientSpec, ClientTls, Roots, SubjectName, Verify, Version};

use super::names::DnsName;
use super::{Backends, Identity};
use crate::certificate::{self, Written, WrittenRoots, ca_of, of_secret};
use crate::collect::{Docs, Entry, Key, key};
use crate::report::Report;
use crate::trace::Ask;

impl<'a> Backends<'a> {
    /// Settings of TLS: `Some(None)` is plain text, nothing a mistake that was told.
    pub(super) fn tls(
        &mut self,
        entry: Entry<'a, Backend>,
        identity: Option<&Identity>,
        speaks_http: bool,
        (fixed, names): (&[EndpointSpec], &[DnsName]),
        report: &mut Report,
    ) -> Option<Option<TlsSettings<'a>>> {
        let Entry { doc, spec } = entry;
        self.docs.trace.note(Ask::BackendTls, "", key(doc));
        let policy = self.policies.get(&key(doc)).copied();
        let mut settings = match (&spec.tls, policy) {
            (None, None) => return Some(None),
            (Some(own), Some(policy)) => {
                let diag = Diag::error(
                    Rule::Conflict,
                    policy.doc.origin(policy.doc.span),
                    format!("Backend `{}` has TLS settings of its own", doc.name()),
                )
                .why("it is not clear which ones are meant")
                .fix("remove `tls` of the Backend, or the BackendTLSPolicy")
                .related(doc.origin(own.span), "the Backend's");
                report.push(diag);
                return None;
            }
            (Some(own), None) => self.own_tls(doc, own, (fixed, names), report)?,
            (None, Some(policy)) => {
                if *spec.protocol == BackendProtocol::H2c {
                    let diag = Diag::error(
                        Rule::Conflict,
                        policy.doc.origin(policy.doc.span),
                        format!("Backend `{}` speaks `h2c`, which is not encrypted", doc.name()),
                    )
                    .fix("write `protocol: h2` in the Backend")
                    .related(doc.origin(spec.protocol.span), "its protocol");
                    report.push(diag);
                    return None;
                }
                self.policy_tls(policy, report)?
            }
        };
        if settings.identity.is_none() {
            settings.gateway_identity = identity.map(|identity| identity.certificate.clone());
        }
        settings.alpn = match *spec.protocol {
            _ if !speaks_http => b"",
            BackendProtocol::Http1 => b"http/1.1",
            BackendProtocol::H2c | BackendProtocol::H2 => b"h2",
        };
        settings.digest = settings.digest(identity.map(|identity| identity.digest));
        Some(Some(settings))
    }

    /// `tls` of a Backend.
    pub(super) fn own_tls(
        &mut self,
        doc: &'a Doc,
        written: &'a BackendTls,
        endpoints: (&[EndpointSpec], &[DnsName]),
        report: &mut Report,
    ) -> Option<TlsSettings<'a>> {
        if written.broken {
            return None;
        }
        let mut settings = TlsSettings::new(doc, written.span);
        settings.insecure = written.insecure_skip_verify.as_ref().is_some_and(|skip| skip.value);
        if let Some(skip) = written.insecure_skip_verify.as_ref().filter(|skip| skip.value) {
            let diag =
                Diag::warning(Rule::Certificate, doc.origin(skip.span), "certificates are not verified")
                    .why("whoever is on the way can read and change everything")
                    .fix("name the CA that signs them in `ca`");
            report.push(diag);
        }
        settings.roots = match &written.ca {
            None => None,
            Some(ca) => Some(match &ca.value {
                CaSource::Pem(pem) => {
                    let origin = format!("{}: ca", doc.id);
                    WrittenRoots::new(pem.as_bytes().to_vec(), origin, doc.origin(ca.span))
                }
                CaSource::Object(object) => {
                    let name = (doc.namespace(), object.name.as_str());
                    let at = doc.origin(object.name.span);
                    if !matches!((object.group.as_str(), object.kind.as_str()), ("", "ConfigMap" | "Secret"))
                    {
                        let what = format!("a {} cannot hold CA certificates", object.kind);
                        let diag = Diag::error(Rule::NotSupported, doc.origin(object.kind.span), what);
                        report.push(diag.why("they come from a ConfigMap or Secret of the core group"));
                        return None;
                    }
                    ca_of(self.docs, object.kind.as_str(), name, at, report)?
                }
            }),
        };
        settings.identity = match &written.client_certificate {
            None => None,
            Some(certificate) => Some(match &certificate.value {
                CertificateSource::Pem(pair) => {
                    let source = tls::CertificateSource {
                        chain: pair.cert.value.0.as_bytes().to_vec(),
                        key: pair.key.value.0.as_bytes().to_vec(),
                        origin: format!("{}: clientCertificate", doc.id).into(),
                    };
                    Written::new(source, doc.origin(certificate.span), doc)
                }
                CertificateSource::Object(object) => {
                    let at = doc.origin(object.name.span);
                    if (object.group.as_str(), object.kind.as_str()) != ("", "Secret") {
                        let what = format!("a {} cannot hold a certificate with its key", object.kind);
                        let diag = Diag::error(Rule::NotSupported, doc.origin(object.kind.span), what);
                        report.push(diag.why("they come from a Secret of the core group"));
                        return None;
                    }
                    of_secret(self.docs, (doc.namespace(), object.name.as_str()), at, report)?
                }
            }),
        };
        settings.min_version = match written.min_version.as_ref().map(|version| version.value) {
            Some(TlsVersion::Tls13) => Version::Tls13,
            Some(TlsVersion::Tls12) | None => Version::Tls12,
        };
        settings.subject_names = written
            .subject_alt_names
            .iter()
            .map(|name| match name.contains("://") {
                true => SubjectName::Uri(name.value.to_string()),
                false => SubjectName::Dns(name.value.to_string()),
            })
            .collect();
        settings.server_name = match &written.server_name {
            Some(name) => Some(name.as_str().to_owned()),
            None => one_name(doc, written.span, endpoints, report)?,
        };
        Some(settings)
    }

    /// TLS as a BackendTLSPolicy asks for it.
    pub(super) fn policy_tls(
        &mut self,
        policy: Entry<'a, BackendTlsPolicy>,
        report: &mut Report,
    ) -> Option<TlsSettings<'a>> {
        let Entry { doc, spec } = policy;
        let validation = spec.validation.as_ref().filter(|v| !v.broken && !doc.broken)?;
        let mut settings = TlsSettings::new(doc, validation.span);
        for reference in &validation.ca_certificate_refs {
            let name = (doc.namespace(), reference.name.as_str());
            let at = doc.origin(reference.name.span);
            let more = ca_of(self.docs, reference.kind.as_str(), name, at, report)?;
            match &mut settings.roots {
                None => settings.roots = Some(more),
                Some(roots) => {
                    roots.pem.push(b'\n');
                    roots.pem.extend_from_slice(&more.pem);
                }
            }
        }
        settings.server_name = Some(validation.hostname.as_str().to_owned());
        let names = validation.subject_alt_names.iter();
        settings.subject_names = names
            .filter_map(|name| match *name.kind {
                SubjectAltNameKind::Hostname => {
                    name.hostname.as_ref().map(|hostname| SubjectName::Dns(hostname.as_str().to_owned()))
                }
                SubjectAltNameKind::Uri => {
                    name.uri.as_ref().map(|uri| SubjectName::Uri(uri.value.to_string()))
                }
            })
            .collect();
        Some(settings)
    }

    pub(super) fn client_tls(
        &mut self,
        doc: &Doc,
        settings: TlsSettings<'a>,
        report: &mut Report,
    ) -> Option<ClientTls> {
        let verify = match &settings.roots {
            _ if settings.insecure => Verify::Insecure,
            Some(roots) => Verify::Full(roots.parse(report)?),
            None => Verify::Full(self.system_roots(&settings, report)?),
        };
        let mut spec = ClientSpec::new(verify, &doc.id.to_string());
        spec.identity = match &settings.identity {
            Some(written) => Some(written.parse(report)?),
            None => settings.gateway_identity,
        };
        spec.server_name = settings.server_name;
        spec.subject_names = settings.subject_names;
        spec.min_version = settings.min_version;
        spec.alpn =
            Some(settings.alpn).filter(|alpn| !alpn.is_empty()).map(<[u8]>::to_vec).into_iter().collect();
        let at = settings.doc.origin(settings.span);
        ClientTls::build(spec).map_err(|error| report.push(certificate::mistake(&error, at, false))).ok()
    }

    pub(super) fn system_roots(&mut self, settings: &TlsSettings<'_>, report: &mut Report) -> Option<Roots> {
        match self.system_roots.get_or_insert_with(Roots::system) {
            Ok(roots) => Some(roots.clone()),
            Err(error) => {
                // Those of the machine may be there the next time.
                self.docs.trace.note_volatile();
                report.push(certificate::mistake(error, settings.doc.origin(settings.span), false));
                None
            }
        }
    }
}

/// TLS towards a backend, not compiled.
pub(super) struct TlsSettings<'a> {
    /// Where the settings are written.
    doc: &'a Doc,
    span: Span,
    roots: Option<WrittenRoots>,
    insecure: bool,
    identity: Option<Written<'a>>,
    gateway_identity: Option<Certificate>,
    server_name: Option<String>,
    subject_names: Vec<SubjectName>,
    min_version: Version,
    alpn: &'static [u8],
    pub(super) digest: u64,
}

impl<'a> TlsSettings<'a> {
    fn new(doc: &'a Doc, span: Span) -> Self {
        Self {
            doc,
            span,
            roots: None,
            insecure: false,
            identity: None,
            gateway_identity: None,
            server_name: None,
            subject_names: Vec::new(),
            min_version: Version::Tls12,
            alpn: b"",
            digest: 0,
        }
    }

    /// A hash of everything that connections depend on.
    fn digest(&self, gateway_identity: Option<u64>) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.roots.as_ref().map(|roots| &roots.pem).hash(&mut hasher);
        self.identity.as_ref().map(|own| (&own.source.chain, &own.source.key)).hash(&mut hasher);
        self.gateway_identity.as_ref().and(gateway_identity).hash(&mut hasher);
        (self.insecure, &self.server_name, self.min_version, self.alpn).hash(&mut hasher);
        for name in &self.subject_names {
            match name {
                SubjectName::Dns(name) => (0, name).hash(&mut hasher),
                SubjectName::Uri(name) => (1, name).hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}

/// The one name of a backend's endpoints: `Some(None)` when all are addresses, nothing when there are several.
fn one_name(
    doc: &Doc,
    span: Span,
    (fixed, names): (&[EndpointSpec], &[DnsName]),
    report: &mut Report,
) -> Option<Option<String>> {
    let mut distinct = names.iter().map(|name| &name.name);
    let Some(first) = distinct.next() else { return Some(None) };
    if distinct.all(|name| name == first) && fixed.is_empty() {
        return Some(Some(first.to_string()));
    }
    let diag = Diag::error(Rule::MissingField, doc.origin(span), "field `serverName` is missing")
        .label("its endpoints have not one name")
        .why("all endpoints of a backend are asked for one name and must have it in their certificates")
        .fix("add `serverName: NAME`, or make a Backend of each name");
    report.push(diag);
    None
}

/// Which BackendTLSPolicy holds for which Backend.
pub(super) fn tls_policies<'a>(
    docs: &Docs<'a>,
    report: &mut Report,
) -> HashMap<Key<'a>, Entry<'a, BackendTlsPolicy>> {
    let mut policies: HashMap<Key<'a>, Entry<'a, BackendTlsPolicy>> = HashMap::new();
    for entry in &docs.backend_tls.all {
        for target in entry.spec.target_refs.iter().filter(|target| !target.broken) {
            let wanted = (entry.doc.namespace(), target.name.as_str());
            if (target.group.as_str(), target.kind.as_str()) != (RHUMB_GROUP, "Backend") {
                let what = format!("no {} `{}` in namespace `{}`", target.kind, wanted.1, wanted.0);
                let diag = Diag::error(Rule::UnknownReference, entry.doc.origin(target.kind.span), what)
                    .why("outside of Kubernetes there are only Backends of group rhumb.dev")
                    .fix("write `group: rhumb.dev` and `kind: Backend`");
                report.push(diag);
                continue;
            }
            if docs.backends.get(wanted).is_none() {
                if !docs.is_unreadable("Backend", wanted) {
                    let what = format!("no Backend `{}` in namespace `{}`", wanted.1, wanted.0);
                    let names: Vec<&str> = docs.backends.names(wanted.0).collect();
                    let at = entry.doc.origin(target.name.span);
                    let diag = report.unknown(at, what, wanted.1, names.into_iter());
                    report.push(diag);
                }
                continue;
            }
            if let Some(first) = policies.get(&wanted) {
                let what = "this BackendTLSPolicy has no effect";
                let diag = Diag::warning(Rule::NoEffect, entry.doc.origin(target.name.span), what)
                    .why(format!("{} holds for the same Backend, and comes first", first.doc.id))
                    .fix("remove one of them")
                    .related(first.doc.origin(first.doc.span), "this one holds");
                report.push(diag);
                continue;
            }
            policies.insert(wanted, *entry);
        }
    }
    policies
}
