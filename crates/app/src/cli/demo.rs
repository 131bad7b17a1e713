//! `rhumb demo`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;
use rhumb_plan::process::DEFAULT_ADMIN;

use super::Exit;
use crate::demo::{backend, sample};
use crate::logs::LogArgs;
use crate::print;
use crate::run::{Options, run as run_process};

/// The port when none is asked for; another free one is taken when it is in use.
const DEFAULT_PORT: u16 = 8080;

/// Run a gateway with sample backends, to look around
///
/// Starts three small backends on free ports of this machine and a gateway in front of them, and prints what to try.
/// The configuration is a file that can be edited while it runs. Ends with Ctrl-C.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb demo
  rhumb demo --port 9000")]
pub(crate) struct Args {
    /// Port of the gateway; 0 takes a free one. Default: 8080, or a free one when it is in use
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Admin listener
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    #[command(flatten)]
    logs: LogArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if let Err(error) = args.logs.start() {
        print::err(&format!("rhumb: {error}\n"));
        return Ok(Exit::Usage);
    }
    let port = port(args.port).context("no free port")?;
    let backends = backend::start(&sample::BACKENDS).context("sample backends")?;
    let text = sample::text(port, args.admin, &backends);
    let file = sample::SampleFile::write(&text).context("sample configuration")?;
    let path = file.path().display().to_string();
    let banner = format!(
        "
Rhumb listens on http://127.0.0.1:{port} in front of {count} sample backends. Try, in another terminal:

  curl -i http://127.0.0.1:{port}/users/7      # one of two backends, chosen by load
  curl -i http://127.0.0.1:{port}/orders/1     # another backend
  curl -i http://127.0.0.1:{port}/old/x        # a redirect
  curl -s http://{admin}/metrics         # metrics
  {program} explain -c {path} GET http://127.0.0.1:{port}/users/7

The configuration is {path}; save a change and it is live. Ctrl-C ends.
Below are the log and one line for each request.

",
        count = backends.len(),
        program = std::env::args().next().unwrap_or_else(|| "rhumb".to_owned()),
        admin = args.admin,
    );
    let options = Options {
        config: file.path(),
        token_file: None,
        pid_file: None,
        partial: false,
        origin: None,
        made: None,
        guest: None,
    };
    run_process(options, || {
        if let Err(error) = print::out(&banner) {
            tracing::debug!(%error, "standard output is gone");
        }
    })
}

/// The port to listen on.
fn port(asked: Option<u16>) -> std::io::Result<u16> {
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr().map(|address| address.port());
    match asked {
        Some(0) => free(),
        Some(port) => Ok(port),
        None if TcpListener::bind((Ipv4Addr::LOCALHOST, DEFAULT_PORT)).is_ok() => Ok(DEFAULT_PORT),
        None => free(),
    }
}
