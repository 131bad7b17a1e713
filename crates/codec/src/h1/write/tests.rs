use super::*;
use crate::field::{FieldName, FieldValue, Known};

fn request(build: impl FnOnce(&mut RequestHead)) -> String {
    let mut head = RequestHead::new();
    head.set_authority(b"a");
    head.set_target(b"/p?q");
    build(&mut head);
    let mut out = Vec::new();
    write_request(&head, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn requests_are_written_in_origin_form_with_one_framing() {
    let get = |lines: &str| format!("GET /p?q HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    assert_eq!(request(|_| {}), get(""));
    assert_eq!(request(|head| head.content = Content::Length(7)), get("Content-Length: 7\r\n"));
    assert_eq!(request(|head| head.content = Content::Length(0)), get("Content-Length: 0\r\n"));
    assert_eq!(request(|head| head.content = Content::Streamed), get("Transfer-Encoding: chunked\r\n"));
    assert_eq!(request(|head| head.expect_continue = true), get("Expect: 100-continue\r\n"));
    assert_eq!(
        request(|head| head.keep_alive = false),
        get(""),
        "how the client's connection ends is its own"
    );
    assert_eq!(
        request(|head| head.set_upgrade(Some(b"websocket"))),
        get("Upgrade: websocket\r\nConnection: upgrade\r\n")
    );
    assert_eq!(request(|head| head.accepts_trailers = true), get("TE: trailers\r\nConnection: TE\r\n"));
    assert_eq!(
        request(|head| {
            head.accepts_trailers = true;
            head.version = Version::Http2;
        }),
        get(""),
        "in HTTP/2 it is always true and says nothing"
    );
    assert_eq!(
        request(|head| {
            head.accepts_trailers = true;
            head.set_upgrade(Some(b"x"));
        }),
        get("Upgrade: x\r\nTE: trailers\r\nConnection: upgrade, TE\r\n")
    );
}

#[test]
fn methods_that_anticipate_content_say_that_there_is_none() {
    for (method, length) in [
        ("POST", true),
        ("PUT", true),
        ("PATCH", true),
        ("GET", false),
        ("HEAD", false),
        ("DELETE", false),
        ("OPTIONS", false),
        ("PURGE", false),
    ] {
        let text = request(|head| head.set_method(method.as_bytes()));
        assert!(text.starts_with(&format!("{method} /p?q HTTP/1.1\r\n")), "{text:?}");
        assert_eq!(text.contains("Content-Length: 0\r\n"), length, "{text:?}");
    }
}

#[test]
fn targets_keep_their_forms() {
    assert!(request(|head| head.set_path(b"")).starts_with("GET /?q HTTP"));
    assert!(request(|head| head.set_query(None)).starts_with("GET /p HTTP"));
    assert!(request(|head| head.set_query(Some(b""))).starts_with("GET /p? HTTP"));
    let connect = |protocol: Option<&'static [u8]>| {
        request(|head| {
            head.set_method(b"CONNECT");
            head.set_authority(b"b:443");
            head.set_protocol(protocol);
            head.content = Content::Streamed;
        })
    };
    assert_eq!(connect(None), "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n");
    assert_eq!(
        connect(Some(b"websocket")),
        "GET /p?q HTTP/1.1\r\nHost: b:443\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
    );
    let options = request(|head| {
        head.set_method(b"OPTIONS");
        head.set_target(b"*");
    });
    assert!(options.starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[test]
fn fields_cannot_change_framing_host_or_connection() {
    let name = |text: &str| FieldName::parse(text.as_bytes()).unwrap();
    let text = request(|head| {
        for text in [
            "content-length",
            "transfer-encoding",
            "host",
            "connection",
            "upgrade",
            "te",
            "keep-alive",
            "proxy-connection",
            "expect",
            "http2-settings",
        ] {
            head.fields.append_named(&name(text), &FieldValue::parse(b"7").unwrap());
        }
        head.fields.append(Known::Via, b"1.1 x");
        head.fields.append_named(&name("X-Own"), &FieldValue::parse(b"").unwrap());
        head.content = Content::Length(1);
    });
    assert_eq!(text, "GET /p?q HTTP/1.1\r\nHost: a\r\nvia: 1.1 x\r\nx-own: \r\nContent-Length: 1\r\n\r\n");
}

#[test]
fn received_lines_are_written_as_they_were_but_for_their_white_space() {
    let input = b"GET / HTTP/1.1\r\nA: 1\r\nB:2\r\nC:  3 \r\nHost: h\r\nD: 4\r\nE: 5\r\nF: \r\nG: 7\r\n\r\n";
    let mut head = RequestHead::new();
    let limits = crate::h1::Limits::default();
    crate::h1::parse_request(input, &limits, crate::head::Scheme::Http, &mut head).unwrap().unwrap();
    head.fields.remove_spelled(b"e");
    head.fields.append(Known::Via, b"v");
    let mut out = Vec::new();
    write_request(&head, &mut out);
    let expected =
        "GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nF: \r\nG: 7\r\nvia: v\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn response_framing_follows_from_status_method_and_client() {
    use BodyFraming as B;
    use Version::{Http10, Http11};
    let close = "Connection: close\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (status, content, method, version, keep_alive, framing, lines) in [
        (
            200,
            Content::Length(3),
            Method::Get,
            Http11,
            true,
            B::Length(3),
            "Content-Length: 3\r\n".to_string(),
        ),
        (
            200,
            Content::Length(3),
            Method::Get,
            Http11,
            false,
            B::Length(3),
            format!("Content-Length: 3\r\n{close}"),
        ),
        (
            200,
            Content::Length(3),
            Method::Get,
            Http10,
            true,
            B::Length(3),
            "Content-Length: 3\r\nConnection: keep-alive\r\n".to_string(),
        ),
        (
            200,
            Content::Length(3),
            Method::Get,
            Http10,
            false,
            B::Length(3),
            format!("Content-Length: 3\r\n{close}"),
        ),
        (200, Content::None, Method::Get, Http11, true, B::Length(0), "Content-Length: 0\r\n".to_string()),
        (200, Content::Streamed, Method::Get, Http11, true, B::Chunked, chunked.to_string()),
        (200, Content::UntilClose, Method::Get, Http11, true, B::Chunked, chunked.to_string()),
        (200, Content::Streamed, Method::Get, Http11, false, B::Chunked, format!("{chunked}{close}")),
        (200, Content::Streamed, Method::Get, Http10, true, B::UntilClose, close.to_string()),
        (200, Content::UntilClose, Method::Get, Http10, true, B::UntilClose, close.to_string()),
        (200, Content::Length(3), Method::Head, Http11, true, B::None, "Content-Length: 3\r\n".to_string()),
        (200, Content::Streamed, Method::Head, Http11, true, B::None, String::new()),
        (200, Content::Streamed, Method::Head, Http10, false, B::None, close.to_string()),
        (204, Content::None, Method::Get, Http11, true, B::None, String::new()),
        (204, Content::Length(3), Method::Get, Http11, true, B::None, String::new()),
        (304, Content::None, Method::Get, Http11, true, B::None, String::new()),
        (304, Content::Length(3), Method::Get, Http11, true, B::None, String::new()),
        (200, Content::None, Method::Connect, Http11, true, B::None, String::new()),
        (
            403,
            Content::None,
            Method::Connect,
            Http11,
            true,
            B::Length(0),
            "Content-Length: 0\r\n".to_string(),
        ),
        (205, Content::None, Method::Post, Http11, true, B::Length(0), "Content-Length: 0\r\n".to_string()),
        (103, Content::None, Method::Get, Http11, false, B::None, String::new()),
        (
            599,
            Content::Length(0),
            Method::Get,
            Http11,
            true,
            B::Length(0),
            "Content-Length: 0\r\n".to_string(),
        ),
    ] {
        let mut head = ResponseHead::with_status(status);
        head.content = content;
        let context = ResponseContext { client_version: version, request_method: method, keep_alive };
        let mut out = b"before".to_vec();
        assert_eq!(write_response(&head, context, &mut out), framing, "{status} {content:?} {method:?}");
        let expected = format!("beforeHTTP/1.1 {status} {}\r\n{lines}\r\n", reason(status));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn declared_lengths_go_where_rfc_9110_allows_them() {
    for (status, method, written) in [
        (200, Method::Head, true),
        (404, Method::Head, true),
        (304, Method::Get, true),
        (204, Method::Head, false),
        (200, Method::Connect, false),
    ] {
        let mut head = ResponseHead::with_status(status);
        head.declared_length = Some(9);
        let context =
            ResponseContext { client_version: Version::Http11, request_method: method, keep_alive: true };
        let mut out = Vec::new();
        assert_eq!(write_response(&head, context, &mut out), BodyFraming::None);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.contains("Content-Length: 9\r\n"), written, "{text:?}");
    }
}

#[test]
fn switching_protocols_names_the_protocol() {
    let context =
        ResponseContext { client_version: Version::Http11, request_method: Method::Get, keep_alive: true };
    for (status, keep_alive, tail) in [
        (101, true, "Upgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        (426, true, "Content-Length: 0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        (426, false, "Content-Length: 0\r\nUpgrade: websocket\r\nConnection: close, upgrade\r\n\r\n"),
        (200, true, "Content-Length: 0\r\n\r\n"),
    ] {
        let mut head = ResponseHead::with_status(status);
        head.set_upgrade(Some(b"websocket"));
        let mut out = Vec::new();
        write_response(&head, ResponseContext { keep_alive, ..context }, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.split_once("\r\n").unwrap().1, tail);
    }
}

#[test]
fn clients_of_http10_get_no_interim_responses() {
    let context =
        ResponseContext { client_version: Version::Http10, request_method: Method::Get, keep_alive: true };
    let mut out = Vec::new();
    assert_eq!(write_response(&ResponseHead::with_status(100), context, &mut out), BodyFraming::None);
    assert!(out.is_empty());
}
