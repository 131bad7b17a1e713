//! Encoding of field blocks.
//!
//! What goes into the dynamic table decides what later blocks cost, so each name has a policy: values that stay the
//! same are indexed at once, values that may repeat are indexed when they are seen again, values of one message never
//! are, and secrets are sent so that no later hop indexes them either (RFC 7541 §7.1.3). A field that is in the table
//! is found through its name, compared byte by byte, and costs one or two bytes.

use super::decoder::INITIAL_TABLE_SIZE;
use super::huffman;
use super::name::{Name, SLOTS, STATIC_LEN, static_match};
use super::table::{NameBytes, Table};
use super::{ENTRY_OVERHEAD, MAX_TABLE_SIZE};
use crate::field::Known;

/// Table entries with the same slot that are compared before a field counts as not found.
const MAX_PROBES: usize = 32;
/// Literals remembered to recognise what is seen again.
const SEEN: usize = 64;
/// Cookies shorter than this may be guessed value by value; they are never indexed by any hop.
const SHORT_COOKIE: usize = 20;

/// The sending half of a connection's field compression.
#[derive(Debug)]
pub struct Encoder {
    table: Table<Meta>,
    /// Number of insertions; wraps. The entry of age `a` is insertion `inserted - 1 - a`.
    inserted: u16,
    /// Largest table that we want.
    preferred: usize,
    /// Smallest size in force since the last block, when it has to be told (RFC 7541 §4.2).
    smallest: Option<usize>,
    index: Option<Box<Index>>,
}

#[derive(Clone, Copy, Debug)]
struct Meta {
    name: Name,
    /// Number of the insertion before in the same slot. May be evicted: its age tells.
    older: u16,
}

#[derive(Debug)]
struct Index {
    /// Number of the last insertion in each slot.
    slots: [u16; SLOTS],
    /// Hashes of the last fields that were sent as literals and may repeat, a ring.
    seen: [u32; SEEN],
    /// Where the next one goes.
    next_seen: u8,
}

/// When a field enters the dynamic table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Policy {
    /// At once.
    Index,
    /// When the same field is sent again soon.
    Repeat,
    /// Never here.
    Plain,
    /// Never, neither here nor behind the next hop.
    Never,
}

enum Found {
    /// Name and value are at this index.
    Field(usize),
    /// The name is at this index.
    Name(usize),
    Nothing,
}

impl Encoder {
    /// An encoder that uses at most `table_size` bytes of table, whatever the peer allows.
    pub fn new(table_size: usize) -> Self {
        let preferred = table_size.min(MAX_TABLE_SIZE);
        let mut encoder = Self {
            table: Table::new(INITIAL_TABLE_SIZE),
            inserted: 0,
            preferred,
            smallest: None,
            index: None,
        };
        encoder.set_peer_limit(INITIAL_TABLE_SIZE);
        encoder
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. The next block tells what we make of it.
    pub fn set_peer_limit(&mut self, limit: usize) {
        let size = limit.min(self.preferred);
        if size != self.table.max_size() {
            self.smallest = Some(self.smallest.map_or(size, |smallest| smallest.min(size)));
            self.table.set_max_size(size);
        }
    }

    /// Heap bytes held.
    pub fn capacity(&self) -> usize {
        self.table.capacity() + self.index.as_ref().map_or(0, |_| size_of::<Index>())
    }

    /// Begins a block. To be called once before its fields.
    #[inline]
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(smallest) = self.smallest.take() {
            // RFC 7541 §4.2: a size between that was smaller has evicted entries; it is told as well.
            let size = self.table.max_size();
            if smallest < size {
                integer(smallest, 5, 0x20, out);
            }
            integer(size, 5, 0x20, out);
        }
    }

    /// Appends one field. `text` is its name in lower case; only looked at when `name` does not know it. A field that
    /// came as never indexed has to be sent so (RFC 7541 §6.2.3).
    #[inline]
    pub fn field(&mut self, name: Name, text: &[u8], value: &[u8], never_indexed: bool, out: &mut Vec<u8>) {
        let policy = if never_indexed { Policy::Never } else { policy(name, value) };
        if policy == Policy::Never || policy == Policy::Plain {
            return self.unindexed(policy, name, text, value, out);
        }
        if let Some(index) = static_match(name, value) {
            return integer(index, 7, 0x80, out);
        }
        let hash = if name.text().is_some() { 0 } else { hash(text, 0) };
        match self.find(name, hash, text, value) {
            Found::Field(index) => integer(index, 7, 0x80, out),
            found => self.literal(policy, name, text, value, found, out),
        }
    }

