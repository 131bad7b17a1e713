//! Certificates, keys and CA certificates from Secrets and ConfigMaps, and the TLS servers made of them.

use std::hash::{DefaultHasher, Hash, Hasher};

use rhumb_base::name::ListenerName;
use rhumb_model::kind::gateway::{FrontendValidation, FrontendValidationMode, Gateway, Listener, Protocol};
use rhumb_model::kind::refs::{CaRef, GATEWAY_GROUP, SecretRef};
use rhumb_model::kind::secret::{CA_CERTIFICATE, TLS_CERTIFICATE, TLS_KEY};
use rhumb_model::{Diag, Doc, Origin, Rule};
use rhumb_plan::Plan;
use rhumb_route::Host;
use rhumb_tls::{
    Certificate, CertificateInfo, CertificateSource, ClientAuth, Error, Roots, ServerSpec, ServerTls, Version,
};

use crate::collect::{Docs, Key, namespace_or};
use crate::grant::{self, Grants};
use crate::report::Report;

/// A certificate and its key as they are written, not parsed.
pub(crate) struct Written<'a> {
    pub(crate) source: CertificateSource,
    /// Where mistakes in it are shown.
    at: Origin,
    doc: &'a Doc,
}

/// CA certificates as they are written, not parsed.
pub(crate) struct WrittenRoots {
    pub(crate) pem: Vec<u8>,
    pub(crate) origin: String,
    at: Origin,
}

impl WrittenRoots {
    pub(crate) fn parse(&self, report: &mut Report) -> Option<Roots> {
        Roots::parse(&self.pem, &self.origin)
            .map_err(|error| report.push(mistake(&error, self.at.clone(), false)))
            .ok()
    }

    pub(crate) fn new(pem: Vec<u8>, origin: String, at: Origin) -> Self {
        Self { pem, origin, at }
    }
}

impl<'a> Written<'a> {
    pub(crate) fn parse(&self, report: &mut Report) -> Option<Certificate> {
        Certificate::parse(&self.source)
            .map_err(|error| report.push(mistake(&error, self.at.clone(), true)))
            .ok()
    }

    pub(crate) fn new(source: CertificateSource, at: Origin, doc: &'a Doc) -> Self {
        Self { source, at, doc }
    }
}

/// The certificate of a Secret that `from` refers to; nothing when it cannot be had, which is said.
pub(crate) fn of_secret<'a>(
    docs: &Docs<'a>,
    secret: Key<'_>,
    at: Origin,
    report: &mut Report,
) -> Option<Written<'a>> {
    let Some(entry) = docs.secrets.get(secret) else {
        if !docs.is_unreadable("Secret", secret) {
            report_unknown(docs, "Secret", secret, at, report);
        }
        return None;
    };
    let part = |name: &str| entry.spec.get(name).map(|value| (value.value, value.span));
    let (Some((chain, span)), Some((key, _))) = (part(TLS_CERTIFICATE), part(TLS_KEY)) else {
        // Of a Secret of type kubernetes.io/tls that was said where it is written.
        if !entry.doc.broken {
            let what = format!("Secret `{}` has no certificate", entry.doc.name());
            let diag = Diag::error(Rule::Certificate, at, what)
                .why(format!("it needs `{TLS_CERTIFICATE}` and `{TLS_KEY}`"))
                .related(entry.doc.origin(entry.doc.span), "the Secret");
            report.push(diag);
        }
        return None;
    };
    let origin = entry.doc.id.to_string().into();
    let source = CertificateSource { chain: chain.to_vec(), key: key.to_vec(), origin };
    Some(Written { source, at: entry.doc.origin(span), doc: entry.doc })
}

/// The `ca.crt` of a ConfigMap or Secret; nothing when it cannot be had, which is said.
pub(crate) fn ca_of(
    docs: &Docs<'_>,
    kind: &str,
    object: Key<'_>,
    at: Origin,
    report: &mut Report,
) -> Option<WrittenRoots> {
    let (doc, value) = match kind {
        "ConfigMap" => {
            let entry = docs.config_maps.get(object);
            (entry.map(|entry| entry.doc), entry.and_then(|entry| entry.spec.get(CA_CERTIFICATE)))
        }
        "Secret" => {
            let entry = docs.secrets.get(object);
            (entry.map(|entry| entry.doc), entry.and_then(|entry| entry.spec.get(CA_CERTIFICATE)))
        }
        _ => return None,
    };
    match (doc, value) {
        (Some(doc), Some(value)) => Some(WrittenRoots {
            pem: value.value.to_vec(),
            origin: doc.id.to_string(),
            at: doc.origin(value.span),
        }),
        (Some(doc), None) => {
            if !doc.broken {
                let diag = Diag::error(
                    Rule::Certificate,
                    at,
                    format!("{kind} `{}` has no `{CA_CERTIFICATE}`", doc.name()),
                )
                .fix(format!("add `data: {{{CA_CERTIFICATE}: file:PATH}}`"))
                .related(doc.origin(doc.span), format!("the {kind}"));
                report.push(diag);
            }
            None
        }
        (None, _) => {
            if !docs.is_unreadable(kind, object) {
                report_unknown(docs, kind, object, at, report);
            }
            None
        }
    }
}

