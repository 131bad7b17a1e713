//! Steady requests over streams of HTTP/2 by a client that heeds GOAWAY (RFC 9113 §6.8): it begins nothing more on that
//! connection, waits for what was taken on, and goes on over another one. What was begun and not taken on is not lost.

use crate::h2::{self, Connection, End, code, kind};
use crate::load::Report;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Streams that one connection is used for at most: the identifiers are odd numbers below 2³¹.
const STREAMS_MAX: u32 = 1 << 20;

/// Running load, on one connection at a time.
pub struct StreamLoad {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Report, u64)>,
}

impl StreamLoad {
    /// Asks for `path` with prior knowledge, `at_once` streams at a time, until stopped. Every answer has to be 200 with
    /// content of this length.
    pub fn start(address: SocketAddr, at_once: usize, path: &str, length: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, path) = (Arc::clone(&stop), path.to_owned());
        let thread = std::thread::spawn(move || {
            let (mut report, mut connections) = (Report::default(), 0);
            while !stopped.load(Ordering::Relaxed) {
                connections += 1;
                work(Connection::open(address, &[]), at_once, &path, length, &stopped, &mut report);
            }
            (report, connections)
        });
        Self { stop, thread }
    }

    /// Stops after the requests in flight; what came of them, and over how many connections.
    pub fn stop(self) -> (Report, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a load thread that does not panic")
    }
}

/// Uses one connection until it is told to go.
fn work(
    mut connection: Connection,
    at_once: usize,
    path: &str,
    length: usize,
    stop: &AtomicBool,
    report: &mut Report,
) {
    let mut open = BTreeSet::new();
    let (mut next, mut is_leaving) = (1, false);
    loop {
        is_leaving |= stop.load(Ordering::Relaxed) || next > STREAMS_MAX;
        let mut requests = Vec::new();
        while !is_leaving && open.len() < at_once {
            requests.extend(h2::headers(next, &h2::get("a.test", path, &[]), true));
            open.insert(next);
            next += 2;
        }
        // What could not be written may have been answered with GOAWAY: reading tells.
        let _ = connection.try_send(&requests);
        if open.is_empty() {
            return;
        }
        let frame = match connection.frame() {
            Ok(frame) => frame,
            Err(end) => {
                let how = if end == End::Closed { "closed" } else { "silent" };
                open.iter().for_each(|id| fail(report, format!("stream {id} of a connection that is {how}")));
                return;
            }
        };
        let carried = u32::try_from(frame.payload.len()).unwrap_or(0);
        match frame.kind {
            kind::GOAWAY => {
                is_leaving = true;
                let last = frame.payload.first_chunk::<4>().map_or(0, |last| u32::from_be_bytes(*last));
                open.retain(|id| *id <= last);
                if frame.code() != Some(code::NO_ERROR) {
                    fail(report, format!("GOAWAY with {:?}", frame.code()));
                }
            }
            // RFC 9113 §8.7: it was not processed, and is asked for again.
            kind::RST_STREAM if frame.code() == Some(code::REFUSED_STREAM) => {
                open.remove(&frame.stream);
            }
            kind::DATA if carried > 0 => {
                let _ = connection.try_send(&h2::window(0, carried));
            }
            _ => {}
        }
        if (frame.ends() || frame.kind == kind::RST_STREAM) && open.remove(&frame.stream) {
            match connection.answer(frame.stream) {
                Ok(answer) if answer.status == 200 && answer.content.len() == length => report.good += 1,
                other => fail(report, format!("stream {}: {other:?}", frame.stream)),
            }
        }
    }
}

fn fail(report: &mut Report, what: String) {
    report.failed += 1;
    if report.failures.len() < 1000 {
        report.failures.push(what);
    }
}
