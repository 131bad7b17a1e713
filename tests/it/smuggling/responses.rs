//! The table of answers: what a hostile or broken backend may say.

use super::requests::expand;
use super::{LIMIT, perform};
use rhumb_testkit::config::Config;
use rhumb_testkit::message::{Kind, Message, latin};
use rhumb_testkit::port;
use rhumb_testkit::process::Rhumb;
use rhumb_testkit::stage::{Act, Event, Stage, ok};
use std::net::{Ipv4Addr, SocketAddr};

/// One answer.
struct Row {
    name: &'static str,
    method: &'static str,
    bytes: Vec<u8>,
    then: Then,
    expect: Expect,
}

/// What the backend does after the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Keep,
    Finish,
    Close,
    Reset,
}

/// What the client must see.
#[derive(Clone)]
enum Expect {
    /// 502 with problem+json, nothing of the answer, and the backend's connection closed.
    Gateway,
    /// The same, or a response that the client can tell is incomplete.
    Truncated,
    /// This response: `STATUS|name: value…||content`, without framing and what the proxy adds; the backend's
    /// connection is never used again.
    Passed(&'static str),
    /// The same; the connection may be used again.
    Clean(&'static str),
    /// Any of these is right.
    Any(Vec<Self>),
}
use Expect::{Any, Clean, Gateway, Passed, Truncated};

/// Response fields that the proxy adds or sets by itself.
const OWN: &[&str] = &[
    "date",
    "server",
    "via",
    "x-request-id",
    "connection",
    "content-length",
    "transfer-encoding",
    "proxy-status",
    "alt-svc",
];

/// What the client saw, and which of the backend's connections the request came on.
struct Outcome {
    response: Option<Message>,
    rest: String,
    closed: bool,
    /// For each connection that the backend had, whether the proxy closed it.
    used: Vec<bool>,
}

#[test]
fn hostile_answers_never_reach_a_client_as_something_else() {
    let mut stage = Stage::new();
    let port = port::free();
    let _rhumb = Rhumb::start(&Config::simple(port, stage.address()));
    let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let table = table();
    let wrong: Vec<String> = table.iter().filter_map(|row| play(&mut stage, proxy, row).err()).collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[test]
fn the_table_covers_what_it_promises() {
    assert!(table().iter().filter(|row| !matches!(row.expect, Clean(_))).count() >= 60);
}

/// A backend that speaks while nobody asked: its connection lies idle in the pool then.
#[test]
fn bytes_on_an_idle_connection_never_become_an_answer() {
    let mut stage = Stage::new();
    let port = port::free();
    let _rhumb = Rhumb::start(&Config::simple(port, stage.address()));
    let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let clean = b"GET /sentinel HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for unasked in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 408 Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "x",
    ] {
        stage.clear_all();
        stage.answer_ok();
        assert_eq!(
            perform(&mut stage, proxy, clean, false, |statuses| !statuses.is_empty()).statuses,
            Ok(vec![200])
        );
        stage.act(0, vec![Act::send(unasked)]);
        stage.settle();
        let outcome = perform(&mut stage, proxy, clean, false, |statuses| !statuses.is_empty());
        assert_eq!(outcome.statuses, Ok(vec![200]), "{unasked:?}");
        assert!(stage.fronts.iter().all(|front| {
            front.responses().is_ok_and(|(all, rest)| all[0].text() == "ok" && rest.is_empty())
        }));
        assert!(
            stage.upstreams[0].requests.len() == 1,
            "{unasked:?}: the poisoned connection was used again"
        );
    }
}

fn play(stage: &mut Stage, proxy: SocketAddr, row: &Row) -> Result<(), String> {
    stage.clear_all();
    let (bytes, then) = (row.bytes.clone(), row.then);
    stage.script(move |event| match event {
        Event::Request { message, .. } if message.target() == "/sentinel" => ok("clean"),
        Event::Request { .. } => {
            let last = match then {
                Then::Keep => None,
                Then::Finish => Some(Act::Finish),
                Then::Close => Some(Act::Close),
                Then::Reset => Some(Act::Reset),
            };
            std::iter::once(Act::Send(bytes.clone())).chain(last).collect()
        }
        Event::Accepted { .. } => Vec::new(),
    });
    let request = format!("{} /x HTTP/1.1\r\nHost: a.test\r\n\r\n", row.method);
    perform(stage, proxy, request.as_bytes(), false, |statuses| !statuses.is_empty());
    let kind = if row.method == "HEAD" { Kind::ResponseToHead } else { Kind::Response };
    let front = &stage.fronts[0];
    let (messages, rest) = Message::read_all(front.bytes(), kind, front.ended().is_some())
        .map_err(|why| format!("{}: the client was sent {why}", row.name))?;
    let mut finals = messages.into_iter().filter(|message| message.status() >= 200);
    let (response, rest, closed) = (finals.next(), latin(rest), front.ended().is_some());
    if let Some(second) = finals.next() {
        return Err(format!("{}: a second response {second:?}", row.name));
    }
    // Another client: served, by a connection that is not poisoned.
    let before = stage.upstreams.len();
    let clean = perform(stage, proxy, b"GET /sentinel HTTP/1.1\r\nHost: a.test\r\n\r\n", false, |statuses| {
        !statuses.is_empty()
    });
    let text = stage.fronts[1].responses().ok().and_then(|(all, _)| all.first().map(Message::text));
    if clean.statuses != Ok(vec![200]) || text.as_deref() != Some("clean") {
        let ups: Vec<(String, bool, bool)> = stage
            .upstreams
            .iter()
            .map(|up| (latin(up.bytes()), up.garbage.is_some(), up.ended().is_some()))
            .collect();
        return Err(format!(
            "{}: the clean request after it got {:?} {text:?}; the backend's connections (bytes, garbage, closed): {ups:?}",
            row.name, clean.statuses
        ));
    }
    // The proxy closes a moment after it has answered.
    let carried = |stage: &Stage| stage.upstreams.iter().take(before).all(|up| up.ended().is_some());
    if !matches!(row.expect, Clean(_) | Any(_)) {
        stage.run(LIMIT, carried);
    }
    let used = stage.upstreams.iter().take(before).map(|up| up.ended().is_some()).collect();
    let outcome = Outcome { response, rest, closed, used };
    let fresh = stage.upstreams.iter().skip(before).any(|up| !up.requests.is_empty());
    judge(&row.expect, &outcome, fresh).map_err(|why| format!("{}: {why}", row.name))
}

/// `fresh`: the next request came on a new connection.
fn judge(expect: &Expect, outcome: &Outcome, fresh: bool) -> Result<(), String> {
    let Outcome { response, rest, closed, used } = outcome;
    let wrong = |what: &str| {
        Err(format!(
            "{what}\n    client saw {response:?}, beyond that {rest:?}, closed: {closed}\n    connections used (closed): {used:?}, fresh one for the next: {fresh}"
        ))
    };
    let unusable = || {
        if fresh && used.iter().all(|closed| *closed) {
            Ok(())
        } else {
            wrong("the backend's connection must be closed and never used again")
        }
    };
    match expect {
        Any(all) => {
            let whys: Vec<String> = all.iter().filter_map(|one| judge(one, outcome, fresh).err()).collect();
            if whys.len() == all.len() { Err(whys.join("\n  and ")) } else { Ok(()) }
        }
        Gateway => match response {
            Some(own)
                if own.status() == 502
                    && own.field("content-type") == Some("application/problem+json")
                    && rest.is_empty() =>
            {
                unusable()
            }
            _ => wrong("expected 502 with problem+json"),
        },
        Truncated => match response {
            Some(_) => judge(&Gateway, outcome, fresh),
            None if *closed => unusable(),
            None => wrong("expected a closed connection"),
        },
        Passed(text) | Clean(text) => {
            let passed = response.as_ref().map(|message| {
                let start = message.status().to_string();
                Message { start, ..message.clone() }.canonical(OWN)
            });
            if passed.as_deref() != Some(text) || !rest.is_empty() {
                return wrong(&format!("expected {text:?}"));
            }
            if matches!(expect, Clean(_)) { Ok(()) } else { unusable() }
        }
    }
}

#[rustfmt::skip]
fn table() -> Vec<Row> {
    use Then::{Close, Finish, Keep, Reset};
    let row = |name, method, bytes: &[u8], then, expect| Row { name, method, bytes: expand(bytes), then, expect };
    vec![
        // status line
        row("garbage", "GET", b"garbage\r\n\r\n", Keep, Gateway),
        row("HTTP/0.9 style", "GET", b"<html>hello</html>\r\n\r\n", Close, Gateway),
        row("HTTP/0.9 style without line end", "GET", b"<html>hello</html>", Close, Gateway),
        row("status line: no status", "GET", b"HTTP/1.1\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: empty status", "GET", b"HTTP/1.1 \r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: two digits", "GET", b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: four digits", "GET", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: a letter", "GET", b"HTTP/1.1 2x0 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: below 100", "GET", b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: 600", "GET", b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: 999", "GET", b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: negative", "GET", b"HTTP/1.1 -20 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: version 2.0", "GET", b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: version 1.2", "GET", b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: version 0.9", "GET", b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: version in lower case", "GET", b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: another protocol", "GET", b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: space first", "GET", b" HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: two spaces", "GET", b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: tab", "GET", b"HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: NUL in the reason", "GET", b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: bare CR in the reason", "GET", b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: control byte in the reason", "GET", b"HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: bare LF", "GET", b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: no reason", "GET", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", Keep, Any(vec![Gateway, Clean("200||ok")])),
        row("status line: empty reason", "GET", b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", Keep, Clean("200||ok")),
        row("status line: after an empty line", "GET", b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("status line: a request instead", "GET", b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", Keep, Gateway),
        // fields
        row("bare LF everywhere", "GET", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Keep, Gateway),
        row("field: without a colon", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ngarbage\r\n\r\nok", Keep, Gateway),
        row("field: empty name", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n: y\r\n\r\nok", Keep, Gateway),
        row("field: space before", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n  X: y\r\n\r\nok", Keep, Gateway),
        row("field: NUL in the name", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX\0: y\r\n\r\nok", Keep, Gateway),
        row("field: byte above 127 in the name", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX\xe9: y\r\n\r\nok", Keep, Gateway),
        row("field: space in the name", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX Y: z\r\n\r\nok", Keep, Gateway),
        row("field: NUL in the value", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\0b\r\n\r\nok", Keep, Gateway),
        row("field: bare CR in the value", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\rb\r\n\r\nok", Keep, Gateway),
        row("field: bare LF in the value", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\nSet-Cookie: evil=1\r\n\r\nok", Keep, Gateway),
        row("field: control byte in the value", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\x01b\r\n\r\nok", Keep, Gateway),
        row("field: split by CR", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\rSet-Cookie: evil=1\r\n\r\nok", Keep, Gateway),
        row("field: space before the first", "GET", b"HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("field: space before the colon", "GET", b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("field: space before the colon of Content-Length", "GET", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", Keep, Gateway),
        row("field: folded", "GET", b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("field: LF LF ends the head", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\nok", Keep, Gateway),
        row("field: CR LF LF ends the head", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok", Keep, Gateway),
        row("field: CR CR LF ends a line", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\r\n\r\nok", Keep, Gateway),
        row("field: value beyond the limit", "GET", b"HTTP/1.1 200 OK\r\nX: {x*1000000}\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("field: more than the limit", "GET", b"HTTP/1.1 200 OK\r\n{fields*2000}Content-Length: 2\r\n\r\nok", Keep, Gateway),
        row("field: a head that does not end", "GET", b"HTTP/1.1 200 OK\r\n{fields*20000}", Keep, Gateway),
        row("field: byte above 127 in the value passes", "GET", b"HTTP/1.1 200 OK\r\nX: \xe9\r\nContent-Length: 2\r\n\r\nok", Keep, Clean("200|x: \u{e9}||ok")),
        row("field: equal names keep their order", "GET", b"HTTP/1.1 200 OK\r\nSet-Cookie: b=1\r\nSet-Cookie: a=2\r\nContent-Length: 2\r\n\r\nok", Keep, Clean("200|set-cookie: b=1|set-cookie: a=2||ok")),
        row("field: hop-by-hop fields end here", "GET", b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nX-End: 2\r\nContent-Length: 2\r\n\r\nok", Keep, Clean("200|x-end: 2||ok")),
        row("field: Content-Length cannot be nominated away", "GET", b"HTTP/1.1 200 OK\r\nConnection: Content-Length\r\nContent-Length: 2\r\n\r\nok", Keep, Any(vec![Gateway, Clean("200||ok")])),
        // Content-Length
        row("Content-Length: plus sign", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", Keep, Gateway),
        row("Content-Length: minus sign", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", Keep, Gateway),
        row("Content-Length: hexadecimal", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", Keep, Gateway),
        row("Content-Length: list of equals", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", Keep, Gateway),
        row("Content-Length: list of different", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok", Keep, Gateway),
        row("Content-Length: empty", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok", Keep, Gateway),
        row("Content-Length: letters", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: ok\r\n\r\nok", Keep, Gateway),
        row("Content-Length: space within", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2 2\r\n\r\nok", Keep, Gateway),
        row("Content-Length: 2^64 + 2", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok", Keep, Gateway),
        row("Content-Length: 2^63", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nok", Keep, Gateway),
        row("Content-Length: vertical tab", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\x0b\r\n\r\nok", Keep, Gateway),
        row("Content-Length: decimal", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2.0\r\n\r\nok", Keep, Gateway),
        row("Content-Length: two equal", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("Content-Length: two different", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\nok", Keep, Gateway),
        row("Content-Length: with 204", "GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", Keep, Any(vec![Gateway, Passed("204"), Clean("204")])),
        // Transfer-Encoding
        row("Transfer-Encoding: prefixed", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: gzip", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: gzip first", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: identity", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: twice", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: not final", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: vertical tab", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: empty", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: comma after", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: two", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: and Content-Length", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: after Content-Length", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: in HTTP/1.0", "GET", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: with 204", "GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Keep, Gateway),
        row("Transfer-Encoding: in another case", "GET", b"HTTP/1.1 200 OK\r\ntransfer-ENCODING: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Clean("200||ok")),
        // chunks
        row("chunk: 0x before the size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", Keep, Truncated),
        row("chunk: space before the size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 2\r\nok\r\n0\r\n\r\n", Keep, Truncated),
        row("chunk: space after the size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n", Keep, Truncated),
        row("chunk: minus sign", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", Keep, Truncated),
        row("chunk: no size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nok\r\n0\r\n\r\n", Keep, Truncated),
        row("chunk: size that is not hexadecimal", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nok\r\n0\r\n\r\n", Keep, Truncated),
        row("chunk: size beyond 2^64", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n", Keep, Truncated),
        row("chunk: bare LF after the size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", Keep, Truncated),
        row("chunk: bare LF after the data", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\n0\r\n\r\n", Keep, Truncated),
        row("chunk: data longer than the size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", Keep, Truncated),
        row("chunk: bare LF after the last chunk", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\n\n", Keep, Truncated),
        row("chunk: bare CR in an extension", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\rb\r\nok\r\n0\r\n\r\n", Keep, Truncated),
        row("chunk: extension beyond the limit", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;{x*100000}\r\nok\r\n0\r\n\r\n", Keep, Truncated),
        row("chunk: trailer without a colon", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX\r\n\r\n", Keep, Truncated),
        row("chunk: folded trailer", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n z\r\n\r\n", Keep, Truncated),
        row("chunk: bare LF in a trailer", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: a\nb\r\n\r\n", Keep, Truncated),
        row("chunk: trailers beyond the limit", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{fields*20000}\r\n", Keep, Truncated),
        row("chunk: closed within the data", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", Close, Truncated),
        row("chunk: closed after the data", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", Close, Truncated),
        row("chunk: closed after the last size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", Close, Truncated),
        row("chunk: closed within a size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1", Close, Truncated),
        row("chunk: closed before the first", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Close, Truncated),
        row("chunk: extension is discarded", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n", Keep, Clean("200||ok")),
        row("chunk: framing fields in the trailers do not pass", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n", Keep, Any(vec![Truncated, Clean("200||ok")])),
        // content
        row("content shorter than announced, closed", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", Close, Truncated),
        row("content shorter than announced, finished", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", Finish, Truncated),
        row("content shorter than announced, reset", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", Reset, Truncated),
        row("no content though announced, closed", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Close, Truncated),
        row("content longer than announced", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay", Keep, Passed("200||ok")),
        row("line end after the content", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n", Keep, Passed("200||ok")),
        row("second response after the content", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Keep, Passed("200||ok")),
        row("second response after the last chunk", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Keep, Passed("200||ok")),
        row("second response after 204", "GET", b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Keep, Passed("204")),
        row("content after 204", "GET", b"HTTP/1.1 204 No Content\r\n\r\nevil", Keep, Passed("204")),
        row("content after 304", "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", Keep, Passed("304")),
        row("content after the answer to HEAD", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Keep, Passed("200")),
        row("chunked content after the answer to HEAD", "HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Keep, Passed("200")),
        row("second response after the answer to HEAD", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Keep, Passed("200")),
        row("until close", "GET", b"HTTP/1.1 200 OK\r\n\r\nok", Close, Passed("200||ok")),
        row("until close, but reset", "GET", b"HTTP/1.1 200 OK\r\n\r\nok", Reset, Truncated),
        row("HTTP/1.0 with a length", "GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Close, Passed("200||ok")),
        row("Connection: close", "GET", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", Keep, Passed("200||ok")),
        // interim responses
        row("100 unasked", "GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Any(vec![Gateway, Clean("200||ok")])),
        row("103, then garbage", "GET", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\ngarbage\r\n\r\n", Keep, Gateway),
        row("103, then closed", "GET", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Close, Gateway),
        row("103 with Content-Length", "GET", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Any(vec![Gateway, Passed("200||ok"), Clean("200||ok")])),
        row("103 with Transfer-Encoding", "GET", b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Any(vec![Gateway, Passed("200||ok"), Clean("200||ok")])),
        row("flood of 103", "GET", b"{hints*10000}", Keep, Gateway),
        row("flood of 100", "GET", b"{continue*10000}", Keep, Gateway),
        row("101 unasked", "GET", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", Keep, Gateway),
        row("101 unasked, then a response", "GET", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Gateway),
        row("199 is interim", "GET", b"HTTP/1.1 199 What\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Keep, Any(vec![Gateway, Clean("200||ok")])),
        // early ends
        row("closed before any byte", "GET", b"", Close, Gateway),
        row("finished before any byte", "GET", b"", Finish, Gateway),
        row("reset before any byte", "GET", b"", Reset, Gateway),
        row("closed within the status line", "GET", b"HTTP/1.1 2", Close, Gateway),
        row("closed after the status line", "GET", b"HTTP/1.1 200 OK\r\n", Close, Gateway),
        row("closed within the fields", "GET", b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Le", Close, Gateway),
        row("reset within the fields", "GET", b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Le", Reset, Gateway),
    ]
}