fn report_unknown(docs: &Docs<'_>, kind: &str, object: Key<'_>, at: Origin, report: &mut Report) {
    let names: Vec<&str> = match kind {
        "Secret" => docs.secrets.names(object.0).collect(),
        _ => docs.config_maps.names(object.0).collect(),
    };
    let what = format!("no {kind} `{}` in namespace `{}`", object.1, object.0);
    let diag = report.unknown(at, what, object.1, names.into_iter());
    report.push(diag);
}

/// A mistake in certificates or keys.
pub(crate) fn mistake(error: &Error, at: Origin, secret: bool) -> Diag {
    let mut diag = Diag::error(Rule::Certificate, at, error.to_string());
    diag.fix = error.problem.fix().map(ToOwned::to_owned);
    // The snippet would be PEM.
    diag.secret = secret;
    diag
}

/// Makes the TLS servers of listeners.
pub(crate) struct Servers<'a> {
    docs: &'a Docs<'a>,
    grants: &'a Grants<'a>,
    previous: Option<&'a Plan>,
    unix_seconds: i64,
}

impl<'a> Servers<'a> {
    pub(crate) fn new(
        docs: &'a Docs<'a>,
        grants: &'a Grants<'a>,
        previous: Option<&'a Plan>,
        unix_seconds: i64,
    ) -> Self {
        Self { docs, grants, previous, unix_seconds }
    }

    /// The TLS server of an HTTPS listener, with the hash of what it is made of; nothing when something about it is
    /// wrong, which is said: a listener must not do with less than it asks for.
    pub(crate) fn server(
        &self,
        doc: &'a Doc,
        gateway: &'a Gateway,
        listener: &'a Listener,
        name: &ListenerName,
        host: &Host,
        report: &mut Report,
    ) -> Option<(u64, ServerTls)> {
        let tls = listener.tls.as_ref().filter(|tls| !tls.broken)?;
        let frontend = gateway.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
        let validation = frontend.and_then(|f| f.of_port(listener.port.number()).validation.as_ref());
        let written: Vec<_> =
            tls.certificate_refs.iter().map(|reference| self.certificate(doc, reference, report)).collect();
        let roots = match validation {
            Some(validation) => Some((self.client_roots(doc, validation, report)?, *validation.mode)),
            None => None,
        };
        let written: Vec<_> = written.into_iter().collect::<Option<_>>()?;
        let min_version = if tls.needs_tls13() { Version::Tls13 } else { Version::Tls12 };

        let mut hasher = DefaultHasher::new();
        (min_version, roots.is_some(), *listener.protocol == Protocol::Https).hash(&mut hasher);
        for certificate in &written {
            (&certificate.source.chain, &certificate.source.key).hash(&mut hasher);
        }
        if let Some((roots, mode)) = &roots {
            (&roots.pem, *mode == FrontendValidationMode::AllowValidOnly).hash(&mut hasher);
        }
        let digest = hasher.finish();
        let server = match self.previous(name) {
            Some((before, server)) if *before == digest => server.clone(),
            before => {
                let certificates: Vec<_> = written.iter().map(|written| written.parse(report)).collect();
                let client_auth = match &roots {
                    None => ClientAuth::Off,
                    Some((roots, FrontendValidationMode::AllowValidOnly)) => {
                        ClientAuth::Required(roots.parse(report)?)
                    }
                    Some((roots, FrontendValidationMode::AllowInsecureFallback)) => {
                        ClientAuth::Optional(roots.parse(report)?)
                    }
                };
                let mut spec =
                    ServerSpec::new(certificates.into_iter().collect::<Option<_>>()?, name.as_str());
                spec.client_auth = client_auth;
                spec.min_version = min_version;
                // What is spoken over TLS of an L4 listener is between client and backend.
                if *listener.protocol == Protocol::Https {
                    spec.alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                }
                // Keeps the keys of session tickets: clients go on resuming.
                let made = match before {
                    Some((_, before)) => ServerTls::rebuild(spec, before),
                    None => ServerTls::build(spec),
                };
                made.map_err(|error| report.push(mistake(&error, doc.origin(tls.span), false))).ok()?
            }
        };
        self.warn(doc, listener, host, &written, &server.certificates(), report);
        Some((digest, server))
    }

