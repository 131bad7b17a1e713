use super::*;
use crate::h1::{CHUNK_END, write_chunk, write_chunk_prefix, write_last_chunk};

use BodyError as B;
use FieldError as F;

/// Decodes `input` in reads that end at `splits`; content, bytes used, and the decoder.
fn decode(
    input: &[u8],
    splits: &[usize],
    limits: &Limits,
) -> Result<(Vec<u8>, usize, BodyDecoder), BodyError> {
    let mut decoder = BodyDecoder::new(Content::Streamed, limits);
    let mut content = Vec::new();
    let mut used = 0;
    let mut from = 0;
    for to in splits.iter().copied().chain([input.len()]) {
        let mut buf = input[from..to].to_vec();
        let decoded = decoder.decode(&mut buf)?;
        assert!(decoded.data <= decoded.consumed && decoded.consumed <= buf.len());
        assert_eq!(decoded.done, decoder.is_done());
        content.extend_from_slice(&buf[..decoded.data]);
        used += decoded.consumed;
        if decoded.done {
            break;
        }
        assert_eq!(decoded.consumed, buf.len(), "an unfinished message uses everything");
        from = to;
    }
    Ok((content, used, decoder))
}

fn trailers(decoder: &mut BodyDecoder) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    decoder
        .trailers()
        .map(|fields| fields.iter().map(|line| (text(line.name), text(line.value))).collect())
        .unwrap_or_default()
}

/// Chunked messages, their content, and what follows them.
const SERVED: &[(&str, &str, &str)] = &[
    ("0\r\n\r\n", "", ""),
    ("0\r\n\r\nGET", "", "GET"),
    ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
    ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nX", "hello world", "X"),
    ("00005\r\nhello\r\n0000000000000000\r\n\r\n", "hello", ""),
    ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", ""),
    ("5;a=b;c=\"d e\";f\r\nhello\r\n0;last\r\n\r\n", "hello", ""),
    ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", ""),
    ("5\r\nhello\r\n0\r\nX: y\r\n\r\nGET", "hello", "GET"),
    ("0\r\nX: y\r\nZ:\r\n\r\n\r\n", "", "\r\n"),
];

#[test]
fn chunks_become_content_however_they_arrive() {
    for &(input, content, rest) in SERVED {
        for split in 0..=input.len() {
            let (decoded, used, mut decoder) =
                decode(input.as_bytes(), &[split], &Limits::default()).unwrap();
            assert_eq!(decoded, content.as_bytes(), "{input:?} at {split}");
            assert_eq!(&input[used..], rest, "{input:?} at {split}");
            assert!(decoder.is_done() && decoder.on_eof().is_ok());
            assert_eq!(trailers(&mut decoder).is_empty(), !input.contains("X: y"), "{input:?}");
        }
        let every_byte: Vec<_> = (1..input.len()).collect();
        let (decoded, used, _) = decode(input.as_bytes(), &every_byte, &Limits::default()).unwrap();
        assert_eq!((decoded.as_slice(), &input[used..]), (content.as_bytes(), rest), "{input:?}");
    }
}

