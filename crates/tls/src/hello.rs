//! A look at the ClientHello before anybody decides what to do with the connection.
//!
//! The server name chooses the listener's settings (rustls takes its configuration before it reads
//! the first byte), and TLS passthrough routes on it without ever terminating TLS.

use rustls_pki_types::{DnsName, IpAddr};

/// The longest ClientHello taken. Unit: bytes of the handshake message.
///
/// Post-quantum key shares take 1.2 KiB, a session ticket that carries a client's certificate
/// chain some more; 16 KiB is also one record.
pub const MAX_CLIENT_HELLO: usize = 16 * 1024;

/// The most records that one ClientHello may be spread over: it bounds the work per look, since
/// each look begins at the first record. Honest clients use one or two.
pub const MAX_HELLO_RECORDS: usize = 32;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peek {
    /// The beginning of a ClientHello; look again with more bytes.
    NeedMore,
    /// A whole ClientHello.
    Hello(ClientHello),
    /// Something other than a TLS 1.x handshake record with a ClientHello in it.
    NotTls,
    /// A ClientHello that breaks the rules of its own framing.
    Malformed,
    /// A ClientHello above [`MAX_CLIENT_HELLO`] or [`MAX_HELLO_RECORDS`].
    TooLong,
}

/// What a client says it wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// The host_name of the server_name extension in lower case without a final dot. `None` where
    /// it is absent, and where it is an IP address, which RFC 6066 §3 does not allow there.
    pub server_name: Option<Box<str>>,
    /// The protocol name list as it came: each name after a byte with its length.
    alpn: Box<[u8]>,
}

impl ClientHello {
    /// The application protocols that the client offers, in its order. RFC 7301 §3.1.
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> {
        let mut list = Bytes(&self.alpn);
        std::iter::from_fn(move || list.prefixed_u8())
    }

    /// Whether the client offers this application protocol.
    #[must_use]
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.alpn().any(|name| name == protocol)
    }
}

/// Looks at the first bytes of a connection, all of them from its beginning.
///
/// Takes nothing and remembers nothing: call it again with more bytes after [`Peek::NeedMore`].
/// The work is bounded by [`MAX_CLIENT_HELLO`]; while a record is incomplete only its header is
/// read. RFC 8446 §4.1.2 and §5.1, RFC 6066 §3, RFC 7301 §3.1.
#[must_use]
pub fn peek_client_hello(input: &[u8]) -> Peek {
    match hello_message(input) {
        Ok(Message::Whole(message)) => parse(message),
        Ok(Message::Spread(message)) => parse(&message),
        Err(peek) => peek,
    }
}

/// The body of the ClientHello message.
enum Message<'a> {
    /// In one record.
    Whole(&'a [u8]),
    /// Put together from several.
    Spread(Vec<u8>),
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Type and 24-bit length of a handshake message.
const MESSAGE_HEADER: usize = 4;
/// RFC 8446 §5.1: TLSPlaintext.length.
const MAX_FRAGMENT: usize = 16 * 1024;

fn hello_message(input: &[u8]) -> Result<Message<'_>, Peek> {
    let first = record(input)?;
    if let Some(&kind) = first.bytes.first()
        && kind != CLIENT_HELLO
    {
        return Err(Peek::NotTls);
    }
    let len = message_len(first.bytes)?;
    if !first.is_whole {
        return Err(Peek::NeedMore);
    }
    if let Some(len) = len
        && let Some((message, after)) =
            first.bytes.get(MESSAGE_HEADER..).and_then(|rest| rest.split_at_checked(len))
    {
        // RFC 8446 §5.1 lets messages share a record, but nothing may follow a ClientHello before
        // the server's answer.
        return if after.is_empty() { Ok(Message::Whole(message)) } else { Err(Peek::Malformed) };
    }
    spread(first.bytes, first.rest)
}

