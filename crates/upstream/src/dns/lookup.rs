//! One attempt: from a query to the endpoints that its records name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::lookup::Lookup;
use hickory_resolver::proto::rr::{RData, RecordType};
use rhumb_balance::EndpointSpec;
use rhumb_net::connect::source_towards;
use rhumb_net::names::servers::{self, NameResolver, lookup};
use tokio::task::JoinSet;

use super::{Query, Trouble};

/// Most SRV records of one answer that are followed, the lowest priorities first.
pub(super) const TARGETS_LIMIT: usize = 256;

/// Most targets of one answer that are resolved at one time.
const TARGETS_AT_ONCE: usize = 16;

/// What an attempt brought.
#[derive(Debug)]
pub(super) struct Answer {
    specs: Vec<EndpointSpec>,
    /// The shortest time that a record may be kept.
    pub(super) ttl: Duration,
    /// Names of which one kind of address could not be resolved.
    pub(super) failed: Vec<(Arc<str>, Family)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: &SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl Answer {
    /// The endpoints, sorted; where a part of the answer is missing, those that were known of that part.
    pub(super) fn complete_with(self, known: &[EndpointSpec]) -> Vec<EndpointSpec> {
        let is_missing = |spec: &EndpointSpec| {
            let name = spec.hostname.as_deref().unwrap_or_default();
            self.failed
                .iter()
                .any(|(failed, family)| **failed == *name && *family == Family::of(&spec.address))
        };
        let mut specs: Vec<_> = known.iter().filter(|spec| is_missing(spec)).cloned().collect();
        specs.extend(self.specs);
        let key = |spec: &EndpointSpec| (spec.address, spec.hostname.clone());
        specs.sort_by_key(key);
        specs.dedup_by_key(|spec| key(spec));
        specs
    }
}

pub(super) async fn resolve(resolver: &NameResolver, query: &Query) -> Result<Answer, Trouble> {
    let mut answer = match query {
        Query::Address { name, port } => {
            let target = Target { name: Arc::clone(name), port: *port, weight: 1 };
            addresses(resolver, &target).await?
        }
        Query::Service { name } => service(resolver, name).await?,
    };
    keep_reachable(&mut answer.specs);
    Ok(answer)
}

/// A name whose addresses become endpoints.
struct Target {
    name: Arc<str>,
    port: u16,
    weight: u32,
}

async fn addresses(resolver: &NameResolver, target: &Target) -> Result<Answer, Trouble> {
    let hostname: Arc<str> = target.name.trim_end_matches('.').to_ascii_lowercase().into();
    let (v4, v6) = tokio::join!(
        lookup(resolver, &target.name, RecordType::A),
        lookup(resolver, &target.name, RecordType::AAAA)
    );
    let mut answer = Answer { specs: Vec::new(), ttl: Duration::MAX, failed: Vec::new() };
    let mut trouble: Option<Trouble> = None;
    for (family, outcome) in [(Family::V4, v4), (Family::V6, v6)] {
        match outcome {
            Ok(found) => {
                answer.ttl = answer.ttl.min(ttl(&found));
                answer.specs.extend(servers::addresses(&found).map(|ip| EndpointSpec {
                    hostname: Some(Arc::clone(&hostname)),
                    weight: target.weight,
                    ..EndpointSpec::new(SocketAddr::new(ip, target.port))
                }));
            }
            Err(error) => {
                if !error.is_negative() {
                    answer.failed.push((Arc::clone(&hostname), family));
                }
                if trouble.as_ref().is_none_or(|other| error.outweighs(other)) {
                    trouble = Some(error);
                }
            }
        }
    }
    if answer.specs.is_empty() { Err(trouble.unwrap_or(Trouble::NoRecords)) } else { Ok(answer) }
}

async fn service(resolver: &NameResolver, name: &str) -> Result<Answer, Trouble> {
    let found = lookup(resolver, name, RecordType::SRV).await?;
    let mut records: Vec<_> = found
        .answers()
        .iter()
        .filter_map(|record| if let RData::SRV(srv) = &record.data { Some(srv) } else { None })
        // RFC 2782: the target "." says that the service is decidedly not available.
        .filter(|srv| !srv.target.is_root())
        .collect();
    records.sort_by_key(|srv| srv.priority);
    records.truncate(TARGETS_LIMIT);
    let mut trouble = Trouble::NoRecords;
    // RFC 2782: the lowest priority that can be reached.
    for of_priority in records.chunk_by(|a, b| a.priority == b.priority) {
        let targets = of_priority.iter().map(|srv| Target {
            name: srv.target.to_ascii().into(),
            port: srv.port,
            weight: weight(srv.weight),
        });
        match all(resolver, targets.collect()).await {
            Ok(mut answer) => {
                answer.ttl = answer.ttl.min(ttl(&found));
                return Ok(answer);
            }
            // As long as a server does not know, the next priority must not take over: its turn is when these are gone.
            Err(error) if !error.is_negative() => return Err(error),
            Err(error) => trouble = error,
        }
    }
    Err(trouble)
}

/// The endpoints of several targets; an error when none has any.
async fn all(resolver: &NameResolver, targets: Vec<Target>) -> Result<Answer, Trouble> {
    let mut answer = Answer { specs: Vec::new(), ttl: Duration::MAX, failed: Vec::new() };
    let mut trouble = Trouble::NoRecords;
    let mut waiting = targets.into_iter();
    let mut running = JoinSet::new();
    loop {
        for target in waiting.by_ref().take(TARGETS_AT_ONCE.saturating_sub(running.len())) {
            let resolver = resolver.clone();
            running.spawn(async move {
                let outcome = addresses(&resolver, &target).await;
                (target, outcome)
            });
        }
        // A task that panicked or was cancelled has nothing to say.
        let Some(done) = running.join_next().await else { break };
        let Ok((target, outcome)) = done else { continue };
        match outcome {
            Ok(part) => {
                answer.specs.extend(part.specs);
                answer.ttl = answer.ttl.min(part.ttl);
                answer.failed.extend(part.failed);
            }
            Err(error) => {
                if !error.is_negative() {
                    let name: Arc<str> = target.name.trim_end_matches('.').to_ascii_lowercase().into();
                    answer.failed.extend([(Arc::clone(&name), Family::V4), (name, Family::V6)]);
                }
                if trouble.is_negative() {
                    trouble = error;
                }
            }
        }
    }
    if answer.specs.is_empty() { Err(trouble) } else { Ok(answer) }
}

/// RFC 2782: a larger weight gets a larger share, 0 "a very small chance". A hundredth, or an equal share among zeros.
fn weight(srv_weight: u16) -> u32 {
    match u32::from(srv_weight) {
        0 => 1,
        weight => weight * 100,
    }
}

fn ttl(found: &Lookup) -> Duration {
    // Records of CNAMEs on the way count as well. Without any record (names of /etc/hosts have none that ends) the
    // lookup's own time.
    let shortest = found.answers().iter().map(|record| record.ttl).min();
    shortest.map_or_else(
        || found.valid_until().saturating_duration_since(Instant::now()),
        |seconds| Duration::from_secs(u64::from(seconds)),
    )
}

/// RFC 6724 §6 rule 1: addresses that this host has no route to (commonly IPv6 ones) are left out, unless there are no
/// others.
fn keep_reachable(specs: &mut Vec<EndpointSpec>) {
    let has_route = |spec: &&EndpointSpec| source_towards(spec.address).is_ok();
    let reachable: Vec<_> = specs.iter().filter(has_route).cloned().collect();
    if !reachable.is_empty() {
        *specs = reachable;
    }
}
