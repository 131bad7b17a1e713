//! Sample backends: tiny HTTP/1 servers on this machine that tell what arrived at them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections that one backend serves at a time.
const MAX_CONNECTIONS: usize = 256;

/// The longest line of a request head, in bytes.
const LINE_LIMIT: u64 = 64 << 10;

/// Fields of a request.
const FIELD_LIMIT: usize = 200;

/// Content that a request may have, in bytes.
const CONTENT_LIMIT: u64 = 64 << 20;

/// How long a connection may rest.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Starts a backend for each name on a free port of 127.0.0.1; all of them share one thread that ends with the process.
///
/// # Errors
/// When no port or no thread is to be had.
pub(crate) fn start(names: &[&str]) -> io::Result<Vec<SocketAddr>> {
    let mut sockets = Vec::new();
    for name in names {
        let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        sockets.push((Arc::<str>::from(*name), socket));
    }
    let addresses = sockets.iter().map(|(_, socket)| socket.local_addr()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("demo-backends".to_owned()).spawn(move || {
        runtime.block_on(async {
            for (name, socket) in sockets {
                match TcpListener::from_std(socket) {
                    Ok(socket) => drop(tokio::spawn(accept(name, socket))),
                    Err(error) => tracing::error!(%error, "sample backend {name} cannot listen"),
                }
            }
            std::future::pending::<()>().await;
        });
    })?;
    addresses
}

async fn accept(name: Arc<str>, socket: TcpListener) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match socket.accept().await {
            Ok((stream, _)) => {
                let name = Arc::clone(&name);
                tokio::spawn(async move {
                    if let Err(error) = serve(&name, stream).await {
                        tracing::debug!(%error, "sample backend {name} lost a connection");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "sample backend {name} cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(name: &str, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Ok(request) = tokio::time::timeout(IDLE_TIMEOUT, read(&mut stream)).await {
        let Some(request) = request? else { break };
        let answer = answer(name, &request);
        stream.write_all(&answer).await?;
        if !request.keep_alive {
            break;
        }
    }
    stream.shutdown().await
}

struct Request {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    content: u64,
    keep_alive: bool,
}

/// Reads a request with its content, of which only the length is kept. `None` at the end of the connection.
async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let first = line(stream).await?;
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return if first.is_empty() { Ok(None) } else { Err(io::ErrorKind::InvalidData.into()) };
    };
    let mut fields: Vec<(String, String)> = Vec::new();
    loop {
        let text = line(stream).await?;
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        if fields.len() > FIELD_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let value = |name: &str| fields.iter().find(|field| field.0 == name).map(|field| field.1.as_str());
    let keep_alive =
        version == "HTTP/1.1" && value("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
    let (is_chunked, length) = (value("transfer-encoding").is_some(), value("content-length"));
    let length = length.map_or(Ok(0), |value| value.parse().map_err(|_| io::ErrorKind::InvalidData))?;
    let content = if is_chunked { chunked(stream).await? } else { skip(stream, length).await? };
    let (method, target) = (method.to_owned(), target.to_owned());
    Ok(Some(Request { method, target, fields, content, keep_alive }))
}

/// A line without its end; empty at the end of the connection as well.
async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut text = String::new();
    stream.take(LINE_LIMIT).read_line(&mut text).await?;
    match text.strip_suffix('\n') {
        Some(line) => Ok(line.trim_end_matches('\r').to_owned()),
        None if text.is_empty() => Ok(text),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn skip(stream: &mut BufReader<TcpStream>, length: u64) -> io::Result<u64> {
    if length > CONTENT_LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let copied = tokio::io::copy_buf(&mut stream.take(length), &mut tokio::io::sink()).await?;
    if copied == length { Ok(length) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// RFC 9112 §7.1.
async fn chunked(stream: &mut BufReader<TcpStream>) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let text = line(stream).await?;
        let size = text.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if size == 0 {
            break;
        }
        total += skip(stream, size.min(CONTENT_LIMIT + 1)).await?;
        if total > CONTENT_LIMIT || !line(stream).await?.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    for _ in 0..FIELD_LIMIT {
        if line(stream).await?.is_empty() {
            return Ok(total);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn answer(name: &str, request: &Request) -> Vec<u8> {
    let mut fields = Map::new();
    for (name, value) in &request.fields {
        match fields.get_mut(name) {
            Some(Value::String(all)) => *all = format!("{all}, {value}"),
            _ => drop(fields.insert(name.clone(), value.as_str().into())),
        }
    }
    let mut content = format!(
        "{:#}\n",
        json!({
            "backend": name,
            "method": request.method,
            "target": request.target,
            "contentBytes": request.content,
            "fields": fields,
        })
    );
    let length = content.len();
    if request.method == "HEAD" {
        content.clear();
    }
    let connection = if request.keep_alive { "" } else { "connection: close\r\n" };
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-backend: {name}\r\n{connection}content-length: {length}\r\n\r\n{content}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn exchange(address: SocketAddr, requests: &str) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_backend_tells_what_arrived() {
        let [first, second] = *start(&["a", "b"]).unwrap() else { panic!("two backends") };
        let text = exchange(
            first,
            "POST /x?y HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 3\r\n\r\nabc\
             PUT /z HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4;e=1\r\nabcd\r\n0\r\nt: 1\r\n\r\n\
             HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n",
        );
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
        for part in
            [r#""target": "/x?y""#, r#""x-a": "1, 2""#, r#""contentBytes": 3"#, r#""contentBytes": 4"#]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(text.ends_with("\r\n\r\n"), "HEAD has no content");
        assert!(exchange(second, "GET / HTTP/1.0\r\n\r\n").contains("x-backend: b"));
    }

    #[test]
    fn what_is_not_a_request_ends_the_connection() {
        let [address] = *start(&["a"]).unwrap() else { panic!("one backend") };
        for request in [
            "x\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert_eq!(exchange(address, request), "", "{request:?}");
        }
    }
}
