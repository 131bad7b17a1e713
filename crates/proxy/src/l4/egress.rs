//! The egress gateway: connections of workloads that leave the mesh here, each to where its CONNECT says.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use rhumb_base::failure::{Cause, Failure};
use rhumb_codec::head::Content;
use rhumb_conn::h2;
use rhumb_conn::io::Io;
use rhumb_plan::l4::L4Rule;
use rhumb_plan::mesh::{Exit, Mesh};
use rhumb_plan::{Plan, Port};
use rhumb_telemetry::{Metric, Protocol};

use crate::downstream::Connection;
use crate::l4::hbone::{self, Reads};
use crate::l4::outside::{self, Host, Outside};
use crate::l4::record::{Account, Way};
use crate::l4::tcp;
use crate::worker::Worker;

/// What hosts are called in metrics that no document lists: those that are asked for are without bound.
const OTHER: &str = "other";

/// Serves a CONNECT to a host out of the mesh. `port` has the policies of the gateway's service.
///
/// # Errors
/// Why not; the stream has not been answered.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    connection: &Connection,
    stream: &mut h2::Stream,
    to: Outside,
    port: &Arc<Port>,
) -> Result<(), Cause> {
    let mut account = Account::new(worker, port, Protocol::Tcp, connection.peer);
    let who =
        connection.mesh.as_ref().and_then(|side| side.peer.as_ref()).map(|peer| peer.id.as_str().into());
    account.way = Some(Box::new(Way { to: to.to_string(), who, reached: None }));
    account.tries = 1;
    account.rule = tcp::rule_of_all(port).cloned();
    let begun = std::time::Instant::now();
    let opened = match may_leave(worker, connection, &to, port) {
        Ok(()) => {
            let plan = worker.plan();
            let connecting = outside::connect(worker, &to, |address| is_listed(&plan, address));
            connecting.await.map_err(|failure| (failure, "unreachable"))
        }
        Err((cause, outcome)) => Err((Failure::from(cause), outcome)),
    };
    let (up, address) = match opened {
        Ok(opened) => opened,
        Err((failure, outcome)) => {
            count(worker, connection, &to, outcome);
            tell(&account, &to, failure, outcome);
            account.fail(failure);
            return Err(failure.cause);
        }
    };
    count(worker, connection, &to, "ok");
    account.connect = Some(begun.elapsed());
    if let Some(way) = &mut account.way {
        way.reached = Some(address);
    }
    let limits = account.rule.as_ref().map(|rule| tcp::limits_of(rule, &account)).unwrap_or_default();
    hbone::respond(worker, stream, 200, Content::Streamed).await;
    let mut seen = worker.revision();
    let may_go_on = || {
        let revision = worker.revision();
        revision == std::mem::replace(&mut seen, revision)
            || may_stay(worker, connection, (&to, address.ip()), port)
    };
    let (mut up, carried) = (Io::Plain(up), &mut account.carried);
    let end = hbone::relay(&mut up, stream, Reads::Request, limits, carried, &[], may_go_on).await;
    account.finish(end);
    Ok(())
}

/// Whether a caller may leave the mesh for a host; an error says why not, for the caller and for metrics.
fn may_leave(
    worker: &Worker,
    connection: &Connection,
    to: &Outside,
    port: &Port,
) -> Result<(), (Cause, &'static str)> {
    let plan = worker.plan();
    let mesh = plan.mesh.as_ref().ok_or((Cause::NotImplemented, "not_listed"))?;
    // Callers ask the same of themselves; whoever does not is kept in here.
    if mesh.exit(to.host.name(), to.host.address()) != Exit::Gateway {
        return Err((Cause::AccessDenied, "not_listed"));
    }
    let rule = tcp::rule_of_all(port).ok_or((Cause::RouteNotFound, "denied"))?;
    if !do_policies_allow(worker, connection, to, rule) {
        return Err((Cause::AccessDenied, "denied"));
    }
    Ok(())
}

fn do_policies_allow(worker: &Worker, connection: &Connection, to: &Outside, rule: &L4Rule) -> bool {
    let host = to.host.to_string();
    rule.invalid.is_none()
        && tcp::may_connect(worker, rule, &tcp::Asking::of(connection, Some((&host, to.port))))
}

/// True for an address that the Mesh lists among those that are reached here.
fn is_listed(plan: &Plan, address: IpAddr) -> bool {
    let gateway = plan.mesh.as_ref().and_then(|mesh| mesh.egress_gateway.as_ref());
    gateway.is_some_and(|gateway| gateway.destinations.has_address(address))
}

/// The same for a connection that is under way to an address, after something has changed: with Mesh and policies as they are by
/// then.
fn may_stay(
    worker: &Worker,
    connection: &Connection,
    (to, reached): (&Outside, IpAddr),
    port: &Port,
) -> bool {
    let plan = worker.plan();
    // A process that is no member any more has nothing that could forbid it.
    let Some(mesh) = &plan.mesh else { return true };
    let mut services = mesh.inbound.values().filter_map(|service| service.tcp.as_ref());
    // What is no longer served is served to its end, as long as the Mesh lets it through a gateway.
    let current = services.find(|other| other.name == port.name);
    let may_stay = mesh.exit(to.host.name(), to.host.address()) == Exit::Gateway
        && outside::may_reach(reached, |address| is_listed(&plan, address))
        && current.is_none_or(|port| {
            tcp::rule_of_all(port).is_some_and(|rule| do_policies_allow(worker, connection, to, rule))
        });
    if !may_stay {
        worker.metrics.borrow_mut().add(Metric::MeshEnded, &["denied"], 1);
    }
    may_stay
}

fn tell(account: &Account, to: &Outside, failure: Failure, outcome: &str) {
    let source = account.way.as_ref().and_then(|way| way.who.as_deref()).unwrap_or_default();
    let why = match outcome {
        "not_listed" => "the Mesh does not let it through the egress gateway",
        "denied" => "no policy of the egress gateway allows it",
        _ if failure.cause == Cause::AccessDenied => {
            "its addresses are those of the gateway itself or on its link"
        }
        _ => failure.cause.facts().detail,
    };
    tracing::info!(source, destination = %to, why, "a connection out of the mesh is refused");
}

fn count(worker: &Worker, connection: &Connection, to: &Outside, outcome: &str) {
    let plan = worker.plan();
    let Some((mesh, side)) = plan.mesh.as_ref().zip(connection.mesh.as_ref()) else { return };
    let (source, _) = side.edge();
    let destination = listed(mesh, &to.host).unwrap_or_else(|| OTHER.to_owned());
    worker.metrics.borrow_mut().add(Metric::EgressConnections, &[&source, &destination, outcome], 1);
}

/// The entry of the Mesh that a host is listed by.
fn listed(mesh: &Mesh, host: &Host) -> Option<String> {
    let gateway = mesh.egress_gateway.as_ref().map(|gateway| &gateway.destinations);
    let allowed = match &mesh.egress {
        rhumb_plan::mesh::Egress::Deny(listed) => Some(listed),
        rhumb_plan::mesh::Egress::Allow => None,
    };
    gateway.into_iter().chain(allowed).find_map(|listed| match host {
        Host::Name(name) => listed.listed_name(name).map(str::to_owned),
        Host::Address(address) => {
            listed.blocks.iter().find(|block| block.contains(*address)).map(ToString::to_string)
        }
    })
}
