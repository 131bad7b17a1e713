//! Each side against the h2 crate: random messages, echoed, have to come back as they were sent.

use crate::support::*;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use rhumb_base::rng::Rng;
use rhumb_codec::field::{FieldName, Fields};
use rhumb_codec::h2::{Config, Connection, Event, Role, StreamId};
use rhumb_codec::head::{Content, RequestHead, ResponseHead};
use std::collections::BTreeMap;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A message in neither side's types.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Message {
    fields: Lines,
    content: Vec<u8>,
    trailers: Lines,
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.below(u32::try_from(bound).unwrap()) as usize
}

fn random_lines(rng: &mut Rng, most: usize) -> Lines {
    const NAMES: [&str; 10] = [
        "user-agent",
        "accept",
        "x-tenant",
        "x-request-id",
        "authorization",
        "content-type",
        "x-a",
        "x-custom-trace",
        "etag",
        "x-long-name-that-is-not-known-to-anybody-at-all",
    ];
    (0..below(rng, most + 1))
        .map(|_| {
            let name = NAMES[below(rng, NAMES.len())];
            let value = match rng.below(4) {
                0 => "the same".to_owned(),
                1 => rng.next_u64().to_string(),
                2 => (0..below(rng, 300)).map(|_| char::from(33 + rng.below(94) as u8)).collect(),
                _ => String::new(),
            };
            (name.to_owned(), value)
        })
        .collect()
}

fn random_message(rng: &mut Rng) -> Message {
    let len = match rng.below(4) {
        0 => 0,
        1 => below(rng, 100),
        2 => below(rng, 20_000),
        _ => below(rng, 400_000),
    };
    let byte = rng.below(256) as u8;
    Message {
        fields: random_lines(rng, 12),
        content: (0..len).map(|n| byte.wrapping_add(n as u8)).collect(),
        trailers: if rng.below(2) == 0 { random_lines(rng, 4) } else { Vec::new() },
    }
    .sorted()
}

impl Message {
    /// The http crate groups lines by name: only the order within a name is compared.
    fn sorted(mut self) -> Self {
        self.fields.sort_by(|a, b| a.0.cmp(&b.0));
        // What frames, routes or authorises is no trailer for us.
        self.trailers.retain(|(name, _)| name.starts_with("x-") && name != "x-request-id");
        self.trailers.sort_by(|a, b| a.0.cmp(&b.0));
        self
    }
}

fn to_map(lines: &Lines) -> HeaderMap {
    lines.iter().map(|(n, v)| (HeaderName::try_from(n).unwrap(), HeaderValue::try_from(v).unwrap())).collect()
}

fn of_map(map: &HeaderMap) -> Lines {
    map.iter().map(|(n, v)| (n.as_str().to_owned(), text(v.as_bytes()))).collect()
}

fn to_fields(lines: &Lines, fields: &mut Fields) {
    for (name, value) in lines {
        fields.append_checked(&FieldName::parse(name.as_bytes()).unwrap(), value.as_bytes()).unwrap();
    }
}

/// What one of our streams has received and still has to send.
#[derive(Default)]
struct Exchange {
    sending: Vec<u8>,
    sent: usize,
    trailers: Option<Fields>,
    /// The peer has ended: nothing will be added to `sending`.
    is_complete: bool,
    received: Message,
    is_done: bool,
}

/// Drives our side of a connection over a pipe.
struct Own {
    connection: Connection,
    io: DuplexStream,
    pending: Vec<u8>,
    exchanges: BTreeMap<u32, Exchange>,
    has_settings: bool,
}

impl Own {
    fn new(config: Config, io: DuplexStream) -> Self {
        Self {
            connection: Connection::new(config),
            io,
            pending: Vec::new(),
            exchanges: BTreeMap::new(),
            has_settings: false,
        }
    }

    /// Writes what waits, reads once, handles it. False at the end of the connection.
    async fn turn(&mut self, rng: &mut Rng) -> bool {
        while self.connection.wants_write() {
            // In pieces, so that what is written in the middle of a frame matters.
            let piece = below(rng, 5000) + 1;
            let output = self.connection.output();
            let n = self.io.write(&output[..piece.min(output.len())]).await.unwrap();
            self.connection.advance_output(n);
            self.send_more();
        }
        let mut buf = vec![0; below(rng, 40_000) + 1];
        let n = self.io.read(&mut buf).await.unwrap();
        if n == 0 {
            return false;
        }
        self.pending.extend(&buf[..n]);
        let input = std::mem::take(&mut self.pending);
        let mut at = 0;
        loop {
            let received = self.connection.receive(&input[at..], Instant::now()).unwrap();
            at += received.consumed;
            match received.event {
                Some(event) => self.handle(event),
                None if received.consumed == 0 => break,
                None => {}
            }
        }
        self.pending = input[at..].to_vec();
        self.send_more();
        true
    }

