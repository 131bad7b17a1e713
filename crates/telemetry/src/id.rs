//! Names by which an exchange is found again: request ids and W3C trace context.

use std::fmt;
use std::io;

/// A request id: a UUID version 7 (RFC 9562 §5.7) as text, so that ids sort by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 36]);

impl RequestId {
    /// The 36 ASCII characters.
    pub const fn as_bytes(&self) -> &[u8; 36] {
        &self.0
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Makes ids for one worker: a ChaCha8 key stream under a key from the operating system.
///
/// Ids cannot be guessed from other ids, which matters because clients see them; they are names, not secrets to rely on.
pub struct IdSource {
    /// Constants, key, block counter, nonce (RFC 8439 §2.3, with 8 rounds).
    input: [u32; 16],
    block: [u8; BLOCK],
    used: usize,
}

impl IdSource {
    /// A source keyed by the operating system.
    ///
    /// # Errors
    /// When the kernel gives no randomness.
    pub fn from_os() -> io::Result<Self> {
        let mut seed = [0; 32];
        let mut filled = 0;
        while let Some(rest) = seed.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(Self::from_seed(seed))
    }

    /// A source whose ids depend on the seed alone: for tests and simulation.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let mut input = [0; 16];
        input[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        for (word, bytes) in input[4..12].iter_mut().zip(seed.chunks_exact(4)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        Self { input, block: [0; BLOCK], used: BLOCK }
    }

    /// A request id for a request that arrived at this time. Unit: milliseconds since the Unix epoch.
    pub fn request_id(&mut self, unix_ms: u64) -> RequestId {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&self.take::<10>());
        bytes[6] = 0x70 | bytes[6] & 0x0f;
        bytes[8] = 0x80 | bytes[8] & 0x3f;
        let hex: [u8; 32] = to_hex(&bytes);
        let mut text = [b'-'; 36];
        text[..8].copy_from_slice(&hex[..8]);
        text[9..13].copy_from_slice(&hex[8..12]);
        text[14..18].copy_from_slice(&hex[12..16]);
        text[19..23].copy_from_slice(&hex[16..20]);
        text[24..].copy_from_slice(&hex[20..]);
        RequestId(text)
    }

    /// A new trace that starts here.
    ///
    /// `sampled` decides for everybody behind us who follows its parent: say yes unless a sampler said no, otherwise
    /// services behind the gateway stop recording.
    pub fn trace(&mut self, sampled: bool) -> TraceContext {
        TraceContext {
            trace_id: self.take_nonzero(),
            parent_id: self.take_nonzero(),
            flags: u8::from(sampled),
        }
    }

    /// The same trace with a new span of our own as parent.
    pub fn child(&mut self, parent: &TraceContext) -> TraceContext {
        TraceContext { parent_id: self.take_nonzero(), ..*parent }
    }

    // W3C Trace Context §3.2.2.3, §3.2.2.4: all bytes zero is not an id.
    fn take_nonzero<const N: usize>(&mut self) -> [u8; N] {
        loop {
            let id = self.take();
            if id != [0; N] {
                return id;
            }
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > BLOCK {
            self.refill();
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.block[self.used..self.used + N]);
        self.used += N;
        bytes
    }

    fn refill(&mut self) {
        let mut state = self.input;
        for _ in 0..CHACHA_DOUBLE_ROUNDS {
            quarter_round(&mut state, 0, 4, 8, 12);
            quarter_round(&mut state, 1, 5, 9, 13);
            quarter_round(&mut state, 2, 6, 10, 14);
            quarter_round(&mut state, 3, 7, 11, 15);
            quarter_round(&mut state, 0, 5, 10, 15);
            quarter_round(&mut state, 1, 6, 11, 12);
            quarter_round(&mut state, 2, 7, 8, 13);
            quarter_round(&mut state, 3, 4, 9, 14);
        }
        for ((bytes, word), key) in self.block.chunks_exact_mut(4).zip(state).zip(self.input) {
            bytes.copy_from_slice(&word.wrapping_add(key).to_le_bytes());
        }
        self.used = 0;
        // A 64-bit counter, as in the original ChaCha: it does not wrap in practice.
        let (low, carry) = self.input[12].overflowing_add(1);
        self.input[12] = low;
        self.input[13] = self.input[13].wrapping_add(u32::from(carry));
    }
}

impl fmt::Debug for IdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        f.debug_struct("IdSource").finish_non_exhaustive()
    }
}

fn quarter_round(state: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    state[a] = state[a].wrapping_add(state[b]);
    state[d] = (state[d] ^ state[a]).rotate_left(16);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = (state[b] ^ state[c]).rotate_left(12);
    state[a] = state[a].wrapping_add(state[b]);
    state[d] = (state[d] ^ state[a]).rotate_left(8);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = (state[b] ^ state[c]).rotate_left(7);
}

/// The value of `traceparent` (W3C Trace Context, §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never all zero.
    pub trace_id: [u8; 16],
    /// The span that sends the request; never all zero.
    pub parent_id: [u8; 8],
    /// Trace flags.
    pub flags: u8,
}

