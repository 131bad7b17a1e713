//! What many processes saw, put together.
//!
//! Of a call between two of them both may tell. A service's own proxies know best what it was asked and what it answered, so
//! what callers tell of a host is left out as soon as somebody tells of it who answers for it: that host's callers are told
//! by those who were called. What callers tell of hosts without a proxy is all that is known of these.

use rhumb_telemetry::sightings::authority_of;

use super::glimpse::Glimpse;
use super::{Finder, Told};
use crate::history::fleet::Reporter;

/// What came of what a process told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Taken over.
    pub taken: u64,
    /// None of its business, or nothing that a process tells.
    pub foreign: u64,
}

impl Finder {
    /// Takes over what a process told of requests that it saw. `now`: seconds since 1970. `is_route`: there is such a route.
    pub fn hear<B: AsRef<[u8]>>(
        &self,
        reporter: &Reporter,
        told: &[B],
        now: u64,
        is_route: impl Fn(&str) -> bool,
    ) -> Heard {
        let mut heard = Heard::default();
        let mut glimpses = Vec::with_capacity(told.len());
        for bytes in told {
            match Glimpse::read(bytes.as_ref(), now).and_then(|glimpse| placed(glimpse, reporter, &is_route))
            {
                Some(glimpse) => glimpses.push(glimpse),
                None => heard.foreign += 1,
            }
        }
        heard.taken = glimpses.len() as u64;
        self.see(&glimpses, now);
        heard
    }
}

/// A glimpse with what follows from who tells it; none where that is not its business.
fn placed(
    mut glimpse: Glimpse,
    reporter: &Reporter,
    is_route: impl Fn(&str) -> bool,
) -> Option<(Told, Glimpse)> {
    if !glimpse.service.is_empty() {
        glimpse.host = authority_of(&glimpse.service)?;
    }
    if glimpse.is_served {
        if !reporter.serves(&glimpse.service) {
            return None;
        }
        let (namespace, service) = glimpse.service.split_once('/')?;
        (glimpse.route, glimpse.rule) = (format!("{namespace}/inbound/{service}"), "/".to_owned());
        return Some((Told::BySelf, glimpse));
    }
    if !is_route(&glimpse.route) {
        (glimpse.route, glimpse.rule) = (String::new(), String::new());
    }
    if reporter.is_gateway {
        return Some((Told::BySelf, glimpse));
    }
    glimpse.caller.clone_from(&reporter.account);
    Some((Told::ByCaller, glimpse))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const NOW: u64 = 1_800_000_000;

    fn gateway() -> Reporter {
        Reporter { account: "shop/edge".to_owned(), is_gateway: true, ..Reporter::default() }
    }

    fn sidecar(name: &str) -> Reporter {
        let services = vec![Arc::from(format!("shop/{name}"))];
        Reporter { account: format!("shop/{name}"), services, ..Reporter::default() }
    }

    fn glimpse(path: &str) -> Glimpse {
        Glimpse {
            host: "shop.example".to_owned(),
            method: "GET".to_owned(),
            path: path.to_owned(),
            status: 200,
            route: "shop/all".to_owned(),
            rule: "/".to_owned(),
            at: 90,
            count: 1,
            ..Glimpse::default()
        }
    }

    fn of_service(service: &str, is_served: bool, caller: &str) -> Glimpse {
        let (service, caller) = (service.to_owned(), caller.to_owned());
        Glimpse { service, is_served, caller, ..glimpse("/stock/7") }
    }

    fn tell(finder: &Finder, who: &Reporter, glimpses: &[Glimpse]) -> Heard {
        let told: Vec<_> = glimpses.iter().map(|glimpse| glimpse.write(100)).collect();
        finder.hear(who, &told, NOW, |route| route == "shop/all")
    }

    fn seen(finder: &Finder) -> Vec<(String, u64, Vec<String>)> {
        let apis = finder.apis(std::iter::empty());
        let one = |one: super::super::Operation| {
            (format!("{}{}", one.host, one.path), one.requests, one.callers.into_keys().collect())
        };
        apis.operations.into_iter().map(one).collect()
    }

    const NAMES: [&str; 12] =
        ["ada", "bob", "cyd", "dan", "eve", "fay", "gus", "hal", "ida", "joe", "kim", "lea"];

    #[test]
    fn what_several_saw_is_one_and_what_no_one_of_them_could_know_is_found() {
        let finder = Finder::of_fleet();
        let (ours, theirs) = NAMES.split_at(6);
        for names in [ours, theirs] {
            let glimpses: Vec<_> =
                names.iter().map(|name| glimpse(&format!("/people/{name}/letters"))).collect();
            assert_eq!(tell(&finder, &gateway(), &glimpses), Heard { taken: 6, foreign: 0 });
        }
        assert_eq!(seen(&finder), [("shop.example/people/{id}/letters".to_owned(), 12, Vec::new())]);
        let rules = [("shop/all", "/"), ("shop/all", "/old")];
        let routes = finder.apis(rules.into_iter()).routes;
        assert_eq!(routes[0].last_seen_at, Some(NOW - 10), "by the clock of who puts it together");
        assert_eq!(routes[1].last_seen_at, None);
    }

    #[test]
    fn of_a_call_that_both_sides_tell_the_one_that_was_called_is_believed() {
        let finder = Finder::of_fleet();
        let called = of_service("shop/stock:80", false, "");
        let served = of_service("shop/stock:80", true, "shop/web");
        tell(&finder, &sidecar("web"), std::slice::from_ref(&called));
        let stock = "stock.shop.svc.cluster.local/stock/{id}".to_owned();
        let web = || vec!["shop/web".to_owned()];
        assert_eq!(seen(&finder), [(stock.clone(), 1, web())]);
        tell(&finder, &sidecar("stock"), &[served.clone(), served]);
        tell(&finder, &sidecar("web"), &[called]);
        assert_eq!(seen(&finder), [(stock, 2, web())]);
        // The callers' route was used all the same.
        assert!(finder.apis([("shop/all", "/")].into_iter()).routes[0].last_seen_at.is_some());
        let learned = finder.apis(std::iter::empty()).operations.remove(0).routes;
        assert!(learned.contains_key("shop/inbound/stock:80"), "{learned:?}");
    }

    #[test]
    fn a_process_is_heard_about_its_own_calls_only() {
        let finder = Finder::of_fleet();
        let lies = [
            of_service("shop/stock:80", true, "shop/boss"),
            Glimpse { is_served: true, ..glimpse("/x") },
            Glimpse { service: "nonsense".to_owned(), ..glimpse("/x") },
        ];
        assert_eq!(tell(&finder, &sidecar("web"), &lies), Heard { taken: 0, foreign: 3 });
        let mut outside = glimpse("/v1/charges");
        (outside.caller, outside.route) = ("shop/boss".to_owned(), "shop/invented".to_owned());
        tell(&finder, &sidecar("web"), &[outside]);
        assert_eq!(seen(&finder)[0].2, ["shop/web"], "the caller is who tells it");
        assert!(finder.apis(std::iter::empty()).operations[0].routes.is_empty());
    }

    #[test]
    fn what_is_known_comes_back_and_goes_on() {
        let finder = Finder::of_fleet();
        tell(&finder, &sidecar("web"), &[of_service("shop/stock:80", false, "")]);
        let again = Finder::of_fleet();
        again.load(&finder.keep().unwrap());
        assert_eq!(seen(&again), seen(&finder));
        tell(&again, &sidecar("stock"), &[of_service("shop/stock:80", true, "shop/web")]);
        assert_eq!(seen(&again).len(), 1);
    }
}
