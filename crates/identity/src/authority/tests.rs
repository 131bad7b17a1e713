use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use proptest::prelude::*;
use rhumb_tls::mesh::PeerSvid;

use super::*;

const NOW: u64 = 1_900_000_000;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn domain() -> TrustDomain {
    TrustDomain::parse("td.test").unwrap()
}

fn id(name: &str) -> SpiffeId {
    domain().workload("shop", name).unwrap()
}

fn lifetimes(leaf: u64, intermediate: u64, root: u64) -> Lifetimes {
    let seconds = Duration::from_secs;
    Lifetimes { leaf: seconds(leaf), intermediate: seconds(intermediate), root: seconds(root) }
        .check()
        .unwrap()
}

fn key() -> KeyRequest {
    KeyRequest::parse(NewKey::make().unwrap().request()).unwrap()
}

fn place(directory: &tempfile::TempDir) -> Place {
    Place::Directory(directory.path().to_owned())
}

#[test]
fn a_leaf_is_an_svid_that_peers_take() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), &domain(), Lifetimes::default(), NOW).unwrap();
    let issued = authority.issue(&key(), &id("orders"), NOW).unwrap();
    let peer = issued.bundle.verify(&issued.chain, NOW).unwrap();
    assert_eq!(peer.id, id("orders"));
    assert_eq!(peer.not_after_unix, (NOW + DAY) as i64);
    assert_eq!(peer.not_before_unix, (NOW - 300) as i64);
    assert!(issued.bundle.verify(&issued.chain, NOW + DAY + 1).is_err());
    assert_eq!(issued.chain.len(), 2);

    let other = SpiffeId::parse("spiffe://other.test/ns/shop/sa/orders").unwrap();
    assert!(matches!(authority.issue(&key(), &other, NOW), Err(Error::Identity(_))));
    let control = authority.control_id().unwrap();
    assert!(matches!(authority.issue(&key(), &control, NOW), Err(Error::Identity(_))));
    let (svid, bundle) = authority.control_svid(NOW).unwrap();
    assert_eq!(svid.id(), &control);
    assert_eq!(svid.chain().last(), bundle.roots().first());
}

#[test]
fn an_authority_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let open = |domain: &TrustDomain| Authority::open(dir.path(), domain, Lifetimes::default(), NOW);
    let bundle = open(&domain()).unwrap().bundle(NOW).unwrap();
    let again = open(&domain()).unwrap();
    assert_eq!(again.bundle(NOW).unwrap(), bundle);
    assert!(again.tick(NOW + 1).unwrap().is_empty());
    let other = open(&TrustDomain::parse("other.test").unwrap());
    assert!(matches!(other, Err(Error::OtherDomain { .. })));

    let state = dir.path().join("authority.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, &text[..text.len() / 2]).unwrap();
    let error = open(&domain()).unwrap_err();
    assert!(matches!(error, Error::State { .. }), "{error}");
    assert!(!error.to_string().contains("PRIVATE"));
}

#[test]
fn keys_that_do_not_fit_are_refused_at_the_start() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &two] {
        Authority::open(dir.path(), &domain(), Lifetimes::default(), NOW).unwrap();
    }
    let load = |dir: &tempfile::TempDir| State::load(&place(dir), "td.test").unwrap().unwrap();
    let mut mixed = load(&one);
    mixed.intermediate = load(&two).intermediate.map(|mut other| {
        other.root.clone_from(&mixed.roots[0].id);
        other
    });
    mixed.save(&place(&one)).unwrap();
    let error = Authority::open(one.path(), &domain(), Lifetimes::default(), NOW).unwrap_err();
    assert!(matches!(error, Error::Inconsistent(_)), "{error}");
}

#[test]
fn another_process_is_noticed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let one = Authority::open(dir.path(), &domain(), Lifetimes::default(), NOW).unwrap();
    let two = Authority::open(dir.path(), &domain(), Lifetimes::default(), NOW).unwrap();
    one.rotate_root(NOW).unwrap();
    assert_eq!(two.issue(&key(), &id("a"), NOW).unwrap().bundle.roots().len(), 2);
    assert!(matches!(two.rotate_root(NOW), Err(Error::RotationUnderWay)));
    two.revoke_identity(&id("a"), NOW).unwrap();
    assert_eq!(one.tick(NOW).unwrap(), [Changed::Reread]);
    assert_eq!(one.revocations(), two.revocations());
}

