//! Chunked content means the same however it is cut into reads, agrees with a plain reader that sees all of it, and
//! survives being written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_codec::field::is_value_byte;
use rhumb_codec::h1::{BodyDecoder, BodyError, Limits, write_chunk, write_last_chunk};
use rhumb_codec::head::Content;

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug, PartialEq)]
struct Message {
    content: Vec<u8>,
    used: usize,
    done: bool,
    trailers: Lines,
}

fn limits() -> Limits {
    Limits { chunk_ext_bytes: 64, trailer_bytes: 256, fields: 8, ..Limits::default() }
}

fn decode(input: &[u8], mut read_len: impl FnMut() -> usize) -> Result<Message, BodyError> {
    let mut decoder = BodyDecoder::new(Content::Streamed, &limits());
    let mut content = Vec::new();
    let mut used = 0;
    while used < input.len() && !decoder.is_done() {
        let mut buf = input[used..(used + read_len()).min(input.len())].to_vec();
        let step = decoder.decode(&mut buf)?;
        assert!(step.data <= step.consumed && step.consumed <= buf.len());
        assert!(step.consumed == buf.len() || step.done);
        content.extend_from_slice(&buf[..step.data]);
        used += step.consumed;
    }
    let trailers = decoder
        .trailers()
        .map(|fields| fields.iter().map(|line| (line.name.to_vec(), line.value.to_vec())).collect::<Lines>())
        .unwrap_or_default();
    assert!(trailers.iter().all(|(_, value)| value.iter().all(|&b| is_value_byte(b))));
    Ok(Message { content, used, done: decoder.is_done(), trailers })
}

/// Content and length of a complete message up to its trailers; `None` where a plain reader would stumble.
fn reference(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut content = Vec::new();
    let mut at = 0;
    loop {
        let line_len = input.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let line = std::str::from_utf8(&input[at..at + line_len]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?, 16).ok()?;
        at += line_len + 2;
        if size == 0 {
            return Some((content, at));
        }
        content.extend_from_slice(input.get(at..at.checked_add(size)?)?);
        at += size + 2;
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&seed, input)) = data.split_first() else { return };
    let whole = decode(input, || usize::MAX / 2);
    let mut state = u32::from(seed) + 1;
    let parts = decode(input, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 24) as usize % (1 + usize::from(seed & 0x0f))
    });
    assert_eq!(whole, parts);
    let Ok(message) = whole else { return };
    if !message.done {
        return;
    }
    if let Some((content, trailers_at)) = reference(input) {
        assert_eq!(content, message.content);
        assert!(trailers_at + 2 <= message.used);
    }
    let mut out = Vec::new();
    message.content.chunks(7).for_each(|chunk| write_chunk(chunk, &mut out));
    write_last_chunk(None, &mut out);
    let again = decode(&out, || 5).expect("what we write");
    assert_eq!((again.content, again.used, again.done), (message.content, out.len(), true));
});
