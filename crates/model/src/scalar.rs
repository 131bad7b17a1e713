//! Texts and numbers with a form: names, hostnames, addresses, durations, sizes, HTTP tokens.

use crate::decode::{Complaint, Decode, Decoder, Defs, Whole, decode_text, text};
use crate::diag::Rule;
use crate::value::{Node, Value};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time;

const NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

macro_rules! as_str {
    ($($name:ident),*) => {
        $(
            impl $name {
                /// The text.
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl std::fmt::Display for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(&self.0)
                }
            }

            impl std::borrow::Borrow<str> for $name {
                fn borrow(&self) -> &str {
                    &self.0
                }
            }
        )*
    };
}

text! {
    /// The name of an object or of a section of one: lower-case labels joined by dots (RFC 1123).
    pub struct Name(Box<str>) as "name";
    parse parse_name;
    schema { "pattern": NAME_PATTERN, "minLength": 1, "maxLength": 253 }
}

text! {
    /// The name of a namespace: one lower-case label (RFC 1123).
    pub struct Namespace(Box<str>) as "namespace";
    parse parse_label;
    schema { "pattern": LABEL_PATTERN, "minLength": 1, "maxLength": 63 }
}

text! {
    /// The API group of a kind; empty for the core kinds of Kubernetes such as Secret.
    pub struct Group(Box<str>) as "group";
    parse parse_group;
    schema { "maxLength": 253 }
}

text! {
    /// The kind of an object, such as `Gateway`.
    pub struct KindName(Box<str>) as "kind";
    parse parse_kind;
    schema { "pattern": "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$", "minLength": 1, "maxLength": 63 }
}

text! {
    /// A hostname to match: `api.example.com`, or `*.example.com` for every name below it (RFC 1123).
    /// Lower case, no port, no address.
    pub struct Hostname(Box<str>) as "hostname";
    parse parse_hostname;
    schema {
        "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        "minLength": 1,
        "maxLength": 253
    }
}

text! {
    /// A hostname without wildcard (RFC 1123). Lower case, no port, no address.
    pub struct PreciseHostname(Box<str>) as "hostname";
    parse parse_precise_hostname;
    schema { "pattern": NAME_PATTERN, "minLength": 1, "maxLength": 253 }
}

text! {
    /// The name of an HTTP field (RFC 9110 §5.1), kept in lower case. Compared without case.
    pub struct FieldName(Box<str>) as "HTTP field name";
    parse parse_field_name;
    schema { "pattern": "^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$", "minLength": 1, "maxLength": 256 }
}

text! {
    /// The value of an HTTP field: visible ASCII, single spaces or tabs between words (RFC 9110 §5.5).
    pub struct FieldValue(Box<str>) as "HTTP field value";
    parse parse_field_value;
    schema { "minLength": 1, "maxLength": 4096 }
}

text! {
    /// A path or the start of one, such as `/users`: begins with `/`, in the form after normalisation (RFC 3986 §3.3).
    pub struct PathText(Box<str>) as "path";
    parse parse_path;
    schema { "pattern": "^/", "maxLength": 1024 }
}

text! {
    /// A length of time: whole numbers with units `h`, `m`, `s`, `ms`, largest first, such as `1h30m`, `15s` or
    /// `250ms` (GEP-2257).
    pub struct Duration(time::Duration) as "duration";
    parse parse_duration;
    schema { "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$" }
}

text! {
    /// A host and port: `example.com:80`, `10.0.0.1:80` or `[::1]:80`.
    pub struct HostPort((Box<str>, NonZeroU16)) as "host and port";
    parse parse_host_port;
    schema { "pattern": ":[0-9]+$" }
}

text! {
    /// An IP address and port to listen on: `127.0.0.1:9901` or `[::1]:9901`.
    pub struct SocketAddress(SocketAddr) as "IP address and port";
    parse parse_socket_address;
    schema { "pattern": ":[0-9]+$" }
}

text! {
    /// An IP address: `10.0.0.1` or `fd00::1`.
    pub struct IpAddress(IpAddr) as "IP address";
    parse parse_ip;
    schema { }
}

text! {
    /// A range of IP addresses: `10.0.0.0/8`, `fd00::/8`, or a single address.
    pub struct Cidr((IpAddr, u8)) as "range of addresses";
    parse parse_cidr;
    schema { }
}

as_str!(Name, Namespace, Group, KindName, Hostname, PreciseHostname, FieldName, FieldValue, PathText);

impl Hostname {
    /// True for `*.example.com`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }
}

impl Duration {
    /// The length of time.
    pub const fn get(&self) -> time::Duration {
        self.0
    }
}

