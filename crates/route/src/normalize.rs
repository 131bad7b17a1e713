//! The normal form of a path (RFC 3986 §6.2.2): what is matched is what policies see and what is forwarded.
//!
//! | received | becomes |
//! |---|---|
//! | `%XX` of an unreserved byte (letters, digits, `- . _ ~`) | that byte |
//! | `%xx` of any other byte | `%XX` in upper case |
//! | a byte that RFC 3986 does not allow in a path (`"<>[]^{}`, `` ` ``, `\|`, space, 0x80 to 0xFF) | `%XX` |
//! | `/./`, `/.` at the end, also spelled `%2e` | `/` |
//! | `/a/../`, `/a/..` at the end, also spelled `%2e` | `/` |
//! | `..` above the root | refused |
//! | `%` without two hexadecimal digits | refused |
//! | NUL, control characters and DEL, raw or encoded | refused |
//! | `#` | refused: whether the rest is a fragment differs between servers |
//! | `/..;x/`, `/.;x/` | refused: servers that strip path parameters see a dot segment |
//! | `%2F` | as [`EncodedSlash`] says; default: stays encoded, not a separator |
//! | `..%2F`, `%2F..` and the like while `%2F` stays encoded | refused: a server that decodes it sees a dot segment |
//! | `\`, `%5C` | as [`Backslash`] says; default: refused |
//! | `//` | stays; one `/` with [`Options::merge_slashes`] |
//! | sub-delimiters, `:`, `@`, case of letters, a slash at the end | stay |
//!
//! The normal form of a normal form is itself. A path that is normal already, and nearly all are, costs one scan.

use rhumb_codec::head::{Method, RequestHead};

/// What happens to `%2F`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlash {
    /// It stays encoded and is not a separator: `/a%2Fb` is one segment.
    #[default]
    Keep,
    /// The request is refused.
    Refuse,
    /// It becomes `/`, before dot segments are looked for.
    Decode,
}

/// What happens to `\` and `%5C`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backslash {
    /// The request is refused: some servers read a backslash as a separator.
    #[default]
    Refuse,
    /// Both become `%5C`, which is not a separator.
    Keep,
    /// Both become `/`, before dot segments are looked for.
    Slash,
}

/// The choices that the normal form leaves. The default is right for most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What happens to `%2F`. Default: kept encoded.
    pub encoded_slash: EncodedSlash,
    /// What happens to `\` and `%5C`. Default: refused.
    pub backslash: Backslash,
    /// True makes one `/` of several. Default: false, since `//` and `/` are different resources (RFC 3986 §3.3).
    pub merge_slashes: bool,
}

/// Whether normalisation changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalized {
    /// The path was normal; the output buffer is not meant to be read.
    Same,
    /// The normal form is in the output buffer.
    Rewritten,
}

/// Why a path has no normal form. The request is answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidPath {
    /// The path does not begin with `/`.
    #[error("path does not begin with /")]
    NotAbsolute,
    /// `%` is not followed by two hexadecimal digits (RFC 3986 §2.1).
    #[error("path has a % that is not followed by two hexadecimal digits")]
    Encoding,
    /// NUL, a control character or DEL, raw or encoded.
    #[error("path has a control character")]
    Control,
    /// `#` in a request target (RFC 9112 §3.2 has no fragment).
    #[error("path has a fragment")]
    Fragment,
    /// More `..` than segments before them.
    #[error("path leads above the root")]
    AboveRoot,
    /// A dot segment with a path parameter, or behind an encoded separator.
    #[error("path hides a dot segment")]
    HiddenDotSegment,
    /// `%2F` where [`EncodedSlash::Refuse`] applies.
    #[error("path has an encoded slash")]
    EncodedSlash,
    /// `\` or `%5C` where [`Backslash::Refuse`] applies.
    #[error("path has a backslash")]
    Backslash,
}

/// Brings `path` (no query) into its normal form. `out` is overwritten; its memory is reused between calls and grows to
/// at most three times the longest path.
///
/// # Errors
/// [`InvalidPath`] when there is none.
#[inline]
pub fn normalize(path: &[u8], options: Options, out: &mut Vec<u8>) -> Result<Normalized, InvalidPath> {
    if is_plain(path, options) {
        return Ok(Normalized::Same);
    }
    rewrite(path, options, out)?;
    Ok(if out == path { Normalized::Same } else { Normalized::Rewritten })
}

