//! A process that is a control plane: documents in a store, people at the admin listener, proxies over gRPC.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rhumb_base::spiffe::TrustDomain;
use rhumb_control::control::{Cause, Control, MeshCheck};
use rhumb_control::document::Mesh;
use rhumb_control::roll::Roll;
use rhumb_control::store::Postgres;
use rhumb_database::Database;
use rhumb_identity::{Authority, Issuer, Kubernetes, Lifetimes, Place, system_clock};
use rhumb_net::handover::Inherited;
use rhumb_plan::Current;
use rhumb_plan::process::Process;
use rhumb_proxy::overload::Pressure;
use rhumb_telemetry::{Metric, Registry};
use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;

use fleet::FleetKeeper;

use crate::admin::shelf::Shelf;
use crate::admin::{Admin, Places};
use crate::cli::{Exit, SharedStore, StoreArgs};
use crate::errand::Errands;
use crate::health::{Health, Phase};
use crate::identity::register_issuer;
use crate::names::Board;
use crate::run::Door;
use crate::signal::{Signal, Signals};
use access::Access;

mod access;
pub(crate) mod fleet;
mod local;
mod port;
mod waiting;

/// The file of registered workloads, in the directory of the documents.
pub(crate) const WORKLOADS: &str = "workloads";

/// How often it is looked whether certificates are to live longer or shorter.
const FOLLOW: Duration = Duration::from_millis(500);

/// How long connections of proxies may take to end.
const END: Duration = Duration::from_secs(5);

/// What to run.
pub(crate) struct Options {
    /// The database that it shares with others, instead of both directories, if there is one.
    pub(crate) store: StoreArgs,
    /// The Kubernetes cluster whose service accounts may join.
    pub(crate) kubernetes: Option<Kubernetes>,
    /// Where documents and their history are.
    pub(crate) directory: PathBuf,
    /// Where people and tools ask.
    pub(crate) admin: Option<SocketAddr>,
    /// The file that has, or gets, the admin token.
    pub(crate) token_file: Option<PathBuf>,
    /// Where named tokens and the audit log are kept; with the documents, unless something else is said.
    pub(crate) admin_directory: Option<PathBuf>,
    /// Where proxies connect.
    pub(crate) listen: SocketAddr,
    /// Where the certificate authority is; made when it is not there.
    pub(crate) authority: PathBuf,
    /// The trust domain, where it is not for the documents to say.
    pub(crate) trust_domain: Option<TrustDomain>,
    /// A file that says who may ask it.
    pub(crate) config: Option<PathBuf>,
    /// Where gRPC clients of this machine connect in plain text.
    pub(crate) xds: Option<SocketAddr>,
}

/// Runs until a signal ends it. `ready` is called once, when it answers.
///
/// # Errors
/// When the store cannot be opened or an address is taken.
pub(crate) fn run(options: Options, ready: impl FnOnce()) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .context("runtime of the admin listener")?;
    let exit = runtime.block_on(serve(options, ready));
    runtime.shutdown_background();
    exit
}