/// Collects a message that goes on in further records.
fn spread(first: &[u8], mut rest: &[u8]) -> Result<Message<'static>, Peek> {
    let mut message = first.to_vec();
    for _ in 1..MAX_HELLO_RECORDS {
        let next = record(rest)?;
        if !next.is_whole {
            return Err(Peek::NeedMore);
        }
        message.extend_from_slice(next.bytes);
        rest = next.rest;
        if let Some(len) = message_len(&message)? {
            let end = MESSAGE_HEADER + len;
            if message.len() > end {
                return Err(Peek::Malformed);
            }
            if message.len() == end {
                message.drain(..MESSAGE_HEADER);
                return Ok(Message::Spread(message));
            }
        }
    }
    Err(Peek::TooLong)
}

/// The length in a handshake message's header, once it is there.
fn message_len(bytes: &[u8]) -> Result<Option<usize>, Peek> {
    let &[_, high, middle, low, ..] = bytes else { return Ok(None) };
    let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    if len > MAX_CLIENT_HELLO { Err(Peek::TooLong) } else { Ok(Some(len)) }
}

/// A handshake record, perhaps cut short by the end of input.
struct Record<'a> {
    bytes: &'a [u8],
    is_whole: bool,
    rest: &'a [u8],
}

fn record(input: &[u8]) -> Result<Record<'_>, Peek> {
    if input.first().is_some_and(|&kind| kind != HANDSHAKE) || input.get(1).is_some_and(|&major| major != 3) {
        return Err(Peek::NotTls);
    }
    let &[_, _, _, high, low, ref rest @ ..] = input else { return Err(Peek::NeedMore) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    // RFC 8446 §5.1: no handshake record is empty, none is above 2^14.
    if len == 0 || len > MAX_FRAGMENT {
        return Err(Peek::Malformed);
    }
    Ok(match rest.split_at_checked(len) {
        Some((bytes, rest)) => Record { bytes, is_whole: true, rest },
        None => Record { bytes: rest, is_whole: false, rest: &[] },
    })
}

fn parse(message: &[u8]) -> Peek {
    match client_hello(&mut Bytes(message)) {
        Some(hello) => Peek::Hello(hello),
        None => Peek::Malformed,
    }
}

/// RFC 8446 §4.1.2. `None` where a length does not fit or an extension that we read stands twice.
fn client_hello(bytes: &mut Bytes<'_>) -> Option<ClientHello> {
    bytes.take(2 + 32)?; // legacy_version, random
    bytes.prefixed_u8()?; // legacy_session_id
    bytes.prefixed_u16()?; // cipher_suites
    bytes.prefixed_u8()?; // legacy_compression_methods
    let mut hello = ClientHello::default();
    if bytes.0.is_empty() {
        // RFC 5246 §7.4.1.2: a client may send no extensions at all.
        return Some(hello);
    }
    let mut extensions = Bytes(bytes.prefixed_u16()?);
    if !bytes.0.is_empty() {
        return None;
    }
    let (mut has_name, mut has_alpn) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = Bytes(extensions.prefixed_u16()?);
        // RFC 8446 §4.2: no extension stands twice. Whoever reads the first of two names and
        // whoever reads the second would route differently.
        match kind {
            EXTENSION_SERVER_NAME if !has_name => {
                has_name = true;
                hello.server_name = server_name(data)?;
            }
            EXTENSION_ALPN if !has_alpn => {
                has_alpn = true;
                hello.alpn = protocol_names(data)?.into();
            }
            EXTENSION_SERVER_NAME | EXTENSION_ALPN => return None,
            _ => {}
        }
    }
    Some(hello)
}

const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST_NAME: u8 = 0;

