use super::*;
use crate::field::Known;
use crate::h1::{BodyFraming, ResponseContext, write_response};
use rhumb_base::failure::Cause;

use FieldError as F;
use ResponseError as R;

fn parse(input: &[u8], method: Method) -> Result<Option<(usize, ResponseHead)>, ResponseError> {
    let mut head = ResponseHead::default();
    Ok(parse_response(input, &Limits::default(), method, &mut head)?.map(|len| (len, head)))
}

fn accepted(input: &[u8], method: Method) -> ResponseHead {
    match parse(input, method) {
        Ok(Some((len, head))) => {
            assert_eq!(len, input.len(), "{}", text(input));
            head
        }
        other => panic!("{}: {other:?}", text(input)),
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn with(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes()
}

fn refused() -> Vec<(Vec<u8>, ResponseError)> {
    let raw: &[(&[u8], ResponseError)] = &[
        // The status line (RFC 9112 §4).
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", R::StatusLineInvalid),
        (b"\nHTTP/1.1 200 OK\r\n\r\n", R::StatusLineInvalid),
        (b" HTTP/1.1 200 OK\r\n\r\n", R::StatusLineInvalid),
        (b"http/1.1 200 OK\r\n\r\n", R::StatusLineInvalid),
        (b"ICY 200 OK\r\n\r\n", R::StatusLineInvalid),
        (b"<html></html>", R::StatusLineInvalid),
        (b"SSH-2.0-OpenSSH_9.6\r\n", R::StatusLineInvalid),
        (b"\x15\x03\x01\x00\x02\x02\x46", R::StatusLineInvalid),
        (b"HTTP/1.1\r\n\r\n", R::StatusLineInvalid),
        (b"HTTP/1.1\t200 OK\r\n\r\n", R::StatusLineInvalid),
        (b"HTTP/1.1x200 OK\r\n\r\n", R::StatusLineInvalid),
        (b"HTTP/1.10 200 OK\r\n\r\n", R::StatusLineInvalid),
        (b"HTTP/11 200 OK\r\n\r\n", R::StatusLineInvalid),
        (b"HTTP/1.1 200 O\0K\r\n\r\n", R::StatusLineInvalid),
        (b"HTTP/1.1 200 O\x1bK\r\n\r\n", R::StatusLineInvalid),
        (b"HTTP/1.1 200 O\x7fK\r\n\r\n", R::StatusLineInvalid),
        (b"HTTP/0.9 200 OK\r\n\r\n", R::VersionNotSupported),
        (b"HTTP/1.2 200 OK\r\n\r\n", R::VersionNotSupported),
        (b"HTTP/2.0 200 OK\r\n\r\n", R::VersionNotSupported),
        (b"HTTP/1.1  200 OK\r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 \r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 20 OK\r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 2000 OK\r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 +20 OK\r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 -20 OK\r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 200OK\r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 200\tOK\r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 000 X\r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 099 X\r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 600 X\r\n\r\n", R::StatusInvalid),
        (b"HTTP/1.1 999 X\r\n\r\n", R::StatusInvalid),
        // Line ends and fields.
        (b"HTTP/1.1 200 OK\n\n", F::BareLf.into()),
        (b"HTTP/1.1 200\n\r\n", F::BareLf.into()),
        (b"HTTP/1.1 200 OK\r\nA: b\n\r\n", F::BareLf.into()),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\n", F::BareLf.into()),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", F::BareLf.into()),
        (b"HTTP/1.1 200 OK\rA: b\r\n\r\n", F::BareCr.into()),
        (b"HTTP/1.1 200\rOK\r\n\r\n", F::BareCr.into()),
        (b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", F::BareCr.into()),
        (b"HTTP/1.1 200 OK\r\n\rA: b\r\n\r\n", F::BareCr.into()),
        (b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", F::SpaceBeforeFirstField.into()),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", F::ObsFold.into()),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", F::SpaceInFieldName.into()),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\n", F::SpaceInFieldName.into()),
        (b"HTTP/1.1 200 OK\r\n: b\r\n\r\n", F::FieldNameEmpty.into()),
        (b"HTTP/1.1 200 OK\r\nA\r\n\r\n", F::FieldWithoutColon.into()),
        (b"HTTP/1.1 200 OK\r\nA(: b\r\n\r\n", F::FieldNameInvalid.into()),
        (b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", F::FieldValueInvalid.into()),
        (b"HTTP/1.1 200 OK\r\nSet-Cookie: a\x01b\r\n\r\n", F::FieldValueInvalid.into()),
        // Status and framing.
        (b"HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n", R::ContentNotAllowed),
        (b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\n", R::ContentNotAllowed),
        (b"HTTP/1.1 100 X\r\nTransfer-Encoding: chunked\r\n\r\n", R::ContentNotAllowed),
        (b"HTTP/1.1 100 X\r\nContent-Length: 5\r\n\r\n", R::ContentNotAllowed),
        (b"HTTP/1.1 103 X\r\nContent-Length: 1\r\n\r\n", R::ContentNotAllowed),
        (
            b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: a\r\nContent-Length: 5\r\n\r\n",
            R::ContentNotAllowed,
        ),
        (b"HTTP/1.1 101 X\r\n\r\n", R::UpgradeMissing),
        (b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n", R::UpgradeMissing),
        (b"HTTP/1.1 101 X\r\nConnection: upgrade\r\n\r\n", R::UpgradeMissing),
        (b"HTTP/1.0 101 X\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n", R::UpgradeMissing),
        (b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n", R::UpgradeMissing),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", F::TransferEncodingInHttp10.into()),
    ];
    let framing: &[(&str, FieldError)] = &[
        ("Content-Length: 3\r\nContent-Length: 3\r\n", F::ContentLengthRepeated),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", F::ContentLengthRepeated),
        ("Content-Length: 3, 3\r\n", F::ContentLengthInvalid),
        ("Content-Length: -1\r\n", F::ContentLengthInvalid),
        ("Content-Length: +3\r\n", F::ContentLengthInvalid),
        ("Content-Length:\r\n", F::ContentLengthInvalid),
        ("Content-Length: 0x3\r\n", F::ContentLengthInvalid),
        ("Content-Length: 99999999999999999999\r\n", F::ContentLengthInvalid),
        ("Content-Length:\t3\r\n", F::FramingObscured),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", F::TwoFramings),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", F::TwoFramings),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", F::TransferEncodingRepeated),
        ("Transfer-Encoding: identity\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: gzip\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: xchunked\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: chunked, chunked\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: chunked, gzip\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding:\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: gzip, chunked\r\n", F::TransferCodingUnknown),
        ("Transfer-Encoding: \x0bchunked\r\n", F::FieldValueInvalid),
        ("Connection: a b\r\n", F::ConnectionInvalid),
        ("Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q\r\n", F::TooManyConnectionOptions),
        ("Upgrade: ,\r\n", F::UpgradeInvalid),
    ];
    let mut cases: Vec<_> = raw.iter().map(|(input, error)| (input.to_vec(), *error)).collect();
    cases.extend(framing.iter().map(|(lines, error)| (with(lines), (*error).into())));
    cases.push((with(&"A: b\r\n".repeat(129)), F::TooManyFields.into()));
    cases.push((with(&format!("A: {}\r\n", "b".repeat(64 << 10))), F::SectionTooLong.into()));
    cases.push((format!("HTTP/1.1 200 {}", "K".repeat(64 << 10)).into_bytes(), F::SectionTooLong.into()));
    cases
}

#[test]
fn ambiguous_and_malformed_responses_are_refused() {
    let cases = refused();
    assert!(cases.len() >= 85, "{}", cases.len());
    for (input, expected) in cases {
        assert_eq!(parse(&input, Method::Get).map(|_| ()), Err(expected), "{}", text(&input));
    }
}

#[test]
fn a_backends_mistakes_are_not_the_clients() {
    assert_eq!(R::UpgradeMissing.cause(), Cause::UpgradeFailed);
    assert_eq!(R::Fields(F::TooManyFields).cause(), Cause::ResponseFieldsTooLarge);
    for (_, error) in refused() {
        assert_eq!(error.cause().facts().status, 502, "{}", error.code());
    }
}

/// A response that is accepted: to which method, and its status, content, declared length, keep-alive.
type Served = (&'static str, Method, u16, Content, Option<u64>, bool);

fn served() -> Vec<Served> {
    use Content::{Length, None as Nothing, Streamed, UntilClose};
    use Method::{Connect, Get, Head, Post};
    vec![
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Get, 200, Length(3), None, true),
        ("HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n", Get, 200, Length(3), None, true),
        ("HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n", Get, 200, Length(3), None, true),
        ("HTTP/1.1 200 All is\twell\u{e9}\r\nContent-Length: 3\r\n\r\n", Get, 200, Length(3), None, true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Post, 200, Length(0), None, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Get, 200, Streamed, None, true),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n",
            Get,
            200,
            Streamed,
            None,
            false,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", Get, 200, UntilClose, None, false),
        ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", Get, 200, UntilClose, None, false),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
            Get,
            200,
            Length(3),
            None,
            false,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", Get, 200, Length(3), None, false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n",
            Get,
            200,
            Length(3),
            None,
            true,
        ),
        ("HTTP/1.0 200 OK\r\n\r\n", Get, 200, UntilClose, None, false),
        ("HTTP/1.1 599 X\r\nContent-Length: 3\r\n\r\n", Get, 599, Length(3), None, true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Head, 200, Nothing, Some(3), true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Head, 200, Nothing, None, true),
        ("HTTP/1.1 200 OK\r\n\r\n", Head, 200, Nothing, None, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", Get, 204, Nothing, None, true),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Get, 204, Nothing, None, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", Head, 204, Nothing, None, true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", Get, 304, Nothing, Some(3), true),
        ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", Get, 304, Nothing, None, true),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", Get, 304, Nothing, None, true),
        ("HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", Get, 205, Length(0), None, true),
        ("HTTP/1.1 100 Continue\r\n\r\n", Post, 100, Nothing, None, true),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", Get, 103, Nothing, None, true),
        ("HTTP/1.1 200 OK\r\n\r\n", Connect, 200, Nothing, None, true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Connect, 200, Nothing, None, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Connect, 200, Nothing, None, true),
        ("HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\n", Connect, 403, Length(3), None, true),
        (
            "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            Get,
            101,
            Nothing,
            None,
            true,
        ),
    ]
}

#[test]
fn the_end_of_a_response_follows_from_method_status_and_fields() {
    for (input, method, status, content, declared_length, keep_alive) in served() {
        let head = accepted(input.as_bytes(), method);
        assert_eq!(
            (head.status, head.content, head.declared_length, head.keep_alive),
            (status, content, declared_length, keep_alive),
            "{input:?}"
        );
        assert!(
            [Known::ContentLength, Known::TransferEncoding, Known::Connection, Known::Upgrade]
                .iter()
                .all(|&name| !head.fields.has(name))
        );
    }
}

#[test]
fn a_response_may_come_in_any_two_parts() {
    let refused = refused().into_iter().map(|(input, error)| (input, Method::Get, Err(error)));
    let served = served().into_iter().map(|(input, method, ..)| (input.as_bytes().to_vec(), method, Ok(())));
    for (input, method, expected) in refused.chain(served) {
        for split in 0..input.len() {
            // Long inputs test limits: their every byte would take long and say little.
            if input.len() > 2000 && split % 997 != 0 {
                continue;
            }
            match parse(&input[..split], method) {
                Ok(None) => {}
                Ok(Some(_)) => panic!("accepted early: {}", text(&input[..split])),
                Err(error) => assert_eq!(Err(error), expected, "{}", text(&input[..split])),
            }
        }
    }
}

#[test]
fn upgrade_counts_in_101_and_426_only() {
    for (status, upgrade) in [(101, Some("websocket")), (426, Some("websocket")), (200, None)] {
        let input = format!("HTTP/1.1 {status} X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        let head = accepted(input.as_bytes(), Method::Get);
        assert_eq!(head.upgrade(), upgrade.map(str::as_bytes), "{status}");
    }
}

#[test]
fn a_response_keeps_end_to_end_fields_that_its_connection_names() {
    let head = accepted(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x-hop, Set-Cookie\r\nX-Hop: 1\r\nSet-Cookie: a\r\n\
          Keep-Alive: 5\r\nProxy-Connection: x\r\nHost: a\r\nContent_Length: 1\r\n\r\n",
        Method::Get,
    );
    let names: Vec<_> = head.fields.iter().map(|line| text(line.name)).collect();
    assert_eq!(names, ["Set-Cookie", "Content_Length"]);
}

#[test]
fn limits_are_exact() {
    let input = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\n\r\n";
    let limits = Limits { head_bytes: input.len(), fields: 2, ..Limits::default() };
    let parse = |input: &[u8], limits| {
        parse_response(input, &limits, Method::Get, &mut ResponseHead::default()).map_err(ResponseError::code)
    };
    assert_eq!(parse(input, limits), Ok(Some(input.len())));
    assert_eq!(parse(input, Limits { head_bytes: input.len() - 1, ..limits }), Err("section_too_long"));
    assert_eq!(parse(input, Limits { fields: 1, ..limits }), Err("too_many_fields"));
    assert_eq!(parse(&input[..input.len() - 1], limits), Ok(None));
}

#[test]
fn an_accepted_response_is_written_and_read_back_the_same() {
    for (input, method, status, content, declared_length, keep_alive) in served() {
        let head = accepted(input.as_bytes(), method);
        let context = ResponseContext { client_version: Version::Http11, request_method: method, keep_alive };
        let mut out = Vec::new();
        let framing = write_response(&head, context, &mut out);
        let again = accepted(&out, method);
        let expected = match content {
            Content::UntilClose => Content::Streamed,
            other => other,
        };
        assert_eq!((again.status, again.content), (status, expected), "{}", text(&out));
        assert_eq!(again.declared_length, declared_length, "{}", text(&out));
        // A tunnel and an interim response have no say about the connection.
        if !head.is_interim() {
            assert_eq!(again.keep_alive, keep_alive, "{}", text(&out));
        }
        assert_eq!(framing == BodyFraming::None, content == Content::None, "{}", text(&out));
    }
}

#[test]
#[ignore = "writes the corpus of a fuzz target"]
fn cases_are_a_corpus() {
    let refused = refused().into_iter().map(|(input, _)| input);
    let served = served().into_iter().map(|(input, ..)| input.as_bytes().to_vec());
    crate::h1::tests::write_corpus("h1_response", refused.chain(served).filter(|input| input.len() < 5000));
}
