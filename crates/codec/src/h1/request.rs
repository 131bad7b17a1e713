//! Request heads (RFC 9112 §3 and §5).

use std::mem::MaybeUninit;

use super::error::{FieldError, RequestError};
use super::section::{Section, lists_h2c};
use super::{Limits, MAX_FIELDS, MAX_METHOD_BYTES, syntax};
use crate::authority::Authority;
use crate::field::Span;
use crate::head::{Content, Method, RequestHead, Scheme, Version, is_target_byte};

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Decodes the request head at the start of `input` into `head`. `scheme` is the connection's.
///
/// Returns the bytes consumed, or `None` while the head is incomplete and shorter than the limit. One empty line
/// before the request line is part of it (RFC 9112 §2.2). On `None` and on errors `head` holds nothing of use.
///
/// An Upgrade that lists h2c is ignored, as RFC 9110 §7.8 allows: forwarded, it opens a tunnel past every later rule.
///
/// # Errors
/// The rule that the request breaks: answer with its [cause](RequestError::cause) and close. More bytes would not
/// have changed it.
pub fn parse_request(
    input: &[u8],
    limits: &Limits,
    scheme: Scheme,
    head: &mut RequestHead,
) -> Result<Option<usize>, RequestError> {
    head.clear();
    let full = input.len() >= limits.head_bytes;
    let window = input.get(..limits.head_bytes).unwrap_or(input);
    let Some(skipped) = empty_line(window)? else { return incomplete(full) };
    let window = window.get(skipped..).unwrap_or_default();

    let mut lines = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let lines = lines.get_mut(..limits.fields.min(MAX_FIELDS)).unwrap_or_default();
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(window, lines) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => {
            check_partial(window, &request, limits)?;
            return incomplete(full);
        }
        Err(error) => return refuse(window, limits, error, full),
    };
    let (Some(window), Some(method), Some(target), Some(minor)) =
        (window.get(..len), request.method, request.path, request.version)
    else {
        return Err(RequestError::MethodInvalid);
    };

    if method.len() > MAX_METHOD_BYTES {
        return Err(RequestError::MethodTooLong);
    }
    if target.len() > limits.target_bytes {
        return Err(RequestError::TargetTooLong);
    }
    head.fields.store(window);
    head.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    head.scheme = scheme;
    let section = Section::read::<true>(window, request.headers, &mut head.fields, 0)
        .map_err(|error| first_error(window, limits, error))?;

    let method_name = Span::new(0, method.len());
    head.receive_method(Method::of(method.as_bytes()), method_name);
    read_target(head, Span::new(method.len() + 1, target.len()), target.as_bytes(), &section, window)?;
    read_framing(head, &section)?;
    head.keep_alive = section.keeps_alive(head.version);
    head.accepts_trailers = section.accepts_trailers();
    if let Some(protocols) = section.upgrade(head.version)
        && !lists_h2c(protocols.of(window))
    {
        head.receive_upgrade(protocols);
    }
    read_expectation(head, &section, window)?;
    Ok(Some(skipped + len))
}

fn incomplete(full: bool) -> Result<Option<usize>, RequestError> {
    if full { Err(FieldError::SectionTooLong.into()) } else { Ok(None) }
}