#[test]
fn what_is_revoked_is_what_was_given_before() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), &domain(), Lifetimes::default(), NOW).unwrap();
    let issue = |name: &str, now| {
        let issued = authority.issue(&key(), &id(name), now).unwrap();
        PeerSvid::parse(&issued.chain[0]).unwrap()
    };
    let (old, other) = (issue("a", NOW), issue("b", NOW));
    authority.revoke_identity(&id("a"), NOW + 10).unwrap();
    authority.revoke_serial(&other.serial, NOW + 10).unwrap();
    assert!(authority.revoke_serial("no number", NOW).is_err());
    let new = issue("a", NOW + 11);
    let revoked = authority.revocations();
    assert!(revoked.contains(&old) && revoked.contains(&other));
    assert!(!revoked.contains(&new) && !revoked.contains(&issue("b", NOW)));
    // Once everything that it could void has ended it is forgotten.
    authority.revoke_identity(&id("c"), NOW + 2 * DAY).unwrap();
    assert_eq!(authority.revocations().len(), 1);
}

#[test]
fn a_mounted_intermediate_signs_and_is_followed() {
    // Another authority stands for the company's own.
    let theirs = tempfile::tempdir().unwrap();
    let company = Authority::open(theirs.path(), &domain(), Lifetimes::default(), NOW).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files = Mounted {
        certificate: theirs.path().join("tls.crt"),
        key: theirs.path().join("tls.key"),
        bundle: theirs.path().join("ca.crt"),
    };
    let mount = |domain_of: &tempfile::TempDir| {
        let state = State::load(&place(domain_of), "td.test").unwrap().unwrap();
        let intermediate = state.intermediate.unwrap();
        let roots: String = state.roots.iter().map(|root| root.certificate.as_str()).collect();
        // cert-manager puts the root behind the intermediate at times.
        file::replace(&files.certificate, format!("{}{roots}", intermediate.certificate).as_bytes()).unwrap();
        file::replace(&files.key, intermediate.key.as_bytes()).unwrap();
        file::replace(&files.bundle, roots.as_bytes()).unwrap();
    };
    mount(&theirs);
    let open = || Authority::open_mounted(dir.path(), &domain(), Lifetimes::default(), files.clone(), NOW);
    let authority = open().unwrap();
    let issued = authority.issue(&key(), &id("a"), NOW).unwrap();
    company.bundle(NOW).unwrap().verify(&issued.chain, NOW).unwrap();
    assert!(matches!(authority.rotate_root(NOW), Err(Error::NotOurs)));
    assert!(authority.forecast().intermediate_ends > NOW);

    // A half-written change is not taken over, and what was there goes on.
    let another = tempfile::tempdir().unwrap();
    Authority::open(another.path(), &domain(), Lifetimes::default(), NOW).unwrap();
    file::replace(&files.key, b"-----BEGIN PRIVATE KEY-----\n").unwrap();
    assert!(authority.tick(NOW).is_err());
    mount(&another);
    assert_eq!(authority.tick(NOW).unwrap(), [Changed::Reread]);
    let issued = authority.issue(&key(), &id("a"), NOW).unwrap();
    assert!(company.bundle(NOW).unwrap().verify(&issued.chain, NOW).is_err());

    file::replace(&files.certificate, &fs::read(&files.bundle).unwrap()).unwrap();
    assert!(matches!(open(), Err(Error::Unusable { .. })));
}

/// A member as the keeper makes it: renews at half of its SVID's life, and takes the bundle that comes with it.
struct Member {
    name: String,
    chain: Vec<CertificateDer<'static>>,
    bundle: Bundle,
    renew_at: u64,
    ends: u64,
}

