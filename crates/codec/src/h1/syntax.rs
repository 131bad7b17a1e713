//! Which rule a head breaks, when the tokenizer has refused it or has been more lenient than we are.
//!
//! The tokenizer is fast and says little: these readers walk the same bytes once more, in order, and name the first
//! violation. Only refused messages come here. The first violation is at or before the byte at which the tokenizer
//! stopped, so more bytes never change the answer.

use super::error::{FieldError, RequestError, ResponseError};
use super::{Limits, MAX_METHOD_BYTES};
use crate::field::{is_token_byte, is_value_byte};
use crate::head::is_target_byte;

/// The first rule that the request in `input` breaks. `None` when these readers find none: the version, at which the
/// tokenizer stops early, is cut short.
#[cold]
pub(super) fn request_error(input: &[u8], limits: &Limits) -> Option<RequestError> {
    request_line(input, limits).and_then(|after| Ok(field_section(input, after, limits.fields)?)).err()
}

/// The first rule that the response in `input` breaks; `None` as in [`request_error`].
#[cold]
pub(super) fn response_error(input: &[u8], limits: &Limits) -> Option<ResponseError> {
    status_line(input).and_then(|after| Ok(field_section(input, after, limits.fields)?)).err()
}

/// The first rule that the trailer section in `input` breaks.
#[cold]
pub(super) fn trailer_error(input: &[u8], max_fields: usize) -> Option<FieldError> {
    field_section(input, 0, max_fields).err()
}

/// Why a tokenizer that expects `HTTP/1.0` or `HTTP/1.1` refuses `text`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum VersionText {
    /// Too short to tell.
    Partial,
    /// 1.0 or 1.1.
    Supported,
    /// Of the form HTTP/d.d.
    Other,
    /// Anything else.
    Malformed,
}

/// What the first eight bytes of `text` are.
pub(super) fn version_text(text: &[u8]) -> VersionText {
    const FORM: &[u8; 8] = b"HTTP/d.d";
    for (i, expected) in FORM.iter().enumerate() {
        match text.get(i) {
            None => return VersionText::Partial,
            Some(byte) if *expected == b'd' && byte.is_ascii_digit() => {}
            Some(byte) if *expected != b'd' && byte == expected => {}
            Some(_) => return VersionText::Malformed,
        }
    }
    match text.get(5..8) {
        Some(b"1.0" | b"1.1") => VersionText::Supported,
        _ => VersionText::Other,
    }
}

/// Checks the request line; where the field section begins, or the end of the input.
fn request_line(input: &[u8], limits: &Limits) -> Result<usize, RequestError> {
    let Some(target_at) = word(input, 0, |i, byte| {
        if i >= MAX_METHOD_BYTES {
            Err(RequestError::MethodTooLong)
        } else if !is_token_byte(byte) {
            Err(RequestError::MethodInvalid)
        } else {
            Ok(())
        }
    })?
    else {
        return Ok(input.len());
    };
    if target_at == 1 {
        return Err(RequestError::MethodInvalid);
    }
    let mut valid = true;
    let Some(version_at) = word(input, target_at, |i, byte| {
        if i >= limits.target_bytes {
            return Err(RequestError::TargetTooLong);
        }
        match byte {
            b'\r' | b'\n' => return Err(RequestError::VersionMissing),
            byte if byte.is_ascii_control() => return Err(RequestError::TargetInvalid),
            // The tokenizer lets `#` and other bytes pass: they count when the target has ended.
            byte => valid &= is_target_byte(byte),
        }
        Ok(())
    })?
    else {
        return Ok(input.len());
    };
    if !valid {
        return Err(RequestError::TargetInvalid);
    }
    if version_at == target_at + 1 {
        return Err(RequestError::RequestLineSpace);
    }
    let version = input.get(version_at..).unwrap_or_default();
    match version_text(version) {
        VersionText::Partial => return Ok(input.len()),
        VersionText::Supported => {}
        VersionText::Other => return Err(RequestError::VersionNotSupported),
        VersionText::Malformed if version.starts_with(b" ") => return Err(RequestError::RequestLineSpace),
        VersionText::Malformed => return Err(RequestError::VersionInvalid),
    }
    match version.get(8..).unwrap_or_default() {
        [] | [b'\r'] => Ok(input.len()),
        [b'\r', b'\n', ..] => Ok(version_at + 10),
        [b'\n', ..] => Err(FieldError::BareLf.into()),
        [b'\r', ..] => Err(FieldError::BareCr.into()),
        [b' ' | b'\t', ..] => Err(RequestError::RequestLineSpace),
        _ => Err(RequestError::VersionInvalid),
    }
}