/// The length of an empty line at the start; `None` when that, or what follows it, has yet to arrive.
#[inline]
fn empty_line(input: &[u8]) -> Result<Option<usize>, RequestError> {
    match input {
        [b'\r', b'\n', b'\r' | b'\n', ..] => Err(RequestError::EmptyLines),
        [] | [b'\r'] | [b'\r', b'\n'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [b'\r', ..] => Err(FieldError::BareCr.into()),
        [b'\n', ..] => Err(FieldError::BareLf.into()),
        _ => Ok(Some(0)),
    }
}

/// Refuses a request line that can no longer fit, before the rest of it arrives.
fn check_partial(
    input: &[u8],
    request: &httparse::Request<'_, '_>,
    limits: &Limits,
) -> Result<(), RequestError> {
    match (request.method, request.path) {
        (None, _) if input.len() > MAX_METHOD_BYTES => Err(RequestError::MethodTooLong),
        (Some(method), _) if method.len() > MAX_METHOD_BYTES => Err(RequestError::MethodTooLong),
        (Some(method), None) if input.len() > method.len() + 1 + limits.target_bytes => {
            Err(RequestError::TargetTooLong)
        }
        (_, Some(target)) if target.len() > limits.target_bytes => Err(RequestError::TargetTooLong),
        _ => Ok(()),
    }
}

/// Names the rule that made the tokenizer stop.
#[cold]
fn refuse(
    input: &[u8],
    limits: &Limits,
    error: httparse::Error,
    full: bool,
) -> Result<Option<usize>, RequestError> {
    if error == httparse::Error::Version {
        if input.starts_with(PREFACE) {
            return Err(RequestError::Http2Preface);
        }
        if PREFACE.starts_with(input) {
            return incomplete(full);
        }
    }
    match syntax::request_error(input, limits) {
        Some(error) => Err(error),
        None if error == httparse::Error::Version => incomplete(full),
        None => Err(match error {
            httparse::Error::Token => RequestError::TargetInvalid,
            httparse::Error::HeaderName => FieldError::FieldNameInvalid.into(),
            httparse::Error::HeaderValue => FieldError::FieldValueInvalid.into(),
            httparse::Error::TooManyHeaders => FieldError::TooManyFields.into(),
            _ => FieldError::BareCr.into(),
        }),
    }
}

/// A bare LF may end the empty line only, or stand after something that is worse.
#[cold]
fn first_error(input: &[u8], limits: &Limits, error: FieldError) -> RequestError {
    match error {
        FieldError::BareLf => syntax::request_error(input, limits).unwrap_or_else(|| error.into()),
        error => error.into(),
    }
}

/// Authority and path from the four forms of a request target (RFC 9112 §3.2).
#[inline]
fn read_target(
    head: &mut RequestHead,
    span: Span,
    target: &[u8],
    section: &Section,
    window: &[u8],
) -> Result<(), RequestError> {
    if !target.iter().fold(true, |valid, &byte| valid & is_target_byte(byte)) {
        return Err(RequestError::TargetInvalid);
    }
    if section.host_repeated {
        return Err(RequestError::HostRepeated);
    }
    let host = match section.host {
        Some(span) => Some((span, Authority::parse(span.of(window)).ok_or(RequestError::HostInvalid)?)),
        // RFC 9112 §3.2: a request of HTTP/1.1 without Host is answered 400. HTTP/1.0 does not know the field.
        None if head.version == Version::Http11 => return Err(RequestError::HostMissing),
        None => None,
    };
    let method = head.method();
    match target.first() {
        Some(b'/') if method != Method::Connect => head.receive_target(span),
        _ => return read_other_form(head, span, target, host),
    }
    if let Some((span, _)) = host {
        head.receive_authority(span);
    }
    Ok(())
}

/// The forms that gateways seldom see: authority-form, asterisk-form, absolute-form.
#[cold]
fn read_other_form(
    head: &mut RequestHead,
    span: Span,
    target: &[u8],
    host: Option<(Span, Authority<'_>)>,
) -> Result<(), RequestError> {
    let default_port = match head.scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    if head.method() == Method::Connect {
        let authority = Authority::parse(target).ok_or(RequestError::TargetForm)?;
        // RFC 9112 §3.2.3: the port is required; a Host without one names the same host.
        let port = authority.port.ok_or(RequestError::TargetForm)?;
        if host.is_some_and(|(_, host)| !host.is_same(&authority, port)) {
            return Err(RequestError::HostMismatch);
        }
        head.receive_authority(span);
        return Ok(());
    }
    if target == b"*" {
        if head.method() != Method::Options {
            return Err(RequestError::TargetForm);
        }
        head.receive_target(span);
        if let Some((span, _)) = host {
            head.receive_authority(span);
        }
        return Ok(());
    }
    let Some(colon) = memchr::memmem::find(target, b"://") else { return Err(RequestError::TargetForm) };
    let (scheme, rest) = (target.get(..colon).unwrap_or_default(), span.from(colon + 3));
    let scheme = match scheme {
        scheme if scheme.eq_ignore_ascii_case(b"http") => Scheme::Http,
        scheme if scheme.eq_ignore_ascii_case(b"https") => Scheme::Https,
        _ => return Err(RequestError::TargetScheme),
    };
    if scheme != head.scheme {
        // RFC 9110 §7.4: https requests that came without TLS must be rejected. The reverse names a resource that
        // this connection does not serve either.
        return Err(RequestError::TargetSchemeMismatch);
    }
    let rest_bytes = target.get(colon + 3..).unwrap_or_default();
    let authority_len = rest_bytes.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest_bytes.len());
    let authority = rest_bytes
        .get(..authority_len)
        .and_then(Authority::parse)
        .ok_or(RequestError::TargetAuthorityInvalid)?;
    if host.is_some_and(|(_, host)| !host.is_same(&authority, default_port)) {
        return Err(RequestError::HostMismatch);
    }
    head.receive_authority(rest.to(authority_len));
    match rest_bytes.get(authority_len) {
        Some(b'/') => head.receive_target(rest.from(authority_len)),
        // RFC 9112 §3.2.4: OPTIONS without path or query asks about the server as a whole.
        None if head.method() == Method::Options => head.set_target(b"*"),
        None => head.set_target(b"/"),
        Some(_) => {
            let mut path_and_query = Vec::with_capacity(1 + target.len());
            path_and_query.push(b'/');
            path_and_query.extend_from_slice(rest_bytes.get(authority_len..).unwrap_or_default());
            head.set_target(&path_and_query);
        }
    }
    Ok(())
}

/// Content from what Content-Length and Transfer-Encoding say (RFC 9112 §6.3 items 3 to 7).
#[inline]
fn read_framing(head: &mut RequestHead, section: &Section) -> Result<(), RequestError> {
    if section.chunked {
        if head.version == Version::Http10 {
            // RFC 9112 §6.1: the framing is faulty, even if the coding is understood.
            return Err(FieldError::TransferEncodingInHttp10.into());
        }
        head.content = Content::Streamed;
    } else if let Some(length) = section.content_length {
        head.content = Content::Length(length);
    }
    if matches!(head.method(), Method::Connect | Method::Trace) {
        if !head.content.is_empty() {
            return Err(RequestError::ContentNotAllowed);
        }
        head.content = Content::None;
    }
    Ok(())
}

/// RFC 9110 §10.1.1: 100-continue is the only expectation; HTTP/1.0 and requests without content cannot have it.
#[inline]
fn read_expectation(head: &mut RequestHead, section: &Section, window: &[u8]) -> Result<(), RequestError> {
    let Some(expect) = section.expect else { return Ok(()) };
    if section.expect_repeated || !expect.of(window).eq_ignore_ascii_case(b"100-continue") {
        return Err(RequestError::ExpectationUnknown);
    }
    head.expect_continue = head.version == Version::Http11 && !head.content.is_empty();
    Ok(())
}

#[cfg(test)]
mod tests;
