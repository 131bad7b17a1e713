//! HTTP/2 connections against the `h2` crate, both ways.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rhumb_base::failure::{Cause, Failure};
use rhumb_codec::head::{Content, RequestHead, ResponseHead};
use rhumb_conn::Part;
use rhumb_conn::h2::{Config, Driver, Handle, OpenError, Role, Stream};
use rhumb_conn::input::Input;
use rhumb_conn::io::Io;
use rhumb_conn::watchers::Watchers;
use rhumb_testkit::oracle;
use rhumb_testkit::{h2 as frames, hpack};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinHandle, spawn_local};

use crate::{ours, run};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

const MUCH: usize = 1 << 20;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 253) as u8).collect()
}

/// What the streams of our server have come to.
#[derive(Clone, Default)]
struct Ends(Rc<Cell<(u32, u32)>>);

/// A server of ours that answers every request with its own content.
fn serve(io: Io, leave: Rc<Cell<bool>>) -> (Ends, JoinHandle<()>) {
    let ends = Ends::default();
    let seen = ends.clone();
    let mut driver = Driver::new(io, Input::default(), Config::new(Role::Server), LONG);
    let task = spawn_local(async move {
        poll_fn(|cx| {
            if leave.replace(false) {
                driver.leave();
            }
            driver.poll_serve(cx, |stream, request| {
                assert!(request.is_ok());
                let ends = seen.clone();
                spawn_local(async move {
                    let is_ok = echo(stream).await.is_ok();
                    let (good, bad) = ends.0.get();
                    ends.0.set((good + u32::from(is_ok), bad + u32::from(!is_ok)));
                });
            })
        })
        .await;
    });
    (ends, task)
}

async fn echo(mut stream: Stream) -> Result<(), Failure> {
    let mut head = ResponseHead::with_status(200);
    head.content = Content::Streamed;
    stream.send_response(&head);
    let gone = |_| Failure::from(Cause::ClientClosed);
    loop {
        poll_fn(|cx| stream.poll_ready(cx)).await.map_err(gone)?;
        let part = poll_fn(|cx| stream.poll_request_body(cx).map_ok(own)).await?;
        let Some(data) = part else { break };
        poll_fn(|cx| Poll::Ready(stream.send_data(cx, &data))).await.map_err(gone)?;
    }
    stream.send_end(None);
    poll_fn(|cx| stream.poll_flush(cx)).await.map_err(gone)
}

fn own(part: Part<'_>) -> Option<Vec<u8>> {
    match part {
        Part::Data(data) => Some(data.to_vec()),
        Part::End(_) => None,
    }
}

/// A client of ours.
fn dial(io: Io, idle: Duration) -> (Handle, JoinHandle<()>) {
    let mut driver = Driver::new(io, Input::default(), Config::new(Role::Client), idle);
    let handle = driver.handle();
    (handle, spawn_local(async move { poll_fn(|cx| driver.poll_client(cx)).await }))
}

fn post() -> RequestHead {
    let mut head = RequestHead::new();
    head.set_method(b"POST");
    head.set_authority(b"a.example");
    head.set_target(b"/");
    head.content = Content::Streamed;
    head
}

/// One exchange of our client, content both ways at once.
struct Exchange<'a> {
    stream: Stream,
    left: &'a [u8],
    is_sent: bool,
    status: u16,
    received: Vec<u8>,
}

