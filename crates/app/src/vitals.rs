//! Whether the workload's own application can serve, and telling the control plane: it is no endpoint before it listens,
//! and one that is left out while it is unwell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_agent::Agent;
use rhumb_agent::ads::registry::Registration;
use rhumb_balance::Check;
use rhumb_plan::{Backend, Current, Plan};
use rhumb_proxy::rest::Awake;

/// How long to wait before it is tried again whether the application listens: at first, and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// How long an application may take to take a connection that it listens for.
const CONNECT: Duration = Duration::from_secs(1);

/// After so long without a listening application that is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether the application is well.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How often it is looked whether somebody asks it, as documents may come to say.
const LOOK_FOR_CHECKS: Duration = Duration::from_secs(5);

/// Registers the workload when its application listens, and again whenever that is well or unwell. Ends never.
pub(crate) async fn tell(
    agent: Arc<Agent>,
    mut registration: Registration,
    current: Current,
    awake: Arc<Awake>,
) {
    let began = Instant::now();
    let mut wait = LOOK.0;
    let mut is_told = false;
    while !is_listening(&targets(&current.load())).await {
        if began.elapsed() > PATIENCE && !std::mem::replace(&mut is_told, true) {
            tracing::warn!(
                targets = ?targets(&current.load()),
                "the application does not listen: callers are not sent here until it does"
            );
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOK.1);
    }
    registration.unhealthy = is_unwell(&current.load());
    agent.register(registration.clone());
    loop {
        let is_checked = checked(&current.load()).next().is_some();
        if is_checked {
            tokio::time::sleep(LOOK_AGAIN).await;
        } else {
            // Documents that say otherwise wake the workers.
            awake.any().await;
            tokio::time::sleep(LOOK_FOR_CHECKS).await;
        }
        let is_unwell = is_unwell(&current.load());
        if is_unwell != registration.unhealthy {
            tracing::warn!(is_unwell, "the application's health has changed: callers are told");
            registration.unhealthy = is_unwell;
            agent.register(registration.clone());
        }
    }
}

/// Backends that stand for the application beside the proxy. Nobody can write such a name.
fn own(plan: &Plan) -> impl Iterator<Item = &Arc<Backend>> {
    plan.backends.iter().filter(|backend| backend.name.as_str().split('/').nth(1) == Some("inbound"))
}

/// Those of them that are asked whether they are well.
fn checked(plan: &Plan) -> impl Iterator<Item = &Arc<Backend>> {
    own(plan).filter(|backend| backend.check.is_some())
}

fn targets(plan: &Plan) -> Vec<SocketAddr> {
    let sets = own(plan).map(|backend| backend.endpoints.load());
    sets.flat_map(|set| set.members().iter().map(|member| member.endpoint().address()).collect::<Vec<_>>())
        .collect()
}

async fn is_listening(targets: &[SocketAddr]) -> bool {
    for target in targets {
        let connecting = tokio::net::TcpStream::connect(target);
        if !matches!(tokio::time::timeout(CONNECT, connecting).await, Ok(Ok(_))) {
            return false;
        }
    }
    true
}

/// True when a check of the application says so.
fn is_unwell(plan: &Plan) -> bool {
    checked(plan).any(|backend| {
        let set = backend.endpoints.load();
        set.members().iter().any(|member| {
            let state = backend.endpoints.state(member.endpoint());
            matches!(state.check, Some((Check::Failing(_), _)))
        })
    })
}