impl Member {
    fn join(authority: &Authority, name: &str, key: &KeyRequest, now: u64, spread: u64) -> Self {
        let issued = authority.issue(key, &id(name), now).unwrap();
        // Half of its life, and a part of a tenth later.
        let life = issued.not_after_unix - now;
        Self {
            name: name.to_owned(),
            chain: issued.chain,
            bundle: issued.bundle,
            renew_at: now + life / 2 + life * spread / 1000,
            ends: issued.not_after_unix,
        }
    }

    fn renew(&mut self, authority: &Authority, key: &KeyRequest, now: u64, spread: u64) {
        *self = Self::join(authority, &self.name.clone(), key, now, spread);
    }

    /// What a handshake with a peer says at this time.
    fn takes(&self, peer: &Self, now: u64) -> bool {
        self.bundle.verify(&peer.chain, now).is_ok()
    }
}

/// The acceptance test for rotations: accelerated years, no handshake fails. Members renew with a spread; one of them is away
/// at times and comes back before its SVID ends; another is away for longer and joins anew.
#[test]
fn no_handshake_fails_in_three_years_of_rotations() {
    let lifetimes = lifetimes(HOUR, 30 * DAY, 90 * DAY);
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), &domain(), lifetimes, NOW).unwrap();
    let key = key();
    let mut members: Vec<Member> = Vec::new();
    let (mut handshakes, mut roots) = (0u32, HashMap::new());
    let mut changes = HashMap::new();
    let end = NOW + 3 * 365 * DAY;
    let mut now = NOW;
    let mut turn = 0u64;
    let mut has_leapt = false;
    while now < end {
        for change in authority.tick(now).unwrap() {
            let name = match change {
                Changed::RootMade(id) => {
                    roots.insert(id, now);
                    "made"
                }
                Changed::RootActivated(_) => "activated",
                Changed::RootRemoved(_) => "removed",
                Changed::Intermediate => "intermediate",
                Changed::Reread => "reread",
            };
            *changes.entry(name).or_insert(0) += 1;
        }
        if members.is_empty() {
            members =
                (0..3).map(|at| Member::join(&authority, &format!("m{at}"), &key, now, at * 40)).collect();
        }
        // The second member is renewed as late as can be.
        let due = |(at, member): (usize, &Member)| if at == 1 { member.ends - 30 } else { member.renew_at };
        for (at, member) in members.iter_mut().enumerate() {
            if now >= due((at, member)) || has_leapt {
                member.renew(&authority, &key, now, (turn * 37 + at as u64 * 11) % 100);
            }
        }
        for one in &members {
            for other in &members {
                assert!(one.takes(other, now), "{} does not take {} at {now}", one.name, other.name);
                handshakes += 1;
            }
        }
        turn += 1;
        // Dense while a rotation is under way, days at a time otherwise: everybody renews right after a leap, as those do
        // who were up all the time.
        let forecast = authority.forecast();
        let is_rotating = forecast.is_announced || forecast.is_retiring;
        let next = members.iter().enumerate().map(due).min().unwrap();
        let step = if is_rotating || turn % 40 < 4 { (next.max(now + 1) - now).min(601) } else { 5 * DAY };
        // A leap ends before the next change of the authority, and so does what members hold.
        let leap = (forecast.next_change.saturating_sub(now)).max(1);
        now += step.min(leap);
        has_leapt = step > HOUR;
    }
    // A root each 45 days, an intermediate each 15 days or with a root.
    assert!(changes["made"] >= 20 && changes["activated"] >= 20 && changes["removed"] >= 19, "{changes:?}");
    assert!(changes["intermediate"] >= 60, "{changes:?}");
    assert!(handshakes > 3_000, "{handshakes}");
}

