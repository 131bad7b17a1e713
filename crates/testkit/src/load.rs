//! Steady requests over kept-alive connections while something else happens to the proxy. Every answer is judged.

use crate::client::Client;
use crate::message::Message;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Failures of one connection that are kept with their text.
const KEPT: usize = 1000;

/// Failures that [`Report::first`] shows.
const SHOWN: usize = 10;

/// Running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Report>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests with the wanted answer.
    pub good: u64,
    /// Requests without.
    pub failed: u64,
    /// What the failures were, up to 1000 of each connection.
    pub failures: Vec<String>,
}

impl Report {
    /// The first failures, for messages.
    pub fn first(&self) -> &[String] {
        &self.failures[..self.failures.len().min(SHOWN)]
    }
}

impl Load {
    /// Starts `connections` threads that send `request` until stopped; `judge` says what is wrong with an answer.
    pub fn start(
        address: SocketAddr,
        connections: usize,
        request: &str,
        judge: impl Fn(&Message) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let judge = Arc::new(judge);
        let workers = (0..connections)
            .map(|_| {
                let (stop, done, judge, request) =
                    (stop.clone(), done.clone(), judge.clone(), request.to_owned());
                std::thread::spawn(move || work(address, &request, &stop, &done, &*judge))
            })
            .collect();
        Self { stop, done, workers }
    }

    /// Requests finished so far, well or badly.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests are finished.
    pub fn wait_more(&self, more: u64) {
        let goal = self.done() + more;
        crate::wait::until("the load goes on", || (self.done() >= goal).then_some(()));
    }

    /// Stops after the requests in flight.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for worker in self.workers {
            let one = worker.join().expect("a load thread that does not panic");
            all.good += one.good;
            all.failed += one.failed;
            all.failures.extend(one.failures);
        }
        all
    }
}

fn work(
    address: SocketAddr,
    request: &str,
    stop: &AtomicBool,
    done: &AtomicU64,
    judge: &dyn Fn(&Message) -> Option<String>,
) -> Report {
    let mut report = Report::default();
    let mut client: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let wrong = match exchange(&mut client, address, request) {
            Ok(response) => judge(&response),
            Err(why) => {
                client = None;
                Some(why)
            }
        };
        match wrong {
            None => report.good += 1,
            Some(why) => {
                report.failed += 1;
                if report.failures.len() < KEPT {
                    report.failures.push(why);
                }
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    report
}

fn exchange(client: &mut Option<Client>, address: SocketAddr, request: &str) -> Result<Message, String> {
    let mut open = match client.take() {
        Some(open) => open,
        None => Client::try_connect(address).map_err(|error| format!("connect: {error}"))?,
    };
    open.try_send(request).map_err(|error| format!("send: {error}"))?;
    let response = open.try_response(crate::message::Kind::Response)?;
    // RFC 9112 §9.6: after `close` the connection takes no further request.
    if !response.values("connection").any(|value| value.eq_ignore_ascii_case("close")) {
        *client = Some(open);
    }
    Ok(response)
}