impl HostPort {
    /// The host: a name or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.0.0
    }

    /// The port.
    pub const fn port(&self) -> NonZeroU16 {
        self.0.1
    }
}

impl SocketAddress {
    /// The address.
    pub const fn get(&self) -> SocketAddr {
        self.0
    }
}

impl IpAddress {
    /// The address.
    pub const fn get(&self) -> IpAddr {
        self.0
    }
}

impl Cidr {
    /// The first address of the range.
    pub const fn address(&self) -> IpAddr {
        self.0.0
    }

    /// How many leading bits are fixed.
    pub const fn prefix(&self) -> u8 {
        self.0.1
    }
}

/// A port of TCP, from 1 to 65535.
pub type Port = Whole<1, 65535>;

impl Port {
    /// As the number that sockets take.
    pub fn number(self) -> u16 {
        u16::try_from(self.get()).unwrap_or(u16::MAX)
    }
}

/// An amount of data: a whole number of bytes, or one with a unit `Ki`, `Mi`, `Gi` (powers of 1024) or `k`, `M`,
/// `G` (powers of 1000), such as `64Ki` or `10Mi`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ByteSize(u64);

impl ByteSize {
    /// That many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// In bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Decode for ByteSize {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Int(text) => match text.parse() {
                Ok(bytes) => Some(Self(bytes)),
                Err(_) => {
                    let diag = cx
                        .error(Rule::OutOfRange, node.span, format!("{} is out of range", node.shown()))
                        .why("an amount of data is at least 0 and fits 64 bits");
                    cx.push(diag);
                    None
                }
            },
            _ => decode_text(node, "amount of data", cx, parse_byte_size),
        }
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        defs.entry("ByteSize").or_insert_with(|| {
            json!({
                "description": "An amount of data: bytes, or with a unit, such as 64Ki or 10Mi.",
                "anyOf": [
                    { "type": "integer", "minimum": 0 },
                    { "type": "string", "pattern": "^[0-9]+(Ki|Mi|Gi|k|M|G)?$" }
                ]
            })
        });
        json!({ "$ref": "#/$defs/ByteSize" })
    }
}

fn parse_byte_size(text: &str) -> Result<ByteSize, Complaint> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(Complaint::new("write a number and `Ki`, `Mi` or `Gi`, such as `64Ki`")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .map(ByteSize)
        .ok_or_else(|| Complaint::new("write a number and `Ki`, `Mi` or `Gi`, such as `64Ki`"))
}

fn parse_name(text: &str) -> Result<Box<str>, Complaint> {
    check_labels(text, "a name", 253).map(|()| text.into())
}

fn parse_label(text: &str) -> Result<Box<str>, Complaint> {
    if text.contains('.') {
        return Err(Complaint::new(
            "a namespace is one label of at most 63 of `a-z`, `0-9` and `-`, without dots",
        ));
    }
    check_labels(text, "a namespace", 63).map(|()| text.into())
}

fn parse_group(text: &str) -> Result<Box<str>, Complaint> {
    if text.is_empty() {
        return Ok(text.into());
    }
    if text.contains('/') {
        return Err(Complaint::new(
            "a group is written without version, such as `gateway.networking.k8s.io`",
        ));
    }
    check_labels(text, "a group", 253).map(|()| text.into())
}

fn parse_kind(text: &str) -> Result<Box<str>, Complaint> {
    let bytes = text.as_bytes();
    let ok = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last() != Some(&b'-');
    if ok { Ok(text.into()) } else { Err(Complaint::new("a kind is a word such as `Gateway`")) }
}

