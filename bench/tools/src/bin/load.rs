//! The HTTP/1.1 load generator, plain or TLS, on one thread.
//!
//! Closed loop (each connection sends its next request when the last one is answered) or `--rate` per second
//! (latency counts from the intended time of sending, so a proxy that stalls cannot hide it). Prints `START`
//! and `END` around the measured window, then one line of JSON.
//!
//! With `--hold` it opens the connections one after the other, makes one request on each, prints `READY`,
//! and keeps them open until its standard input ends.
//!
//! usage: `load --addr A --path '/svc{}/b/1024' --routes 100 --length 1024 --conns 64 --warm 0.3 --dur 1
//! [--rate 4000] [--post 16384] [--tls ca.crt] [--authorization 'Bearer …'] [--api-key K] [--hold] [--verbose]`

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_bench_tools::args::Args;
use rhumb_bench_tools::h1::{Response, ResponseReader};
use rhumb_bench_tools::poll::{Poller, Ready, raise_open_files};
use rhumb_bench_tools::report::{Report, mark};
use rhumb_bench_tools::{request, tls};
use rustls::ClientConfig;

fn main() -> Result<(), String> {
    let args = Args::parse(&[
        "addr", "path", "routes", "length", "conns", "warm", "dur", "rate", "post", "tls", "authorization", "api-key",
        "hold", "verbose",
    ])?;
    raise_open_files();
    let content = args.value("post", "0")?;
    let credentials = [("authorization", "authorization"), ("api-key", "x-api-key")];
    let mut other: Vec<(&str, String)> = Vec::new();
    for (arg, name) in credentials.into_iter().filter(|(arg, _)| args.has(arg)) {
        other.push((name, args.value(arg, "")?));
    }
    let other: Vec<(&str, &str)> = other.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let paths = request::paths(&args.value::<String>("path", "/b/1024")?, args.value("routes", "1")?);
    let load = Load {
        addr: args.value("addr", "127.0.0.1:9100")?,
        requests: paths.iter().map(|path| request::h1_with(path, content, &other)).collect(),
        length: args.value("length", "1024")?,
        connections: args.value("conns", "64")?,
        warm: Duration::from_secs_f64(args.value("warm", "0.3")?),
        window: Duration::from_secs_f64(args.value("dur", "1")?),
        rate: args.value("rate", "0")?,
        tls: if args.has("tls") {
            let roots = args.value::<std::path::PathBuf>("tls", "")?;
            Some(tls::config(&roots, rustls::client::Resumption::disabled())?)
        } else {
            None
        },
    };
    let done = if args.has("hold") { load.hold() } else { load.run(args.has("verbose")) };
    done.map_err(|e| e.to_string())
}

struct Load {
    addr: SocketAddr,
    /// One per route, whole; sent in turn.
    requests: Vec<Vec<u8>>,
    /// Expected length of each response's content. Unit: bytes.
    length: u64,
    connections: usize,
    warm: Duration,
    window: Duration,
    /// Requests per second; 0 is a closed loop.
    rate: f64,
    tls: Option<Arc<ClientConfig>>,
}

struct Connection {
    stream: TcpStream,
    tls: Option<Box<tls::TlsClient>>,
    response: ResponseReader,
    /// The request that is on its way, and how much of it was written (TLS keeps that itself).
    request: usize,
    written: usize,
    /// Since when the request under way counts; none when the connection is free.
    since: Option<Duration>,
    is_open: bool,
}

