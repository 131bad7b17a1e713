//! What changes by itself in a process, seen by looking again and again: certificates, SVIDs, overload of backends.

use std::collections::BTreeMap;
use std::time::Instant;

use rhumb_plan::Current;
use rhumb_signals::Level;
use rhumb_tls::{ServerTls, ServerTlsSet};

use super::breakers::Breakers;
use super::tell;

/// What was seen last.
pub(crate) struct Watch {
    current: Current,
    certificates: Option<BTreeMap<String, i64>>,
    svid: Option<String>,
    panicking: BTreeMap<String, bool>,
    breakers: Breakers,
}

impl Watch {
    pub(crate) fn new(current: Current) -> Self {
        Self {
            current,
            certificates: None,
            svid: None,
            panicking: BTreeMap::new(),
            breakers: Breakers::default(),
        }
    }

    /// Tells what is other than before.
    pub(crate) fn look(&mut self) {
        let plan = self.current.load();
        self.breakers.look(&plan, Instant::now());
        let servers = plan.ports.iter().filter_map(|port| port.tls.as_ref()).flat_map(ServerTlsSet::servers);
        let certificates: BTreeMap<String, i64> = servers
            .flat_map(ServerTls::certificates)
            .map(|certificate| (certificate.origin.to_string(), certificate.not_after_unix))
            .collect();
        if let Some(before) = &self.certificates {
            for (origin, until) in &certificates {
                if before.get(origin).is_some_and(|before| before < until) {
                    tell(
                        "certificate_renewed",
                        Level::Info,
                        origin,
                        "a certificate was replaced by one that holds longer",
                    );
                }
            }
        }
        if plan.revision > 0 {
            self.certificates = Some(certificates);
        }
        let membership = plan.mesh.as_ref().and_then(|mesh| mesh.membership.as_ref());
        if let Some(svid) = membership.and_then(|membership| membership.svid()) {
            let id = svid.id().to_string();
            let mark = svid.facts().serial.to_string();
            match &self.svid {
                None => tell("svid_issued", Level::Info, &id, "this proxy has its identity"),
                Some(before) if *before != mark => {
                    tell("svid_renewed", Level::Info, &id, "the identity of this proxy was renewed");
                }
                Some(_) => {}
            }
            self.svid = Some(mark);
        }
        let now: BTreeMap<String, bool> = plan
            .backends
            .iter()
            .map(|backend| (backend.name.as_str().to_owned(), backend.endpoints.tally().is_panicking))
            .collect();
        for (name, is_panicking) in &now {
            match (self.panicking.get(name).copied().unwrap_or(false), *is_panicking) {
                (false, true) => tell(
                    "backend_panicking",
                    Level::Error,
                    name,
                    "too few endpoints can be used: requests go to all of them",
                ),
                (true, false) => {
                    tell("backend_recovered", Level::Info, name, "enough endpoints can be used again");
                }
                _ => {}
            }
        }
        self.panicking = now;
    }
}