    fn unindexed(&self, policy: Policy, name: Name, text: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let first = if policy == Policy::Never { 0x10 } else { 0 };
        match name.static_index() {
            Some(index) => integer(index, 4, first, out),
            None => {
                let text = name.text().map_or(text, str::as_bytes);
                out.push(first);
                plain_string(text, out);
            }
        }
        plain_string(value, out);
    }

    fn literal(
        &mut self,
        policy: Policy,
        name: Name,
        text: &[u8],
        value: &[u8],
        found: Found,
        out: &mut Vec<u8>,
    ) {
        let text = name.text().map_or(text, str::as_bytes);
        let size = text.len() + value.len() + ENTRY_OVERHEAD;
        // One field does not take the place of all others.
        let is_inserted = size <= self.table.max_size() / 2
            && (policy == Policy::Index
                || self.is_seen_again(hash(text, hash(value, 1))) && !is_named_like_a_secret(text));
        let (first, prefix_bits) = if is_inserted { (0x40, 6) } else { (0, 4) };
        let age = match (name.static_index(), found) {
            (Some(index), _) => {
                integer(index, prefix_bits, first, out);
                None
            }
            (None, Found::Name(index)) => {
                integer(index, prefix_bits, first, out);
                index.checked_sub(STATIC_LEN + 1)
            }
            (None, _) => {
                out.push(first);
                if is_inserted {
                    string(text, out)
                } else {
                    plain_string(text, out)
                }
                None
            }
        };
        if !is_inserted {
            return plain_string(value, out);
        }
        string(value, out);
        let bytes = match (name.text(), age) {
            (Some(text), _) => NameBytes::Known(text.len()),
            (None, Some(age)) => NameBytes::Entry(age),
            (None, None) => NameBytes::Text(text),
        };
        let slot = name.slot(hash(text, 0));
        let inserted = self.inserted;
        let index = self.index.get_or_insert_with(Index::new);
        if let Some(slot) = index.slots.get_mut(slot)
            && self.table.insert(Meta { name, older: *slot }, bytes, value)
        {
            *slot = inserted;
            self.inserted = inserted.wrapping_add(1);
        }
    }

    #[inline]
    fn find(&self, name: Name, hash: u32, text: &[u8], value: &[u8]) -> Found {
        let Some(&slot) = self.index.as_ref().and_then(|index| index.slots.get(name.slot(hash))) else {
            return Found::Nothing;
        };
        let mut found = Found::Nothing;
        let mut insertion = slot;
        let mut youngest = 0;
        for _ in 0..MAX_PROBES {
            // Ages grow along the chain; a link to what was evicted leads out of the table or back.
            let age = usize::from(self.inserted.wrapping_sub(insertion).wrapping_sub(1));
            if age < youngest || age >= self.table.len() {
                break;
            }
            let Some(meta) = self.table.meta(age) else { break };
            if meta.name == name {
                let is_same_length = self.table.value_len(age) == Some(value.len());
                if is_same_length || name.text().is_none() {
                    let Some((_, entry_text, entry_value)) = self.table.get(age) else { break };
                    if name.text().is_some() || entry_text == text {
                        if entry_value == value {
                            return Found::Field(STATIC_LEN + 1 + age);
                        }
                        if let Found::Nothing = found {
                            found = Found::Name(STATIC_LEN + 1 + age);
                        }
                    }
                } else if let Found::Nothing = found {
                    found = Found::Name(STATIC_LEN + 1 + age);
                }
            }
            youngest = age + 1;
            insertion = meta.older;
        }
        found
    }

    fn is_seen_again(&mut self, hash: u32) -> bool {
        let index = self.index.get_or_insert_with(Index::new);
        if index.seen.iter().fold(false, |found, &seen| found | (seen == hash)) {
            return true;
        }
        if let Some(oldest) = index.seen.get_mut(usize::from(index.next_seen) % SEEN) {
            *oldest = hash;
        }
        index.next_seen = index.next_seen.wrapping_add(1);
        false
    }
}

impl Index {
    fn new() -> Box<Self> {
        Box::new(Self { slots: [0; SLOTS], seen: [0; SEEN], next_seen: 0 })
    }
}