/// Checks lower-case labels joined by dots (RFC 1123 §2.1).
fn check_labels(text: &str, what: &str, longest: usize) -> Result<(), Complaint> {
    if text.len() > longest {
        return Err(Complaint::new(format!(
            "{what} has at most {longest} characters, this has {}",
            text.len()
        )));
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.split('.').all(is_label) {
        return Ok(());
    }
    let complaint = Complaint::new(format!(
        "{what} consists of `a-z`, `0-9`, `-` and `.`, and each part starts and ends with a letter or digit"
    ));
    let tidy: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect::<String>()
        .split('.')
        .map(|label| label.trim_matches('-'))
        .filter(|label| !label.is_empty())
        .collect::<Vec<_>>()
        .join(".");
    Err(if tidy.is_empty() { complaint } else { complaint.fix(format!("for example `{tidy}`")) })
}

fn parse_hostname(text: &str) -> Result<Box<str>, Complaint> {
    let rest = text.strip_prefix("*.").unwrap_or(text);
    if text == "*" {
        return Err(Complaint::new("a wildcard stands for names below a domain, such as `*.example.com`")
            .fix("leave the hostname out to match every one"));
    }
    if rest.contains('*') {
        return Err(Complaint::new("`*` is allowed as the whole first label only")
            .fix("write `*.example.com`, or match the rest by a header match on `host`"));
    }
    check_hostname(rest).map(|()| text.into())
}

fn parse_precise_hostname(text: &str) -> Result<Box<str>, Complaint> {
    if text.contains('*') {
        return Err(Complaint::new("a wildcard is not allowed here").fix("write one full hostname"));
    }
    check_hostname(text).map(|()| text.into())
}

fn check_hostname(text: &str) -> Result<(), Complaint> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or(rest);
        return Err(Complaint::new("a hostname has no scheme, port or path").fix(format!("write `{host}`")));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(Complaint::new("an IP address is not allowed as a hostname (Gateway API)"));
    }
    if let Some((host, port)) = text.split_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(
            Complaint::new("a hostname has no port; the listener has it").fix(format!("write `{host}`"))
        );
    }
    if let Some((host, _)) = text.split_once('/') {
        return Err(Complaint::new("a hostname has no path; paths are matched by rules")
            .fix(format!("write `{host}`")));
    }
    if !text.is_ascii() {
        return Err(Complaint::new(
            "international names are written in their ASCII form (`xn--…`, RFC 5890)",
        ));
    }
    if text.split('.').any(|label| label.len() > 63) {
        return Err(Complaint::new("a label of a hostname has at most 63 characters"));
    }
    check_labels(text, "a hostname", 253)
}

/// The bytes of a token (RFC 9110 §5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                )
        })
}

fn parse_field_name(text: &str) -> Result<Box<str>, Complaint> {
    if text.len() > 256 {
        return Err(Complaint::new("a field name has at most 256 characters"));
    }
    if let Some(pseudo) = text.strip_prefix(':') {
        let fix = match pseudo {
            "authority" => "match the hostname instead",
            "path" => "match the path instead",
            "method" => "match the method instead",
            _ => "leave it out",
        };
        return Err(Complaint::new("pseudo-header fields cannot be named here").fix(fix));
    }
    if !is_token(text) {
        return Err(Complaint::new("a field name consists of letters, digits and `!#$%&'*+-.^_`|~`"));
    }
    Ok(text.to_ascii_lowercase().into())
}

fn parse_field_value(text: &str) -> Result<Box<str>, Complaint> {
    if text.len() > 4096 {
        return Err(Complaint::new("a field value has at most 4096 characters"));
    }
    if text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']) {
        return Err(Complaint::new("a field value does not start or end with a blank")
            .fix(format!("write `{}`", text.trim())));
    }
    if text.is_empty() || !text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return Err(Complaint::new(
            "a field value consists of visible ASCII characters and blanks between them",
        ));
    }
    Ok(text.into())
}

fn parse_path(text: &str) -> Result<Box<str>, Complaint> {
    if text.len() > 1024 {
        return Err(Complaint::new("a path has at most 1024 characters"));
    }
    if !text.starts_with('/') {
        return Err(Complaint::new("a path starts with `/`").fix(format!("write `/{text}`")));
    }
    if let Some((path, _)) = text.split_once(['?', '#']) {
        return Err(Complaint::new("a path has no query and no fragment")
            .fix(format!("write `{path}` and match the query by `queryParams`")));
    }
    if text.ends_with('*') {
        return Err(Complaint::new("a path is taken literally; a prefix needs no `*`")
            .fix(format!("use type `PathPrefix` with `{}`", prefix_of(text))));
    }
    if text.contains("//") {
        return Err(Complaint::new("requests are matched after `//` became `/`: this would never match")
            .fix("write single slashes"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Complaint::new(
            "requests are matched after `.` and `..` were removed: this would never match",
        ));
    }
    if text.contains("%2f") || text.contains("%2F") {
        return Err(Complaint::new("an escaped slash cannot be matched"));
    }
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let ok = match byte {
            b'%' => {
                rest.next().is_some_and(|byte| byte.is_ascii_hexdigit())
                    && rest.next().is_some_and(|byte| byte.is_ascii_hexdigit())
            }
            _ => byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte),
        };
        if !ok {
            return Err(Complaint::new(
                "a path consists of letters, digits, `-._~!$&'()*+,;=:@/` and `%` with two hexadecimal digits",
            ));
        }
    }
    Ok(text.into())
}

