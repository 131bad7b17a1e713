//! Whether what came of a request may have come of it: by the revisions that each side may go by, and by who they are.

use rhumb_agent::ads::Kind;
use rhumb_base::rng::Rng;
use rhumb_tls::mesh::PeerSvid;

use super::Simulation;
use super::call::{Ended, call};
use super::plane::identity;
use super::truth::{LEGACY, LEGACY_SERVICE, Truth};

impl Simulation {
    /// A proxy is known to use a revision, or a later one.
    pub(super) fn raise(&mut self, number: usize, about: (Kind, String), revision: u64) {
        let known = self.known[number].entry(about).or_default();
        *known = revision.max(*known);
    }

    /// The same of what a control plane calls live.
    pub(super) fn raise_to_what_is_live(&mut self, number: usize, plane: usize) {
        let core = &self.planes[plane].core;
        let proxy = format!("w{number} (default/a{number})");
        let mut live = Vec::new();
        for revision in 1..=core.revision() {
            let Some(touched) = core.told(revision) else { continue };
            if core.standing(touched).proxies.get(&proxy) == Some(&None) {
                live.extend(touched.iter().map(|((kind, name), _)| ((*kind, name.to_string()), revision)));
            }
        }
        for (about, revision) in live {
            if self.nodes[number].follower.wanted(about.0).any(|name| name == about.1) {
                self.raise(number, about, revision);
            }
        }
    }

    /// Revisions that a proxy may go by: from the one that it is known to use on.
    fn window(&self, number: usize, about: &(Kind, String)) -> &[Truth] {
        let from = self.known[number].get(about).copied().unwrap_or(0);
        &self.truths[usize::try_from(from).expect("few")..]
    }

    pub(super) fn request(&mut self, number: usize) {
        let services: Vec<usize> = self.nodes[number].calls().collect();
        let service = services[self.pick(services.len())];
        self.ask(number, service);
        let known = (Kind::Own, format!("default/w{number}"));
        let mesh = self.nodes[number].plan.as_ref().and_then(|plan| plan.mesh.as_ref());
        if mesh.is_some_and(|mesh| mesh.is_permissive) {
            let is_told = self.window(number, &known).iter().any(|truth| truth.is_permissive);
            assert!(is_told, "w{number} takes plain text, and nobody has said so");
        }
    }

    /// A request, and whether what came of it may be.
    pub(super) fn ask(&mut self, number: usize, service: usize) -> Ended {
        self.requests += 1;
        let mut rng = Rng::new(self.rng.next_u64());
        let asked = call(&mut self.nodes, number, service, &mut rng, self.requests);
        let (ended, between) = asked.unwrap_or_else(|wrong| panic!("w{number} to s{service}: {wrong}"));
        match &ended {
            Ended::Served { callee, service, is_new } => {
                self.count(if *is_new { "served, connected anew" } else { "served, connected before" });
                let (client, server) = between.expect("both ends");
                self.check_served(number, *callee, *service, *is_new, (&client, &server));
            }
            Ended::Plain(address) => {
                self.count("plain text to a workload without a proxy");
                let about = (Kind::Endpoints, format!("default/s{LEGACY_SERVICE}"));
                let is_told = self.window(number, &about).iter().any(|truth| truth.is_legacy_plain);
                let is_legacy = address.ip().to_string() == LEGACY;
                assert!(is_legacy && is_told, "w{number} sends plain text to {address}");
            }
            Ended::Refused(why) => self.count(format!("refused: {why}")),
            Ended::NoWay(why) => self.count(format!("no way: {why}")),
            Ended::Tls(why) => self.count(format!("TLS: {}", why.chars().take(60).collect::<String>())),
        }
        ended
    }

    fn check_served(
        &mut self,
        caller: usize,
        callee: usize,
        service: usize,
        is_new: bool,
        (client, server): (&PeerSvid, &PeerSvid),
    ) {
        let what = format!("w{caller} is served by w{callee} of s{service}");
        self.check_peer(client, caller, is_new.then_some(callee));
        self.check_peer(server, callee, is_new.then_some(caller));
        assert_eq!(self.nodes[callee].serves(), service, "{what}");
        let (path, now) = (format!("default/s{service}"), self.now());
        assert!(
            self.nodes[caller].may_answer(&path, server.id.as_str(), now),
            "{what}: it is none of its workloads"
        );
        for (who, other, svid) in [(callee, caller, client), (caller, callee, server)] {
            assert!(!self.is_revoked(who, other, svid), "{what}: w{who} knows that w{other} is revoked");
        }
        let window = self.window(callee, &(Kind::Service, path));
        assert!(
            window.iter().any(|truth| truth.allows(service, caller)),
            "{what}: no revision since {} allows it",
            self.truths.len() - window.len()
        );
    }

    /// A certificate is that of who showed it, and in a handshake it was valid by the clock of who looked.
    pub(super) fn check_peer(&self, svid: &PeerSvid, of: usize, verified_by: Option<usize>) {
        assert_eq!(svid.id, identity(&format!("a{of}")), "w{of} was taken for somebody else");
        let Some(who) = verified_by else { return };
        let clock = i64::try_from(self.nodes[who].clock()).expect("a time");
        let is_valid = svid.not_before_unix <= clock && clock <= svid.not_after_unix;
        assert!(is_valid, "a certificate of w{of} is taken out of its time");
    }

    /// Whether a proxy has heard that a certificate is void. Revocations are forgotten when everything that they void has ended.
    fn is_revoked(&self, who: usize, other: usize, svid: &PeerSvid) -> bool {
        let has_ended = svid.not_after_unix < i64::try_from(self.time()).expect("a time");
        !has_ended && voids(&self.revocations[..self.nodes[who].revocations], other, svid)
    }

    /// Whether a certificate of an account is revoked, whoever has heard of it.
    pub(super) fn is_void(&self, account: usize, svid: &PeerSvid) -> bool {
        voids(&self.revocations, account, svid)
    }
}

/// Whether one of these revocations is of a certificate of an account.
fn voids(revocations: &[(usize, i64)], account: usize, svid: &PeerSvid) -> bool {
    revocations.iter().any(|(of, until)| *of == account && svid.not_before_unix <= *until)
}
