//! HTTP/1 connections, where reuse depends on exactly what was read.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use rhumb_codec::h1::Limits;
use rhumb_codec::head::{Content, Method, RequestHead, ResponseHead, Scheme};
use rhumb_conn::Part;
use rhumb_conn::h1::{Client, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::coop::{consume_budget, has_budget_remaining};

use crate::{ours, run};

#[test]
fn content_is_not_done_before_its_last_part_is_let_go() {
    run(|| async {
        let (io, mut peer) = ours().await;
        let mut server = Server::new(io, Scheme::Http, Limits::default());
        let content = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{content}GET /next HTTP/1.1\r\nHost: a\r\n\r\n",
            content.len()
        );
        peer.write_all(request.as_bytes()).await.unwrap();
        let mut head = RequestHead::new();
        poll_fn(|cx| server.poll_request(cx, &mut head)).await.unwrap();
        let part = poll_fn(|cx| {
            server
                .poll_body(cx)
                .map(|part| matches!(part, Ok(Part::Data(data)) if data == content.as_bytes()))
        })
        .await;
        assert!(part);
        // An answer may be complete at this moment, before anybody has asked for the end of the content.
        server.send_head(&ResponseHead::with_status(200), true);
        server.send_end(None);
        assert!(!server.is_request_done() && !server.stays_open());
        let end = poll_fn(|cx| server.poll_body(cx).map(|part| matches!(part, Ok(Part::End(None))))).await;
        assert!(end && server.is_request_done() && server.stays_open());
        poll_fn(|cx| server.poll_request(cx, &mut head)).await.unwrap();
        assert_eq!(head.path(), b"/next");
    });
}

#[test]
fn a_server_stays_open_only_if_it_said_so() {
    run(|| async {
        for (version, content, keep_alive, expected) in [
            ("1.1", Content::Length(0), true, true),
            ("1.1", Content::Streamed, true, true),
            ("1.1", Content::Streamed, false, false),
            ("1.0", Content::Length(0), true, true),
            // Ends with the connection, whatever both sides would like.
            ("1.0", Content::Streamed, true, false),
            ("1.0", Content::UntilClose, true, false),
        ] {
            let (io, mut peer) = ours().await;
            let mut server = Server::new(io, Scheme::Http, Limits::default());
            let request = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
            peer.write_all(request.as_bytes()).await.unwrap();
            poll_fn(|cx| server.poll_request(cx, &mut RequestHead::new())).await.unwrap();
            let mut head = ResponseHead::with_status(200);
            head.content = content;
            server.send_head(&head, keep_alive);
            server.send_end(None);
            assert_eq!(server.stays_open(), expected, "{version} {content:?} {keep_alive}");
        }
    });
}

#[test]
fn a_2xx_to_an_upgrade_has_content() {
    run(|| async {
        let (io, mut peer) = ours().await;
        let mut client = Client::new(io, Limits::default(), Instant::now());
        let mut head = RequestHead::new();
        head.set_method(b"CONNECT");
        head.set_protocol(Some(b"websocket"));
        head.set_authority(b"a");
        head.set_target(b"/chat");
        head.content = Content::Streamed;
        client.send_head(&head);
        poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
        let mut buf = [0; 1000];
        let n = peer.read(&mut buf).await.unwrap();
        assert!(buf[..n].starts_with(b"GET /chat HTTP/1.1\r\n"));
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage").await.unwrap();
        let mut response = ResponseHead::default();
        poll_fn(|cx| client.poll_response(cx, &mut response)).await.unwrap();
        assert_eq!(response.content, Content::Length(4));
    });
}

#[test]
fn a_closed_connection_is_not_usable_however_busy_its_task_was() {
    run(|| async {
        let (io, mut peer) = ours().await;
        let mut client = Client::new(io, Limits::default(), Instant::now());
        let mut head = RequestHead::new();
        head.set_method(Method::Get.name().as_bytes());
        head.set_authority(b"a");
        head.set_target(b"/");
        client.send_head(&head);
        poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
        peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        poll_fn(|cx| client.poll_response(cx, &mut ResponseHead::default())).await.unwrap();
        assert!(client.rest(Instant::now()) && client.is_usable());
        drop(peer);
        client.io().socket().readable().await.unwrap();
        poll_fn(|cx| {
            // The runtime gives each turn of a task a budget; when it is used up, nothing is ready.
            while has_budget_remaining() {
                let _ = pin!(consume_budget()).poll(cx);
            }
            assert!(!client.is_usable());
            Poll::Ready(())
        })
        .await;
    });
}
