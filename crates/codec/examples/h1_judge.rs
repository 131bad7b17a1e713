//! How this codec reads HTTP/1 messages, for comparison with other implementations (fuzz/h11_agreement.py).
//!
//! Standard input: after its length in four bytes, big endian, a letter and a message: `Q` a request, `G` and `H` a
//! response to GET and HEAD after which the connection ends. Standard output: a line per message, `refused CODE`,
//! `incomplete`, or `accepted CONSUMED VERSION START CONTENT NAME=VALUE…` with everything but the numbers in
//! hexadecimal, START being method or status; trailers follow a `|`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::fmt::Write as _;
use std::io::{Read, Write};

use rhumb_codec::field::Fields;
use rhumb_codec::h1::{BodyDecoder, Limits, parse_request, parse_response};
use rhumb_codec::head::{Method, RequestHead, ResponseHead, Scheme};

fn main() -> std::io::Result<()> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut len = [0; 4];
    while input.read_exact(&mut len).is_ok() {
        let mut message = vec![0; u32::from_be_bytes(len) as usize];
        input.read_exact(&mut message)?;
        writeln!(output, "{}", judge(&mut message))?;
        output.flush()?;
    }
    Ok(())
}

fn judge(message: &mut [u8]) -> String {
    let limits = Limits::default();
    let (kind, message) = message.split_first_mut().unwrap();
    let (mut request, mut response) = (RequestHead::new(), ResponseHead::default());
    let read = match kind {
        b'Q' => parse_request(message, &limits, Scheme::Http, &mut request).map_err(|error| error.code()),
        b'H' => parse_response(message, &limits, Method::Head, &mut response).map_err(|error| error.code()),
        _ => parse_response(message, &limits, Method::Get, &mut response).map_err(|error| error.code()),
    };
    let len = match read {
        Ok(Some(len)) => len,
        Ok(None) => return "incomplete".to_string(),
        Err(code) => return format!("refused {code}"),
    };
    let (version, start, content, fields) = match kind {
        b'Q' => (request.version, hex(request.method_name()), request.content, &request.fields),
        _ => (
            response.version,
            hex(response.status.to_string().as_bytes()),
            response.content,
            &response.fields,
        ),
    };
    let mut decoder = BodyDecoder::new(content, &limits);
    let body = &mut message[len..];
    let decoded = match decoder.decode(body) {
        Ok(decoded) => decoded,
        Err(error) => return format!("refused {}", error.code()),
    };
    if decoder.on_eof().is_err() {
        return "incomplete".to_string();
    }
    let consumed = len + decoded.consumed;
    let version = version.as_str().trim_start_matches("HTTP/");
    let mut line = format!("accepted {consumed} {version} {start} {}", hex(&body[..decoded.data]));
    write_fields(fields, &mut line);
    line.push_str(" |");
    if let Some(trailers) = decoder.trailers() {
        write_fields(trailers, &mut line);
    }
    line
}

fn write_fields(fields: &Fields, line: &mut String) {
    for field in fields.iter() {
        write!(line, " {}={}", hex(field.name), hex(field.value)).unwrap();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
}
