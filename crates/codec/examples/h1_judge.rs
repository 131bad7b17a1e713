//! How this codec reads HTTP/1 requests, for comparison with other implementations (fuzz/h11_agreement.py).
//!
//! Standard input: messages, each after its length in four bytes, big endian. Standard output: a line per message,
//! `refused CODE`, `incomplete`, or `accepted CONSUMED VERSION METHOD CONTENT NAME=VALUE…` with everything but the
//! numbers in hexadecimal; trailers follow a `|`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::fmt::Write as _;
use std::io::{Read, Write};

use rhumb_codec::field::Fields;
use rhumb_codec::h1::{BodyDecoder, Limits, parse_request};
use rhumb_codec::head::{RequestHead, Scheme};

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
    let mut head = RequestHead::new();
    let len = match parse_request(message, &limits, Scheme::Http, &mut head) {
        Ok(Some(len)) => len,
        Ok(None) => return "incomplete".to_string(),
        Err(error) => return format!("refused {}", error.code()),
    };
    let mut decoder = BodyDecoder::new(head.content, &limits);
    let body = &mut message[len..];
    match decoder.decode(body) {
        Ok(decoded) if decoded.done => {
            let mut line = format!(
                "accepted {} {} ",
                len + decoded.consumed,
                head.version.as_str().trim_start_matches("HTTP/")
            );
            write!(line, "{} {}", hex(head.method_name()), hex(&body[..decoded.data])).unwrap();
            write_fields(&head.fields, &mut line);
            line.push_str(" |");
            if let Some(trailers) = decoder.trailers() {
                write_fields(trailers, &mut line);
            }
            line
        }
        Ok(_) => "incomplete".to_string(),
        Err(error) => format!("refused {}", error.code()),
    }
}

fn write_fields(fields: &Fields, line: &mut String) {
    for field in fields.iter() {
        write!(line, " {}={}", hex(field.name), hex(field.value)).unwrap();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
}
