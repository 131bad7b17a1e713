//! Fields that a gateway adds to what it forwards, and takes away from clients that may not set them.

use std::net::IpAddr;

use rhumb_codec::field::{Fields, Known, KnownSet};
use rhumb_codec::head::{RequestHead, ResponseHead, Scheme, Version};
use rhumb_plan::PortSettings;
use rhumb_telemetry::TraceContext;

/// Longest `X-Forwarded-For` that is read and carried on, in bytes; more of it is a client's invention.
const FORWARDED_FOR_MAX: usize = 2 << 10;

const VIA_11: &[u8] = b"1.1 rhumb";
const VIA_10: &[u8] = b"1.0 rhumb";
const VIA_2: &[u8] = b"2 rhumb";

/// What only a trusted proxy may say about a client.
const CLAIMS: KnownSet = KnownSet::of(&[
    Known::Forwarded,
    Known::Traceparent,
    Known::Tracestate,
    Known::XForwardedClientCert,
    Known::XForwardedFor,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedPrefix,
    Known::XForwardedProto,
    Known::XRealIp,
    Known::XRequestDeadline,
    Known::XRequestId,
    Known::XRhumbRetriesLeft,
    Known::XUserToken,
]);

/// What a connection knows about its client.
pub(crate) struct Client<'a> {
    pub(crate) address: IpAddr,
    pub(crate) address_text: &'a str,
    pub(crate) port: u16,
    pub(crate) scheme: Scheme,
    pub(crate) is_trusted: bool,
}

/// The client's own address: the peer's, or what trusted proxies say (RFC 7239 §5.2 and its X- ancestors). Reads the
/// list from the right and takes the first address that no trusted proxy has.
pub(crate) fn client_address(req: &RequestHead, client: &Client<'_>, settings: &PortSettings) -> IpAddr {
    if !client.is_trusted {
        return client.address;
    }
    let mut nearest = client.address;
    let mut lines: Vec<&[u8]> = req.fields.get_all(Known::XForwardedFor).collect();
    lines.reverse();
    for item in lines.iter().flat_map(|line| line.rsplit(|&b| b == b',')) {
        let Some(address) =
            std::str::from_utf8(item.trim_ascii()).ok().and_then(|text| text.parse::<IpAddr>().ok())
        else {
            break;
        };
        nearest = address;
        if !settings.trusts(address) {
            break;
        }
    }
    nearest
}

/// Removes what an untrusted client claims; true when there was something.
pub(crate) fn strip_claims(fields: &mut Fields) -> bool {
    // Names that begin so but are not in the set are nobody's standard, and just as much a claim.
    let known = fields.remove_set(CLAIMS);
    fields.remove_prefixed(b"x-forwarded-") || known
}

/// The same for a member of the mesh that calls without a proxy: the token of an end user is signed, and proves itself.
pub(crate) fn strip_claims_of_member(fields: &mut Fields) -> bool {
    let token = fields.get_only(Known::XUserToken).map(<[u8]>::to_vec);
    let stripped = strip_claims(fields);
    if let Some(token) = token {
        fields.append(Known::XUserToken, &token);
    }
    stripped
}

/// Sets the forwarding fields of a request (gateways.md §5.5).
pub(crate) fn forward(
    req: &mut RequestHead,
    client: &Client<'_>,
    settings: &PortSettings,
    trace: &TraceContext,
    request_id: &str,
) {
    let is_trusted = client.is_trusted;
    let peer = client.address_text.as_bytes();
    if is_trusted && req.fields.has(Known::XForwardedFor) {
        let mut list = Vec::with_capacity(128);
        for line in req.fields.get_all(Known::XForwardedFor) {
            if !list.is_empty() {
                list.extend_from_slice(b", ");
            }
            list.extend_from_slice(line);
        }
        if list.len() > FORWARDED_FOR_MAX {
            // The right end was written by the nearest proxies.
            let cut = list.len() - FORWARDED_FOR_MAX;
            list.drain(..cut);
            let item = list.iter().position(|&b| b == b',').map_or(0, |comma| comma + 1);
            list.drain(..item);
        }
        list.extend_from_slice(b", ");
        list.extend_from_slice(peer);
        req.fields.set(Known::XForwardedFor, list.trim_ascii_start());
    } else {
        req.fields.append(Known::XForwardedFor, peer);
    }
    if !(is_trusted && req.fields.has(Known::XForwardedProto)) {
        req.fields.append(Known::XForwardedProto, client.scheme.as_str().as_bytes());
    }
    if !(is_trusted && req.fields.has(Known::XForwardedHost)) {
        append_authority(req, Known::XForwardedHost);
    }
    if !(is_trusted && req.fields.has(Known::XForwardedPort)) {
        let mut digits = [0; 5];
        req.fields.append(Known::XForwardedPort, decimal(client.port, &mut digits));
    }
    if settings.forwarded {
        append_forwarded(req, client);
    }
    if !req.fields.has(Known::Traceparent) {
        req.fields.append(Known::Traceparent, &trace.to_bytes());
    }
    req.fields.set(Known::XRequestId, request_id.as_bytes());
    req.fields.append(Known::Via, via(req.version));
}

