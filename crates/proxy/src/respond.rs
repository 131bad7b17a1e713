//! Answers that the proxy makes itself: refusals as problem documents (RFC 9457), replies of policies, gRPC statuses.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use rhumb_base::failure::{Cause, Facts};
use rhumb_codec::field::Known;
use rhumb_codec::head::{Content, Method, RequestHead, ResponseHead, reason};
use rhumb_net::timer::Timer;
use rhumb_policy::Reply;

use crate::downstream::Connection;
use crate::exchange::Exchange;
use crate::side::Down;
use crate::worker::Worker;

/// Where the documents of error codes are.
const ERROR_BASE: &str = "https://rhumb.dev/errors/";

/// How long writing an answer of our own may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The answer to a failure, in the form that the client reads: gRPC status, HTML for browsers, else a problem document.
pub(crate) fn refusal(cause: Cause, req: &RequestHead, request_id: &str, proxy_status: bool) -> Box<Reply> {
    let facts = cause.facts();
    let mut reply = Reply::refuse(cause);
    describe(&mut reply, &facts, req, request_id);
    if proxy_status {
        let value = format!("rhumb; error={}; details=\"{}\"", facts.proxy_status, facts.code);
        reply.fields().append(Known::ProxyStatus, value.as_bytes());
    }
    if matches!(cause, Cause::Overloaded | Cause::ShuttingDown | Cause::BackendLimit) {
        reply.fields().append(Known::RetryAfter, b"1");
    }
    reply
}

/// Gives a policy's refusal without content its content.
pub(crate) fn complete(reply: &mut Reply, req: &RequestHead, request_id: &str) {
    if let Some(cause) = reply.cause
        && reply.content.is_empty()
        && !reply.is_complete
        // A gRPC status of the policy's own says it all.
        && !reply.head.fields.has(Known::GrpcStatus)
    {
        let facts = Facts { status: reply.head.status, ..cause.facts() };
        describe(reply, &facts, req, request_id);
    }
}

fn describe(reply: &mut Reply, facts: &Facts, req: &RequestHead, request_id: &str) {
    let told = reply.detail.take();
    let detail = told.as_deref().unwrap_or(facts.detail);
    if is_grpc(req) {
        // A gRPC client reads its own status from a response that is only a head (gRPC over HTTP2, "Trailers-Only").
        reply.head.status = 200;
        let fields = reply.fields();
        fields.set(Known::ContentType, b"application/grpc");
        let mut digits = itoa_u8(facts.grpc);
        fields.append(Known::GrpcStatus, digits.as_mut_slice());
        fields.append(Known::GrpcMessage, &grpc_message(&format!("{detail} ({})", facts.code)));
        return;
    }
    let title = reason(facts.status);
    if prefers_html(req) {
        reply.fields().set(Known::ContentType, b"text/html; charset=utf-8");
        reply.content = format!(
            "<!doctype html><meta charset=utf-8><title>{status} {title}</title><h1>{status} {title}</h1><p>{detail}</p>\
             <p><small>{code} · request {request_id}</small></p>\n",
            status = facts.status,
            detail = escape_html(detail),
            code = facts.code,
        )
        .into_bytes();
        return;
    }
    let path = req.received_target().split(|&b| b == b'?').next().unwrap_or_default();
    let problem = Problem {
        kind: &[ERROR_BASE, facts.code].concat(),
        title,
        status: facts.status,
        detail,
        instance: &String::from_utf8_lossy(path),
        code: facts.code,
        side: facts.side.as_str(),
        request_id,
    };
    reply.fields().set(Known::ContentType, b"application/problem+json");
    reply.content = Vec::with_capacity(PROBLEM_BYTES + detail.len() + path.len());
    // Text and a number into memory: there is nothing that could fail.
    let _ = serde_json::to_writer(&mut reply.content, &problem);
    reply.content.push(b'\n');
}

/// A problem document (RFC 9457). Written as it is, not built from parts first: in an overload most answers are this one.
#[derive(serde::Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    code: &'a str,
    side: &'a str,
    request_id: &'a str,
}

/// What a problem document takes beside its detail and its path. Unit: bytes.
const PROBLEM_BYTES: usize = 320;

/// True for requests of gRPC clients.
pub(crate) fn is_grpc(req: &RequestHead) -> bool {
    let content_type = req.fields.get(Known::ContentType).unwrap_or_default();
    match content_type.strip_prefix(b"application/grpc") {
        Some(rest) => rest.is_empty() || matches!(rest.first(), Some(b'+' | b';')),
        None => false,
    }
}

/// Percent-encoded where a field value needs it (gRPC over HTTP2, "Status-Message").
fn grpc_message(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Browsers put text/html first; everything else gets the problem document.
fn prefers_html(req: &RequestHead) -> bool {
    req.fields.get(Known::Accept).is_some_and(|accept| accept.starts_with(b"text/html"))
}

fn itoa_u8(n: u8) -> Vec<u8> {
    n.to_string().into_bytes()
}

/// Sends an answer of our own and waits until it is written.
pub(crate) async fn send(
    down: &mut Down<'_>,
    head: &mut ResponseHead,
    method: Method,
    content: &[u8],
    keep_alive: bool,
    timer: &mut Timer,
) -> bool {
    let has_none = matches!(head.status, 204 | 304) || (100..200).contains(&head.status);
    head.content = if has_none || method == Method::Head || content.is_empty() {
        Content::None
    } else {
        Content::Length(content.len() as u64)
    };
    // RFC 9110 §8.6: a HEAD response says the length that a GET's would have.
    head.declared_length = (!has_none && head.content == Content::None).then_some(content.len() as u64);
    down.send_head(head, keep_alive);
    timer.set(Instant::now() + WRITE_TIMEOUT);
    let mut is_sent = false;
    poll_fn(|cx| {
        if !is_sent {
            is_sent = true;
            if head.content != Content::None && down.send_data(cx, content).is_err() {
                return Poll::Ready(false);
            }
            down.send_end(None);
        }
        match down.poll_flush(cx) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending => timer.poll(cx).map(|()| false),
        }
    })
    .await
}

/// Answers a request that could not be read, and records it.
pub(crate) async fn refuse_unread(
    worker: &std::rc::Rc<Worker>,
    connection: &Connection,
    down: &mut Down<'_>,
    head: Box<RequestHead>,
    cause: Cause,
    timer: &mut Timer,
) {
    let mut begun = Exchange::begin(worker, connection, head);
    let Some(exchange) = &mut begun.0 else { return };
    exchange.refuse(down, cause, timer, false).await;
    exchange.outcome.is_over = true;
}
