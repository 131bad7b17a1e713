//! HTTP/2 peers on the `h2` crate, for what it takes real flow control and many streams to try. [`crate::h2`] has the
//! frames for everything else.

use std::future::poll_fn;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::net::TcpStream;

/// A client to send requests with.
pub type Client = h2::client::SendRequest<Bytes>;

/// Speaks HTTP/2 as client; `configure` has the settings. The connection runs in a task of its own.
pub async fn connect(stream: TcpStream, configure: impl FnOnce(&mut h2::client::Builder)) -> Client {
    let mut builder = h2::client::Builder::new();
    // Before the server has said how many streams it takes, no more than RFC 9113 §6.5.2 has it offer at least. The crate
    // would open any number, and what is too much is refused.
    builder.initial_max_send_streams(100);
    configure(&mut builder);
    let (client, connection) = builder.handshake(stream).await.expect("an HTTP/2 connection");
    tokio::spawn(connection);
    client
}

/// Sends `content` and reads the answer's while it does.
///
/// # Errors
/// Why the stream or its connection ended early.
pub async fn exchange(client: Client, content: Bytes) -> Result<(u16, Vec<u8>), h2::Error> {
    let mut client = client.ready().await?;
    let request = Request::post("http://a.example/").body(()).expect("a request");
    let (response, sink) = client.send_request(request, false)?;
    let send = send(sink, content);
    let receive = async {
        let response = response.await?;
        let status = response.status().as_u16();
        Ok::<_, h2::Error>((status, receive(response.into_body()).await?))
    };
    let (sent, received) = tokio::join!(send, receive);
    // The receiving side hears why a stream was reset, so its error comes first.
    match (sent, received) {
        (_, Err(error)) | (Err(error), Ok(_)) => Err(error),
        (Ok(()), Ok(received)) => Ok(received),
    }
}

/// Serves a connection: every request is answered with its own content, as it comes. Ends with the connection.
pub async fn echo(stream: TcpStream, configure: impl FnOnce(&mut h2::server::Builder)) {
    let mut builder = h2::server::Builder::new();
    configure(&mut builder);
    let mut connection = builder.handshake::<_, Bytes>(stream).await.expect("an HTTP/2 connection");
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut sink = respond.send_response(Response::new(()), false)?;
            let mut source = request.into_body();
            while let Some(data) = source.data().await {
                let data = data?;
                source.flow_control().release_capacity(data.len())?;
                put(&mut sink, data).await?;
            }
            sink.send_data(Bytes::new(), true)
        });
    }
}

/// Sends all of `content` and the end.
async fn send(mut sink: SendStream<Bytes>, content: Bytes) -> Result<(), h2::Error> {
    put(&mut sink, content).await?;
    sink.send_data(Bytes::new(), true)
}

async fn put(sink: &mut SendStream<Bytes>, mut content: Bytes) -> Result<(), h2::Error> {
    while !content.is_empty() {
        sink.reserve_capacity(content.len());
        let room = match poll_fn(|cx| sink.poll_capacity(cx)).await {
            Some(room) => room?,
            None => return Err(h2::Reason::STREAM_CLOSED.into()),
        };
        sink.send_data(content.split_to(room.min(content.len())), false)?;
    }
    Ok(())
}

async fn receive(mut source: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut content = Vec::new();
    while let Some(data) = source.data().await {
        let data = data?;
        source.flow_control().release_capacity(data.len())?;
        content.extend_from_slice(&data);
    }
    Ok(content)
}
