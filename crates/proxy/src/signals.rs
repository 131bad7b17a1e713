//! Golden signals of exchanges: who called what.

use std::cell::RefCell;
use std::rc::Rc;

use rhumb_codec::field::Known;
use rhumb_codec::head::{Content as Body, Method, RequestHead, ResponseHead};
use rhumb_telemetry::metrics::{BackendId, RuleId};
use rhumb_telemetry::sightings::{CONTENT_BYTES, Content, Parties};
use rhumb_telemetry::signals::Seen;
use rhumb_telemetry::{Record, WorkerSightings, WorkerSignals};

use crate::exchange::Exchange;
use crate::pump::Pump;
use crate::worker::Worker;

/// Who calls, when this proxy has no identity.
pub(crate) const GATEWAY: &str = "gateway";

/// Who calls, when nobody has proven it.
pub(crate) const UNKNOWN: &str = "unknown";

/// Counts a finished exchange.
#[inline]
pub(crate) fn count(
    worker: &Worker,
    signals: &RefCell<WorkerSignals>,
    exchange: &Exchange,
    record: &Record<'_>,
    rule: RuleId,
    backend: Option<BackendId>,
) {
    let outcome = &exchange.outcome;
    let own_name = worker.own_name.borrow();
    let principal = exchange.found.principal.as_deref();
    let plan = principal.and_then(|principal| principal.consumer.as_ref()).map_or("", |known| &known.plan);
    let mut seen = Seen {
        rule,
        backend,
        endpoint: outcome.endpoint.as_ref().map(|endpoint| endpoint.identity()),
        source: &own_name,
        target: record.backend,
        is_mutual: false,
        plan,
    };
    match exchange.connection.mesh.as_deref().filter(|mesh| mesh.is_inbound()) {
        Some(mesh) => {
            let (source, target) = mesh.names();
            (seen.source, seen.target, seen.is_mutual) = (source, target, mesh.peer.is_some());
        }
        None => {
            let is_in_mesh = outcome.backend.as_ref().is_some_and(|backend| backend.mesh.is_some());
            // What was never sent was not sent in plain text.
            let is_tunnelled = outcome.endpoint.as_ref().is_none_or(|endpoint| endpoint.tunnel() != 0);
            seen.is_mutual = is_in_mesh && is_tunnelled;
        }
    }
    signals.borrow_mut().count(record, &seen);
    if let Some(sightings) = &worker.sightings {
        let request_type = exchange.req.fields.get(Known::ContentType).unwrap_or_default();
        let response_type = exchange.rsp.fields.get(Known::ContentType).unwrap_or_default();
        let request = exchange.pump.replay.whole();
        let content = Content { request_type, response_type, request, response: exchange.pump.glanced() };
        let parties = match exchange.connection.mesh.as_deref() {
            None => Parties::default(),
            Some(mesh) => {
                let is_served = mesh.is_inbound();
                let is_in_mesh =
                    is_served || outcome.backend.as_ref().is_some_and(|backend| backend.mesh.is_some());
                let service = if is_in_mesh { seen.target } else { "" };
                Parties { caller: seen.source, service, is_served }
            }
        };
        sightings.borrow_mut().see(record, &parties, &content);
    }
}

/// Has the content of a response copied as it passes, where it may say something new of an API.
#[inline]
pub(crate) fn glance(
    sightings: &RefCell<WorkerSightings>,
    req: &RequestHead,
    rsp: &ResponseHead,
    pump: &mut Pump,
) {
    let is_short = match rsp.content {
        Body::Length(length) => length > 0 && length <= CONTENT_BYTES as u64,
        Body::Streamed | Body::UntilClose => true,
        Body::None => false,
    };
    if !is_short || req.method() == Method::Head || rsp.fields.has(Known::ContentEncoding) {
        return;
    }
    let media = rsp.fields.get(Known::ContentType).unwrap_or_default();
    let (host, method, path) = (req.received_authority(), req.method_name(), req.received_target());
    if sightings.borrow_mut().wants_response(host, method, path, rsp.status, media) {
        pump.glance();
    }
}

/// `NAMESPACE/NAME:PORT` of the server name that proxies of a service are asked for.
pub(crate) fn service_name(server_name: &str) -> String {
    let mut parts = server_name.splitn(4, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(port), Some(name), Some(namespace)) => format!("{namespace}/{name}:{port}"),
        _ => server_name.to_owned(),
    }
}

/// `NAMESPACE/NAME:PORT` of a service that is served here, of the name of the backend that its application is.
pub(crate) fn served_here(backend: &str) -> Option<String> {
    // Nobody can write a name with this in it.
    let (namespace, service) = backend.split_once("/inbound/")?;
    Some(format!("{namespace}/{service}"))
}

/// Keeps the name that this proxy calls as.
pub(crate) fn know_own_name(worker: &Worker) {
    if worker.signals.is_none() {
        return;
    }
    let plan = worker.plan();
    let membership = plan.mesh.as_ref().and_then(|mesh| mesh.membership.as_ref());
    let Some(id) = membership.and_then(|membership| membership.id()) else { return };
    let mut own = worker.own_name.borrow_mut();
    let is_known = match id.account() {
        Some((namespace, account)) => {
            own.split_once('/').is_some_and(|(ours, name)| ours == namespace && name == account)
        }
        None => **own == *id.as_str(),
    };
    if !is_known {
        *own = match id.account() {
            Some((namespace, account)) => Rc::from(format!("{namespace}/{account}")),
            None => Rc::from(id.as_str()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_as_its_backend_is() {
        assert_eq!(service_name("8080.cart.shop.svc.cluster.local"), "shop/cart:8080");
        assert_eq!(service_name(""), "");
        assert_eq!(served_here("shop/inbound/cart:8080").as_deref(), Some("shop/cart:8080"));
        assert_eq!(served_here("shop/cart:8080"), None);
    }
}
