//! HTTP/1.0 and HTTP/1.1 messages (RFC 9112): bytes to heads and content, and back.
//!
//! What is accepted has one meaning. Wherever RFC 9112 lets a recipient repair a message (bare LF, line folding, white
//! space around the request line, equal Content-Length twice), the repair of one hop is the attack on the next, so the
//! message is refused instead. What is accepted is never forwarded as bytes: a head is written anew from what was
//! understood, with exactly one framing.
//!
//! Fields that belong to one connection (RFC 9110 §7.6.1) do not reach the head's fields: Connection and every field
//! that it nominates, Keep-Alive, Proxy-Connection, TE, Upgrade, HTTP2-Settings, Transfer-Encoding. What they say is
//! kept in the head. Trailer stays: RFC 9110 §6.6.2 has it travel with the trailers that it announces.
//!
//! `Content_Length` and `Transfer_Encoding` are refused in requests; the underscore spellings of fields that a proxy
//! vouches for (`X_Forwarded_For` and the like) are dropped.
//!
//! Nothing here knows a socket. Start with [`parse_request`], [`BodyDecoder`] and [`write_response`].

mod syntax;
mod section;
mod request;
mod response;
mod body;
mod write;
mod error;
#[cfg(test)]
mod properties;

pub(crate) use body::may_be_trailer;
pub use body::{BodyDecoder, Decoded};
pub use error::{BodyError, FieldError, RequestError, ResponseError};
pub use request::{PREFACE, parse_request};
pub use response::parse_response;
pub(crate) use section::{VOUCHED_FOR, spelled_with_hyphens};
pub use write::{
    BodyFraming, CHUNK_END, ResponseContext, write_chunk, write_chunk_prefix, write_last_chunk,
    write_request, write_response,
};

/// Most field lines of a message that any configuration may allow: the parser's table lies on the stack.
pub const MAX_FIELDS: usize = 256;

/// Longest method: every registered one is far shorter (RFC 9110 §16.1). Longer ones are not implemented (501).
pub const MAX_METHOD_BYTES: usize = 32;

/// Most options of all Connection fields of a message. Clients send two or three.
pub const MAX_CONNECTION_OPTIONS: usize = 16;

/// How much of a peer's message is held at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Start line and fields with their line ends. Unit: bytes. Default: 65 536. Beyond: 431.
    pub head_bytes: usize,
    /// Field lines of a head, and of a trailer section. Default: 128; [`MAX_FIELDS`] at most. Beyond: 431.
    pub fields: usize,
    /// Request target. Unit: bytes. Default: 16 384. Beyond: 414.
    pub target_bytes: usize,
    /// Chunk extensions of one message, all chunks together. They are discarded, so they only cost: a sender of small
    /// chunks with long extensions makes its peer read much for nothing. Unit: bytes. Default: 4 096. Beyond: 400.
    pub chunk_ext_bytes: usize,
    /// Trailer section with its line ends. Unit: bytes. Default: 16 384. Beyond: 431.
    pub trailer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 << 10,
            fields: 128,
            target_bytes: 16 << 10,
            chunk_ext_bytes: 4 << 10,
            trailer_bytes: 16 << 10,
        }
    }
}

/// True when bytes after the first `seen` may complete a head: an empty line ends in them. `seen` is the length that
/// the parser called incomplete. Parsing starts anew each time, so a caller that asks first does linear work for a
/// peer that sends its head byte by byte.
#[inline]
pub fn may_complete(input: &[u8], seen: usize) -> bool {
    let from = seen.saturating_sub(3);
    let Some(fresh) = input.get(from..) else { return true };
    memchr::memchr_iter(b'\n', fresh).any(|at| {
        let rest = fresh.get(at + 1..).unwrap_or_default();
        matches!(rest, [b'\n', ..] | [b'\r', b'\n', ..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds `inputs` to the corpus of a fuzz target whose first byte selects what else varies.
    pub(super) fn write_corpus(target: &str, inputs: impl Iterator<Item = Vec<u8>>) {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        std::fs::create_dir_all(&corpus).unwrap();
        for (i, input) in inputs.enumerate() {
            std::fs::write(corpus.join(format!("case-{i:03}")), [b"0", input.as_slice()].concat()).unwrap();
        }
    }

    #[test]
    fn a_head_can_only_be_complete_after_an_empty_line() {
        for (input, seen, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n", 0, false),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, true),
            ("GET / HTTP/1.1\r\nHost: a\n\n", 0, true),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", 0, true),
            ("", 0, false),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nX", 26, true),
            ("\r\n\r\nGET", 6, false),
        ] {
            assert_eq!(may_complete(input.as_bytes(), seen), expected, "{input:?}");
        }
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!((0..head.len()).all(|seen| may_complete(head, seen)), "the end may straddle two reads");
    }
}