/// Walks to the space that ends a word; the index after it, `None` when the input ends first.
fn word(
    input: &[u8],
    from: usize,
    mut check: impl FnMut(usize, u8) -> Result<(), RequestError>,
) -> Result<Option<usize>, RequestError> {
    for (i, &byte) in input.iter().skip(from).enumerate() {
        if byte == b' ' {
            return Ok(Some(from + i + 1));
        }
        check(i, byte)?;
    }
    Ok(None)
}

/// Checks the status line; where the field section begins, or the end of the input.
fn status_line(input: &[u8]) -> Result<usize, ResponseError> {
    match version_text(input) {
        VersionText::Partial => return Ok(input.len()),
        VersionText::Supported => {}
        VersionText::Other => return Err(ResponseError::VersionNotSupported),
        VersionText::Malformed => return Err(ResponseError::StatusLineInvalid),
    }
    for (i, &byte) in input.iter().enumerate().skip(8) {
        match i {
            8 if byte != b' ' => return Err(ResponseError::StatusLineInvalid),
            9..=11 if !byte.is_ascii_digit() => return Err(ResponseError::StatusInvalid),
            12 if !matches!(byte, b' ' | b'\r' | b'\n') => return Err(ResponseError::StatusInvalid),
            _ => {}
        }
        if i < 12 {
            continue;
        }
        match byte {
            b'\n' => return Err(FieldError::BareLf.into()),
            b'\r' => match input.get(i + 1) {
                None => return Ok(input.len()),
                Some(b'\n') => return Ok(i + 2),
                Some(_) => return Err(FieldError::BareCr.into()),
            },
            _ if !is_value_byte(byte) => return Err(ResponseError::StatusLineInvalid),
            _ => {}
        }
    }
    Ok(input.len())
}

/// Checks field lines from `at` up to the empty line or the end of the input.
fn field_section(input: &[u8], mut at: usize, max_fields: usize) -> Result<(), FieldError> {
    let mut lines = 0usize;
    loop {
        match input.get(at..).unwrap_or_default() {
            [] | [b'\r'] | [b'\r', b'\n', ..] => return Ok(()),
            [b'\r', ..] => return Err(FieldError::BareCr),
            [b'\n', ..] => return Err(FieldError::BareLf),
            [b' ' | b'\t', ..] if lines == 0 => return Err(FieldError::SpaceBeforeFirstField),
            [b' ' | b'\t', ..] => return Err(FieldError::ObsFold),
            [b':', ..] => return Err(FieldError::FieldNameEmpty),
            line => {
                lines += 1;
                if lines > max_fields {
                    return Err(FieldError::TooManyFields);
                }
                match field_line(line)? {
                    Some(len) => at += len,
                    None => return Ok(()),
                }
            }
        }
    }
}

/// Checks the line at the start of `input`; its length with CRLF, `None` when it has not ended.
fn field_line(input: &[u8]) -> Result<Option<usize>, FieldError> {
    let mut in_name = true;
    for (i, &byte) in input.iter().enumerate() {
        if in_name {
            match byte {
                b':' => in_name = false,
                b' ' | b'\t' => return Err(FieldError::SpaceInFieldName),
                b'\r' | b'\n' => return Err(FieldError::FieldWithoutColon),
                _ if !is_token_byte(byte) => return Err(FieldError::FieldNameInvalid),
                _ => {}
            }
            continue;
        }
        match byte {
            b'\n' => return Err(FieldError::BareLf),
            b'\r' => match input.get(i + 1) {
                None => return Ok(None),
                Some(b'\n') => return Ok(Some(i + 2)),
                Some(_) => return Err(FieldError::BareCr),
            },
            _ if !is_value_byte(byte) => return Err(FieldError::FieldValueInvalid),
            _ => {}
        }
    }
    Ok(None)
}