async fn serve(options: Options, ready: impl FnOnce()) -> anyhow::Result<Exit> {
    let mut signals = Signals::take().context("signals")?;
    let health = Arc::new(Health::new());
    let registry = Registry::new();
    let mut access = match &options.config {
        Some(path) => Some(Access::open(path, &registry, &health).await?),
        None => None,
    };
    let (current, errands, process) = match &access {
        Some(access) => (access.current.clone(), access.errands.clone(), access.process.clone()),
        None => (Current::default(), Errands::default(), Process::default()),
    };
    // What the command line says comes first.
    let admin_address = options
        .admin
        .or(process.admin)
        .context("a control plane has an admin listener: leave out `admin.enabled`")?;
    let orders = signals.orders();
    let admin = || Admin {
        kind: "control",
        shelf: Shelf::default(),
        health: Arc::clone(&health),
        current: current.clone(),
        registry: Arc::clone(&registry),
        origin: Instant::now(),
        config: options.directory.clone(),
        connections: Arc::default(),
        workers: 0,
        names: Board::default(),
        orders: orders.clone(),
        pressure: Arc::<Pressure>::default(),
        plaintext: Arc::default(),
        taps: None,
        control: None,
        history: None,
        errands: errands.clone(),
        issuer: None,
        fleet: None,
    };
    let directory = options.admin_directory.clone().or_else(|| process.admin_directory.clone());
    let directory = directory.or_else(|| Some(options.directory.join("admin")));
    let places = || Places { token: options.token_file.clone(), directory: directory.clone() };
    let shared = match options.store.database()? {
        None => None,
        Some(database) => {
            observe_store(&database, &registry);
            let door = || Door::open(admin_address, &mut Inherited::default(), places(), Arc::new(admin()));
            if !waiting::until_there(&database, &health, &mut signals, door).await? {
                return Ok(Exit::Ok);
            }
            Some(options.store.unseal(database, true)?)
        }
    };
    let control = Arc::new(documents(shared.as_ref(), &options.directory)?);
    observe(&control, &registry);
    let (place, shown) = match &shared {
        Some(shared) => (shared.place()?, shared.database.shown().to_owned()),
        None => (Place::Directory(options.authority.clone()), options.authority.display().to_string()),
    };
    let issuer = authority(&control, options.trust_domain.as_ref(), (place, &shown), options.kubernetes)?;
    let fleet = FleetKeeper::start(&control, &options.directory)?;
    fleet.observe(&registry);
    settle_mesh(&control, issuer.authority().trust_domain()).await?;
    register_issuer(&registry, &issuer);
    let xds = match options.xds {
        Some(address) => {
            let listener = std::net::TcpListener::bind(address).with_context(|| address.to_string())?;
            listener.set_nonblocking(true)?;
            tracing::info!(address = %listener.local_addr()?, "gRPC clients of this machine connect here");
            Some(listener)
        }
        None => None,
    };
    // The others on a shared store know who is registered.
    let roll = shared.is_none().then(|| Roll::at(options.directory.join(WORKLOADS)));
    if let Some(roll) = &roll {
        roll.restore(control.hub(), Instant::now());
    }
    let (mut serving, proxies) = serve_proxies(&control, &issuer, options.listen, roll, xds)?;
    let known = Admin {
        control: Some(Arc::clone(&control)),
        issuer: Some(Arc::clone(&issuer)),
        fleet: Some(Arc::clone(fleet.fleet())),
        ..admin()
    };
    let mut door = Door::open(admin_address, &mut Inherited::default(), places(), Arc::new(known))?;
    door.serve()?;
    health.enter(Phase::Ready);
    let documents = match &shared {
        Some(shared) => shared.database.shown().to_owned(),
        None => options.directory.display().to_string(),
    };
    tracing::info!(revision = control.revision(), address = %proxies, documents, "control plane is ready");
    ready();
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break,
                Signal::Reload => reload(&mut access).await,
                _ => {}
            },
            () = changed(&mut access) => reload(&mut access).await,
            ended = serving.ended() => return ended.map(|()| Exit::Ok),
        }
    }
    health.enter(Phase::Draining);
    serving.end().await;
    if let Some(others) = control.hub().others() {
        others.leave();
    }
    drop(fleet);
    tracing::info!("control plane ends");
    Ok(Exit::Ok)
}

/// What is written about access has changed; never, where nothing is. **Cancel**: nothing is lost.
async fn changed(access: &mut Option<Access>) {
    match access {
        Some(access) => access.changed().await,
        None => std::future::pending().await,
    }
}

async fn reload(access: &mut Option<Access>) {
    if let Some(access) = access {
        access.reload().await;
    }
}

/// What a control plane knows, from where it is kept.
fn documents(shared: Option<&SharedStore>, directory: &Path) -> anyhow::Result<Control> {
    match shared {
        Some(shared) => {
            let store = Postgres::open(shared.database.clone(), Arc::clone(&shared.seal));
            let plane = plane();
            store
                .and_then(|store| Control::share(store, plane))
                .with_context(|| format!("documents in {}", shared.database.shown()))
        }
        None => Control::open(directory).with_context(|| format!("documents in {}", directory.display())),
    }
}

