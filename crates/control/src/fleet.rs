//! What the proxies of this control plane tell of themselves: how each stands, and what it carries.
//!
//! What they counted is put together in a history ([`rhumb_signals::History::take`]). Who a proxy is follows from its
//! certificate, and of which services it is an endpoint from its registration: a proxy is heard about nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use rhumb_ads::report::{Look, MAX_ITEMS, MAX_SEEN, Report, Standing};
use rhumb_signals::{Event, History, Level, Reporter};

use crate::caller::Caller;
use crate::control::unix_ms;
use crate::core::MAX_DEPARTED;
use crate::document::Key;
use crate::hub::Hub;
use crate::looks::{Ask, Looking, Looks};
use crate::serve::owns;
use crate::withheld::{Client, NotOffered, Withheld};

/// The longest text of a report that is kept. Unit: bytes.
const MAX_TEXT: usize = 1_024;

/// What comes before the name of a workload in the name of a proxy.
const SIDECAR: &str = "sidecar/";

/// Kinds of documents that rules are in.
const ROUTES: [&str; 2] = ["HTTPRoute", "GRPCRoute"];

/// What proxies tell.
#[derive(Debug)]
pub struct Fleet {
    history: Arc<History>,
    proxies: Mutex<BTreeMap<Arc<str>, Told>>,
    looks: Arc<Looks>,
    withheld: Arc<Withheld>,
    counts: Counts,
}

/// What a proxy told of itself last.
#[derive(Clone, Debug)]
pub struct Told {
    /// How it stands.
    pub standing: Arc<Standing>,
    /// When it said so.
    pub at: Instant,
    /// Which stream it came by; none when that has ended.
    stream: Option<u64>,
}

impl Told {
    /// It is connected.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }
}

/// How much was told.
#[derive(Debug, Default)]
struct Counts {
    reports: AtomicU64,
    bytes: AtomicU64,
    taken: AtomicU64,
    foreign: AtomicU64,
    late: AtomicU64,
    overflow: AtomicU64,
    seen: AtomicU64,
    foreign_seen: AtomicU64,
}

