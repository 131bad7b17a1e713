//! What holds for every message, on random ones and on valid ones with random damage.

use super::*;
use crate::field::{Fields, Known, is_value_byte};
use crate::head::{Content, IN_HEAD, Method, RequestHead, ResponseHead, Scheme, Version};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

type Line = (Vec<u8>, Vec<u8>);

fn lines(fields: &Fields) -> Vec<Line> {
    fields.iter().map(|line| (line.name.to_vec(), line.value.to_vec())).collect()
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z][A-Za-z0-9-]{0,20}",
        select(&["Cookie", "ACCEPT", "x-forwarded-for", "Via", "Date"][..]).prop_map(str::to_string)
    ]
    .prop_filter("lines that become part of the head", |name| !IN_HEAD.contains(Known::of(name.as_bytes())))
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|byte| if is_value_byte(byte) { byte } else { b'.' });
    vec(byte, 0..40).prop_map(|bytes| bytes.trim_ascii().to_vec())
}

fn fields() -> impl Strategy<Value = Vec<Line>> {
    vec((name().prop_map(String::into_bytes), value()), 0..12)
}

fn request() -> impl Strategy<Value = RequestHead> {
    let method =
        prop_oneof![select(Method::NAMED).prop_map(|method| method.name().to_string()), "[A-Z!#]{1,32}"];
    let authority = "[a-z]([a-z0-9-]{0,8}[.])?[a-z]{2,8}(:[1-9][0-9]{0,3})?";
    let target = "/[!-\"$-~]{0,40}";
    let content = prop_oneof![
        Just(Content::None),
        (0..=i64::MAX as u64).prop_map(Content::Length),
        Just(Content::Streamed)
    ];
    let upgrade = proptest::option::of(select(&["websocket", "a/1, b"][..]));
    (method, authority, target, fields(), content, upgrade, any::<(bool, bool)>()).prop_map(
        |(method, authority, target, fields, content, upgrade, (expect, trailers))| {
            let mut head = RequestHead::new();
            head.set_method(method.as_bytes());
            head.set_authority(authority.as_bytes());
            match head.method() {
                Method::Connect => {
                    let host = String::from_utf8_lossy(head.host()).into_owned();
                    head.set_authority(format!("{host}:443").as_bytes());
                }
                _ => head.set_target(target.as_bytes()),
            }
            for (name, value) in fields {
                head.fields.append_raw(Known::of(&name), &name, &value);
            }
            if !matches!(head.method(), Method::Connect | Method::Trace) {
                head.content = content;
            }
            head.set_upgrade(upgrade.map(str::as_bytes));
            head.expect_continue = expect && !head.content.is_empty();
            head.accepts_trailers = trailers;
            head
        },
    )
}

/// What may be lost by damage or be gained: pieces that have meaning to some reader.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"\0",
        b":",
        b",",
        b";",
        b"\x0b",
        b"\x7f",
        b"\x80",
        b"#",
        b"?",
        b"*",
        b"/",
        b"_",
        b"0",
        b"Content-Length: 1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b"Connection: x\r\n",
        b"chunked",
        b"HTTP/1.0",
        b"http://a",
        b"CONNECT a:1",
        b"GET / HTTP/1.1\r\n",
        b"[::1]",
    ];
    prop_oneof![4 => select(pieces).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 1..3)]
}

/// Where, how many bytes go, and what comes instead.
type Damage = Vec<(prop::sample::Index, usize, Vec<u8>)>;

fn damage() -> impl Strategy<Value = Damage> {
    vec((any::<prop::sample::Index>(), 0usize..3, prop_oneof![piece(), Just(Vec::new())]), 0..4)
}

fn damaged(mut message: Vec<u8>, damage: &Damage) -> Vec<u8> {
    for (at, removed, inserted) in damage {
        let at = at.index(message.len() + 1);
        let end = (at + removed).min(message.len());
        message.splice(at..end, inserted.iter().copied());
    }
    message
}

/// The fields that a lenient, independent reader finds: httparse as it comes, and a line splitter.
fn independent_fields(head: &[u8]) -> Vec<Line> {
    let mut found = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let start = head.windows(2).position(|two| two == b"\r\n").expect("a start line") + 2;
    let (_, found) = httparse::parse_headers(&head[start..], &mut found).unwrap().unwrap();
    let found: Vec<Line> =
        found.iter().map(|line| (line.name.as_bytes().to_vec(), line.value.to_vec())).collect();
    // The line end before the empty line is the start line's when there are no fields.
    let section = head[start - 2..].strip_suffix(b"\r\n\r\n").expect("an empty line");
    let split: Vec<Line> = split(section, b"\r\n")
        .into_iter()
        .skip(1)
        .map(|line| {
            let colon = line.iter().position(|&b| b == b':').expect("a colon");
            (line[..colon].to_vec(), line[colon + 1..].trim_ascii().to_vec())
        })
        .collect();
    assert_eq!(found, split);
    found
}

