//! An open loop for overload: requests come at a fixed rate whether or not earlier ones were answered, as those of many
//! independent clients do. HTTP/1.1, plain, one thread.
//!
//! A request takes a connection that rests, else a new one, up to `--conns` of them; with none to be had it waits, at
//! most `--patience`, and is then counted as given up. Connections that the peer closes are opened anew. Prints one line
//! of JSON: answers with 200 per second (`good`), others (`refused`), requests that were given up or cut (`gone`), and the
//! latency of the good ones from the time they were sent (`sent_*`) and from the time they were due (`due_*`).
//!
//! usage: `load_open --addr A --path /b/500 --rate 60000 --conns 4000 --warm 1 --dur 5 [--patience 1]`

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rhumb_bench_tools::args::Args;
use rhumb_bench_tools::h1::ResponseReader;
use rhumb_bench_tools::histogram::Histogram;
use rhumb_bench_tools::poll::{Poller, raise_open_files};
use rhumb_bench_tools::request;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

/// Connections that are begun per turn, so that a rush of them does not keep answers waiting.
const OPENED_PER_TURN: usize = 64;

/// Longest wait for events.
const TICK: Duration = Duration::from_millis(2);

fn main() -> Result<(), String> {
    let args = Args::parse(&["addr", "path", "rate", "conns", "warm", "dur", "patience"])?;
    raise_open_files();
    let seconds = |name: &str, default: &str| args.value(name, default).map(Duration::from_secs_f64);
    let mut run = Run {
        address: args.value("addr", "127.0.0.1:9100")?,
        request: request::h1(&args.value::<String>("path", "/b/500")?, 0),
        rate: args.value("rate", "1000")?,
        most: args.value("conns", "1000")?,
        patience: seconds("patience", "1")?,
        start: Instant::now(),
        warm: seconds("warm", "1")?,
        window: seconds("dur", "5")?,
        connections: Vec::new(),
        closed: Vec::new(),
        free: Vec::new(),
        due: VecDeque::new(),
        scheduled: 0,
        tally: Tally::default(),
        buffer: vec![0; 64 << 10],
    };
    run.run().map_err(|error| error.to_string())
}

struct Connection {
    stream: TcpStream,
    response: ResponseReader,
    /// Sent at and due at, while a request is on its way.
    under_way: Option<(Duration, Duration)>,
}

#[derive(Default)]
struct Tally {
    good: u64,
    refused: u64,
    given_up: u64,
    cut: u64,
    sent: Histogram,
    due: Histogram,
    refusal: Histogram,
}

struct Run {
    address: SocketAddr,
    request: Vec<u8>,
    rate: f64,
    most: usize,
    patience: Duration,
    start: Instant,
    warm: Duration,
    window: Duration,
    connections: Vec<Option<Connection>>,
    /// Places of connections that are to be opened.
    closed: Vec<usize>,
    /// Connections that rest, the latest last: used first, so that no more are open than need be.
    free: Vec<usize>,
    due: VecDeque<Duration>,
    scheduled: u64,
    tally: Tally,
    buffer: Vec<u8>,
}

impl Run {
    fn run(&mut self) -> io::Result<()> {
        let mut poller = Poller::open()?;
        let mut ready = Vec::new();
        loop {
            let now = self.start.elapsed();
            if now >= self.warm + self.window {
                break;
            }
            let wait = self.dispatch(&poller, now)?;
            poller.wait(Some(wait), &mut ready)?;
            for event in &ready {
                let place = event.token as usize;
                if event.readable {
                    self.read(place);
                } else if event.writable {
                    self.begin(place);
                }
            }
        }
        let Tally { good, refused, given_up, cut, sent, due, refusal } = &self.tally;
        let per_second = |n: &u64| *n as f64 / self.window.as_secs_f64();
        let ms = |of: &Histogram, part: f64| of.quantile(part) as f64 / 1e6;
        println!(
            "{{\"good\": {:.0}, \"refused\": {:.0}, \"given_up\": {:.0}, \"cut\": {:.0}, \"open\": {}, \
             \"sent_p50\": {:.2}, \"sent_p99\": {:.2}, \"due_p50\": {:.2}, \"due_p99\": {:.2}, \"refusal_p50\": {:.2}}}",
            per_second(good),
            per_second(refused),
            per_second(given_up),
            per_second(cut),
            self.connections.iter().flatten().count(),
            ms(sent, 0.5),
            ms(sent, 0.99),
            ms(due, 0.5),
            ms(due, 0.99),
            ms(refusal, 0.5),
        );
        Ok(())
    }