impl TraceContext {
    /// Length of the text form.
    pub const LEN: usize = 55;

    /// Reads a `traceparent` field value.
    ///
    /// `None` means: start a new trace and drop `tracestate` as well (W3C Trace Context §3.2.2, §4.3). A request with
    /// more than one `traceparent` field line has none that is valid; that is for the caller to see.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (head, rest) = value.split_at_checked(Self::LEN)?;
        let version = from_hex::<1>(head.get(..2)?)?[0];
        let known_shape = match version {
            0 => rest.is_empty(),
            // §4.3: a later version may append to the format after another dash.
            1..=0xfe => rest.is_empty() || rest.starts_with(b"-"),
            // §3.2.2.1: version ff is invalid.
            0xff => false,
        };
        if !known_shape || [2, 35, 52].iter().any(|at| head.get(*at) != Some(&b'-')) {
            return None;
        }
        let context = Self {
            trace_id: from_hex(head.get(3..35)?)?,
            parent_id: from_hex(head.get(36..52)?)?,
            flags: from_hex::<1>(head.get(53..)?)?[0] & KNOWN_FLAGS,
        };
        (context.trace_id != [0; 16] && context.parent_id != [0; 8]).then_some(context)
    }

    /// Reads the four parts of B3 (Zipkin's propagation), from its one field or its several. A trace id of 64 bits gets
    /// zeros in front. `sampled` is `1`, `0`, `d` (debug: sampled), or missing, which counts as not decided: sampled.
    pub fn from_b3(trace_id: &[u8], span_id: &[u8], sampled: Option<&[u8]>) -> Option<Self> {
        let mut id = [0; 16];
        match trace_id.len() {
            16 => id[8..].copy_from_slice(&from_hex::<8>(trace_id)?),
            _ => id = from_hex(trace_id)?,
        }
        let flags = match sampled {
            None | Some(b"1" | b"d" | b"true") => SAMPLED,
            Some(b"0" | b"false") => 0,
            Some(_) => return None,
        };
        let context = Self { trace_id: id, parent_id: from_hex(span_id)?, flags };
        (context.trace_id != [0; 16] && context.parent_id != [0; 8]).then_some(context)
    }

    /// Reads the value of the one field `b3`.
    pub fn parse_b3(value: &[u8]) -> Option<Self> {
        let mut parts = value.split(|&byte| byte == b'-');
        let context = Self::from_b3(parts.next()?, parts.next()?, parts.next())?;
        // The caller's caller may follow, which nobody needs.
        parts.next();
        parts.next().is_none().then_some(context)
    }

    /// The value of the one field `b3`.
    pub fn to_b3(&self) -> [u8; 51] {
        let mut text = [b'-'; 51];
        text[..32].copy_from_slice(&self.trace_id_hex());
        text[33..49].copy_from_slice(&self.parent_id_hex());
        text[50] = if self.is_sampled() { b'1' } else { b'0' };
        text
    }

    /// The same, with what is now known of whether spans of it are recorded.
    #[must_use]
    pub fn sampled(self, is_sampled: bool) -> Self {
        let flags = if is_sampled { self.flags | SAMPLED } else { self.flags & !SAMPLED };
        Self { flags, ..self }
    }

    /// Whether the sender may have recorded its span (§3.2.2.5.1).
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The `traceparent` field value, version 00.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut text = [b'-'; Self::LEN];
        text[..2].copy_from_slice(b"00");
        text[3..35].copy_from_slice(&self.trace_id_hex());
        text[36..52].copy_from_slice(&self.parent_id_hex());
        text[53..].copy_from_slice(&to_hex::<1, 2>(&[self.flags]));
        text
    }

    /// The trace id as 32 lower-case hexadecimal digits.
    pub fn trace_id_hex(&self) -> [u8; 32] {
        to_hex(&self.trace_id)
    }

    /// The parent id as 16 lower-case hexadecimal digits.
    pub fn parent_id_hex(&self) -> [u8; 16] {
        to_hex(&self.parent_id)
    }
}

fn to_hex<const N: usize, const M: usize>(bytes: &[u8; N]) -> [u8; M] {
    const { assert!(M == 2 * N) };
    let mut text = [0; M];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&HEX_PAIRS[usize::from(*byte)]);
    }
    text
}

// §3.2.2: lower-case digits only; upper case is not a traceparent.
fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Bytes of one ChaCha block.
const BLOCK: usize = 64;
/// Double rounds of ChaCha8.
const CHACHA_DOUBLE_ROUNDS: u32 = 4;
/// `sampled` (W3C Trace Context §3.2.2.5.1).
const SAMPLED: u8 = 0x01;
/// `sampled`, and `random-trace-id` of level 2, which a participant passes on. §3.2.2.5.2: others are set to zero.
const KNOWN_FLAGS: u8 = 0x03;

