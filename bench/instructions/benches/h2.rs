//! One exchange over HTTP/2, seen from each side of a connection whose compression tables are warm.
#![allow(missing_docs, unused_qualifications, reason = "made by gungraun's macros")]

use std::hint::black_box;
use std::time::Instant;

use gungraun::prelude::*;
use rhumb_bench_instructions::{request_head, response_head};
use rhumb_codec::h2::{Config, Connection, Event, Role, StreamId};
use rhumb_codec::head::{RequestHead, ResponseHead};

const CONTENT: [u8; 1024] = [b'x'; 1024];

/// One end of a connection, what the other end has to say, and the heads that are sent.
struct End {
    connection: Connection,
    input: Vec<u8>,
    now: Instant,
    request: RequestHead,
    response: ResponseHead,
}

impl End {
    fn new(role: Role) -> Self {
        Self {
            connection: Connection::new(Config::new(role)),
            input: Vec::new(),
            now: Instant::now(),
            request: request_head(),
            response: response_head(),
        }
    }

    /// Takes what the other end has written.
    fn listen_to(&mut self, other: &mut Self) {
        self.input.extend_from_slice(other.connection.output());
        let written = other.connection.output().len();
        other.connection.advance_output(written);
    }

    /// Reads all input; the stream of a request, if there was one.
    fn receive(&mut self) -> Option<StreamId> {
        let Self { connection, input, now, .. } = self;
        let mut rest = &input[..];
        let mut asked = None;
        loop {
            let received = connection.receive(rest, *now).expect("the other end is ours");
            let is_done = received.consumed == 0 && received.event.is_none();
            let consumed = received.consumed;
            match received.event {
                Some(Event::Request { stream, head, .. }) => {
                    asked = Some(stream);
                    connection.recycle_request(head);
                }
                Some(Event::Response { head, .. }) => connection.recycle_response(head),
                Some(Event::Data { stream, flow, .. }) => connection.release(stream, flow),
                _ => {}
            }
            rest = &rest[consumed..];
            if is_done {
                break;
            }
        }
        let used = input.len() - rest.len();
        input.drain(..used);
        asked
    }

    fn ask(&mut self) {
        let opened = self.connection.open(&self.request, true);
        assert!(opened.is_ok(), "a stream is free");
    }

    fn answer(&mut self, stream: StreamId) {
        let sent = self.connection.send_response(stream, &self.response, false);
        assert!(sent.is_ok(), "the stream is open");
        let taken = self.connection.send_data(stream, &CONTENT, true);
        assert_eq!(taken.ok(), Some(CONTENT.len()), "the windows are wide");
    }
}

/// Both ends after some exchanges.
fn warm() -> (End, End) {
    let (mut client, mut server) = (End::new(Role::Client), End::new(Role::Server));
    for round in 0..8 {
        if round > 1 {
            client.ask();
        }
        server.listen_to(&mut client);
        if let Some(stream) = server.receive() {
            server.answer(stream);
        }
        client.listen_to(&mut server);
        client.receive();
    }
    (client, server)
}

/// A server with a request to read.
fn asked() -> End {
    let (mut client, mut server) = warm();
    client.ask();
    server.listen_to(&mut client);
    server
}

/// A client that has asked, with the response to read.
fn answered() -> End {
    let (mut client, mut server) = warm();
    client.ask();
    server.listen_to(&mut client);
    let stream = server.receive().expect("a request");
    server.answer(stream);
    client.listen_to(&mut server);
    client
}

#[library_benchmark]
#[bench::request_head(asked())]
fn server_receives(mut server: End) -> (End, Option<StreamId>) {
    let stream = black_box(&mut server).receive();
    (server, stream)
}

fn received() -> (End, StreamId) {
    let mut server = asked();
    let stream = server.receive().expect("a request");
    (server, stream)
}

#[library_benchmark]
#[bench::head_and_1_kib(received())]
fn server_answers((mut server, stream): (End, StreamId)) -> End {
    black_box(&mut server).answer(stream);
    server
}

#[library_benchmark]
#[bench::request_head(warm().0)]
fn client_asks(mut client: End) -> End {
    black_box(&mut client).ask();
    client
}

#[library_benchmark]
#[bench::head_and_1_kib(answered())]
fn client_receives(mut client: End) -> End {
    black_box(&mut client).receive();
    client
}

library_benchmark_group!(
    name = h2,
    benchmarks = [server_receives, server_answers, client_asks, client_receives]
);
main!(library_benchmark_groups = h2);
