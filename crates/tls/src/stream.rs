//! TLS over a non-blocking transport, through rustls' unbuffered API.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::AlertDescription;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls_pki_types::UnixTime;

use crate::client::ClientTls;
use crate::der::Facts;
use crate::handshake::HandshakeError;
use crate::hello::{Peek, peek_client_hello};
use crate::provider::Version;
use crate::select::ServerTlsSet;
use crate::server::HandshakeLimits;
use crate::transport::Transport;

mod buffers;
mod facts;
mod session;

use buffers::{COALESCE, Leftover, MAX_READ, MIN_READ, Sink};
pub use buffers::{MAX_WRITE, Scratch};
use session::{Session, dead};

/// The most slices of one vectored write.
const MAX_SLICES: usize = 16;

/// Slices up to this size together are copied into one record, which is cheaper than a record for
/// each of them. Unit: bytes.
const COPIED: usize = 4 * 1024;

/// Where they are put: away from the beginning of a page, from where rustls would copy slowly
/// (session.rs). Unit: bytes.
const JOINED_AT: usize = 64;

/// A TLS connection, either side: no task, no lock, and no buffer while it is idle.
///
/// Methods named `poll_` return [`Poll::Pending`] with the waker registered at the transport. They
/// lose nothing when they are not called again, and each may be called at any time; reading and
/// writing before the handshake is complete continue it.
///
/// **Errors**: after any error but [`io::ErrorKind::UnexpectedEof`] of
/// [`poll_read`](Self::poll_read) the stream is dead, and each further call says so.
pub struct TlsStream<T> {
    transport: T,
    session: Session,
    /// Ciphertext that rustls has not finished with: an incomplete record or handshake message.
    incoming: Vec<u8>,
    /// Plaintext that the caller's buffer had no room for.
    plain: Leftover,
    /// Ciphertext that the transport has not taken yet.
    pending: Leftover,
    server_name: Option<Box<str>>,
    /// Bytes that the handshake may still take from the peer.
    allowance: usize,
    server_index: usize,
    flags: Flags,
}

/// Facts that, once true, stay true, except `is_blocked`.
#[derive(Default)]
struct Flags {
    /// The handshake was begun.
    is_started: bool,
    /// The handshake is complete.
    is_established: bool,
    /// The transport did not take all of `pending` when last asked.
    is_blocked: bool,
    /// The peer's close_notify came.
    is_closed_by_peer: bool,
    /// The transport ended without the peer's close_notify.
    is_cut_short: bool,
    /// Our close_notify is in `pending` or behind it.
    is_closed_by_us: bool,
}

impl<T: Transport> TlsStream<T> {
    /// The server side of a connection. Nothing is read or written yet.
    #[must_use]
    pub fn server(transport: T, servers: ServerTlsSet) -> Self {
        Self::server_after(transport, servers, Vec::new())
    }

    /// The server side of a connection whose first bytes somebody has read already, to
    /// [peek](peek_client_hello) at them.
    #[must_use]
    pub fn server_after(transport: T, servers: ServerTlsSet, first: Vec<u8>) -> Self {
        Self::new(transport, Session::Hello(servers), first)
    }

    /// The client side of a connection to `endpoint`, whose address stands in for a server name
    /// that is not configured. Nothing is read or written yet.
    ///
    /// **Errors**: those of rustls for a configuration that cannot make a ClientHello.
    pub fn client(transport: T, tls: &ClientTls, endpoint: IpAddr) -> Result<Self, HandshakeError> {
        let session = UnbufferedClientConnection::new(Arc::clone(tls.config()), tls.name_for(endpoint))?;
        Ok(Self::new(transport, Session::Client(Box::new(session)), Vec::new()))
    }

    fn new(transport: T, session: Session, incoming: Vec<u8>) -> Self {
        Self {
            transport,
            session,
            allowance: HandshakeLimits::DEFAULT_BYTES.saturating_sub(incoming.len()),
            incoming,
            plain: Leftover::default(),
            pending: Leftover::default(),
            server_name: None,
            server_index: 0,
            flags: Flags::default(),
        }
    }

