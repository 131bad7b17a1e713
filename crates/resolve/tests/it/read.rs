//! Text to documents to plan, with certificates that are made when the tests run.

use std::sync::{Arc, OnceLock};

use rhumb_balance::Nanos;
use rhumb_model::expand::Lookup;
use rhumb_model::{Read, read, yaml};
use rhumb_plan::Plan;
use rhumb_resolve::{Resolved, Surroundings, resolve};
use rhumb_testkit::cert::{Authority, Identity, Validity};

/// 2026-01-01: within the validity of the test certificates.
pub(crate) const NOW_UNIX: i64 = 1_767_225_600;

pub(crate) const AROUND: Surroundings =
    Surroundings { now: Nanos(0), unix_seconds: NOW_UNIX, has_ipv6: true, workers: 2 };

struct Certificates {
    authority: Authority,
    web: Identity,
    other: Identity,
    wildcard: Identity,
    expired: Identity,
}

fn certificates() -> &'static Certificates {
    static ALL: OnceLock<Certificates> = OnceLock::new();
    ALL.get_or_init(|| {
        let authority = Authority::new("Test CA");
        Certificates {
            web: authority.server(&["web.test"]),
            other: authority.server(&["other.test"]),
            wildcard: authority.server(&["*.test"]),
            expired: authority.server_valid(&["web.test"], Validity::Expired),
            authority,
        }
    })
}

/// Files that documents may refer to.
struct Files;

impl Lookup for Files {
    fn variable(&mut self, _: &str) -> Option<String> {
        None
    }

    fn file(&mut self, path: &str) -> Result<String, String> {
        let all = certificates();
        Ok(match path {
            "ca.pem" => all.authority.pem(),
            "web.pem" => all.web.certificate.clone(),
            "web.key" => all.web.key.clone(),
            "other.pem" => all.other.certificate.clone(),
            "other.key" => all.other.key.clone(),
            "wildcard.pem" => all.wildcard.certificate.clone(),
            "wildcard.key" => all.wildcard.key.clone(),
            "expired.pem" => all.expired.certificate.clone(),
            "expired.key" => all.expired.key.clone(),
            _ => return Err("no such file or directory".to_owned()),
        })
    }
}

/// The documents of a file.
pub(crate) fn docs(text: &str) -> Read {
    let mut whole = Read::default();
    for source in yaml::sources(&Arc::from("in.yaml"), text) {
        let one = read(&source, Some(&mut Files), &[]);
        whole.docs.extend(one.docs);
        whole.diags.extend(one.diags);
    }
    whole
}

/// What a file means, with the mistakes of all stages.
pub(crate) fn resolved(text: &str, previous: Option<&Plan>) -> Resolved {
    let Read { docs, mut diags, .. } = docs(text);
    let mut resolved = resolve(&docs, previous, &AROUND);
    diags.append(&mut resolved.diagnostics);
    resolved.diagnostics = diags;
    resolved
}

/// The plan of a file without mistakes.
pub(crate) fn plan(text: &str, previous: Option<&Plan>) -> Plan {
    let resolved = resolved(text, previous);
    let told: Vec<String> = resolved.diagnostics.iter().map(ToString::to_string).collect();
    assert!(!resolved.diagnostics.iter().any(rhumb_model::Diag::is_error), "{told:#?}");
    resolved.plan
}
