//! `rhumb xds-bootstrap` and `rhumb xds-agent`: gRPC clients that need no proxy beside them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rhumb_agent::Connect;
use rhumb_base::spiffe::TrustDomain;
use rhumb_control::view::{NAMESPACE_FIELD, PROVIDER_FIELD};
use rhumb_identity::{
    CONTROL_ACCOUNT, JoinToken, Joining, Keeper, KeeperSettings, SYSTEM_NAMESPACE, SvidFiles, over_tls,
    system_clock, write_out,
};
use rhumb_tls::ClientTls;
use rhumb_tls::mesh::{Expected, Membership};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Exit;
use crate::logs::LogArgs;
use crate::print;
use crate::signal::{Signal, Signals};

/// Where gRPC clients ask when nothing is written.
const LOCAL: &str = "127.0.0.1:15013";

/// The name of the certificate provider in a bootstrap.
const PROVIDER: &str = "default";

/// How often gRPC looks for a new certificate.
const REFRESH: &str = "10s";

/// How often the agent looks whether there is a new certificate or other roots.
const TURN: Duration = Duration::from_secs(1);

/// Connections that are carried at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// How long a connection to a control plane may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// How long accepting rests after it failed, as for want of descriptors.
const REST: Duration = Duration::from_millis(200);

/// Print the xDS bootstrap of a gRPC client
///
/// What GRPC_XDS_BOOTSTRAP names (a file) or GRPC_XDS_BOOTSTRAP_CONFIG has (the text): where the client asks for the mesh,
/// who it is, and where its certificates are. The client then calls xds:///SERVICE.NAMESPACE:PORT.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb xds-bootstrap --certificates /run/rhumb/svid > bootstrap.json
  GRPC_XDS_BOOTSTRAP_CONFIG=$(rhumb xds-bootstrap) ./client")]
pub(crate) struct BootstrapArgs {
    /// Where the mesh is asked for: an agent or control plane of this machine
    #[arg(long, value_name = "ADDRESS:PORT", default_value = LOCAL, value_parser = loopback)]
    server: SocketAddr,
    /// Directory of the client's certificate: tls.crt, tls.key and ca.crt. Without it only services that take plain text
    /// are reached
    #[arg(long, value_name = "DIR")]
    certificates: Option<PathBuf>,
    /// Namespace of the client: where services without a namespace are looked for
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// What the client is called, in `rhumb get proxies`
    #[arg(long, value_name = "TEXT", default_value = "client")]
    node: String,
}

pub(crate) fn bootstrap(args: &BootstrapArgs) -> anyhow::Result<Exit> {
    print::out(&format!("{:#}\n", document(args)?))?;
    Ok(Exit::Ok)
}

fn document(args: &BootstrapArgs) -> anyhow::Result<Value> {
    let mut metadata = json!({ NAMESPACE_FIELD: args.namespace });
    let mut bootstrap = json!({
        "xds_servers": [{
            "server_uri": args.server.to_string(),
            "channel_creds": [{ "type": "insecure" }],
            // gRFC A81: the authority of a call may become that of the service that it is sent to. gRFC A88: a client that
            // understands it tells its caller why a service is not offered.
            "server_features": ["xds_v3", "trusted_xds_server", "fail_on_data_errors"],
        }],
        "node": { "id": args.node, "cluster": args.namespace },
    });
    if let Some(directory) = &args.certificates {
        let directory = std::path::absolute(directory).context("directory of certificates")?;
        let files = SvidFiles::in_directory(&directory);
        metadata[PROVIDER_FIELD] = PROVIDER.into();
        bootstrap["certificate_providers"] = json!({ PROVIDER: {
            "plugin_name": "file_watcher",
            "config": {
                "certificate_file": files.certificate,
                "private_key_file": files.key,
                "ca_certificate_file": files.bundle,
                "refresh_interval": REFRESH,
            },
        } });
    }
    bootstrap["node"]["metadata"] = metadata;
    Ok(bootstrap)
}

/// Reads an address of this machine.
pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "write ADDRESS:PORT".to_owned())?;
    if address.ip().to_canonical().is_loopback() {
        Ok(address)
    } else {
        Err("plain text is for addresses of this machine, as 127.0.0.1; on other machines run `rhumb xds-agent`".to_owned())
    }
}

/// Keep a gRPC client without a proxy in the mesh
///
/// Gets a certificate from the control plane, keeps it fresh in files where gRPC looks for it, and carries what the client asks
/// about the mesh to the control plane over mutual TLS. The client's calls go to the services directly.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb xds-agent --control 10.0.0.5:15012 --join-token-file web.token --certificates /run/rhumb/svid
  rhumb xds-bootstrap --certificates /run/rhumb/svid > bootstrap.json")]
