//! `rhumb issuer`: the certificate authority of a mesh as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::header;
use axum::routing::get;
use rhumb_base::spiffe::TrustDomain;
use rhumb_base::unit::parse_duration;
use rhumb_control::document::{Document, Mesh, Role};
use rhumb_identity::{Authority, Issuer, Lifetimes, Mounted, serve, system_clock};
use rhumb_telemetry::Registry;
use rhumb_telemetry::metrics::Format;
use tokio::net::TcpListener;

use super::Exit;
use super::kubernetes::KubernetesArgs;
use crate::control::lifetimes;
use crate::identity::register_issuer;
use crate::logs::LogArgs;
use crate::print;
use crate::signal::{Signal, Signals};

/// Run the certificate authority of a mesh
///
/// Issues SVIDs to those who prove who they are: with a join token, the token of a Kubernetes service account, or the SVID
/// that they have. Makes and rotates its own root and intermediate, or signs with an intermediate that is mounted. Several
/// may share one directory.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb issuer
  rhumb issuer --listen 10.0.0.5:15012 --trust-domain shop.example
  rhumb issuer --certificate ca/tls.crt --key ca/tls.key --bundle ca/ca.crt")]
pub(crate) struct Args {
    /// Where members ask
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:15012")]
    listen: SocketAddr,
    /// Configuration whose Mesh document says trust domain and lifetimes, where no option does
    #[arg(short, long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Trust domain. Default: cluster.local
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
    /// Directory of the certificate authority, made where there is none
    #[arg(long, value_name = "DIR", env = "RHUMB_AUTHORITY", default_value = super::cert::DIRECTORY)]
    authority: PathBuf,
    /// How long an SVID lives. Default: 24h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    leaf_lifetime: Option<Duration>,
    /// How long the intermediate lives; at least four times as long as an SVID. Default: 720h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    intermediate_lifetime: Option<Duration>,
    /// How long the root lives; at least twice as long as the intermediate. Default: 8760h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    root_lifetime: Option<Duration>,
    /// PEM file of an intermediate that somebody else makes, followed by its chain
    #[arg(long, value_name = "FILE", requires_all = ["key", "bundle"])]
    certificate: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// PEM file of the roots that members trust
    #[arg(long, value_name = "FILE", requires = "certificate")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    kubernetes: KubernetesArgs,
    /// Where metrics are, at /metrics. Default: nowhere
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    logs: LogArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    if let Err(error) = args.logs.start() {
        print::err(&format!("rhumb: {error}\n"));
        return Ok(Exit::Usage);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(issue(args))
}

/// What the Mesh document of a configuration says.
fn written(path: &Path) -> anyhow::Result<Mesh> {
    let (documents, mistakes) = rhumb_source::adapt(path);
    let is_error = |mistake: &&rhumb_model::Diag| mistake.is_error();
    if let Some(mistake) = mistakes.iter().find(is_error) {
        anyhow::bail!("{mistake}");
    }
    let parsed = documents.iter().map(|node| Document::parse(node.to_json().to_string().into(), 0));
    let mesh = parsed.filter_map(Result::ok).find_map(|document| match document.role {
        Role::Mesh(mesh) => Some(*mesh),
        _ => None,
    });
    mesh.with_context(|| format!("{}: there is no Mesh document", path.display()))
}

async fn issue(args: Args) -> anyhow::Result<Exit> {
    let clock = system_clock();
    let mesh = args.config.as_deref().map(written).transpose()?.unwrap_or_default();
    let usual = lifetimes(&mesh);
    let lifetimes = Lifetimes {
        leaf: args.leaf_lifetime.unwrap_or(usual.leaf),
        intermediate: args.intermediate_lifetime.unwrap_or(usual.intermediate),
        root: args.root_lifetime.unwrap_or(usual.root),
    };
    let domain = match args.trust_domain {
        Some(domain) => domain,
        None => TrustDomain::parse(&mesh.trust_domain).context("trust domain of the Mesh document")?,
    };
    let (directory, domain) = (&args.authority, &domain);
    let authority = match (args.certificate, args.key, args.bundle) {
        (Some(certificate), Some(key), Some(bundle)) => {
            let mounted = Mounted { certificate, key, bundle };
            Authority::open_mounted(directory, domain, lifetimes, mounted, clock())?
        }
        _ => Authority::open(directory, domain, lifetimes, clock())?,
    };
    let kubernetes = args.kubernetes.open()?;
    let issuer = Issuer::new(authority, kubernetes, clock)?;
    let mut signals = Signals::take()?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| args.listen.to_string())?;
    tracing::info!(address = %listener.local_addr()?, trust_domain = %domain, "the issuer listens");
    if let Some(address) = args.metrics {
        let registry = Registry::new();
        register_issuer(&registry, &issuer);
        let listener = TcpListener::bind(address).await.with_context(|| address.to_string())?;
        tracing::info!(address = %listener.local_addr()?, "metrics are at /metrics");
        let page = move || {
            let registry = Arc::clone(&registry);
            async move {
                let mut text = String::new();
                registry.render(Format::Text, &mut text);
                ([(header::CONTENT_TYPE, Format::Text.content_type())], text)
            }
        };
        let pages = axum::serve(listener, Router::new().route("/metrics", get(page))).into_future();
        tokio::spawn(async move {
            if let Err(error) = pages.await {
                tracing::error!(%error, "metrics are not served any more");
            }
        });
    }
    let stop = async { while signals.next().await != Signal::Stop {} };
    serve(issuer, listener, stop).await?;
    Ok(Exit::Ok)
}