const HEX_PAIRS: [[u8; 2]; 256] = {
    let digits = *b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

#[cfg(test)]
mod b3_tests {
    use super::*;

    #[test]
    fn b3_is_read_in_every_form() {
        let (trace, span) = ("463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312");
        let read = |text: &str| TraceContext::parse_b3(text.as_bytes());
        let context = read(&format!("{trace}-{span}-1")).unwrap();
        assert!(context.is_sampled());
        assert_eq!(context.to_b3(), format!("{trace}-{span}-1").as_bytes());
        assert!(!read(&format!("{trace}-{span}-0-05e3ac9a4f6e3b90")).unwrap().is_sampled());
        assert!(read(&format!("{trace}-{span}-d")).unwrap().is_sampled());
        assert_eq!(read(&format!("{span}-{span}")).unwrap().trace_id[..8], [0; 8]);
        for wrong in [
            "0",
            "",
            "-",
            &format!("{trace}-{span}-2"),
            &format!("{trace}-{span}-1-a-b"),
            &format!("{span}a-{span}-1"),
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn request_ids_are_uuid_version_7_of_the_given_time() {
        let mut ids = IdSource::from_seed([7; 32]);
        // RFC 9562 appendix A.6: 2022-02-22T19:22:22Z is 017f22e2-79b0-7….
        let id = ids.request_id(0x017F_22E2_79B0);
        assert!(id.as_str().starts_with("017f22e2-79b0-7"), "{id}");
        for _ in 0..1000 {
            let id = ids.request_id(0x017F_22E2_79B0);
            let text = id.as_str();
            assert!(text.len() == 36 && matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{text}");
            assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        }
    }

    #[test]
    fn ids_do_not_repeat_and_sources_differ() {
        let mut seen = std::collections::HashSet::new();
        for mut ids in [IdSource::from_os().unwrap(), IdSource::from_os().unwrap()] {
            for _ in 0..10_000 {
                assert!(seen.insert(*ids.request_id(1).as_bytes()));
            }
        }
    }

    #[test]
    fn ids_sort_by_time() {
        let mut ids = IdSource::from_seed([1; 32]);
        let texts: Vec<_> =
            (1_700_000_000_000..1_700_000_000_100).map(|ms| ids.request_id(ms).to_string()).collect();
        assert!(texts.is_sorted());
    }

    #[test]
    fn the_key_stream_is_chacha() {
        // RFC 8439 §2.3.2 checks the block function with 20 rounds; with 8 rounds the vector is that of
        // draft-strombergson-chacha-test-vectors-01, TC1: key and nonce zero, 256-bit key.
        let mut ids = IdSource::from_seed([0; 32]);
        assert_eq!(
            ids.take::<16>(),
            [0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6, 0x7f, 0x5b, 0xb8, 0xe8, 0x1f, 0x09, 0xa5, 0xa1]
        );
    }

    #[test]
    fn a_traceparent_survives_the_round_trip() {
        let context = TraceContext::parse(GOOD.as_bytes()).unwrap();
        assert!(context.is_sampled());
        assert_eq!(&context.to_bytes(), GOOD.as_bytes());
        let child = IdSource::from_seed([3; 32]).child(&context);
        assert!(child.trace_id == context.trace_id && child.parent_id != context.parent_id);
        let fresh = IdSource::from_seed([3; 32]).trace(true);
        assert_eq!(TraceContext::parse(&fresh.to_bytes()), Some(fresh));
    }

    #[test]
    fn only_what_the_recommendation_allows_is_a_traceparent() {
        let later = GOOD.replacen("00", "cc", 1);
        let cases = [
            ("", false),
            (GOOD, true),
            (&GOOD.to_uppercase(), false),
            (&GOOD.replace("4bf9", "4BF9"), false),
            (&GOOD.replace('-', "_"), false),
            (&format!(" {GOOD}"), false),
            (&format!("{GOOD} "), false),
            (&format!("{GOOD}-00"), false),
            (&GOOD[..54], false),
            (&GOOD.replacen("00", "ff", 1), false),
            (&GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"), false),
            (&GOOD.replace("00f067aa0ba902b7", "0000000000000000"), false),
            (&GOOD.replace("00f067aa0ba902b7", "00f067aa0ba902g7"), false),
            (&later, true),
            (&format!("{later}-what-comes-later"), true),
            (&format!("{later}.what"), false),
        ];
        for (value, is_valid) in cases {
            assert_eq!(TraceContext::parse(value.as_bytes()).is_some(), is_valid, "{value}");
        }
    }

    #[test]
    fn unknown_flags_are_not_passed_on() {
        let context = TraceContext::parse(GOOD.replace("-01", "-ff").as_bytes()).unwrap();
        assert!(context.to_bytes().ends_with(b"-03"));
    }
}
