//! Decoding never panics and stays bounded, the table of the decoder is what a plain one would be, and what is decoded
//! survives encoding and decoding again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_codec::h2::hpack::{Decoder, Encoder, Field, Name};

/// Name, value, never indexed.
type Line = (Vec<u8>, Vec<u8>, bool);

fn line(field: &Field, arena: &[u8]) -> Line {
    let name =
        field.name.text().map_or_else(|| field.name_text.of(arena).to_vec(), |text| text.as_bytes().to_vec());
    (name, field.value.of(arena).to_vec(), field.is_never_indexed())
}

/// The lines of a block, as far as they may be kept, and whether it was good to its end.
fn decode(decoder: &mut Decoder, block: &[u8]) -> (Vec<Line>, bool) {
    let mut arena = Vec::new();
    let mut lines = Vec::new();
    let mut size = 0;
    let mut block = decoder.block(block);
    loop {
        match block.next(&mut arena) {
            Ok(Some(field)) => {
                let line = line(&field, &arena);
                assert_eq!(field.size(), line.0.len() + line.1.len() + 32);
                if field.is_valid_name() {
                    assert!(!line.0.is_empty() && !line.0.iter().any(u8::is_ascii_uppercase));
                    assert_eq!(Name::of(&line.0), field.name);
                }
                if field.is_valid_value() {
                    assert!(!line.1.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
                    assert_eq!(line.1.trim_ascii().len(), line.1.len());
                }
                size += field.size();
                if size > 1 << 18 {
                    return (lines, false);
                }
                lines.push(line);
            }
            Ok(None) => return (lines, true),
            Err(_) => return (lines, false),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(([table, limit], rest)) = data.split_first_chunk::<2>() else { return };
    let table_size = usize::from(*table) * 32;
    let mut decoder = Decoder::new(table_size);
    let mut encoder = Encoder::new(usize::from(*limit) * 64);
    let mut second = Decoder::new(4096);
    let mut out = Vec::new();
    // Blocks of one connection: each begins with its length and, for some, a change of the table's limit.
    let mut rest = rest;
    while let Some(([len, change], tail)) = rest.split_first_chunk::<2>() {
        let (block, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        let (lines, is_good) = decode(&mut decoder, block);
        if *change & 7 == 1 {
            encoder.set_peer_limit(usize::from(*change) * 16);
        }
        out.clear();
        encoder.begin(&mut out);
        for (name, value, never) in &lines {
            encoder.field(Name::of(name), name, value, *never, &mut out);
        }
        let (again, is_good_again) = decode(&mut second, &out);
        assert!(is_good_again);
        assert_eq!(again.len(), lines.len());
        for (line, again) in lines.iter().zip(&again) {
            assert_eq!((&line.0, &line.1), (&again.0, &again.1));
            // Ours are secret too.
            assert!(!line.2 || again.2);
        }
        if !is_good {
            return;
        }
        assert!(decoder.capacity() < 64 << 10 && encoder.capacity() < 64 << 10);
    }
});
