//! Where proxies reach a control plane: gRPC over TLS between members of the mesh.
//!
//! Who has no certificate yet is let in, to the issuer only, which is where certificates come from.

use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use rhumb_control::caller::Caller;
use rhumb_control::control::Control;
use rhumb_control::serve::{routes, serve as serve_routes};
use rhumb_identity::{Issuer, IssuerService, MemberPeer, accept};
use tokio::net::TcpListener;

/// Serves proxies until `stop` ends.
pub(super) async fn serve(
    listener: TcpListener,
    control: Arc<Control>,
    issuer: Arc<Issuer>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    // Before anybody is told who there is: what other control planes know.
    control.meet().await;
    let hub = Arc::clone(control.hub());
    let (accepting, connections) =
        accept(listener, issuer.membership()).context("TLS of the control plane")?;
    let of_control = |extensions: &axum::http::Extensions| {
        extensions.get::<MemberPeer>().filter(|peer| peer.is_admitted()).map(caller)
    };
    let routes = routes(&hub, of_control).add_service(IssuerService::of(Arc::clone(&issuer)));
    tokio::select! {
        () = accepting => Ok(()),
        () = Arc::clone(&issuer).run() => Ok(()),
        () = hub.keep() => Ok(()),
        () = control.follow() => Ok(()),
        () = super::follow_lifetimes(&control, &issuer) => Ok(()),
        served = serve_routes(&hub, routes, connections, stop) => served.context("gRPC"),
    }
}

fn caller(peer: &MemberPeer) -> Caller {
    match peer.svid.as_ref().and_then(|svid| svid.id.account()) {
        Some((namespace, account)) => Caller::Proven { namespace: namespace.into(), account: account.into() },
        None => Caller::Unknown(Some(peer.from)),
    }
}