    fn previous(&self, name: &ListenerName) -> Option<&'a (u64, ServerTls)> {
        let ports = self.previous?.ports.iter();
        let mut listeners = ports.flat_map(|port| port.listeners.iter());
        listeners.find(|listener| listener.name == *name && listener.tls.is_some())?.tls.as_ref()
    }

    fn certificate(
        &self,
        doc: &'a Doc,
        reference: &'a SecretRef,
        report: &mut Report,
    ) -> Option<Written<'a>> {
        if reference.broken {
            return None;
        }
        let name = reference.name.as_str();
        let namespace = namespace_or(reference.namespace.as_ref(), doc);
        let (from, to) = ((GATEWAY_GROUP, "Gateway", doc.namespace()), ("", "Secret", name));
        if !self.grants.allow(from, to, namespace) {
            report.push(grant::refused(doc.origin(reference.name.span), from, to, namespace));
            return None;
        }
        of_secret(self.docs, (namespace, name), doc.origin(reference.name.span), report)
    }

    /// The CAs that sign certificates of clients, of all references together.
    fn client_roots(
        &self,
        doc: &'a Doc,
        validation: &'a FrontendValidation,
        report: &mut Report,
    ) -> Option<WrittenRoots> {
        let refs: Vec<_> =
            validation.ca_certificate_refs.iter().map(|reference| self.ca(doc, reference, report)).collect();
        // The short form calls the same thing `optional`, which needs no explanation.
        if *validation.mode == FrontendValidationMode::AllowInsecureFallback
            && doc.source.slice(validation.mode.span).contains(validation.mode.word())
        {
            let what = "clients with a certificate that does not verify are refused all the same";
            let diag = Diag::warning(Rule::NotSupported, doc.origin(validation.mode.span), what)
                .why("`AllowInsecureFallback` lets in clients without a certificate; to let in those with an invalid one is not supported");
            report.push(diag);
        }
        let mut refs = refs.into_iter().collect::<Option<Vec<_>>>()?.into_iter();
        let mut all = refs.next().filter(|_| !validation.broken)?;
        for more in refs {
            all.pem.push(b'\n');
            all.pem.extend_from_slice(&more.pem);
        }
        Some(all)
    }

    fn ca(&self, doc: &'a Doc, reference: &'a CaRef, report: &mut Report) -> Option<WrittenRoots> {
        if reference.broken {
            return None;
        }
        let (kind, name) = (reference.kind.as_str(), reference.name.as_str());
        let namespace = namespace_or(reference.namespace.as_ref(), doc);
        let (from, to) = ((GATEWAY_GROUP, "Gateway", doc.namespace()), ("", kind, name));
        if !self.grants.allow(from, to, namespace) {
            report.push(grant::refused(doc.origin(reference.name.span), from, to, namespace));
            return None;
        }
        ca_of(self.docs, kind, (namespace, name), doc.origin(reference.name.span), report)
    }

    /// Tells what is served but will not please clients.
    fn warn(
        &self,
        doc: &Doc,
        listener: &Listener,
        host: &Host,
        written: &[Written<'_>],
        infos: &[CertificateInfo],
        report: &mut Report,
    ) {
        for (written, info) in written.iter().zip(infos) {
            let what = if info.not_after_unix < self.unix_seconds {
                format!("the certificate expired on {}", date(info.not_after_unix))
            } else if info.not_before_unix > self.unix_seconds {
                format!("the certificate is not valid before {}", date(info.not_before_unix))
            } else {
                continue;
            };
            let mut diag = Diag::warning(Rule::Certificate, written.at.clone(), what)
                .why("clients will refuse it")
                .related(written.doc.origin(written.doc.span), written.doc.id.to_string());
            diag.secret = true;
            report.push(diag);
        }
        if *host != Host::Any && !infos.iter().any(|info| info.names.iter().any(|name| covers(name, host))) {
            let span = listener.hostname.as_ref().map_or(listener.name.span, |hostname| hostname.span);
            let mut names: Vec<&str> =
                infos.iter().flat_map(|info| &info.names).map(String::as_str).collect();
            names.truncate(8);
            let why =
                if names.is_empty() { "nothing".to_owned() } else { format!("`{}`", names.join("`, `")) };
            let diag =
                Diag::warning(Rule::Certificate, doc.origin(span), format!("no certificate is for `{host}`"))
                    .why(format!("clients will refuse those of the listener: they are for {why}"));
            report.push(diag);
        }
    }
}

/// True when a name of a certificate stands for every name that `host` means (RFC 9525 §6.3: a wildcard is one label).
fn covers(name: &str, host: &Host) -> bool {
    match host {
        Host::Any => true,
        Host::Wildcard(domain) => name.strip_prefix("*.") == Some(domain),
        Host::Exact(host) => {
            name == &**host
                || name.strip_prefix("*.").is_some_and(|domain| {
                    host.split_once('.').is_some_and(|(label, parent)| !label.is_empty() && parent == domain)
                })
        }
    }
}

/// `2024-05-01` of seconds since 1970 (Howard Hinnant's civil from days).
fn date(unix_seconds: i64) -> String {
    let days = unix_seconds.div_euclid(86_400) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_iso_8601() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_827_696, "2000-02-29"),
            (1_714_521_600, "2024-05-01"),
            (-1, "1969-12-31"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }

    #[test]
    fn a_wildcard_of_a_certificate_stands_for_one_label() {
        for (name, host, expected) in [
            ("a.test", "a.test", true),
            ("*.a.test", "x.a.test", true),
            ("*.a.test", "x.y.a.test", false),
            ("*.a.test", "a.test", false),
            ("*.a.test", "*.a.test", true),
            ("x.a.test", "*.a.test", false),
            ("b.test", "a.test", false),
        ] {
            assert_eq!(covers(name, &Host::parse(host).unwrap()), expected, "{name} {host}");
        }
    }
}
