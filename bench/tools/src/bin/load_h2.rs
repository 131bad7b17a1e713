//! The HTTP/2 load generator (h2c with prior knowledge) on one thread: some streams on each of some
//! connections, a closed loop per stream.
//!
//! With `--grpc` each request is a unary call: one message up, one message and trailers down. Prints `START`
//! and `END` around the measured window, then one line of JSON.
//!
//! usage: `load_h2 --addr A --path '/svc{}/b/1024' --routes 100 --length 1024 --conns 8 --streams 16
//! --warm 0.3 --dur 1 [--grpc 128]`

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rhumb_bench_tools::args::Args;
use rhumb_bench_tools::h2::{self, FieldBlock, Frame, flag, kind, setting};
use rhumb_bench_tools::poll::{Poller, raise_open_files};
use rhumb_bench_tools::report::{Report, mark};
use rhumb_bench_tools::request::{self, FIELDS};
use rhumb_bench_tools::tls::SERVER_NAME;

fn main() -> Result<(), String> {
    let args = Args::parse(&["addr", "path", "routes", "length", "conns", "streams", "warm", "dur", "grpc"])?;
    raise_open_files();
    let message = args.has("grpc").then(|| args.value("grpc", "128")).transpose()?;
    let load = Load {
        addr: args.value("addr", "127.0.0.1:9120")?,
        paths: request::paths(&args.value::<String>("path", "/b/1024")?, args.value("routes", "1")?),
        length: args.value("length", "1024")?,
        streams: args.value("streams", "16")?,
        warm: Duration::from_secs_f64(args.value("warm", "0.3")?),
        window: Duration::from_secs_f64(args.value("dur", "1")?),
        content: message.map(grpc_message),
    };
    if load.content.as_ref().is_some_and(|c| c.len() > h2::MAX_FRAME) {
        return Err("a message longer than one frame is not supported".to_owned());
    }
    load.run(args.value("conns", "8")?).map_err(|e| e.to_string())
}

/// gRPC's length-prefixed message: not compressed, then the length.
fn grpc_message(length: u16) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&u32::from(length).to_be_bytes());
    message.extend((b' '..=b'~').cycle().take(length.into()));
    message
}

struct Load {
    addr: SocketAddr,
    paths: Vec<String>,
    /// Expected length of each response's content. Unit: bytes.
    length: u64,
    /// Streams per connection.
    streams: usize,
    warm: Duration,
    window: Duration,
    /// Content of each request; with it, requests are gRPC calls.
    content: Option<Vec<u8>>,
}

struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Content that the proxy lets us send. Unit: bytes.
    window: i64,
    has_settings: bool,
    has_table: bool,
    must_empty_table: bool,
    pseudo: FieldBlock,
    fields: FieldBlock,
    next: u32,
    /// Requests to begin as soon as the proxy's window allows.
    wanted: usize,
    streams: HashMap<u32, Stream>,
    received: u32,
}

struct Stream {
    since: Duration,
    received: u64,
    is_success: bool,
    has_head: bool,
}

impl Load {
    fn run(&self, connections: usize) -> io::Result<()> {
        let mut poller = Poller::open()?;
        let mut all = Vec::with_capacity(connections);
        for id in 0..connections {
            let connection = Connection::open(self)?;
            poller.watch(&connection.socket, id as u64)?;
            all.push(Some(connection));
        }
        let mut run =
            Run { load: self, start: Instant::now(), counts: false, sent: 0, report: Report::default() };
        let mut ready = Vec::new();
        let mut counts_from = Duration::ZERO;
        let mut ends = self.warm + self.window;
        loop {
            let mut now = run.start.elapsed();
            if !run.counts && now >= self.warm {
                mark("START");
                now = run.start.elapsed();
                (run.counts, counts_from, ends) = (true, now, now + self.window);
            }
            if now >= ends || all.iter().all(Option::is_none) {
                break;
            }
            poller.wait(Some(TICK.min(ends - now)), &mut ready)?;
            for event in &ready {
                let place = &mut all[event.token as usize];
                let Some(connection) = place else { continue };
                if let Err(e) = run.turn(connection, event.hangup) {
                    run.report.error(|| e.to_string());
                    *place = None;
                }
            }
        }
        mark("END");
        mark(&run.report.json(run.start.elapsed().saturating_sub(counts_from)));
        Ok(())
    }
}

