//! Decoding of field blocks.

use super::huffman;
use super::name::{Name, STATIC_LEN, static_entry};
use super::table::{NameBytes, Table};
use super::{ENTRY_OVERHEAD, HpackError, MAX_TABLE_SIZE};
use crate::field::{Known, Span, is_token_byte, is_value_byte};

/// Continuation bytes of an integer: 28 bits, far more than any length or index that can be right.
const MAX_INTEGER_BYTES: u32 = 4;

/// The receiving half of a connection's field compression.
#[derive(Debug)]
pub struct Decoder {
    table: Table<Meta>,
    /// Largest size that an update may set: what our acknowledged settings say.
    allowed: usize,
    /// The size was reduced: the next block has to begin with an update (RFC 7541 §4.2).
    update_due: bool,
}

#[derive(Clone, Copy, Debug)]
struct Meta {
    name: Name,
    marks: Marks,
}

/// One decoded field line. Its bytes are at the end of the arena that was passed in.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name, recognised.
    pub name: Name,
    /// Where the name's text is, when `name` does not know it.
    pub name_text: Span,
    /// Where the value is.
    pub value: Span,
    marks: Marks,
}

/// What was found when the bytes of a literal were seen. One byte, so that it travels in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks(u8);

impl Marks {
    fn when(is_so: bool, mark: u8) -> Self {
        Self(if is_so { mark } else { 0 })
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

const INVALID_NAME: u8 = 1;
const INVALID_VALUE: u8 = 1 << 1;
const NEVER_INDEXED: u8 = 1 << 2;

impl Field {
    /// The name is a token in lower case, a colon in front allowed (RFC 9113 §8.2.1).
    #[inline]
    pub fn is_valid_name(&self) -> bool {
        self.marks.0 & INVALID_NAME == 0
    }

    /// The value has no control character but tab and no white space at either end (RFC 9113 §8.2.1).
    #[inline]
    pub fn is_valid_value(&self) -> bool {
        self.marks.0 & INVALID_VALUE == 0
    }

    /// Neither rule is broken.
    #[inline]
    pub fn is_valid(&self) -> bool {
        self.marks.0 & (INVALID_NAME | INVALID_VALUE) == 0
    }

    /// Whoever forwards this line has to keep it out of dynamic tables as well (RFC 7541 §6.2.3).
    #[inline]
    pub fn is_never_indexed(&self) -> bool {
        self.marks.0 & NEVER_INDEXED != 0
    }

    /// Size as field section limits count it (RFC 9113 §6.5.2).
    #[inline]
    pub fn size(&self) -> usize {
        let name = self.name.text().map_or(self.name_text.len(), str::len);
        name + self.value.len() + ENTRY_OVERHEAD
    }
}

impl Decoder {
    /// A decoder whose table may take `table_size` bytes, at most [`MAX_TABLE_SIZE`]. The peer's encoder starts with
    /// 4096 until it has read our settings: see [`Decoder::acknowledged`].
    pub fn new(table_size: usize) -> Self {
        let initial = table_size.clamp(INITIAL_TABLE_SIZE, MAX_TABLE_SIZE);
        Self { table: Table::new(INITIAL_TABLE_SIZE), allowed: initial, update_due: false }
    }

    /// The peer has acknowledged settings that say `table_size`. When that is less than the table has, the next block
    /// has to begin with a size update (RFC 7541 §4.2).
    pub fn acknowledged(&mut self, table_size: usize) {
        self.allowed = table_size.min(MAX_TABLE_SIZE);
        self.update_due = self.allowed < self.table.max_size();
    }

    /// Heap bytes held.
    pub fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Begins a field block. Every block has to be read to its end, or the tables of the two sides differ.
    #[inline]
    pub fn block<'d, 'b>(&'d mut self, block: &'b [u8]) -> Block<'d, 'b> {
        Block { decoder: self, rest: Reader { rest: block }, at_start: true }
    }
}

/// Table size before any setting (RFC 9113 §6.5.2).
pub(super) const INITIAL_TABLE_SIZE: usize = 4096;

/// A field block being decoded.
#[derive(Debug)]
pub struct Block<'d, 'b> {
    decoder: &'d mut Decoder,
    rest: Reader<'b>,
    at_start: bool,
}

impl Block<'_, '_> {
    /// The next field line, its bytes appended to `arena`; `None` at the end of the block.
    ///
    /// # Errors
    /// [`HpackError`]: the connection cannot go on.
    #[inline(always)] // the field stays in registers: returned through memory it is read before it is written
    pub fn next(&mut self, arena: &mut Vec<u8>) -> Result<Option<Field>, HpackError> {
        loop {
            let Some(first) = self.rest.peek() else {
                return if self.decoder.update_due { Err(HpackError::MissingSizeUpdate) } else { Ok(None) };
            };
            if first & 0xe0 == 0x20 {
                self.size_update()?;
                continue;
            }
            if self.at_start {
                self.at_start = false;
                if self.decoder.update_due {
                    return Err(HpackError::MissingSizeUpdate);
                }
            }
            return match first {
                0x80.. => self.indexed(arena).map(Some),
                0x40.. => self.literal(6, arena).map(Some),
                _ => self.literal(4, arena).map(Some),
            };
        }
    }

    fn size_update(&mut self) -> Result<(), HpackError> {
        let size = self.rest.integer(5)?;
        if !self.at_start || size > self.decoder.allowed {
            return Err(HpackError::InvalidSizeUpdate);
        }
        self.decoder.update_due = false;
        self.decoder.table.set_max_size(size);
        Ok(())
    }

    #[inline(always)]
    fn indexed(&mut self, arena: &mut Vec<u8>) -> Result<Field, HpackError> {
        let index = self.rest.integer(7)?;
        if let Some(entry) = static_entry(index) {
            let name_text = static_name(entry.name, entry.text, arena);
            return Ok(Field {
                name: entry.name,
                name_text,
                value: append(entry.value.as_bytes(), arena),
                marks: Marks(0),
            });
        }
        let (meta, name, value) =
            dynamic(index).and_then(|age| self.decoder.table.get(age)).ok_or(HpackError::InvalidIndex)?;
        Ok(Field {
            name: meta.name,
            name_text: append(name, arena),
            value: append(value, arena),
            marks: meta.marks,
        })
    }

    fn literal(&mut self, prefix_bits: u32, arena: &mut Vec<u8>) -> Result<Field, HpackError> {
        let is_inserted = prefix_bits == 6;
        let is_never_indexed = !is_inserted && self.rest.peek().is_some_and(|first| first & 0x10 != 0);
        let index = self.rest.integer(prefix_bits)?;
        let (name, name_text, is_valid_name, lender) = if index == 0 {
            let text = self.rest.string(arena)?;
            let bytes = text.of(arena);
            let (name, is_valid) = (Name::of(bytes), is_valid_name(bytes));
            if is_valid && name.text().is_some() {
                arena.truncate(arena.len() - text.len());
                (name, Span::default(), true, None)
            } else {
                // A known name in upper case stays as it is: malformed, but the table has to hold what was sent.
                let name = if is_valid { name } else { unknown(bytes) };
                (name, text, is_valid, None)
            }
        } else if let Some(entry) = static_entry(index) {
            (entry.name, static_name(entry.name, entry.text, arena), true, None)
        } else {
            let age = dynamic(index).ok_or(HpackError::InvalidIndex)?;
            let (meta, text, _) = self.decoder.table.get(age).ok_or(HpackError::InvalidIndex)?;
            (meta.name, append(text, arena), meta.marks.0 & INVALID_NAME == 0, Some(age))
        };
        let value = self.rest.string(arena)?;
        let is_valid_value = is_valid_value(value.of(arena));
        let marks = Marks::when(!is_valid_name, INVALID_NAME)
            .and(Marks::when(!is_valid_value, INVALID_VALUE))
            .and(Marks::when(is_never_indexed, NEVER_INDEXED));
        if is_inserted {
            let bytes = match (name.text(), lender) {
                (Some(text), _) => NameBytes::Known(text.len()),
                (None, Some(age)) => NameBytes::Entry(age),
                (None, None) => NameBytes::Text(name_text.of(arena)),
            };
            self.decoder.table.insert(Meta { name, marks }, bytes, value.of(arena));
        }
        Ok(Field { name, name_text, value, marks })
    }
}

/// Age in the dynamic table of what `index` refers to (RFC 7541 §2.3.3).
#[inline]
fn dynamic(index: usize) -> Option<usize> {
    index.checked_sub(STATIC_LEN + 1)
}

#[inline]
fn static_name(name: Name, text: &'static str, arena: &mut Vec<u8>) -> Span {
    if name.text().is_some() { Span::default() } else { append(text.as_bytes(), arena) }
}

fn unknown(text: &[u8]) -> Name {
    if text.first() == Some(&b':') { Name::UnknownPseudo } else { Name::Field(Known::Other) }
}

#[inline]
fn append(bytes: &[u8], arena: &mut Vec<u8>) -> Span {
    let span = Span::new(arena.len(), bytes.len());
    arena.extend_from_slice(bytes);
    span
}

/// RFC 9113 §8.2.1 asks for less than a token; what is no token could not be forwarded over HTTP/1.1.
#[inline]
fn is_valid_name(text: &[u8]) -> bool {
    let token = text.strip_prefix(b":").unwrap_or(text);
    let bad = token.iter().fold(false, |bad, &b| bad | !is_token_byte(b) | b.is_ascii_uppercase());
    !bad && !token.is_empty()
}

#[inline]
fn is_valid_value(value: &[u8]) -> bool {
    let bad = value.iter().fold(false, |bad, &b| bad | !is_value_byte(b));
    let is_space = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    !bad && !is_space(value.first()) && !is_space(value.last())
}

/// What is left of a block.
#[derive(Debug)]
struct Reader<'b> {
    rest: &'b [u8],
}

impl Reader<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// RFC 7541 §5.1.
    #[inline]
    fn integer(&mut self, prefix_bits: u32) -> Result<usize, HpackError> {
        let (&first, rest) = self.rest.split_first().ok_or(HpackError::Truncated)?;
        self.rest = rest;
        let most = (1usize << prefix_bits) - 1;
        let prefix = usize::from(first) & most;
        if prefix < most { Ok(prefix) } else { self.long_integer(most) }
    }

