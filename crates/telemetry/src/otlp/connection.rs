//! What a log record tells of a connection that was carried as it is: what the access log does, in OpenTelemetry's words where
//! its conventions have some.

use rhumb_codec::protobuf::Writer;

use super::{ERROR, INFO, Severity, WARN};
use crate::access_log::redact;
use crate::record::{Protocol, Record};
use crate::trace::{address_of, as_it_is, attribute, number, string};

/// One line for people.
pub(super) fn body(record: &Record<'_>) -> String {
    [record.protocol.as_str(), record.route, record.end].join(" ")
}

/// How bad its end was.
pub(super) fn severity(record: &Record<'_>) -> Severity {
    match (record.failure_side, record.end) {
        (Some("client"), _) => WARN,
        (Some(_), _) => ERROR,
        (None, "client_reset" | "backend_reset" | "access_denied") => WARN,
        (None, _) => INFO,
    }
}

pub(super) fn attributes(out: &mut Writer, record: &Record<'_>) {
    let transport: &[u8] = if record.protocol == Protocol::Udp { b"udp" } else { b"tcp" };
    string(out, "network.transport", transport);
    if record.protocol == Protocol::Tls {
        string(out, "network.protocol.name", b"tls");
    }
    if let Some(client) = record.client {
        string(out, "client.address", client.ip().to_string().as_bytes());
        if client.port() != 0 {
            number(out, "client.port", client.port().into());
        }
    }
    let server_name = record.tls.as_ref().map_or(&[][..], |tls| tls.sni);
    let mut told = Vec::new();
    let asked = if record.authority.is_empty() { server_name } else { record.authority };
    redact::authority(&mut told, as_it_is, asked);
    let (address, port) = address_of(&told);
    string(out, "server.address", address);
    if let Some(port) = port {
        number(out, "server.port", port.into());
    }
    if let Some(tls) = &record.tls {
        string(out, "tls.protocol.version", tls.version.as_bytes());
        string(out, "tls.cipher", tls.cipher.as_bytes());
        string(out, "tls.client.subject", tls.client_subject);
        string(out, "rhumb.tls.server_name", server_name);
    }
    string(out, "error.type", record.failure_code.unwrap_or_default().as_bytes());
    for (key, value) in [
        ("rhumb.end", record.end),
        ("rhumb.failure.side", record.failure_side.unwrap_or_default()),
        ("rhumb.listener", record.listener),
        ("rhumb.route", record.route),
        ("rhumb.backend", record.backend),
        ("rhumb.endpoint", record.endpoint),
        ("rhumb.principal", record.principal),
    ] {
        string(out, key, value.as_bytes());
    }
    string(out, "rhumb.request_id", record.request_id);
    if !record.notes.is_empty() {
        attribute(out, 9, "rhumb.notes", |any| {
            any.message(5, |list| {
                record
                    .notes
                    .iter()
                    .for_each(|note| list.message(1, |any| any.bytes(1, note.name().as_bytes())));
            });
        });
    }
    number(out, "rhumb.bytes_in", record.bytes_in);
    number(out, "rhumb.bytes_out", record.bytes_out);
    if let Some(connect) = record.timing.connect {
        number(out, "rhumb.connect_nanos", u64::try_from(connect.as_nanos()).unwrap_or(u64::MAX));
    }
    if record.tries > 0 {
        number(out, "rhumb.tries", record.tries.into());
    }
    number(out, "rhumb.config_revision", record.config_revision);
}
