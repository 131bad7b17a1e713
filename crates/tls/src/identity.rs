//! Who the peer is: the facts of its certificate, for logs and policies.

use std::net::IpAddr;

use aws_lc_rs::digest;

use crate::der::{Facts, GeneralName, distinguished_name, push_hex};

/// The facts of a certificate. Parsed only where somebody asks ([`TlsStream::peer`]).
///
/// Being parsed says nothing about trust: whether the certificate was verified is a matter of the
/// [`ClientAuth`] or [`Verify`] setting under which the connection was made.
///
/// [`TlsStream::peer`]: crate::TlsStream::peer
/// [`ClientAuth`]: crate::ClientAuth
/// [`Verify`]: crate::Verify
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The subject, as RFC 4514 writes it, last part first: `CN=api,O=Example`. May be empty.
    pub subject: String,
    /// Serial number in lower-case hexadecimal.
    pub serial: String,
    /// dNSName entries of the subject alternative name, as they stand.
    pub dns_names: Vec<String>,
    /// URI entries of the subject alternative name.
    pub uris: Vec<String>,
    /// rfc822Name entries of the subject alternative name.
    pub emails: Vec<String>,
    /// iPAddress entries of the subject alternative name.
    pub addresses: Vec<IpAddr>,
    /// SHA-256 of the certificate's DER.
    pub fingerprint: [u8; 32],
    /// Start of validity. Unit: seconds since 1970.
    pub not_before_unix: i64,
    /// End of validity. Unit: seconds since 1970.
    pub not_after_unix: i64,
}

impl Peer {
    /// Reads a certificate's DER; `None` where it is no X.509 certificate.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let facts = Facts::parse(der)?;
        let mut serial = String::new();
        // DER puts a zero byte before a number whose top bit is set.
        push_hex(&mut serial, facts.serial.strip_prefix(&[0]).unwrap_or(facts.serial));
        let mut peer = Self {
            subject: distinguished_name(facts.subject),
            serial,
            dns_names: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
            addresses: Vec::new(),
            fingerprint: sha256(der),
            not_before_unix: facts.not_before,
            not_after_unix: facts.not_after,
        };
        for name in facts.names() {
            match name {
                GeneralName::Dns(name) => peer.dns_names.push(name.to_owned()),
                GeneralName::Uri(uri) => peer.uris.push(uri.to_owned()),
                GeneralName::Email(email) => peer.emails.push(email.to_owned()),
                GeneralName::Ip(ip) => peer.addresses.push(ip),
            }
        }
        Some(peer)
    }

    /// The SPIFFE ID. An X.509-SVID has exactly one URI, so a certificate with several has none
    /// (SPIFFE X509-SVID §2).
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&str> {
        match self.uris.as_slice() {
            [uri] if uri.starts_with("spiffe://") => Some(uri),
            _ => None,
        }
    }

    /// The fingerprint in lower-case hexadecimal.
    #[must_use]
    pub fn fingerprint_hex(&self) -> String {
        let mut out = String::with_capacity(64);
        push_hex(&mut out, &self.fingerprint);
        out
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let hash = digest::digest(&digest::SHA256, bytes);
    for (to, from) in out.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber, date_time_ymd};

    #[test]
    fn facts_of_a_client_certificate_are_read() {
        let mut params = CertificateParams::new(["api.test".into(), "*.api.test".into()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://example.org/ns/a/sa/b".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress("10.1.2.3".parse().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress("2001:db8::1".parse().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("ops@example.org".try_into().unwrap()));
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc");
        params.distinguished_name.push(DnType::CommonName, "api");
        params.serial_number = Some(SerialNumber::from(vec![0x80, 0x01]));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2060, 1, 1);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();

        let peer = Peer::parse(&der).unwrap();
        assert_eq!(peer.subject, "O=Example\\, Inc,CN=api");
        assert_eq!(peer.serial, "8001");
        assert_eq!(peer.dns_names, ["api.test", "*.api.test"]);
        assert_eq!(peer.uris, ["spiffe://example.org/ns/a/sa/b"]);
        assert_eq!(peer.spiffe_id(), Some("spiffe://example.org/ns/a/sa/b"));
        assert_eq!(peer.emails, ["ops@example.org"]);
        let addresses: Vec<IpAddr> = vec!["10.1.2.3".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(peer.addresses, addresses);
        assert_eq!(peer.not_before_unix, 1_577_836_800);
        assert_eq!(peer.not_after_unix, 2_840_140_800);
        assert_eq!(peer.fingerprint_hex().len(), 64);
    }

    #[test]
    fn two_uris_make_no_spiffe_id() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        for uri in ["spiffe://a/b", "spiffe://a/c"] {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        let peer = Peer::parse(params.self_signed(&key).unwrap().der()).unwrap();
        assert_eq!(peer.spiffe_id(), None);
    }
}