    fn long_integer(&mut self, prefix: usize) -> Result<usize, HpackError> {
        let mut value = prefix;
        for n in 0..MAX_INTEGER_BYTES {
            let (&byte, rest) = self.rest.split_first().ok_or(HpackError::Truncated)?;
            self.rest = rest;
            value += usize::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(HpackError::IntegerTooLarge)
    }

    /// RFC 7541 §5.2.
    #[inline]
    fn string(&mut self, arena: &mut Vec<u8>) -> Result<Span, HpackError> {
        let is_huffman = self.peek().is_some_and(|first| first & 0x80 != 0);
        let len = self.integer(7)?;
        let (text, rest) = self.rest.split_at_checked(len).ok_or(HpackError::Truncated)?;
        self.rest = rest;
        let start = arena.len();
        if is_huffman {
            huffman::decode(text, arena)?;
        } else {
            arena.extend_from_slice(text);
        }
        Ok(Span::new(start, arena.len() - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, HpackError> {
        let mut arena = b"before".to_vec();
        let mut block = decoder.block(block);
        let mut lines = Vec::new();
        while let Some(field) = block.next(&mut arena)? {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let name = field.name.text().map_or_else(|| text(field.name_text.of(&arena)), str::to_owned);
            assert_eq!(field.size(), name.len() + field.value.len() + 32);
            lines.push((name, text(field.value.of(&arena))));
        }
        Ok(lines)
    }

    fn table(decoder: &Decoder) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (0..decoder.table.len())
            .map(|age| {
                let (meta, name, value) = decoder.table.get(age).unwrap();
                (meta.name.text().map_or_else(|| text(name), str::to_owned), text(value))
            })
            .collect()
    }

    fn pairs(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], usize);

    /// Blocks of one connection: block, its lines, the table afterwards (youngest first), its size.
    fn run(table_size: usize, cases: &[Case<'_>]) {
        let mut decoder = Decoder::new(4096);
        decoder.table.set_max_size(table_size);
        for (block, lines, entries, size) in cases {
            assert_eq!(decode(&mut decoder, &bytes(block)).unwrap(), pairs(lines), "{block}");
            assert_eq!(table(&decoder), pairs(entries), "{block}");
            assert_eq!(decoder.table.size(), *size, "{block}");
        }
    }

    #[test]
    fn appendix_c_2_representations() {
        run(
            4096,
            &[(
                "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                &[("custom-key", "custom-header")],
                &[("custom-key", "custom-header")],
                55,
            )],
        );
        run(4096, &[("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], &[], 0)]);
        run(4096, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], &[], 0)]);
        run(4096, &[("82", &[(":method", "GET")], &[], 0)]);
    }

    const REQUEST_1: &[(&str, &str)] =
        &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
    const REQUEST_2: &[(&str, &str)] = &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ];
    const REQUEST_3: &[(&str, &str)] = &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];

    #[test]
    fn appendix_c_3_and_c_4_requests() {
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            run(
                4096,
                &[
                    (blocks[0], REQUEST_1, &[(":authority", "www.example.com")], 57),
                    (
                        blocks[1],
                        REQUEST_2,
                        &[("cache-control", "no-cache"), (":authority", "www.example.com")],
                        110,
                    ),
                    (
                        blocks[2],
                        REQUEST_3,
                        &[
                            ("custom-key", "custom-value"),
                            ("cache-control", "no-cache"),
                            (":authority", "www.example.com"),
                        ],
                        164,
                    ),
                ],
            );
        }
    }