/// RFC 6066 §3. The outer `None` refuses, the inner one says that there is no usable name.
fn server_name(mut data: Bytes<'_>) -> Option<Option<Box<str>>> {
    let mut list = Bytes(data.prefixed_u16()?);
    if !data.0.is_empty() || list.u8()? != NAME_TYPE_HOST_NAME {
        return None;
    }
    let name = list.prefixed_u16()?;
    // "The ServerNameList MUST NOT contain more than one name of the same name_type", and no
    // other name_type was ever defined.
    if !list.0.is_empty() {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?;
    if IpAddr::try_from(name).is_ok() {
        return Some(None);
    }
    DnsName::try_from(name).ok()?;
    Some(Some(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()))
}

/// RFC 7301 §3.1: a list of at least one name, none of them empty.
fn protocol_names(mut data: Bytes<'_>) -> Option<&[u8]> {
    let list = data.prefixed_u16()?;
    let mut names = Bytes(list);
    while !names.0.is_empty() {
        names.prefixed_u8().filter(|name| !name.is_empty())?;
    }
    Some(list).filter(|list| !list.is_empty() && data.0.is_empty())
}

/// Reads from the front of a slice; every method yields `None` where the bytes do not suffice.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn prefixed_u8(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    fn prefixed_u16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn u16_prefixed(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &u16_prefixed(data)].concat()
    }

    fn sni(name: &[u8]) -> Vec<u8> {
        extension(0, &u16_prefixed(&[&[0][..], &u16_prefixed(name)].concat()))
    }

    fn alpn(names: &[&[u8]]) -> Vec<u8> {
        let list: Vec<u8> =
            names.iter().flat_map(|name| [&[u8::try_from(name.len()).unwrap()][..], name].concat()).collect();
        extension(16, &u16_prefixed(&list))
    }

    /// A ClientHello message with its header; `None` leaves even the list of extensions out.
    fn message(extensions: Option<&[Vec<u8>]>) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 2, 0x13, 0x01, 1, 0]);
        if let Some(extensions) = extensions {
            body.extend(u16_prefixed(&extensions.concat()));
        }
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1][..], &len[1..], &body].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &u16_prefixed(part)].concat()).collect()
    }

    fn hello(server_name: Option<&str>, names: &[&[u8]]) -> Peek {
        let list: Vec<u8> =
            names.iter().flat_map(|name| [&[u8::try_from(name.len()).unwrap()][..], name].concat()).collect();
        Peek::Hello(ClientHello { server_name: server_name.map(Into::into), alpn: list.into() })
    }

    fn cases() -> Vec<(&'static str, Vec<u8>, Peek)> {
        let padding = extension(21, &[0; 1500]);
        let one = |extensions: &[Vec<u8>]| records(&message(Some(extensions)), MAX_FRAGMENT);
        let two_names = [&[0][..], &u16_prefixed(b"a.test"), &[0], &u16_prefixed(b"b.test")].concat();
        let mut trailing = message(Some(&[]));
        trailing.push(0);
        trailing[3] += 1;
        let mut followed = message(Some(&[]));
        followed.extend([1, 0, 0, 0]);
        vec![
            ("nothing", vec![], Peek::NeedMore),
            ("type only", vec![22], Peek::NeedMore),
            ("header only", vec![22, 3, 1, 2, 0], Peek::NeedMore),
            ("name", one(&[sni(b"A.Test")]), hello(Some("a.test"), &[])),
            ("name with final dot", one(&[sni(b"a.test.")]), hello(Some("a.test"), &[])),
            (
                "name and protocols",
                one(&[padding.clone(), sni(b"a.test"), alpn(&[b"h2", b"http/1.1"])]),
                hello(Some("a.test"), &[b"h2", b"http/1.1"]),
            ),
            ("no name", one(&[alpn(&[b"h2"])]), hello(None, &[b"h2"])),
            ("no extensions", records(&message(None), MAX_FRAGMENT), hello(None, &[])),
            ("address as name", one(&[sni(b"192.0.2.1")]), hello(None, &[])),
            ("address as name, 6", one(&[sni(b"2001:db8::1")]), hello(None, &[])),
            (
                "spread over records",
                records(&message(Some(&[padding.clone(), sni(b"a.test")])), 100),
                hello(Some("a.test"), &[]),
            ),
            ("header spread", records(&message(Some(&[sni(b"a.test")])), 3), hello(Some("a.test"), &[])),
            ("too many records", records(&message(Some(&[padding, sni(b"a.test")])), 10), Peek::TooLong),
            ("too long", vec![22, 3, 1, 0, 6, 1, 0, 0x40, 1, 0, 0], Peek::TooLong),
            ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Peek::NotTls),
            ("SSL 2", vec![0x80, 0x2e, 1, 0, 2], Peek::NotTls),
            ("version", vec![22, 2, 0, 0, 4], Peek::NotTls),
            ("alert", vec![21, 3, 3, 0, 2, 1, 0], Peek::NotTls),
            ("server hello", vec![22, 3, 3, 0, 4, 2, 0, 0, 0], Peek::NotTls),
            ("empty record", vec![22, 3, 1, 0, 0], Peek::Malformed),
            ("record too long", vec![22, 3, 1, 0x40, 1], Peek::Malformed),
            ("trailing bytes", records(&trailing, MAX_FRAGMENT), Peek::Malformed),
            ("second message", records(&followed, MAX_FRAGMENT), Peek::Malformed),
            ("name twice", one(&[sni(b"a.test"), sni(b"b.test")]), Peek::Malformed),
            ("two names", one(&[extension(0, &u16_prefixed(&two_names))]), Peek::Malformed),
            ("protocols twice", one(&[alpn(&[b"h2"]), alpn(&[b"h2"])]), Peek::Malformed),
            ("empty name", one(&[sni(b"")]), Peek::Malformed),
            ("name not a hostname", one(&[sni(b"a b")]), Peek::Malformed),
            ("name with zero byte", one(&[sni(b"a.test\0.evil")]), Peek::Malformed),
            ("empty name list", one(&[extension(0, &[0, 0])]), Peek::Malformed),
            ("other name type", one(&[extension(0, &[0, 4, 1, 0, 1, b'a'])]), Peek::Malformed),
            ("empty protocol", one(&[extension(16, &[0, 1, 0])]), Peek::Malformed),
            ("no protocols", one(&[extension(16, &[0, 0])]), Peek::Malformed),
            ("extension cut", one(&[vec![0, 0, 0, 9, 1]]), Peek::Malformed),
        ]
    }

    #[test]
    fn client_hellos_are_told_apart() {
        for (what, bytes, expected) in cases() {
            assert_eq!(peek_client_hello(&bytes), expected, "{what}");
        }
    }

    #[test]
    fn offers_are_found_by_name() {
        let bytes = records(&message(Some(&[alpn(&[b"h2", b"http/1.1"])])), MAX_FRAGMENT);
        let Peek::Hello(hello) = peek_client_hello(&bytes) else { panic!() };
        assert!(hello.offers(b"h2") && hello.offers(b"http/1.1") && !hello.offers(b"http"));
    }

    #[test]
    fn a_beginning_asks_for_more_or_gives_the_final_answer() {
        for (what, bytes, expected) in cases() {
            let mut answered = None;
            for end in 0..=bytes.len() {
                let peek = peek_client_hello(&bytes[..end]);
                if let Some(answer) = &answered {
                    assert_eq!(&peek, answer, "{what}: changed its mind at {end}");
                } else if peek != Peek::NeedMore {
                    answered = Some(peek);
                }
            }
            assert_eq!(answered.unwrap_or(Peek::NeedMore), expected, "{what}");
        }
    }

    #[test]
    fn what_follows_the_hello_does_not_matter() {
        for (what, mut bytes, expected) in cases() {
            if matches!(expected, Peek::Hello(_)) {
                bytes.extend([20, 3, 3, 0, 1, 1]);
                assert_eq!(peek_client_hello(&bytes), expected, "{what}");
            }
        }
    }

    #[test]
    fn mangled_hellos_never_panic_and_names_stay_hostnames() {
        let cases = cases();
        for seed in 0..20_000 {
            let mut rng = Rng::new(seed);
            let mut bytes = cases[rng.up_to(cases.len()) - 1].1.clone();
            for _ in 0..rng.up_to(6) {
                if bytes.is_empty() {
                    break;
                }
                let at = rng.up_to(bytes.len()) - 1;
                match rng.up_to(3) {
                    1 => bytes[at] = rng.bytes(1)[0],
                    2 => bytes.truncate(at),
                    _ => drop(bytes.splice(at..at, rng.clone().bytes(3))),
                }
            }
            if let Peek::Hello(hello) = peek_client_hello(&bytes) {
                assert!(hello.alpn().all(|name| !name.is_empty()));
                if let Some(name) = hello.server_name {
                    assert!(DnsName::try_from(&*name).is_ok(), "seed {seed}: {name:?}");
                    assert_eq!(*name, name.to_ascii_lowercase());
                }
            }
        }
    }
}
