//! HTTP/2 as far as the bench's two ends need it (RFC 9113): frames, flow control, field blocks.
//!
//! Neither end decodes field blocks. A backend answers every request alike; the load generator needs the
//! status, which is the first field, and 200 has an index of its own in the static table.

/// A frame's header (RFC 9113 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Length of the payload. Unit: bytes.
    pub len: usize,
    /// The type: see the constants of [`kind`].
    pub kind: u8,
    /// The flags: see the constants of [`flag`].
    pub flags: u8,
    /// The stream, 0 for the connection.
    pub stream: u32,
}

/// Frame types (RFC 9113 §6).
pub mod kind {
    /// DATA.
    pub const DATA: u8 = 0;
    /// HEADERS.
    pub const HEADERS: u8 = 1;
    /// RST_STREAM.
    pub const RST_STREAM: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// PING.
    pub const PING: u8 = 6;
    /// GOAWAY.
    pub const GOAWAY: u8 = 7;
    /// WINDOW_UPDATE.
    pub const WINDOW_UPDATE: u8 = 8;
}

/// Frame flags (RFC 9113 §6).
pub mod flag {
    /// END_STREAM, of DATA and HEADERS.
    pub const END_STREAM: u8 = 0x1;
    /// ACK, of SETTINGS and PING.
    pub const ACK: u8 = 0x1;
    /// END_HEADERS, of HEADERS and CONTINUATION.
    pub const END_HEADERS: u8 = 0x4;
    /// PADDED, of DATA and HEADERS.
    pub const PADDED: u8 = 0x8;
    /// PRIORITY, of HEADERS.
    pub const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113 §6.5.2).
pub mod setting {
    /// SETTINGS_HEADER_TABLE_SIZE.
    pub const HEADER_TABLE_SIZE: u16 = 1;
    /// SETTINGS_ENABLE_PUSH.
    pub const ENABLE_PUSH: u16 = 2;
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    /// SETTINGS_INITIAL_WINDOW_SIZE.
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// The client's connection preface (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Flow-control window before any setting (RFC 9113 §6.9.2). Unit: bytes.
pub const DEFAULT_WINDOW: u32 = 65_535;
/// Largest flow-control window (RFC 9113 §6.9.1). Unit: bytes.
pub const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Largest frame payload before any setting (RFC 9113 §6.5.2). Unit: bytes.
pub const MAX_FRAME: usize = 16_384;
/// Size of the dynamic table before any setting (RFC 9113 §6.5.2). Unit: bytes.
pub const DEFAULT_TABLE: u32 = 4_096;

impl Frame {
    /// The frame at the start of `bytes` with its payload, once all of it is there.
    pub fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_first_chunk::<9>()?;
        let [a, b, c, kind, flags, s @ ..] = *head;
        let frame = Self {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // The first bit is reserved and ignored (RFC 9113 §4.1).
            stream: u32::from_be_bytes(s) & MAX_WINDOW,
        };
        Some((frame, rest.get(..frame.len)?))
    }

    /// Bytes of the frame, header included.
    pub fn size(&self) -> usize {
        9 + self.len
    }

    /// Whether the frame has this flag.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame.
pub fn push_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends a SETTINGS frame.
pub fn push_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let mut payload = Vec::with_capacity(6 * settings.len());
    for (id, value) in settings {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    push_frame(out, kind::SETTINGS, 0, 0, &payload);
}

/// The settings of a SETTINGS frame's payload.
pub fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> + '_ {
    payload.chunks_exact(6).filter_map(|entry| {
        let (id, value) = entry.split_first_chunk::<2>()?;
        Some((u16::from_be_bytes(*id), u32::from_be_bytes(value.try_into().ok()?)))
    })
}

