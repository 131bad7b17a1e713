//! The PROXY protocol, versions 1 and 2: how a load balancer tells the address of its client before the first byte.
//!
//! Specified by HAProxy's `proxy-protocol.txt` (2020/03/05 and later), cited by section. Reading is strict: whoever
//! sends a header is trusted to tell the truth, so whatever is not exactly one is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, its line break included (§2.1). Unit: bytes.
pub const MAX_V1: usize = 107;

/// The longest header of version 2 that is taken, with all of its TLVs. Unit: bytes.
pub const MAX_V2: usize = 4096;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The connection is the load balancer's own, such as a health check (§2.2, `LOCAL`).
    Local,
    /// The load balancer does not know, or has something other than TCP over IP in front of it.
    Unknown,
    /// A client's TCP connection.
    Tcp {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// Neither version begins so.
    #[error("no PROXY protocol header")]
    NoHeader,
    /// A line of version 1 that is too long or does not have its form.
    #[error("malformed PROXY protocol header of version 1")]
    V1,
    /// A header of version 2 that is too long or does not have its form.
    #[error("malformed PROXY protocol header of version 2")]
    V2,
    /// The checksum of a header of version 2 does not fit.
    #[error("PROXY protocol header with a wrong checksum")]
    Checksum,
}

impl InvalidHeader {
    /// The word in metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoHeader => "no_header",
            Self::V1 => "malformed_v1",
            Self::V2 => "malformed_v2",
            Self::Checksum => "wrong_checksum",
        }
    }
}

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_HEAD: usize = 16;
/// §2.2.3: the TLV that has a CRC32c of the whole header.
const TLV_CRC32C: u8 = 3;

/// Reads a header from the beginning of a connection: its length and what it says. `None` while it is not whole: every
/// byte of `input` then belongs to it.
///
/// # Errors
/// See [`InvalidHeader`]; nothing of the connection can be used then.
pub fn parse(input: &[u8]) -> Result<Option<(usize, Header)>, InvalidHeader> {
    if is_start(input, V1_START) {
        return parse_v1(input);
    }
    if is_start(input, V2_START) {
        return parse_v2(input);
    }
    Err(InvalidHeader::NoHeader)
}

/// True when `input` begins like `start`, as far as both go.
fn is_start(input: &[u8], start: &[u8]) -> bool {
    input.iter().zip(start).all(|(a, b)| a == b)
}

fn parse_v1(input: &[u8]) -> Result<Option<(usize, Header)>, InvalidHeader> {
    let window = input.get(..MAX_V1).unwrap_or(input);
    let Some(end) = window.iter().position(|&byte| byte == b'\r') else {
        return if window.len() < MAX_V1 { Ok(None) } else { Err(InvalidHeader::V1) };
    };
    match window.get(end + 1) {
        None if window.len() < MAX_V1 => return Ok(None),
        Some(b'\n') => {}
        _ => return Err(InvalidHeader::V1),
    }
    let line = window.get(V1_START.len()..end).and_then(|line| std::str::from_utf8(line).ok());
    let header = line.and_then(v1_line).ok_or(InvalidHeader::V1)?;
    Ok(Some((end + 2, header)))
}

