//! Requests that HTTP/2 can carry and HTTP/1 must never see (RFC 9113 §8.2.1, §8.3, §10.3): recorded by the stage on
//! the HTTP/1 side.

use rhumb_testkit::config::Config;
use rhumb_testkit::h2::{self, PREFACE, kind};
use rhumb_testkit::message::{ADDED_TO_REQUESTS, latin};
use rhumb_testkit::process::Rhumb;
use rhumb_testkit::stage::Stage;
use rhumb_testkit::{hpack, port};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

struct Row {
    name: &'static str,
    /// Frames of stream 1.
    frames: Vec<u8>,
    expect: Expect,
}

enum Expect {
    /// The stream is reset or answered with 400, 421 or 431, or the connection ends; nothing complete reaches the backend.
    Refused,
    /// The backend saw exactly this, and the stream was answered with 200.
    Forwarded(&'static str),
    /// Either is right.
    Either(&'static str),
    /// What was announced may have reached the backend, nothing of what came after; the stream is reset.
    NoMoreThan(&'static str),
}
use Expect::{Either, Forwarded, NoMoreThan, Refused};

#[test]
fn nothing_of_http2_becomes_syntax_of_http1() {
    let mut stage = Stage::new();
    let port = port::free();
    let _rhumb = Rhumb::start(&Config::simple(port, stage.address()).top("workers: 1"));
    let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let table = table();
    let wrong: Vec<String> = table.iter().filter_map(|row| play(&mut stage, proxy, row).err()).collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

fn play(stage: &mut Stage, proxy: SocketAddr, row: &Row) -> Result<(), String> {
    stage.clear();
    let saw = perform(stage, proxy, &row.frames)?;
    let refused = saw.complete.is_empty()
        && saw.rest.iter().all(|(_, closed)| *closed)
        && saw.status.is_none_or(|status| [400, 421, 431].contains(&status));
    let forwarded = |text: &str| saw.complete == [text] && saw.rest.is_empty() && saw.status == Some(200);
    let good = match &row.expect {
        Refused => refused,
        Forwarded(text) => forwarded(text),
        Either(text) => refused || forwarded(text),
        NoMoreThan(text) => {
            refused || (saw.complete == [*text] && saw.rest.is_empty() && saw.status.is_none())
        }
    };
    if !good {
        return Err(format!("{}: {saw:?}", row.name));
    }
    stage.clear();
    let clean = perform(stage, proxy, &get(&[]))?;
    if clean.complete != ["GET /x HTTP/1.1|host: a.test"] || clean.status != Some(200) {
        return Err(format!("{}: the clean request after it: {clean:?}", row.name));
    }
    Ok(())
}

#[derive(Debug)]
struct Saw {
    complete: Vec<String>,
    /// Bytes that are no complete request, and whether their connection was closed.
    rest: Vec<(String, bool)>,
    /// Final status of stream 1; none when it was reset or the connection ended.
    status: Option<u16>,
}

fn perform(stage: &mut Stage, proxy: SocketAddr, frames: &[u8]) -> Result<Saw, String> {
    let front = stage.connect(proxy);
    let ack = h2::frame(kind::SETTINGS, h2::ACK, 0, &[]);
    stage.send(front, &[PREFACE, &h2::settings(&[]), frames].concat());
    stage.run(LIMIT, |stage| {
        let front = &stage.fronts[front];
        let over = h2::answers(front.bytes())
            .is_ok_and(|(all, goaway)| goaway.is_some() || all.get(&1).is_some_and(|answer| answer.over));
        front.ended().is_some() || over
    });
    stage.send(front, &ack);
    stage.settle();
    stage.run(LIMIT, |stage| {
        stage.upstreams.iter().all(|up| up.rest().is_empty() || up.garbage.is_some() || up.ended().is_some())
    });
    let (answers, goaway) = h2::answers(stage.fronts[front].bytes())?;
    let answer = answers.get(&1);
    if !answer.is_some_and(|answer| answer.over) && goaway.is_none() && stage.fronts[front].ended().is_none()
    {
        return Err(format!("no outcome within {LIMIT:?}: {answers:?}"));
    }
    let ups = stage.upstreams.iter();
    Ok(Saw {
        complete: ups
            .clone()
            .flat_map(|up| &up.requests)
            .map(|message| message.canonical(ADDED_TO_REQUESTS))
            .collect(),
        rest: ups
            .filter(|up| !up.rest().is_empty())
            .map(|up| (latin(up.rest()), up.ended().is_some()))
            .collect(),
        status: answer
            .filter(|answer| answer.reset.is_none())
            .map(|answer| answer.status)
            .filter(|status| *status > 0),
    })
}

/// HEADERS of a GET with further fields.
fn get(more: &[(&str, &str)]) -> Vec<u8> {
    h2::headers(1, &h2::get("a.test", "/x", more), true)
}

#[rustfmt::skip]
fn table() -> Vec<Row> {
    let row = |name, frames, expect| Row { name, frames, expect };
    // HEADERS of exactly these fields.
    let only = |fields: &[(&str, &str)]| h2::headers(1, &hpack::encode(fields), true);
    // A GET with one pseudo-field replaced.
    let pseudo = |name: &str, value: &str| {
        let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x")];
        for field in &mut fields { if field.0 == name { field.1 = value; } }
        h2::headers(1, &hpack::encode(&fields), true)
    };
    // A POST with content and trailers.
    let post = |more: &[(&str, &str)], content: &[u8], trailers: Option<&[(&str, &str)]>| {
        let mut frames = h2::headers(1, &h2::request("POST", "a.test", "/x", more), false);
        frames.extend(h2::data(1, content, trailers.is_none()));
        if let Some(trailers) = trailers { frames.extend(h2::headers(1, &hpack::encode(trailers), true)); }
        frames
    };
    let ok = Forwarded("GET /x HTTP/1.1|host: a.test");
    let posted = "POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc";
    let latin_value = { let mut block = h2::get("a.test", "/x", &[]); hpack::literal(&mut block, hpack::Form::Plain, b"x", b"\xe9"); h2::headers(1, &block, true) };
    let latin_name = { let mut block = h2::get("a.test", "/x", &[]); hpack::literal(&mut block, hpack::Form::Plain, b"x\xe9", b"y"); h2::headers(1, &block, true) };
    vec![
        row("a plain GET", get(&[]), ok),
        // Values.
        row("value with CR LF", get(&[("x", "a\r\nevil: 1")]), Refused),
        row("value with CR", get(&[("x", "a\rb")]), Refused),
        row("value with LF", get(&[("x", "a\nb")]), Refused),
        row("value with NUL", get(&[("x", "a\0b")]), Refused),
        row("value with CR LF CR LF and a request", get(&[("x", "a\r\n\r\nGET /evil HTTP/1.1\r\nHost: b\r\n\r\n")]), Refused),
        row("value with a space first", get(&[("x", " a")]), Refused),
        row("value with a space last", get(&[("x", "a ")]), Refused),
        row("value with a tab first", get(&[("x", "\ta")]), Refused),
        row("value with a control byte", get(&[("x", "a\x01b")]), Refused),
        row("value with DEL", get(&[("x", "a\x7fb")]), Refused),
        row("value with a byte above 127", latin_value, Forwarded("GET /x HTTP/1.1|host: a.test|x: \u{e9}")),
        // Names.
        row("name with CR LF", get(&[("x\r\nevil", "1")]), Refused),
        row("name with LF", get(&[("x\nevil", "1")]), Refused),
        row("name with NUL", get(&[("x\0", "1")]), Refused),
        row("name with a colon", get(&[("x:y", "1")]), Refused),
        row("name with a space", get(&[("x y", "1")]), Refused),
        row("name with a space last", get(&[("content-length ", "3")]), Refused),
        row("name with a tab", get(&[("x\ty", "1")]), Refused),
        row("name in upper case", get(&[("X-Upper", "1")]), Refused),
        row("name with a byte above 127", latin_name, Refused),
        row("name with a parenthesis", get(&[("x(y)", "1")]), Refused),
        row("name with a quote", get(&[("x\"y", "1")]), Refused),
        row("empty name", get(&[("", "1")]), Refused),
        row("name that is a whole field", get(&[("transfer-encoding: chunked\r\nx", "1")]), Refused),
        // Pseudo-fields.
        row("path with a space", pseudo(":path", "/x y"), Refused),
        row("path with a request line", pseudo(":path", "/x HTTP/1.1\r\nHost: b\r\n\r\nGET /evil"), Refused),
        row("path with a version", pseudo(":path", "/x HTTP/1.1"), Refused),
        row("path with LF", pseudo(":path", "/x\ny"), Refused),
        row("path with a tab", pseudo(":path", "/x\ty"), Refused),
        row("path with NUL", pseudo(":path", "/x\0"), Refused),
        row("path with a fragment", pseudo(":path", "/x#y"), Refused),
        row("path without a slash", pseudo(":path", "x"), Refused),
        row("path that is a URI", pseudo(":path", "http://b.test/x"), Refused),
        row("empty path", pseudo(":path", ""), Refused),
        row("asterisk path with GET", pseudo(":path", "*"), Refused),
        row("path above the root", pseudo(":path", "/../x"), Refused),
        row("method with a space", pseudo(":method", "GET /evil"), Refused),
        row("method with CR LF", pseudo(":method", "GET /evil HTTP/1.1\r\nHost: b\r\n\r\nGET"), Refused),
        row("method with a colon", pseudo(":method", "GET:"), Refused),
        row("empty method", pseudo(":method", ""), Refused),
        row("authority with CR LF", pseudo(":authority", "a.test\r\nevil: 1"), Refused),
        row("authority with a space", pseudo(":authority", "a.test b"), Refused),
        row("authority with a slash", pseudo(":authority", "a.test/x"), Refused),
        row("authority with user information", pseudo(":authority", "u:p@a.test"), Refused),
        row("authority with a bad port", pseudo(":authority", "a.test:8x"), Refused),
        row("authority that is a list", pseudo(":authority", "a.test, b.test"), Refused),
        row("empty authority", pseudo(":authority", ""), Refused),
        row("scheme with a URI", pseudo(":scheme", "http://b.test/?"), Refused),
        row("scheme with CR LF", pseudo(":scheme", "http\r\nevil: 1"), Refused),
        row("another scheme", pseudo(":scheme", "ftp"), Refused),
        row("empty scheme", pseudo(":scheme", ""), Refused),
        row("no method", only(&[(":scheme", "http"), (":authority", "a.test"), (":path", "/x")]), Refused),
        row("no scheme", only(&[(":method", "GET"), (":authority", "a.test"), (":path", "/x")]), Refused),
        row("no path", only(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test")]), Refused),
        row("no authority and no host", only(&[(":method", "GET"), (":scheme", "http"), (":path", "/x")]), Refused),
        row("no fields at all", only(&[]), Refused),
        row("two methods", get(&[(":method", "POST")]), Refused),
        row("two paths", only(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x"), (":path", "/y")]), Refused),
        row("two authorities", only(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":authority", "b.test"), (":path", "/x")]), Refused),
        row("two schemes", only(&[(":method", "GET"), (":scheme", "http"), (":scheme", "https"), (":authority", "a.test"), (":path", "/x")]), Refused),
        row("unknown pseudo-field", only(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x"), (":evil", "1")]), Refused),
        row("pseudo-field of a response", only(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x"), (":status", "200")]), Refused),
        row("pseudo-field after a field", only(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), ("x", "1"), (":path", "/x")]), Refused),
        row("protocol without CONNECT", only(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x"), (":protocol", "websocket")]), Refused),
        row("CONNECT with a path", only(&[(":method", "CONNECT"), (":scheme", "http"), (":authority", "a.test:80"), (":path", "/x")]), Refused),
        // Host.
        row("host instead of authority", only(&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), ("host", "a.test")]), Forwarded("GET /x HTTP/1.1|host: a.test")),
        row("host equal to the authority", get(&[("host", "a.test")]), Forwarded("GET /x HTTP/1.1|host: a.test")),
        row("host against the authority", get(&[("host", "b.test")]), Refused),
        row("two hosts", only(&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), ("host", "a.test"), ("host", "b.test")]), Refused),
        row("host with CR LF", only(&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), ("host", "a.test\r\nevil: 1")]), Refused),
        // Fields of a connection (§8.2.2).
        row("connection", get(&[("connection", "close")]), Refused),
        row("connection that nominates", get(&[("connection", "x-a"), ("x-a", "1")]), Refused),
        row("keep-alive", get(&[("keep-alive", "timeout=5")]), Refused),
        row("proxy-connection", get(&[("proxy-connection", "keep-alive")]), Refused),
        row("upgrade", get(&[("upgrade", "websocket")]), Refused),
        row("transfer-encoding", get(&[("transfer-encoding", "chunked")]), Refused),
        row("transfer-encoding with content", post(&[("transfer-encoding", "chunked")], b"0\r\n\r\nGET /evil HTTP/1.1\r\nHost: b\r\n\r\n", None), Refused),
        row("te other than trailers", get(&[("te", "gzip")]), Refused),
        row("te: trailers and more", get(&[("te", "trailers, gzip")]), Refused),
        row("te: trailers", get(&[("te", "trailers")]), Either("GET /x HTTP/1.1|host: a.test")),
        // Content-Length.
        row("content without Content-Length", post(&[], b"abc", None), Forwarded(posted)),
        row("content that matches", post(&[("content-length", "3")], b"abc", None), Forwarded("POST /x HTTP/1.1|content-length: 3|host: a.test||abc")),
        row("content that looks like chunks", post(&[], b"0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n", None), Forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n")),
        row("content longer than announced", post(&[("content-length", "1")], b"abc", None), Refused),
        row("content shorter than announced", post(&[("content-length", "5")], b"abc", None), Refused),
        row("content where 0 is announced", post(&[("content-length", "0")], b"GET /evil HTTP/1.1\r\n\r\n", None), NoMoreThan("POST /x HTTP/1.1|content-length: 0|host: a.test")),
        row("no content where some is announced", get(&[("content-length", "5")]), Refused),
        row("two Content-Lengths", post(&[("content-length", "3"), ("content-length", "3")], b"abc", None), Refused),
        row("two different Content-Lengths", post(&[("content-length", "3"), ("content-length", "4")], b"abc", None), Refused),
        row("Content-Length with a plus sign", post(&[("content-length", "+3")], b"abc", None), Refused),
        row("Content-Length that is a list", post(&[("content-length", "3, 3")], b"abc", None), Refused),
        row("Content-Length with CR LF", post(&[("content-length", "3\r\nevil: 1")], b"abc", None), Refused),
        row("empty Content-Length", post(&[("content-length", "")], b"abc", None), Refused),
        // Trailers.
        row("trailers", post(&[], b"abc", Some(&[("x-sum", "1")])), Forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc||x-sum: 1")),
        row("trailers with a pseudo-field", post(&[], b"abc", Some(&[(":path", "/evil")])), Refused),
        row("trailers with CR LF", post(&[], b"abc", Some(&[("x", "1\r\nevil: 1")])), Refused),
        row("trailers with an upper-case name", post(&[], b"abc", Some(&[("X", "1")])), Refused),
        row("trailers with Content-Length", post(&[], b"abc", Some(&[("content-length", "9")])), Either(posted)),
        row("trailers with Transfer-Encoding", post(&[], b"abc", Some(&[("transfer-encoding", "chunked")])), Either(posted)),
        row("trailers with Host", post(&[], b"abc", Some(&[("host", "b.test")])), Either(posted)),
        row("trailers that do not end the stream", [
            h2::headers(1, &h2::request("POST", "a.test", "/x", &[]), false), h2::headers(1, &hpack::encode(&[("x", "1")]), false)].concat(), Refused),
        // Cookies (§8.2.3).
        row("cookie in crumbs", get(&[("cookie", "a=b"), ("x", "1"), ("cookie", "c=d")]), Forwarded("GET /x HTTP/1.1|cookie: a=b; c=d|host: a.test|x: 1")),
    ]
}
