use super::*;
use crate::h1::write_request;
use rhumb_base::failure::Cause;

use FieldError as F;
use RequestError as R;

fn parse(input: &[u8]) -> Result<Option<(usize, RequestHead)>, RequestError> {
    parse_with(input, &Limits::default())
}

fn parse_with(input: &[u8], limits: &Limits) -> Result<Option<(usize, RequestHead)>, RequestError> {
    let mut head = RequestHead::new();
    Ok(parse_request(input, limits, Scheme::Http, &mut head)?.map(|len| (len, head)))
}

/// A request with `lines` after a valid request line and Host.
fn with(lines: &[u8]) -> Vec<u8> {
    [b"POST / HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n"].concat()
}

/// A request with this first line and a valid Host.
fn line(first: &[u8]) -> Vec<u8> {
    [first, b"\r\nHost: a\r\n\r\n"].concat()
}

fn accepted(input: &[u8]) -> RequestHead {
    match parse(input) {
        Ok(Some((len, head))) => {
            assert_eq!(len, input.len(), "{:?}", text(input));
            head
        }
        other => panic!("{:?}: {other:?}", text(input)),
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn lines(head: &RequestHead) -> Vec<(String, String)> {
    head.fields.iter().map(|line| (text(line.name), text(line.value))).collect()
}

/// Every request that must be refused, and why. Corpus of the fuzz target and of the raw-socket test as well.
fn refused() -> Vec<(Vec<u8>, RequestError)> {
    let mut cases: Vec<(Vec<u8>, RequestError)> = Vec::new();
    let raw: &[(&[u8], RequestError)] = &[
        // Line ends (RFC 9112 §2.2).
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", F::BareLf.into()),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", F::BareLf.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", F::BareLf.into()),
        (b"GET / HTTP/1.1\nHost: a\n\n", F::BareLf.into()),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", F::BareLf.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n", F::BareLf.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX:\n\r\n", F::BareLf.into()),
        (b"GET / HTTP/1.1\r\nX: b\nHost: a\r\n\r\n", F::BareLf.into()),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", F::BareLf.into()),
        (b"GET / HTTP/1.1\rHost: a\r\n\r\n", F::BareCr.into()),
        (b"GET / HTTP/1.1\r\rHost: a\r\n\r\n", F::BareCr.into()),
        (b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", F::BareCr.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", F::BareCr.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", F::BareCr.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n", F::BareCr.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX:\rb\r\n\r\n", F::BareCr.into()),
        (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", F::BareCr.into()),
        (b"\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", F::BareCr.into()),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", R::EmptyLines),
        (b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", R::EmptyLines),
        (b"\r\n GET / HTTP/1.1\r\nHost: a\r\n\r\n", R::MethodInvalid),
        // The field section (RFC 9112 §5).
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", F::SpaceBeforeFirstField.into()),
        (b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", F::SpaceBeforeFirstField.into()),
        (b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", F::SpaceBeforeFirstField.into()),
        (b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", F::SpaceBeforeFirstField.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", F::ObsFold.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n", F::ObsFold.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", F::ObsFold.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n c\r\n\r\n", F::ObsFold.into()),
        (b"GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n", F::ObsFold.into()),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", F::SpaceInFieldName.into()),
        (b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", F::SpaceInFieldName.into()),
        (b"GET / HTTP/1.1\r\nHost a\r\n\r\n", F::SpaceInFieldName.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", F::SpaceInFieldName.into()),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", F::FieldNameEmpty.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", F::FieldNameEmpty.into()),
        (b"GET / HTTP/1.1\r\nHost\r\n\r\n", F::FieldWithoutColon.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", F::FieldWithoutColon.into()),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\nY: z\r\n\r\n", F::FieldWithoutColon.into()),
        // The request line (RFC 9112 §3).
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", R::MethodInvalid),
        (b"\tGET / HTTP/1.1\r\nHost: a\r\n\r\n", R::MethodInvalid),
        (b"G ET / HTTP/1.1\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GE\0T / HTTP/1.1\r\nHost: a\r\n\r\n", R::MethodInvalid),
        (b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", R::MethodInvalid),
        (b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n", R::MethodInvalid),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", R::MethodInvalid),
        (b"GET\r\nHost: a\r\n\r\n", R::MethodInvalid),
        (b"GET\x0b/ HTTP/1.1\r\nHost: a\r\n\r\n", R::MethodInvalid),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", R::MethodInvalid),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", R::RequestLineSpace),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", R::RequestLineSpace),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", R::RequestLineSpace),
        (b"GET / HTTP/1.1\t\r\nHost: a\r\n\r\n", R::RequestLineSpace),
        (b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", R::TargetInvalid),
        (b"GET / \tHTTP/1.1\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", R::RequestLineSpace),
        (b"GET /\r\n\r\n", R::VersionMissing),
        (b"GET /\n", R::VersionMissing),
        (b"GET / \r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / HTTP/1.\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / HTTP/11\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / HTTP/1,1\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / HTTP/+1.1\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / XTTP/1.1\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", R::VersionInvalid),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", R::VersionNotSupported),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", R::VersionNotSupported),
        (b"GET / HTTP/1.9\r\nHost: a\r\n\r\n", R::VersionNotSupported),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", R::VersionNotSupported),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", R::VersionNotSupported),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", R::VersionNotSupported),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", R::Http2Preface),
        (b"PRI * HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        // Host (RFC 9112 §3.2).
        (b"GET / HTTP/1.1\r\n\r\n", R::HostMissing),
        (b"GET / HTTP/1.1\r\nX: y\r\n\r\n", R::HostMissing),
        (b"GET http://a/ HTTP/1.1\r\n\r\n", R::HostMissing),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", R::HostRepeated),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", R::HostRepeated),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", R::HostRepeated),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", R::HostRepeated),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: \r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: a:80@b\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: a%00\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost: 127.1\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", R::HostInvalid),
        (b"GET / HTTP/1.1\r\nHost:\ta\r\n\r\n", F::FramingObscured.into()),
        (b"GET / HTTP/1.1\r\nHost: a\t\r\n\r\n", F::FramingObscured.into()),
        // Forms of the target (RFC 9112 §3.2).
        (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", R::HostMismatch),
        (b"GET http://a/ HTTP/1.1\r\nHost: a:8080\r\n\r\n", R::HostMismatch),
        (b"GET http://a:8080/ HTTP/1.1\r\nHost: a\r\n\r\n", R::HostMismatch),
        (b"GET http://a.b/ HTTP/1.0\r\nHost: a\r\n\r\n", R::HostMismatch),
        (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetAuthorityInvalid),
        (b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetAuthorityInvalid),
        (b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetAuthorityInvalid),
        (b"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", R::TargetAuthorityInvalid),
        (b"GET http://a:0/ HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetAuthorityInvalid),
        (b"GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetAuthorityInvalid),
        (b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetSchemeMismatch),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetScheme),
        (b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetScheme),
        (b"GET ://a/ HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetScheme),
        (b"GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"GET ?x HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"GET .. HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"GET \\x HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"OPTIONS *?x HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"CONNECT * HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"CONNECT http://a:80/ HTTP/1.1\r\nHost: a:80\r\n\r\n", R::TargetForm),
        (b"CONNECT a:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n", R::TargetForm),
        (b"CONNECT u@a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", R::TargetForm),
        (b"CONNECT :80 HTTP/1.1\r\nHost: a\r\n\r\n", R::TargetForm),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: b:80\r\n\r\n", R::HostMismatch),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a:81\r\n\r\n", R::HostMismatch),
        (b"CONNECT a:80 HTTP/1.1\r\n\r\n", R::HostMissing),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", R::ContentNotAllowed),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", R::ContentNotAllowed),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", R::ContentNotAllowed),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", F::TransferEncodingInHttp10.into()),
        (
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            F::TwoFramings.into(),
        ),
    ];
    cases.extend(raw.iter().map(|(input, error)| (input.to_vec(), *error)));

    for byte in (0u8..0x20).chain([0x7f]).filter(|byte| !b"\r\n\t ".contains(byte)) {
        cases.push((line(&[b"GET /", &[byte][..], b" HTTP/1.1"].concat()), R::TargetInvalid));
        cases.push((with(&[b"X: a", &[byte][..], b"b\r\n"].concat()), F::FieldValueInvalid.into()));
        cases.push((with(&[b"X: ", &[byte][..], b"\r\n"].concat()), F::FieldValueInvalid.into()));
        cases.push((with(&[b"X", &[byte][..], b": a\r\n"].concat()), F::FieldNameInvalid.into()));
    }
    for byte in b"#\x80\xff" {
        cases.push((line(&[b"GET /", &[*byte][..], b" HTTP/1.1"].concat()), R::TargetInvalid));
    }
    cases.push((line("GET /\u{e9} HTTP/1.1".as_bytes()), R::TargetInvalid));
    for byte in b"\"(),/;<=>?@[\\]{}\x80\xff" {
        cases.push((with(&[b"X", &[*byte][..], b": a\r\n"].concat()), F::FieldNameInvalid.into()));
    }

    // Framing (RFC 9112 §6).
    let framing: &[(&str, FieldError)] = &[
        ("Content-Length: 1\r\nContent-Length: 1\r\n", F::ContentLengthRepeated),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", F::ContentLengthRepeated),
        ("Content-Length: 0\r\ncontent-length: 0\r\n", F::ContentLengthRepeated),
        ("Content-Length: 1, 1\r\n", F::ContentLengthInvalid),
        ("Content-Length: 1,1\r\n", F::ContentLengthInvalid),
        ("Content-Length: 1,\r\n", F::ContentLengthInvalid),
        ("Content-Length:\r\n", F::ContentLengthInvalid),
        ("Content-Length: \r\n", F::ContentLengthInvalid),
        ("Content-Length: +1\r\n", F::ContentLengthInvalid),
        ("Content-Length: -1\r\n", F::ContentLengthInvalid),
        ("Content-Length: 1 1\r\n", F::ContentLengthInvalid),
        ("Content-Length: 0x1\r\n", F::ContentLengthInvalid),
        ("Content-Length: 1_0\r\n", F::ContentLengthInvalid),
        ("Content-Length: 1.0\r\n", F::ContentLengthInvalid),
        ("Content-Length: 1e1\r\n", F::ContentLengthInvalid),
        ("Content-Length: \"1\"\r\n", F::ContentLengthInvalid),
        ("Content-Length: 1;a\r\n", F::ContentLengthInvalid),
        ("Content-Length: a\r\n", F::ContentLengthInvalid),
        ("Content-Length: \u{661}\r\n", F::ContentLengthInvalid),
        ("Content-Length: 9223372036854775808\r\n", F::ContentLengthInvalid),
        ("Content-Length: 18446744073709551616\r\n", F::ContentLengthInvalid),
        ("Content-Length: 18446744073709551617\r\n", F::ContentLengthInvalid),
        ("Content-Length: 00000000000000000001\r\n", F::ContentLengthInvalid),
        ("Content-Length:\t1\r\n", F::FramingObscured),
        ("Content-Length: 1\t\r\n", F::FramingObscured),
        ("Content-Length: 1 \t \r\n", F::FramingObscured),
        ("Content_Length: 1\r\n", F::FramingAlias),
        ("content_length: 1\r\n", F::FramingAlias),
        ("Content_Length: 1\r\nContent-Length: 1\r\n", F::FramingAlias),
        ("Transfer_Encoding: chunked\r\n", F::FramingAlias),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", F::TwoFramings),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", F::TwoFramings),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", F::TwoFramings),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", F::TransferEncodingRepeated),
        ("Transfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n", F::TransferEncodingRepeated),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: identity\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: gzip\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding:\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: \r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: xchunked\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: chunkedx\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: chunked, chunked\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: chunked, identity\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: chunked, gzip\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: chunked,\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: ,chunked\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: ,\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: chunked;q=1\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: chunked foo\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: \"chunked\"\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: 'chunked'\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: chunk\u{212a}ed\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: chunked\u{a0}\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: gzip;q=1, chunked\r\n", F::TransferEncodingInvalid),
        ("Transfer-Encoding: gzip, chunked\r\n", F::TransferCodingUnknown),
        ("Transfer-Encoding: identity, chunked\r\n", F::TransferCodingUnknown),
        ("Transfer-Encoding: cow, chunked\r\n", F::TransferCodingUnknown),
        ("Transfer-Encoding:\tchunked\r\n", F::FramingObscured),
        ("Transfer-Encoding: \tchunked\r\n", F::FramingObscured),
        ("Transfer-Encoding: chunked\t\r\n", F::FramingObscured),
        ("Transfer-Encoding: \x0bchunked\r\n", F::FieldValueInvalid),
        ("Transfer-Encoding: \x0cchunked\r\n", F::FieldValueInvalid),
        ("Transfer-Encoding:\x00chunked\r\n", F::FieldValueInvalid),
        ("Transfer-Encoding : chunked\r\n", F::SpaceInFieldName),
        ("Transfer-Encoding\t: chunked\r\n", F::SpaceInFieldName),
        ("Transfer-Encoding\x0b: chunked\r\n", F::FieldNameInvalid),
        ("X: y\rTransfer-Encoding: chunked\r\n", F::BareCr),
        ("X: y\nTransfer-Encoding: chunked\r\n", F::BareLf),
        ("Transfer-Encoding:\r\n chunked\r\n", F::ObsFold),
        ("Transfer-Encoding: chunked\r\n , identity\r\n", F::ObsFold),
        // Connection (RFC 9110 §7.6.1) and Upgrade (§7.8).
        ("Connection: close, a b\r\n", F::ConnectionInvalid),
        ("Connection: \"close\"\r\n", F::ConnectionInvalid),
        ("Connection: close;\r\n", F::ConnectionInvalid),
        ("Connection: Host\r\n", F::ConnectionNominatesEndToEnd),
        ("Connection: content-length\r\nContent-Length: 1\r\n", F::ConnectionNominatesEndToEnd),
        ("Connection: close, Transfer-Encoding\r\n", F::ConnectionNominatesEndToEnd),
        ("Connection: Authorization\r\nAuthorization: x\r\n", F::ConnectionNominatesEndToEnd),
        ("Connection: Cookie\r\n", F::ConnectionNominatesEndToEnd),
        ("Connection: close, X-Forwarded-For\r\n", F::ConnectionNominatesEndToEnd),
        ("Connection: x-real-ip\r\n", F::ConnectionNominatesEndToEnd),
        ("Connection: close\r\nConnection: Via\r\n", F::ConnectionNominatesEndToEnd),
        ("Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q\r\n", F::TooManyConnectionOptions),
        ("Connection: upgrade\r\nUpgrade: a b\r\n", F::UpgradeInvalid),
        ("Upgrade: \r\n", F::UpgradeInvalid),
        ("Upgrade: websocket,\r\n", F::UpgradeInvalid),
        ("Upgrade: /1\r\n", F::UpgradeInvalid),
        ("Upgrade: a/b/c\r\n", F::UpgradeInvalid),
    ];
    cases.extend(framing.iter().map(|(lines, error)| (with(lines.as_bytes()), (*error).into())));

    for lines in [
        "Expect: 200-ok\r\n",
        "Expect: 100-continue, foo\r\n",
        "Expect: 100-continue\r\nExpect: 100-continue\r\n",
        "Expect:\r\n",
        "Expect: 100-continue;a=b\r\n",
    ] {
        cases.push((with(lines.as_bytes()), R::ExpectationUnknown));
    }

    // Limits.
    cases.push((line(&[&[b'A'; MAX_METHOD_BYTES + 1][..], b" / HTTP/1.1"].concat()), R::MethodTooLong));
    cases.push((line(&[b"GET /", &[b'a'; 16 << 10][..], b" HTTP/1.1"].concat()), R::TargetTooLong));
    cases.push((with("A: b\r\n".repeat(128).as_bytes()), F::TooManyFields.into()));
    cases.push((with(&[b"A: ", &[b'b'; 64 << 10][..], b"\r\n"].concat()), F::SectionTooLong.into()));
    cases
}

#[test]
fn ambiguous_and_malformed_requests_are_refused() {
    let cases = refused();
    assert!(cases.len() >= 300, "{}", cases.len());
    for (input, expected) in cases {
        assert_eq!(parse(&input).map(|_| ()), Err(expected), "{}", text(&input));
    }
}

#[test]
fn refusals_are_answered_with_the_right_status() {
    for (error, status) in [
        (R::VersionNotSupported, 505),
        (R::Http2Preface, 505),
        (R::MethodTooLong, 501),
        (R::Fields(F::TransferCodingUnknown), 501),
        (R::TargetTooLong, 414),
        (R::TargetSchemeMismatch, 421),
        (R::ExpectationUnknown, 417),
        (R::Fields(F::TooManyFields), 431),
        (R::Fields(F::SectionTooLong), 431),
        (R::HostMissing, 400),
        (R::Fields(F::TwoFramings), 400),
        (R::Fields(F::BareLf), 400),
    ] {
        assert_eq!(error.cause().facts().status, status, "{error}");
    }
    assert_eq!(R::HostRepeated.cause(), Cause::AuthorityInvalid);
    for (_, error) in refused() {
        assert!(!error.code().is_empty() && !error.to_string().is_empty());
    }
}

/// A request that is accepted, and its method, authority, path, query and content.
type Served = (&'static [u8], &'static str, &'static str, &'static str, Option<&'static str>, Content);

fn served() -> Vec<Served> {
    let none = Content::None;
    vec![
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "a", "/", None, none),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "a", "/", None, none),
        (b"GET / HTTP/1.0\r\n\r\n", "GET", "", "/", None, none),
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET", "a", "/", None, none),
        (b"GET / HTTP/1.1\r\nHost:a\r\n\r\n", "GET", "a", "/", None, none),
        (b"GET / HTTP/1.1\r\nHost:    a   \r\n\r\n", "GET", "a", "/", None, none),
        (
            b"GET /a?b=c?d&e HTTP/1.1\r\nHost: A.b:8080\r\n\r\n",
            "GET",
            "A.b:8080",
            "/a",
            Some("b=c?d&e"),
            none,
        ),
        (b"GET //x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET", "[::1]:80", "//x", None, none),
        (b"GET /http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "a", "/http://b/", None, none),
        (b"GET /|^`{}[]\"<>\\%zz HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "a", "/|^`{}[]\"<>\\%zz", None, none),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", "get", "a", "/", None, none),
        (b"M-SEARCH /x HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH", "a", "/x", None, none),
        (b"GET http://A/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "A", "/x", Some("y"), none),
        (b"GET HTTP://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "a:80", "/", None, none),
        (b"GET http://a HTTP/1.1\r\nHost: a:80\r\n\r\n", "GET", "a", "/", None, none),
        (b"GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "a", "/", Some("q"), none),
        (b"GET http://a/ HTTP/1.0\r\n\r\n", "GET", "a", "/", None, none),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", "a", "*", None, none),
        (b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", "a", "*", None, none),
        (b"OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", "a", "/", None, none),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "CONNECT", "a:443", "", None, none),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: A\r\n\r\n", "CONNECT", "a:443", "", None, none),
        (b"CONNECT [::1]:443 HTTP/1.0\r\n\r\n", "CONNECT", "[::1]:443", "", None, none),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 0\r\n\r\n", "CONNECT", "a:1", "", None, none),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST",
            "a",
            "/",
            None,
            Content::Length(0),
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n",
            "POST",
            "a",
            "/",
            None,
            Content::Length(7),
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
            "GET",
            "a",
            "/",
            None,
            Content::Length(i64::MAX as u64),
        ),
        (
            b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
            "HEAD",
            "a",
            "/",
            None,
            Content::Length(3),
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST",
            "a",
            "/",
            None,
            Content::Streamed,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:CHUNKED \r\n\r\n",
            "GET",
            "a",
            "/",
            None,
            Content::Streamed,
        ),
        (b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n", "POST", "", "/", None, Content::Length(2)),
    ]
}

#[test]
fn requests_with_one_meaning_are_understood() {
    for (input, method, authority, path, query, content) in served() {
        let head = accepted(input);
        assert_eq!(head.method_name(), method.as_bytes(), "{}", text(input));
        assert_eq!(head.method(), Method::of(method.as_bytes()), "{}", text(input));
        assert_eq!(head.authority(), authority.as_bytes(), "{}", text(input));
        assert_eq!(head.received_authority(), authority.as_bytes(), "{}", text(input));
        assert_eq!(head.path(), path.as_bytes(), "{}", text(input));
        assert_eq!(head.query(), query.map(str::as_bytes), "{}", text(input));
        assert_eq!(head.content, content, "{}", text(input));
        assert!(head.fields.is_empty(), "{}", text(input));
    }
}

#[test]
fn fields_keep_order_spelling_and_opaque_bytes() {
    let head = accepted(
        b"GET / HTTP/1.1\r\nAccept: a\r\nHost: h\r\nX-Odd:\r\naccept:  b\t \r\nX-One: \x80\xff\t.\r\nTrailer: X\r\n\r\n",
    );
    let expected =
        [("Accept", "a"), ("X-Odd", ""), ("accept", "b"), ("X-One", "\\x80\\xff\\t."), ("Trailer", "X")];
    assert_eq!(lines(&head), expected.map(|(name, value)| (name.to_string(), value.to_string())));
    assert_eq!(head.fields.get_all(crate::field::Known::Accept).count(), 2);
}

#[test]
fn fields_of_one_connection_do_not_reach_the_head() {
    let head = accepted(
        b"GET / HTTP/1.1\r\nHost: h\r\nX-Drop: 1\r\nConnection: x-drop, ,keep-alive,\r\nKeep-Alive: 5\r\n\
          Proxy-Connection: close\r\nTE: trailers, deflate;q=0.5\r\nUpgrade: foo\r\nHTTP2-Settings: AA\r\n\
          Connection: X-DROP-TOO,te,TRAILER\r\nX-drop-TOO: 1\r\nx-DROP: 2\r\nTrailer: a\r\nX-Keep: 3\r\n\r\n",
    );
    assert_eq!(lines(&head), [("X-Keep".to_string(), "3".to_string())]);
    assert!(head.keep_alive && head.accepts_trailers && head.upgrade().is_none());
}

#[test]
fn underscores_do_not_forge_what_we_vouch_for() {
    let head = accepted(&with(b"X_Forwarded_For: 1\r\nx_real-IP: 1\r\nX_Custom: 1\r\nuser_agent: 1\r\n"));
    assert_eq!(
        lines(&head),
        [("X_Custom".to_string(), "1".to_string()), ("user_agent".to_string(), "1".to_string())]
    );
}

#[test]
fn a_connection_stays_open_as_its_version_and_options_say() {
    for (version, options, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Proxy-Connection: close\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Keep-Alive: 5\r\n", false),
    ] {
        let input = format!("GET / HTTP/{version}\r\nHost: a\r\n{options}\r\n");
        assert_eq!(accepted(input.as_bytes()).keep_alive, keep_alive, "{input:?}");
    }
}

#[test]
fn an_upgrade_counts_when_connection_names_it_in_http11() {
    for (version, lines, upgrade) in [
        ("1.1", "Connection: upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
        ("1.1", "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n", Some("websocket")),
        ("1.1", "Connection: upgrade\r\nUpgrade: a/1, b\r\n", Some("a/1, b")),
        ("1.1", "Upgrade: websocket\r\n", None),
        ("1.1", "Connection: upgrade\r\n", None),
        ("1.1", "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n", None),
        ("1.1", "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n", None),
        ("1.1", "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: x\r\n", None),
        ("1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", None),
    ] {
        let input = format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
        assert_eq!(accepted(input.as_bytes()).upgrade(), upgrade.map(str::as_bytes), "{input:?}");
    }
}

#[test]
fn an_expectation_needs_http11_and_content() {
    for (input, expected) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", true),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n", true),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", false),
        ("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", false),
    ] {
        let head = accepted(input.as_bytes());
        assert_eq!((head.expect_continue, head.fields.is_empty()), (expected, true), "{input:?}");
    }
}

#[test]
fn the_scheme_is_the_connections() {
    let mut head = RequestHead::new();
    let limits = Limits::default();
    for (target, scheme, expected) in [
        ("/", Scheme::Https, Ok(Scheme::Https)),
        ("https://a/", Scheme::Https, Ok(Scheme::Https)),
        ("https://a:443/", Scheme::Https, Ok(Scheme::Https)),
        ("http://a/", Scheme::Https, Err(R::TargetSchemeMismatch)),
        ("https://a:80/", Scheme::Https, Err(R::HostMismatch)),
    ] {
        let input = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let result = parse_request(input.as_bytes(), &limits, scheme, &mut head);
        assert_eq!(result.map(|_| head.scheme), expected, "{target}");
    }
}

#[test]
fn what_follows_the_head_is_left_alone() {
    let input = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\n";
    let (len, head) = parse(input).unwrap().unwrap();
    assert_eq!(head.path(), b"/1");
    let (more, head) = parse(&input[len..]).unwrap().unwrap();
    assert_eq!(head.path(), b"/2");
    assert_eq!(len + more + 1, input.len());
}

#[test]
fn a_head_may_come_in_any_two_parts() {
    let whole = refused().into_iter().map(|(input, error)| (input, Err(error)));
    let served = served().into_iter().map(|(input, ..)| (input.to_vec(), Ok(())));
    for (input, expected) in whole.chain(served) {
        for split in 0..input.len() {
            // Long inputs test limits: their every byte would take long and say little.
            if input.len() > 2000 && split % 997 != 0 {
                continue;
            }
            match parse(&input[..split]) {
                Ok(None) => {}
                Ok(Some(_)) => panic!("accepted early: {}", text(&input[..split])),
                Err(error) => assert_eq!(Err(error), expected, "{}", text(&input[..split])),
            }
        }
    }
}

#[test]
fn limits_are_exact() {
    let input = b"GET /abc HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    let limits = Limits { head_bytes: input.len(), fields: 2, target_bytes: 4, ..Limits::default() };
    assert!(parse_with(input, &limits).unwrap().is_some());
    let error = |limits| parse_with(input, &limits).map(|_| ()).unwrap_err();
    assert_eq!(error(Limits { head_bytes: input.len() - 1, ..limits }), F::SectionTooLong.into());
    assert_eq!(error(Limits { fields: 1, ..limits }), F::TooManyFields.into());
    assert_eq!(error(Limits { target_bytes: 3, ..limits }), R::TargetTooLong);
    for len in 0..input.len() {
        assert_eq!(parse_with(&input[..len], &limits).unwrap().map(|_| ()), None, "{len}");
    }
    // The target is refused while it arrives, before its end.
    let limits = Limits { target_bytes: 3, ..Limits::default() };
    assert_eq!(parse_with(b"GET /abc", &limits).map(|_| ()), Err(R::TargetTooLong));
    assert_eq!(parse(&[b'A'; 33]).map(|_| ()), Err(R::MethodTooLong));
    // A full window that is not a head.
    let limits = Limits { head_bytes: 2, ..Limits::default() };
    assert_eq!(parse_with(b"\r\n", &limits).map(|_| ()), Err(F::SectionTooLong.into()));
}

#[test]
fn an_accepted_request_is_written_with_one_framing_and_read_back_the_same() {
    for (input, ..) in served() {
        let head = accepted(input);
        if head.authority().is_empty() {
            continue;
        }
        let mut out = Vec::new();
        write_request(&head, &mut out);
        let again = accepted(&out);
        assert_eq!(
            (again.method_name(), again.path(), again.query()),
            (head.method_name(), head.path(), head.query())
        );
        assert_eq!((again.authority(), lines(&again)), (head.authority(), lines(&head)));
    }
}
