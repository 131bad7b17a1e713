//! A response is refused, or it has one meaning: in two parts as in one, and after it has been written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_codec::field::{Fields, is_value_byte};
use rhumb_codec::h1::{BodyFraming, Limits, ResponseContext, ResponseError, parse_response, write_response};
use rhumb_codec::head::{Content, Method, ResponseHead, Version};

fn parse(
    input: &[u8],
    limits: &Limits,
    method: Method,
) -> Result<Option<(usize, ResponseHead)>, ResponseError> {
    let mut head = ResponseHead::default();
    Ok(parse_response(input, limits, method, &mut head)?.map(|len| (len, head)))
}

fn lines(fields: &Fields) -> Vec<(&[u8], &[u8])> {
    fields.iter().map(|line| (line.name, line.value)).collect()
}

fn count(head: &[u8], names: &[&str]) -> usize {
    String::from_utf8_lossy(head)
        .split("\r\n")
        .skip(1)
        .filter(|line| names.iter().any(|name| line.split(':').next().unwrap().eq_ignore_ascii_case(name)))
        .count()
}

fuzz_target!(|data: &[u8]| {
    let Some((&selector, input)) = data.split_first() else { return };
    let method = [Method::Get, Method::Head, Method::Connect, Method::Post][usize::from(selector >> 6)];
    let keep_alive = selector & 0x20 == 0;
    let limits = Limits { head_bytes: 4096, fields: 32, ..Limits::default() };
    let whole = parse(input, &limits, method);
    let split = usize::from(selector & 0x1f) * input.len() / 32;
    match (parse(&input[..split], &limits, method), &whole) {
        (Ok(None), _) => {}
        (Ok(Some((part, _))), Ok(Some((len, _)))) => assert_eq!(part, *len),
        (Err(part), Err(whole)) => assert_eq!(part, *whole),
        (part, whole) => panic!("{part:?} became {whole:?}"),
    }
    let Ok(Some((len, head))) = whole else { return };
    assert!(len <= input.len() && (100..600).contains(&head.status));
    assert!(head.fields.iter().all(|line| line.value.iter().all(|&b| is_value_byte(b))));

    for client_version in [Version::Http11, Version::Http10] {
        let context = ResponseContext { client_version, request_method: method, keep_alive };
        let mut out = Vec::new();
        let framing = write_response(&head, context, &mut out);
        if out.is_empty() {
            assert!(head.is_interim() && client_version == Version::Http10);
            continue;
        }
        assert!(
            count(&out, &["content-length", "transfer-encoding"]) <= 1 && count(&out, &["connection"]) <= 1
        );
        let (len, again) =
            parse(&out, &Limits::default(), method).expect("what we write").expect("is complete");
        assert_eq!(len, out.len());
        assert_eq!((head.status, head.declared_length), (again.status, again.declared_length));
        assert_eq!((head.upgrade(), lines(&head.fields)), (again.upgrade(), lines(&again.fields)));
        assert_eq!(framing == BodyFraming::None, head.content == Content::None);
        let expected = match framing {
            BodyFraming::None => Content::None,
            BodyFraming::Length(length) => Content::Length(length),
            BodyFraming::Chunked => Content::Streamed,
            BodyFraming::UntilClose => Content::UntilClose,
        };
        assert_eq!(again.content, expected);
    }
});