    /// Completes the handshake.
    ///
    /// Its last records may stay behind to go out with the first write ([`has_pending_write`]): a
    /// server's session tickets, a client's Finished. [`poll_write`], a [`poll_read`] that has to
    /// wait, and [`poll_flush`] send them.
    ///
    /// **Errors**: see [`HandshakeError`].
    ///
    /// [`has_pending_write`]: Self::has_pending_write
    /// [`poll_write`]: Self::poll_write
    /// [`poll_read`]: Self::poll_read
    /// [`poll_flush`]: Self::poll_flush
    pub fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<Result<(), HandshakeError>> {
        if self.flags.is_established {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(self.poll_establish(cx, scratch));
        if let Err(error) = &result {
            self.fail(cx, error.own_alert());
        }
        Poll::Ready(result)
    }

    fn poll_establish(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<Result<(), HandshakeError>> {
        if matches!(self.session, Session::Dead) {
            return Poll::Ready(Err(HandshakeError::Io(dead())));
        }
        if !self.flags.is_started {
            self.flags.is_started = true;
            // A client speaks first, and a server may have been given the first bytes.
            let mut input = std::mem::take(&mut self.incoming);
            self.advance(&mut input)?;
        }
        loop {
            if self.session.common().is_some_and(|session| !session.is_handshaking()) {
                self.check_resumed_peer()?;
                self.flags.is_established = true;
                // The other side of TLS 1.2 waits for a server's last flight (RFC 5246 §7.3);
                // elsewhere nobody waits for what is left.
                if matches!(self.session, Session::Server(_)) && self.version() == Some(Version::Tls12) {
                    let _ = self.poll_flush(cx)?;
                }
                return Poll::Ready(Ok(()));
            }
            if !self.pending.is_empty() {
                ready!(self.poll_flush(cx))?;
            }
            let len = ready!(self.poll_fill(cx, MAX_READ, scratch))?;
            if len == 0 {
                return Poll::Ready(Err(HandshakeError::Closed));
            }
            let Some(allowance) = self.allowance.checked_sub(len) else {
                return Poll::Ready(Err(HandshakeError::TooManyBytes));
            };
            self.allowance = allowance;
            let end = self.place_incoming(scratch, len);
            self.advance(scratch.input.get_mut(..end).unwrap_or_default())?;
        }
    }

    /// Takes the handshake as far as `input` carries it, and keeps what is left of `input`.
    fn advance(&mut self, input: &mut [u8]) -> Result<(), HandshakeError> {
        if matches!(self.session, Session::Hello(_)) && !self.choose_server(input)? {
            self.keep_incoming(input);
            return Ok(());
        }
        let mut sink = Sink { dst: &mut [], filled: 0, rest: &mut self.plain };
        let (consumed, result) = self.session.run(input, &mut sink, &mut self.pending);
        self.flags.is_closed_by_peer |= result?;
        self.keep_incoming(input.get(consumed..).unwrap_or_default());
        Ok(())
    }

    /// Makes the session for the server that the ClientHello asks for; `false` while it is not
    /// whole.
    fn choose_server(&mut self, input: &[u8]) -> Result<bool, HandshakeError> {
        let Session::Hello(servers) = &self.session else { return Ok(true) };
        if input.is_empty() {
            return Ok(false);
        }
        let hello = match peek_client_hello(input) {
            Peek::Hello(hello) => hello,
            Peek::NeedMore => return Ok(false),
            Peek::NotTls if is_http(input) => return Err(HandshakeError::PlainHttp),
            Peek::NotTls => return Err(HandshakeError::NotTls),
            Peek::Malformed => return Err(HandshakeError::Malformed),
            Peek::TooLong => return Err(HandshakeError::HelloTooLong),
        };
        let Some((index, server)) = servers.select(hello.server_name.as_deref()) else {
            return Err(HandshakeError::UnknownName(hello.server_name));
        };
        self.allowance = server.limits().bytes.saturating_sub(input.len());
        let session = UnbufferedServerConnection::new(Arc::clone(server.config()))?;
        self.server_index = index;
        self.server_name = hello.server_name;
        self.session = Session::Server(Box::new(session));
        Ok(true)
    }

    /// Resumption takes the client's certificate out of the ticket and verifies nothing, so that a
    /// certificate could outlive its end by the ticket's life.
    fn check_resumed_peer(&mut self) -> Result<(), HandshakeError> {
        if !self.is_resumed() || !matches!(self.session, Session::Server(_)) {
            return Ok(());
        }
        let Some(leaf) = self.peer_certificates().first() else { return Ok(()) };
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        match Facts::parse(leaf) {
            Some(facts) if facts.not_after >= now => Ok(()),
            _ => {
                // No fresh tickets for it.
                self.pending.clear();
                Err(HandshakeError::ExpiredPeer)
            }
        }
    }

    /// Reads plaintext. Zero means that the peer closed the connection properly (close_notify);
    /// writing goes on until [`poll_shutdown`](Self::poll_shutdown).
    ///
    /// `dst` should have room for a full record or more (16 KiB): what does not fit is kept in
    /// memory of the connection until the next call. With an empty `dst` nothing is read.
    ///
    /// **Errors**: [`io::ErrorKind::UnexpectedEof`] where the connection ends without close_notify:
    /// what was read may be cut short (RFC 8446 §6.1), and writing may still reach a peer that only
    /// closed its sending side. [`io::ErrorKind::InvalidData`] for records
    /// that break the protocol. Otherwise the transport's.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        dst: &mut [u8],
        scratch: &mut Scratch,
    ) -> Poll<io::Result<usize>> {
        if !self.flags.is_established {
            ready!(self.poll_handshake(cx, scratch))?;
        }
        if dst.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if !self.plain.is_empty() {
            return Poll::Ready(Ok(self.take_plain(dst)));
        }
        if self.flags.is_closed_by_peer {
            return Poll::Ready(Ok(0));
        }
        if self.flags.is_cut_short {
            return Poll::Ready(Err(cut_short()));
        }
        if matches!(self.session, Session::Dead) {
            return Poll::Ready(Err(dead()));
        }
        // Ciphertext is never less than its plaintext, so this overfills `dst` by one record at
        // the most.
        let want = dst.len().clamp(MIN_READ, MAX_READ);
        loop {
            let len = match self.poll_fill(cx, want, scratch) {
                Poll::Ready(Ok(len)) => len,
                Poll::Ready(Err(error)) => {
                    self.session = Session::Dead;
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    // About to wait: nothing that the peer may be waiting for stays behind.
                    if !self.pending.is_empty()
                        && let Poll::Ready(Err(error)) = self.poll_flush(cx)
                    {
                        return Poll::Ready(Err(error));
                    }
                    return Poll::Pending;
                }
            };
            if len == 0 {
                self.flags.is_cut_short = true;
                return Poll::Ready(Err(cut_short()));
            }
            let filled = self.decrypt(cx, dst, len, scratch)?;
            if filled > 0 || self.flags.is_closed_by_peer {
                return Poll::Ready(Ok(filled));
            }
        }
    }

    /// Decrypts the `len` bytes just read, with those kept before them, into `dst`.
    fn decrypt(
        &mut self,
        cx: &mut Context<'_>,
        dst: &mut [u8],
        len: usize,
        scratch: &mut Scratch,
    ) -> io::Result<usize> {
        let end = self.place_incoming(scratch, len);
        let input = scratch.input.get_mut(..end).unwrap_or_default();
        let mut sink = Sink { dst, filled: 0, rest: &mut self.plain };
        let (consumed, result) = self.session.run(input, &mut sink, &mut self.pending);
        let filled = sink.filled;
        match result {
            Ok(is_closed) => self.flags.is_closed_by_peer |= is_closed,
            Err(error) => {
                self.fail(cx, None);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        self.keep_incoming(input.get(consumed..).unwrap_or_default());
        Ok(filled)
    }

    /// Encrypts and sends from the front of `src`, at most [`MAX_WRITE`] bytes, and says how many
    /// were taken. What the transport does not take of their records is kept and goes out first
    /// next time; while any is kept nothing more is taken, so that it stays below that size.
    ///
    /// **Errors**: [`io::ErrorKind::BrokenPipe`] after [`poll_shutdown`](Self::poll_shutdown).
    /// Otherwise the transport's.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        src: &[u8],
        scratch: &mut Scratch,
    ) -> Poll<io::Result<usize>> {
        if !self.flags.is_established {
            ready!(self.poll_handshake(cx, scratch))?;
        }
        self.poll_write_slices(cx, &[src.get(..MAX_WRITE).unwrap_or(src)], &mut scratch.output)
    }

    /// As [`poll_write`](Self::poll_write), from several slices in one send, the first 16 that are
    /// not empty. Short ones share a record; otherwise each begins a record of its own.
    ///
    /// **Errors**: as [`poll_write`](Self::poll_write).
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        srcs: &[IoSlice<'_>],
        scratch: &mut Scratch,
    ) -> Poll<io::Result<usize>> {
        if !self.flags.is_established {
            ready!(self.poll_handshake(cx, scratch))?;
        }
        let mut slices: [&[u8]; MAX_SLICES] = [&[]; MAX_SLICES];
        let mut room = MAX_WRITE;
        let mut count = 0;
        for (slot, src) in slices.iter_mut().zip(srcs.iter().filter(|src| !src.is_empty())) {
            if room == 0 {
                break;
            }
            *slot = src.get(..room).unwrap_or(src);
            room -= slot.len();
            count += 1;
        }
        let slices = slices.get(..count).unwrap_or_default();
        let total = MAX_WRITE - room;
        if count < 2 || total > COPIED {
            return self.poll_write_slices(cx, slices, &mut scratch.output);
        }
        let mut end = JOINED_AT;
        for slice in slices {
            if let Some(room) = scratch.input.get_mut(end..end + slice.len()) {
                room.copy_from_slice(slice);
            }
            end += slice.len();
        }
        let joined = scratch.input.get(JOINED_AT..end).unwrap_or_default();
        self.poll_write_slices(cx, &[joined], &mut scratch.output)
    }

    /// `slices` are together at most [`MAX_WRITE`] long; `output` is the thread's.
    fn poll_write_slices(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[&[u8]],
        output: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.session, Session::Dead) {
            return Poll::Ready(Err(dead()));
        }
        if self.flags.is_closed_by_us {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        if self.flags.is_blocked || self.pending.len() > COALESCE {
            ready!(self.poll_flush(cx))?;
        }
        let front = self.pending.len();
        let (head, room) = output.split_at_mut(front.min(COALESCE));
        head.copy_from_slice(self.pending.as_slice().get(..head.len()).unwrap_or_default());
        let (taken, written) = match self.session.encrypt(&mut self.incoming, slices, room) {
            Ok(done) => done,
            Err(error) => {
                self.fail(cx, None);
                return Poll::Ready(Err(error));
            }
        };
        self.pending.clear();
        let ciphertext = output.get(..front + written).unwrap_or_default();
        match self.transport.poll_write(cx, ciphertext) {
            Poll::Ready(Ok(sent)) if sent >= ciphertext.len() => {}
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.dies(io::ErrorKind::WriteZero.into()))),
            Poll::Ready(Ok(sent)) => self.keep_pending(ciphertext.get(sent..).unwrap_or_default()),
            Poll::Pending => self.keep_pending(ciphertext),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.dies(error))),
        }
        Poll::Ready(Ok(taken))
    }

    /// Sends what is kept, without waiting for more.
    ///
    /// **Errors**: the transport's.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            match self.transport.poll_write(cx, self.pending.as_slice()) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.dies(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(sent)) => self.pending.consume(sent),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.dies(error))),
                Poll::Pending => {
                    self.flags.is_blocked = true;
                    return Poll::Pending;
                }
            }
        }
        self.flags.is_blocked = false;
        Poll::Ready(Ok(()))
    }

    /// Says close_notify and flushes. Reading goes on. The transport stays open: closing it is its
    /// owner's. RFC 8446 §6.1.
    ///
    /// **Errors**: the transport's.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flags.is_established && !self.flags.is_closed_by_us {
            self.flags.is_closed_by_us = true;
            let mut alert = [0; CLOSE_NOTIFY];
            if let Some(len) = self.session.close_notify(&mut self.incoming, &mut alert) {
                self.pending.push(alert.get(..len).unwrap_or_default());
            }
        }
        self.poll_flush(cx)
    }

    /// Reads at most `want` bytes of ciphertext behind the place of those kept before.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        want: usize,
        scratch: &mut Scratch,
    ) -> Poll<io::Result<usize>> {
        let start = self.incoming.len();
        let room = scratch.input.get_mut(start..).unwrap_or_default();
        let want = want.min(room.len());
        match room.get_mut(..want) {
            Some(room) if !room.is_empty() => self.transport.poll_read(cx, room),
            // rustls refuses longer handshake messages; nothing else stays incomplete so long.
            _ => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Puts the kept ciphertext before the `len` bytes just read; says where they end.
    fn place_incoming(&mut self, scratch: &mut Scratch, len: usize) -> usize {
        let kept = self.incoming.len();
        if let Some(front) = scratch.input.get_mut(..kept) {
            front.copy_from_slice(&self.incoming);
        }
        kept.saturating_add(len)
    }

    fn keep_incoming(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            if self.incoming.capacity() > 0 {
                self.incoming = Vec::new();
            }
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(rest);
        }
    }

    fn keep_pending(&mut self, rest: &[u8]) {
        self.flags.is_blocked = true;
        self.pending.push(rest);
    }

    fn take_plain(&mut self, dst: &mut [u8]) -> usize {
        let plain = self.plain.as_slice();
        let len = plain.len().min(dst.len());
        if let (Some(dst), Some(plain)) = (dst.get_mut(..len), plain.get(..len)) {
            dst.copy_from_slice(plain);
        }
        self.plain.consume(len);
        len
    }

    /// Tells the peer why, as far as the transport takes it at once, and gives up.
    fn fail(&mut self, cx: &mut Context<'_>, alert: Option<AlertDescription>) {
        if let Some(alert) = alert.filter(|_| matches!(self.session, Session::Hello(_))) {
            // A fatal alert in plaintext: there are no keys yet. RFC 8446 §5.1, §6.
            self.pending.push(&[21, 3, 3, 0, 2, 2, u8::from(alert)]);
        }
        let _ = self.poll_flush(cx);
        self.session = Session::Dead;
        self.incoming = Vec::new();
        self.plain.clear();
        self.pending.clear();
    }

    fn dies(&mut self, error: io::Error) -> io::Error {
        self.session = Session::Dead;
        self.pending.clear();
        error
    }

    /// The transport beneath.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The transport beneath. Bytes read from or written to it directly break the connection.
    pub fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Gives the transport back and drops the TLS session.
    pub fn into_transport(self) -> T {
        self.transport
    }
}

/// Room for a close_notify record. Unit: bytes.
const CLOSE_NOTIFY: usize = 256;

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "peer closed the connection without close_notify")
}

/// Whether somebody sends an HTTP request in the clear: a method, or the beginning of one.
fn is_http(input: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"PRI * "];
    METHODS.iter().any(|method| input.starts_with(method))
}

#[cfg(test)]
mod tests;
