//! `rhumb demo`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;
use rhumb_plan::process::DEFAULT_ADMIN;

use super::Exit;
use crate::demo::{backend, mesh, sample};
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
  rhumb demo --port 9000
  rhumb demo mesh                         a gateway and three services with their sidecars
  rhumb demo mesh --check")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    of: Option<Of>,
    /// Port of the gateway; 0 takes a free one. Default: 8080, or a free one when it is in use
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Admin listener
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    #[command(flatten)]
    logs: LogArgs,
}

/// What else there is to look at.
#[derive(clap::Subcommand, Debug)]
enum Of {
    Mesh(MeshArgs),
    #[command(hide = true)]
    Service(ServiceArgs),
    #[command(hide = true)]
    Call(CallArgs),
}

/// Run a gateway and three services that call each other through a mesh
///
/// Every service is a process with its sidecar and an identity of its own. As root, each has a network namespace, and its
/// connections are intercepted; else they run side by side and call addresses of their own machine.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb demo mesh
  rhumb demo mesh --check                 run, verify, print one line, end
  rhumb demo mesh --loopback              without namespaces, also as root")]
struct MeshArgs {
    /// Verify that calls cross all of it and that strangers are refused, print one line, and end; exit code 1 when not
    #[arg(long)]
    check: bool,
    /// Run side by side on this machine, also where namespaces can be had
    #[arg(long)]
    loopback: bool,
    #[command(flatten)]
    logs: LogArgs,
}

/// What the services of the demonstration are
#[derive(clap::Args, Debug)]
struct ServiceArgs {
    name: String,
    address: SocketAddr,
    next: Option<String>,
}

/// Call a URL once, print status and content, and end with 0 when it was 200
#[derive(clap::Args, Debug)]
struct CallArgs {
    url: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.of {
        Some(Of::Mesh(asked)) => {
            if let Err(error) = asked.logs.start() {
                print::err(&format!("rhumb: {error}\n"));
                return Ok(Exit::Usage);
            }
            return mesh::run(&mesh::Options { check: asked.check, loopback: asked.loopback });
        }
        Some(Of::Service(asked)) => {
            mesh::service::serve(&asked.name, asked.address, asked.next.as_deref())
                .with_context(|| format!("service {} on {}", asked.name, asked.address))?;
            return Ok(Exit::Ok);
        }
        Some(Of::Call(asked)) => {
            let (status, content) = mesh::service::ask(&asked.url).with_context(|| asked.url.clone())?;
            print::out(&format!("{status} {content}\n"))?;
            return Ok(if status == 200 { Exit::Ok } else { Exit::Runtime });
        }
        None => {}
    }
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
  http://{admin}/                        # in a browser: the dashboard; the log says where its token is
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
        admin_directory: None,
        pid_file: None,
        partial: false,
        origin: None,
        made: None,
        guest: None,
        embedded: None,
        member: None,
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