/// What follows `PROXY `.
fn v1_line(line: &str) -> Option<Header> {
    // §2.1: what follows UNKNOWN is ignored.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(Header::Unknown);
    }
    let mut words = line.split(' ');
    let family = words.next()?;
    let (source, destination) = match family {
        "TCP4" => {
            let (source, destination): (Ipv4Addr, Ipv4Addr) =
                (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            (IpAddr::from(source), IpAddr::from(destination))
        }
        "TCP6" => {
            let (source, destination): (Ipv6Addr, Ipv6Addr) =
                (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            (IpAddr::from(source), IpAddr::from(destination))
        }
        _ => return None,
    };
    let (source_port, destination_port) = (v1_port(words.next()?)?, v1_port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    Some(Header::Tcp {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// §2.1: decimal digits without leading zeros.
fn v1_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn parse_v2(input: &[u8]) -> Result<Option<(usize, Header)>, InvalidHeader> {
    let Some(&[command, family, high, low]) =
        input.get(V2_START.len()..V2_HEAD).and_then(|head| head.first_chunk::<4>())
    else {
        // What is wrong already need not be waited for.
        return match input.get(V2_START.len()) {
            Some(command) if !matches!(command, 0x20 | 0x21) => Err(InvalidHeader::V2),
            _ => Ok(None),
        };
    };
    let len = V2_HEAD + usize::from(u16::from_be_bytes([high, low]));
    // §2.2: version 2, and LOCAL or PROXY; "receivers must drop connections presenting unexpected values here".
    if !matches!(command, 0x20 | 0x21) || len > MAX_V2 {
        return Err(InvalidHeader::V2);
    }
    let Some(whole) = input.get(..len) else { return Ok(None) };
    let body = whole.get(V2_HEAD..).unwrap_or_default();
    let addresses = match family {
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        // §2.2: UNSPEC. Its addresses, if there are any, cannot be told from TLVs.
        0x00 => return Ok(Some((len, if command == 0x20 { Header::Local } else { Header::Unknown }))),
        _ => return Err(InvalidHeader::V2),
    };
    if command == 0x20 {
        // §2.2: "the receiver must accept this connection as valid and must use the real connection endpoints and
        // discard the protocol block including the family which is ignored".
        return Ok(Some((len, Header::Local)));
    }
    let (addresses, tlvs) = body.split_at_checked(addresses).ok_or(InvalidHeader::V2)?;
    check_tlvs(whole, tlvs)?;
    let header = match family {
        0x11 => v2_addresses::<4>(addresses).map(|(source, destination)| (source.into(), destination.into())),
        0x21 => {
            v2_addresses::<16>(addresses).map(|(source, destination)| (source.into(), destination.into()))
        }
        _ => return Ok(Some((len, Header::Unknown))),
    };
    let (source, destination): (IpAddr, IpAddr) = header.ok_or(InvalidHeader::V2)?;
    let Some(&[a, b, c, d]) = addresses.last_chunk::<4>() else { return Err(InvalidHeader::V2) };
    let (source_port, destination_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let header = Header::Tcp {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    };
    Ok(Some((len, header)))
}

fn v2_addresses<const N: usize>(block: &[u8]) -> Option<([u8; N], [u8; N])> {
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, _) = rest.split_first_chunk::<N>()?;
    Some((*source, *destination))
}

/// Each TLV must end where its length says; the checksum, where there is one, must fit (§2.2.3).
fn check_tlvs(whole: &[u8], mut tlvs: &[u8]) -> Result<(), InvalidHeader> {
    while !tlvs.is_empty() {
        let Some((&[kind, high, low], rest)) = tlvs.split_first_chunk::<3>() else {
            return Err(InvalidHeader::V2);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (value, after) = rest.split_at_checked(len).ok_or(InvalidHeader::V2)?;
        if kind == TLV_CRC32C {
            let written: &[u8; 4] = value.try_into().map_err(|_| InvalidHeader::V2)?;
            let at = whole.len() - rest.len();
            // "with the checksum field itself set to zeros"
            let bytes = whole.iter().enumerate().map(
                |(index, &byte)| {
                    if (at..at + 4).contains(&index) { 0 } else { byte }
                },
            );
            if crc32c(bytes) != u32::from_be_bytes(*written) {
                return Err(InvalidHeader::Checksum);
            }
        }
        tlvs = after;
    }
    Ok(())
}

/// RFC 4960 appendix B, bit by bit: headers with a checksum are rare and short.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let crc = bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    });
    !crc
}

/// Writes a header for a connection of `source` to `destination` behind what is in `out`. `None` is a connection of our
/// own, such as a health check.
pub fn write(version: Version, addresses: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    let addresses = addresses.map(|(source, destination)| same_family(source, destination));
    match version {
        Version::V1 => match addresses {
            None => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
            Some((source, destination)) => {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (source.ip(), destination.ip());
                let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
                out.extend_from_slice(line.as_bytes());
            }
        },
        Version::V2 => {
            out.extend_from_slice(V2_START);
            match addresses {
                None => out.extend_from_slice(&[0x20, 0x00, 0, 0]),
                Some((source, destination)) => {
                    match (source.ip(), destination.ip()) {
                        (IpAddr::V4(from), IpAddr::V4(to)) => {
                            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
                            out.extend_from_slice(&from.octets());
                            out.extend_from_slice(&to.octets());
                        }
                        (from, to) => {
                            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
                            out.extend_from_slice(&to_v6(from).octets());
                            out.extend_from_slice(&to_v6(to).octets());
                        }
                    }
                    out.extend_from_slice(&source.port().to_be_bytes());
                    out.extend_from_slice(&destination.port().to_be_bytes());
                }
            }
        }
    }
}

/// Both addresses in one family, as the header has only one: IPv4 where both are, however they are written.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let (from, to) = match from.is_ipv4() == to.is_ipv4() {
        true => (from, to),
        false => (to_v6(from).into(), to_v6(to).into()),
    };
    (SocketAddr::new(from, source.port()), SocketAddr::new(to, destination.port()))
}

fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&V2_START[..], &[command, family], &len, body].concat()
    }

    const TCP4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdd, 0xd5, 0x01, 0xbb];

    fn client() -> Header {
        Header::Tcp {
            source: "192.0.2.1:56789".parse().unwrap(),
            destination: "198.51.100.1:443".parse().unwrap(),
        }
    }

    #[test]
    fn headers_are_read_to_their_last_byte() {
        let tcp6 = Header::Tcp {
            source: "[2001:db8::1]:1".parse().unwrap(),
            destination: "[2001:db8::2]:65535".parse().unwrap(),
        };
        let with_tlvs = [&TCP4[..], &[2, 0, 6], b"a.test", &[4, 0, 0]].concat();
        for (bytes, expected) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 56789 443\r\n".to_vec(), client()),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n".to_vec(), tcp6),
            (b"PROXY UNKNOWN\r\n".to_vec(), Header::Unknown),
            (b"PROXY UNKNOWN whatever that is\r\n".to_vec(), Header::Unknown),
            (v2(0x21, 0x11, &TCP4), client()),
            (v2(0x21, 0x11, &with_tlvs), client()),
            (v2(0x20, 0x00, &[]), Header::Local),
            (v2(0x20, 0x11, &TCP4), Header::Local),
            (v2(0x21, 0x00, &[1, 2, 3]), Header::Unknown),
            (v2(0x21, 0x12, &TCP4), Header::Unknown),
            (v2(0x21, 0x31, &[0; 216]), Header::Unknown),
        ] {
            let behind = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&behind), Ok(Some((bytes.len(), expected))), "{bytes:?}");
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} of {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_not_exactly_a_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1));
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56789\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56789 443 \r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.1 56789 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 056 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +56 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 1\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 1\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 1\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY UNKNOWN\rX",
            &long,
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line:?}");
        }
        for bytes in [
            v2(0x11, 0x11, &TCP4),
            v2(0x22, 0x11, &TCP4),
            v2(0x21, 0x13, &TCP4),
            v2(0x21, 0x11, &TCP4[..11]),
            v2(0x21, 0x21, &TCP4),
            v2(0x21, 0x11, &[&TCP4[..], &[2, 0]].concat()),
            v2(0x21, 0x11, &[&TCP4[..], &[2, 0, 5, 0]].concat()),
            v2(0x21, 0x11, &[0; MAX_V2]),
        ] {
            assert!(parse(&bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_checksum_is_verified() {
        // Known answer of the checksum itself (RFC 3720 appendix B.4).
        assert_eq!(crc32c([0; 32].into_iter()), 0x8A91_36AA);
        let mut header = v2(0x21, 0x11, &[&TCP4[..], &[TLV_CRC32C, 0, 4, 0, 0, 0, 0]].concat());
        let sum = crc32c(header.iter().copied()).to_be_bytes();
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum);
        assert_eq!(parse(&header), Ok(Some((header.len(), client()))));
        header[20] ^= 1;
        assert_eq!(parse(&header), Err(InvalidHeader::Checksum));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let pairs = [
            ("192.0.2.1:1", "192.0.2.2:2", "192.0.2.1:1", "192.0.2.2:2"),
            ("[::ffff:192.0.2.1]:1", "192.0.2.2:2", "192.0.2.1:1", "192.0.2.2:2"),
            ("[2001:db8::1]:1", "[::1]:2", "[2001:db8::1]:1", "[::1]:2"),
            ("[2001:db8::1]:1", "192.0.2.2:2", "[2001:db8::1]:1", "[::ffff:192.0.2.2]:2"),
        ];
        for (from, to, source, destination) in pairs {
            for version in [Version::V1, Version::V2] {
                let mut out = Vec::new();
                write(version, Some((from.parse().unwrap(), to.parse().unwrap())), &mut out);
                let expected = Header::Tcp {
                    source: source.parse().unwrap(),
                    destination: destination.parse().unwrap(),
                };
                assert_eq!(parse(&out), Ok(Some((out.len(), expected))), "{from} {to} {version:?}");
            }
        }
        for (version, expected) in [(Version::V1, Header::Unknown), (Version::V2, Header::Local)] {
            let mut out = Vec::new();
            write(version, None, &mut out);
            assert_eq!(parse(&out), Ok(Some((out.len(), expected))));
        }
    }
}
