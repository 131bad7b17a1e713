//! `rhumb control`.

use std::net::SocketAddr;
use std::path::PathBuf;

use rhumb_base::spiffe::TrustDomain;

use super::Exit;
use super::kubernetes::KubernetesArgs;
use super::store::StoreArgs;
use crate::control::{Options, run as run_process};
use crate::logs::LogArgs;
use crate::print;

/// Where documents are kept when nothing is written.
pub(super) const DEFAULT_DIRECTORY: &str = "/var/lib/rhumb/control";

/// Run a control plane
///
/// Keeps documents and their history, gives each proxy what it needs, and is the certificate authority of the mesh.
/// Documents come with `rhumb apply`, members with `rhumb token create`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb control
  rhumb control --directory ./control --admin 127.0.0.1:9902
  rhumb control --store-file /etc/rhumb/store --seal-key-file /etc/rhumb/seal.key")]
pub(crate) struct Args {
    /// Directory of the documents and their history; made when it is not there. Not used with a store
    #[arg(long, value_name = "PATH", env = "RHUMB_CONTROL_DIRECTORY", default_value = DEFAULT_DIRECTORY)]
    directory: PathBuf,
    /// Where proxies connect
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:15012")]
    listen: SocketAddr,
    /// Directory of the certificate authority; made when it is not there. Not used with a store
    #[arg(long, value_name = "DIR", env = "RHUMB_AUTHORITY", default_value = super::cert::DIRECTORY)]
    authority: PathBuf,
    /// Trust domain of the mesh. Default: what the Mesh document says, or what the certificate authority is of, or
    /// cluster.local
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
    /// Admin listener: where people and tools ask. Default: what --config says, or 127.0.0.1:9901
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// File with a ProxyConfig that says who may ask the admin listener (`admin`: TLS, certificates, an identity provider);
    /// followed as it changes
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// File with the token that opens the admin listener; written when it does not exist. Default: a file of this
    /// user's runtime directory, found by the other verbs by themselves
    #[arg(long, value_name = "FILE", env = "RHUMB_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Directory of named tokens and of the audit log. Default: `admin` beside the documents
    #[arg(long, value_name = "DIR", env = "RHUMB_ADMIN_DIRECTORY")]
    admin_directory: Option<PathBuf>,
    /// Where gRPC clients without a proxy connect in plain text: an address of this machine only. Others use
    /// `rhumb xds-agent`. Default: nowhere
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = super::xds::loopback)]
    xds: Option<SocketAddr>,
    #[command(flatten)]
    kubernetes: KubernetesArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    logs: LogArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    if let Err(error) = args.logs.start() {
        print::err(&format!("rhumb: {error}\n"));
        return Ok(Exit::Usage);
    }
    let kubernetes = match args.kubernetes.open() {
        Ok(kubernetes) => kubernetes,
        Err(error) => {
            print::err(&format!("rhumb: {error:#}\n"));
            return Ok(Exit::Runtime);
        }
    };
    let options = Options {
        store: args.store,
        kubernetes,
        directory: args.directory,
        admin: args.admin,
        config: args.config,
        token_file: args.admin_token_file,
        admin_directory: args.admin_directory,
        listen: args.listen,
        authority: args.authority,
        trust_domain: args.trust_domain,
        xds: args.xds,
    };
    run_process(options, || ())
}