#[test]
fn a_root_signs_only_when_everybody_can_know_it() {
    let lifetimes = lifetimes(HOUR, 30 * DAY, 90 * DAY);
    let skew = lifetimes.skew();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), &domain(), lifetimes, NOW).unwrap();
    let before = authority.issue(&key(), &id("a"), NOW).unwrap();
    authority.rotate_root(NOW).unwrap();
    assert_eq!(authority.bundle(NOW).unwrap().roots().len(), 2);
    // As long as somebody can have been told nothing of it, it does not sign.
    authority.tick(NOW + HOUR + 2 * skew - 1).unwrap();
    let last = authority.issue(&key(), &id("a"), NOW + HOUR + 2 * skew - 1).unwrap();
    assert!(before.bundle.verify(&last.chain, NOW + HOUR + 2 * skew - 1).is_ok());
    let switched = NOW + HOUR + 2 * skew;
    let changes = authority.tick(switched).unwrap();
    assert!(matches!(&changes[..], [Changed::RootActivated(_), Changed::Intermediate]), "{changes:?}");
    let after = authority.issue(&key(), &id("a"), switched).unwrap();
    assert!(before.bundle.verify(&after.chain, switched).is_err());
    assert!(last.bundle.verify(&after.chain, switched).is_ok());
    // As long as a leaf of the old one lives, it stays.
    authority.tick(switched + HOUR + 2 * skew - 1).unwrap();
    assert_eq!(authority.bundle(switched).unwrap().roots().len(), 2);
    let changes = authority.tick(switched + HOUR + 2 * skew).unwrap();
    assert!(matches!(&changes[..], [Changed::RootRemoved(_)]), "{changes:?}");
    assert_eq!(authority.bundle(switched).unwrap().roots().len(), 1);
}

#[test]
fn a_shorter_life_of_leaves_does_not_cut_those_that_live() {
    let dir = tempfile::tempdir().unwrap();
    let open =
        |leaf| Authority::open(dir.path(), &domain(), lifetimes(leaf, 30 * DAY, 90 * DAY), NOW).unwrap();
    open(12 * HOUR);
    let authority = open(HOUR);
    authority.rotate_root(NOW).unwrap();
    authority.tick(NOW + 11 * HOUR).unwrap();
    assert!(authority.forecast().is_announced);
    authority.tick(NOW + 12 * HOUR + 600).unwrap();
    assert!(authority.forecast().is_retiring);
    authority.tick(NOW + 23 * HOUR).unwrap();
    assert_eq!(authority.bundle(NOW).unwrap().roots().len(), 2);
}

#[test]
fn an_authority_that_slept_through_everything_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), &domain(), lifetimes(HOUR, 30 * DAY, 90 * DAY), NOW).unwrap();
    let late = NOW + 91 * DAY;
    assert!(matches!(authority.issue(&key(), &id("a"), late), Err(Error::Expired)));
    let changes = authority.tick(late).unwrap();
    assert!(matches!(&changes[..], [Changed::RootMade(_), Changed::Intermediate]), "{changes:?}");
    let issued = authority.issue(&key(), &id("a"), late).unwrap();
    issued.bundle.verify(&issued.chain, late).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    /// Whatever the lifetimes, and however irregularly the authority is looked after: two members with valid SVIDs take each
    /// other, as long as it is looked after within a tenth of a leaf's life while a rotation is due.
    #[test]
    fn members_always_take_each_other(
        leaf in 20u64..5_000,
        intermediate in 4u64..20,
        root in 2u64..8,
        steps in prop::collection::vec((1u64..100, 0usize..3, any::<bool>()), 80),
    ) {
        let lifetimes = lifetimes(leaf, leaf * intermediate, leaf * intermediate * root);
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), &domain(), lifetimes, NOW).unwrap();
        let key = key();
        let mut now = NOW;
        let mut members: Vec<Member> =
            (0..3).map(|at| Member::join(&authority, &format!("m{at}"), &key, now, 0)).collect();
        for (percent, who, rotate) in steps {
            now += (leaf * percent / 250).max(1);
            authority.tick(now).unwrap();
            if rotate {
                let _ = authority.rotate_root(now);
            }
            // This one renews at any time; the others when theirs has ended, having been away.
            members[who].renew(&authority, &key, now, 0);
            for member in &mut members {
                if now >= member.ends {
                    member.renew(&authority, &key, now, 0);
                }
            }
            for one in &members {
                for other in &members {
                    prop_assert!(one.takes(other, now), "{} does not take {} at {}", one.name, other.name, now);
                }
            }
        }
    }
}