fn split<'a>(mut text: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = memchr::memmem::find(text, by) {
        parts.push(&text[..at]);
        text = &text[at + by.len()..];
    }
    parts.push(text);
    parts
}

/// Every field of the head was in the message, in order; no control byte passed.
fn assert_fields_are_from(fields: &Fields, message: &[u8]) {
    let mut all = independent_fields(message).into_iter();
    for line in lines(fields) {
        assert!(line.1.iter().all(|&b| is_value_byte(b)));
        assert!(!IN_HEAD.contains(Known::of(&line.0)));
        assert!(all.any(|found| found == line), "{line:?} is not in the message");
    }
}

fn count(head: &[u8], name: Known) -> usize {
    independent_fields(head).iter().filter(|line| Known::of(&line.0) == name).count()
}

fn read_request(input: &[u8]) -> Result<Option<(usize, RequestHead)>, RequestError> {
    let mut head = RequestHead::new();
    Ok(parse_request(input, &Limits::default(), Scheme::Http, &mut head)?.map(|len| (len, head)))
}

fn read_response(input: &[u8], method: Method) -> Result<Option<(usize, ResponseHead)>, ResponseError> {
    let mut head = ResponseHead::default();
    Ok(parse_response(input, &Limits::default(), method, &mut head)?.map(|len| (len, head)))
}

fn assert_same_request(a: &RequestHead, b: &RequestHead) {
    assert_eq!(a.method_name(), b.method_name());
    assert_eq!((a.authority(), a.path(), a.query()), (b.authority(), b.path(), b.query()));
    assert_eq!((a.upgrade(), a.expect_continue), (b.upgrade(), b.expect_continue));
    assert_eq!(a.accepts_trailers && a.version == Version::Http11, b.accepts_trailers);
    assert_eq!(lines(&a.fields), lines(&b.fields));
    match (a.content, b.content) {
        // Where content is anticipated its absence is said.
        (Content::None, Content::Length(0)) => {}
        (a, b) => assert_eq!(a, b),
    }
}