impl Load {
    fn connect(&self) -> io::Result<Connection> {
        let mut stream = TcpStream::connect(self.addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut tls = None;
        if let Some(config) = &self.tls {
            let mut client = Box::new(tls::TlsClient::new(Arc::clone(config))?);
            client.shake_hands(&mut stream)?;
            tls = Some(client);
        }
        let response = ResponseReader::default();
        Ok(Connection { stream, tls, response, request: 0, written: 0, since: None, is_open: true })
    }

    fn run(&self, verbose: bool) -> io::Result<()> {
        let mut poller = Poller::open()?;
        let mut connections = Vec::with_capacity(self.connections);
        for id in 0..self.connections {
            let connection = self.connect()?;
            connection.stream.set_nonblocking(true)?;
            poller.watch(&connection.stream, id as u64)?;
            connections.push(connection);
        }
        if let (true, Some(tls)) = (verbose, connections.first().and_then(|c| c.tls.as_ref())) {
            eprintln!("{}", tls.parameters());
        }
        let mut run = Run {
            load: self,
            start: Instant::now(),
            connections,
            free: (0..self.connections).collect(),
            due: VecDeque::new(),
            sent: 0,
            scheduled: 0,
            counts_from: None,
            report: Report::default(),
            buffer: vec![0; READ],
        };
        run.run(&mut poller)
    }

    fn hold(&self) -> io::Result<()> {
        let mut held = Vec::with_capacity(self.connections);
        let mut buffer = vec![0; READ];
        for i in 0..self.connections {
            let mut connection = self.connect()?;
            let request = &self.requests[i % self.requests.len()];
            let response = connection.exchange(request, &mut buffer)?;
            if (response.status, response.length) != (200, self.length) {
                return Err(io::Error::other(format!("connection {i}: {response:?}")));
            }
            // What an idle client keeps is not measured, but 1 500 read buffers need not be there either.
            held.push(connection.stream);
        }
        mark("READY");
        io::stdin().read_to_end(&mut Vec::new()).map(|_| ())
    }
}

impl Connection {
    /// One exchange on a socket that blocks.
    fn exchange(&mut self, request: &[u8], buffer: &mut [u8]) -> io::Result<Response> {
        match &mut self.tls {
            None => self.stream.write_all(request)?,
            Some(tls) => {
                tls.queue(request);
                tls.send(&mut self.stream)?;
            }
        }
        let mut answer = None;
        while answer.is_none() {
            let is_open = self.read_once(buffer, &mut answer)?;
            if !is_open && answer.is_none() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Reads once and gives the response when it is complete. False when the peer closed.
    fn read_once(&mut self, buffer: &mut [u8], answer: &mut Option<Response>) -> io::Result<bool> {
        let Self { stream, tls, response, .. } = self;
        let mut feed = |bytes: &[u8]| {
            let done = response.feed(bytes).map_err(|e| io::Error::other(e.0))?;
            *answer = answer.take().or(done);
            Ok(())
        };
        match tls {
            None => {
                let n = stream.read(buffer)?;
                if n > 0 {
                    feed(&buffer[..n])?;
                }
                Ok(n > 0)
            }
            Some(tls) => tls.drive(stream, feed),
        }
    }
}

struct Run<'l> {
    load: &'l Load,
    start: Instant,
    connections: Vec<Connection>,
    /// Connections without a request, in the order they became free.
    free: VecDeque<usize>,
    /// Intended times of requests that wait for a free connection. Bounded by rate times duration.
    due: VecDeque<Duration>,
    sent: usize,
    scheduled: u64,
    /// When the measured window began.
    counts_from: Option<Duration>,
    report: Report,
    buffer: Vec<u8>,
}

impl Run<'_> {
    fn run(&mut self, poller: &mut Poller) -> io::Result<()> {
        let mut ready = Vec::new();
        let mut ends = self.load.warm + self.load.window;
        loop {
            let mut now = self.start.elapsed();
            if self.counts_from.is_none() && now >= self.load.warm {
                mark("START");
                now = self.start.elapsed();
                self.counts_from = Some(now);
                ends = now + self.load.window;
            }
            if now >= ends {
                break;
            }
            if self.connections.iter().all(|c| !c.is_open) {
                self.report.error(|| "no connection is left".to_owned());
                break;
            }
            let wait = self.dispatch(now).min(ends - now).min(TICK);
            poller.wait(Some(wait), &mut ready)?;
            ready.iter().for_each(|event| self.on_ready(*event));
        }
        mark("END");
        self.report.overdue = self.due.len() as u64;
        let window = self.start.elapsed().saturating_sub(self.counts_from.unwrap_or_default());
        mark(&self.report.json(window));
        Ok(())
    }

