//! Frames that RFC 9113 forbids, and the error it names for each.

use super::Scene;
use rhumb_testkit::h2::{
    self, ACK, Connection, END_HEADERS, END_STREAM, PADDED, PREFACE, PRIORITY, code, kind,
};
use rhumb_testkit::hpack;

/// What must come of the bytes.
enum Error {
    /// The connection ends with GOAWAY of one of these codes.
    Connection(&'static [u32]),
    /// Stream 1 is reset with one of these codes (or answered with 400), and the connection goes on.
    Stream(&'static [u32]),
    /// Either, with one of these codes: what was a rule of RFC 7540's priorities is not worth keeping a connection for.
    Any(&'static [u32]),
    /// Nothing: the connection goes on.
    None,
}
use Error::{Connection as Conn, Stream};

const PROTOCOL: Error = Conn(&[code::PROTOCOL_ERROR]);
const SIZE: Error = Conn(&[code::FRAME_SIZE_ERROR]);
const COMPRESSION: Error = Conn(&[code::COMPRESSION_ERROR]);
/// RFC 9113 §5.1: a stream that is gone may be remembered as idle or as closed.
const CLOSED: Error = Conn(&[code::STREAM_CLOSED, code::PROTOCOL_ERROR]);

#[test]
fn forbidden_frames_are_the_errors_that_the_standard_names() {
    let mut scene = Scene::new();
    let mut wrong = Vec::new();
    for (name, bytes, expected) in table() {
        let mut connection = scene.connect();
        connection.send(&bytes);
        let outcome = match &expected {
            Conn(codes) => match ended(&mut connection) {
                Some(code) if codes.contains(&code) => Ok(()),
                other => Err(format!("GOAWAY {other:?}, expected one of {codes:?}")),
            },
            Stream(codes) => match connection.answer(1) {
                Ok(answer)
                    if answer.status == 400 || answer.reset.is_some_and(|code| codes.contains(&code)) =>
                {
                    alive(&mut connection)
                }
                other => Err(format!("{other:?}, expected one of {codes:?}")),
            },
            Error::Any(codes) => match connection.answer(1) {
                Ok(answer) if answer.reset.is_some_and(|code| codes.contains(&code)) => {
                    alive(&mut connection)
                }
                Err(why) if codes.iter().any(|code| why == format!("GOAWAY {:?}", Some(code))) => Ok(()),
                other => Err(format!("{other:?}, expected one of {codes:?}")),
            },
            Error::None => alive(&mut connection),
        };
        wrong.extend(outcome.err().map(|why| format!("{name}: {why}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.check();
}

#[test]
fn a_connection_that_does_not_begin_as_it_must_is_closed() {
    let mut scene = Scene::new();
    let ping = h2::ping(1);
    for first in [
        [PREFACE, &ping].concat(),
        [PREFACE, &h2::headers(1, &h2::get("a", "/", &[]), true)].concat(),
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(),
    ] {
        let mut connection = Connection::bare(scene.proxy);
        connection.send(&first);
        ended(&mut connection);
    }
    scene.check();
}

/// The code of GOAWAY before the end.
fn ended(connection: &mut Connection) -> Option<u32> {
    // A server may keep reading for a while after GOAWAY; ending our side tells it that nothing more comes.
    let mut code = None;
    loop {
        match connection.frame() {
            Ok(frame) if frame.kind == kind::GOAWAY => {
                code = frame.code();
                let _ = connection.stream().shutdown(std::net::Shutdown::Write);
            }
            Ok(_) => {}
            Err(_) => return code,
        }
    }
}

fn alive(connection: &mut Connection) -> Result<(), String> {
    connection
        .try_send(&h2::headers(101, &h2::get("a.test", "/bytes/5", &[]), true))
        .map_err(|error| error.to_string())?;
    let answer = connection.answer(101)?;
    if answer.status == 200 { Ok(()) } else { Err(format!("afterwards: {answer:?}")) }
}

#[rustfmt::skip]
fn table() -> Vec<(&'static str, Vec<u8>, Error)> {
    let get = h2::get("a.test", "/bytes/5", &[]);
    let post = h2::request("POST", "a.test", "/x", &[]);
    let open = h2::headers(1, &post, false);
    let hold = h2::headers(1, &h2::get("a.test", "/hold/never", &[]), true);
    let with = |first: &[u8], then: Vec<u8>| [first, &then].concat();
    let raw = |kind, flags, stream, payload: &[u8]| h2::frame(kind, flags, stream, payload);
    let setting = |id: u16, value: u32| h2::settings(&[(id, value)]);
    let invalid_index: Vec<u8> = { let mut b = get.clone(); hpack::indexed(&mut b, 70); b };
    let zero_index = [&get[..], &[0x80]].concat();
    let late_size = { let mut b = get.clone(); hpack::table_size(&mut b, 0); b };
    let large_size = { let mut b = Vec::new(); hpack::table_size(&mut b, 1 << 20); b.extend(&get); b };
    let endless_integer = [&get[..], &[0xff; 12]].concat();
    let bad_huffman = [&get[..], &[0x00, 0x81, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]].concat();
    let cut_string = [&get[..], &[0x00, 0x01, b'x', 0x05, b'y']].concat();
    let padding = [&[200u8][..], &get].concat();
    let mut large = vec![0x01, 0x00, 0x00, kind::DATA, 0, 0, 0, 0, 1];
    large.extend(vec![0; 65_536]);
    let mut large_headers = vec![0x00, 0x80, 0x00, kind::HEADERS, END_HEADERS, 0, 0, 0, 1];
    large_headers.extend(vec![0; 32_768]);
    vec![
        // §4.2, §5.1.1
        ("DATA beyond the frame size", with(&open, large), Conn(&[code::FRAME_SIZE_ERROR])),
        ("HEADERS beyond the frame size", large_headers, SIZE),
        ("stream 0 for HEADERS", raw(kind::HEADERS, END_HEADERS | END_STREAM, 0, &get), PROTOCOL),
        ("stream 0 for DATA", raw(kind::DATA, 0, 0, b"x"), PROTOCOL),
        ("stream 0 for RST_STREAM", raw(kind::RST_STREAM, 0, 0, &[0; 4]), PROTOCOL),
        ("stream 0 for PRIORITY", raw(kind::PRIORITY, 0, 0, &[0; 5]), PROTOCOL),
        ("stream 0 for CONTINUATION", raw(kind::CONTINUATION, END_HEADERS, 0, &get), PROTOCOL),
        ("even stream", h2::headers(2, &get, true), PROTOCOL),
        ("stream that goes back", with(&h2::headers(5, &get, true), h2::headers(3, &get, true)), CLOSED),
        // §5.1
        ("DATA on an idle stream", h2::data(9, b"x", true), PROTOCOL),
        ("RST_STREAM on an idle stream", h2::reset(9, 0), PROTOCOL),
        ("WINDOW_UPDATE on an idle stream", h2::window(9, 1), PROTOCOL),
        // §6.1, §6.2
        ("padding longer than DATA", with(&open, raw(kind::DATA, PADDED, 1, &[5, b'x'])), PROTOCOL),
        ("DATA without its padding length", with(&open, raw(kind::DATA, PADDED, 1, &[])), Conn(&[code::PROTOCOL_ERROR, code::FRAME_SIZE_ERROR])),
        ("padding longer than HEADERS", raw(kind::HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &padding), PROTOCOL),
        ("HEADERS without its priority", raw(kind::HEADERS, END_HEADERS | END_STREAM | PRIORITY, 1, &[0, 0]), Conn(&[code::PROTOCOL_ERROR, code::FRAME_SIZE_ERROR])),
        ("frame between HEADERS and CONTINUATION", with(&raw(kind::HEADERS, END_STREAM, 1, &get), h2::ping(1)), PROTOCOL),
        ("CONTINUATION of another stream", with(&raw(kind::HEADERS, END_STREAM, 1, &get), raw(kind::CONTINUATION, END_HEADERS, 3, &[])), PROTOCOL),
        ("CONTINUATION without HEADERS", raw(kind::CONTINUATION, END_HEADERS, 1, &get), PROTOCOL),
        ("CONTINUATION after the end", with(&hold, raw(kind::CONTINUATION, END_HEADERS, 1, &get)), PROTOCOL),
        // §6.3 to §6.7
        ("PRIORITY of a wrong length", with(&hold, raw(kind::PRIORITY, 0, 1, &[0; 4])), Error::Any(&[code::FRAME_SIZE_ERROR])),
        ("RST_STREAM of a wrong length", with(&hold, raw(kind::RST_STREAM, 0, 1, &[0; 3])), SIZE),
        ("SETTINGS of a wrong length", raw(kind::SETTINGS, 0, 0, &[0; 5]), SIZE),
        ("SETTINGS on a stream", raw(kind::SETTINGS, 0, 1, &[]), PROTOCOL),
        ("SETTINGS ack with content", raw(kind::SETTINGS, ACK, 0, &[0; 6]), SIZE),
        ("ENABLE_PUSH of 2", setting(2, 2), PROTOCOL),
        ("INITIAL_WINDOW_SIZE beyond 2^31 - 1", setting(4, 0x8000_0000), Conn(&[code::FLOW_CONTROL_ERROR])),
        ("MAX_FRAME_SIZE too small", setting(5, 16_383), PROTOCOL),
        ("MAX_FRAME_SIZE too large", setting(5, 1 << 24), PROTOCOL),
        ("ENABLE_CONNECT_PROTOCOL of 2", setting(8, 2), PROTOCOL),
        ("PUSH_PROMISE by a client", raw(kind::PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &get[..]].concat()), PROTOCOL),
        ("PING of a wrong length", raw(kind::PING, 0, 0, &[0; 7]), SIZE),
        ("PING on a stream", raw(kind::PING, 0, 1, &[0; 8]), PROTOCOL),
        // §6.8, §6.9
        ("GOAWAY on a stream", raw(kind::GOAWAY, 0, 1, &[0; 8]), PROTOCOL),
        ("GOAWAY too short", raw(kind::GOAWAY, 0, 0, &[0; 7]), SIZE),
        ("WINDOW_UPDATE of a wrong length", raw(kind::WINDOW_UPDATE, 0, 0, &[0; 3]), SIZE),
        ("WINDOW_UPDATE of 0 for the connection", h2::window(0, 0), PROTOCOL),
        ("WINDOW_UPDATE of 0 for a stream", with(&hold, h2::window(1, 0)), Stream(&[code::PROTOCOL_ERROR])),
        ("window of the connection beyond 2^31 - 1", h2::window(0, 0x7fff_ffff), Conn(&[code::FLOW_CONTROL_ERROR])),
        ("window of a stream beyond 2^31 - 1", with(&hold, h2::window(1, 0x7fff_ffff)), Stream(&[code::FLOW_CONTROL_ERROR])),
        ("SETTINGS that overflow a stream's window", [hold.clone(), h2::window(1, 0x7fff_0000), setting(4, 0x7fff_ffff)].concat(), Conn(&[code::FLOW_CONTROL_ERROR])),
        // RFC 7541
        ("index beyond the table", h2::headers(1, &invalid_index, true), COMPRESSION),
        ("index 0", h2::headers(1, &zero_index, true), COMPRESSION),
        ("table size update at the end", h2::headers(1, &late_size, true), COMPRESSION),
        ("table size beyond what was announced", h2::headers(1, &large_size, true), COMPRESSION),
        ("integer without end", h2::headers(1, &endless_integer, true), COMPRESSION),
        ("Huffman code of the end of string", h2::headers(1, &bad_huffman, true), COMPRESSION),
        ("string longer than the block", h2::headers(1, &cut_string, true), COMPRESSION),
        // Allowed, if odd.
        ("unknown frame", raw(0xfe, 0xff, 1, b"whatever"), Error::None),
        ("unknown setting", setting(0x99, 7), Error::None),
        ("PRIORITY on an idle stream", raw(kind::PRIORITY, 0, 99, &[0, 0, 0, 0, 1]), Error::None),
        ("reserved bit", { let mut f = h2::ping(1); f[5] |= 0x80; f }, Error::None),
        ("padded HEADERS with priority", raw(kind::HEADERS, END_HEADERS | END_STREAM | PADDED | PRIORITY, 1, &[&[3, 0, 0, 0, 0, 15][..], &get, &[0; 3]].concat()), Error::None),
        ("empty SETTINGS", h2::settings(&[]), Error::None),
    ]
}
