//! The field section of a head: lines into [`Fields`], and what the lines about framing and connection say.

use super::MAX_CONNECTION_OPTIONS;
use super::error::FieldError;
use crate::field::{Fields, Known, KnownSet, Span, is_token_byte};
use crate::head::{IN_HEAD, Version};

/// Fields by which a backend knows who sent a request. Spelled with underscores they are dropped: CGI and its heirs
/// (WSGI, PHP) read `X_Forwarded_For` as `X-Forwarded-For`, past every rule about the latter.
pub(crate) const VOUCHED_FOR: KnownSet = KnownSet::of(&[
    Known::ProxyAuthorization,
    Known::XForwardedClientCert,
    Known::XForwardedFor,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedPrefix,
    Known::XForwardedProto,
    Known::XRealIp,
    Known::XRequestId,
]);

/// A peer's Connection may name these: they are out already, or go.
const MAY_BE_NOMINATED: KnownSet = KnownSet::of(&[
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::Trailer,
    Known::Upgrade,
]);

/// What the lines of a section say about message and connection.
#[derive(Default)]
pub(super) struct Section {
    pub(super) host: Option<Span>,
    pub(super) host_repeated: bool,
    pub(super) expect: Option<Span>,
    pub(super) expect_repeated: bool,
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    /// The Upgrade field, when there is one line.
    pub(super) upgrade: Option<Span>,
    upgrade_lines: u32,
    te_trailers: bool,
    close: bool,
    keep_alive: bool,
    upgrade_option: bool,
    options: usize,
    nominates: bool,
}

impl Section {
    /// Reads the tokenized `lines` of `head`, with whose bytes the arena of `fields` begins. REQUEST: of a request.
    #[inline]
    pub(super) fn read<const REQUEST: bool>(
        head: &[u8],
        lines: &[httparse::Header<'_>],
        fields: &mut Fields,
    ) -> Result<Self, FieldError> {
        let mut section = Self::default();
        // The tokenizer takes LF for a line end. Lines touch: if the two bytes before each name and the last four of
        // the head are right, every line ends in CRLF.
        if !head.ends_with(b"\r\n\r\n") {
            return Err(FieldError::BareLf);
        }
        for line in lines {
            let name_at = offset_in(head, line.name.as_bytes());
            if name_at.checked_sub(2).and_then(|at| head.get(at)) != Some(&b'\r') {
                return Err(FieldError::BareLf);
            }
            let name = Span::new(name_at, line.name.len());
            let value = Span::new(offset_in(head, line.value), line.value.len());
            let known = Known::of(line.name.as_bytes());
            if IN_HEAD.contains(known) {
                section.take(head, line, known, value)?;
            } else {
                if REQUEST && known == Known::Other && line.name.as_bytes().contains(&b'_') {
                    match spelled_with_hyphens(line.name.as_bytes()) {
                        Known::ContentLength | Known::TransferEncoding => {
                            return Err(FieldError::FramingAlias);
                        }
                        alias if VOUCHED_FOR.contains(alias) => continue,
                        _ => {}
                    }
                }
                fields.append_spans(known, name, value);
            }
        }
        if section.chunked && section.content_length.is_some() {
            // RFC 9112 §6.1: request smuggling or response splitting; an error to handle, not to repair.
            return Err(FieldError::TwoFramings);
        }
        if section.upgrade_lines > 1 {
            section.upgrade = None;
        }
        if section.nominates {
            remove_nominated::<REQUEST>(lines, fields)?;
        }
        Ok(section)
    }

    /// True when the peer keeps the connection open after this exchange (RFC 9112 §9.3).
    #[inline]
    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version != Version::Http10 || self.keep_alive)
    }

    /// The protocols of an Upgrade field that Connection names. HTTP/1.0 cannot upgrade (RFC 9110 §7.8).
    #[inline]
    pub(super) fn upgrade(&self, version: Version) -> Option<Span> {
        if self.upgrade_option && version == Version::Http11 { self.upgrade } else { None }
    }

    /// True when the peer sent `TE: trailers`.
    #[inline]
    pub(super) fn accepts_trailers(&self) -> bool {
        self.te_trailers
    }

    #[inline]
    fn take(
        &mut self,
        head: &[u8],
        line: &httparse::Header<'_>,
        known: Known,
        value: Span,
    ) -> Result<(), FieldError> {
        match known {
            Known::Host => {
                check_not_obscured(head, line)?;
                self.host_repeated |= self.host.replace(value).is_some();
            }
            Known::ContentLength => {
                check_not_obscured(head, line)?;
                let length = content_length(line.value).ok_or(FieldError::ContentLengthInvalid)?;
                if self.content_length.replace(length).is_some() {
                    return Err(FieldError::ContentLengthRepeated);
                }
            }
            Known::TransferEncoding => {
                check_not_obscured(head, line)?;
                if self.chunked {
                    return Err(FieldError::TransferEncodingRepeated);
                }
                check_transfer_encoding(line.value)?;
                self.chunked = true;
            }
            Known::Connection => self.read_options(line.value)?,
            Known::Upgrade => {
                check_upgrade(line.value)?;
                self.upgrade = Some(value);
                self.upgrade_lines += 1;
            }
            Known::Te => {
                self.te_trailers |= list(line.value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
            }
            Known::Expect => self.expect_repeated |= self.expect.replace(value).is_some(),
            _ => {}
        }
        Ok(())
    }

    fn read_options(&mut self, value: &[u8]) -> Result<(), FieldError> {
        for option in list(value) {
            if option.is_empty() {
                continue;
            }
            self.options += 1;
            if self.options > MAX_CONNECTION_OPTIONS {
                return Err(FieldError::TooManyConnectionOptions);
            }
            if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade_option = true;
            } else if is_token(option) {
                self.nominates = true;
            } else {
                return Err(FieldError::ConnectionInvalid);
            }
        }
        Ok(())
    }
}