impl Connection {
    fn open(load: &Load) -> io::Result<Self> {
        let socket = TcpStream::connect(load.addr)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut output = h2::PREFACE.to_vec();
        let settings = [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW)];
        h2::push_settings(&mut output, &settings);
        h2::push_window_update(&mut output, 0, RECEIVE_WINDOW - h2::DEFAULT_WINDOW);
        let method = if load.content.is_some() { "POST" } else { "GET" };
        let grpc =
            [("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "grpc-bench/1.0")];
        Ok(Self {
            socket,
            input: Vec::new(),
            output,
            window: h2::DEFAULT_WINDOW.into(),
            has_settings: false,
            has_table: true,
            must_empty_table: false,
            pseudo: FieldBlock::new(&[(":method", method), (":scheme", "http"), (":authority", SERVER_NAME)]),
            fields: FieldBlock::new(if load.content.is_some() { &grpc } else { FIELDS }),
            next: 1,
            wanted: load.streams,
            streams: HashMap::new(),
            received: 0,
        })
    }

    fn begin(&mut self, path: &str, content: Option<&[u8]>, since: Duration) {
        let mut block = Vec::with_capacity(1024);
        if std::mem::take(&mut self.must_empty_table) {
            // RFC 7541 §4.2: a peer that shrinks the table is told so at the start of the next block.
            block.push(0x20);
        }
        self.pseudo.push(&mut block, self.has_table);
        h2::push_unindexed(&mut block, h2::PATH_INDEX, path);
        if self.fields.push(&mut block, self.has_table) {
            self.pseudo.newer += self.fields.entries();
        }
        let id = self.next;
        self.next += 2;
        let end = if content.is_none() { flag::END_STREAM } else { 0 };
        h2::push_frame(&mut self.output, kind::HEADERS, flag::END_HEADERS | end, id, &block);
        if let Some(content) = content {
            self.window -= content.len() as i64;
            h2::push_frame(&mut self.output, kind::DATA, flag::END_STREAM, id, content);
        }
        self.streams.insert(id, Stream { since, received: 0, is_success: false, has_head: false });
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.socket.write(&self.output[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        self.output.drain(..sent);
        Ok(())
    }
}

struct Run<'l> {
    load: &'l Load,
    start: Instant,
    /// The measured window has begun.
    counts: bool,
    sent: usize,
    report: Report,
}

impl Run<'_> {
    /// Reads, completes and begins streams, writes once.
    fn turn(&mut self, connection: &mut Connection, to_the_end: bool) -> io::Result<()> {
        loop {
            let at = connection.input.len();
            connection.input.resize(at + READ, 0);
            let read = connection.socket.read(&mut connection.input[at..]);
            connection.input.truncate(at + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(io::Error::other("the proxy closed the connection")),
                Ok(n) => {
                    self.take_input(connection)?;
                    if n < READ && !to_the_end {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        let content = self.load.content.as_deref();
        let needs = content.map_or(0, <[u8]>::len) as i64;
        let now = self.start.elapsed();
        while connection.has_settings && connection.wanted > 0 && connection.window >= needs {
            connection.wanted -= 1;
            connection.begin(&self.load.paths[self.sent % self.load.paths.len()], content, now);
            self.sent += 1;
        }
        connection.flush()
    }

    fn take_input(&mut self, connection: &mut Connection) -> io::Result<()> {
        let mut input = std::mem::take(&mut connection.input);
        let mut rest = &input[..];
        while let Some((frame, payload)) = Frame::parse(rest) {
            self.take_frame(connection, frame, payload)?;
            rest = &rest[frame.size()..];
        }
        let used = input.len() - rest.len();
        input.drain(..used);
        connection.input = input;
        if connection.received > RECEIVE_WINDOW / 2 {
            h2::push_window_update(&mut connection.output, 0, connection.received);
            connection.received = 0;
        }
        Ok(())
    }

    fn take_frame(&mut self, connection: &mut Connection, frame: Frame, payload: &[u8]) -> io::Result<()> {
        match frame.kind {
            kind::HEADERS | kind::DATA => {
                let Some(stream) = connection.streams.get_mut(&frame.stream) else {
                    return Err(io::Error::other("a frame of an unknown stream"));
                };
                if frame.kind == kind::DATA {
                    connection.received += frame.len as u32;
                    let padding = if frame.has(flag::PADDED) { 1 + usize::from(payload[0]) } else { 0 };
                    stream.received += frame.len.saturating_sub(padding) as u64;
                } else if !std::mem::replace(&mut stream.has_head, true) {
                    stream.is_success = h2::is_status_200(&frame, payload);
                }
                if frame.has(flag::END_STREAM) {
                    // A call that failed ends with its head alone, and without its message.
                    self.complete(connection, frame.stream);
                }
            }
            kind::SETTINGS if !frame.has(flag::ACK) => {
                connection.has_settings = true;
                for (id, value) in h2::settings(payload) {
                    if id == setting::HEADER_TABLE_SIZE && value < h2::DEFAULT_TABLE {
                        (connection.has_table, connection.must_empty_table) = (false, true);
                    }
                }
                h2::push_frame(&mut connection.output, kind::SETTINGS, flag::ACK, 0, &[]);
            }
            kind::PING if !frame.has(flag::ACK) => {
                h2::push_frame(&mut connection.output, kind::PING, flag::ACK, 0, payload);
            }
            kind::WINDOW_UPDATE if frame.stream == 0 => connection.window += h2::window_increment(payload),
            kind::GOAWAY => return Err(io::Error::other(format!("GOAWAY {payload:02x?}"))),
            kind::RST_STREAM => {
                connection.streams.remove(&frame.stream);
                connection.wanted += 1;
                self.report.error(|| format!("RST_STREAM {payload:02x?}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn complete(&mut self, connection: &mut Connection, id: u32) {
        let Some(stream) = connection.streams.remove(&id) else { return };
        connection.wanted += 1;
        let Stream { since, received, is_success, .. } = stream;
        if !is_success || received != self.load.length {
            self.report.error(|| format!("status 200: {is_success}, content: {received} bytes"));
        } else if self.counts {
            self.report.latency.record((self.start.elapsed() - since).as_nanos() as u64);
        }
    }
}

/// Longest wait for events: marks are at most this late.
const TICK: Duration = Duration::from_millis(5);
/// Bytes asked for by one read.
const READ: usize = 64 << 10;
/// Largest content of a response. Unit: bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// Content taken on a connection before the window is opened again. Unit: bytes.
const RECEIVE_WINDOW: u32 = 16 << 20;
