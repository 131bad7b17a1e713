//! What a connection has agreed on, and with whom.

use rustls::{CommonState, HandshakeKind};
use rustls_pki_types::CertificateDer;

use super::TlsStream;
use crate::identity::Peer;
use crate::mesh::PeerSvid;
use crate::provider::Version;

impl<T> TlsStream<T> {
    /// Whether plaintext is at hand, so that [`poll_read`](Self::poll_read) yields it without the
    /// transport becoming readable.
    pub fn has_buffered_plaintext(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Whether ciphertext waits for [`poll_flush`](Self::poll_flush).
    pub fn has_pending_write(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether the handshake is complete.
    pub fn is_established(&self) -> bool {
        self.flags.is_established
    }

    /// Whether the peer closed its side properly (close_notify).
    pub fn is_closed_by_peer(&self) -> bool {
        self.flags.is_closed_by_peer
    }

    /// The application protocol agreed on. RFC 7301.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session.common()?.alpn_protocol()
    }

    /// The server name that the client asked for, in lower case; on the server's side only.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Which server of the [`ServerTlsSet`](crate::ServerTlsSet) was chosen, in the order of its builder's calls.
    pub fn server_index(&self) -> usize {
        self.server_index
    }

    /// The protocol version agreed on.
    pub fn version(&self) -> Option<Version> {
        Version::from_wire(self.session.common()?.protocol_version()?)
    }

    /// The cipher suite agreed on, by its IANA name (`TLS_AES_256_GCM_SHA384`).
    pub fn cipher(&self) -> Option<&'static str> {
        self.session.common()?.negotiated_cipher_suite()?.suite().as_str().map(iana_name)
    }

    /// The key exchange group agreed on, by its IANA name (`X25519MLKEM768`); none where a TLS 1.2
    /// session was resumed.
    pub fn key_exchange(&self) -> Option<&'static str> {
        self.session.common()?.negotiated_key_exchange_group()?.name().as_str()
    }

    /// The peer's certificate chain in DER, its own first; empty where it presented none. Present
    /// after resumption too.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.session.common().and_then(CommonState::peer_certificates).unwrap_or_default()
    }

    /// The facts of the peer's certificate. Parses: ask once per connection and keep the answer.
    pub fn peer(&self) -> Option<Peer> {
        Peer::parse(self.peer_certificates().first()?)
    }

    /// Who the peer is in a mesh. Parses: ask once per connection and keep the answer.
    pub fn peer_svid(&self) -> Option<PeerSvid> {
        PeerSvid::parse(self.peer_certificates().first()?).ok()
    }

    /// Whether the handshake resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        matches!(self.session.common().and_then(CommonState::handshake_kind), Some(HandshakeKind::Resumed))
    }
}

/// rustls' names of the TLS 1.3 suites have a prefix that IANA's have not.
fn iana_name(name: &'static str) -> &'static str {
    match name {
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        other => other,
    }
}
