//! The table of requests.

use super::Expect::{self, Any, Cut, Dropped, Forwarded, Local, Refused};
use super::{Row, play};
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::{Nginx, Rhumb};
use rhumb_testkit::stage::Stage;
use std::net::{Ipv4Addr, SocketAddr};

/// Malformed or ambiguous.
const BAD: &[u16] = &[400];
/// Malformed where a parser may see another protocol version first.
const VERSION: &[u16] = &[400, 505];
/// A transfer coding that is malformed or not supported.
const CODING: &[u16] = &[400, 501];
/// Framing of the content breaks or a bound is exceeded after the head was good.
const CHUNK: &[u16] = &[400, 408, 413, 431];
/// The client stopped in the middle.
const LATE: &[u16] = &[400, 408];

fn forwarded(request: &str) -> Expect {
    Forwarded(vec![request.to_owned()])
}

fn then(request: &str, refused: &'static [u16]) -> Expect {
    Expect::Then(vec![request.to_owned()], refused)
}

/// Writes `{x*N}` out as N letters, `{fields*N}` as N fields and so on: the tables stay readable.
pub(super) fn expand(text: &[u8]) -> Vec<u8> {
    const UNITS: &[(&str, &str)] = &[
        ("{x*", "x"),
        ("{fields*", "X-Filler: y\r\n"),
        ("{hints*", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        ("{continue*", "HTTP/1.1 100 Continue\r\n\r\n"),
    ];
    for (mark, unit) in UNITS {
        let Some(start) = text.windows(mark.len()).position(|window| window == mark.as_bytes()) else {
            continue;
        };
        let digits: String = text[start + mark.len()..]
            .iter()
            .map_while(|b| b.is_ascii_digit().then_some(char::from(*b)))
            .collect();
        let after = start + mark.len() + digits.len() + 1;
        let times = digits.parse().expect("a number in the table");
        return [&text[..start], unit.repeat(times).as_bytes(), &text[after..]].concat();
    }
    text.to_vec()
}

#[test]
fn requests_are_forwarded_exactly_or_refused_and_closed() {
    let mut stage = Stage::new();
    let port = port::free();
    let _rhumb = Rhumb::start(&Config::simple(port, stage.address()));
    let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let table = table();
    let wrong: Vec<String> = table.iter().filter_map(|row| play(&mut stage, proxy, row).err()).collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[test]
fn the_table_has_unique_names_and_covers_what_it_promises() {
    let table = table();
    let mut names: Vec<&str> = table.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), table.len());
    assert!(table.iter().filter(|row| !matches!(row.expect, Forwarded(_))).count() >= 120);
}

/// The judge is not blind: a lenient proxy fails exactly where it is lenient.
#[test]
fn the_recorder_tells_what_a_lenient_proxy_lets_through() {
    let mut stage = Stage::new();
    let backend = stage.address();
    let nginx = Nginx::start(&format!(
        "upstream b {{ server {backend}; keepalive 4; }}
         server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://b; proxy_http_version 1.1;
         proxy_set_header Host $http_host; proxy_set_header Connection ''; }} }}"
    ));
    let table = table();
    let mut play = |name: &str| {
        let row = table.iter().find(|row| row.name == name).expect("a row of the table");
        play(&mut stage, nginx.address(), row)
    };
    for name in [
        "three requests at once",
        "HEAD",
        "no Host",
        "Transfer-Encoding and Content-Length",
        "content of GET is framed",
    ] {
        assert_eq!(play(name), Ok(()));
    }
    let lenient = play("bare LF ends the request line").expect_err("nginx takes a bare LF");
    assert!(lenient.contains("GET /x HTTP/1.1|host: a.test"), "{lenient}");
}

