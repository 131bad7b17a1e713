//! `rhumb run`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;

use super::Exit;
use crate::config::ConfigArg;
use crate::embedded::EmbeddedOptions;
use crate::logs::LogArgs;
use crate::print;
use crate::remote::RemoteArgs;
use crate::run::{Options, run as run_process};
use crate::upgrade::Origin;

/// Run the gateway
///
/// Reads the configuration, listens, and serves until SIGTERM. A change of the configuration's files is taken over by
/// itself, as a whole or not at all; SIGHUP does the same. SIGUSR2 starts the binary anew, which takes the listening
/// sockets over; this process then finishes what it has.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb run                       rhumb.yaml of this directory
  rhumb run -c /etc/rhumb/        every document of a directory
  rhumb run -c rhumb.yaml --log-level debug --log-format json
  rhumb run -c shop.yaml --control-plane --directory ./control
  rhumb run -c edge.yaml --control 10.0.0.5:15012 --gateway shop/edge --join-token-file token")]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// File with the token that opens the admin listener; written when it does not exist. Default: a file of this
    /// user's runtime directory, found by the other verbs by themselves
    #[arg(long, value_name = "FILE", env = "RHUMB_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Directory of named tokens and of the audit log. Default: that of the service's state (systemd), or that of the token
    #[arg(long, value_name = "DIR", env = "RHUMB_ADMIN_DIRECTORY")]
    admin_directory: Option<PathBuf>,
    /// File that tells the id of the process that serves; written when it is ready, by its successor too
    #[arg(long, value_name = "FILE", env = "RHUMB_PID_FILE")]
    pid_file: Option<PathBuf>,
    /// Serve what is right: a document with mistakes refuses its own traffic (500), the others work. Default: a
    /// configuration with mistakes is not taken over at all
    #[arg(long)]
    partial: bool,
    /// Be the control plane of a mesh too, at this address: sidecars join it with tokens, the files are its documents
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "127.0.0.1:15012",
        conflicts_with_all = ["control", "partial"]
    )]
    control_plane: Option<SocketAddr>,
    /// Directory of that control plane: documents, certificate authority, the identity of the gateway
    #[arg(long, value_name = "PATH", env = "RHUMB_CONTROL_DIRECTORY", requires = "control_plane", default_value = super::control::DEFAULT_DIRECTORY)]
    directory: PathBuf,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    logs: LogArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    if let Err(error) = args.logs.start() {
        print::err(&format!("rhumb: {error}\n"));
        return Ok(Exit::Usage);
    }
    let config = match args.config.path() {
        Ok(path) => path,
        Err(error) => {
            print::err(&format!("rhumb: {error}\n"));
            return Ok(Exit::Usage);
        }
    };
    let options = Options {
        config,
        token_file: args.admin_token_file,
        admin_directory: args.admin_directory,
        pid_file: args.pid_file,
        partial: args.partial,
        // Two processes cannot have one store.
        origin: args.control_plane.is_none().then(Origin::of_this_process),
        embedded: args.control_plane.map(|listen| EmbeddedOptions { listen, directory: args.directory }),
        made: args.remote.document(),
        guest: None,
        member: match args.remote.member() {
            Ok(member) => member,
            Err(error) => {
                print::err(&format!("rhumb: {error:#}\n"));
                return Ok(Exit::Usage);
            }
        },
    };
    run_process(options, || ()).context("cannot run")
}