/// Replaces the path of `head` by its normal form. `*` of a server-wide OPTIONS and the empty path of a CONNECT
/// (RFC 9112 §3.2) are not paths and stay.
///
/// # Errors
/// [`InvalidPath`] when there is no normal form; `head` is unchanged.
#[inline]
pub fn normalize_head(
    head: &mut RequestHead,
    options: Options,
    scratch: &mut Vec<u8>,
) -> Result<(), InvalidPath> {
    match (head.path(), head.method()) {
        (b"*", Method::Options) | (b"", Method::Connect) => return Ok(()),
        (path, _) => {
            if normalize(path, options, scratch)? == Normalized::Same {
                return Ok(());
            }
        }
    }
    head.set_path(scratch);
    Ok(())
}

/// True when one look at each byte shows that the path is normal. False means that [`rewrite`] has to decide.
#[inline]
fn is_plain(path: &[u8], options: Options) -> bool {
    let Some((&b'/', rest)) = path.split_first() else { return false };
    let mut after_slash = true;
    for &byte in rest {
        match class(byte) {
            Class::Plain => after_slash = false,
            Class::Slash if after_slash && options.merge_slashes => return false,
            Class::Slash => after_slash = true,
            Class::Dot if after_slash => return false,
            Class::Dot => {}
            Class::Special => return false,
        }
    }
    true
}

fn rewrite(path: &[u8], options: Options, out: &mut Vec<u8>) -> Result<(), InvalidPath> {
    let Some((&b'/', mut rest)) = path.split_first() else { return Err(InvalidPath::NotAbsolute) };
    out.clear();
    out.push(b'/');
    let mut segment = Segment { start: 1, encoded_separator: false };
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let encoded = byte == b'%';
        let byte = if encoded {
            let Some(([high, low], tail)) = rest.split_first_chunk::<2>() else {
                return Err(InvalidPath::Encoding);
            };
            rest = tail;
            hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low).ok_or(InvalidPath::Encoding)?
        } else {
            byte
        };
        match byte {
            0..=0x1f | 0x7f => return Err(InvalidPath::Control),
            b'#' if !encoded => return Err(InvalidPath::Fragment),
            b'/' if !encoded => segment.end(out, options)?,
            b'/' => match options.encoded_slash {
                EncodedSlash::Keep => segment.push_separator(out, byte),
                EncodedSlash::Refuse => return Err(InvalidPath::EncodedSlash),
                EncodedSlash::Decode => segment.end(out, options)?,
            },
            b'\\' => match options.backslash {
                Backslash::Keep => segment.push_separator(out, byte),
                Backslash::Refuse => return Err(InvalidPath::Backslash),
                Backslash::Slash => segment.end(out, options)?,
            },
            _ if is_unreserved(byte) || !encoded && matches!(class(byte), Class::Plain) => out.push(byte),
            _ => push_encoded(out, byte),
        }
    }
    segment.close(out).map(|_| ())
}

/// The segment that is being written: from `start` to the end of the output.
struct Segment {
    start: usize,
    /// `%2F` or `%5C` was written into it.
    encoded_separator: bool,
}

impl Segment {
    /// A separator follows.
    fn end(&mut self, out: &mut Vec<u8>, options: Options) -> Result<(), InvalidPath> {
        let kept = self.close(out)?;
        if kept && !(options.merge_slashes && out.ends_with(b"/")) {
            out.push(b'/');
        }
        *self = Self { start: out.len(), encoded_separator: false };
        Ok(())
    }

    /// The segment is complete. RFC 3986 §5.2.4: a dot segment goes, `..` takes its parent along; false in both cases,
    /// and the output ends with the separator before them.
    fn close(&mut self, out: &mut Vec<u8>) -> Result<bool, InvalidPath> {
        let (before, segment) = out.split_at_checked(self.start).unwrap_or_default();
        match segment {
            b"." => out.truncate(self.start),
            b".." => {
                let parents = before.strip_suffix(b"/").unwrap_or_default();
                let parent = parents.iter().rposition(|&b| b == b'/').ok_or(InvalidPath::AboveRoot)?;
                out.truncate(parent + 1);
            }
            _ if hides_dot_segment(segment, self.encoded_separator) => {
                return Err(InvalidPath::HiddenDotSegment);
            }
            _ => return Ok(true),
        }
        Ok(false)
    }

    fn push_separator(&mut self, out: &mut Vec<u8>, byte: u8) {
        self.encoded_separator = true;
        push_encoded(out, byte);
    }
}