const REFUSED: &[(&str, BodyError)] = &[
    ("\r\n", B::ChunkSizeInvalid),
    ("\n", B::ChunkSizeInvalid),
    (";a=b\r\n", B::ChunkSizeInvalid),
    ("g\r\n", B::ChunkSizeInvalid),
    ("-1\r\n", B::ChunkSizeInvalid),
    ("+1\r\n", B::ChunkSizeInvalid),
    ("0x5\r\n", B::ChunkSizeInvalid),
    ("0X5\r\n", B::ChunkSizeInvalid),
    ("5_0\r\n", B::ChunkSizeInvalid),
    (" 5\r\nhello", B::ChunkSizeInvalid),
    ("\t5\r\nhello", B::ChunkSizeInvalid),
    ("5 \r\nhello", B::ChunkSizeInvalid),
    ("5\t\r\nhello", B::ChunkSizeInvalid),
    ("5 ;a=b\r\nhello", B::ChunkSizeInvalid),
    ("5,\r\nhello", B::ChunkSizeInvalid),
    ("5.0\r\nhello", B::ChunkSizeInvalid),
    ("5\0\r\nhello", B::ChunkSizeInvalid),
    ("\u{ff15}\r\nhello", B::ChunkSizeInvalid),
    ("8000000000000000\r\n", B::ChunkSizeTooLarge),
    ("ffffffffffffffff\r\n", B::ChunkSizeTooLarge),
    ("fffffffffffffffff\r\n", B::ChunkSizeTooLarge),
    ("10000000000000000\r\n", B::ChunkSizeTooLarge),
    ("00000000000000005\r\n", B::ChunkSizeTooLarge),
    ("5\nhello", B::ChunkLineEnd),
    ("5\rhello", B::ChunkLineEnd),
    ("5\r\rhello", B::ChunkLineEnd),
    ("5;a\nhello", B::ChunkLineEnd),
    ("5;a\rb\r\nhello", B::ChunkLineEnd),
    ("5;a\0b\r\nhello", B::ChunkExtensionInvalid),
    ("5;a\x0bb\r\nhello", B::ChunkExtensionInvalid),
    ("5;a\x7f\r\nhello", B::ChunkExtensionInvalid),
    ("5\r\nhello0\r\n\r\n", B::ChunkDataEnd),
    ("5\r\nhello\n0\r\n\r\n", B::ChunkDataEnd),
    ("5\r\nhello\rx", B::ChunkDataEnd),
    ("5\r\nhello\r\r\n", B::ChunkDataEnd),
    ("5\r\nhello \r\n", B::ChunkDataEnd),
    ("5\r\nhello\r\n\r\n", B::ChunkSizeInvalid),
    ("0\r\n\rX", B::Trailers(F::BareCr)),
    ("0\r\n\n", B::Trailers(F::BareLf)),
    ("0\n\r\n", B::ChunkLineEnd),
    ("0\r\nX: y\n\r\n", B::Trailers(F::BareLf)),
    ("0\r\nX: y\rz\r\n\r\n", B::Trailers(F::BareCr)),
    ("0\r\nX : y\r\n\r\n", B::Trailers(F::SpaceInFieldName)),
    ("0\r\n X: y\r\n\r\n", B::Trailers(F::SpaceBeforeFirstField)),
    ("0\r\nX: y\r\n z\r\n\r\n", B::Trailers(F::ObsFold)),
    ("0\r\nGET / HTTP/1.1\r\n\r\n", B::Trailers(F::SpaceInFieldName)),
    ("0\r\n: y\r\n\r\n", B::Trailers(F::FieldNameEmpty)),
    ("0\r\nX\r\n\r\n", B::Trailers(F::FieldWithoutColon)),
    ("0\r\nX@: y\r\n\r\n", B::Trailers(F::FieldNameInvalid)),
    ("0\r\nX: \0\r\n\r\n", B::Trailers(F::FieldValueInvalid)),
];

#[test]
fn chunked_content_that_could_be_read_otherwise_is_refused() {
    for (input, expected) in REFUSED {
        for split in 0..=input.len() {
            let result = decode(input.as_bytes(), &[split], &Limits::default());
            assert_eq!(result.map(|_| ()), Err(*expected), "{input:?} at {split}");
        }
    }
}

#[test]
fn extensions_trailers_and_their_lines_are_bounded() {
    let limits = Limits { chunk_ext_bytes: 4, trailer_bytes: 8, fields: 1, ..Limits::default() };
    for (input, expected) in [
        ("1;ab\r\nx\r\n1;cd\r\nx\r\n0\r\n\r\n", Ok(())),
        ("1;ab\r\nx\r\n1;cde\r\nx\r\n0\r\n\r\n", Err(B::ChunkExtensionsTooLong)),
        ("0\r\nX: y\r\n\r\n", Ok(())),
        ("0\r\nX: yz\r\n\r\n", Err(B::Trailers(F::SectionTooLong))),
        ("0\r\nX: yzabcdefghijkl", Err(B::Trailers(F::SectionTooLong))),
        ("0\r\nX:\r\nY:\r\n\r\n", Err(B::Trailers(F::SectionTooLong))),
    ] {
        for split in 0..=input.len() {
            assert_eq!(
                decode(input.as_bytes(), &[split], &limits).map(|_| ()),
                expected,
                "{input:?} {split}"
            );
        }
    }
    let limits = Limits { fields: 1, ..Limits::default() };
    let result = decode(b"0\r\nX:\r\nY:\r\n\r\n", &[], &limits);
    assert_eq!(result.map(|_| ()), Err(B::Trailers(F::TooManyFields)));
}

#[test]
fn trailers_that_frame_route_or_authenticate_are_dropped() {
    let input = b"0\r\nX-Sum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nAuthorization: a\r\n\
        Cookie: c\r\nSet-Cookie: s\r\nX-Forwarded-For: f\r\nConnection: close\r\nContent-Type: t\r\nTrailer: x\r\n\
        ETag: e\r\ngrpc-status: 0\r\nGrpc-Message: m\r\nProxy-Status: p\r\nCache-Control: no\r\n\r\n";
    let (_, used, mut decoder) = decode(input, &[], &Limits::default()).unwrap();
    assert_eq!(used, input.len());
    let names: Vec<_> = trailers(&mut decoder).into_iter().map(|(name, _)| name.to_lowercase()).collect();
    assert_eq!(names, ["x-sum", "etag", "grpc-status", "grpc-message", "proxy-status"]);

    let (.., mut decoder) = decode(b"0\r\nHost: b\r\n\r\n", &[], &Limits::default()).unwrap();
    assert!(decoder.trailers().is_none(), "nothing is left");
}