pub(crate) struct AgentArgs {
    /// Control plane of the mesh, as HOST:PORT; several to fail over to
    #[arg(long, value_name = "HOST:PORT", required = true)]
    control: Vec<String>,
    /// File with the join token for the first certificate
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// Directory that tls.crt, tls.key and ca.crt are written to; made when it is not there
    #[arg(long, value_name = "DIR")]
    certificates: PathBuf,
    /// Directory where key and certificate are kept over restarts
    #[arg(long, value_name = "PATH", default_value = "/var/lib/rhumb/xds")]
    state: PathBuf,
    /// Where gRPC clients connect: an address of this machine
    #[arg(long, value_name = "ADDRESS:PORT", default_value = LOCAL, value_parser = loopback)]
    listen: SocketAddr,
    /// Trust domain of the mesh
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    #[command(flatten)]
    logs: LogArgs,
}

pub(crate) fn agent(args: AgentArgs) -> anyhow::Result<Exit> {
    if let Err(error) = args.logs.start() {
        print::err(&format!("rhumb: {error}\n"));
        return Ok(Exit::Usage);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(serve(args));
    runtime.shutdown_background();
    exit
}

async fn serve(args: AgentArgs) -> anyhow::Result<Exit> {
    let joining = match &args.join_token_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Joining::Token(JoinToken::parse(text.trim()).with_context(|| path.display().to_string())?)
        }
        None => Joining::Nothing,
    };
    let mut signals = Signals::take().context("signals")?;
    let membership = Membership::new(args.trust_domain.clone());
    let settings = KeeperSettings { issuers: args.control.clone(), joining, directory: args.state };
    let keeper = Keeper::open(membership.clone(), settings, system_clock()).context("identity")?;
    tokio::spawn(Arc::clone(&keeper).run());
    let listener = TcpListener::bind(args.listen).await.with_context(|| args.listen.to_string())?;
    tokio::select! {
        () = keeper.ready() => {}
        () = stopped(&mut signals) => return Ok(Exit::Ok),
    }
    write_files(&membership, &args.certificates)?;
    let control = args
        .trust_domain
        .workload(SYSTEM_NAMESPACE, CONTROL_ACCOUNT)
        .context("identity of the control plane")?;
    let tls = ClientTls::member(&membership, Expected::new([control]), None, vec![b"h2".to_vec()])
        .context("TLS to the control plane")?;
    let identity = membership.id().map(|id| id.to_string()).unwrap_or_default();
    tracing::info!(address = %args.listen, identity, "gRPC clients of this machine connect here");
    tokio::spawn(keep_files(membership, args.certificates));
    tokio::select! {
        () = relay(listener, over_tls(tls), args.control.into()) => {}
        () = stopped(&mut signals) => {}
    }
    Ok(Exit::Ok)
}

async fn stopped(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}

fn write_files(membership: &Membership, directory: &Path) -> anyhow::Result<()> {
    let (Some(svid), Some(bundle)) = (membership.svid(), membership.bundle()) else { return Ok(()) };
    write_out(&svid, &bundle, directory).with_context(|| directory.display().to_string())?;
    Ok(())
}

/// Writes the files anew whenever there is something else to write.
async fn keep_files(membership: Membership, directory: PathBuf) {
    let state = || {
        let roots = membership.bundle().map(|bundle| bundle.roots().to_vec());
        (membership.svid().map(|svid| svid.chain().to_vec()), roots)
    };
    let mut written = state();
    loop {
        tokio::time::sleep(TURN).await;
        let now = state();
        if now == written {
            continue;
        }
        match write_files(&membership, &directory) {
            Ok(()) => written = now,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the certificate is not in its files")
            }
        }
    }
}

/// Carries connections to a control plane: the last that answered, or the next one.
async fn relay(listener: TcpListener, connect: Connect, servers: Arc<[String]>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut first = 0;
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection of a gRPC client was not accepted");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        // Who comes again after a failure is sent to the next one.
        let from = first;
        first = (first + 1) % servers.len().max(1);
        let (connect, servers) = (Arc::clone(&connect), Arc::clone(&servers));
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = carry(stream, &connect, &servers, from).await {
                tracing::debug!(%error, "a connection of a gRPC client ended");
            }
        });
    }
}

async fn carry(
    mut stream: TcpStream,
    connect: &Connect,
    servers: &[String],
    from: usize,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut failed = None;
    for server in servers.iter().cycle().skip(from).take(servers.len()) {
        match tokio::time::timeout(CONNECT, connect(server)).await {
            Ok(Ok(mut to)) => return tokio::io::copy_bidirectional(&mut stream, &mut to).await.map(drop),
            Ok(Err(error)) => {
                tracing::warn!(server, %error, "the control plane is not reached");
                failed = Some(error);
            }
            Err(_) => tracing::warn!(server, "the control plane does not answer"),
        }
    }
    Err(failed.unwrap_or_else(|| std::io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_for_this_machine_only() {
        assert!(loopback("127.0.0.1:1").is_ok() && loopback("[::1]:1").is_ok());
        for text in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "127.0.0.1", "localhost:1"] {
            assert!(loopback(text).is_err(), "{text}");
        }
    }
}
