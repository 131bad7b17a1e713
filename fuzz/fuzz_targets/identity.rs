//! What peers of the issuer and of a mesh handshake send: any octets are refused, or read as what says the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_base::spiffe::SpiffeId;
use rhumb_identity::{JoinToken, KeyRequest};
use rhumb_tls::mesh::PeerSvid;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = KeyRequest::parse(bytes) {
        assert_eq!((request.point().len(), request.point()[0]), (65, 4));
    }
    if let Ok(peer) = PeerSvid::parse(bytes) {
        assert_eq!(SpiffeId::parse(peer.id.as_str()).as_ref(), Ok(&peer.id));
        assert!(!peer.id.path().is_empty());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(token) = JoinToken::parse(text) {
        assert_eq!(token.text(), text.trim());
    }
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
        if let Some((namespace, account)) = id.account() {
            assert_eq!(format!("/ns/{namespace}/sa/{account}"), id.path());
        }
    }
});