#[test]
fn known_length_takes_its_bytes_and_no_more() {
    let mut decoder = BodyDecoder::new(Content::Length(5), &Limits::default());
    assert_eq!(decoder.remaining(), Some(5));
    assert_eq!(decoder.decode(&mut []), Ok(Decoded { consumed: 0, data: 0, done: false }));
    assert_eq!(decoder.decode(&mut b"hel".to_vec()), Ok(Decoded { consumed: 3, data: 3, done: false }));
    assert_eq!(decoder.on_eof(), Err(B::Incomplete));
    assert_eq!(decoder.decode(&mut b"loGET".to_vec()), Ok(Decoded { consumed: 2, data: 2, done: true }));
    assert_eq!(decoder.decode(&mut b"GET".to_vec()), Ok(Decoded { consumed: 0, data: 0, done: true }));
    assert_eq!((decoder.on_eof(), decoder.remaining()), (Ok(()), None));
}

#[test]
fn the_end_of_the_connection_ends_only_what_waits_for_it() {
    for (content, at_start) in [
        (Content::None, Ok(())),
        (Content::Length(0), Ok(())),
        (Content::Length(1), Err(B::Incomplete)),
        (Content::Streamed, Err(B::Incomplete)),
        (Content::UntilClose, Ok(())),
    ] {
        let mut decoder = BodyDecoder::new(content, &Limits::default());
        assert_eq!(decoder.is_done(), content.is_empty());
        assert_eq!(decoder.on_eof(), at_start, "{content:?}");
        assert_eq!(decoder.is_done(), at_start.is_ok());
    }
    let mut decoder = BodyDecoder::new(Content::UntilClose, &Limits::default());
    assert_eq!(decoder.decode(&mut b"abc".to_vec()), Ok(Decoded { consumed: 3, data: 3, done: false }));
    let whole = b"5\r\nhello\r\n0\r\nX: y\r\n\r\n";
    for len in 0..whole.len() {
        let (.., mut decoder) = decode(&whole[..len], &[], &Limits::default()).unwrap();
        assert_eq!(decoder.on_eof(), Err(B::Incomplete), "{len}");
        assert!(decoder.trailers().is_none());
    }
}

#[test]
fn bytes_may_pass_beside_the_decoder() {
    let limits = Limits::default();
    let mut decoder = BodyDecoder::new(Content::Length(1 << 40), &limits);
    decoder.skip((1 << 40) - 1);
    assert_eq!((decoder.remaining(), decoder.is_done()), (Some(1), false));
    decoder.skip(1);
    assert!(decoder.is_done());

    let mut decoder = BodyDecoder::new(Content::Streamed, &limits);
    assert_eq!(decoder.remaining(), None);
    decoder.decode(&mut b"100000\r\nabc".to_vec()).unwrap();
    assert_eq!(decoder.remaining(), Some(0x100000 - 3));
    decoder.skip(0x100000 - 3);
    assert_eq!(decoder.remaining(), None);
    assert_eq!(
        decoder.decode(&mut b"\r\n0\r\n\r\n".to_vec()),
        Ok(Decoded { consumed: 7, data: 0, done: true })
    );
}

#[test]
fn written_chunks_are_read_back() {
    let mut out = Vec::new();
    write_chunk(b"", &mut out);
    write_chunk_prefix(0, &mut out);
    assert!(out.is_empty(), "an empty chunk would be the last one");
    for (len, prefix) in
        [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (4096, "1000\r\n"), (0xabcdef, "abcdef\r\n")]
    {
        let mut out = Vec::new();
        write_chunk_prefix(len, &mut out);
        assert_eq!(out, prefix.as_bytes());
    }
    write_chunk(b"hello", &mut out);
    write_chunk_prefix(6, &mut out);
    out.extend_from_slice(b" world");
    out.extend_from_slice(CHUNK_END);
    let mut fields = Fields::new();
    fields.append_raw(Known::Other, b"X-Sum", b"7");
    fields.append(Known::GrpcStatus, b"0");
    fields.append(Known::SetCookie, b"not here");
    write_last_chunk(Some(&fields), &mut out);
    assert_eq!(out, b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 7\r\ngrpc-status: 0\r\n\r\n");
    let (content, used, mut decoder) = decode(&out, &[], &Limits::default()).unwrap();
    assert_eq!((content.as_slice(), used), (&b"hello world"[..], out.len()));
    assert_eq!(trailers(&mut decoder).len(), 2);
}

#[test]
fn a_decoder_is_small() {
    assert!(size_of::<BodyDecoder>() <= 40, "{}", size_of::<BodyDecoder>());
}

#[test]
#[ignore = "writes the corpus of a fuzz target"]
fn cases_are_a_corpus() {
    let inputs = SERVED.iter().map(|(input, ..)| input).chain(REFUSED.iter().map(|(input, _)| input));
    crate::h1::tests::write_corpus("h1_chunked", inputs.map(|input| input.as_bytes().to_vec()));
}