proptest! {
    #[test]
    fn a_written_request_is_read_back_the_same(head in request()) {
        let mut out = Vec::new();
        write_request(&head, &mut out);
        let (len, again) = read_request(&out).unwrap().unwrap();
        prop_assert_eq!(len, out.len());
        assert_same_request(&head, &again);
    }

    #[test]
    fn a_damaged_request_is_refused_or_has_one_meaning(head in request(), damage in damage(), tail in vec(any::<u8>(), 0..8)) {
        let mut input = Vec::new();
        write_request(&head, &mut input);
        let mut input = damaged(input, &damage);
        input.extend_from_slice(&tail);
        let whole = read_request(&input);
        for len in 0..input.len() {
            match (read_request(&input[..len]), &whole) {
                (Ok(None), _) => {}
                (Ok(Some((used, part))), Ok(Some((len, whole)))) => {
                    prop_assert_eq!(used, *len);
                    assert_same_request(&part, whole);
                }
                (part, whole) => prop_assert_eq!(part.map(|_| ()).err(), whole.as_ref().map(|_| ()).err().copied()),
            }
        }
        if let Ok(Some((len, head))) = whole {
            let message = input[..len].strip_prefix(b"\r\n").unwrap_or(&input[..len]);
            assert_fields_are_from(&head.fields, message);
            prop_assert!(count(message, Known::ContentLength) + count(message, Known::TransferEncoding) <= 1);
            prop_assert!(count(message, Known::Host) <= 1);
            let mut out = Vec::new();
            write_request(&head, &mut out);
            prop_assert!(count(&out, Known::ContentLength) + count(&out, Known::TransferEncoding) <= 1);
            prop_assert_eq!(count(&out, Known::Host), 1);
            if !head.authority().is_empty() {
                let (len, again) = read_request(&out).unwrap().unwrap();
                prop_assert_eq!(len, out.len());
                assert_same_request(&head, &again);
            }
        }
    }

    #[test]
    fn a_damaged_response_is_refused_or_has_one_meaning(
        status in prop_oneof![100u16..600, select(&[101u16, 200, 204, 304, 426][..])],
        method in select(&[Method::Get, Method::Head, Method::Connect, Method::Post][..]),
        fields in fields(),
        content in prop_oneof![Just(Content::None), (0..=i64::MAX as u64).prop_map(Content::Length), Just(Content::Streamed)],
        keep_alive in any::<bool>(),
        damage in damage(),
        tail in vec(any::<u8>(), 0..8),
    ) {
        let mut head = ResponseHead::with_status(status);
        head.content = content;
        for (name, value) in fields {
            head.fields.append_raw(Known::of(&name), &name, &value);
        }
        if matches!(status, 101 | 426) {
            head.set_upgrade(Some(b"websocket"));
        }
        let context = ResponseContext { client_version: Version::Http11, request_method: method, keep_alive };
        let mut input = Vec::new();
        let framing = write_response(&head, context, &mut input);
        let (len, again) = read_response(&input, method).unwrap().unwrap();
        prop_assert_eq!(len, input.len());
        prop_assert_eq!(lines(&head.fields), lines(&again.fields));
        prop_assert_eq!(again.keep_alive, keep_alive || head.is_interim());
        let expected = match framing {
            BodyFraming::None => Content::None,
            BodyFraming::Length(length) => Content::Length(length),
            BodyFraming::Chunked => Content::Streamed,
            BodyFraming::UntilClose => Content::UntilClose,
        };
        prop_assert_eq!(again.content, expected);

        let mut input = damaged(input, &damage);
        input.extend_from_slice(&tail);
        let whole = read_response(&input, method);
        for len in 0..input.len() {
            match (read_response(&input[..len], method), &whole) {
                (Ok(None), _) => {}
                (Ok(Some((used, part))), Ok(Some((len, whole)))) => {
                    prop_assert_eq!((used, part.status, part.content), (*len, whole.status, whole.content));
                }
                (part, whole) => prop_assert_eq!(part.map(|_| ()).err(), whole.as_ref().map(|_| ()).err().copied()),
            }
        }
        if let Ok(Some((len, head))) = whole {
            assert_fields_are_from(&head.fields, &input[..len]);
            let mut out = Vec::new();
            let framing = write_response(&head, context, &mut out);
            prop_assert!(count(&out, Known::ContentLength) + count(&out, Known::TransferEncoding) <= 1);
            let (_, again) = read_response(&out, method).unwrap().unwrap();
            prop_assert_eq!((again.status, again.declared_length), (head.status, head.declared_length));
            prop_assert_eq!(lines(&head.fields), lines(&again.fields));
            prop_assert_eq!(framing == BodyFraming::None, head.content == Content::None);
        }
    }

    #[test]
    fn chunks_survive_any_reads(
        chunks in vec((vec(any::<u8>(), 1..50), "(;[ -~]{0,8})?", "0{0,4}"), 0..6),
        trailers in vec(("X-[a-z]{1,8}", "[!-~]{0,8}"), 0..3),
        reads in vec(1usize..20, 1..20),
        tail in vec(any::<u8>(), 0..8),
    ) {
        let mut input = Vec::new();
        let mut content = Vec::new();
        for (data, extension, zeros) in &chunks {
            input.extend_from_slice(format!("{zeros}{:X}{extension}\r\n", data.len()).as_bytes());
            input.extend_from_slice(data);
            input.extend_from_slice(CHUNK_END);
            content.extend_from_slice(data);
        }
        let mut fields = Fields::new();
        for (name, value) in &trailers {
            fields.append_raw(Known::Other, name.as_bytes(), value.as_bytes());
        }
        write_last_chunk(Some(&fields), &mut input);
        let end = input.len();
        input.extend_from_slice(&tail);

        let mut decoder = BodyDecoder::new(Content::Streamed, &Limits::default());
        let mut decoded = Vec::new();
        let (mut at, mut turn) = (0, 0);
        while !decoder.is_done() {
            let mut buf = input[at..(at + reads[turn % reads.len()]).min(input.len())].to_vec();
            turn += 1;
            // Some content takes the way around the decoder.
            if let Some(remaining) = decoder.remaining()
                && turn % 3 == 0
            {
                let len = buf.len().min(remaining as usize);
                decoded.extend_from_slice(&buf[..len]);
                decoder.skip(len as u64);
                at += len;
                continue;
            }
            let step = decoder.decode(&mut buf).unwrap();
            decoded.extend_from_slice(&buf[..step.data]);
            at += step.consumed;
        }
        prop_assert_eq!(at, end);
        prop_assert_eq!(decoded, content);
        prop_assert_eq!(decoder.trailers().map(|fields| lines(fields)).unwrap_or_default(), lines(&fields));
    }
}
