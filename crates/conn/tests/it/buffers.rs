//! What is read is what was sent, and what was written arrives, however sockets cut it.

use std::future::poll_fn;
use std::task::Poll;

use proptest::prelude::*;
use rhumb_conn::input::Input;
use rhumb_conn::io::Io;
use rhumb_conn::output::{HIGH_WATER, Output};
use rhumb_net::buffer::SIZE;

use crate::{ours, run};

#[derive(Clone, Debug)]
enum Step {
    /// The peer sends so many bytes.
    Send(usize),
    /// We read once.
    Fill,
    /// We take so many.
    Consume(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..20_000).prop_map(Step::Send),
        (0usize..20).prop_map(Step::Send),
        Just(Step::Fill),
        (0usize..30_000).prop_map(Step::Consume),
        (0usize..3).prop_map(Step::Consume),
    ]
}

fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

/// Writes what the socket takes.
async fn flush(output: &mut Output, io: &mut Io) {
    poll_fn(|cx| Poll::Ready(output.poll_flush(io, cx).map(Result::unwrap).is_ready())).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn input_is_a_queue_of_bytes(steps in proptest::collection::vec(step(), 1..100)) {
        run(|| async {
            let (mut io, peer) = ours().await;
            let mut input = Input::default();
            let (mut sent, mut read, mut taken) = (0, 0, 0);
            for step in steps {
                match step {
                    Step::Send(count) => {
                        let bytes: Vec<u8> = (sent..sent + count).map(byte).collect();
                        peer.writable().await.unwrap();
                        sent += peer.try_write(&bytes).unwrap_or(0);
                    }
                    Step::Fill if input.is_full() => {}
                    // Reads what is on the way, or finds that nothing is.
                    Step::Fill => read += poll_fn(|cx| match input.poll_fill(&mut io, cx) {
                        Poll::Pending if read < sent => Poll::Pending,
                        Poll::Pending => Poll::Ready(0),
                        Poll::Ready(n) => Poll::Ready(n.unwrap()),
                    })
                    .await,
                    Step::Consume(count) => {
                        taken += count.min(input.data().len());
                        input.consume(count);
                    }
                }
                assert_eq!(input.data().len(), read - taken);
                let mutable = input.data_mut().to_vec();
                assert_eq!(input.data(), mutable);
                assert!(input.data().iter().enumerate().all(|(at, have)| *have == byte(taken + at)));
                assert!(input.data().len() <= SIZE && input.is_empty() == (read == taken));
            }
        });
    }

    #[test]
    fn output_arrives_in_order_and_never_grows(
        steps in proptest::collection::vec((0usize..40_000, 0usize..60_000, any::<bool>()), 1..150)
    ) {
        run(|| async {
            let (mut io, peer) = ours().await;
            socket2::SockRef::from(io.socket()).set_send_buffer_size(16 << 10).unwrap();
            socket2::SockRef::from(&peer).set_recv_buffer_size(16 << 10).unwrap();
            let mut output = Output::default();
            let (mut written, mut received) = (0usize, 0);
            let mut buf = vec![0; 60_000];
            for (write, read, is_encoded) in steps {
                let bytes: Vec<u8> = (written..written + write).map(byte).collect();
                if output.pending() < HIGH_WATER {
                    written += write;
                    if is_encoded {
                        output.buffer().extend_from_slice(&bytes);
                    } else {
                        poll_fn(|cx| Poll::Ready(output.write(&mut io, cx, &bytes))).await.unwrap();
                    }
                }
                flush(&mut output, &mut io).await;
                assert!(output.pending() < HIGH_WATER + 40_000);
                // Not everything: the writer is to be behind.
                if let Ok(n) = peer.try_read(&mut buf[..read]) {
                    assert!(buf[..n].iter().enumerate().all(|(at, have)| *have == byte(received + at)));
                    received += n;
                }
                assert!(received <= written && received + output.pending() <= written);
            }
            let capacity = output.buffer().capacity();
            // What is written but not yet cut off, what waits, and the largest piece; and vectors grow to twice their size.
            assert!(capacity <= 2 * (HIGH_WATER + HIGH_WATER + 40_000), "{capacity} bytes");
            while received < written {
                // Both at once: an acknowledgement that comes late makes room without making the peer readable.
                poll_fn(|cx| {
                    let _ = output.poll_flush(&mut io, cx).map(Result::unwrap);
                    peer.poll_read_ready(cx)
                })
                .await
                .unwrap();
                if let Ok(n) = peer.try_read(&mut buf) {
                    assert!(n > 0 && buf[..n].iter().enumerate().all(|(at, have)| *have == byte(received + at)));
                    received += n;
                }
            }
            assert!(output.is_empty());
        });
    }
}