/// The certificate authority of a control plane.
pub(crate) fn authority(
    control: &Control,
    written: Option<&TrustDomain>,
    (place, shown): (Place, &str),
    kubernetes: Option<Kubernetes>,
) -> anyhow::Result<Arc<Issuer>> {
    let clock = system_clock();
    let now = clock();
    let domain = trust_domain(control, written, &place, now)?;
    let lifetimes = lifetimes(&control.mesh()).check().unwrap_or_else(|error| {
        tracing::error!(%error, "the lifetimes of the Mesh document are not used");
        Lifetimes::default()
    });
    let authority = Authority::open_at(place, &domain, lifetimes, now)
        .with_context(|| format!("certificate authority in {shown}"))?;
    Issuer::new(authority, kubernetes, clock).context("certificate authority")
}

/// The thread that serves proxies: neither they nor people wait for each other.
pub(crate) struct Serving {
    stop: oneshot::Sender<()>,
    end: oneshot::Receiver<anyhow::Result<()>>,
    thread: std::thread::JoinHandle<()>,
}

/// Serves proxies at an address. `roll` remembers which workloads there are; `xds` is for gRPC clients of this machine.
///
/// # Errors
/// When the address is taken.
pub(crate) fn serve_proxies(
    control: &Arc<Control>,
    issuer: &Arc<Issuer>,
    address: SocketAddr,
    roll: Option<Roll>,
    xds: Option<std::net::TcpListener>,
) -> anyhow::Result<(Serving, SocketAddr)> {
    let listener = std::net::TcpListener::bind(address).with_context(|| address.to_string())?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    let (control, issuer) = (Arc::clone(control), Arc::clone(issuer));
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime.context("runtime of the control plane").and_then(|runtime| {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let stopped = async { drop(stopped.await) };
                if let Some(roll) = roll {
                    let registered = Arc::clone(control.hub());
                    tokio::spawn(async move { roll.keep(&registered).await });
                }
                if let Some(xds) = xds {
                    let hub = Arc::clone(control.hub());
                    tokio::spawn(local::serve(tokio::net::TcpListener::from_std(xds)?, hub));
                }
                port::serve(listener, control, issuer, stopped).await
            })
        });
        // Without a receiver the process is ending.
        let _ = ended.send(served);
    });
    let thread = thread.context("thread of the control plane")?;
    Ok((Serving { stop, end, thread }, address))
}

impl Serving {
    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// Why it did.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        match (&mut self.end).await {
            Ok(ended) => ended,
            Err(_) => Err(anyhow::anyhow!("the thread of the control plane is gone")),
        }
    }

    /// Ends it: streams first, and the rest after some time.
    pub(crate) async fn end(self) {
        let _ = self.stop.send(());
        if tokio::time::timeout(END, self.end).await.is_err() {
            tracing::warn!("connections of proxies did not end in time");
        } else {
            drop(self.thread.join());
        }
    }
}

/// The trust domain: that of the command line, else that of the documents, else that of the authority that is there.
fn trust_domain(
    control: &Control,
    written: Option<&TrustDomain>,
    place: &Place,
    now: u64,
) -> anyhow::Result<TrustDomain> {
    if let Some(written) = written {
        return Ok(written.clone());
    }
    let has_mesh = !control.documents(Some("Mesh"), None, None).is_empty();
    if !has_mesh && let Ok(authority) = Authority::attach_at(place.clone(), now) {
        return Ok(authority.trust_domain().clone());
    }
    TrustDomain::parse(&control.mesh().trust_domain).context("trust domain of the Mesh document")
}

/// Makes documents and certificates say the same trust domain, now and whatever is applied later.
pub(crate) async fn settle_mesh(control: &Control, domain: &TrustDomain) -> anyhow::Result<()> {
    let mesh = control.mesh();
    if *mesh.trust_domain != *domain.as_str() {
        let known = control.documents(Some("Mesh"), None, None);
        anyhow::ensure!(
            known.is_empty(),
            "the Mesh document says trust domain {}, the certificate authority is of {domain}",
            mesh.trust_domain
        );
        // Proxies know the trust domain by it.
        let document = serde_json::json!({
            "apiVersion": "rhumb.dev/v1alpha1",
            "kind": "Mesh",
            "metadata": { "name": "mesh" },
            "spec": { "trustDomain": domain.as_str() },
        });
        let cause = Cause {
            author: "control plane".to_owned(),
            message: "the trust domain of its certificates".to_owned(),
            expected: None,
        };
        control.apply(&cause, &[document]).await.context("the Mesh document")?;
    }
    let own = domain.clone();
    control.check_mesh_with(MeshCheck(Box::new(move |mesh| {
        if *mesh.trust_domain != *own.as_str() {
            return Some(format!(
                "the certificates of this control plane are of trust domain {own}: write `trustDomain: {own}`"
            ));
        }
        lifetimes(mesh).check().err().map(|error| error.to_string())
    })));
    Ok(())
}

