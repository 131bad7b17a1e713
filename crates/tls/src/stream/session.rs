//! rustls' unbuffered connection of either side behind one face.

use std::io;

use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};

use super::buffers::{Leftover, Sink};
use crate::select::ServerTlsSet;

pub(super) enum Session {
    /// A server that has not seen the ClientHello.
    Hello(ServerTlsSet),
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
    /// After an error.
    Dead,
}

/// What one step of rustls asks for.
enum Step {
    /// Another step.
    Again,
    /// The peer's close_notify came; another step.
    PeerClosed,
    /// More input, or nothing.
    Wait,
}

/// Takes what rustls has to say after a call, whichever side it is.
fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    sink: &mut Sink<'_>,
    out: &mut Leftover,
) -> (usize, Result<Step, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut records)) => loop {
            match records.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    sink.push(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out).map(|()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // In `pending`, whose order is kept: as good as sent.
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        Ok(
            ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake | ConnectionState::Closed,
        ) => Ok(Step::Wait),
        // Early data is off on both sides.
        Ok(_) => Err(rustls::Error::General("unexpected state".to_owned())),
        Err(error) => Err(error),
    };
    (discard, step)
}

/// Appends a protocol record, whose size only a refusal tells.
fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Leftover) -> Result<(), rustls::Error> {
    let refused = || rustls::Error::General("record was not encoded".to_owned());
    let start = out.bytes.len();
    if let Err(EncodeError::InsufficientSize(need)) = data.encode(&mut []) {
        out.bytes.resize(start.saturating_add(need.required_size), 0);
        data.encode(out.bytes.get_mut(start..).unwrap_or_default()).map_err(|_| refused())?;
    }
    Ok(())
}

impl Session {
    pub(super) fn common(&self) -> Option<&CommonState> {
        match self {
            Self::Server(session) => Some(session),
            Self::Client(session) => Some(session),
            Self::Hello(_) | Self::Dead => None,
        }
    }

    /// Runs rustls over `input` until it wants more. Says how many bytes of `input` it is done
    /// with and whether the peer closed.
    pub(super) fn run(
        &mut self,
        input: &mut [u8],
        sink: &mut Sink<'_>,
        out: &mut Leftover,
    ) -> (usize, Result<bool, rustls::Error>) {
        let mut consumed = 0;
        let mut is_closed = false;
        loop {
            let rest = input.get_mut(consumed..).unwrap_or_default();
            let (discard, step) = match self {
                Self::Server(session) => step(session.process_tls_records(rest), sink, out),
                Self::Client(session) => step(session.process_tls_records(rest), sink, out),
                Self::Hello(_) | Self::Dead => return (consumed, Ok(is_closed)),
            };
            consumed += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => is_closed = true,
                Ok(Step::Wait) => return (consumed, Ok(is_closed)),
                Err(error) => {
                    self.collect_alert(input.get_mut(consumed..).unwrap_or_default(), out);
                    return (consumed, Err(error));
                }
            }
        }
    }

    /// After an error: takes out the records that are queued, the alert last.
    ///
    /// rustls must not look at the input again, where it would find the same error; it does not as
    /// long as it has something to write, hence the condition.
    fn collect_alert(&mut self, input: &mut [u8], out: &mut Leftover) {
        let mut nowhere = Leftover::default();
        while self.common().is_some_and(CommonState::wants_write) {
            let mut sink = Sink { dst: &mut [], filled: 0, rest: &mut nowhere };
            let (_, result) = match self {
                Self::Server(session) => step(session.process_tls_records(input), &mut sink, out),
                Self::Client(session) => step(session.process_tls_records(input), &mut sink, out),
                Self::Hello(_) | Self::Dead => return,
            };
            if result.is_err() {
                return;
            }
        }
    }

    /// Encrypts `slices` into `output` and says how much plaintext they were and how much
    /// ciphertext they became. `input` is what rustls has not finished with: it looks at it on
    /// every call.
    pub(super) fn encrypt(
        &mut self,
        input: &mut [u8],
        slices: &[&[u8]],
        output: &mut [u8],
    ) -> io::Result<(usize, usize)> {
        match self {
            Self::Server(session) => with_writer(session.process_tls_records(input), slices, output),
            Self::Client(session) => with_writer(session.process_tls_records(input), slices, output),
            Self::Hello(_) | Self::Dead => Err(dead()),
        }
    }

    pub(super) fn close_notify(&mut self, input: &mut [u8], output: &mut [u8]) -> Option<usize> {
        fn queue<D>(status: UnbufferedStatus<'_, '_, D>, output: &mut [u8]) -> Option<usize> {
            match status.state {
                Ok(ConnectionState::WriteTraffic(mut writer)) => writer.queue_close_notify(output).ok(),
                _ => None,
            }
        }
        match self {
            Self::Server(session) => queue(session.process_tls_records(input), output),
            Self::Client(session) => queue(session.process_tls_records(input), output),
            Self::Hello(_) | Self::Dead => None,
        }
    }
}

