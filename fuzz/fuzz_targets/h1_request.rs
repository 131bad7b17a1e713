//! A request is refused, or it has one meaning: in two parts as in one, and after it has been written again with
//! exactly one framing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_codec::field::{Fields, is_value_byte};
use rhumb_codec::h1::{Limits, RequestError, parse_request, write_request};
use rhumb_codec::head::{Content, RequestHead, Scheme, Version};

fn parse(
    input: &[u8],
    limits: &Limits,
    scheme: Scheme,
) -> Result<Option<(usize, RequestHead)>, RequestError> {
    let mut head = RequestHead::new();
    Ok(parse_request(input, limits, scheme, &mut head)?.map(|len| (len, head)))
}

fn lines(fields: &Fields) -> Vec<(&[u8], &[u8])> {
    fields.iter().map(|line| (line.name, line.value)).collect()
}

/// How many lines of a written head have one of these names. Splits at CRLF and colon, as simply as can be.
fn count(head: &[u8], names: &[&str]) -> usize {
    String::from_utf8_lossy(head)
        .split("\r\n")
        .skip(1)
        .filter(|line| names.iter().any(|name| line.split(':').next().unwrap().eq_ignore_ascii_case(name)))
        .count()
}

fuzz_target!(|data: &[u8]| {
    let Some((&selector, input)) = data.split_first() else { return };
    let scheme = if selector & 0x80 == 0 { Scheme::Http } else { Scheme::Https };
    let limits = Limits { head_bytes: 4096, fields: 32, target_bytes: 1024, ..Limits::default() };
    let whole = parse(input, &limits, scheme);
    let split = usize::from(selector & 0x7f) * input.len() / 128;
    match (parse(&input[..split], &limits, scheme), &whole) {
        (Ok(None), _) => {}
        (Ok(Some((part, _))), Ok(Some((len, _)))) => assert_eq!(part, *len),
        (Err(part), Err(whole)) => assert_eq!(part, *whole),
        (part, whole) => panic!("{part:?} became {whole:?}"),
    }
    let Ok(Some((len, head))) = whole else { return };
    assert!(len <= input.len());
    assert!(head.fields.iter().all(|line| line.value.iter().all(|&b| is_value_byte(b))));

    let mut out = Vec::new();
    write_request(&head, &mut out);
    let framings = count(&out, &["content-length", "transfer-encoding"]);
    assert!(framings <= 1 && count(&out, &["host"]) == 1 && count(&out, &["connection"]) <= 1);
    assert_eq!(framings == 0, head.content == Content::None && count(&out, &["content-length"]) == 0);
    if head.authority().is_empty() {
        return;
    }
    let (len, again) = parse(&out, &Limits::default(), scheme).expect("what we write").expect("is complete");
    assert_eq!(len, out.len());
    assert_eq!((head.method_name(), head.authority()), (again.method_name(), again.authority()));
    assert_eq!((head.path(), head.query()), (again.path(), again.query()));
    assert_eq!((head.upgrade(), head.expect_continue), (again.upgrade(), again.expect_continue));
    assert_eq!(head.accepts_trailers && head.version == Version::Http11, again.accepts_trailers);
    assert_eq!(lines(&head.fields), lines(&again.fields));
    assert!(
        head.content == again.content || (head.content, again.content) == (Content::None, Content::Length(0))
    );
});
