//! Connections of the workload that leave the mesh: from here, or through the egress gateway, which is the only one that
//! may leave where networks are made so. What cannot go through it goes nowhere.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use rhumb_base::failure::Failure;
use rhumb_conn::io::Io;
use rhumb_plan::Port;
use rhumb_plan::mesh::{Exit, Mesh};
use rhumb_telemetry::{Metric, Protocol};
use tokio::net::TcpStream;

use crate::l4::header::Ends;
use crate::l4::outside::{self, Outside};
use crate::l4::record::{Account, Way};
use crate::l4::relay::{RelayEnd, RelayLimits, relay};
use crate::l4::tcp;
use crate::worker::{Member, Watch, Worker};

/// What a connection that leads to no service is known by.
pub(crate) struct Stranger {
    /// The name that its client asked for.
    pub(crate) name: Option<Arc<str>>,
    /// The address that it was made to.
    pub(crate) address: Option<IpAddr>,
}

impl Stranger {
    /// The way out that the mesh has for it.
    pub(crate) fn exit(&self, mesh: &Mesh) -> Exit {
        mesh.exit(self.name.as_deref(), self.address)
    }
}

/// Carries a connection of the workload to a host out of the mesh, the way that the mesh has for it. `port` is the socket
/// that it came in by.
pub(crate) async fn leave(
    worker: Rc<Worker>,
    port: Arc<Port>,
    stream: TcpStream,
    ends: Ends,
    to: Outside,
    (stranger, exit): (Stranger, Exit),
    member: Member,
) {
    match exit {
        Exit::Direct => directly(worker, port, stream, ends, to, stranger).await,
        Exit::Gateway => through_gateway(worker, port, stream, ends, to).await,
        Exit::Refused => {
            tracing::info!(destination = %to, "a connection out of the mesh is refused: its Mesh does not let it out");
            refuse(&worker, &port, &stream, "egress_denied");
        }
    }
    drop(member);
}

/// Ends a connection at once: an orderly end would look like an answer.
pub(crate) fn refuse(worker: &Worker, port: &Port, stream: &TcpStream, reason: &str) {
    worker.metrics.borrow_mut().add(Metric::ConnectionsRefused, &[port.name.as_str(), reason], 1);
    let _ = rhumb_net::socket::reset_on_close(stream);
}

/// As if nobody had captured it.
async fn directly(
    worker: Rc<Worker>,
    port: Arc<Port>,
    stream: TcpStream,
    ends: Ends,
    to: Outside,
    stranger: Stranger,
) {
    let mut account = Account::new(&worker, &port, Protocol::Tcp, ends.client);
    account.tries = 1;
    drop(port);
    let begun = std::time::Instant::now();
    // The workload reaches its own machine and its neighbours without a proxy too.
    let up = match outside::connect(&worker, &to, |_| true).await {
        Ok((up, address)) => {
            account.way = Some(Box::new(Way { to: to.to_string(), who: None, reached: Some(address) }));
            up
        }
        Err(failure) => return lost(&mut account, &stream, &to, failure),
    };
    account.connect = Some(begun.elapsed());
    let (mut down, mut up) = (Io::Plain(stream), Io::Plain(up));
    let (mut watch, mut seen) = (Watch::new(&worker), worker.revision());
    let end = {
        let limits = RelayLimits::default();
        let mut relaying = pin!(relay(&mut down, &mut up, Vec::new(), limits, &mut account.carried));
        poll_fn(|cx| {
            watch.watch(cx.waker());
            let revision = worker.revision();
            if revision != std::mem::replace(&mut seen, revision) && !may_stay(&worker, &stranger) {
                return Poll::Ready(RelayEnd::Denied);
            }
            relaying.as_mut().poll(cx)
        })
        .await
    };
    if end == RelayEnd::Denied {
        tracing::info!(destination = %to, "a connection out of the mesh ends: the Mesh does not let it leave from here any more");
        for side in [&down, &up] {
            let _ = rhumb_net::socket::reset_on_close(side.socket());
        }
    }
    account.finish(end);
}

/// Whether a connection that has left from here may go on, after something has changed.
fn may_stay(worker: &Worker, stranger: &Stranger) -> bool {
    let plan = worker.plan();
    let may_stay = plan.mesh.as_ref().is_none_or(|mesh| stranger.exit(mesh) == Exit::Direct);
    if !may_stay {
        worker.metrics.borrow_mut().add(Metric::MeshEnded, &["denied"], 1);
    }
    may_stay
}

/// In a stream to a proxy of the egress gateway, with the identity of this workload. The name goes along as it is: the
/// gateway decides about it, and finds out where it leads.
async fn through_gateway(worker: Rc<Worker>, socket: Arc<Port>, stream: TcpStream, ends: Ends, to: Outside) {
    let plan = worker.plan();
    let gateway = plan.mesh.as_ref().and_then(|mesh| {
        let gateway = mesh.egress_gateway.as_ref()?;
        mesh.outbound.get(&gateway.service)?.tcp.as_ref()
    });
    let Some(port) = gateway else {
        tracing::warn!(destination = %to, "a connection out of the mesh is refused: the egress gateway is not known here");
        return refuse(&worker, &socket, &stream, "no_egress_gateway");
    };
    let mut account = Account::new(&worker, port, Protocol::Tcp, ends.client);
    account.way = Some(Box::new(Way { to: to.to_string(), who: None, reached: None }));
    drop(socket);
    match Box::pin(tcp::open_outside(&worker, port, &mut account, ends)).await {
        Ok(opening) => {
            drop(plan);
            tcp::carry(opening.with(account, Io::Plain(stream))).await;
        }
        Err(failure) => lost(&mut account, &stream, &to, failure),
    }
}

/// Whoever cannot connect hears of a refusal or nothing; a reset is nearest.
fn lost(account: &mut Account, stream: &TcpStream, to: &Outside, failure: Failure) {
    tracing::info!(destination = %to, reason = failure.cause.facts().code, "a connection out of the mesh cannot be made");
    account.fail(failure);
    let _ = rhumb_net::socket::reset_on_close(stream);
}