    fn counts(&self) -> bool {
        self.start.elapsed() >= self.warm
    }

    /// Sends what is due; how long until something else is.
    fn dispatch(&mut self, poller: &Poller, now: Duration) -> io::Result<Duration> {
        let intended = |n: u64, rate: f64| Duration::from_secs_f64(n as f64 / rate);
        while intended(self.scheduled, self.rate) <= now {
            self.due.push_back(intended(self.scheduled, self.rate));
            self.scheduled += 1;
        }
        while self.due.front().is_some_and(|due| *due + self.patience < now) {
            self.due.pop_front();
            self.tally.given_up += u64::from(self.counts());
        }
        let mut opened = 0;
        while let Some(due) = self.due.front().copied() {
            if let Some(place) = self.free.pop() {
                self.due.pop_front();
                if let Some(Some(connection)) = self.connections.get_mut(place) {
                    connection.under_way = Some((now, due));
                }
                self.send(place);
                continue;
            }
            if opened == OPENED_PER_TURN || self.closed.is_empty() && self.connections.len() >= self.most {
                break;
            }
            opened += 1;
            self.due.pop_front();
            self.open(poller, due)?;
        }
        Ok((intended(self.scheduled, self.rate).saturating_sub(self.start.elapsed())).min(TICK))
    }

    /// Begins a connection, which sends the request once it is there.
    fn open(&mut self, poller: &Poller, due: Duration) -> io::Result<()> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        match connect(&socket, &self.address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(_) => {
                self.tally.cut += u64::from(self.counts());
                return Ok(());
            }
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        let under_way = Some((Duration::MAX, due));
        let connection = Connection { stream, response: ResponseReader::default(), under_way };
        let place = self.closed.pop().unwrap_or(self.connections.len());
        poller.watch(&connection.stream, place as u64)?;
        match self.connections.get_mut(place) {
            Some(slot) => *slot = Some(connection),
            None => self.connections.push(Some(connection)),
        }
        Ok(())
    }

    /// The first writable edge of a connection: its request goes out.
    fn begin(&mut self, place: usize) {
        let now = self.start.elapsed();
        let Some(Some(connection)) = self.connections.get_mut(place) else { return };
        if let Some((sent, _)) = &mut connection.under_way
            && *sent == Duration::MAX
        {
            *sent = now;
            self.send(place);
        }
    }

    fn send(&mut self, place: usize) {
        let Some(Some(connection)) = self.connections.get_mut(place) else { return };
        // A request fits into the buffer of a socket that has none in it.
        if !matches!(connection.stream.write(&self.request), Ok(n) if n == self.request.len()) {
            self.lose(place);
        }
    }

    fn lose(&mut self, place: usize) {
        let counts = self.counts();
        let Some(slot) = self.connections.get_mut(place) else { return };
        if let Some(connection) = slot.take() {
            self.tally.cut += u64::from(counts && connection.under_way.is_some());
            self.free.retain(|free| *free != place);
            self.closed.push(place);
        }
    }

    fn read(&mut self, place: usize) {
        loop {
            let Some(Some(connection)) = self.connections.get_mut(place) else { return };
            let n = match connection.stream.read(&mut self.buffer) {
                Ok(0) => return self.lose(place),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.lose(place),
            };
            let Ok(answer) = connection.response.feed(&self.buffer[..n]) else { return self.lose(place) };
            let Some(answer) = answer else { continue };
            let Some((sent, due)) = connection.under_way.take() else { return self.lose(place) };
            self.free.push(place);
            let now = self.start.elapsed();
            if now < self.warm {
                continue;
            }
            let nanos = |since: Duration| u64::try_from(now.saturating_sub(since).as_nanos()).unwrap_or(u64::MAX);
            if answer.status == 200 {
                self.tally.good += 1;
                self.tally.sent.record(nanos(sent));
                self.tally.due.record(nanos(due));
            } else {
                self.tally.refused += 1;
                self.tally.refusal.record(nanos(sent));
            }
        }
    }
}
