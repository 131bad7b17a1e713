//! BackendTLSPolicy: TLS towards backends, as Gateway API writes it.

use super::refs::{LocalCaRef, check_unique};
use crate::decode::{Decoder, List, Table, choice, object};
use crate::diag::Rule;
use crate::scalar::{Group, Hostname, KindName, Name, PreciseHostname};
use crate::span::Spanned;

object! {
    /// Encrypts what goes to some backends, and says whose certificate is taken.
    pub struct BackendTlsPolicy as "the spec of a BackendTLSPolicy" {
        /// The backends.
        "targetRefs" target_refs: List<BackendTlsTarget, 1, 16>,
        /// Whose certificate is taken.
        "validation" validation: Option<BackendTlsValidation>,
        /// None are known.
        "options" options: Table<Spanned<Box<str>>, 16>,
    }
    check BackendTlsPolicy::check;
}

impl BackendTlsPolicy {
    fn check(&self, cx: &mut Decoder<'_>) {
        if self.validation.is_none() && !self.broken {
            let diag = cx
                .error(Rule::MissingField, self.target_refs.span, "field `validation` is missing")
                .fix("add `validation: {hostname: NAME, wellKnownCACertificates: System}`");
            cx.push(diag);
        }
        for (key, _) in &self.options.entries {
            let diag = cx
                .error(Rule::NotSupported, key.span, format!("TLS option `{}` is not supported", key.value))
                .fix("remove it");
            cx.push(diag);
        }
        check_unique(
            &self.target_refs,
            "target",
            |t| {
                let section = t.section_name.as_ref().map(|name| name.as_str());
                ((t.kind.as_str(), t.name.as_str(), section), t.name.to_string(), t.name.span)
            },
            cx,
        );
    }
}

object! {
    /// A backend, in the namespace of the policy.
    pub struct BackendTlsTarget as "a targetRef" {
        /// Group of the backend: rhumb.dev for a Backend, empty for a Service.
        "group" group: Spanned<Group>,
        /// Backend or Service.
        "kind" kind: Spanned<KindName>,
        /// Name of the backend.
        "name" name: Spanned<Name>,
        /// Name of one port of a Service.
        "sectionName" section_name: Option<Spanned<Name>>,
    }
}

object! {
    /// Whose certificate is taken.
    pub struct BackendTlsValidation as "the validation of a BackendTLSPolicy" {
        /// ConfigMaps or Secrets with `ca.crt`. Either these or `wellKnownCACertificates`.
        "caCertificateRefs" ca_certificate_refs: List<LocalCaRef, 0, 8>,
        /// System: the CAs that the system trusts.
        "wellKnownCACertificates" well_known: Option<Spanned<WellKnownCa>>,
        /// The name that is asked for (SNI), and that must be in the certificate unless `subjectAltNames` are written.
        "hostname" hostname: Spanned<PreciseHostname>,
        /// Names of which one must be in the certificate.
        "subjectAltNames" subject_alt_names: List<SubjectAltName, 0, 5>,
    }
    check BackendTlsValidation::check;
}

impl BackendTlsValidation {
    fn check(&self, cx: &mut Decoder<'_>) {
        match (&self.well_known, self.ca_certificate_refs.first()) {
            (Some(well_known), Some(first)) => {
                let diag = cx
                    .error(
                        Rule::Conflict,
                        well_known.span,
                        "both `caCertificateRefs` and `wellKnownCACertificates`",
                    )
                    .fix("remove one of them")
                    .related(cx.origin(first.name.span), "caCertificateRefs");
                cx.push(diag);
            }
            (None, None) if !self.broken => {
                let diag = cx
                    .error(Rule::MissingField, self.hostname.span, "no CA certificates are named")
                    .fix("add `caCertificateRefs`, or `wellKnownCACertificates: System`");
                cx.push(diag);
            }
            _ => {}
        }
    }
}

choice! {
    /// Well-known sets of CAs.
    pub enum WellKnownCa as "set of CA certificates" {
        /// Those that the system trusts.
        System = "System",
    }
}

object! {
    /// A name in a certificate (RFC 5280 §4.2.1.6).
    pub struct SubjectAltName as "a subjectAltName" {
        /// Hostname or URI.
        "type" kind: Spanned<SubjectAltNameKind>,
        /// A DNS name.
        "hostname" hostname: Option<Spanned<Hostname>>,
        /// A URI, such as a SPIFFE ID.
        "uri" uri: Option<Spanned<Box<str>>>,
    }
    check SubjectAltName::check;
}

choice! {
    /// Which kind of name.
    pub enum SubjectAltNameKind as "type of a subjectAltName" {
        /// A DNS name.
        Hostname = "Hostname",
        /// A URI.
        Uri = "URI",
    }
}

impl SubjectAltName {
    fn check(&self, cx: &mut Decoder<'_>) {
        let (own, other) = match *self.kind {
            SubjectAltNameKind::Hostname => (self.hostname.is_some(), self.uri.as_ref().map(|uri| uri.span)),
            SubjectAltNameKind::Uri => (self.uri.is_some(), self.hostname.as_ref().map(|name| name.span)),
        };
        if let Some(span) = other {
            let diag = cx
                .error(Rule::Conflict, span, format!("this does not go with type `{}`", self.kind.word()))
                .fix("change `type`, or write the other field");
            cx.push(diag);
        } else if !own && !self.broken {
            let field = if *self.kind == SubjectAltNameKind::Uri { "uri" } else { "hostname" };
            let diag = cx
                .error(Rule::MissingField, self.kind.span, format!("field `{field}` is missing"))
                .fix(format!("add `{field}:`"));
            cx.push(diag);
        }
    }
}
