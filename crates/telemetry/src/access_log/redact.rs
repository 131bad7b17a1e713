//! Keeping credentials out of lines: parameters by name, user information always.

use super::QueryLog;
use crate::text::{Escape, is_plain_path};

/// Writes an authority without user information (RFC 9110 §4.2.4: it may hold a password).
pub(crate) fn authority(out: &mut Vec<u8>, escape: Escape, authority: &[u8]) {
    if authority.len() <= VALUE_LIMIT && is_plain_path(authority) {
        return out.extend_from_slice(authority);
    }
    escape(out, clip(after_last(authority, b'@'), VALUE_LIMIT));
}

/// Writes a path; the values of credential-like matrix parameters (`/x;jsessionid=…`) are left out.
pub(crate) fn path(out: &mut Vec<u8>, escape: Escape, path: &[u8]) {
    let path = clip(path, PATH_LIMIT);
    // Most paths have nothing to escape and no matrix parameter.
    if is_plain_path(path) {
        return out.extend_from_slice(path);
    }
    for (at, segment) in path.split(|byte| *byte == b'/').enumerate() {
        if at > 0 {
            out.push(b'/');
        }
        parameters(out, escape, segment, b";");
    }
}

/// Writes a query; the values of credential-like parameters are left out.
pub(super) fn query(out: &mut Vec<u8>, escape: Escape, query: &[u8]) {
    // Some servers take `;` for `&`, so both end a value.
    parameters(out, escape, clip(query, PATH_LIMIT), b"&;");
}

/// Writes an absolute or relative URI reference without user information and fragment.
pub(super) fn uri(out: &mut Vec<u8>, escape: Escape, uri: &[u8], mode: QueryLog) {
    let uri = clip(uri, VALUE_LIMIT);
    if is_plain_path(uri) {
        return out.extend_from_slice(uri);
    }
    // Fragments carry tokens in OAuth's implicit grant; RFC 9110 §10.1.3 forbids them here.
    let uri = before_first(uri, b'#');
    let (target, rest) = split_at_first(uri, b'?');
    let after_scheme = match target.windows(2).position(|pair| pair == b"//") {
        Some(at) => {
            let (scheme, rest) = target.split_at(at + 2);
            escape(out, scheme);
            rest
        }
        None => target,
    };
    let (host, path_part) = if after_scheme.len() < target.len() {
        let slash = after_scheme.iter().position(|byte| *byte == b'/').unwrap_or(after_scheme.len());
        after_scheme.split_at(slash)
    } else {
        (&[][..], after_scheme)
    };
    escape(out, after_last(host, b'@'));
    path(out, escape, path_part);
    if let (Some(rest), QueryLog::Redacted) = (rest, mode) {
        out.push(b'?');
        query(out, escape, rest);
    }
}

fn parameters(out: &mut Vec<u8>, escape: Escape, mut text: &[u8], ends: &[u8]) {
    loop {
        let end = text.iter().position(|byte| ends.contains(byte)).unwrap_or(text.len());
        let (parameter, rest) = text.split_at(end);
        match split_at_first(parameter, b'=') {
            (name, Some(_)) if is_credential(name) => {
                escape(out, name);
                out.extend_from_slice(REDACTED);
            }
            _ => escape(out, parameter),
        }
        let Some((end, rest)) = rest.split_first() else { return };
        out.push(*end);
        text = rest;
    }
}

/// Whether the value of a parameter of this name is likely a credential.
///
/// Names are compared as the receiver would read them: percent-decoded, without case, `-`, `_`, `.`. A name too long to
/// look at counts as one.
fn is_credential(name: &[u8]) -> bool {
    let mut folded = [0; NAME_LIMIT];
    let mut len = 0;
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (first, percent_decoded(after)) {
            (b'%', Some(byte)) => (byte, after.get(2..).unwrap_or_default()),
            _ => (*first, after),
        };
        rest = after;
        if matches!(byte, b'-' | b'_' | b'.' | b' ' | b'+') {
            continue;
        }
        let Some(place) = folded.get_mut(len) else { return true };
        *place = byte.to_ascii_lowercase();
        len += 1;
    }
    let folded = folded.get(..len).unwrap_or_default();
    CREDENTIAL_NAMES.contains(&folded)
        || CREDENTIAL_PARTS.iter().any(|part| folded.windows(part.len()).any(|window| window == *part))
}

fn percent_decoded(text: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(text.first()?)? << 4 | digit(text.get(1)?)?)
}

/// The first `limit` bytes.
pub(super) fn clip(bytes: &[u8], limit: usize) -> &[u8] {
    bytes.get(..limit).unwrap_or(bytes)
}

