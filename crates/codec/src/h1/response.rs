//! Response heads (RFC 9112 §4 and §5).

use std::mem::MaybeUninit;

use super::error::{FieldError, ResponseError};
use super::section::Section;
use super::{Limits, MAX_FIELDS, syntax};
use crate::head::{Content, Method, ResponseHead, Version};

/// Decodes the response head at the start of `input` into `head`; `request_method` is the method that it answers.
///
/// Returns the bytes consumed, or `None` while the head is incomplete and shorter than the limit. On `None` and on
/// errors `head` holds nothing of use. The reason phrase is checked and dropped (RFC 9112 §4: a client should ignore
/// it). No empty line may come first: it would be a rest of the previous response, whose end is then in doubt.
///
/// A 204 with `Content-Length: 0` passes, because many servers send it; the field goes.
///
/// # Errors
/// The rule that the response breaks: answer the client with its [cause](ResponseError::cause) and close the
/// connection to the server. More bytes would not have changed it.
pub fn parse_response(
    input: &[u8],
    limits: &Limits,
    request_method: Method,
    head: &mut ResponseHead,
) -> Result<Option<usize>, ResponseError> {
    head.clear();
    let full = input.len() >= limits.head_bytes;
    let window = input.get(..limits.head_bytes).unwrap_or(input);
    if matches!(window.first(), Some(b'\r' | b'\n')) {
        return Err(ResponseError::StatusLineInvalid);
    }
    let mut lines = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let lines = lines.get_mut(..limits.fields.min(MAX_FIELDS)).unwrap_or_default();
    let mut response = httparse::Response::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, window, lines);
    let len = match parsed {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return incomplete(full),
        Err(error) => return refuse(window, limits, error, full),
    };
    let (Some(window), Some(status), Some(minor)) = (window.get(..len), response.code, response.version)
    else {
        return Err(ResponseError::StatusLineInvalid);
    };
    if !(100..600).contains(&status) {
        return Err(ResponseError::StatusInvalid);
    }
    head.status = status;
    head.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    head.fields.store(window);
    let section =
        Section::read::<false>(window, response.headers, &mut head.fields, 0).map_err(
            |error| match error {
                // A bare LF may end the empty line only, or stand after something that is worse.
                FieldError::BareLf => syntax::response_error(window, limits).unwrap_or_else(|| error.into()),
                error => error.into(),
            },
        )?;

    read_framing(head, request_method, &section)?;
    head.keep_alive = section.keeps_alive(head.version) && head.content != Content::UntilClose;
    match head.status {
        101 => head.receive_upgrade(section.upgrade(head.version).ok_or(ResponseError::UpgradeMissing)?),
        // RFC 9110 §15.5.22: 426 must say which protocol is required. Elsewhere Upgrade only advertises, to one hop.
        426 => {
            if let Some(protocols) = section.upgrade(head.version) {
                head.receive_upgrade(protocols);
            }
        }
        _ => {}
    }
    Ok(Some(len))
}

fn incomplete(full: bool) -> Result<Option<usize>, ResponseError> {
    if full { Err(FieldError::SectionTooLong.into()) } else { Ok(None) }
}

/// Names the rule that made the tokenizer stop.
#[cold]
fn refuse(
    input: &[u8],
    limits: &Limits,
    error: httparse::Error,
    full: bool,
) -> Result<Option<usize>, ResponseError> {
    match syntax::response_error(input, limits) {
        Some(error) => Err(error),
        None if error == httparse::Error::Version => incomplete(full),
        None => Err(match error {
            httparse::Error::HeaderName => FieldError::FieldNameInvalid.into(),
            httparse::Error::HeaderValue => FieldError::FieldValueInvalid.into(),
            httparse::Error::TooManyHeaders => FieldError::TooManyFields.into(),
            httparse::Error::NewLine => FieldError::BareCr.into(),
            _ => ResponseError::StatusLineInvalid,
        }),
    }
}

/// RFC 9112 §6.3, in its order.
fn read_framing(
    head: &mut ResponseHead,
    request_method: Method,
    section: &Section,
) -> Result<(), ResponseError> {
    if section.chunked && head.version == Version::Http10 {
        return Err(FieldError::TransferEncodingInHttp10.into());
    }
    match head.status {
        100..200 | 204 => {
            if section.chunked || section.content_length.unwrap_or(0) != 0 {
                return Err(ResponseError::ContentNotAllowed);
            }
            head.content = Content::None;
        }
        // RFC 9110 §9.3.6: both framings are ignored, the connection is a tunnel from here.
        200..300 if request_method == Method::Connect => head.content = Content::None,
        304 => {
            head.content = Content::None;
            head.declared_length = section.content_length;
        }
        _ if request_method == Method::Head => {
            head.content = Content::None;
            head.declared_length = section.content_length;
        }
        _ => {
            head.content = match section.content_length {
                _ if section.chunked => Content::Streamed,
                Some(length) => Content::Length(length),
                None => Content::UntilClose,
            };
        }
    }
    Ok(())
}