    #[test]
    fn appendix_c_5_and_c_6_responses_with_eviction() {
        const COOKIE: &str = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
        let (date, later) = ("Mon, 21 Oct 2013 20:13:21 GMT", "Mon, 21 Oct 2013 20:13:22 GMT");
        let location = ("location", "https://www.example.com");
        let private = ("cache-control", "private");
        for blocks in [
            [
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 \
                 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 \
                 6c65 2e63 6f6d",
                "4803 3330 37c1 c0bf",
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d \
                 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 \
                 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e \
                 3d31",
            ],
            [
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                "4883 640e ffc1 c0bf",
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            ],
        ] {
            run(
                256,
                &[
                    (
                        blocks[0],
                        &[(":status", "302"), private, ("date", date), location],
                        &[location, ("date", date), private, (":status", "302")],
                        222,
                    ),
                    (
                        blocks[1],
                        &[(":status", "307"), private, ("date", date), location],
                        &[(":status", "307"), location, ("date", date), private],
                        222,
                    ),
                    (
                        blocks[2],
                        &[
                            (":status", "200"),
                            private,
                            ("date", later),
                            location,
                            ("content-encoding", "gzip"),
                            ("set-cookie", COOKIE),
                        ],
                        &[("set-cookie", COOKIE), ("content-encoding", "gzip"), ("date", later)],
                        215,
                    ),
                ],
            );
        }
    }

