//! HPACK (RFC 7541) for tests: an encoder that writes exactly what it is told, valid or not, and a decoder for what
//! the proxy answers.

use std::collections::VecDeque;

/// How a test wants a field on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// §6.2.2, literal without indexing, new name.
    Plain,
    /// §6.2.1, literal with incremental indexing, new name.
    Indexed,
}

/// Fields as literals without indexing and without Huffman coding.
pub fn encode<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        literal(&mut out, Form::Plain, name.as_ref(), value.as_ref());
    }
    out
}

/// One literal field.
pub fn literal(out: &mut Vec<u8>, form: Form, name: &[u8], value: &[u8]) {
    out.push(if form == Form::Indexed { 0x40 } else { 0x00 });
    string(out, name);
    string(out, value);
}

/// An indexed field (§6.1).
pub fn indexed(out: &mut Vec<u8>, index: usize) {
    integer(out, 0x80, 7, index);
}

/// A dynamic table size update (§6.3).
pub fn table_size(out: &mut Vec<u8>, size: usize) {
    integer(out, 0x20, 5, size);
}

/// An integer with a prefix of `bits` bits (§5.1).
pub fn integer(out: &mut Vec<u8>, first: u8, bits: u8, mut value: usize) {
    let most = (1usize << bits) - 1;
    if value < most {
        out.push(first | value as u8);
        return;
    }
    out.push(first | most as u8);
    value -= most;
    while value >= 128 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

/// The decoder of one direction.
#[derive(Debug)]
pub struct Decoder {
    table: VecDeque<(String, String)>,
    size: usize,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, limit: 4096 }
    }
}

impl Decoder {
    /// The fields of a complete block.
    pub fn decode(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, String> {
        let mut input = block;
        let mut fields = Vec::new();
        while let Some(&first) = input.first() {
            if first & 0x80 != 0 {
                let index = take_integer(&mut input, 7)?;
                fields.push(self.at(index)?);
            } else if first & 0xe0 == 0x20 {
                self.limit = take_integer(&mut input, 5)?;
                self.shrink();
            } else {
                let indexing = first & 0xc0 == 0x40;
                let index = take_integer(&mut input, if indexing { 6 } else { 4 })?;
                let name = if index == 0 { take_string(&mut input)? } else { self.at(index)?.0 };
                let value = take_string(&mut input)?;
                if indexing {
                    self.size += name.len() + value.len() + 32;
                    self.table.push_front((name.clone(), value.clone()));
                    self.shrink();
                }
                fields.push((name, value));
            }
        }
        Ok(fields)
    }

    fn at(&self, index: usize) -> Result<(String, String), String> {
        let (fixed, dynamic) = (STATIC.get(index.wrapping_sub(1)), index.checked_sub(STATIC.len() + 1));
        match (fixed, dynamic.and_then(|at| self.table.get(at))) {
            (Some((name, value)), _) => Ok(((*name).to_owned(), (*value).to_owned())),
            (_, Some(field)) => Ok(field.clone()),
            _ => Err(format!("index {index} of a table of {}", self.table.len())),
        }
    }

    fn shrink(&mut self) {
        while self.size > self.limit {
            let Some((name, value)) = self.table.pop_back() else { return };
            self.size -= name.len() + value.len() + 32;
        }
    }
}

fn take_integer(input: &mut &[u8], bits: u8) -> Result<usize, String> {
    let mut next = || -> Result<u8, String> {
        let (&byte, rest) = input.split_first().ok_or("the block ends in an integer")?;
        *input = rest;
        Ok(byte)
    };
    let most = (1usize << bits) - 1;
    let mut value = usize::from(next()?) & most;
    if value < most {
        return Ok(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = next()?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("an integer beyond 28 bits".into())
}

fn take_string(input: &mut &[u8]) -> Result<String, String> {
    let coded = input.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = take_integer(input, 7)?;
    if length > input.len() {
        return Err("the block ends in a string".into());
    }
    let (text, rest) = input.split_at(length);
    *input = rest;
    let bytes = if coded { huffman(text)? } else { text.to_vec() };
    Ok(crate::message::latin(&bytes))
}

/// §5.2 and Appendix B. The code is canonical: lengths alone define it.
fn huffman(input: &[u8]) -> Result<Vec<u8>, String> {
    let mut by_length: Vec<(u8, u16)> =
        CODE_LENGTHS.iter().enumerate().map(|(symbol, length)| (*length, symbol as u16)).collect();
    by_length.sort_unstable();
    let mut out = Vec::new();
    let (mut code, mut length) = (0u32, 0u8);
    for bit in input.iter().flat_map(|byte| (0..8).rev().map(move |shift| u32::from(byte >> shift & 1))) {
        code = code << 1 | bit;
        length += 1;
        if length > 30 {
            return Err("no such Huffman code".into());
        }
        if let Some(symbol) = find(&by_length, code, length) {
            out.push(u8::try_from(symbol).map_err(|_| "end-of-string symbol")?);
            (code, length) = (0, 0);
        }
    }
    // Padding: at most seven bits, all ones.
    if length > 7 || code != (1 << length) - 1 {
        return Err("Huffman padding".into());
    }
    Ok(out)
}

fn find(by_length: &[(u8, u16)], code: u32, length: u8) -> Option<u16> {
    let (mut next, mut bits) = (0u32, 0u8);
    for &(of, symbol) in by_length {
        next <<= of - bits;
        bits = of;
        if of > length {
            return None;
        }
        if of == length && next == code {
            return Some(symbol);
        }
        next += 1;
    }
    None
}

/// Appendix B: bits of the code of each byte, then of the end-of-string symbol.
#[rustfmt::skip]
const CODE_LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// Appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""),
    ("cache-control", ""), ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""),
    ("content-length", ""), ("content-location", ""), ("content-range", ""), ("content-type", ""),
    ("cookie", ""), ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""),
    ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""),
    ("retry-after", ""), ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""),
    ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_appendix_c_decode() {
        // C.4.1 to C.4.3: requests with Huffman coding, one connection.
        let mut decoder = Decoder::default();
        let blocks = [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ];
        let last: Vec<_> = blocks
            .map(|hex| {
                let bytes: Vec<u8> = (0..hex.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                    .collect();
                decoder.decode(&bytes).unwrap()
            })
            .into();
        assert_eq!(last[0][3], (":authority".into(), "www.example.com".into()));
        assert_eq!(last[1][4], ("cache-control".into(), "no-cache".into()));
        assert_eq!(last[2][4], ("custom-key".into(), "custom-value".into()));
    }

    #[test]
    fn what_is_encoded_decodes() {
        let mut block = encode(&[(":method", "GET"), ("x", &"y".repeat(300))]);
        table_size(&mut block, 100);
        literal(&mut block, Form::Indexed, b"a", b"b");
        indexed(&mut block, 62);
        let fields = Decoder::default().decode(&block).unwrap();
        assert_eq!((fields.len(), fields[1].1.len(), &fields[2]), (4, 300, &fields[3]));
    }
}
