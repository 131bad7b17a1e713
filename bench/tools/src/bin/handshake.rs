//! The TLS handshake generator: connect, shake hands, one request, close; again and again on some slots.
//!
//! With `--resume` each slot resumes its last session, without early data. Prints `START` and `END` around
//! the measured window, then one line of JSON; a "request" is a whole connection.
//!
//! usage: `handshake --addr A --tls ca.crt --path '/svc00000/b/128' --length 128 --slots 16 --warm 0.3 --dur 1
//! [--resume] [--verbose]`

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_bench_tools::args::Args;
use rhumb_bench_tools::h1::{Response, ResponseReader};
use rhumb_bench_tools::poll::{Poller, raise_open_files};
use rhumb_bench_tools::report::{Report, mark};
use rhumb_bench_tools::request;
use rhumb_bench_tools::tls::{self, Tickets, TlsClient};
use rustls::ClientConfig;
use rustls::client::Resumption;

fn main() -> Result<(), String> {
    let args = Args::parse(&["addr", "tls", "path", "length", "slots", "warm", "dur", "resume", "verbose"])?;
    raise_open_files();
    let load = Load {
        addr: args.value("addr", "127.0.0.1:9100")?,
        request: request::h1(&args.value::<String>("path", "/b/128")?, 0),
        length: args.value("length", "128")?,
        warm: Duration::from_secs_f64(args.value("warm", "0.3")?),
        window: Duration::from_secs_f64(args.value("dur", "1")?),
        verbose: args.has("verbose"),
    };
    let roots: PathBuf = args.value("tls", "ca.crt")?;
    let configs = (0..args.value("slots", "16")?)
        .map(|_| {
            let resumption = if args.has("resume") {
                Resumption::store(Arc::new(Tickets::default()))
            } else {
                Resumption::disabled()
            };
            tls::config(&roots, resumption)
        })
        .collect::<Result<Vec<_>, _>>()?;
    load.run(&configs).map_err(|e| e.to_string())
}

struct Load {
    addr: SocketAddr,
    request: Vec<u8>,
    length: u64,
    warm: Duration,
    window: Duration,
    verbose: bool,
}

struct Slot {
    stream: TcpStream,
    tls: TlsClient,
    response: ResponseReader,
    since: Duration,
}

impl Load {
    fn run(&self, configs: &[Arc<ClientConfig>]) -> io::Result<()> {
        let mut poller = Poller::open()?;
        let start = Instant::now();
        let mut slots = Vec::with_capacity(configs.len());
        for (id, config) in configs.iter().enumerate() {
            slots.push(self.open(&poller, id, config, start.elapsed())?);
        }
        let mut report = Report::default();
        let mut counts_from = None;
        let mut ends = self.warm + self.window;
        let mut ready = Vec::new();
        loop {
            let mut now = start.elapsed();
            if counts_from.is_none() && now >= self.warm {
                mark("START");
                now = start.elapsed();
                counts_from = Some(now);
                ends = now + self.window;
            }
            if now >= ends {
                break;
            }
            poller.wait(Some(TICK.min(ends - now)), &mut ready)?;
            for event in &ready {
                let id = event.token as usize;
                let slot = &mut slots[id];
                let outcome = match slot.turn() {
                    Ok(None) => continue,
                    Ok(Some(response)) if (response.status, response.length) == (200, self.length) => Ok(()),
                    Ok(Some(response)) => Err(format!("{response:?}")),
                    Err(e) => Err(e.to_string()),
                };
                let now = start.elapsed();
                if let Err(words) = outcome {
                    report.error(|| words);
                    // A proxy that refuses is not asked again thousands of times.
                    if report.errors > MAX_ERRORS {
                        ends = now;
                        break;
                    }
                } else if counts_from.is_some() {
                    report.latency.record((now - slot.since).as_nanos() as u64);
                    report.resumed += u64::from(slot.tls.is_resumed());
                }
                if self.verbose && counts_from.is_none() {
                    eprintln!("{}", slot.tls.parameters());
                }
                *slot = self.open(&poller, id, &configs[id], now)?;
            }
        }
        mark("END");
        let window = start.elapsed().saturating_sub(counts_from.unwrap_or_default());
        mark(&report.json(window));
        Ok(())
    }

    fn open(
        &self,
        poller: &Poller,
        id: usize,
        config: &Arc<ClientConfig>,
        since: Duration,
    ) -> io::Result<Slot> {
        let stream = TcpStream::connect(self.addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        poller.watch(&stream, id as u64)?;
        let mut tls = TlsClient::new(Arc::clone(config))?;
        tls.queue(&self.request);
        Ok(Slot { stream, tls, response: ResponseReader::default(), since })
    }
}

impl Slot {
    /// Goes on with the handshake or the exchange; the response when it is complete.
    fn turn(&mut self) -> io::Result<Option<Response>> {
        let mut answer = None;
        let response = &mut self.response;
        let is_open = self.tls.drive(&mut self.stream, |bytes| {
            answer = response.feed(bytes).map_err(|e| io::Error::other(e.0))?;
            Ok(())
        })?;
        if !is_open && answer.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }
}

/// Longest wait for events: marks are at most this late.
const TICK: Duration = Duration::from_millis(5);
/// Errors after which the run ends.
const MAX_ERRORS: u64 = 1000;