    #[test]
    fn broken_blocks_are_refused() {
        use HpackError::*;
        for (block, error) in [
            ("80", InvalidIndex),
            ("be", InvalidIndex),
            ("7f 00", InvalidIndex), // name of entry 63
            ("ff ff ff ff ff 01", IntegerTooLarge),
            ("ff ff ff ff 7f", InvalidIndex),
            ("ff", Truncated),
            ("ff 80", Truncated),
            ("40", Truncated),
            ("40 05 61 62", Truncated),
            ("40 01 61", Truncated),
            ("40 01 61 02 62", Truncated),
            ("40 01 61 7f ff ff ff ff", IntegerTooLarge),
            ("40 81 ff 00", InvalidHuffman),
            ("82 20", InvalidSizeUpdate),
            ("3f e2 1f", InvalidSizeUpdate), // 4097
        ] {
            assert_eq!(decode(&mut Decoder::new(4096), &bytes(block)), Err(error), "{block}");
        }
        assert_eq!(decode(&mut Decoder::new(4096), &bytes("20 3f e1 1f 82")).unwrap().len(), 1);
    }

    #[test]
    fn reduced_table_has_to_be_announced() {
        let mut decoder = Decoder::new(100);
        assert_eq!(decode(&mut decoder, &bytes("82")).unwrap().len(), 1);
        decoder.acknowledged(100);
        assert_eq!(decode(&mut decoder, &bytes("82")), Err(HpackError::MissingSizeUpdate));
        assert_eq!(decode(&mut decoder, &bytes("3f 45 82")).unwrap().len(), 1);
        assert_eq!(decode(&mut decoder, &bytes("82")).unwrap().len(), 1);
        assert_eq!(decode(&mut decoder, &bytes("3f 46")), Err(HpackError::InvalidSizeUpdate));
    }

    #[test]
    fn validity_is_remembered_with_the_entry() {
        let mut decoder = Decoder::new(4096);
        for (block, name, value) in [
            ("40 01 61 01 62", true, true),
            ("40 01 41 01 62", false, true),          // A: b
            ("40 04 48 6f 73 74 01 62", false, true), // Host: b
            ("40 01 61 03 62 0d 63", true, false),    // CR
            ("40 01 61 02 20 62", true, false),       // space in front
            ("40 01 61 02 62 09", true, false),       // tab at the end
            ("40 01 61 03 62 09 62", true, true),     // tab inside
            ("40 00 01 62", false, true),             // no name
            ("40 03 61 3a 62 01 62", false, true),    // a:b
            ("40 02 61 20 01 62", false, true),       // "a "
            ("40 01 61 00", true, true),              // no value
        ] {
            for block in [block, "be"] {
                let raw = bytes(block);
                let mut arena = Vec::new();
                let field = decoder.block(&raw).next(&mut arena).unwrap().unwrap();
                assert_eq!((field.is_valid_name(), field.is_valid_value()), (name, value), "{block}");
            }
        }
        let raw = bytes("10 01 61 01 62 00 01 61 01 62");
        let (mut arena, mut block) = (Vec::new(), decoder.block(&raw));
        assert!(block.next(&mut arena).unwrap().unwrap().is_never_indexed());
        assert!(!block.next(&mut arena).unwrap().unwrap().is_never_indexed());
    }
}