#[inline]
fn policy(name: Name, value: &[u8]) -> Policy {
    match name {
        Name::Authority | Name::Method | Name::Protocol | Name::Scheme | Name::Status => Policy::Index,
        // gRPC sends few paths very often, REST sends many once.
        Name::Path | Name::UnknownPseudo => Policy::Repeat,
        Name::Field(known) => match known {
            Known::Authorization | Known::ProxyAuthorization => Policy::Never,
            Known::Cookie | Known::SetCookie if value.len() < SHORT_COOKIE => Policy::Never,
            _ => POLICIES.get(known as usize).copied().unwrap_or(Policy::Repeat),
        },
    }
}

static POLICIES: [Policy; Known::ALL.len() + 1] = policies();

#[allow(clippy::indexing_slicing)] // evaluated at compile time: out of bounds would not build
const fn policies() -> [Policy; Known::ALL.len() + 1] {
    let mut table = [Policy::Repeat; Known::ALL.len() + 1];
    let mut i = 0;
    while i < STABLE.len() {
        table[STABLE[i] as usize] = Policy::Index;
        i += 1;
    }
    i = 0;
    while i < OF_ONE_MESSAGE.len() {
        table[OF_ONE_MESSAGE[i] as usize] = Policy::Plain;
        i += 1;
    }
    table
}

/// Names of API keys and the like. One upstream connection carries many clients: what is in its table may be guessed by
/// one of them, from the size of what it sends (RFC 7541 §7.1).
fn is_named_like_a_secret(text: &[u8]) -> bool {
    text.split(|&b| b == b'-' || b == b'_').any(|word| {
        matches!(
            word,
            b"key"
                | b"apikey"
                | b"token"
                | b"secret"
                | b"auth"
                | b"password"
                | b"session"
                | b"signature"
                | b"credential"
                | b"credentials"
                | b"csrf"
                | b"xsrf"
                | b"jwt"
        )
    })
}

/// Fields of which a connection sees few values.
const STABLE: &[Known] = &[
    Known::Accept,
    Known::AcceptEncoding,
    Known::AcceptLanguage,
    Known::AcceptRanges,
    Known::AccessControlAllowCredentials,
    Known::AccessControlAllowHeaders,
    Known::AccessControlAllowMethods,
    Known::AccessControlAllowOrigin,
    Known::AccessControlExposeHeaders,
    Known::AccessControlMaxAge,
    Known::Allow,
    Known::AltSvc,
    Known::CacheControl,
    Known::ContentEncoding,
    Known::ContentLanguage,
    Known::ContentType,
    Known::GrpcStatus,
    Known::Server,
    Known::StrictTransportSecurity,
    Known::Te,
    Known::Vary,
    Known::Via,
    Known::WwwAuthenticate,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedProto,
];

/// Fields whose value belongs to one message or one user. Date is not among them: a busy connection sends one value for
/// a second, and an entry per second does not crowd the table.
const OF_ONE_MESSAGE: &[Known] = &[
    Known::Age,
    Known::Baggage,
    Known::ContentLength,
    Known::ContentRange,
    Known::Cookie,
    Known::Etag,
    Known::Expires,
    Known::GrpcMessage,
    Known::IfMatch,
    Known::IfModifiedSince,
    Known::IfNoneMatch,
    Known::IfRange,
    Known::IfUnmodifiedSince,
    Known::LastModified,
    Known::Location,
    Known::ProxyAuthenticate,
    Known::ProxyStatus,
    Known::Range,
    Known::SecWebsocketAccept,
    Known::SecWebsocketKey,
    Known::SetCookie,
    Known::Traceparent,
    Known::Tracestate,
    Known::XForwardedClientCert,
    Known::XRequestId,
];

