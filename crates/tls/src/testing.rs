//! Pipes, certificates and an independent peer for this crate's tests.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

use crate::{Certificate, CertificateSource, Roots, Transport};

/// A small seeded generator (xorshift64*).
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 1 to `max`.
    pub(crate) fn up_to(&mut self, max: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % max + 1
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[5]).collect()
    }
}

#[derive(Default)]
struct Lane {
    bytes: VecDeque<u8>,
    is_closed: bool,
}

/// One end of an in-memory connection whose reads and writes take as many bytes as it pleases and
/// often none.
pub(crate) struct End {
    from: Rc<RefCell<Lane>>,
    to: Rc<RefCell<Lane>>,
    rng: Rng,
    /// The most bytes that a read or write takes.
    chunk: usize,
    /// The most bytes under way.
    capacity: usize,
    /// How often `poll_write` took something.
    pub(crate) sends: usize,
}

/// A pair of connected ends. With a seed they are capricious, without they take all at once.
pub(crate) fn pipe(seed: Option<u64>) -> (End, End) {
    let (one, two) = (Rc::new(RefCell::new(Lane::default())), Rc::new(RefCell::new(Lane::default())));
    let end = |from: &Rc<_>, to: &Rc<_>, salt| End {
        from: Rc::clone(from),
        to: Rc::clone(to),
        rng: Rng::new(seed.unwrap_or(0) * 2 + salt),
        chunk: seed.map_or(usize::MAX, |seed| if seed % 3 == 0 { 7 } else { 20_000 }),
        capacity: seed.map_or(usize::MAX, |_| 30_000),
        sends: 0,
    };
    (end(&one, &two, 0), end(&two, &one, 1))
}

impl End {
    pub(crate) fn close(&self) {
        self.to.borrow_mut().is_closed = true;
    }

    /// Takes everything that has arrived.
    pub(crate) fn drain(&self) -> Vec<u8> {
        self.from.borrow_mut().bytes.drain(..).collect()
    }

    pub(crate) fn inject(&self, bytes: &[u8]) {
        self.to.borrow_mut().bytes.extend(bytes);
    }

    fn amount(&mut self, most: usize) -> Option<usize> {
        if self.chunk == usize::MAX {
            return Some(most);
        }
        if self.rng.next().is_multiple_of(4) {
            return None;
        }
        Some(self.rng.up_to(self.chunk).min(most))
    }
}

impl Transport for End {
    fn poll_read(&mut self, _: &mut Context<'_>, dst: &mut [u8]) -> Poll<io::Result<usize>> {
        let ready = self.from.borrow().bytes.len().min(dst.len());
        if ready == 0 {
            return if self.from.borrow().is_closed { Poll::Ready(Ok(0)) } else { Poll::Pending };
        }
        let Some(len) = self.amount(ready) else { return Poll::Pending };
        for (slot, byte) in dst.iter_mut().zip(self.from.borrow_mut().bytes.drain(..len)) {
            *slot = byte;
        }
        Poll::Ready(Ok(len))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        let room = self.capacity.saturating_sub(self.to.borrow().bytes.len());
        if room == 0 {
            return Poll::Pending;
        }
        let Some(len) = self.amount(src.len().min(room)) else { return Poll::Pending };
        self.sends += 1;
        self.to.borrow_mut().bytes.extend(&src[..len]);
        Poll::Ready(Ok(len))
    }
}

/// A peer on rustls' buffered API.
pub(crate) struct Buffered {
    pub(crate) tls: rustls::Connection,
    pub(crate) end: End,
}

impl Buffered {
    pub(crate) fn client(config: &Arc<rustls::ClientConfig>, name: &str, end: End) -> Self {
        let name = name.to_owned().try_into().unwrap();
        let tls = rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
        Self { tls: tls.into(), end }
    }

    pub(crate) fn server(config: &Arc<rustls::ServerConfig>, end: End) -> Self {
        Self { tls: rustls::ServerConnection::new(Arc::clone(config)).unwrap().into(), end }
    }

    /// Moves what can be moved in both directions.
    pub(crate) fn turn(&mut self) -> Result<(), rustls::Error> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).unwrap();
        }
        // What a peer has written has left it, whatever the capacity.
        self.end.to.borrow_mut().bytes.extend(&out);
        if !self.tls.wants_read() {
            return Ok(());
        }
        let mut buf = [0; 4096];
        if let Poll::Ready(Ok(len)) = self.end.poll_read(&mut cx, &mut buf) {
            let mut rest = &buf[..len];
            self.tls.read_tls(&mut rest).unwrap();
            // What did not fit comes again.
            for &byte in rest.iter().rev() {
                self.end.from.borrow_mut().bytes.push_front(byte);
            }
            self.tls.process_new_packets()?;
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        self.tls.writer().write(bytes).unwrap()
    }

    /// Plaintext that has arrived.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut buf = [0; 4096];
        while let Ok(len @ 1..) = self.tls.reader().read(&mut buf) {
            out.extend_from_slice(&buf[..len]);
        }
        out
    }
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.issuer.pem().into()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::parse(&self.pem(), "test ca").unwrap()
    }

    /// A certificate for these names; one with a colon is a URI.
    pub(crate) fn issue(&self, names: &[&str]) -> Certificate {
        self.issue_with(names, KeyPair::generate().unwrap(), |_| {})
    }

    pub(crate) fn issue_with(
        &self,
        names: &[&str],
        key: KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certificate {
        let (uris, hosts): (Vec<&&str>, Vec<&&str>) = names.iter().partition(|name| name.contains("://"));
        let hosts: Vec<String> = hosts.into_iter().map(|name: &&str| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        params.distinguished_name.push(DnType::CommonName, "leaf");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let source = CertificateSource {
            chain: certificate.pem().into(),
            key: key.serialize_pem().into(),
            origin: names.join(",").into(),
        };
        Certificate::parse(&source).unwrap()
    }
}