/// How long certificates live.
pub(crate) fn lifetimes(mesh: &Mesh) -> Lifetimes {
    let usual = Lifetimes::default();
    let leaf = mesh.lifetimes.leaf.unwrap_or(usual.leaf);
    let intermediate = mesh.lifetimes.intermediate.unwrap_or(usual.intermediate);
    Lifetimes { leaf, intermediate, root: mesh.lifetimes.root.unwrap_or(usual.root) }
}

/// Has certificates live for as long as the documents in force say, until the process ends.
async fn follow_lifetimes(control: &Control, issuer: &Arc<Issuer>) {
    let mut known = None;
    loop {
        tokio::time::sleep(FOLLOW).await;
        let wanted = lifetimes(&control.mesh());
        if known == Some(wanted) {
            continue;
        }
        let own = Arc::clone(issuer);
        let set =
            tokio::task::spawn_blocking(move || own.authority().set_lifetimes(wanted, system_clock()()));
        match set.await {
            Ok(Ok(is_changed)) => {
                if is_changed {
                    tracing::info!(?wanted, "certificates live as long as the Mesh document says");
                }
                known = Some(wanted);
            }
            // Said once; the store may be away, so it is tried again.
            Ok(Err(error)) => tracing::debug!(%error, "lifetimes of certificates are as they were"),
            Err(_) => return,
        }
    }
}

/// What this control plane is called among those that share a store: another one after each start, since what was
/// connected to it before is not.
fn plane() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{:08x}", host.trim(), rhumb_base::rng::Rng::from_os().next_u64() >> 32)
}

/// Metrics of the database that a control plane shares.
pub(crate) fn observe_store(database: &Database, registry: &Arc<Registry>) {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let of = database.clone();
    registry.collect(Metric::StoreUp, move |emit| emit(&[], of.is_up().into()));
    let of = database.clone();
    registry.collect(Metric::StoreContact, move |emit| emit(&[], number(of.contact().last_unix_seconds())));
    let of = database.clone();
    registry.collect(Metric::StoreWork, move |emit| {
        let (done, failed) = of.contact().work();
        emit(&["done"], number(done));
        emit(&["failed"], number(failed));
    });
    let of = database.clone();
    registry.collect(Metric::StoreTime, move |emit| emit(&[], number(of.contact().micros())));
}

/// Metrics of a control plane.
pub(crate) fn observe(control: &Arc<Control>, registry: &Arc<Registry>) {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (at, of) = (Arc::clone(control), Arc::clone(control));
    registry.collect(Metric::ControlRevision, move |emit| emit(&[], number(at.revision())));
    registry.collect(Metric::ControlProxies, move |emit| {
        let (streams, _) = of.hub().with(|core| core.sizes());
        emit(&[], i64::try_from(streams).unwrap_or(i64::MAX));
    });
    let of = Arc::clone(control);
    registry.collect(Metric::ControlResponses, move |emit| {
        let counts = of.hub().with(|core| core.counts());
        let waiting = counts.responses.saturating_sub(counts.acks + counts.refusals);
        for (result, count) in [("ack", counts.acks), ("nack", counts.refusals), ("open", waiting)] {
            emit(&[result], number(count));
        }
    });
    let of = Arc::clone(control);
    registry.collect(Metric::ControlResources, move |emit| {
        let counts = of.hub().with(|core| core.counts());
        for (what, count) in [("built", counts.built), ("sent", counts.resources)] {
            emit(&[what], number(count));
        }
    });
}