    /// Sends what is due on free connections; how long until the next request is due.
    fn dispatch(&mut self, now: Duration) -> Duration {
        let mut wait = TICK;
        if self.load.rate > 0.0 {
            let intended = |n: u64| Duration::from_secs_f64(n as f64 / self.load.rate);
            while intended(self.scheduled) <= now {
                self.due.push_back(intended(self.scheduled));
                self.scheduled += 1;
            }
            wait = intended(self.scheduled) - now;
        }
        while let Some(id) = self.free.front().copied() {
            let since = if self.load.rate > 0.0 { self.due.pop_front() } else { Some(now) };
            let Some(since) = since else { break };
            self.free.pop_front();
            self.send(id, since);
        }
        wait
    }

    fn send(&mut self, id: usize, since: Duration) {
        let connection = &mut self.connections[id];
        connection.since = Some(since);
        connection.request = self.sent % self.load.requests.len();
        connection.written = 0;
        self.sent += 1;
        if let Some(tls) = &mut connection.tls {
            tls.queue(&self.load.requests[connection.request]);
        }
        self.write(id);
    }

    fn write(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        let result = match &mut connection.tls {
            Some(tls) => tls.send(&mut connection.stream),
            None if connection.since.is_some() => {
                let request = &self.load.requests[connection.request];
                match connection.stream.write(&request[connection.written..]) {
                    Ok(n) => {
                        connection.written += n;
                        Ok(())
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
                    Err(e) => Err(e),
                }
            }
            None => Ok(()),
        };
        if let Err(e) = result {
            self.lose(id, &e.to_string());
        }
    }

    fn on_ready(&mut self, event: Ready) {
        let id = event.token as usize;
        if !self.connections[id].is_open {
            return;
        }
        let is_writing = self.connections[id].since.is_some();
        let length = self.load.requests[self.connections[id].request].len();
        if event.writable && is_writing && (self.connections[id].written < length) {
            self.write(id);
        }
        if event.readable {
            self.read(id, event.hangup);
        }
    }

    fn read(&mut self, id: usize, to_the_end: bool) {
        while self.connections[id].is_open {
            let mut answer = None;
            match self.connections[id].read_once(&mut self.buffer, &mut answer) {
                Ok(true) => {}
                Ok(false) => {
                    self.lose(id, "the proxy closed the connection");
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    self.lose(id, &e.to_string());
                    return;
                }
            }
            if let Some(response) = answer {
                self.complete(id, response);
                if !to_the_end {
                    // The next response cannot be there yet, and its edge will tell.
                    return;
                }
            } else if self.connections[id].tls.is_some() && !to_the_end {
                return;
            }
        }
    }

    fn complete(&mut self, id: usize, response: Response) {
        let now = self.start.elapsed();
        let Some(since) = self.connections[id].since.take() else {
            self.lose(id, "a response without a request");
            return;
        };
        if response.status / 100 != 2 || response.length != self.load.length {
            self.report.error(|| format!("{response:?}"));
        } else if self.counts_from.is_some() {
            self.report.latency.record((now - since).as_nanos() as u64);
        }
        if self.load.rate > 0.0 {
            self.free.push_back(id);
        } else {
            self.send(id, now);
        }
    }

    fn lose(&mut self, id: usize, why: &str) {
        self.connections[id].is_open = false;
        self.connections[id].since = None;
        self.free.retain(|free| *free != id);
        self.report.error(|| why.to_owned());
    }
}

/// Bytes asked for by one read.
const READ: usize = 256 << 10;
/// Longest wait for events: marks are at most this late.
const TICK: Duration = Duration::from_millis(5);
/// How long a connection that is being set up waits for the proxy.
const PATIENCE: Duration = Duration::from_secs(10);