fn split_at_first(bytes: &[u8], end: u8) -> (&[u8], Option<&[u8]>) {
    let mut parts = bytes.splitn(2, |byte| *byte == end);
    (parts.next().unwrap_or_default(), parts.next())
}

fn before_first(bytes: &[u8], end: u8) -> &[u8] {
    split_at_first(bytes, end).0
}

fn after_last(bytes: &[u8], start: u8) -> &[u8] {
    bytes.rsplit(|byte| *byte == start).next().unwrap_or_default()
}

/// How much of a path or query is logged. Unit: bytes before escaping; the rest is cut off.
pub const PATH_LIMIT: usize = 4096;
/// How much of any other value of a peer is logged. Unit: bytes before escaping; the rest is cut off.
pub const VALUE_LIMIT: usize = 1024;
/// How long a parameter name may be to be judged by its text. Unit: bytes after decoding.
const NAME_LIMIT: usize = 96;
/// What stands in place of a credential.
const REDACTED: &[u8] = b"=[redacted]";

/// Names whose value is a credential, folded as [`is_credential`] does.
const CREDENTIAL_NAMES: [&[u8]; 18] = [
    b"auth",
    b"authcode",
    b"authorization",
    b"bearer",
    b"code",
    b"hmac",
    b"jwt",
    b"key",
    b"otp",
    b"pass",
    b"passphrase",
    b"pin",
    b"pwd",
    b"samlrequest",
    b"samlresponse",
    b"session",
    b"sid",
    b"sig",
];
/// Parts of names whose value is a credential (`access_token`, `X-Amz-Signature`, `client[secret]`).
const CREDENTIAL_PARTS: [&[u8]; 11] = [
    b"accesskey",
    b"apikey",
    b"assertion",
    b"credential",
    b"passwd",
    b"password",
    b"privatekey",
    b"secret",
    b"sessionid",
    b"signature",
    b"token",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn credentials_in_queries_are_left_out() {
        let cases = [
            ("", ""),
            ("a=1&b=2", "a=1&b=2"),
            ("token=x", "token=[redacted]"),
            ("a=1&access_token=x&b", "a=1&access_token=[redacted]&b"),
            ("API-Key=x;a=1", "API-Key=[redacted];a=1"),
            ("access%5Ftoken=x", "access%5Ftoken=[redacted]"),
            ("%74oken=x", "%74oken=[redacted]"),
            ("user[password]=x=y==", "user[password]=[redacted]"),
            ("X-Amz-Signature=x&X-Amz-Date=1", "X-Amz-Signature=[redacted]&X-Amz-Date=1"),
            ("code=x&state=y", "code=[redacted]&state=y"),
            ("key=&keyboard=1&monkey=2", "key=[redacted]&keyboard=1&monkey=2"),
            ("token", "token"),
            ("&&=&%&%4", "&&=&%&%4"),
        ];
        for (input, expected) in cases {
            assert_eq!(written(|out| query(out, text::json, input.as_bytes())), expected);
        }
        let long = format!("{}=x", "n".repeat(NAME_LIMIT + 1));
        assert!(written(|out| query(out, text::json, long.as_bytes())).ends_with("=[redacted]"));
    }

    #[test]
    fn credentials_in_references_are_left_out() {
        let cases = [
            (
                "https://a.example/x?token=1#access_token=2",
                "https://a.example/x",
                "https://a.example/x?token=[redacted]",
            ),
            ("https://me:pw@a.example?x=1", "https://a.example", "https://a.example?x=1"),
            ("https://me:p@w@a.example/@x", "https://a.example/@x", "https://a.example/@x"),
            ("//me:pw@a.example/x", "//a.example/x", "//a.example/x"),
            ("/x;jsessionid=1/y?q=2", "/x;jsessionid=[redacted]/y", "/x;jsessionid=[redacted]/y?q=2"),
            ("about:blank", "about:blank", "about:blank"),
        ];
        for (input, omitted, redacted) in cases {
            assert_eq!(written(|out| uri(out, text::json, input.as_bytes(), QueryLog::Omitted)), omitted);
            assert_eq!(written(|out| uri(out, text::json, input.as_bytes(), QueryLog::Redacted)), redacted);
        }
        assert_eq!(written(|out| authority(out, text::json, b"me:pw@a.example:80")), "a.example:80");
    }

    #[test]
    fn long_values_are_cut() {
        let long = vec![b'a'; 3 * PATH_LIMIT];
        assert_eq!(written(|out| path(out, text::json, &long)).len(), PATH_LIMIT);
        assert_eq!(written(|out| query(out, text::json, &long)).len(), PATH_LIMIT);
        assert_eq!(written(|out| authority(out, text::json, &long)).len(), VALUE_LIMIT);
    }
}