/// Removes the fields that Connection names (RFC 9110 §7.6.1).
///
/// "A sender MUST NOT send a connection option corresponding to a field that is intended for all recipients of the
/// content." The names that [`Known`] lists are: a request that has a proxy remove Authorization or X-Forwarded-For on
/// its way is an attack on whoever relies on them, so it is refused. A backend's response keeps the field instead:
/// nobody gains from turning its mistake into an error.
#[cold]
fn remove_nominated<const REQUEST: bool>(
    lines: &[httparse::Header<'_>],
    fields: &mut Fields,
) -> Result<(), FieldError> {
    let connection = lines.iter().filter(|line| Known::of(line.name.as_bytes()) == Known::Connection);
    for option in connection.flat_map(|line| list(line.value)).filter(|option| !option.is_empty()) {
        match Known::of(option) {
            Known::Other => {
                fields.remove_spelled(option);
            }
            known if MAY_BE_NOMINATED.contains(known) => {
                fields.remove(known);
            }
            _ if REQUEST => return Err(FieldError::ConnectionNominatesEndToEnd),
            _ => {}
        }
    }
    Ok(())
}

/// Where `part`, a slice of `whole`, begins.
#[inline]
fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr())
}

/// The elements of a comma-separated list without surrounding white space (RFC 9110 §5.6.1), empty ones included.
#[inline]
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(|element| element.trim_ascii())
}

#[inline]
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| is_token_byte(b))
}

/// Framing fields have spaces around their value or nothing. A tab is legal white space too, but implementations that
/// did not know it have let `Transfer-Encoding:<tab>chunked` through unread.
#[inline]
fn check_not_obscured(head: &[u8], line: &httparse::Header<'_>) -> Result<(), FieldError> {
    let before = offset_in(head, line.name.as_bytes()) + line.name.len() + 1;
    let value_at = offset_in(head, line.value);
    let before = head.get(before..value_at).unwrap_or_default();
    let after = head.get(value_at + line.value.len()..).unwrap_or_default();
    let is_space = |byte: &&u8| **byte == b' ';
    if before.iter().all(|byte| *byte == b' ') && after.iter().find(|byte| !is_space(byte)) != Some(&b'\t') {
        Ok(())
    } else {
        Err(FieldError::FramingObscured)
    }
}

/// Digits only, below 2⁶³ (RFC 9110 §8.6). Nineteen digits hold every such number.
#[inline]
fn content_length(value: &[u8]) -> Option<u64> {
    const MAX_DIGITS: usize = 19;
    if value.is_empty() || value.len() > MAX_DIGITS {
        return None;
    }
    let mut length = 0u64;
    for &digit in value {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Nineteen digits are below 10¹⁹ < 2⁶⁴.
        length = length * 10 + u64::from(digit - b'0');
    }
    (length <= i64::MAX.unsigned_abs()).then_some(length)
}

/// Exactly `chunked`, in any case. RFC 9112 §6.1: a coding that we do not know is answered 501, when the framing is
/// clear; §6.3: 400 when it is not, because chunked is not final, twice, or only looks like it.
#[inline]
fn check_transfer_encoding(value: &[u8]) -> Result<(), FieldError> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let codings = list(value).count();
    let clear = list(value)
        .enumerate()
        .all(|(i, coding)| is_token(coding) && is_chunked(coding) == (i + 1 == codings));
    Err(if clear { FieldError::TransferCodingUnknown } else { FieldError::TransferEncodingInvalid })
}

/// A list of `name` or `name/version` (RFC 9110 §7.8), not empty.
fn check_upgrade(value: &[u8]) -> Result<(), FieldError> {
    let is_protocol = |text: &[u8]| {
        let mut parts = text.splitn(2, |&b| b == b'/');
        parts.all(is_token)
    };
    if list(value).all(is_protocol) { Ok(()) } else { Err(FieldError::UpgradeInvalid) }
}

/// The recognised name that `name` would spell with hyphens in place of its underscores.
#[cold]
pub(crate) fn spelled_with_hyphens(name: &[u8]) -> Known {
    let mut spelled = [0u8; 32];
    let Some(spelled) = spelled.get_mut(..name.len()) else { return Known::Other };
    for (to, from) in spelled.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    Known::of(spelled)
}

/// True when a request's Upgrade lists `h2c`.
pub(super) fn lists_h2c(protocols: &[u8]) -> bool {
    list(protocols).any(|protocol| protocol.eq_ignore_ascii_case(b"h2c"))
}
