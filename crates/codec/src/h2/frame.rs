//! Frames (RFC 9113 §4.1, §6): their header, and writing the small ones.

use super::error::ErrorCode;
use std::fmt;
use std::num::NonZeroU32;

/// A stream's number (RFC 9113 §5.1.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(NonZeroU32);

impl StreamId {
    /// The stream with this number; `None` for 0, which is the connection.
    #[inline]
    pub fn new(id: u32) -> Option<Self> {
        NonZeroU32::new(id).map(Self)
    }

    /// The number.
    #[inline]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a client's connection begins with (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 9;

/// Frame types.
pub(super) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;
}

/// Frame flags.
pub(super) mod flag {
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113 §6.5.2, RFC 8441 §3, RFC 9218 §2.1).
pub(super) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(crate) const ENABLE_PUSH: u16 = 0x2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 0x5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
    pub(crate) const NO_RFC7540_PRIORITIES: u16 = 0x9;
}

/// The header of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) len: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// 0 is the connection.
    pub(super) stream: u32,
}

impl FrameHeader {
    /// Reads the header and returns what follows it; `None` when there are fewer bytes.
    #[inline]
    pub(super) fn read(input: &[u8]) -> Option<(Self, &[u8])> {
        let ([len @ .., kind, flags, a, b, c, d], rest) = input.split_first_chunk::<FRAME_HEADER>()?;
        let [x, y, z] = *len;
        // RFC 9113 §4.1: the reserved bit of the stream identifier is ignored.
        let stream = u32::from_be_bytes([*a, *b, *c, *d]) & 0x7fff_ffff;
        Some((Self { len: u32::from_be_bytes([0, x, y, z]), kind: *kind, flags: *flags, stream }, rest))
    }

    #[inline]
    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    pub(super) fn to_bytes(self) -> [u8; FRAME_HEADER] {
        let [_, x, y, z] = self.len.to_be_bytes();
        let [a, b, c, d] = self.stream.to_be_bytes();
        [x, y, z, self.kind, self.flags, a, b, c, d]
    }
}

/// Splits padding off a payload (RFC 9113 §6.1): what is left, or `None` when the padding is as long or longer.
#[inline]
pub(super) fn unpad(header: FrameHeader, payload: &[u8]) -> Option<&[u8]> {
    if !header.has(flag::PADDED) {
        return Some(payload);
    }
    let (&padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(padding))?)
}

#[inline]
pub(super) fn put_header(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: u32) {
    // Lengths are bounded by the peer's SETTINGS_MAX_FRAME_SIZE, below 2²⁴.
    let len = u32::try_from(len).unwrap_or(0);
    out.extend_from_slice(&FrameHeader { len, kind, flags, stream }.to_bytes());
}

pub(super) fn put_reset(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    put_header(out, 4, kind::RST_STREAM, 0, stream);
    out.extend_from_slice(&code.0.to_be_bytes());
}

pub(super) fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put_header(out, 4, kind::WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}

pub(super) fn put_ping(out: &mut Vec<u8>, flags: u8, payload: [u8; 8]) {
    put_header(out, payload.len(), kind::PING, flags, 0);
    out.extend_from_slice(&payload);
}

pub(super) fn put_go_away(out: &mut Vec<u8>, last_stream: u32, code: ErrorCode, debug: &[u8]) {
    put_header(out, 8 + debug.len(), kind::GOAWAY, 0, 0);
    out.extend_from_slice(&last_stream.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(debug);
}

pub(super) fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    put_header(out, settings.len() * 6, kind::SETTINGS, 0, 0);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_the_reserved_bit_is_ignored() {
        let header = FrameHeader { len: 0x01_02_03, kind: 4, flags: 5, stream: 0x7fff_fffe };
        let mut bytes = header.to_bytes().to_vec();
        bytes.push(9);
        assert_eq!(FrameHeader::read(&bytes), Some((header, &[9u8][..])));
        bytes[5] |= 0x80;
        assert_eq!(FrameHeader::read(&bytes), Some((header, &[9u8][..])));
        assert_eq!(FrameHeader::read(&bytes[..8]), None);
    }

    #[test]
    fn padding_has_to_be_shorter_than_its_frame() {
        let padded = FrameHeader { len: 0, kind: 0, flags: flag::PADDED, stream: 1 };
        for (payload, rest) in [
            (&b"\x00abc"[..], Some(&b"abc"[..])),
            (b"\x02abc", Some(b"a")),
            (b"\x03abc", Some(b"")),
            (b"\x04abc", None),
            (b"\x00", Some(b"")),
            (b"\x01", None),
            (b"", None),
        ] {
            assert_eq!(unpad(padded, payload), rest, "{payload:x?}");
        }
        assert_eq!(unpad(FrameHeader { flags: 0, ..padded }, b"\x09"), Some(&b"\x09"[..]));
    }
}
