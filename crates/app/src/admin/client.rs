//! The command line's side of the admin listener: one blocking request.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::token::{self, Token};
use connection::Connection;

mod connection;

pub(crate) use connection::TlsArgs;

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer may take. What changes documents is answered when a disk has it, and disks may be busy.
const ANSWER: Duration = Duration::from_secs(60);

/// How long a stream of events may be silent.
const SILENCE: Duration = Duration::from_secs(40);

/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nobody listens there, or it is not an HTTP server.
    Unreachable(SocketAddr, io::Error),
    /// The token file that the user named cannot be read.
    TokenFile(std::path::PathBuf, io::Error),
    /// No token that was found opens it.
    Locked(SocketAddr),
    /// It refuses, with a status and a text.
    Status(u16, String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(address, error) => {
                write!(
                    f,
                    "no rhumb answers on {address}: {error}; is it running, or is its admin listener elsewhere (--admin)?"
                )
            }
            Self::TokenFile(path, error) => write!(f, "admin token {}: {error}", path.display()),
            Self::Locked(address) => write!(
                f,
                "the admin listener on {address} asks for a token that this user does not have; run as the user that runs rhumb, or name the file with --admin-token-file"
            ),
            Self::Status(status, text) => write!(f, "the admin listener answers {status}: {}", text.trim()),
        }
    }
}

impl std::error::Error for NoAnswer {}

/// The content that the admin listener has under `path`, asked with the token in `token_file` or with those that are
/// found.
///
/// # Errors
/// See [`NoAnswer`].
pub(crate) fn get(address: SocketAddr, path: &str, token_file: Option<&Path>) -> Result<String, NoAnswer> {
    ask_with_tokens("GET", address, path, token_file)
}

/// The same, as bytes.
///
/// # Errors
/// See [`NoAnswer`].
pub(crate) fn get_bytes(
    address: SocketAddr,
    path: &str,
    token_file: Option<&Path>,
) -> Result<Vec<u8>, NoAnswer> {
    match request_bytes("GET", address, path, token_file, &Extra::default())? {
        (200, content) => Ok(content),
        (status, content) => Err(NoAnswer::Status(status, String::from_utf8_lossy(&content).into_owned())),
    }
}

/// What the admin listener answers to an order.
///
/// # Errors
/// See [`NoAnswer`].
pub(crate) fn post(address: SocketAddr, path: &str, token_file: Option<&Path>) -> Result<String, NoAnswer> {
    ask_with_tokens("POST", address, path, token_file)
}

/// Hears events (`text/event-stream`), by name and data, until there are no more or `hear` has heard enough.
///
/// # Errors
/// See [`NoAnswer`].
pub(crate) fn events(
    address: SocketAddr,
    path: &str,
    token_file: Option<&Path>,
    hear: &mut dyn FnMut(&str, &str) -> ControlFlow<()>,
) -> Result<(), NoAnswer> {
    let unreachable = |error| NoAnswer::Unreachable(address, error);
    let found = tokens(address, token_file)?;
    // Without a token a certificate may open it.
    let authorizations = found.iter().map(Token::authorization).map(Some).chain([None]);
    for authorization in authorizations {
        let mut stream = Connection::open(address, PATIENCE).map_err(unreachable)?;
        // The stream says every 15 s that it is still there.
        stream.set_patience(SILENCE).map_err(unreachable)?;
        let shown = authorization.map_or_else(String::new, |shown| format!("Authorization: {shown}\r\n"));
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{shown}\r\n");
        stream.write_all(request.as_bytes()).map_err(unreachable)?;
        let mut lines = BufReader::new(stream).lines();
        let mut next = || lines.next().transpose().map_err(unreachable);
        let status = next()?.unwrap_or_default();
        let status = status.split(' ').nth(1).and_then(|word| word.parse::<u16>().ok()).unwrap_or_default();
        while next()?.is_some_and(|line| !line.is_empty()) {}
        match status {
            401 => continue,
            200 => {}
            status => {
                let text = next()?.unwrap_or_default();
                return Err(NoAnswer::Status(status, text));
            }
        }
        let mut event = String::new();
        while let Some(line) = next()? {
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data: ")
                && hear(&event, data).is_break()
            {
                return Ok(());
            }
        }
        return Ok(());
    }
    Err(NoAnswer::Locked(address))
}

/// What goes with a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    /// Fields: name and value.
    pub(crate) fields: Vec<(&'static str, String)>,
    /// The content, as JSON.
    pub(crate) content: Option<String>,
}

/// Status and content of the answer to any request, whatever the status is.
///
/// # Errors
/// See [`NoAnswer`].
pub(crate) fn request(
    method: &str,
    address: SocketAddr,
    path: &str,
    token_file: Option<&Path>,
    extra: &Extra,
) -> Result<(u16, String), NoAnswer> {
    let (status, content) = request_bytes(method, address, path, token_file, extra)?;
    Ok((status, String::from_utf8_lossy(&content).into_owned()))
}

fn request_bytes(
    method: &str,
    address: SocketAddr,
    path: &str,
    token_file: Option<&Path>,
    extra: &Extra,
) -> Result<(u16, Vec<u8>), NoAnswer> {
    let found = tokens(address, token_file)?;
    let authorizations = found.iter().map(Token::authorization).map(Some);
    for authorization in authorizations.chain([None]) {
        let (status, content) = ask(method, address, path, authorization.as_deref(), extra)
            .map_err(|error| NoAnswer::Unreachable(address, error))?;
        if status != 401 {
            return Ok((status, content));
        }
    }
    Err(NoAnswer::Locked(address))
}

fn tokens(address: SocketAddr, token_file: Option<&Path>) -> Result<Vec<Token>, NoAnswer> {
    match token_file {
        Some(file) => {
            let token = Token::read(file).map_err(|error| NoAnswer::TokenFile(file.to_owned(), error))?;
            Ok(vec![token])
        }
        None => Ok(token::find(address.port())),
    }
}

fn ask_with_tokens(
    method: &str,
    address: SocketAddr,
    path: &str,
    token_file: Option<&Path>,
) -> Result<String, NoAnswer> {
    match request(method, address, path, token_file, &Extra::default())? {
        (200 | 202, text) => Ok(text),
        (status, text) => Err(NoAnswer::Status(status, text)),
    }
}

/// HTTP/1.0: the content ends with the connection (RFC 9112 §6.3).
fn ask(
    method: &str,
    address: SocketAddr,
    path: &str,
    authorization: Option<&str>,
    extra: &Extra,
) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = Connection::open(address, PATIENCE)?;
    stream.set_patience(ANSWER)?;
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n");
    if let Some(authorization) = authorization {
        request.push_str(&format!("Authorization: {authorization}\r\n"));
    }
    for (name, value) in &extra.fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(content) = &extra.content {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", content.len()));
    }
    request.push_str("\r\n");
    request.push_str(extra.content.as_deref().unwrap_or_default());
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, content) = answer.split_at_checked(end + 4)?;
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let status = line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, content.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_content_are_read() {
        for (answer, expected) in [
            ("HTTP/1.0 200 OK\r\na: b\r\n\r\ntext", Some((200, b"text".to_vec()))),
            ("HTTP/1.1 401 \r\n\r\n", Some((401, Vec::new()))),
            ("HTTP/1.1 200 OK\r\n", None),
            ("SSH-2.0-x\r\n\r\n", None),
            ("", None),
        ] {
            assert_eq!(parse(answer.as_bytes()), expected, "{answer:?}");
        }
    }
}