/// RFC 7541 §5.1.
#[inline]
fn integer(value: usize, prefix_bits: u32, first: u8, out: &mut Vec<u8>) {
    let most = (1usize << prefix_bits) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A string as it is: for what is sent once, coding costs both sides more than the bytes that it saves.
#[inline]
fn plain_string(text: &[u8], out: &mut Vec<u8>) {
    integer(text.len(), 7, 0, out);
    out.extend_from_slice(text);
}

/// A string that enters the table: coded when that is shorter.
fn string(text: &[u8], out: &mut Vec<u8>) {
    let len = huffman::encoded_len(text);
    if len < text.len() {
        integer(len, 7, 0x80, out);
        huffman::encode(text, out);
    } else {
        plain_string(text, out);
    }
}

/// Spreads names and fields; equality is always checked on the bytes.
#[inline]
fn hash(text: &[u8], seed: u32) -> u32 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = u64::from(seed) ^ text.len() as u64;
    let mut rest = text;
    while let Some((chunk, tail)) = rest.split_first_chunk::<8>() {
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(*chunk)).wrapping_mul(MULTIPLIER);
        rest = tail;
    }
    let tail = rest.iter().fold(0u64, |tail, &byte| tail << 8 | u64::from(byte));
    hash = (hash.rotate_left(5) ^ tail).wrapping_mul(MULTIPLIER);
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, HpackError};
    use super::*;
    use proptest::prelude::*;

    fn encode(encoder: &mut Encoder, lines: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in lines {
            encoder.field(Name::of(name.as_bytes()), name.as_bytes(), value.as_bytes(), false, &mut out);
        }
        out
    }

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, HpackError> {
        let mut arena = Vec::new();
        let mut block = decoder.block(block);
        let mut lines = Vec::new();
        while let Some(field) = block.next(&mut arena)? {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let name = field.name.text().map_or_else(|| text(field.name_text.of(&arena)), str::to_owned);
            lines.push((name, text(field.value.of(&arena))));
        }
        Ok(lines)
    }

    const REQUEST: &[(&str, &str)] = &[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "api.example.com"),
        (":path", "/pkg.Service/Method"),
        ("user-agent", "test/1.0"),
        ("x-tenant", "blue"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];

    #[test]
    fn a_repeated_request_shrinks_to_one_byte_per_field() {
        let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
        let mut sizes = Vec::new();
        for _ in 0..4 {
            let block = encode(&mut encoder, REQUEST);
            sizes.push(block.len());
            let lines = decode(&mut decoder, &block).unwrap();
            assert!(lines.iter().zip(REQUEST).all(|((n, v), line)| (&n[..], &v[..]) == *line));
        }
        assert_eq!(sizes[2..], [REQUEST.len(), REQUEST.len()], "{sizes:?}");
    }

    #[test]
    fn what_differs_in_every_message_does_not_enter_the_table() {
        let mut encoder = Encoder::new(4096);
        encode(&mut encoder, REQUEST);
        encode(&mut encoder, REQUEST);
        let size = encoder.table.size();
        for n in 0..500 {
            let n = n.to_string();
            let lines: Vec<_> = [
                ":path",
                "etag",
                "x-request-id",
                "traceparent",
                "content-length",
                "x-unknown",
                "cookie",
                "set-cookie",
                "authorization",
            ]
            .map(|name| (name, &n[..]))
            .to_vec();
            encode(&mut encoder, &lines);
        }
        assert_eq!(encoder.table.size(), size);
        assert_eq!(encode(&mut encoder, REQUEST).len(), REQUEST.len());
    }

    #[test]
    fn secrets_are_never_indexed_by_any_hop() {
        let secret = "x".repeat(40);
        let cases: &[(&str, &str, u8)] = &[
            ("authorization", &secret, 0x1f),
            ("proxy-authorization", &secret, 0x1f),
            ("cookie", "a=1", 0x1f),
            ("set-cookie", "a=1", 0x1f),
            ("cookie", &secret, 0x0f),
            ("set-cookie", &secret, 0x0f),
        ];
        for &(name, value, first) in cases {
            let mut encoder = Encoder::new(4096);
            for _ in 0..3 {
                assert_eq!(encode(&mut encoder, &[(name, value)])[0], first, "{name}: {value}");
            }
        }
        for name in ["x-api-key", "x-auth-token", "x_session_id", "apikey"] {
            let mut encoder = Encoder::new(4096);
            for _ in 0..3 {
                assert_eq!(encode(&mut encoder, &[(name, &secret)])[0], 0, "{name}");
            }
        }
        let mut out = Vec::new();
        Encoder::new(4096).field(Name::Field(Known::Other), b"x-key", b"k", true, &mut out);
        assert_eq!(out, b"\x10\x05x-key\x01k");
    }

    #[test]
    fn table_size_changes_are_told_with_the_smallest_between() {
        let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
        encode(&mut encoder, &[]);
        for (limits, update) in [
            (&[0][..], &[0x20][..]),
            (&[100], &[0x3f, 69]),
            (&[10, 4096, 50], &[0x2a, 0x3f, 19]),
            (&[65_536], &[0x3f, 0xe1, 0x1f]),
            (&[4096, 100_000], &[]),
        ] {
            for &limit in limits {
                encoder.set_peer_limit(limit);
            }
            let block = encode(&mut encoder, REQUEST);
            assert!(block.starts_with(update) && block.get(update.len()) == Some(&0x82), "{block:x?}");
            assert_eq!(decode(&mut decoder, &block).unwrap().len(), REQUEST.len());
        }
    }

    #[test]
    fn stale_links_of_a_wrapped_counter_are_harmless() {
        let (mut encoder, mut decoder) = (Encoder::new(256), Decoder::new(4096));
        for n in 0..70_000u32 {
            let value = (n % 7).to_string();
            let name = ["server", "via", "x-a", "x-b"][n as usize % 4];
            let lines = [(name, &value[..]), (name, &value[..])];
            let block = encode(&mut encoder, &lines);
            assert_eq!(
                decode(&mut decoder, &block).unwrap(),
                lines.map(|(n, v)| (n.to_owned(), v.to_owned()))
            );
        }
    }

    proptest! {
        #[test]
        fn every_block_decodes_to_what_was_encoded(
            blocks in proptest::collection::vec(
                (
                    proptest::option::of(0usize..9000),
                    proptest::collection::vec(
                        ("(:path|:authority|server|via|cookie|x-[ab]{1,2}|[a-z]{1,12})", "[ -~]{0,3}|[ -~]{0,300}", any::<bool>()),
                        0..12,
                    ),
                ),
                1..10,
            )
        ) {
            let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(8192));
            let mut peer = h2_table::Peer::default();
            for (limit, lines) in blocks {
                if let Some(limit) = limit {
                    encoder.set_peer_limit(limit);
                }
                let mut block = Vec::new();
                encoder.begin(&mut block);
                for (name, value, never) in &lines {
                    encoder.field(Name::of(name.as_bytes()), name.as_bytes(), value.as_bytes(), *never, &mut block);
                }
                let expected: Vec<_> = lines.iter().map(|(n, v, _)| (n.clone(), v.clone())).collect();
                prop_assert_eq!(&decode(&mut decoder, &block).unwrap(), &expected);
                prop_assert_eq!(peer.decode(&block), expected);
            }
        }
    }

    /// A second decoder, as plain as possible: lists of strings, one bit at a time.
    mod h2_table {
        use super::super::super::name::static_entry;

        #[derive(Default)]
        pub(super) struct Peer {
            entries: Vec<(String, String)>,
            max: Option<usize>,
        }

        impl Peer {
            pub(super) fn decode(&mut self, block: &[u8]) -> Vec<(String, String)> {
                let mut at = 0;
                let mut lines = Vec::new();
                while at < block.len() {
                    let first = block[at];
                    if first & 0x80 != 0 {
                        lines.push(self.entry(int(block, &mut at, 7)));
                    } else if first & 0xe0 == 0x20 {
                        self.max = Some(int(block, &mut at, 5));
                        self.evict();
                    } else {
                        let index = int(block, &mut at, if first & 0x40 != 0 { 6 } else { 4 });
                        let name = if index == 0 { text(block, &mut at) } else { self.entry(index).0 };
                        let line = (name, text(block, &mut at));
                        if first & 0x40 != 0 {
                            self.entries.insert(0, line.clone());
                            self.evict();
                        }
                        lines.push(line);
                    }
                }
                lines
            }

            fn entry(&self, index: usize) -> (String, String) {
                static_entry(index).map_or_else(
                    || self.entries[index - 62].clone(),
                    |entry| (entry.text.to_owned(), entry.value.to_owned()),
                )
            }

            fn evict(&mut self) {
                while self.entries.iter().map(|(n, v)| n.len() + v.len() + 32).sum::<usize>()
                    > self.max.unwrap_or(4096)
                {
                    self.entries.pop();
                }
            }
        }

        fn int(block: &[u8], at: &mut usize, bits: u32) -> usize {
            let most = (1 << bits) - 1;
            let mut value = usize::from(block[*at]) & most;
            *at += 1;
            if value == most {
                let mut shift = 0;
                loop {
                    let byte = usize::from(block[*at]);
                    *at += 1;
                    value += (byte & 127) << shift;
                    shift += 7;
                    if byte < 128 {
                        break;
                    }
                }
            }
            value
        }

        fn text(block: &[u8], at: &mut usize) -> String {
            let coded = block[*at] & 0x80 != 0;
            let len = int(block, at, 7);
            let raw = &block[*at..*at + len];
            *at += len;
            let mut out = Vec::new();
            if coded {
                super::huffman::decode(raw, &mut out).unwrap();
            } else {
                out.extend_from_slice(raw);
            }
            String::from_utf8(out).unwrap()
        }
    }
}
