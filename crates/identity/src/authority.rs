//! The certificate authority of a trust domain.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_tls::CertificateSource;
use rhumb_tls::mesh::{Bundle, Revocations, RootInfo, Svid};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::lifetimes::Lifetimes;
use crate::records::{MAX_RACES, Place, Stamp, stamp};
use crate::request::{KeyRequest, NewKey};
use crate::{CONTROL_ACCOUNT, SYSTEM_NAMESPACE, file, pem};

mod error;
mod settings;
mod state;
mod schedule;
mod signer;
mod revoked;

pub use error::Error;
use revoked::Revoked;
use schedule::{Due, due};
use settings::Settings;
use signer::{Signer, make_intermediate, make_root};
use state::State;

/// The certificate authority of a trust domain: signs SVIDs, and renews what it signs them with.
///
/// Everything is in a directory that only its owner may enter, or sealed in a database. Several processes may share it:
/// changes are made one after the other, and each answer looks whether somebody else has made one.
pub struct Authority {
    domain: TrustDomain,
    lifetimes: RwLock<Lifetimes>,
    place: Place,
    backing: Backing,
    /// One change at a time within the process; the lock of the directory is for other processes.
    changing: Mutex<()>,
    current: RwLock<Current>,
}

enum Backing {
    /// Root and intermediate are made here.
    Embedded,
    /// Somebody else makes the intermediate and puts it there.
    Mounted(Mounted),
}

/// Where an intermediate of somebody else is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mounted {
    /// PEM: the intermediate, then whatever is between it and the root.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// PEM: the roots that members trust.
    pub bundle: PathBuf,
}

#[derive(Clone)]
struct Current {
    signer: Arc<Signer>,
    revoked: Arc<Revoked>,
    forecast: Forecast,
    stamps: Stamps,
}

/// What the files were when they were read.
type Stamps = Vec<Stamp>;

/// An SVID as it was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf and intermediates, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The bundle to trust from now on.
    pub bundle: Bundle,
    /// Start of validity, which is before now by what clocks may differ. Unit: seconds since 1970.
    pub not_before_unix: u64,
    /// End of validity. Unit: seconds since 1970.
    pub not_after_unix: u64,
}

/// What metrics and status pages say of the authority. Unit of times: seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// When the root that signs ends; zero where it is not ours to say.
    pub root_ends: u64,
    /// When the intermediate ends.
    pub intermediate_ends: u64,
    /// Roots in the bundle.
    pub roots: usize,
    /// Whether a new root is in the bundle that does not sign yet.
    pub is_announced: bool,
    /// Whether an old root is in the bundle that signs no more.
    pub is_retiring: bool,
    /// When something changes next, without anybody doing anything.
    pub next_change: u64,
}

/// A root and what it is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootStatus {
    /// Its facts.
    pub info: RootInfo,
    /// What it is doing.
    pub phase: Phase,
}

/// What a root is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is in the bundle and does not sign yet.
    Announced,
    /// It signs.
    Active,
    /// It signs no more; certificates of it live on.
    Retiring,
    /// It is not ours to say.
    Unknown,
}

impl Phase {
    /// The word for logs and for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Unknown => "unknown",
        }
    }
}

/// Something that [`Authority::tick`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A root was made; it is in the bundle.
    RootMade(String),
    /// A root signs from now on.
    RootActivated(String),
    /// A root left the bundle.
    RootRemoved(String),
    /// There is a new intermediate.
    Intermediate,
    /// Somebody else has changed the files.
    Reread,
}

/// The most that one tick does; each is a step of a rotation. Unit: steps.
const MAX_STEPS: usize = 16;