    /// As server: echoes. As client: collects.
    fn handle(&mut self, event: Event<'_>) {
        match event {
            Event::Request { stream, head, end_stream } => {
                assert_eq!(text(head.authority()), "a.example");
                let mut response = ResponseHead::with_status(200);
                response.content = if end_stream { Content::None } else { Content::Streamed };
                for line in head.fields.iter() {
                    response.fields.append_raw(line.known, line.name, line.value);
                }
                response.fields.append_raw(rhumb_codec::field::Known::Other, b"x-path", head.path());
                self.connection.recycle_request(head);
                self.connection.send_response(stream, &response, end_stream).unwrap();
                let exchange =
                    Exchange { is_complete: end_stream, is_done: end_stream, ..Exchange::default() };
                self.exchanges.insert(stream.get(), exchange);
            }
            Event::Response { stream, head, end_stream } => {
                assert_eq!(head.status, 200);
                let exchange = self.exchanges.get_mut(&stream.get()).unwrap();
                exchange.received.fields = lines(&head.fields);
                exchange.is_done = end_stream;
                self.connection.recycle_response(head);
            }
            Event::Data { stream, data, flow, end_stream } => {
                let exchange = self.exchanges.get_mut(&stream.get()).unwrap();
                if self.connection.role() == Role::Server {
                    // Released when it was sent on: the window bounds what we hold. Padding is not sent on.
                    exchange.sending.extend(data);
                    let padding = flow - u32::try_from(data.len()).unwrap();
                    self.connection.release(stream, padding);
                    exchange.is_complete = end_stream;
                } else {
                    exchange.received.content.extend(data);
                    self.connection.release(stream, flow);
                    exchange.is_done = end_stream;
                }
            }
            Event::Trailers { stream, fields } => {
                let exchange = self.exchanges.get_mut(&stream.get()).unwrap();
                if self.connection.role() == Role::Server {
                    exchange.trailers = Some(*fields);
                    exchange.is_complete = true;
                } else {
                    exchange.received.trailers = lines(&fields);
                    exchange.is_done = true;
                }
            }
            Event::Settings => self.has_settings = true,
            Event::Writable | Event::Pong { .. } | Event::GoAway { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn send_more(&mut self) {
        while self.connection.next_writable().is_some() {}
        let ids: Vec<u32> = self.exchanges.keys().copied().collect();
        for number in ids {
            let stream = id(number);
            if !self.connection.is_open(stream) {
                continue;
            }
            let exchange = self.exchanges.get_mut(&number).unwrap();
            let rest = &exchange.sending[exchange.sent..];
            if rest.is_empty() && !exchange.is_complete
                || exchange.is_done && self.connection.role() == Role::Server
            {
                continue;
            }
            let end = exchange.is_complete && exchange.trailers.is_none();
            let Ok(n) = self.connection.send_data(stream, rest, end && !rest.is_empty()) else { continue };
            exchange.sent += n;
            if self.connection.role() == Role::Server {
                self.connection.release(stream, u32::try_from(n).unwrap());
            }
            if exchange.sent == exchange.sending.len() && exchange.is_complete {
                match exchange.trailers.take() {
                    Some(trailers) => drop(self.connection.send_trailers(stream, &trailers)),
                    None if n == 0 && end => drop(self.connection.send_data(stream, b"", true)),
                    None => {}
                }
                if self.connection.role() == Role::Server {
                    exchange.is_done = true;
                }
            }
        }
    }
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

async fn collect(mut body: h2::RecvStream) -> (Vec<u8>, Lines) {
    let mut content = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        content.extend(&chunk);
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap();
    (content, trailers.map(|map| of_map(&map)).unwrap_or_default())
}

async fn send(mut stream: h2::SendStream<Bytes>, message: Message) {
    stream.send_data(Bytes::from(message.content), message.trailers.is_empty()).unwrap();
    if !message.trailers.is_empty() {
        stream.send_trailers(to_map(&message.trailers)).unwrap();
    }
}

fn small(role: Role, rng: &mut Rng) -> Config {
    let mut config = Config::new(role);
    config.initial_window = [1000, 20_000, 65_535, 1 << 20][below(rng, 4)];
    config.connection_window = [65_535, 100_000, 1 << 20][below(rng, 3)];
    config.max_frame_size = [16_384, 20_000][below(rng, 2)];
    config.header_table_size = [0, 100, 4096, 8192][below(rng, 4)];
    config.encoder_table_size = [0, 200, 4096][below(rng, 3)];
    config
}

#[test]
fn client_of_the_h2_crate_gets_its_messages_echoed() {
    for seed in 0..12 {
        run(async move {
            let mut rng = Rng::new(seed);
            let (ours, theirs) = tokio::io::duplex(below(&mut rng, 60_000) + 100);
            let mut own = Own::new(small(Role::Server, &mut rng), ours);
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size([1_000, 65_535, 1 << 20][below(&mut rng, 3)]);
            builder.header_table_size([0, 300, 4096][below(&mut rng, 3)]);
            let messages: Vec<Message> = (0..30).map(|_| random_message(&mut rng)).collect();
            let client = async {
                let (client, connection) = builder.handshake::<_, Bytes>(theirs).await.unwrap();
                let exchanges = async {
                    let mut client = client.ready().await.unwrap();
                    let mut all = Vec::new();
                    for (n, message) in messages.iter().enumerate() {
                        client = client.ready().await.unwrap();
                        let mut request = Request::builder()
                            .method(Method::POST)
                            .uri(format!("http://a.example/{n}"))
                            .version(Version::HTTP_2)
                            .body(())
                            .unwrap();
                        *request.headers_mut() = to_map(&message.fields);
                        let is_empty = message.content.is_empty() && message.trailers.is_empty();
                        let (response, stream) = client.send_request(request, is_empty).unwrap();
                        all.push(async move {
                            if !is_empty {
                                send(stream, message.clone()).await;
                            }
                            let (parts, body) = response.await.unwrap().into_parts();
                            assert_eq!(parts.status, 200);
                            let mut fields = of_map(&parts.headers);
                            fields.retain(|(name, _)| name != "x-path");
                            assert_eq!(parts.headers["x-path"], format!("/{n}"));
                            let (content, trailers) = collect(body).await;
                            assert_eq!(
                                Message { fields, content, trailers }.sorted(),
                                *message,
                                "seed {seed}"
                            );
                        });
                    }
                    drop(client);
                    for exchange in join_all(all).await {
                        exchange
                    }
                };
                let (connection, ()) = tokio::join!(connection, exchanges);
                connection.unwrap();
            };
            let server = async { while own.turn(&mut rng).await {} };
            tokio::join!(client, server);
            assert_eq!(own.connection.active_streams(), 0);
        });
    }
}

/// Runs futures together; the driver of the connection runs beside them.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut is_ready = true;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

#[test]
fn server_of_the_h2_crate_echoes_our_messages() {
    for seed in 100..112 {
        run(async move {
            let mut rng = Rng::new(seed);
            let (ours, theirs) = tokio::io::duplex(below(&mut rng, 60_000) + 100);
            let mut own = Own::new(small(Role::Client, &mut rng), ours);
            let mut builder = h2::server::Builder::new();
            builder.initial_window_size([1_000, 65_535, 1 << 20][below(&mut rng, 3)]);
            builder.max_concurrent_streams([3, 100][below(&mut rng, 2)]);
            let server = async {
                let mut connection = builder.handshake::<_, Bytes>(theirs).await.unwrap();
                let local = tokio::task::LocalSet::new();
                local
                    .run_until(async {
                        while let Some(request) = connection.accept().await {
                            let (request, mut respond) = request.unwrap();
                            tokio::task::spawn_local(async move {
                                let (parts, body) = request.into_parts();
                                let mut response = Response::builder().status(200).body(()).unwrap();
                                *response.headers_mut() = parts.headers;
                                let is_empty = body.is_end_stream();
                                let Ok(stream) = respond.send_response(response, is_empty) else { return };
                                let (content, trailers) = collect(body).await;
                                if !is_empty {
                                    send(stream, Message { fields: Vec::new(), content, trailers }).await;
                                }
                            });
                        }
                    })
                    .await;
            };
            let messages: Vec<Message> = (0..30).map(|_| random_message(&mut rng)).collect();
            let client = async {
                let mut unsent: Vec<&Message> = messages.iter().collect();
                let mut sent: BTreeMap<u32, &Message> = BTreeMap::new();
                loop {
                    // Before, the server's limit is a guess and a stream may be refused.
                    while own.has_settings
                        && own.connection.can_open()
                        && let Some(message) = unsent.pop()
                    {
                        let is_empty = message.content.is_empty() && message.trailers.is_empty();
                        let mut head: RequestHead = request("POST", "/");
                        to_fields(&message.fields, &mut head.fields);
                        head.content = Content::Streamed;
                        let stream: StreamId = own.connection.open(&head, is_empty).unwrap();
                        let mut trailers = Fields::new();
                        to_fields(&message.trailers, &mut trailers);
                        let exchange = Exchange {
                            sending: message.content.clone(),
                            trailers: (!message.trailers.is_empty()).then_some(trailers),
                            is_complete: true,
                            ..Exchange::default()
                        };
                        own.exchanges.insert(stream.get(), exchange);
                        sent.insert(stream.get(), message);
                    }
                    own.send_more();
                    if unsent.is_empty() && own.exchanges.values().all(|exchange| exchange.is_done) {
                        break;
                    }
                    assert!(own.turn(&mut rng).await, "seed {seed}");
                }
                for (stream, message) in sent {
                    let received = own.exchanges[&stream].received.clone().sorted();
                    assert_eq!(received, *message, "seed {seed}, stream {stream}");
                }
                assert_eq!(own.connection.active_streams(), 0);
                drop(own);
            };
            tokio::join!(server, client);
        });
    }
}