/// True when a server that strips path parameters, or decodes an encoded separator, would see `.` or `..`.
fn hides_dot_segment(segment: &[u8], encoded_separator: bool) -> bool {
    let is_dots = |part: &[u8]| {
        let name = part.split(|&b| b == b';').next().unwrap_or_default();
        name == b"." || name == b".."
    };
    if !encoded_separator {
        return is_dots(segment);
    }
    let mut rest = segment;
    loop {
        // Encodings in the output are complete and in upper case; `%25` cannot be mistaken for the start of one.
        let next = rest.windows(3).position(|window| window == b"%2F" || window == b"%5C");
        let Some((part, tail)) = next.and_then(|at| rest.split_at_checked(at)) else { return is_dots(rest) };
        if is_dots(part) {
            return true;
        }
        rest = tail.get(3..).unwrap_or_default();
    }
}

fn push_encoded(out: &mut Vec<u8>, byte: u8) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'A' + (nibble - 10) };
    out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
}

/// The value of a hexadecimal digit.
#[inline]
pub(crate) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[derive(Clone, Copy)]
enum Class {
    /// Allowed in a segment (pchar, RFC 3986 §3.3) and means nothing here.
    Plain,
    Slash,
    Dot,
    /// Has to be looked at, encoded or refused.
    Special,
}

#[inline]
fn class(byte: u8) -> Class {
    CLASS.get(byte as usize).copied().unwrap_or(Class::Special)
}

static CLASS: [Class; 256] = class_table();

