//! What the services of the demonstration are: programs that know nothing of a mesh, and a client to call them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rhumb_net::names::{addresses_blocking, host_and_port};

/// Connections that a service has at a time.
const MAX_CONNECTIONS: usize = 256;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a request's head, and of an answer.
const LIMIT: u64 = 64 << 10;

/// Part of what services ask each other, and of nothing that they answer: it is looked for on the wire.
pub(crate) const SECRET: &str = "kept-between-services";

/// Serves on `address` until the process ends; asks `next` for each request, if there is one.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn serve(name: &str, address: SocketAddr, next: Option<&str>) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let (name, next) = (Arc::<str>::from(name), next.map(Arc::<str>::from));
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (name, next, open) = (Arc::clone(&name), next.clone(), Arc::clone(&open));
        std::thread::spawn(move || {
            // A client that has gone is nobody to tell.
            let _ = serve_one(stream, &name, next.as_deref());
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

fn serve_one(stream: TcpStream, name: &str, next: Option<&str>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut first = String::new();
        let mut head = (&mut reader).take(LIMIT);
        if head.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let (mut ends, mut line) = (false, String::new());
        while head.read_line(&mut line)? > 2 {
            ends |= line.to_ascii_lowercase().trim_end() == "connection: close";
            line.clear();
        }
        let (status, text) = match next {
            None => ("200 OK", name.to_owned()),
            Some(next) => match further(next, &format!("/{SECRET}")) {
                Ok((200, text)) => ("200 OK", format!("{name} < {}", text.trim_end())),
                Ok((status, text)) => ("502 Bad Gateway", format!("{name} < {status}: {}", text.trim_end())),
                Err(error) => ("502 Bad Gateway", format!("{name} < {error}")),
            },
        };
        let close = if ends { "connection: close\r\n" } else { "" };
        let length = text.len() + 1;
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n{close}\r\n{text}\n"
        )?;
        if ends {
            return Ok(());
        }
    }
}

/// Calls a URL as programs do: by its name.
fn further(url: &str, path: &str) -> io::Result<(u16, String)> {
    let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let (host, port) = host_and_port(authority).unwrap_or((authority, 80));
    let address = addresses_blocking(host, port)?.first().copied().ok_or(io::ErrorKind::NotFound)?;
    call(address, authority, path)
}

/// Calls a URL, and tells whether the answer was good.
///
/// # Errors
/// When there is no answer.
pub(crate) fn ask(url: &str) -> io::Result<(u16, String)> {
    further(url, "/")
}

/// One request, and its answer's status and content.
///
/// # Errors
/// When there is no answer that HTTP/1.1 has.
pub(crate) fn call(address: SocketAddr, host: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LIMIT).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let (Some(status), Some((_, content))) = (status, answer.split_once("\r\n\r\n")) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    Ok((status, content.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn start(name: &'static str, next: Option<String>) -> SocketAddr {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        std::thread::spawn(move || serve(name, address, next.as_deref()));
        let started = std::time::Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        }
        address
    }

    #[test]
    fn a_service_answers_with_what_the_next_one_says() {
        let last = start("b", None);
        let first = start("a", Some(format!("http://{last}/")));
        assert_eq!(call(first, "a", "/").unwrap(), (200, "a < b\n".to_owned()));
    }
}