fn with_writer<D>(
    status: UnbufferedStatus<'_, '_, D>,
    slices: &[&[u8]],
    output: &mut [u8],
) -> io::Result<(usize, usize)> {
    let Ok(ConnectionState::WriteTraffic(mut writer)) = status.state else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let (mut taken, mut written) = (0, 0);
    let parts = slices.iter().flat_map(|slice| <[&[u8]; 2]>::from(at_a_good_offset(slice)));
    for slice in parts.filter(|slice| !slice.is_empty()) {
        let room = output.get_mut(written..).unwrap_or_default();
        match encrypt_one(&mut writer, slice, room) {
            Ok(len) => {
                taken += slice.len();
                written += len;
            }
            // What is encrypted has its sequence numbers and must go out.
            Err(_) if taken > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok((taken, written))
}

/// Cuts a short record off where the rest of a long slice would otherwise be copied slowly.
///
/// rustls copies plaintext behind the record header of a buffer of its own, which begins on a page.
/// `rep movsb`, which glibc's memcpy is above about 2 KiB, takes ten times as long (4.4 µs for a
/// full record) on AMD's Zen 3 and 4 when the destination lies up to 16 bytes above the source
/// within a page (sourceware bug 30994): for a buffer that begins on a page, always. A short record
/// more costs 0.2 µs.
fn at_a_good_offset(slice: &[u8]) -> (&[u8], &[u8]) {
    const PAGE: usize = 4096;
    const HEADER: usize = 5;
    let distance = (PAGE + HEADER - slice.as_ptr().addr() % PAGE) % PAGE;
    if slice.len() >= LONG && (1..=SLOW_DISTANCE).contains(&distance) {
        slice.split_at(SHORT.min(slice.len()))
    } else {
        (slice, &[])
    }
}

/// From which length on a bad offset costs more than another record. Unit: bytes.
const LONG: usize = 2 * 1024;

/// The distances of destination to source that are slow, with some margin. Unit: bytes.
const SLOW_DISTANCE: usize = 32;

/// Plaintext of the short record. Unit: bytes.
const SHORT: usize = 1024;

fn encrypt_one<D>(writer: &mut WriteTraffic<'_, D>, plaintext: &[u8], room: &mut [u8]) -> io::Result<usize> {
    writer.encrypt(plaintext, room).map_err(|error| match error {
        // RFC 8446 §5.5: the keys may protect no more records, and TLS 1.2 cannot make new ones.
        EncryptError::EncryptExhausted => io::Error::new(io::ErrorKind::BrokenPipe, error),
        EncryptError::InsufficientSize(_) => io::Error::new(io::ErrorKind::InvalidInput, error),
    })
}

pub(super) fn dead() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the TLS connection has failed before")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_at_a_bad_offset_begin_with_a_short_record() {
        let bytes = vec![7; 40_000];
        let mut cuts = 0;
        for start in 0..4096 {
            for len in [0, 1, LONG - 1, LONG, 30_000] {
                let slice = &bytes[start..start + len];
                let (short, rest) = at_a_good_offset(slice);
                assert_eq!([short, rest].concat(), slice);
                if !rest.is_empty() {
                    cuts += 1;
                    assert_eq!(at_a_good_offset(rest), (rest, &[][..]));
                }
            }
        }
        assert_eq!(cuts, 2 * SLOW_DISTANCE);
    }
}
