//! A TLS 1.3 client on rustls' unbuffered API: records are opened in the read buffer and never copied, so
//! that the load generator stays cheap beside the proxy.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::client::UnbufferedClientConnection;
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

/// The parameters that every contender gets: TLS 1.3, AES-256-GCM (what OpenSSL's clients and servers agree
/// on by default), X25519. The client offers nothing else, so no contender can choose differently.
///
/// # Errors
/// The bundle at `roots` cannot be read.
pub fn config(roots: &Path, resumption: Resumption) -> Result<Arc<ClientConfig>, String> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut store = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(roots).map_err(|e| format!("{}: {e}", roots.display()))? {
        let cert = cert.map_err(|e| format!("{}: {e}", roots.display()))?;
        store.add(cert).map_err(|e| format!("{}: {e}", roots.display()))?;
    }
    let builder = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?;
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.resumption = resumption;
    Ok(Arc::new(config))
}

/// The tickets of one slot of the handshake generator. A slot has one connection at a time and the server's
/// tickets arrive before its response, so with a store per slot each connection after the first resumes.
/// (One store for all slots runs out of tickets now and then, and mixes full handshakes in.)
#[derive(Debug, Default)]
pub struct Tickets {
    latest: Mutex<VecDeque<Tls13ClientSessionValue>>,
    group: Mutex<Option<NamedGroup>>,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        *lock(&self.group) = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        *lock(&self.group)
    }

    // The client speaks TLS 1.3 only.
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut latest = lock(&self.latest);
        latest.truncate(MAX_TICKETS - 1);
        latest.push_front(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        lock(&self.latest).pop_front()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The client's end of one TLS connection, without the socket.
pub struct TlsClient {
    tls: UnbufferedClientConnection,
    incoming: Vec<u8>,
    /// `incoming[start..end]` was read and not yet taken.
    start: usize,
    end: usize,
    outgoing: Vec<u8>,
    sent: usize,
    /// Content to encrypt as soon as the handshake allows it.
    queued: Vec<u8>,
    established: bool,
    closed: bool,
}

impl TlsClient {
    /// A client for the server name of the bench's certificate.
    ///
    /// # Errors
    /// Those of rustls: the configuration fits no protocol version.
    pub fn new(config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let tls = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Self {
            tls,
            incoming: vec![0; INCOMING],
            start: 0,
            end: 0,
            outgoing: Vec::new(),
            sent: 0,
            queued: Vec::new(),
            established: false,
            closed: false,
        })
    }

    /// The handshake is complete.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// The session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Version, suite, group and kind of handshake, to show that all contenders agreed on the same.
    pub fn parameters(&self) -> String {
        let suite = self.tls.negotiated_cipher_suite().map(|s| s.suite());
        let group = self.tls.negotiated_key_exchange_group().map(|g| g.name());
        format!("{:?} {suite:?} {group:?} {:?}", self.tls.protocol_version(), self.tls.handshake_kind())
    }

    /// Content to send; [`Self::drive`] encrypts and writes it.
    pub fn queue(&mut self, content: &[u8]) {
        self.queued.extend_from_slice(content);
    }

    /// Reads what the socket has, opens records into `sink`, writes what is due until the socket takes no
    /// more. `Ok(false)`: the peer closed.
    ///
    /// # Errors
    /// Those of the socket but `WouldBlock`, of TLS, and of `sink`.
    pub fn drive<S: Read + Write>(
        &mut self,
        socket: &mut S,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        loop {
            let space = self.make_space();
            let n = self.fill(socket)?;
            self.process(&mut sink)?;
            self.flush(socket)?;
            // A read that leaves space took everything; the next edge tells when there is more.
            if self.closed || n < space {
                return Ok(!self.closed);
            }
        }
    }

    /// Like [`Self::drive`] on a socket that blocks, until the handshake is complete.
    ///
    /// # Errors
    /// Those of the socket and of TLS; `UnexpectedEof` when the peer closes.
    pub fn shake_hands<S: Read + Write>(&mut self, socket: &mut S) -> io::Result<()> {
        while !self.established {
            self.process(&mut |_| Ok(()))?;
            self.flush(socket)?;
            self.make_space();
            if !self.established && (self.closed || self.fill(socket)? == 0) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Encrypts and writes what is queued, without reading first.
    ///
    /// # Errors
    /// Those of the socket and of TLS.
    pub fn send<S: Write>(&mut self, socket: &mut S) -> io::Result<()> {
        self.process(&mut |_| Ok(()))?;
        self.flush(socket)
    }

    /// Makes room for at least a record in the read buffer; how much there is.
    fn make_space(&mut self) -> usize {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.incoming.len() - self.end < MAX_RECORD {
            self.incoming.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.incoming.len() - self.end
    }

    /// Bytes read; 0 when there are none or the peer closed.
    fn fill<S: Read>(&mut self, socket: &mut S) -> io::Result<usize> {
        match socket.read(&mut self.incoming[self.end..]) {
            Ok(n) => {
                self.end += n;
                self.closed |= n == 0;
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(e) => Err(e),
        }
    }

    fn flush<S: Write>(&mut self, socket: &mut S) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            match socket.write(&self.outgoing[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Ok(())
    }

    /// Steps through the states of rustls until it needs bytes.
    fn process(&mut self, sink: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        loop {
            let status = self.tls.process_tls_records(&mut self.incoming[self.start..self.end]);
            let mut discard = status.discard;
            let mut blocked = false;
            match status.state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut records) => {
                    while let Some(record) = records.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        sink(record.payload)?;
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let at = self.outgoing.len();
                    self.outgoing.resize(at + MAX_RECORD, 0);
                    let n = loop {
                        match data.encode(&mut self.outgoing[at..]) {
                            Ok(n) => break n,
                            Err(EncodeError::InsufficientSize(e)) => {
                                self.outgoing.resize(at + e.required_size, 0);
                            }
                            Err(e) => return Err(io::Error::other(e)),
                        }
                    };
                    self.outgoing.truncate(at + n);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    self.established = true;
                    blocked = true;
                    if !self.queued.is_empty() {
                        let at = self.outgoing.len();
                        self.outgoing.resize(at + self.queued.len() + MAX_RECORD, 0);
                        let n = loop {
                            match traffic.encrypt(&self.queued, &mut self.outgoing[at..]) {
                                Ok(n) => break n,
                                Err(EncryptError::InsufficientSize(e)) => {
                                    self.outgoing.resize(at + e.required_size, 0);
                                }
                                Err(e) => return Err(io::Error::other(e)),
                            }
                        };
                        self.outgoing.truncate(at + n);
                        self.queued.clear();
                    }
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.closed = true;
                    blocked = true;
                }
                _ => blocked = true,
            }
            self.start += discard;
            if blocked {
                return Ok(());
            }
        }
    }
}

/// The name in the bench's server certificate (setup.sh makes it).
pub const SERVER_NAME: &str = "server.bench.test";
/// Tickets kept per slot: as many as servers send after a full handshake.
const MAX_TICKETS: usize = 4;
/// A record with its header and expansion (RFC 8446 §5.2). Unit: bytes.
const MAX_RECORD: usize = 5 + (1 << 14) + 256;
/// Read buffer per connection: some records per read. Unit: bytes.
const INCOMING: usize = 4 * MAX_RECORD;