fn prefix_of(text: &str) -> &str {
    match text.trim_end_matches('*').trim_end_matches('/') {
        "" => "/",
        prefix => prefix,
    }
}

/// GEP-2257: up to four parts of up to five digits with a unit.
fn parse_duration(text: &str) -> Result<time::Duration, Complaint> {
    let wrong =
        || Complaint::new("write whole numbers with units `h`, `m`, `s` or `ms`, such as `1h30m` or `250ms`");
    let mut total = time::Duration::ZERO;
    let mut rest = text;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let unit_len = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(unit_len);
        let unit_ms: u64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            "" if after.is_empty() && digits > 0 && parts == 0 => {
                return Err(
                    wrong().fix(format!("write `{text}s` for seconds or `{text}ms` for milliseconds"))
                );
            }
            "d" => return Err(wrong().fix("write days in hours: one day is `24h`")),
            "us" | "ns" => return Err(wrong().fix("the smallest unit is `ms`")),
            "sec" | "secs" | "second" | "seconds" => return Err(wrong().fix(format!("write `{number}s`"))),
            "min" | "mins" | "minute" | "minutes" => return Err(wrong().fix(format!("write `{number}m`"))),
            "hour" | "hours" => return Err(wrong().fix(format!("write `{number}h`"))),
            "S" | "M" | "H" | "MS" | "Ms" => {
                return Err(wrong().fix(format!("write `{}`", text.to_lowercase())));
            }
            _ => return Err(wrong()),
        };
        parts += 1;
        if !(1..=5).contains(&digits) || parts > 4 {
            return Err(wrong());
        }
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total += time::Duration::from_millis(number * unit_ms);
        rest = after;
    }
    if parts == 0 { Err(wrong()) } else { Ok(total) }
}

fn parse_host_port(text: &str) -> Result<(Box<str>, NonZeroU16), Complaint> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or(rest);
        let (port, hint) = match scheme {
            "https" => (":443", " and add `tls: {}` to the backend"),
            _ => (":80", ""),
        };
        let port = if rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            ""
        } else {
            port
        };
        return Err(Complaint::new("an endpoint is host and port, without scheme or path")
            .fix(format!("write `{rest}{port}`{hint}")));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            rest.split_once("]:").ok_or_else(|| Complaint::new("write an IPv6 address as `[::1]:80`"))?
        }
        None => match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => {
                return Err(
                    Complaint::new("an IPv6 address stands in brackets").fix("write it as `[::1]:80`")
                );
            }
            Some(parts) => parts,
            None => {
                return Err(Complaint::new("the port is missing").fix(format!("for example `{text}:80`")));
            }
        },
    };
    if let Some((port, path)) = port.split_once('/') {
        return Err(Complaint::new("an endpoint has no path")
            .fix(format!("write `{host}:{port}` and a rewrite for `/{path}`")));
    }
    let port = port
        .parse::<NonZeroU16>()
        .map_err(|_| Complaint::new(format!("`{port}` is not a port: a port is from 1 to 65535")))?;
    let is_ip = host.parse::<IpAddr>().is_ok();
    let is_v6_text = text.starts_with('[');
    if is_v6_text && !is_ip {
        return Err(Complaint::new("in brackets stands an IPv6 address"));
    }
    if !is_ip {
        check_dns_name(host)?;
    }
    Ok((host.into(), port))
}

/// A name to ask DNS for: as a hostname, and `_` as in service names (RFC 2782).
fn check_dns_name(text: &str) -> Result<(), Complaint> {
    let looks_like_ip = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if looks_like_ip {
        return Err(Complaint::new("this is no IPv4 address: it has four numbers from 0 to 255"));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() <= 253 && name.split('.').all(is_label) {
        Ok(())
    } else {
        Err(Complaint::new("a host is an IP address or a DNS name"))
    }
}

fn parse_socket_address(text: &str) -> Result<SocketAddr, Complaint> {
    text.parse().map_err(|_| {
        let complaint = Complaint::new("write an IP address and a port, such as `127.0.0.1:9901`");
        match text.strip_prefix("localhost:") {
            Some(port) => complaint.fix(format!("write `127.0.0.1:{port}`")),
            None if text.starts_with(':') => {
                complaint.fix(format!("write `0.0.0.0{text}` for every address"))
            }
            None => complaint,
        }
    })
}

fn parse_ip(text: &str) -> Result<IpAddr, Complaint> {
    text.parse().map_err(|_| {
        let complaint = Complaint::new("write an address such as `10.0.0.1` or `fd00::1`");
        match text {
            "localhost" => complaint.fix("write `127.0.0.1`"),
            "*" => complaint.fix("write `0.0.0.0`, or `::` for IPv6 too"),
            _ => complaint,
        }
    })
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), Complaint> {
    let wrong = || Complaint::new("write a range such as `10.0.0.0/8`, or one address");
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => longest,
        Some(text) => match text.parse::<u8>() {
            Ok(prefix) if prefix <= longest => prefix,
            _ => return Err(Complaint::new(format!("the prefix length is from 0 to {longest}"))),
        },
    };
    let first = mask(address, prefix);
    if first != address {
        return Err(Complaint::new("the address has bits set beyond the prefix")
            .fix(format!("write `{first}/{prefix}`")));
    }
    Ok((address, prefix))
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & keep).into())
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & keep).into())
        }
    }
}