#[allow(clippy::indexing_slicing)] // evaluated at compile time
const fn class_table() -> [Class; 256] {
    let mut table = [Class::Special; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        table[i] = match byte {
            b'/' => Class::Slash,
            b'.' => Class::Dot,
            b'-' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';'
            | b'=' | b':' | b'@' => Class::Plain,
            _ if byte.is_ascii_alphanumeric() => Class::Plain,
            _ => Class::Special,
        };
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_base::rng::Rng;

    fn run(path: &[u8], options: Options) -> Result<Vec<u8>, InvalidPath> {
        let mut out = Vec::new();
        Ok(match normalize(path, options, &mut out)? {
            Normalized::Same => path.to_vec(),
            Normalized::Rewritten => out,
        })
    }

    fn text(path: &str, options: Options) -> Result<String, InvalidPath> {
        run(path.as_bytes(), options).map(|out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn normal_form_is_as_documented() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/A/b;v=1/c,d:e@f", "/A/b;v=1/c,d:e@f"),
            ("/%61%2d%2E%5f%7E", "/a-._~"),
            ("/%41bc/%7a", "/Abc/z"),
            ("/a%3fb%c3%a9", "/a%3Fb%C3%A9"),
            ("/a%3Fb", "/a%3Fb"),
            ("/%3b%2c", "/%3B%2C"),
            ("/%2561", "/%2561"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/{id}/a[0]|\"<>^`", "/%7Bid%7D/a%5B0%5D%7C%22%3C%3E%5E%60"),
            ("/a b", "/a%20b"),
            ("/é", "/%C3%A9"),
            ("/.", "/"),
            ("/./", "/"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/../../c/./d", "/c/d"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/.%2E/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/...", "/..."),
            ("/.well-known/acme", "/.well-known/acme"),
            ("/a/..b/c..", "/a/..b/c.."),
            ("//", "//"),
            ("//a//b", "//a//b"),
            ("/a//../b", "/a/b"),
            ("//..", "/"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb/..", "/"),
            ("/a%2F%2Fb", "/a%2F%2Fb"),
        ] {
            assert_eq!(text(path, Options::default()).as_deref(), Ok(normal), "{path}");
            assert_eq!(text(normal, Options::default()).as_deref(), Ok(normal), "{path} again");
        }
    }

    #[test]
    fn what_two_servers_could_read_differently_is_refused() {
        use InvalidPath as E;
        for (path, error) in [
            ("", E::NotAbsolute),
            ("*", E::NotAbsolute),
            ("a/b", E::NotAbsolute),
            ("/%", E::Encoding),
            ("/%2", E::Encoding),
            ("/%zz", E::Encoding),
            ("/%2g", E::Encoding),
            ("/%u0041", E::Encoding),
            ("/%+1", E::Encoding),
            ("/a\0", E::Control),
            ("/a\x7f", E::Control),
            ("/a\tb", E::Control),
            ("/a%00", E::Control),
            ("/a%0d%0ax: y", E::Control),
            ("/a%7F", E::Control),
            ("/a#b", E::Fragment),
            ("/..", E::AboveRoot),
            ("/../a", E::AboveRoot),
            ("/a/../../b", E::AboveRoot),
            ("/%2e%2e/a", E::AboveRoot),
            ("/./../a", E::AboveRoot),
            ("/a/..;/b", E::HiddenDotSegment),
            ("/a/..;x=1/b", E::HiddenDotSegment),
            ("/a/.;x", E::HiddenDotSegment),
            ("/a/%2e%2e;/b", E::HiddenDotSegment),
            ("/a/..%2Fb", E::HiddenDotSegment),
            ("/a/b%2f..", E::HiddenDotSegment),
            ("/a/b%2f%2e%2e%2fc", E::HiddenDotSegment),
            ("/a/b%2f.%2fc", E::HiddenDotSegment),
            ("/a/b%2f..;%2fc", E::HiddenDotSegment),
            ("/a\\b", E::Backslash),
            ("/a%5cb", E::Backslash),
        ] {
            assert_eq!(text(path, Options::default()), Err(error), "{path}");
        }
    }

    #[test]
    fn options_change_what_they_say() {
        let slash = |encoded_slash| Options { encoded_slash, ..Options::default() };
        let backslash = |backslash| Options { backslash, ..Options::default() };
        let merge = Options { merge_slashes: true, ..Options::default() };
        for (path, options, expected) in [
            ("/a%2fb", slash(EncodedSlash::Refuse), Err(InvalidPath::EncodedSlash)),
            ("/a%2fb", slash(EncodedSlash::Decode), Ok("/a/b")),
            ("/a%2f..%2fb", slash(EncodedSlash::Decode), Ok("/b")),
            ("/..%2fb", slash(EncodedSlash::Decode), Err(InvalidPath::AboveRoot)),
            ("/a\\b", backslash(Backslash::Keep), Ok("/a%5Cb")),
            ("/a%5cb", backslash(Backslash::Keep), Ok("/a%5Cb")),
            ("/a/..\\b", backslash(Backslash::Keep), Err(InvalidPath::HiddenDotSegment)),
            ("/a/x%5c..", backslash(Backslash::Keep), Err(InvalidPath::HiddenDotSegment)),
            ("/a\\..\\b", backslash(Backslash::Slash), Ok("/b")),
            ("/a%5Cb", backslash(Backslash::Slash), Ok("/a/b")),
            ("//a///b//", merge, Ok("/a/b/")),
            ("/a/.//b", merge, Ok("/a/b")),
            ("/a//../b", merge, Ok("/b")),
            ("/a/b//..//c", merge, Ok("/a/c")),
        ] {
            assert_eq!(text(path, options).as_deref(), expected.as_ref().map(|s| *s), "{path} {options:?}");
        }
    }

    #[test]
    fn the_normal_form_is_stable_and_safe_for_any_bytes() {
        const PARTS: &[&[u8]] = &[
            b"/", b"/", b".", b"..", b"%2e", b"%2F", b"%5c", b"\\", b"a", b"B", b";", b"%41", b"%c3", b"%",
            b"\xc3", b" ", b"%25", b"2f", b"~",
        ];
        for seed in 0..20_000 {
            let mut rng = Rng::new(seed);
            let mut path = b"/".to_vec();
            for _ in 0..rng.below(12) {
                path.extend_from_slice(PARTS[rng.below(PARTS.len() as u32) as usize]);
            }
            let options = Options {
                encoded_slash: [EncodedSlash::Keep, EncodedSlash::Refuse, EncodedSlash::Decode]
                    [rng.below(3) as usize],
                backslash: [Backslash::Refuse, Backslash::Keep, Backslash::Slash][rng.below(3) as usize],
                merge_slashes: rng.below(2) == 1,
            };
            let Ok(normal) = run(&path, options) else { continue };
            assert_eq!(run(&normal, options).as_deref(), Ok(&normal[..]), "seed {seed}");
            assert!(normal.starts_with(b"/"), "seed {seed}");
            assert!(normal.split(|&b| b == b'/').all(|s| s != b"." && s != b".."), "seed {seed}");
            assert!(normal.iter().all(|&b| b.is_ascii_graphic() && b != b'\\'), "seed {seed}");
            assert!(!options.merge_slashes || !normal.windows(2).any(|w| w == b"//"), "seed {seed}");
        }
    }

    #[test]
    fn targets_that_are_no_path_stay() {
        let mut scratch = Vec::new();
        for (method, target, expected) in [
            ("OPTIONS", "*", Ok("*")),
            ("GET", "*", Err(InvalidPath::NotAbsolute)),
            ("CONNECT", "", Ok("")),
            ("GET", "", Err(InvalidPath::NotAbsolute)),
            ("GET", "/a/../b?c=/../d", Ok("/b")),
        ] {
            let mut head = RequestHead::new();
            head.set_method(method.as_bytes());
            head.set_target(target.as_bytes());
            let done = normalize_head(&mut head, Options::default(), &mut scratch);
            assert_eq!(done.map(|()| head.path()), expected.map(str::as_bytes), "{method} {target}");
        }
    }
}