impl<'a> Exchange<'a> {
    fn new(stream: Stream, content: &'a [u8]) -> Self {
        Self { stream, left: content, is_sent: false, status: 0, received: Vec::new() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while !self.is_sent && self.stream.poll_ready(cx).is_ready() {
            let (piece, rest) = self.left.split_at(self.left.len().min(40_000));
            if self.stream.send_data(cx, piece).is_err() {
                return Poll::Ready(Err(self.stream.reset()));
            }
            self.left = rest;
            if rest.is_empty() {
                self.is_sent = true;
                self.stream.send_end(None);
            }
        }
        if let Poll::Ready(Err(_)) = self.stream.poll_flush(cx) {
            return Poll::Ready(Err(self.stream.reset()));
        }
        if self.status == 0 {
            let mut head = ResponseHead::default();
            std::task::ready!(self.stream.poll_response(cx, &mut head))?;
            self.status = head.status;
        }
        loop {
            match std::task::ready!(self.stream.poll_response_body(cx))? {
                Part::Data(data) => self.received.extend_from_slice(data),
                Part::End(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

async fn exchange(stream: Stream, content: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut exchange = Exchange::new(stream, content);
    poll_fn(|cx| exchange.poll(cx)).await?;
    assert_eq!(exchange.status, 200);
    Ok(exchange.received)
}

#[test]
fn our_server_sends_back_a_mebibyte_whatever_the_windows() {
    run(|| async {
        for window in [1, 100, 65_535, 1 << 20] {
            let (io, peer) = ours().await;
            let (ends, _) = serve(io, Rc::default());
            let client = oracle::connect(peer, |settings| {
                settings.initial_window_size(window).initial_connection_window_size(65_535.max(window));
            })
            .await;
            let sent = content(if window < 1000 { 5000 } else { MUCH });
            let answer = oracle::exchange(client, sent.clone().into()).await.unwrap();
            assert!(answer == (200, sent), "window {window}");
            assert_eq!(ends.0.get(), (1, 0));
        }
    });
}

#[test]
fn our_client_gets_back_a_mebibyte_whatever_the_windows() {
    run(|| async {
        for window in [1, 100, 65_535, 1 << 20] {
            let (io, peer) = ours().await;
            tokio::spawn(oracle::echo(peer, move |settings| {
                settings.initial_window_size(window);
            }));
            let (handle, _) = dial(io, LONG);
            let sent = content(if window < 1000 { 5000 } else { MUCH });
            let answer = exchange(handle.open(&post()).unwrap(), &sent).await.unwrap();
            assert!(answer == sent, "window {window}");
        }
    });
}

#[test]
fn our_server_serves_many_streams_at_once() {
    run(|| async {
        let (io, peer) = ours().await;
        let (ends, _) = serve(io, Rc::default());
        let client = oracle::connect(peer, |_| {}).await;
        let sent = Bytes::from(content(30_000));
        let tasks: Vec<_> =
            (0..400).map(|_| tokio::spawn(oracle::exchange(client.clone(), sent.clone()))).collect();
        for task in tasks {
            assert!(task.await.unwrap().unwrap() == (200, sent.to_vec()));
        }
        assert_eq!(ends.0.get(), (400, 0));
    });
}

#[test]
fn requests_wait_for_a_stream_and_get_one() {
    run(|| async {
        let (io, peer) = ours().await;
        tokio::spawn(oracle::echo(peer, |settings| {
            settings.max_concurrent_streams(7);
        }));
        let (handle, _) = dial(io, LONG);
        let waiting = Watchers::default();
        handle.tell(&waiting);
        let tasks: Vec<_> = (0..200)
            .map(|number: usize| {
                let (handle, waiting) = (handle.clone(), waiting.clone());
                spawn_local(async move {
                    let mut turn = waiting.watch();
                    let stream = loop {
                        match handle.open(&post()) {
                            Ok(stream) => break stream,
                            Err(OpenError::NoStream) => poll_fn(|cx| turn.poll(cx)).await,
                            Err(error) => panic!("{error}"),
                        }
                    };
                    let sent = content(number * 100);
                    // Some give up: the turn of each goes to another.
                    if number.is_multiple_of(3) {
                        return;
                    }
                    assert!(exchange(stream, &sent).await.unwrap() == sent);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(waiting.is_empty() && handle.active_streams() == 0);
    });
}

#[test]
fn streams_given_up_half_way_hold_nothing() {
    run(|| async {
        let (io, peer) = ours().await;
        tokio::spawn(oracle::echo(peer, |_| {}));
        let (handle, _) = dial(io, LONG);
        // Together far more than the connection's window: what a dropped stream held is given back.
        for _ in 0..40 {
            let sent = content(200_000);
            let mut given_up = Exchange::new(handle.open(&post()).unwrap(), &sent);
            poll_fn(|cx| {
                let result = given_up.poll(cx);
                assert!(!matches!(result, Poll::Ready(Err(_))));
                if given_up.received.is_empty() { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
        }
        let sent = content(MUCH);
        assert!(exchange(handle.open(&post()).unwrap(), &sent).await.unwrap() == sent);
        assert_eq!(handle.active_streams(), 0);
    });
}

#[test]
fn streams_that_the_client_resets_end_alone() {
    run(|| async {
        let (io, peer) = ours().await;
        let (ends, _) = serve(io, Rc::default());
        let client = oracle::connect(peer, |_| {}).await;
        for _ in 0..40 {
            let mut client = client.clone().ready().await.unwrap();
            let request = http::Request::post("http://a.example/").body(()).unwrap();
            let (response, mut sink) = client.send_request(request, false).unwrap();
            sink.send_data(Bytes::from(content(50_000)), false).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
            sink.send_reset(::h2::Reason::CANCEL);
        }
        let sent = content(MUCH);
        let answer = oracle::exchange(client, sent.clone().into()).await.unwrap();
        assert!(answer == (200, sent));
        assert_eq!(ends.0.get(), (1, 40));
    });
}

#[test]
fn a_server_that_leaves_finishes_what_was_begun() {
    run(|| async {
        let (io, peer) = ours().await;
        let leave = Rc::new(Cell::new(false));
        let (ends, server) = serve(io, Rc::clone(&leave));
        let client = oracle::connect(peer, |_| {}).await;
        let mut ready = client.clone().ready().await.unwrap();
        let request = http::Request::post("http://a.example/").body(()).unwrap();
        let (response, mut sink) = ready.send_request(request, false).unwrap();
        let mut response = response.await.unwrap();
        leave.set(true);
        // The driver notices at its next turn; content that it has to send gives it one.
        sink.send_data(Bytes::from_static(b"before"), false).unwrap();
        assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "before");
        while client.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        sink.send_data(Bytes::from_static(b"after"), true).unwrap();
        assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "after");
        drop((response, sink, ready, client));
        server.await.unwrap();
        assert_eq!(ends.0.get(), (1, 0));
    });
}

#[test]
fn a_client_whose_server_leaves_finishes_what_was_begun() {
    run(|| async {
        let (io, peer) = ours().await;
        let (handle, driver) = dial(io, LONG);
        let mut server = ::h2::server::handshake(peer).await.unwrap();
        let stream = handle.open(&post()).unwrap();
        let (request, mut respond) = server.accept().await.unwrap().unwrap();
        server.graceful_shutdown();
        let server = tokio::spawn(async move { while let Some(Ok(_)) = server.accept().await {} });
        while !handle.is_spent() {
            tokio::task::yield_now().await;
        }
        assert!(!handle.can_open() && handle.open(&post()).is_err());
        let answer = async {
            let mut sink = respond.send_response(http::Response::new(()), false).unwrap();
            let mut source = request.into_body();
            assert_eq!(source.data().await.unwrap().unwrap(), "content");
            sink.send_data(Bytes::from_static(b"answer"), true).unwrap();
        };
        let (got, ()) = tokio::join!(exchange(stream, b"content"), answer);
        assert_eq!(got.unwrap(), b"answer");
        driver.await.unwrap();
        server.await.unwrap();
    });
}

#[test]
fn streams_of_a_connection_that_breaks_fail() {
    run(|| async {
        let (io, peer) = ours().await;
        let (handle, driver) = dial(io, LONG);
        let waiting = Watchers::default();
        handle.tell(&waiting);
        let stream = handle.open(&post()).unwrap();
        let mut turn = waiting.watch();
        assert!(poll_fn(|cx| Poll::Ready(turn.poll(cx))).await.is_pending());
        drop(peer);
        assert_eq!(exchange(stream, b"content").await.unwrap_err().cause, Cause::BackendReset);
        driver.await.unwrap();
        poll_fn(|cx| turn.poll(cx)).await;
        assert!(handle.is_spent());
    });
}

#[test]
fn an_unused_connection_ends_by_itself() {
    run(|| async {
        let (io, mut peer) = ours().await;
        let (handle, driver) = dial(io, Duration::from_millis(20));
        driver.await.unwrap();
        assert!(handle.is_spent());
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        let mut rest = &all[frames::PREFACE.len()..];
        let mut last = None;
        while let Some((frame, len)) = frames::Frame::read(rest) {
            rest = &rest[len..];
            last = Some(frame);
        }
        let last = last.unwrap();
        assert_eq!((last.kind, last.code()), (frames::kind::GOAWAY, Some(frames::code::NO_ERROR)));
    });
}

#[test]
fn interim_responses_without_end_are_refused() {
    run(|| async {
        let (io, mut peer) = ours().await;
        let (handle, _) = dial(io, LONG);
        let mut stream = handle.open(&post()).unwrap();
        peer.write_all(&frames::settings(&[])).await.unwrap();
        let hint = frames::headers(1, &hpack::encode(&[(":status", "103")]), false);
        let mut seen = 0;
        let failure = loop {
            // One at a time, so that they do not pile up but in the count.
            peer.write_all(&hint).await.unwrap();
            match poll_fn(|cx| stream.poll_response(cx, &mut ResponseHead::default())).await {
                Ok(()) => seen += 1,
                Err(failure) => break failure,
            }
        };
        assert_eq!((seen, failure.cause), (rhumb_conn::MAX_INTERIM, Cause::ResponseMalformed));
    });
}

#[test]
fn a_peer_that_does_not_read_is_not_read_either_and_goes_on_when_it_does() {
    run(|| async {
        let (io, peer) = ours().await;
        let (ends, _) = serve(io, Rc::default());
        // Windows so wide that only the connection's output holds the server back.
        let client = oracle::connect(peer, |settings| {
            settings.initial_window_size(8 << 20).initial_connection_window_size(64 << 20);
        })
        .await;
        let sent = Bytes::from(content(3 << 20));
        let tasks: Vec<_> =
            (0..8).map(|_| tokio::spawn(oracle::exchange(client.clone(), sent.clone()))).collect();
        for task in tasks {
            assert!(task.await.unwrap().unwrap() == (200, sent.to_vec()));
        }
        assert_eq!(ends.0.get(), (8, 0));
    });
}

#[test]
fn a_broken_preface_ends_the_connection() {
    run(|| async {
        let (io, mut peer) = ours().await;
        let (_, server) = serve(io, Rc::default());
        peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        server.await.unwrap();
        let mut all = Vec::new();
        if let Err(error) = peer.read_to_end(&mut all).await {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}