/// Sets the fields of a request that travels between workloads: the mesh is no intermediary that anybody has to know of.
pub(crate) fn forward_inside(req: &mut RequestHead, trace: &TraceContext, request_id: &str) {
    if !req.fields.has(Known::Traceparent) {
        req.fields.append(Known::Traceparent, &trace.to_bytes());
    }
    req.fields.set(Known::XRequestId, request_id.as_bytes());
}

fn append_authority(req: &mut RequestHead, name: Known) {
    // The authority lies in the same arena as the fields: a line that points to it costs no copy.
    let span = req.received_authority_span();
    if !span.is_empty() {
        req.fields.append_spans(name, rhumb_codec::field::Span::default(), span);
    }
}

/// Appends an element to Forwarded (RFC 7239 §4).
fn append_forwarded(req: &mut RequestHead, client: &Client<'_>) {
    let mut element = [0u8; 512];
    let mut len = 0;
    let mut push = |bytes: &[u8]| {
        if let Some(room) = element.get_mut(len..len + bytes.len()) {
            room.copy_from_slice(bytes);
        }
        len += bytes.len();
    };
    if client.address.is_ipv4() {
        push(b"for=");
        push(client.address_text.as_bytes());
    } else {
        // RFC 7239 §6.1: an IPv6 address is bracketed and quoted.
        push(b"for=\"[");
        push(client.address_text.as_bytes());
        push(b"]\"");
    }
    push(b";proto=");
    push(client.scheme.as_str().as_bytes());
    let authority = req.received_authority();
    if !authority.is_empty() {
        push(b";host=\"");
        push(authority);
        push(b"\"");
    }
    // An authority that does not fit is absurd: then nothing is said rather than half of it.
    let Some(element) = element.get(..len) else { return };
    req.fields.append(Known::Forwarded, element);
}

/// Fields that every response gets.
pub(crate) fn finish_response(rsp: &mut ResponseHead, request_id: &str, unix_seconds: u64) {
    if !rsp.fields.has(Known::Date) {
        crate::date::with_date(unix_seconds, |date| rsp.fields.append(Known::Date, date));
    }
    rsp.fields.append(Known::Via, via(rsp.version));
    rsp.fields.set(Known::XRequestId, request_id.as_bytes());
}

fn via(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => VIA_10,
        Version::Http11 => VIA_11,
        Version::Http2 => VIA_2,
    }
}

fn decimal(mut n: u16, digits: &mut [u8; 5]) -> &[u8] {
    let mut at = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (n % 10) as u8;
        n /= 10;
        at -= 1;
        if n == 0 {
            break;
        }
    }
    digits.get(at..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(is_trusted: bool) -> Client<'static> {
        Client {
            address: [10, 0, 0, 9].into(),
            address_text: "10.0.0.9",
            port: 8080,
            scheme: Scheme::Http,
            is_trusted,
        }
    }

    fn settings() -> PortSettings {
        PortSettings { trusted_proxies: ["10.0.0.0/8".parse().unwrap()].into(), ..PortSettings::default() }
    }

    fn request() -> RequestHead {
        let mut req = RequestHead::new();
        req.set_authority(b"a.example");
        req.fields.append(Known::XForwardedFor, b"1.1.1.1, 192.0.2.7");
        req.fields.append(Known::XForwardedFor, b"10.0.0.3");
        req.fields.append(Known::XForwardedProto, b"https");
        req.fields.append_raw(Known::Other, b"X-Forwarded-User", b"root");
        req
    }

    #[test]
    fn the_client_is_the_first_address_that_is_not_trusted() {
        assert_eq!(client_address(&request(), &client(true), &settings()), IpAddr::from([192, 0, 2, 7]));
        assert_eq!(client_address(&request(), &client(false), &settings()), IpAddr::from([10, 0, 0, 9]));
    }

    #[test]
    fn claims_of_strangers_are_removed_and_those_of_proxies_extended() {
        let trace = TraceContext { trace_id: [1; 16], parent_id: [2; 8], flags: 1 };
        let mut req = request();
        forward(&mut req, &client(true), &settings(), &trace, "id");
        assert_eq!(
            req.fields.get_only(Known::XForwardedFor),
            Some(&b"1.1.1.1, 192.0.2.7, 10.0.0.3, 10.0.0.9"[..])
        );
        assert_eq!(req.fields.get_only(Known::XForwardedProto), Some(&b"https"[..]));
        let mut req = request();
        assert!(strip_claims(&mut req.fields));
        forward(&mut req, &client(false), &settings(), &trace, "id");
        assert_eq!(req.fields.get_only(Known::XForwardedFor), Some(&b"10.0.0.9"[..]));
        assert_eq!(req.fields.get_only(Known::XForwardedProto), Some(&b"http"[..]));
        assert_eq!(req.fields.get_only(Known::XForwardedHost), Some(&b"a.example"[..]));
        assert_eq!(req.fields.get_only(Known::XForwardedPort), Some(&b"8080"[..]));
        assert_eq!(
            req.fields.get_only(Known::Forwarded),
            Some(&b"for=10.0.0.9;proto=http;host=\"a.example\""[..])
        );
        assert_eq!(req.fields.get_only(Known::Via), Some(&b"1.1 rhumb"[..]));
        assert!(!format!("{:?}", req.fields).contains("root"));
    }
}