/// How much was told since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Reports.
    pub reports: u64,
    /// What series took in them. Unit: bytes.
    pub bytes: u64,
    /// Series by what became of them: taken over, none of the reporter's business, too late, without room.
    pub series: [(&'static str, u64); 4],
    /// Kinds of requests by what became of them: taken over, none of the reporter's business.
    pub sightings: [(&'static str, u64); 2],
}

impl Fleet {
    /// Puts together in `history`, which is to be [settled](History::settle) by somebody.
    pub fn new(history: Arc<History>) -> Self {
        Self {
            history,
            proxies: Mutex::default(),
            looks: Arc::default(),
            withheld: Arc::default(),
            counts: Counts::default(),
        }
    }

    /// What proxies counted, and what happened to them.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Every proxy that has told something, by the name that it has among [`Hub`]'s proxies.
    pub fn proxies(&self) -> BTreeMap<Arc<str>, Told> {
        self.lock().clone()
    }

    /// What a proxy told of itself last.
    pub fn told(&self, proxy: &str) -> Option<Told> {
        self.lock().get(proxy).cloned()
    }

    /// Looks at requests of all proxies. Nothing when as many look as may.
    pub fn look(&self, look: Look) -> Option<Looking> {
        self.looks.open(look)
    }

    /// Services that gRPC clients without a proxy are not offered, and why.
    pub fn withheld(&self) -> Vec<NotOffered> {
        self.withheld.all()
    }

    /// A gRPC client without a proxy has come.
    pub(crate) fn client(&self, name: &str) -> Client {
        self.withheld.client(name)
    }

    /// Questions to a proxy go there.
    pub(crate) fn join(&self, stream: &Stream, ask: Ask) {
        self.looks.join(stream.number, ask);
    }

    /// How much was told.
    pub fn figures(&self) -> Figures {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        let series = [
            ("taken", of(&counts.taken)),
            ("foreign", of(&counts.foreign)),
            ("late", of(&counts.late)),
            ("overflow", of(&counts.overflow)),
        ];
        let sightings = [("taken", of(&counts.seen)), ("foreign", of(&counts.foreign_seen))];
        Figures { reports: of(&counts.reports), bytes: of(&counts.bytes), series, sightings }
    }

    /// Takes a report over. `proxy`: what the proxy is called, known from its first report.
    pub(crate) fn take(&self, hub: &Hub, caller: &Caller, from: &mut Stream, report: Report) {
        self.counts.reports.fetch_add(1, Ordering::Relaxed);
        if let Some(standing) = report.standing {
            let standing = cut(standing);
            let name: Arc<str> = caller.name(&standing.node, from.number).into();
            from.node = standing.node.clone();
            let told =
                Told { standing: Arc::new(standing), at: crate::hub::now(), stream: Some(from.number) };
            let mut proxies = self.lock();
            if let Some(before) = from.proxy.replace(name.clone()).filter(|before| *before != name) {
                proxies.remove(&before);
            }
            proxies.insert(name, told);
            forget(&mut proxies);
        }
        let Some(proxy) = from.proxy.clone() else { return };
        for told in report.told.into_iter().take(MAX_TOLD) {
            self.looks.tell(&proxy, told);
        }
        if !report.spans.is_empty() {
            let reporter = reporter(hub, caller, &from.node);
            for span in report.spans.iter().take(MAX_SPANS) {
                self.counts.bytes.fetch_add(span.series.len() as u64, Ordering::Relaxed);
                let taken = self.history.take(&reporter, &span.series, span.age_ms.into(), unix_ms());
                self.counts.taken.fetch_add(taken.taken, Ordering::Relaxed);
                self.counts.foreign.fetch_add(taken.foreign, Ordering::Relaxed);
                self.counts.late.fetch_add(taken.late, Ordering::Relaxed);
                self.counts.overflow.fetch_add(taken.overflow, Ordering::Relaxed);
            }
        }
        if !report.seen.is_empty() {
            self.hear(hub, &reporter(hub, caller, &from.node), &report.seen);
        }
        for event in report.events.into_iter().take(MAX_ITEMS) {
            #[allow(clippy::cast_precision_loss)] // seconds
            let now = unix_ms() as f64 / 1000.0;
            let level = match &*event.level {
                "error" => Level::Error,
                "warning" => Level::Warning,
                _ => Level::Info,
            };
            self.history.tell(&Event {
                // No event of another clock is in the future of this one.
                at: if event.at.is_finite() { event.at.clamp(now - 600.0, now) } else { now },
                kind: short(event.kind),
                level,
                about: short(event.about),
                text: short(event.text),
                proxy: Some(proxy.to_string()),
            });
        }
    }

    /// Takes over what somebody has seen of APIs.
    fn hear(&self, hub: &Hub, reporter: &Reporter, seen: &[Bytes]) {
        let told = seen.get(..MAX_SEEN).unwrap_or(seen);
        let is_route = |name: &str| {
            let Some((namespace, name)) = name.split_once('/') else { return false };
            let keys = ROUTES.map(|kind| Key::new(kind, namespace, name));
            hub.with(|core| keys.iter().any(|key| core.library().get(key).is_some()))
        };
        let heard = self.history.finder().hear(reporter, told, unix_ms() / 1000, is_route);
        self.counts.seen.fetch_add(heard.taken, Ordering::Relaxed);
        let foreign = heard.foreign + (seen.len() - told.len()) as u64;
        self.counts.foreign_seen.fetch_add(foreign, Ordering::Relaxed);
    }

    /// A stream has ended.
    pub(crate) fn end(&self, from: &Stream) {
        self.looks.leave(from.number);
        let Some(proxy) = &from.proxy else { return };
        if let Some(told) = self.lock().get_mut(proxy)
            && told.stream == Some(from.number)
        {
            told.stream = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Told>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests of one report that are handed on.
const MAX_TOLD: usize = 1_024;

/// Spans of one report that are looked at.
const MAX_SPANS: usize = 6;

/// A stream of reports.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    number: u64,
    /// What the proxy calls itself.
    node: String,
    /// What it is called here.
    proxy: Option<Arc<str>>,
}

impl Stream {
    /// One that nothing has come by. `number`: no other has it.
    pub(crate) fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }
}

/// Gives up who is gone, where there are too many.
fn forget(proxies: &mut BTreeMap<Arc<str>, Told>) {
    let gone = proxies.iter().filter(|(_, told)| !told.is_connected());
    if gone.clone().count() <= MAX_DEPARTED {
        return;
    }
    if let Some(oldest) = gone.min_by_key(|(_, told)| told.at).map(|(proxy, _)| proxy.clone()) {
        proxies.remove(&oldest);
    }
}

/// What a proxy may be heard about.
fn reporter(hub: &Hub, caller: &Caller, node: &str) -> Reporter {
    let Some((namespace, account)) = caller.identity() else {
        return Reporter { is_gateway: true, ..Reporter::default() };
    };
    let workload = node.strip_prefix(SIDECAR).filter(|workload| owns(hub, caller, workload, None).is_ok());
    hub.with(|core| {
        let services = workload.map(|workload| core.members().services_of(workload).to_vec());
        let registration = workload.and_then(|workload| core.members().registration(workload));
        Reporter {
            account: format!("{namespace}/{account}"),
            services: services.unwrap_or_default(),
            address: registration.map(|known| known.address.clone()).unwrap_or_default(),
            is_gateway: core.library().get(&Key::new("Gateway", namespace, account)).is_some(),
        }
    })
}

/// What is kept of it: so many of each, and no text that has no end.
fn cut(mut standing: Standing) -> Standing {
    standing.checks.truncate(MAX_ITEMS);
    standing.certificates.truncate(MAX_ITEMS);
    for text in [&mut standing.node, &mut standing.kind, &mut standing.version, &mut standing.state] {
        *text = short(std::mem::take(text));
    }
    for check in &mut standing.checks {
        let names = [&mut check.code, &mut check.title, &mut check.about_kind, &mut check.about_name];
        let texts = [&mut check.detail, &mut check.fix, &mut check.docs];
        names.into_iter().chain(texts).for_each(|text| *text = short(std::mem::take(text)));
    }
    for certificate in &mut standing.certificates {
        for text in [&mut certificate.purpose, &mut certificate.name, &mut certificate.origin] {
            *text = short(std::mem::take(text));
        }
    }
    standing
}

fn short(text: String) -> String {
    let is_kept = text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
    if is_kept {
        return text;
    }
    let mut kept = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > MAX_TEXT {
            break;
        }
        kept.push(c);
    }
    kept
}