impl Authority {
    /// Opens the authority of a directory, or makes one with its first root.
    ///
    /// **Errors**: [`Error::Io`], [`Error::State`] and [`Error::OtherDomain`] for what is there, [`Error::Lifetimes`],
    /// [`Error::Inconsistent`] where peers would not take what it signs.
    pub fn open(
        directory: &Path,
        domain: &TrustDomain,
        lifetimes: Lifetimes,
        now_unix: u64,
    ) -> Result<Self, Error> {
        Self::open_with(
            Place::Directory(directory.to_owned()),
            domain,
            lifetimes,
            Backing::Embedded,
            now_unix,
        )
    }

    /// Opens the authority of a place, or makes one with its first root.
    ///
    /// **Errors**: as [`Authority::open`], and [`Error::Database`] and [`Error::Sealed`] for a database.
    pub fn open_at(
        place: Place,
        domain: &TrustDomain,
        lifetimes: Lifetimes,
        now_unix: u64,
    ) -> Result<Self, Error> {
        Self::open_with(place, domain, lifetimes, Backing::Embedded, now_unix)
    }

    /// Opens an authority whose intermediate somebody else makes: cert-manager, Vault, a company's own. `directory` keeps
    /// what is revoked and the tokens. The files are read again when they change.
    ///
    /// **Errors**: as [`Authority::open`], and [`Error::Unusable`] for the files.
    pub fn open_mounted(
        directory: &Path,
        domain: &TrustDomain,
        lifetimes: Lifetimes,
        mounted: Mounted,
        now_unix: u64,
    ) -> Result<Self, Error> {
        Self::open_with(
            Place::Directory(directory.to_owned()),
            domain,
            lifetimes,
            Backing::Mounted(mounted),
            now_unix,
        )
    }

    /// Opens the authority of a directory as the control plane has opened it: for those who do something with it from
    /// outside.
    ///
    /// **Errors**: [`Error::NoAuthority`] where there is none, and those of [`Authority::open`].
    pub fn attach(directory: &Path, now_unix: u64) -> Result<Self, Error> {
        Self::attach_at(Place::Directory(directory.to_owned()), now_unix)
    }

    /// As [`Authority::attach`], wherever it is.
    ///
    /// **Errors**: as those.
    pub fn attach_at(place: Place, now_unix: u64) -> Result<Self, Error> {
        let settings = Settings::load(&place)?.ok_or_else(|| Error::NoAuthority { path: place.path("") })?;
        let bad = || Error::State { path: place.path(settings::FILE), line: 1 };
        let domain = TrustDomain::parse(&settings.trust_domain).map_err(|_| bad())?;
        let backing = settings.mounted.clone().map_or(Backing::Embedded, Backing::Mounted);
        Self::open_with(place, &domain, settings.lifetimes(), backing, now_unix)
    }

    fn open_with(
        place: Place,
        domain: &TrustDomain,
        lifetimes: Lifetimes,
        backing: Backing,
        now: u64,
    ) -> Result<Self, Error> {
        let lifetimes = lifetimes.check()?;
        place.make()?;
        let files = Files { place: &place, domain, backing: &backing };
        let lock = files.lock()?;
        let mounted = match &backing {
            Backing::Embedded => None,
            Backing::Mounted(mounted) => Some(mounted.clone()),
        };
        let settings = Settings::new(domain, &lifetimes, mounted);
        raced(|| {
            if matches!(backing, Backing::Embedded) {
                files.advance(&lifetimes, now)?;
            }
            settings.save(&place)
        })?;
        let current = files.read(&lifetimes, now)?;
        drop(lock);
        Ok(Self {
            domain: domain.clone(),
            lifetimes: RwLock::new(lifetimes),
            place,
            backing,
            changing: Mutex::new(()),
            current: RwLock::new(current),
        })
    }

