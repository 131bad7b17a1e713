//! The wire format of protocol buffers, as far as the few messages need it that a proxy speaks itself, and gRPC's framing
//! of them. Knows no message types.

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed protocol buffers message")
    }
}

impl std::error::Error for Malformed {}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Integers, enumerations and bools.
    Varint(u64),
    /// Eight bytes, little-endian: a double.
    Fixed64(u64),
    /// Four bytes, little-endian.
    Fixed32(u32),
    /// Strings, bytes and messages.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// What a string, bytes or message has; nothing for others.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A string, if it is UTF-8.
    pub fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// An integer, enumeration or bool.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Varint(number) => Some(number),
            _ => None,
        }
    }
}

/// The fields of a message in order.
#[derive(Clone, Debug)]
pub struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    /// The fields of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for at in 0..10 {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            // The tenth byte has room for one bit.
            if at == 9 && byte > 1 {
                return Err(Malformed);
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        if number == 0 {
            return Err(Malformed);
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Malformed)?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Malformed)?)),
            // Groups are gone since 2008, 6 and 7 never were.
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Message<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Writes messages. Fields with their default are left out, as proto3 does.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// A message that goes on behind what is written already.
    pub fn appending(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The message with the five bytes that gRPC puts before each: not compressed, length.
    pub fn into_grpc(self) -> Vec<u8> {
        let mut framed = Vec::with_capacity(self.0.len() + 5);
        framed.push(0);
        framed.extend_from_slice(&u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_be_bytes());
        framed.extend_from_slice(&self.0);
        framed
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An integer, enumeration or bool.
    pub fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
    }

    /// As [`Self::number`], zero included: a member of a oneof says by being there which one it is.
    pub fn always_number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    /// Eight bytes: a fixed64, or a double's bits.
    pub fn fixed64(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(field) << 3 | 1);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// As [`Self::fixed64`], zero included.
    pub fn always_fixed64(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A string or bytes.
    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.delimited(field, value);
        }
    }

    /// A message, which `write` appends.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.varint(u64::from(field) << 3 | 2);
        let at = self.0.len();
        // Room for the length of a short message, which most are.
        self.0.push(0);
        write(self);
        let length = self.0.len().saturating_sub(at + 1);
        match (u8::try_from(length), self.0.get_mut(at)) {
            (Ok(length @ ..0x80), Some(room)) => *room = length,
            _ => {
                let mut longer = Self::new();
                longer.varint(length as u64);
                self.0.splice(at..=at, longer.0);
            }
        }
    }

    /// An entry of a map from strings to strings.
    pub fn entry(&mut self, field: u32, key: &[u8], value: &[u8]) {
        self.message(field, |entry| {
            entry.bytes(1, key);
            entry.bytes(2, value);
        });
    }

    fn delimited(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

/// The one message of a gRPC response that has one: its five bytes before are taken off.
///
/// # Errors
/// When it is compressed, not whole, or not alone.
pub fn grpc_message(content: &[u8]) -> Result<&[u8], Malformed> {
    let (head, message) = content.split_at_checked(5).ok_or(Malformed)?;
    match head {
        [0, length @ ..] => {
            let length = u32::from_be_bytes(length.try_into().map_err(|_| Malformed)?);
            (usize::try_from(length) == Ok(message.len())).then_some(message).ok_or(Malformed)
        }
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new();
        writer.number(1, 300);
        writer.number(2, 0);
        writer.bytes(3, b"abc");
        writer.entry(4, b"k", b"v");
        writer.number(15, u64::MAX);
        let mut writer = Writer::appending(writer.into_bytes());
        writer.fixed64(16, 7);
        writer.always_number(17, 0);
        let bytes = writer.into_bytes();
        assert_eq!(bytes[..3], [0x08, 0xac, 0x02]);
        let fields: Vec<_> = Message::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(
            fields,
            [
                (1, Value::Varint(300)),
                (3, Value::Bytes(b"abc")),
                (4, Value::Bytes(&[0x0a, 1, b'k', 0x12, 1, b'v'])),
                (15, Value::Varint(u64::MAX)),
                (16, Value::Fixed64(7)),
                (17, Value::Varint(0)),
            ]
        );
    }

    #[test]
    fn messages_in_messages_have_the_length_that_they_come_to() {
        for length in
            [0, 1, 100, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 200, 16_383, 16_384, 40_000]
        {
            let content = vec![7; length];
            let mut writer = Writer::new();
            writer.number(1, 1);
            writer.message(2, |middle| {
                middle.message(3, |inner| inner.bytes(4, &content));
                middle.number(5, 5);
            });
            writer.number(6, 6);
            let bytes = writer.into_bytes();
            let outer: Vec<_> = Message::new(&bytes).map(Result::unwrap).collect();
            let [(1, Value::Varint(1)), (2, Value::Bytes(middle)), (6, Value::Varint(6))] = outer[..] else {
                panic!("{length}: {outer:?}");
            };
            let middle: Vec<_> = Message::new(middle).map(Result::unwrap).collect();
            let [(3, Value::Bytes(inner)), (5, Value::Varint(5))] = middle[..] else {
                panic!("{length}: {middle:?}");
            };
            let inner: Vec<_> = Message::new(inner).map(Result::unwrap).collect();
            let expected = if length == 0 { vec![] } else { vec![(4, Value::Bytes(&content[..]))] };
            assert_eq!(inner, expected);
        }
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        for bytes in [
            &[0x08][..],                                             // no value
            &[0x0a, 5, 1],                                           // too short
            &[0x00, 1],                                              // field 0
            &[0x0b],                                                 // a group
            &[0x09, 1, 2, 3],                                        // eight bytes
            &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2], // more than 64 bits
            &[0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], // a length beyond everything
        ] {
            assert_eq!(Message::new(bytes).last(), Some(Err(Malformed)), "{bytes:?}");
        }
        assert_eq!(grpc_message(&[0, 0, 0, 0, 2, 8, 1]), Ok(&[8, 1][..]));
        for content in [&[0, 0, 0, 0, 3, 8, 1][..], &[1, 0, 0, 0, 2, 8, 1], &[0, 0]] {
            assert_eq!(grpc_message(content), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            // Every step takes at least one byte.
            prop_assert!(Message::new(&bytes).count() <= bytes.len());
        }
    }
}
