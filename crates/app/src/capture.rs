//! What capturing connections asks of the process: names answered with virtual addresses, and its own sockets marked.
//!
//! Connections themselves are the workers'. The rules that bring them are made by `rhumb intercept`, in another process
//! that has the privilege.

use std::net::IpAddr;
use std::sync::{Arc, Once};

use arc_swap::ArcSwap;
use rhumb_base::outside::OutsideNames;
use rhumb_base::resolv_conf;
use rhumb_dns::{Addresses, Asking, Names, Outside, Server, Settings};
use rhumb_net::capture::{DEFAULT_MARK, mark_sockets, watch_for_loops};
use rhumb_plan::mesh;
use rhumb_telemetry::Registry;

/// Where the kernel shows the routes of IPv6.
const ROUTES_V6: &str = "/proc/net/ipv6_route";

/// The capture of this process: nothing until a Sidecar asks for it.
#[derive(Default)]
pub(crate) struct Capture {
    names: Arc<ArcSwap<Names>>,
    /// Addresses that stand for names out of the mesh.
    outside: Arc<OutsideNames>,
    in_force: Option<mesh::Capture>,
    server: Option<Server>,
    /// Who knows names that no document has.
    asking: Option<Asking>,
}

impl Capture {
    /// Asks for names that no document has, from the first capture on.
    pub(crate) fn ask(&mut self, asking: Asking) {
        self.asking = Some(asking);
    }

    /// Addresses that stand for names out of the mesh, for who takes the connections.
    pub(crate) fn outside(&self) -> Arc<OutsideNames> {
        Arc::clone(&self.outside)
    }

    /// Takes over what a plan says.
    ///
    /// # Errors
    /// When the port for questions for names cannot be had; what was before goes on.
    pub(crate) fn take_over(
        &mut self,
        wanted: Option<&mesh::Capture>,
        registry: &Registry,
    ) -> std::io::Result<()> {
        let Some(wanted) = wanted else {
            self.server = None;
            self.in_force = None;
            return Ok(());
        };
        if self.in_force.as_ref() == Some(wanted) {
            return Ok(());
        }
        mark_own_sockets();
        self.names.store(Arc::new(names(wanted, &self.outside)));
        if self.in_force.as_ref().is_none_or(|now| now.dns != wanted.dns) {
            let nameservers = nameservers();
            tracing::info!(
                port = wanted.dns,
                ?nameservers,
                names = wanted.names.len(),
                "answering questions for names"
            );
            let is_v6 = has_default_route(&std::fs::read_to_string(ROUTES_V6).unwrap_or_default());
            let asking = self.asking.clone();
            let settings = Settings { port: wanted.dns, nameservers, is_v6, asking };
            self.server = Some(Server::start(&settings, Arc::clone(&self.names), registry)?);
        }
        self.in_force = Some(wanted.clone());
        Ok(())
    }
}

/// Lets what this process sends pass the rules from here on, which may be there before it asks its first question for a name.
pub(crate) fn mark_own_sockets() {
    static MARKED: Once = Once::new();
    MARKED.call_once(|| {
        if let Err(error) = mark_sockets(DEFAULT_MARK) {
            tracing::warn!(
                %error,
                "sockets cannot be marked, which takes CAP_NET_RAW or CAP_NET_ADMIN: `rhumb intercept` has to exclude the \
                 user that this process runs as (--exclude-users)"
            );
            watch_for_loops();
        }
    });
}

fn names(wanted: &mesh::Capture, addresses: &Arc<OutsideNames>) -> Names {
    let mut names = Names::default();
    for (name, v4, v6) in &wanted.names {
        names.insert(name, Addresses { v4: *v4, v6: *v6 });
    }
    wanted.zones.iter().for_each(|zone| names.own_zone(zone));
    if let Some(outside) = &wanted.outside {
        names.stand_for(Outside {
            names: outside.names.clone(),
            own: outside.own.iter().cloned().collect(),
            addresses: Arc::clone(addresses),
        });
    }
    names
}

/// Those of the machine, as `rhumb intercept` takes them.
fn nameservers() -> Vec<IpAddr> {
    rhumb_net::names::servers::read_conf(resolv_conf::PATH).nameservers
}

/// True when there is a route to everywhere over IPv6 that leads out. Columns: destination, its prefix length, …, device.
fn has_default_route(routes: &str) -> bool {
    routes.lines().any(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        columns.first().is_some_and(|destination| destination.bytes().all(|b| b == b'0'))
            && columns.get(1) == Some(&"00")
            && columns.last().is_some_and(|device| *device != "lo")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_that_leads_out_is_found() {
        let zeros = "00000000000000000000000000000000";
        let route = |prefix: &str, device: &str| {
            format!(
                "{zeros} {prefix} {zeros} 00 fd770000000000000000000000000254 00000400 00000001 00000000 00000003 {device}\n"
            )
        };
        // The kernel's own route that refuses.
        assert!(!has_default_route(&route("00", "lo")));
        assert!(!has_default_route(&route("40", "eth0")));
        assert!(has_default_route(&(route("00", "lo") + &route("00", "eth0"))));
    }

    #[test]
    fn a_service_is_found_by_each_of_its_names() {
        let capture = mesh::Capture {
            dns: 0,
            names: vec![
                ("orders".into(), Some([240, 240, 0, 1].into()), None),
                ("orders.shop".into(), None, None),
            ],
            zones: vec!["svc.cluster.local".into()],
            outside: None,
        };
        let names = names(&capture, &Arc::default());
        assert_eq!(names.find("orders").and_then(|found| found.v4), Some([240, 240, 0, 1].into()));
        assert!(names.find("orders.shop").is_some() && names.is_own("x.y.svc.cluster.local"));
    }
}
