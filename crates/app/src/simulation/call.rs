//! One request, decided about by what both proxies have compiled: tables, chains, balancers and TLS are those of the plan.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rhumb_balance::Nanos;
use rhumb_base::rng::Rng;
use rhumb_codec::head::{RequestHead, Scheme};
use rhumb_plan::mesh::{Place, Role};
use rhumb_plan::{Plan, Port, Rule};
use rhumb_policy::{Certificate, Chain, ChainState, Exchange, Step};
use rhumb_route::Lookup;
use rhumb_tls::mesh::PeerSvid;

use super::node::{Node, is_at};
use super::pipe::Line;

/// A connection between two proxies.
pub(super) struct Open {
    line: Line,
    /// Whose proxy is at the other end, and which process of it.
    callee: (usize, u32),
    /// What the server was asked for.
    server_name: String,
    /// Who the server takes the client for.
    pub(super) client: PeerSvid,
    /// Who the client takes the server for.
    pub(super) server: PeerSvid,
    /// Revocations that the server has looked the client up in.
    generation: u64,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ended {
    /// A workload has it.
    Served {
        /// Which.
        callee: usize,
        /// The service that it was asked for there.
        service: usize,
        /// Over a connection that was made for it.
        is_new: bool,
    },
    /// It was sent in plain text.
    Plain(SocketAddr),
    /// A proxy refused it.
    Refused(&'static str),
    /// There was no way.
    NoWay(&'static str),
    /// TLS refused.
    Tls(String),
}

/// A request of a workload to a service.
pub(super) fn call(
    nodes: &mut [Node],
    caller: usize,
    service: usize,
    rng: &mut Rng,
    number: u64,
) -> Result<(Ended, Option<(PeerSvid, PeerSvid)>), String> {
    let plain = |ended| Ok((ended, None));
    let Some(plan) = nodes[caller].plan.clone() else { return plain(Ended::NoWay("not ready")) };
    leave_servers(&mut nodes[caller], &plan);
    let place = Place::Outbound(format!("default/s{service}:80").into());
    let Some(port) = plan.mesh_port(&place) else { return plain(Ended::NoWay("no service")) };
    let mut head = request(service);
    let Some(rule) = rule_of(port, &head) else { return plain(Ended::NoWay("no rule")) };
    if rule.value.invalid.is_some() || !passes(&rule.value.chain, &mut head, None) {
        return plain(Ended::Refused("by the caller's proxy"));
    }
    let Some(backend) = rule.value.choose(rng).and_then(|chosen| chosen.backend.clone()) else {
        return plain(Ended::NoWay("no backend"));
    };
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let Ok(load) = backend.begin(&head, client, Nanos::default(), rng, &[]) else {
        return plain(Ended::NoWay("no endpoint"));
    };
    let endpoint = Arc::clone(load.endpoint());
    let (target, address) = backend.way(&endpoint);
    let Some(tls) = &target.tls else { return plain(Ended::Plain(address)) };
    let Some(callee) = nodes.iter().position(|node| is_at(node, address.ip())) else {
        return plain(Ended::NoWay("nobody is there"));
    };
    let key = (tls.server_name().unwrap_or_default().into(), address);
    let process = (callee, nodes[callee].instance);
    let known = nodes[caller].outgoing.remove(&key).filter(|open| open.callee == process);
    let is_new = known.is_none();
    let mut open = match known {
        Some(open) => open,
        None => {
            let Some(servers) = tunnel(&nodes[callee]) else { return plain(Ended::NoWay("no tunnel")) };
            let line = match Line::connect(tls, &servers, address.ip()) {
                Ok(line) => line,
                Err(error) => return plain(Ended::Tls(error)),
            };
            let (of_client, of_server) = (line.client(), line.server());
            if !of_server.is_h2 {
                return Err("a connection of the mesh without a protocol".to_owned());
            }
            let generation = membership(&nodes[callee]).map_or(0, |membership| membership.generation());
            Open {
                line,
                callee: process,
                server_name: of_server.server_name.unwrap_or_default(),
                client: of_server.peer.ok_or("a caller without an identity was let in")?,
                server: of_client.peer.ok_or("a server without an identity was called")?,
                generation,
            }
        }
    };
    if let Err(error) = open.line.carry(format!("request {number}").as_bytes(), true) {
        return plain(Ended::Tls(error));
    }
    let between = (open.client.clone(), open.server.clone());
    let ended = match serve(&nodes[callee], &mut open, &mut head) {
        Ok(service) => Ended::Served { callee, service, is_new },
        Err("revoked") => return Ok((Ended::Refused("revoked"), Some(between))),
        Err(why) => Ended::Refused(why),
    };
    nodes[caller].outgoing.insert(key, open);
    Ok((ended, Some(between)))
}

fn request(service: usize) -> RequestHead {
    let mut head = RequestHead::new();
    head.scheme = Scheme::Http;
    head.set_method(b"GET");
    head.set_target(b"/");
    head.set_authority(format!("s{service}.default").as_bytes());
    head
}

/// What the callee's proxy does with a request: the service that it is for, or why it is refused.
fn serve(callee: &Node, open: &mut Open, head: &mut RequestHead) -> Result<usize, &'static str> {
    let plan = callee.plan.as_ref().ok_or("not ready")?;
    let mesh = plan.mesh.as_ref().ok_or("no mesh")?;
    // As `proxy::mesh::MeshSide::is_revoked`.
    let membership = mesh.membership.as_ref().ok_or("no membership")?;
    if membership.generation() != open.generation {
        if !membership.admits(&open.client) {
            return Err("revoked");
        }
        open.generation = membership.generation();
    }
    let asked = mesh.inbound.get_key_value(open.server_name.as_str()).ok_or("no such service here")?;
    let port = plan.mesh_port(&Place::Inbound(Arc::clone(asked.0))).ok_or("no requests here")?;
    let rule = rule_of(port, head).ok_or("no rule")?;
    if rule.value.invalid.is_some() {
        return Err("configuration");
    }
    if !passes(&rule.value.chain, head, Some(&open.client)) {
        return Err("denied");
    }
    // `80.s0.default.svc.cluster.local`
    let name = open.server_name.split('.').nth(1).and_then(|name| name.strip_prefix('s'));
    name.and_then(|number| number.parse().ok()).ok_or("an unknown name")
}

/// As `proxy::worker::Worker::leave_servers`, which each worker does within 100 ms of a change.
fn leave_servers(caller: &mut Node, plan: &Plan) {
    let Some(membership) = plan.mesh.as_ref().and_then(|mesh| mesh.membership.as_ref()) else { return };
    let ways: Vec<_> = plan.backends.iter().filter_map(|backend| backend.mesh.as_ref()).collect();
    caller.outgoing.retain(|(name, _), open| {
        let way = ways.iter().find(|way| *way.server_name == **name);
        membership.admits(&open.server) && way.is_none_or(|way| way.expected.contains(&open.server.id))
    });
}

fn rule_of(port: &Port, head: &RequestHead) -> Option<Arc<rhumb_route::Rule<Rule>>> {
    match port.table.find(head.authority(), head) {
        Lookup::Found(found) => Some(Arc::clone(found.rule)),
        _ => None,
    }
}

fn passes(chain: &Chain, head: &mut RequestHead, peer: Option<&PeerSvid>) -> bool {
    let mut cx = Exchange::new(Ipv4Addr::LOCALHOST.into(), Scheme::Http, 80);
    cx.certificate = peer.map(|peer| Arc::new(certificate(peer)));
    matches!(chain.on_request(head, &mut ChainState::default(), &mut cx), Step::Done)
}

fn tunnel(node: &Node) -> Option<rhumb_tls::ServerTlsSet> {
    let plan = node.plan.as_ref()?;
    plan.ports.iter().find(|port| port.role.as_deref() == Some(&Role::Tunnel))?.tls.clone()
}

fn membership(node: &Node) -> Option<&rhumb_tls::mesh::Membership> {
    node.plan.as_ref()?.mesh.as_ref()?.membership.as_ref()
}

fn certificate(peer: &PeerSvid) -> Certificate {
    Certificate {
        subject: Box::default(),
        serial: (*peer.serial).into(),
        dns_names: Box::default(),
        uris: [peer.id.as_str().into()].into(),
        emails: Box::default(),
        addresses: Box::default(),
        fingerprint: Box::default(),
        spiffe_id: peer.id.as_str().into(),
        not_after: peer.not_after_unix,
    }
}
