//! However the bytes of a connection are split, the events are the same.

use crate::support::*;
use proptest::prelude::*;
use rhumb_codec::h2::{Config, Connection, ConnectionError, ErrorCode, PREFACE, Role};
use rhumb_codec::head::ResponseHead;

/// Pieces of one DATA frame become one event, so that runs can be compared.
fn merged(seen: Vec<Seen>) -> Vec<Seen> {
    let mut merged: Vec<Seen> = Vec::new();
    for event in seen {
        match (merged.last_mut(), event) {
            (
                Some(Seen::Data { stream, data, flow, end_stream: end @ false }),
                Seen::Data { stream: next, data: more, flow: more_flow, end_stream },
            ) if *stream == next => {
                data.extend(more);
                *flow += more_flow;
                *end = end_stream;
            }
            (_, event) => merged.push(event),
        }
    }
    merged
}

/// A conversation as a client might have it: valid for the most part.
fn conversation() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let stream = (0u32..8).prop_map(|n| 2 * n + 1);
    let data = proptest::collection::vec(any::<u8>(), 0..300);
    let lines = prop_oneof![
        Just(GET.to_vec()),
        Just(POST.to_vec()),
        Just(vec![("x", "y")]),
        Just([POST, &[("content-length", "100")]].concat()),
        Just([GET, &[("cookie", "a"), ("cookie", "b"), ("X", "bad")]].concat()),
    ];
    let step = prop_oneof![
        4 => (stream.clone(), lines.clone(), any::<bool>()).prop_map(|(s, l, end)| headers(s, &l, end)),
        2 => (stream.clone(), lines, any::<bool>(), 0usize..60).prop_map(|(s, l, end, at)| {
            let whole = block(&l);
            let (a, b) = whole.split_at(at.min(whole.len()));
            [frame(HEADERS, u8::from(end), s, a), frame(CONTINUATION, END_HEADERS, s, b)].concat()
        }),
        6 => (stream.clone(), data.clone(), any::<bool>()).prop_map(|(s, d, end)| frame(DATA, u8::from(end), s, &d)),
        2 => (stream.clone(), data, 0u8..200).prop_map(|(s, mut d, pad)| {
            d.insert(0, pad);
            frame(DATA, PADDED, s, &d)
        }),
        1 => stream.clone().prop_map(|s| rst(s, ErrorCode::CANCEL)),
        1 => (stream.clone(), 0u32..100_000).prop_map(|(s, n)| window_update(s, n)),
        1 => (0u32..100_000).prop_map(|n| settings(&[(4, n)])),
        1 => any::<[u8; 8]>().prop_map(|p| frame(PING, 0, 0, &p)),
        1 => (stream, any::<u8>()).prop_map(|(s, k)| frame(k | 0x80, 0, s, b"extension")),
        1 => (0u8..10, any::<u8>(), 0u32..20, proptest::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(k, f, s, p)| frame(k, f, s, &p)),
    ];
    proptest::collection::vec(step, 1..40)
}

fn run(pieces: &[&[u8]]) -> (Vec<Seen>, Option<ConnectionError>, Vec<u8>) {
    let mut side = Side::new(Config::new(Role::Server));
    let mut seen = Vec::new();
    for piece in pieces {
        // What was seen before an error counts as well.
        let mut input = side.take_pending();
        input.extend(*piece);
        let mut at = 0;
        loop {
            match side.connection.receive(&input[at..], side.now) {
                Err(error) => return (merged(seen), Some(error), side.bytes()),
                Ok(received) => {
                    at += received.consumed;
                    if received.consumed == 0 && received.event.is_none() {
                        break;
                    }
                    seen.extend(received.event.map(Seen::of));
                }
            }
        }
        side.keep_pending(input.split_off(at));
    }
    (merged(seen), None, side.bytes())
}

proptest! {
    #[test]
    fn splits_do_not_matter(
        frames in conversation(),
        splits in proptest::collection::vec(any::<proptest::sample::Index>(), 0..60),
    ) {
        let bytes = [PREFACE.to_vec(), settings(&[]), frame(SETTINGS, ACK, 0, &[]), frames.concat()].concat();
        let whole = run(&[&bytes]);
        let mut cuts: Vec<usize> = splits.iter().map(|at| at.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        prop_assert_eq!(run(&pieces), whole);
    }

    #[test]
    fn random_bytes_never_break_a_connection(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        client in any::<bool>(),
    ) {
        let mut connection = Connection::new(Config::new(if client { Role::Client } else { Role::Server }));
        let input = if client { [settings(&[]), bytes].concat() } else { [PREFACE, &settings(&[]), &bytes].concat() };
        let mut at = 0;
        if client {
            connection.open(&request("GET", "/"), true).unwrap();
        }
        while let Ok(received) = connection.receive(&input[at..], std::time::Instant::now()) {
            prop_assert!(received.consumed <= input.len() - at);
            at += received.consumed;
            if received.consumed == 0 && received.event.is_none() {
                break;
            }
            let _ = connection.send_response(id(1), &ResponseHead::with_status(200), false);
            let _ = connection.send_data(id(1), b"x", false);
        }
    }
}
