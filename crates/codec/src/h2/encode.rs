//! Message heads into field sections (RFC 9113 §8.3).
//!
//! Framing comes from the head alone. Fields that HTTP/2 does not have, or that the head has in another form, are
//! left out, whoever put them there.

use super::hpack::{Encoder, Name};
use crate::field::{FieldLine, Fields, Known, KnownSet};
use crate::h1::may_be_trailer;
use crate::head::{Content, IN_HEAD, Method, RequestHead, ResponseHead};
use std::borrow::Cow;

/// Longest name in upper case (from HTTP/1.1 or a configuration) that is lowered without an allocation.
const LOWERED: usize = 64;

pub(super) fn request(head: &RequestHead, encoder: &mut Encoder, out: &mut Vec<u8>) {
    encoder.begin(out);
    let is_connect = head.method() == Method::Connect;
    let protocol = head.protocol().filter(|_| is_connect);
    encoder.field(Name::Method, b"", head.method_name(), false, out);
    // RFC 9113 §8.5: a tunnel has neither scheme nor path.
    let has_target = !is_connect || protocol.is_some();
    if has_target {
        encoder.field(Name::Scheme, b"", head.scheme.as_str().as_bytes(), false, out);
    }
    if !head.authority().is_empty() {
        encoder.field(Name::Authority, b"", head.authority(), false, out);
    }
    if has_target {
        path(head, encoder, out);
    }
    if let Some(protocol) = protocol {
        encoder.field(Name::Protocol, b"", protocol, false, out);
    }
    fields(&head.fields, IN_HEAD, encoder, out);
    if head.accepts_trailers {
        encoder.field(Name::Field(Known::Te), b"", b"trailers", false, out);
    }
    if head.expect_continue {
        encoder.field(Name::Field(Known::Expect), b"", b"100-continue", false, out);
    }
    if let Content::Length(length) = head.content
        && !is_connect
    {
        content_length(length, encoder, out);
    }
}

/// Size of what [`request`] writes as the peer's SETTINGS_MAX_HEADER_LIST_SIZE counts it, or a little more.
pub(super) fn request_size(head: &RequestHead) -> usize {
    const LINES_BESIDE_FIELDS: usize = 8 * 64;
    let target = head.path().len() + head.query().map_or(0, |query| query.len() + 1);
    let fields: usize = head.fields.iter().map(|line| line.name.len() + line.value.len() + 32).sum();
    LINES_BESIDE_FIELDS + head.authority().len() + target + fields
}

fn path(head: &RequestHead, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let (path, query) = (head.path(), head.query());
    match query {
        None if !path.is_empty() => encoder.field(Name::Path, b"", path, false, out),
        None => encoder.field(Name::Path, b"", b"/", false, out),
        Some(query) => {
            let mut short = [0u8; 256];
            let len = path.len() + 1 + query.len();
            if let Some(target) = short.get_mut(..len) {
                let (to_path, rest) = target.split_at_mut(path.len());
                to_path.copy_from_slice(path);
                if let Some((mark, to_query)) = rest.split_first_mut() {
                    *mark = b'?';
                    to_query.copy_from_slice(query);
                }
                encoder.field(Name::Path, b"", target, false, out);
            } else {
                let mut target = Vec::with_capacity(len);
                head.write_target(&mut target);
                encoder.field(Name::Path, b"", &target, false, out);
            }
        }
    }
}

pub(super) fn response(head: &ResponseHead, encoder: &mut Encoder, out: &mut Vec<u8>) {
    encoder.begin(out);
    let mut status = itoa::Buffer::new();
    encoder.field(Name::Status, b"", status.format(head.status).as_bytes(), false, out);
    fields(&head.fields, IN_HEAD, encoder, out);
    match (head.content, head.declared_length) {
        // RFC 9110 §8.6.
        _ if head.is_interim() || head.status == 204 => {}
        (Content::Length(length), _) | (Content::None, Some(length)) => content_length(length, encoder, out),
        _ => {}
    }
}

pub(super) fn trailers(trailers: &Fields, encoder: &mut Encoder, out: &mut Vec<u8>) {
    encoder.begin(out);
    for line in trailers.iter().filter(|line| may_be_trailer(line.known)) {
        field(&line, encoder, out);
    }
}

#[inline]
fn fields(fields: &Fields, skip: KnownSet, encoder: &mut Encoder, out: &mut Vec<u8>) {
    for line in fields.iter().filter(|line| !skip.contains(line.known)) {
        field(&line, encoder, out);
    }
}

#[inline]
fn field(line: &FieldLine<'_>, encoder: &mut Encoder, out: &mut Vec<u8>) {
    if line.known != Known::Other {
        return encoder.field(Name::Field(line.known), b"", line.value, line.never_indexed, out);
    }
    let mut lowered = [0u8; LOWERED];
    let name = lower(line.name, &mut lowered);
    encoder.field(Name::Field(Known::Other), &name, line.value, line.never_indexed, out);
}

/// RFC 9113 §8.2.1: names are sent in lower case.
#[inline]
fn lower<'a>(name: &'a [u8], lowered: &'a mut [u8; LOWERED]) -> Cow<'a, [u8]> {
    if !name.iter().fold(false, |upper, b| upper | b.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    match lowered.get_mut(..name.len()) {
        Some(lowered) => {
            lowered.copy_from_slice(name);
            lowered.make_ascii_lowercase();
            Cow::Borrowed(lowered)
        }
        None => Cow::Owned(name.to_ascii_lowercase()),
    }
}

fn content_length(length: u64, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    encoder.field(Name::Field(Known::ContentLength), b"", digits.format(length).as_bytes(), false, out);
}