/// Checks the name of a DNS record to look up.
pub(crate) fn parse_dns_name(text: &str) -> Result<Box<str>, Complaint> {
    if text.contains(':') {
        return Err(Complaint::new("a name of SRV records has no port: the records carry it"));
    }
    check_dns_name(text).map(|()| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_gep_2257() {
        for (text, millis) in
            [("1h30m", 5_400_000), ("10s", 10_000), ("250ms", 250), ("0s", 0), ("1h1m1s1ms", 3_661_001)]
        {
            assert_eq!(Duration::parse(text).map(|d| d.get().as_millis()), Ok(millis), "{text}");
        }
        for text in ["", "10", "1d", "1.5s", "-1s", "123456s", "1h1h1h1h1h", "s", "1 s", "5us"] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes) in [("64Ki", 65536), ("10Mi", 10 << 20), ("1k", 1000), ("7", 7)] {
            assert_eq!(parse_byte_size(text).map(ByteSize::get), Ok(bytes), "{text}");
        }
        for text in ["", "Ki", "1.5Mi", "1KB", "99999999999Gi"] {
            assert!(parse_byte_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hostnames_are_names_and_nothing_else() {
        for text in ["example.com", "*.example.com", "a", "xn--bcher-kva.example"] {
            assert!(Hostname::parse(text).is_ok(), "{text}");
        }
        for (text, fix) in [
            ("https://example.com/x", Some("write `example.com`")),
            ("example.com:80", Some("write `example.com`")),
            ("Example.com", Some("for example `example.com`")),
            ("10.0.0.1", None),
            ("*", Some("leave the hostname out to match every one")),
            ("a.*.b", Some("write `*.example.com`, or match the rest by a header match on `host`")),
            ("bücher.example", None),
        ] {
            assert_eq!(Hostname::parse(text).map_err(|c| c.fix), Err(fix.map(str::to_owned)), "{text}");
        }
        assert!(PreciseHostname::parse("*.example.com").is_err());
    }

    #[test]
    fn endpoints_need_host_and_port() {
        for (text, host, port) in [
            ("a.b:80", "a.b", 80),
            ("10.0.0.1:8080", "10.0.0.1", 8080),
            ("[::1]:1", "::1", 1),
            ("_x.y:2", "_x.y", 2),
        ] {
            let parsed = HostPort::parse(text).expect(text);
            assert_eq!((parsed.host(), parsed.port().get()), (host, port));
        }
        for text in [
            "a",
            "a:0",
            "a:65536",
            "::1:80",
            "[a]:80",
            "http://a:80",
            "a:80/x",
            "300.1.1.1:80",
            ":80",
            "a b:1",
        ] {
            assert!(HostPort::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_must_not_have_bits_beyond_the_prefix() {
        assert!(Cidr::parse("10.0.0.0/8").is_ok());
        assert_eq!(Cidr::parse("10.0.0.1").map(|c| c.prefix()), Ok(32));
        assert_eq!(Cidr::parse("0.0.0.0/0").map(|c| c.prefix()), Ok(0));
        assert_eq!(Cidr::parse("10.0.0.1/8").map_err(|c| c.fix), Err(Some("write `10.0.0.0/8`".into())));
        for text in ["10.0.0.0/33", "fd00::/129", "x", "10.0.0.0/", "/8"] {
            assert!(Cidr::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_that_could_never_match_are_refused() {
        for text in ["/", "/a/b", "/a%20b", "/a;b=c", "/a/"] {
            assert!(PathText::parse(text).is_ok(), "{text}");
        }
        for text in
            ["", "a", "/a//b", "/a/../b", "/.", "/a%2fb", "/a?b", "/a#b", "/a/*", "/a b", "/%zz", "/%a"]
        {
            assert!(PathText::parse(text).is_err(), "{text}");
        }
    }
}