    /// Whose authority it is.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// How long certificates live.
    #[must_use]
    pub fn lifetimes(&self) -> Lifetimes {
        *self.lifetimes.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has certificates live for as long, from the next one on. False when they do already.
    ///
    /// **Errors**: [`Error::Lifetimes`], and those of [`Authority::tick`].
    pub fn set_lifetimes(&self, lifetimes: Lifetimes, now_unix: u64) -> Result<bool, Error> {
        let lifetimes = lifetimes.check()?;
        if lifetimes == self.lifetimes() {
            return Ok(false);
        }
        let mounted = match &self.backing {
            Backing::Embedded => None,
            Backing::Mounted(mounted) => Some(mounted.clone()),
        };
        let settings = Settings::new(&self.domain, &lifetimes, mounted);
        self.change(now_unix, |files| {
            settings.save(files.place)?;
            match self.backing {
                Backing::Embedded => files.advance(&lifetimes, now_unix),
                Backing::Mounted(_) => Ok(Vec::new()),
            }
        })?;
        *self.lifetimes.write().unwrap_or_else(PoisonError::into_inner) = lifetimes;
        // What is due, and when, follows from it.
        let files = Files { place: &self.place, domain: &self.domain, backing: &self.backing };
        let current = files.read(&lifetimes, now_unix)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(true)
    }

    /// Where it keeps what it must remember.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Does what is due: makes, activates and removes roots, renews the intermediate, and reads what somebody else has
    /// changed. To be called several times a second, so that what another process revokes is noticed: where nothing is due it
    /// asks for the age of a few files only. Otherwise it writes, and waits for the disk.
    ///
    /// **Errors**: [`Error::Io`] and the others; everything then stays as it was, which is good until something expires.
    pub fn tick(&self, now_unix: u64) -> Result<Vec<Changed>, Error> {
        let current = self.current();
        let files = Files { place: &self.place, domain: &self.domain, backing: &self.backing };
        if now_unix < current.forecast.next_change && files.stamps(false)? == current.stamps {
            return Ok(Vec::new());
        }
        self.change(now_unix, |files| match self.backing {
            Backing::Embedded => files.advance(&self.lifetimes(), now_unix),
            Backing::Mounted(_) => Ok(Vec::new()),
        })
    }

    /// Begins a rotation of the root at once. It runs as one that begins by itself: the new root signs when every member
    /// knows it.
    ///
    /// **Errors**: [`Error::RotationUnderWay`], [`Error::NotOurs`], and those of [`Authority::tick`].
    pub fn rotate_root(&self, now_unix: u64) -> Result<Vec<Changed>, Error> {
        self.change(now_unix, |files| match self.backing {
            Backing::Embedded => files.announce(&self.lifetimes(), now_unix),
            Backing::Mounted(_) => Err(Error::NotOurs),
        })
    }

    /// Voids everything that an identity has been given until now; it may join again.
    ///
    /// **Errors**: [`Error::Io`], [`Error::State`], [`Error::TooManyRevoked`].
    pub fn revoke_identity(&self, id: &SpiffeId, now_unix: u64) -> Result<(), Error> {
        // Validity begins before now by the skew.
        let until = now_unix.saturating_sub(self.lifetimes().skew());
        self.change_revoked(now_unix, |revoked| revoked.push_identity(id, until))
    }

    /// Voids one certificate, by its serial number in lower-case hexadecimal.
    ///
    /// **Errors**: as [`Authority::revoke_identity`].
    pub fn revoke_serial(&self, serial: &str, now_unix: u64) -> Result<(), Error> {
        self.change_revoked(now_unix, |revoked| revoked.push_serial(serial, now_unix))
    }

    fn change_revoked(
        &self,
        now: u64,
        change: impl Fn(&mut Revoked) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.change(now, |files| {
            let mut revoked = Revoked::load(files.place)?;
            revoked.forget(now, self.lifetimes().leaf.as_secs() + 2 * self.lifetimes().skew());
            change(&mut revoked)?;
            revoked.save(files.place)?;
            Ok(Vec::new())
        })?;
        Ok(())
    }

    /// What is void.
    #[must_use]
    pub fn revocations(&self) -> Revocations {
        self.current().revoked.list()
    }

    /// What is void now, also where another process has revoked it since the last tick.
    ///
    /// **Errors**: those of [`Authority::tick`].
    pub fn fresh_revocations(&self, now_unix: u64) -> Result<Revocations, Error> {
        Ok(self.fresh(now_unix)?.revoked.list())
    }

    /// Changes files under the lock, and takes over what they are then.
    fn change(
        &self,
        now: u64,
        change: impl Fn(&Files<'_>) -> Result<Vec<Changed>, Error>,
    ) -> Result<Vec<Changed>, Error> {
        let files = Files { place: &self.place, domain: &self.domain, backing: &self.backing };
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = files.lock()?;
        let mut changed = raced(|| change(&files))?;
        if files.stamps(true)? != self.current().stamps {
            let current = files.read(&self.lifetimes(), now)?;
            if changed.is_empty() {
                changed.push(Changed::Reread);
            }
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        }
        Ok(changed)
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is there now, also where another process has changed it since the last tick: a bundle that is behind could
    /// make a member miss a new root.
    fn fresh(&self, now: u64) -> Result<Current, Error> {
        let files = Files { place: &self.place, domain: &self.domain, backing: &self.backing };
        let current = self.current();
        if files.stamps(false)? == current.stamps {
            return Ok(current);
        }
        self.change(now, |_| Ok(Vec::new()))?;
        Ok(self.current())
    }

    /// Signs an SVID for an identity that has been proven.
    ///
    /// **Errors**: [`Error::Identity`] for one of another trust domain or the control plane's, [`Error::Expired`] where the
    /// intermediate has ended, [`Error::Io`].
    pub fn issue(&self, key: &KeyRequest, id: &SpiffeId, now_unix: u64) -> Result<Issued, Error> {
        if !id.is_member_of(&self.domain) || self.is_control(id) {
            return Err(Error::Identity(id.clone()));
        }
        self.sign(key, id, now_unix)
    }

    fn sign(&self, key: &KeyRequest, id: &SpiffeId, now: u64) -> Result<Issued, Error> {
        let current = self.fresh(now)?;
        let signer = current.signer;
        let not_after = (now + self.lifetimes().leaf.as_secs()).min(signer.not_after);
        if not_after <= now {
            return Err(Error::Expired);
        }
        let leaf = signer.sign(key, id, now.saturating_sub(self.lifetimes().skew()), not_after)?;
        let mut chain = vec![leaf.der];
        chain.extend(signer.chain.iter().cloned());
        Ok(Issued {
            chain,
            bundle: signer.bundle.clone(),
            not_before_unix: leaf.not_before,
            not_after_unix: leaf.not_after,
        })
    }

    fn is_control(&self, id: &SpiffeId) -> bool {
        id.namespace() == Some(SYSTEM_NAMESPACE)
    }

    /// The identity of control planes.
    ///
    /// **Errors**: none for a trust domain that parses.
    pub fn control_id(&self) -> Result<SpiffeId, Error> {
        self.domain.workload(SYSTEM_NAMESPACE, CONTROL_ACCOUNT).map_err(|_| Error::Clock)
    }

    /// An SVID for the control plane itself, and the bundle. The roots follow the chain, for those who join with a
    /// [`Pin`](crate::Pin) and no bundle.
    ///
    /// **Errors**: as [`Authority::issue`].
    pub fn control_svid(&self, now_unix: u64) -> Result<(Svid, Bundle), Error> {
        let key = NewKey::make()?;
        let mut issued = self.sign(&KeyRequest::parse(key.request())?, &self.control_id()?, now_unix)?;
        issued.chain.extend(issued.bundle.roots().iter().cloned());
        let source = CertificateSource {
            chain: pem::of_certificates(&issued.chain).into(),
            key: key.private_key_pem().into(),
            origin: "the control plane's SVID".into(),
        };
        Ok((Svid::parse(&source)?, issued.bundle))
    }

    /// The bundle of now.
    ///
    /// **Errors**: [`Error::Io`] and others of reading what another process has changed.
    pub fn bundle(&self, now_unix: u64) -> Result<Bundle, Error> {
        Ok(self.fresh(now_unix)?.signer.bundle.clone())
    }

    /// The roots of the bundle, and what each is doing.
    ///
    /// **Errors**: [`Error::Io`] and others of reading.
    pub fn roots(&self, now_unix: u64) -> Result<Vec<RootStatus>, Error> {
        let bundle = self.bundle(now_unix)?;
        let mut phases = Vec::new();
        if matches!(self.backing, Backing::Embedded) {
            let state = State::load(&self.place, self.domain.as_str())?.ok_or(Error::NoIntermediate)?;
            phases.extend(state.roots.iter().map(|root| match (root.activated, root.retired) {
                (None, _) => Phase::Announced,
                (Some(_), None) => Phase::Active,
                (Some(_), Some(_)) => Phase::Retiring,
            }));
        }
        let phases = phases.into_iter().chain(std::iter::repeat(Phase::Unknown));
        Ok(bundle.infos().into_iter().zip(phases).map(|(info, phase)| RootStatus { info, phase }).collect())
    }

    /// What will happen.
    #[must_use]
    pub fn forecast(&self) -> Forecast {
        self.current().forecast
    }
}

impl std::fmt::Debug for Authority {
    // Keys stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("domain", &self.domain)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// The files of an authority. Methods that write are called under [`lock`](Self::lock).
struct Files<'a> {
    place: &'a Place,
    domain: &'a TrustDomain,
    backing: &'a Backing,
}

impl Files<'_> {
    fn lock(&self) -> Result<Option<std::fs::File>, Error> {
        self.place.lock()
    }

    /// Everything whose change is to be noticed. What is not `is_fresh` may be of a moment ago.
    fn stamps(&self, is_fresh: bool) -> Result<Stamps, Error> {
        let mut stamps = self.place.stamps(&[state::NAME, revoked::NAME], is_fresh)?;
        if let Backing::Mounted(mounted) = self.backing {
            stamps.extend([&mounted.certificate, &mounted.key, &mounted.bundle].map(|path| stamp(path)));
        }
        Ok(stamps)
    }

    /// What the files are, where peers would take it.
    fn read(&self, lifetimes: &Lifetimes, now: u64) -> Result<Current, Error> {
        // Before reading: what changes meanwhile is read again.
        let stamps = self.stamps(true)?;
        let revoked = Arc::new(Revoked::load(self.place)?);
        let (signer, mut forecast) = match self.backing {
            Backing::Embedded => {
                let state = State::load(self.place, self.domain.as_str())?.ok_or(Error::NoIntermediate)?;
                let forecast = Forecast {
                    root_ends: state.active().map_or(0, |root| root.not_after),
                    is_announced: state.announced().is_some(),
                    is_retiring: state.roots.iter().any(|root| root.retired.is_some()),
                    next_change: next_change(&state, lifetimes, now),
                    ..Forecast::default()
                };
                (Signer::of_state(&state, self.domain)?, forecast)
            }
            Backing::Mounted(mounted) => {
                let read = |path: &Path| {
                    file::read(path, MAX_MOUNTED)
                        .and_then(|text| text.ok_or_else(|| io::ErrorKind::NotFound.into()))
                        .map_err(|error| Error::io(path, error))
                };
                let signer = Signer::of_pem(
                    &read(&mounted.certificate)?,
                    &read(&mounted.key)?,
                    &read(&mounted.bundle)?,
                    self.domain,
                    &mounted.certificate.display().to_string(),
                )?;
                (signer, Forecast { next_change: u64::MAX, ..Forecast::default() })
            }
        };
        let probed = self.domain.workload(SYSTEM_NAMESPACE, "probe").map_err(|_| Error::Clock)?;
        signer.probe(&probed, now)?;
        forecast.intermediate_ends = signer.not_after;
        forecast.roots = signer.bundle.roots().len();
        Ok(Current { signer: Arc::new(signer), revoked, forecast, stamps })
    }

    /// Does everything that is due, and writes it once.
    fn advance(&self, lifetimes: &Lifetimes, now: u64) -> Result<Vec<Changed>, Error> {
        let loaded = State::load(self.place, self.domain.as_str())?;
        let mut state = loaded.unwrap_or_else(|| State::new(self.domain.as_str()));
        let mut changed = Vec::new();
        let leaf = lifetimes.leaf.as_secs();
        let is_longer = state.roots.iter().any(|root| root.longest_leaf < leaf);
        for root in &mut state.roots {
            root.longest_leaf = root.longest_leaf.max(leaf);
        }
        for _ in 0..MAX_STEPS {
            let due = due(&state, lifetimes, now);
            if matches!(due, Due::Nothing(_)) {
                break;
            }
            changed.push(self.step(&mut state, due, lifetimes, now)?);
        }
        if is_longer || !changed.is_empty() {
            state.save(self.place)?;
        }
        Ok(changed)
    }

    fn announce(&self, lifetimes: &Lifetimes, now: u64) -> Result<Vec<Changed>, Error> {
        let mut changed = self.advance(lifetimes, now)?;
        let mut state = State::load(self.place, self.domain.as_str())?.ok_or(Error::NoIntermediate)?;
        // Two at most: what leaves and what comes.
        if state.announced().is_some() || state.roots.iter().any(|root| root.retired.is_some()) {
            return Err(Error::RotationUnderWay);
        }
        changed.push(self.step(&mut state, Due::Announce, lifetimes, now)?);
        state.save(self.place)?;
        Ok(changed)
    }

    fn step(&self, state: &mut State, due: Due, lifetimes: &Lifetimes, now: u64) -> Result<Changed, Error> {
        let skew = lifetimes.skew();
        match due {
            Due::First | Due::Announce => {
                let longest = state.roots.iter().map(|root| root.longest_leaf);
                let longest = longest.fold(lifetimes.leaf.as_secs(), u64::max);
                let ends = now + lifetimes.root.as_secs();
                let mut root = make_root(self.domain, now.saturating_sub(skew), ends, longest)?;
                root.published = now;
                if due == Due::First {
                    // Whatever was there has ended.
                    state.roots.clear();
                    root.activated = Some(now);
                }
                let id = root.id.clone();
                state.roots.push(root);
                Ok(Changed::RootMade(id))
            }
            Due::Activate => {
                let mut activated = String::new();
                for root in &mut state.roots {
                    match (root.activated, root.retired) {
                        (None, _) => {
                            root.activated = Some(now);
                            activated.clone_from(&root.id);
                        }
                        (Some(_), None) => root.retired = Some(now),
                        _ => {}
                    }
                }
                Ok(Changed::RootActivated(activated))
            }
            Due::Intermediate => {
                let root = state.active().ok_or(Error::NoIntermediate)?;
                let ends = (now + lifetimes.intermediate.as_secs()).min(root.not_after);
                let begins = now.saturating_sub(skew).max(root.not_before);
                state.intermediate = Some(make_intermediate(self.domain, root, begins, ends)?);
                Ok(Changed::Intermediate)
            }
            Due::Remove(id) => {
                state.roots.retain(|root| root.id != id);
                Ok(Changed::RootRemoved(id))
            }
            Due::Nothing(_) => Err(Error::NoIntermediate),
        }
    }
}

/// Does something again where somebody else was faster.
fn raced<T>(change: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..MAX_RACES {
        match change() {
            Err(Error::Raced) => {}
            done => return done,
        }
    }
    change()
}

/// The largest file of a mounted intermediate. Unit: bytes.
const MAX_MOUNTED: u64 = 1024 * 1024;

fn next_change(state: &State, lifetimes: &Lifetimes, now: u64) -> u64 {
    match due(state, lifetimes, now) {
        Due::Nothing(next) => next,
        _ => now,
    }
}

#[cfg(test)]
mod tests;
