//! A request that is really sent, through the listener that its URL names, and what became of it step by step.
//!
//! It goes to a listening socket of this process, over loopback, and to nothing else: where it is forwarded to is for the
//! routes of the configuration to say, as for the request of any client. Bounded: content of both sides, time, and how many
//! are under way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rhumb_policy::Filter;
use rhumb_proxy::tap::{Look, Opened};
use rhumb_tls::{AsyncTls, ClientSpec, ClientTls, Verify};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::describe::{Answer, read_body};
use super::shapes as shape;
use super::{Call, Problem, done};
use crate::admin::token::Token;
use crate::explain::Question;

/// The largest content of a request. **Unit**: bytes.
const MAX_SENT: usize = 64 << 10;

/// How much of the content of an answer is shown. **Unit**: bytes.
const MAX_SHOWN: usize = 64 << 10;

/// How long a request may take.
const TIME: Duration = Duration::from_secs(15);

/// How long its trace is waited for, when the answer has come.
const TRACE_TIME: Duration = Duration::from_secs(2);

/// Requests that are under way at a time; more wait.
static AT_A_TIME: Semaphore = Semaphore::const_new(4);

/// Fields that say how a message is framed, or how a connection goes on: they are not for whoever tries to choose.
const OWN: [&str; 8] =
    ["connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive", MARK];

/// The field by which the trace finds the request. Those that other proxies set are not believed of whom nobody trusts.
const MARK: &str = "x-rhumb-try";

/// Sends a request.
pub(super) async fn attempt(call: Call) -> Answer {
    let asked: shape::ToSend = read_body(&call.body)?;
    let admin = &call.desk.admin;
    let taps = admin.taps.as_ref().ok_or_else(|| {
        Problem::not_in_this_process("a control plane carries no requests: ask a gateway or a sidecar")
    })?;
    let content = asked.body.unwrap_or_default();
    if content.len() > MAX_SENT {
        return Err(Problem::content_too_large(format!("`body` has more than {MAX_SENT} bytes")));
    }
    let invalid = |error: &dyn std::fmt::Display| Problem::request_invalid(error.to_string());
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let question =
        Question::parse(&asked.method, &asked.url, &asked.headers, from).map_err(|error| invalid(&error))?;
    if let Some(own) = question.fields().find(|(name, _)| OWN.contains(&name.to_ascii_lowercase().as_str())) {
        return Err(Problem::request_invalid(format!(
            "`{}` is for the connection to say: leave it out",
            own.0
        )));
    }
    let plan = admin.current.load();
    let port = question.listener(&plan).map_err(|error| invalid(&error))?;
    let (listener, is_tls) = (port.name.to_string(), port.tls.is_some());
    let address = reachable(port.address);
    drop(plan);

    // It is never closed.
    let _permit = AT_A_TIME.acquire().await.ok();
    let (request, mark) = request(&question, content)?;
    // What is told is what this very request says, and nothing else can say the same.
    let filter = Filter::of_begun(&format!("request.headers[\"{MARK}\"] == {}", Value::from(mark)));
    let filter = filter.map_err(|error| Problem::internal_error(error.to_string()))?;
    let opened = taps.open(Look::Steps, filter, 1);
    let began = Instant::now();
    let sent = tokio::time::timeout(TIME, exchange(address, is_tls.then(|| question.host()), request));
    let (status, headers, (body, truncated)) = match sent.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => return Err(Problem::new(StatusCode::BAD_GATEWAY, "try_unanswered", why)),
        Err(_) => {
            let why = format!("no whole answer came in {} s", TIME.as_secs());
            return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "try_timed_out", why));
        }
    };
    let took_ms = began.elapsed().as_secs_f64() * 1_000.0;
    done(&shape::Attempted {
        status,
        headers,
        body,
        truncated,
        took_ms,
        listener,
        address: address.to_string(),
        trace: trace(opened).await,
    })
}

/// Where a socket of this machine that is bound to an address is reached.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // It may take both families; the one of its own it takes in any case.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// The request, and by what its trace is found.
fn request(question: &Question, content: String) -> Result<(Request<Body>, String), Problem> {
    let random = Token::random().map_err(|error| Problem::internal_error(error.to_string()))?;
    let mark = random.authorization().trim_start_matches("Bearer ").to_owned();
    let mut request = Request::builder().method(question.method()).uri(question.target());
    let mut has_host = false;
    for (name, value) in question.fields() {
        has_host |= name.eq_ignore_ascii_case("host");
        request = request.header(name, value);
    }
    if !has_host {
        request = request.header("host", question.authority());
    }
    let body = if content.is_empty() { Body::empty() } else { Body::from(content) };
    let request = request.header(MARK, &mark).body(body);
    Ok((request.map_err(|error| Problem::request_invalid(error.to_string()))?, mark))
}

type Came = (u16, Vec<(String, String)>, (String, bool));

/// Sends it there, and reads what is shown of the answer.
async fn exchange(
    address: SocketAddr,
    tls_host: Option<String>,
    request: Request<Body>,
) -> Result<Came, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
    let Some(host) = tls_host else { return over(TokioIo::new(stream), request).await };
    // It is our own socket: there is nobody to be taken in by.
    let mut spec = ClientSpec::new(Verify::Insecure, "try");
    spec.server_name = host.parse::<IpAddr>().is_err().then_some(host);
    spec.alpn = vec![b"http/1.1".to_vec()];
    let tls = ClientTls::build(spec).map_err(|error| error.to_string())?;
    let stream = AsyncTls::connect(stream, &tls, address.ip()).await.map_err(|error| error.to_string())?;
    over(TokioIo::new(stream), request).await
}

async fn over<S>(stream: S, request: Request<Body>) -> Result<Came, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(async move {
        // What went wrong is told to whoever waits for the answer.
        let _: Result<(), _> = connection.await;
    });
    let answered = sender.send_request(request).await.map_err(|error| error.to_string());
    let came = match answered {
        Ok(response) => Ok(shown(response).await),
        Err(error) => Err(format!("the listener gave no answer: {error}")),
    };
    driver.abort();
    came
}

async fn shown(response: Response<Incoming>) -> Came {
    let status = response.status().as_u16();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
    let mut body = response.into_body();
    let (mut content, mut is_cut) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            is_cut = true;
            break;
        };
        let data: Bytes = frame.into_data().unwrap_or_default();
        let room = MAX_SHOWN.saturating_sub(content.len());
        content.extend_from_slice(data.get(..room).unwrap_or(&data));
        if data.len() > room {
            is_cut = true;
            break;
        }
    }
    (status, headers, (text(&content), is_cut))
}

/// What the request did, step by step; nothing when as many look as may, or it is not told in time.
async fn trace(opened: Option<Opened>) -> Option<Value> {
    let mut opened = opened?;
    let told = tokio::time::timeout(TRACE_TIME, opened.next()).await.ok()??;
    serde_json::from_slice(&told).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_to_this_machine_whatever_the_url_says() {
        for (bound, expected) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("127.0.0.2:80", "127.0.0.2:80")]
        {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), expected);
        }
        let headers = ["Host: other.test".to_owned()];
        let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let question = Question::parse("GET", "http://evil.test:8080/a?b", &headers, from).unwrap();
        let (request, mark) = request(&question, String::new()).unwrap();
        assert_eq!(request.uri(), "/a?b", "the URL says which listener, not where to connect");
        assert_eq!(request.headers()["host"], "other.test");
        assert_eq!((request.headers()[MARK].to_str().unwrap(), mark.len()), (&*mark, 64));
    }
}