/// Appends a WINDOW_UPDATE frame.
pub fn push_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    push_frame(out, kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

/// The increment in a WINDOW_UPDATE frame's payload.
pub fn window_increment(payload: &[u8]) -> i64 {
    let increment = payload.try_into().map_or(0, u32::from_be_bytes);
    i64::from(increment & MAX_WINDOW)
}

/// Whether a response's field block begins with `:status: 200` (RFC 7541 §6.1, index 8 of the static
/// table), after updates of the table size (§6.3). What else a block may say is no success for a bench.
pub fn is_status_200(frame: &Frame, payload: &[u8]) -> bool {
    let mut skip = 0;
    if frame.has(flag::PADDED) {
        skip += 1;
    }
    if frame.has(flag::PRIORITY) {
        skip += 5;
    }
    let block = payload.get(skip..).unwrap_or_default();
    let mut rest = block.iter().copied();
    let mut first = rest.next();
    while let Some(update @ 0x20..=0x3f) = first {
        // An integer that fills its prefix goes on in bytes whose first bit is set (RFC 7541 §5.1).
        if update == 0x3f {
            let _ = rest.by_ref().find(|byte| byte & 0x80 == 0);
        }
        first = rest.next();
    }
    first == Some(0x88)
}

/// A list of fields that a peer sends again and again: the first time with incremental indexing (RFC 7541
/// §6.2.1), then by index, as encoders in the field do. Without a dynamic table, literals each time.
pub struct FieldBlock {
    fields: Vec<(&'static str, String)>,
    /// Entries that other blocks of the connection put into the table after this block's.
    pub newer: usize,
    is_in_table: bool,
}

impl FieldBlock {
    /// A block of these fields, not yet sent.
    pub fn new(fields: &[(&'static str, &str)]) -> Self {
        let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { fields, newer: 0, is_in_table: false }
    }

    /// Appends the block. True when it added its entries to the dynamic table.
    pub fn push(&mut self, out: &mut Vec<u8>, has_table: bool) -> bool {
        let added = has_table && !self.is_in_table;
        let count = self.fields.iter().filter(|f| static_index(f).is_none()).count();
        let mut nth = 0;
        for field in &self.fields {
            if let Some(index) = static_index(field) {
                out.push(0x80 | index);
                continue;
            }
            nth += 1;
            if has_table && self.is_in_table {
                // The newest entry has the index after the static table's last (RFC 7541 §2.3.3).
                push_integer(out, 0x80, 7, STATIC_ENTRIES + 1 + self.newer + count - nth);
            } else {
                out.push(if has_table { 0x40 } else { 0x00 });
                push_string(out, field.0);
                push_string(out, &field.1);
            }
        }
        self.is_in_table |= added;
        added
    }

    /// How many entries the block puts into the dynamic table.
    pub fn entries(&self) -> usize {
        self.fields.iter().filter(|f| static_index(f).is_none()).count()
    }
}

/// Appends a field whose name is in the static table, not indexed (RFC 7541 §6.2.2): paths differ from
/// request to request.
pub fn push_unindexed(out: &mut Vec<u8>, name_index: usize, value: &str) {
    push_integer(out, 0x00, 4, name_index);
    push_string(out, value);
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    push_integer(out, 0x00, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// RFC 7541 §5.1.
fn push_integer(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let limit = (1 << bits) - 1;
    if value < limit {
        out.push(first | value as u8);
        return;
    }
    out.push(first | limit as u8);
    let mut rest = value - limit;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn static_index((name, value): &(&str, String)) -> Option<u8> {
    STATIC.iter().find(|(_, n, v)| n == name && v == value).map(|(index, ..)| *index)
}

/// The entries of the static table that the bench sends whole (RFC 7541, Appendix A).
const STATIC: &[(u8, &str, &str)] =
    &[(2, ":method", "GET"), (3, ":method", "POST"), (6, ":scheme", "http"), (8, ":status", "200")];
/// Entries of the static table (RFC 7541, Appendix A).
const STATIC_ENTRIES: usize = 61;
/// Index of `:path` in the static table (RFC 7541, Appendix A).
pub const PATH_INDEX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_only_when_whole() {
        let mut out = vec![];
        push_frame(&mut out, kind::DATA, flag::END_STREAM, 5, b"hello");
        let frame = Frame { len: 5, kind: kind::DATA, flags: flag::END_STREAM, stream: 5 };
        assert_eq!(Frame::parse(&out), Some((frame, &b"hello"[..])));
        for short in 0..out.len() {
            assert_eq!(Frame::parse(&out[..short]), None);
        }
    }

    #[test]
    fn integers_are_written_as_in_rfc_7541_appendix_c() {
        for (bits, value, bytes) in [(5, 10, &[10][..]), (5, 1337, &[31, 154, 10]), (8, 42, &[42])] {
            let mut out = vec![];
            push_integer(&mut out, 0, bits, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn a_block_is_literal_once_and_then_indexed() {
        let mut block = FieldBlock::new(&[(":status", "200"), ("a", "1"), ("b", "2")]);
        let mut first = vec![];
        assert!(block.push(&mut first, true));
        assert_eq!(first, b"\x88\x40\x01a\x011\x40\x01b\x012");
        let mut second = vec![];
        assert!(!block.push(&mut second, true));
        assert_eq!(second, [0x88, 0x80 | 63, 0x80 | 62]);
        block.newer = 1;
        second.clear();
        block.push(&mut second, true);
        assert_eq!(second, [0x88, 0x80 | 64, 0x80 | 63]);
    }

    #[test]
    fn without_a_table_a_block_stays_literal() {
        let mut block = FieldBlock::new(&[("a", "1")]);
        for _ in 0..2 {
            let mut out = vec![];
            assert!(!block.push(&mut out, false));
            assert_eq!(out, b"\x00\x01a\x011");
        }
    }

    #[test]
    fn only_status_200_is_success() {
        let plain = Frame { len: 0, kind: kind::HEADERS, flags: flag::END_HEADERS, stream: 1 };
        let padded = Frame { flags: flag::PADDED | flag::PRIORITY, ..plain };
        for (frame, block, is_success) in [
            (plain, &[0x88][..], true),
            (plain, &[0x20, 0x88], true),
            (plain, &[0x3f, 0xe1, 0x1f, 0x88, 0x40], true),
            (plain, &[0x8d], false),
            (plain, &[0x48, 0x03, b'5', b'0', b'3'], false),
            (plain, &[], false),
            (padded, &[0, 0, 0, 0, 0, 16, 0x88], true),
        ] {
            assert_eq!(is_status_200(&frame, block), is_success, "{block:x?}");
        }
    }
}