#[rustfmt::skip]
fn table() -> Vec<Row> {
    let row = |name, bytes: &[u8], expect| Row { name, bytes: expand(bytes), finish: false, expect };
    // The client ends its direction afterwards.
    let fin = |name, bytes: &[u8], expect| Row { name, bytes: expand(bytes), finish: true, expect };
    vec![
        // request line
        row("bare LF ends the request line", b"GET /x HTTP/1.1\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("bare LF ends every line", b"GET /x HTTP/1.1\nHost: a.test\n\n", Refused(BAD)),
        row("bare CR ends the request line", b"GET /x HTTP/1.1\rHost: a.test\r\n\r\n", Refused(BAD)),
        row("CR CR LF ends the request line", b"GET /x HTTP/1.1\r\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("bare CR within the target", b"GET /x\ry HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("two spaces after the method", b"GET  /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("two spaces before the version", b"GET /x  HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("space after the version", b"GET /x HTTP/1.1 \r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("space before the method", b" GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("tab after the method", b"GET\t/x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("tab before the version", b"GET /x\tHTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("vertical tab before the version", b"GET /x\x0bHTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("two targets", b"GET /x /y HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("no target", b"GET HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("no version", b"GET /x\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("HTTP/0.9 simple request", b"GET /x\r\n\r\n", Refused(VERSION)),
        row("version in lower case", b"GET /x http/1.1\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/0.9", b"GET /x HTTP/0.9\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/1.2", b"GET /x HTTP/1.2\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/1.9", b"GET /x HTTP/1.9\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/2.0", b"GET /x HTTP/2.0\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/3", b"GET /x HTTP/3\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/1", b"GET /x HTTP/1\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/11", b"GET /x HTTP/11\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/1.10", b"GET /x HTTP/1.10\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/1.1.1", b"GET /x HTTP/1.1.1\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/+1.1", b"GET /x HTTP/+1.1\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/1,1", b"GET /x HTTP/1,1\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/01.1", b"GET /x HTTP/01.1\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version XTTP/1.1", b"GET /x XTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP /1.1", b"GET /x HTTP /1.1\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("version HTTP/1.1x", b"GET /x HTTP/1.1x\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("empty method", b"/x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        row("method with a parenthesis", b"GE(T /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("method with a colon", b"GET: /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("method with NUL", b"G\0ET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("method with a byte above 127", b"G\xe9T /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("method with a quote", b"\"GET\" /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("method in lower case is another method", b"get /x HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("get /x HTTP/1.1|host: a.test")),
        row("unknown method", b"PROPFIND /x HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("PROPFIND /x HTTP/1.1|host: a.test")),
        row("request line before another protocol: PROXY", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(VERSION)),
        fin("TLS ClientHello on a plain port", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", Dropped(BAD)),
        row("SSH banner", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Dropped(VERSION)),
        row("binary garbage", b"\x00\x01\x02\x03\xff\xfe\r\n\r\n", Dropped(BAD)),
        fin("only line feeds", b"\n\n\n\n", Dropped(BAD)),
        // target
        row("target: NUL", b"GET /x\0y HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("target: control byte", b"GET /x\x01y HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("target: DEL", b"GET /x\x7fy HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("target: byte above 127", b"GET /x\xe9y HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("target: space", b"GET /x y HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("target: fragment", b"GET /x#y HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("target: no leading slash", b"GET x/y HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("target: asterisk with GET", b"GET * HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("target: authority form with GET", b"GET a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("target: backslash", b"GET /x\\y HTTP/1.1\r\nHost: a.test\r\n\r\n", Local(BAD)),
        row("target: truncated percent encoding", b"GET /x% HTTP/1.1\r\nHost: a.test\r\n\r\n", Local(BAD)),
        row("target: half a percent encoding", b"GET /x%2 HTTP/1.1\r\nHost: a.test\r\n\r\n", Local(BAD)),
        row("target: percent encoding that is not hexadecimal", b"GET /x%zz HTTP/1.1\r\nHost: a.test\r\n\r\n", Local(BAD)),
        row("target: encoded NUL", b"GET /x%00y HTTP/1.1\r\nHost: a.test\r\n\r\n", Local(BAD)),
        row("target: encoded CR LF", b"GET /x%0d%0aHost:%20b.test HTTP/1.1\r\nHost: a.test\r\n\r\n", Local(BAD)),
        row("target: dot segments above the root", b"GET /../x HTTP/1.1\r\nHost: a.test\r\n\r\n", Local(BAD)),
        row("target: encoded dot segments above the root", b"GET /%2e%2e/x HTTP/1.1\r\nHost: a.test\r\n\r\n", Local(BAD)),
        row("target: dot segments above the root later", b"GET /a/../../x HTTP/1.1\r\nHost: a.test\r\n\r\n", Local(BAD)),
        row("target: encoded backslash", b"GET /x%5c..%5cy HTTP/1.1\r\nHost: a.test\r\n\r\n", Any(vec![Local(BAD), forwarded("GET /x%5C..%5Cy HTTP/1.1|host: a.test")])),
        row("target: dot segments", b"GET /a/../b/./c HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /b/c HTTP/1.1|host: a.test")),
        row("target: encoded dot segments", b"GET /a/%2E%2e/b HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /b HTTP/1.1|host: a.test")),
        row("target: encoded slash stays", b"GET /a%2fb HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /a%2Fb HTTP/1.1|host: a.test")),
        row("target: encoded letter", b"GET /%78 HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test")),
        row("target: double slash", b"GET /a//b HTTP/1.1\r\nHost: a.test\r\n\r\n", Any(vec![forwarded("GET /a//b HTTP/1.1|host: a.test"), forwarded("GET /a/b HTTP/1.1|host: a.test")])),
        row("target: query is left alone", b"GET /x?a=../b&c=%2e%2e HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /x?a=../b&c=%2e%2e HTTP/1.1|host: a.test")),
        row("target: encoded CR LF in the query", b"GET /x?a=%0d%0ab HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /x?a=%0d%0ab HTTP/1.1|host: a.test")),
        row("target: parameters", b"GET /x;a=b HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /x;a=b HTTP/1.1|host: a.test")),
        row("target: double encoding stays", b"GET /%252e%252e/x HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /%252e%252e/x HTTP/1.1|host: a.test")),
        row("target: longer than the limit", b"GET /{x*20000} HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(&[414])),
        row("CONNECT", b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", Local(&[400, 403, 404, 405, 501])),
        row("CONNECT with a path", b"CONNECT /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("absolute form", b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test")),
        row("absolute form without a path", b"GET http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET / HTTP/1.1|host: a.test")),
        row("absolute form against another Host", b"GET http://a.test/x HTTP/1.1\r\nHost: b.test\r\n\r\n", Refused(BAD)),
        row("absolute form against another port", b"GET http://a.test:81/x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("absolute form without Host", b"GET http://a.test/x HTTP/1.1\r\n\r\n", Refused(BAD)),
        row("absolute form with user information", b"GET http://u:p@a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("absolute form without authority", b"GET http:///x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("absolute form of another scheme", b"GET ftp://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("absolute form with a bad port", b"GET http://a.test:8x/x HTTP/1.1\r\nHost: a.test:8x\r\n\r\n", Refused(BAD)),
        // Host
        row("no Host", b"GET /x HTTP/1.1\r\n\r\n", Refused(BAD)),
        row("no Host but X-Forwarded-Host", b"GET /x HTTP/1.1\r\nX-Forwarded-Host: a.test\r\n\r\n", Refused(BAD)),
        row("two equal Hosts", b"GET /x HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("two different Hosts", b"GET /x HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", Refused(BAD)),
        row("two Hosts in other case", b"GET /x HTTP/1.1\r\nHost: a.test\r\nhOST: a.test\r\n\r\n", Refused(BAD)),
        row("Host: empty", b"GET /x HTTP/1.1\r\nHost: \r\n\r\n", Refused(BAD)),
        row("Host: blank", b"GET /x HTTP/1.1\r\nHost:  \r\n\r\n", Refused(BAD)),
        row("Host: space", b"GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", Refused(BAD)),
        row("Host: slash", b"GET /x HTTP/1.1\r\nHost: a.test/x\r\n\r\n", Refused(BAD)),
        row("Host: user information", b"GET /x HTTP/1.1\r\nHost: u@a.test\r\n\r\n", Refused(BAD)),
        row("Host: list", b"GET /x HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n", Refused(BAD)),
        row("Host: byte above 127", b"GET /x HTTP/1.1\r\nHost: \xe9.test\r\n\r\n", Refused(BAD)),
        row("Host: port with letters", b"GET /x HTTP/1.1\r\nHost: a.test:8x\r\n\r\n", Refused(BAD)),
        row("Host: port out of range", b"GET /x HTTP/1.1\r\nHost: a.test:65536\r\n\r\n", Refused(BAD)),
        row("Host: negative port", b"GET /x HTTP/1.1\r\nHost: a.test:-1\r\n\r\n", Refused(BAD)),
        row("Host: two ports", b"GET /x HTTP/1.1\r\nHost: a.test:80:80\r\n\r\n", Refused(BAD)),
        row("Host: IPv6 without brackets", b"GET /x HTTP/1.1\r\nHost: ::1\r\n\r\n", Refused(BAD)),
        row("Host: open bracket", b"GET /x HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused(BAD)),
        row("Host: bad IPv6", b"GET /x HTTP/1.1\r\nHost: [::g]\r\n\r\n", Refused(BAD)),
        row("Host: text after the bracket", b"GET /x HTTP/1.1\r\nHost: [::1]x\r\n\r\n", Refused(BAD)),
        row("Host: NUL", b"GET /x HTTP/1.1\r\nHost: a\0.test\r\n\r\n", Refused(BAD)),
        row("Host: backslash", b"GET /x HTTP/1.1\r\nHost: a\\b\r\n\r\n", Refused(BAD)),
        row("Host: question mark", b"GET /x HTTP/1.1\r\nHost: a.test?x\r\n\r\n", Refused(BAD)),
        row("Host: fragment", b"GET /x HTTP/1.1\r\nHost: a.test#x\r\n\r\n", Refused(BAD)),
        row("Host: tab within", b"GET /x HTTP/1.1\r\nHost: a\ttest\r\n\r\n", Refused(BAD)),
        row("Host: angle bracket", b"GET /x HTTP/1.1\r\nHost: <a>\r\n\r\n", Refused(BAD)),
        row("Host: percent", b"GET /x HTTP/1.1\r\nHost: a%zz.test\r\n\r\n", Refused(BAD)),
        row("Host: URI", b"GET /x HTTP/1.1\r\nHost: http://a.test\r\n\r\n", Refused(BAD)),
        row("Host with a port", b"GET /x HTTP/1.1\r\nHost: a.test:8080\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test:8080")),
        row("Host with an IPv6 literal", b"GET /x HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", forwarded("GET /x HTTP/1.1|host: [::1]:8080")),
        // fields
        row("space before the colon", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX : y\r\n\r\n", Refused(BAD)),
        row("tab before the colon", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX\t: y\r\n\r\n", Refused(BAD)),
        row("space before the colon of Host", b"GET /x HTTP/1.1\r\nHost : a.test\r\n\r\n", Refused(BAD)),
        row("space before the first field", b"GET /x HTTP/1.1\r\n Host: a.test\r\n\r\n", Refused(BAD)),
        row("tab before the first field", b"GET /x HTTP/1.1\r\n\tX: y\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("folded value with a space", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: y\r\n  z\r\n\r\n", Refused(BAD)),
        row("folded value with a tab", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\tz\r\n\r\n", Refused(BAD)),
        row("folded Host", b"GET /x HTTP/1.1\r\nHost: a.test\r\n b.test\r\n\r\n", Refused(BAD)),
        row("blank line with a space", b"GET /x HTTP/1.1\r\nHost: a.test\r\n \r\n\r\n", Refused(BAD)),
        row("empty name", b"GET /x HTTP/1.1\r\nHost: a.test\r\n: y\r\n\r\n", Refused(BAD)),
        row("line without a colon", b"GET /x HTTP/1.1\r\nHost: a.test\r\ngarbage\r\n\r\n", Refused(BAD)),
        row("name with space", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX Y: z\r\n\r\n", Refused(BAD)),
        row("name with NUL", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX\0Y: z\r\n\r\n", Refused(BAD)),
        row("name with byte above 127", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX\xe9: z\r\n\r\n", Refused(BAD)),
        row("name with parenthesis", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX(Y): z\r\n\r\n", Refused(BAD)),
        row("name with at sign", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX@Y: z\r\n\r\n", Refused(BAD)),
        row("name with slash", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX/Y: z\r\n\r\n", Refused(BAD)),
        row("name with quote", b"GET /x HTTP/1.1\r\nHost: a.test\r\n\"X\": z\r\n\r\n", Refused(BAD)),
        row("name with control byte", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX\x01: z\r\n\r\n", Refused(BAD)),
        row("name with DEL", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX\x7f: z\r\n\r\n", Refused(BAD)),
        row("name with bracket", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX[0]: z\r\n\r\n", Refused(BAD)),
        row("name with comma", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX,Y: z\r\n\r\n", Refused(BAD)),
        row("name with equals sign", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX=Y: z\r\n\r\n", Refused(BAD)),
        row("value with NUL", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\0b\r\n\r\n", Refused(BAD)),
        row("value with bare CR", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\n\r\n", Refused(BAD)),
        row("value with bare LF", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\nb\r\n\r\n", Refused(BAD)),
        row("value with control byte", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\x01b\r\n\r\n", Refused(BAD)),
        row("value with DEL", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\x7fb\r\n\r\n", Refused(BAD)),
        row("value with vertical tab", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\x0bb\r\n\r\n", Refused(BAD)),
        row("value with form feed", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\x0cb\r\n\r\n", Refused(BAD)),
        row("value with escape", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\x1bb\r\n\r\n", Refused(BAD)),
        row("value with backspace", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\x08b\r\n\r\n", Refused(BAD)),
        row("value with a smuggled field behind bare CR", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n", Refused(BAD)),
        row("value with a smuggled field behind bare LF", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n", Refused(BAD)),
        row("value with a byte above 127", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: \xe9\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test|x: \u{e9}")),
        row("value with a tab within", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\tb\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test|x: a\tb")),
        row("empty value", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX:\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test|x: ")),
        row("white space around a value", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: \t y \t\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test|x: y")),
        row("equal names keep their order", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: 2\r\nY: 3\r\nX: 1\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test|x: 2|x: 1|y: 3")),
        row("CR CR LF ends a field", b"GET /x HTTP/1.1\r\nHost: a.test\r\r\n\r\n", Refused(BAD)),
        row("LF ends a field", b"GET /x HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n", Refused(BAD)),
        row("LF LF ends the fields", b"GET /x HTTP/1.1\r\nHost: a.test\n\n", Refused(BAD)),
        row("CR LF LF ends the fields", b"GET /x HTTP/1.1\r\nHost: a.test\r\n\n", Refused(BAD)),
        row("LF CR LF ends the fields", b"GET /x HTTP/1.1\r\nHost: a.test\n\r\n", Refused(BAD)),
        row("CR LF CR X ends the fields", b"GET /x HTTP/1.1\r\nHost: a.test\r\n\rX", Refused(BAD)),
        fin("head without its end", b"GET /x HTTP/1.1\r\nHost: a.test\r\n", Dropped(LATE)),
        fin("half a request line", b"GET /x HT", Dropped(LATE)),
        row("more fields than the limit", b"GET /x HTTP/1.1\r\nHost: a.test\r\n{fields*200}\r\n", Refused(&[431])),
        row("value longer than the limit", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX: {x*100000}\r\n\r\n", Refused(&[431])),
        row("name longer than the limit", b"GET /x HTTP/1.1\r\nHost: a.test\r\n{x*100000}: y\r\n\r\n", Refused(&[400, 431])),
        row("method longer than the limit", b"{x*100000} /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(&[400, 414, 431, 501])),
        row("one empty line before the request", b"\r\nGET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test")),
        row("LF before the request", b"\nGET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("line with a space before the request", b" \r\nGET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        row("three empty lines before the request", b"\r\n\r\n\r\nGET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(BAD)),
        // Content-Length
        row("Content-Length: plus sign", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: +3\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: minus sign", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: -3\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: hexadecimal", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0x3\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: list of equals", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3, 3\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: list without space", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3,3\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: list of different", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3, 4\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: empty", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: \r\n\r\nabc", Refused(BAD)),
        row("Content-Length: blank", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length:  \r\n\r\nabc", Refused(BAD)),
        row("Content-Length: letters after", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3a\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: letters only", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: abc\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: exponent", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1e1\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: decimal", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3.0\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: space within", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3 3\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: semicolon", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3;3\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: quotes", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: \"3\"\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: vertical tab before", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: \x0b3\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: vertical tab after", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\x0b\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: NUL after", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\0\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: no-break space", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: \xa03\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: underscore", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1_0\r\n\r\nabc", Refused(BAD)),
        row("Content-Length: 2^63", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9223372036854775808\r\n\r\nabc", Refused(&[400, 413])),
        row("Content-Length: 2^64", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 18446744073709551616\r\n\r\nabc", Refused(&[400, 413])),
        row("Content-Length: 2^64 + 3", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 18446744073709551619\r\n\r\nabc", Refused(&[400, 413])),
        row("Content-Length: thirty digits", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 999999999999999999999999999993\r\n\r\nabc", Refused(&[400, 413])),
        row("Content-Length: leading zeros", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 003\r\n\r\nabc", Any(vec![Refused(BAD), forwarded("POST /x HTTP/1.1|content-length: 3|host: a.test||abc")])),
        row("Content-Length: white space around", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length:\t 3 \t\r\n\r\nabc", Any(vec![Refused(BAD), forwarded("POST /x HTTP/1.1|content-length: 3|host: a.test||abc")])),
        row("two equal Content-Lengths", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Refused(BAD)),
        row("two different Content-Lengths", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 0\r\n\r\nabc", Refused(BAD)),
        row("two Content-Lengths in other case", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\ncontent-LENGTH: 3\r\n\r\nabc", Refused(BAD)),
        row("space before the colon of Content-Length", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length : 3\r\n\r\nabc", Refused(BAD)),
        row("folded Content-Length", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length:\r\n 3\r\n\r\nabc", Refused(BAD)),
        row("NUL in the name of Content-Length", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length\0: 3\r\n\r\nabc", Refused(BAD)),
        row("Content-Length behind a bare LF", b"POST /x HTTP/1.1\r\nHost: a.test\r\nX: y\nContent-Length: 3\r\n\r\nabc", Refused(BAD)),
        row("content of GET is framed", b"GET /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc", forwarded("GET /x HTTP/1.1|content-length: 3|host: a.test||abc")),
        row("request within content stays content", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 37\r\n\r\nGET /admin HTTP/1.1\r\nHost: b.test\r\n\r\n", forwarded("POST /x HTTP/1.1|content-length: 37|host: a.test||GET /admin HTTP/1.1\r\nHost: b.test\r\n\r\n")),
        fin("content ends early", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nabc", Cut(LATE)),
        row("bytes behind the content are no request", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabcdef\r\n\r\n", then("POST /x HTTP/1.1|content-length: 3|host: a.test||abc", VERSION)),
        row("line end behind the content, then a request", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n", Forwarded(vec!["POST /x HTTP/1.1|content-length: 3|host: a.test||abc".into(), "GET /2 HTTP/1.1|host: a.test".into()])),
        // Transfer-Encoding
        row("Transfer-Encoding and Content-Length", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(BAD)),
        row("Content-Length and Transfer-Encoding", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(BAD)),
        row("Content-Length 0 and Transfer-Encoding", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(BAD)),
        row("Content-Length and an unknown Transfer-Encoding", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nTransfer-Encoding: foo\r\n\r\nabc", Refused(CODING)),
        row("Transfer-Encoding: prefixed", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: suffixed", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunkedx\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: shortened", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunk\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: not final", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: identity", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: identity first", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: identity, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: gzip first", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: gzip only", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: twice", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: quoted", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \"chunked\"\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: with a parameter", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked;q=1\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: comma after", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked,\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: comma before", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: ,chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: empty", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: blank", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding:  \r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: vertical tab before", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \x0bchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: vertical tab after", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\x0b\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: byte above 127 before", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \xffchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: no-break space", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \xa0chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: NUL after", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\0\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: space within", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chun ked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: semicolon", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked; \r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding: null", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: null\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("two Transfer-Encodings", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("two different Transfer-Encodings", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("two different Transfer-Encodings, chunked last", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(CODING)),
        row("Transfer-Encoding in HTTP/1.0", b"POST /x HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(BAD)),
        row("space before the colon of Transfer-Encoding", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding : chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(BAD)),
        row("tab before the colon of Transfer-Encoding", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding\t: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(BAD)),
        row("space before Transfer-Encoding", b"POST /x HTTP/1.1\r\nHost: a.test\r\n Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(BAD)),
        row("folded Transfer-Encoding", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding:\r\n chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Refused(BAD)),
        row("Transfer-Encoding in another case", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTRANSFER-encoding: ChUnKeD\r\n\r\n3\r\nabc\r\n0\r\n\r\n", forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc")),
        row("Transfer-Encoding with white space around", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \tchunked\t \r\n\r\n3\r\nabc\r\n0\r\n\r\n", Any(vec![Refused(BAD), forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc")])),
        row("underscore instead of hyphen is another field", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", Any(vec![Local(BAD), forwarded("POST /x HTTP/1.1|content-length: 3|host: a.test||abc"), forwarded("POST /x HTTP/1.1|content-length: 3|host: a.test|transfer_encoding: chunked||abc")])),
        // chunks
        row("chunk: 0x before the size", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: space before the size", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: space after the size", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: tab after the size", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\t\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: plus sign", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: minus sign", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: underscore in the size", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0_3\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: size that is not hexadecimal", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\ng\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: no size", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: size of 17 digits", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: size of 2^64 - 1", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: size of 2^63", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000000\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: bare LF after the size", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: bare CR after the size", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\rabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: bare LF after the data", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: bare CR after the data", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r0\r\n\r\n", Cut(CHUNK)),
        row("chunk: data longer than the size", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", Cut(CHUNK)),
        fin("chunk: data shorter than the size", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: no line end after the data", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc0\r\n\r\n", Cut(CHUNK)),
        row("chunk: bare LF in an extension", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: bare CR in an extension", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: NUL in an extension", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3;a\0\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: extension longer than the limit", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3;{x*100000}\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: bare LF after the last chunk", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\n\r\n", Cut(CHUNK)),
        row("chunk: LF LF after the last chunk", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\n\n", Cut(CHUNK)),
        row("chunk: CR CR after the last chunk", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\r", Cut(CHUNK)),
        row("chunk: size in decimal comma", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3,0\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: vertical tab in the size", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\x0b\r\nabc\r\n0\r\n\r\n", Cut(CHUNK)),
        row("chunk: space before the colon of a trailer", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX : y\r\n\r\n", Cut(CHUNK)),
        row("chunk: folded trailer", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n", Cut(CHUNK)),
        row("chunk: space before a trailer", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n X: y\r\n\r\n", Cut(CHUNK)),
        row("chunk: trailer without a colon", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX\r\n\r\n", Cut(CHUNK)),
        row("chunk: bare LF in a trailer", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: a\nb\r\n\r\n", Cut(CHUNK)),
        row("chunk: NUL in a trailer", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: a\0\r\n\r\n", Cut(CHUNK)),
        row("chunk: trailers longer than the limit", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: {x*100000}\r\n\r\n", Cut(CHUNK)),
        fin("chunk: chunks end early", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", Cut(CHUNK)),
        fin("chunk: no last chunk", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Cut(CHUNK)),
        fin("chunk: last chunk without the last line end", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", Cut(CHUNK)),
        row("chunk: extension is discarded", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0;c=\"d\"\r\n\r\n", forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc")),
        row("chunk: leading zeros", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n000\r\n\r\n", forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc")),
        row("chunk: several", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc")),
        row("chunk: hexadecimal in both cases", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\nB\r\n0123456789X\r\n0\r\n\r\n", forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||01234567890123456789X")),
        row("chunk: trailer passes", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n", Any(vec![forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc"), forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc||x-sum: 1")])),
        row("chunk: trailer Content-Length does not pass", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n", Any(vec![forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc"), Cut(CHUNK)])),
        row("chunk: trailer Transfer-Encoding does not pass", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", Any(vec![forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc"), Cut(CHUNK)])),
        row("chunk: trailer Host does not pass", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nHost: b.test\r\n\r\n", Any(vec![forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc"), Cut(CHUNK)])),
        row("chunk: trailer Authorization does not pass", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nAuthorization: x\r\n\r\n", Any(vec![forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc"), Cut(CHUNK)])),
        row("chunk: trailer Connection does not pass", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nConnection: x\r\n\r\n", Any(vec![forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc"), Cut(CHUNK)])),
        row("chunk: trailer Trailer does not pass", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", Any(vec![forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc"), Cut(CHUNK)])),
        row("chunk: request behind the last chunk", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n", Forwarded(vec!["POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc".into(), "GET /2 HTTP/1.1|host: a.test".into()])),
        row("chunk: garbage behind the last chunk", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nX\r\n\r\n", then("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc", VERSION)),
        // connection options and hop-by-hop fields
        row("nominated field is removed", b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test|x-end: 2")),
        row("Host cannot be nominated away", b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Host\r\n\r\n", Any(vec![Local(BAD), forwarded("GET /x HTTP/1.1|host: a.test")])),
        row("Content-Length cannot be nominated away", b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nConnection: Content-Length\r\n\r\nabc", Any(vec![Local(BAD), forwarded("POST /x HTTP/1.1|content-length: 3|host: a.test||abc")])),
        row("Transfer-Encoding cannot be nominated away", b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Any(vec![Local(BAD), forwarded("POST /x HTTP/1.1|host: a.test|transfer-encoding: chunked||abc")])),
        row("Authorization cannot be nominated away", b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Authorization\r\nAuthorization: Basic eDp5\r\n\r\n", Any(vec![Local(BAD), forwarded("GET /x HTTP/1.1|authorization: Basic eDp5|host: a.test")])),
        row("Cookie cannot be nominated away", b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Cookie\r\nCookie: a=b\r\n\r\n", Any(vec![Local(BAD), forwarded("GET /x HTTP/1.1|cookie: a=b|host: a.test")])),
        row("hop-by-hop fields end here", b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-End: 2\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test|x-end: 2")),
        row("h2c upgrade does not pass", b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test")),
        row("TE ends here", b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: TE\r\nTE: gzip, trailers\r\n\r\n", Any(vec![forwarded("GET /x HTTP/1.1|host: a.test"), forwarded("GET /x HTTP/1.1|connection: TE|host: a.test|te: trailers"), forwarded("GET /x HTTP/1.1|host: a.test|te: trailers")])),
        row("unknown expectation", b"GET /x HTTP/1.1\r\nHost: a.test\r\nExpect: 200-ok\r\n\r\n", Refused(&[417])),
        row("spoofed forwarding fields do not pass as sent", b"GET /x HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test")),
        // several requests on one connection
        row("three requests at once", b"GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /3 HTTP/1.1\r\nHost: a.test\r\n\r\n", Forwarded(vec!["GET /1 HTTP/1.1|host: a.test".into(), "GET /2 HTTP/1.1|host: a.test".into(), "GET /3 HTTP/1.1|host: a.test".into()])),
        row("second request is malformed", b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\nHost: a.test\n\n", then("GET /x HTTP/1.1|host: a.test", BAD)),
        row("second request has two framings", b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\nPOST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", then("GET /x HTTP/1.1|host: a.test", BAD)),
        row("nothing is read after close", b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test")),
        row("nothing is read after HTTP/1.0", b"GET /x HTTP/1.0\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("GET /x HTTP/1.1|host: a.test")),
        row("HEAD", b"HEAD /x HTTP/1.1\r\nHost: a.test\r\n\r\n", forwarded("HEAD /x HTTP/1.1|host: a.test")),
    ]
}
