//! XBackendTrafficPolicy and sessions: retry budgets of backends, and who stays at one endpoint.

use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use rhumb_balance::{BudgetLimits, hash};
use rhumb_codec::field::FieldName;
use rhumb_model::kind::backend_traffic::{
    BackendTrafficPolicy, LifetimeKind, RetryConstraint, SessionKind, SessionPersistence,
};
use rhumb_model::kind::refs::RHUMB_GROUP;
use rhumb_model::{Diag, Doc, Rule};
use rhumb_plan::Session;
use rhumb_plan::session::Carrier;

use crate::collect::{Docs, Entry, Key};
use crate::report::Report;
use crate::trace::{Ask, Trace};

/// GEP-3388: `minRetryRate` where a `retryConstraint` has none.
const MIN_RETRIES_WRITTEN: u32 = 10;

/// The policies by Backend, and the secret of sessions.
pub(crate) struct Traffic<'a> {
    budgets: HashMap<Key<'a>, Entry<'a, BackendTrafficPolicy>>,
    sessions: HashMap<Key<'a>, Entry<'a, BackendTrafficPolicy>>,
    made: HashMap<Key<'a>, Option<Arc<Session>>>,
    secret: Option<&'a [u8]>,
    has_warned: bool,
    trace: Trace,
}

impl<'a> Traffic<'a> {
    pub(crate) fn new(docs: &Docs<'a>, report: &mut Report) -> Self {
        let mut this =
            Self {
                budgets: HashMap::new(),
                sessions: HashMap::new(),
                made: HashMap::new(),
                secret: docs.configs.all.iter().find_map(|entry| {
                    entry.spec.session_key.as_ref().map(|key| key.value.0.trim().as_bytes())
                }),
                has_warned: false,
                trace: docs.trace.clone(),
            };
        // The older first, so that it wins.
        for entry in &docs.backend_traffic.all {
            for target in entry.spec.target_refs.iter().filter(|target| !target.broken) {
                let wanted = (entry.doc.namespace(), target.name.as_str());
                if (target.group.as_str(), target.kind.as_str()) != (RHUMB_GROUP, "Backend") {
                    let what = format!("no {} `{}` in namespace `{}`", target.kind, wanted.1, wanted.0);
                    let at = entry.doc.origin(target.kind.span);
                    let diag = Diag::error(Rule::UnknownReference, at, what)
                        .why("outside of Kubernetes there are only Backends of group rhumb.dev")
                        .fix("write `group: rhumb.dev` and `kind: Backend`");
                    report.push(diag);
                } else if docs.backends.get(wanted).is_some() {
                    let (budgets, sessions) = (&mut this.budgets, &mut this.sessions);
                    if let Some(written) = &entry.spec.retry_constraint {
                        put(budgets, wanted, *entry, ("retryConstraint", written.span), report);
                    }
                    if let Some(written) = &entry.spec.session_persistence {
                        put(sessions, wanted, *entry, ("sessionPersistence", written.span), report);
                    }
                } else if !docs.is_unreadable("Backend", wanted) {
                    let what = format!("no Backend `{}` in namespace `{}`", wanted.1, wanted.0);
                    let names: Vec<&str> = docs.backends.names(wanted.0).collect();
                    let at = entry.doc.origin(target.name.span);
                    let diag = report.unknown(at, what, wanted.1, names.into_iter());
                    report.push(diag);
                }
            }
        }
        this
    }

    /// How many of a Backend's requests may be retries.
    pub(crate) fn budget(&self, backend: Key<'_>) -> BudgetLimits {
        self.trace.note(Ask::BackendTraffic, "", backend);
        let written = self.budgets.get(&backend).and_then(|entry| entry.spec.retry_constraint.as_ref());
        written.filter(|written| !written.broken).map_or_else(BudgetLimits::default, budget)
    }

    /// The sessions of a Backend, for routes that have none of their own.
    pub(crate) fn of_backend(&mut self, backend: Key<'a>, report: &mut Report) -> Option<Arc<Session>> {
        self.trace.note(Ask::BackendTraffic, "", backend);
        if let Some(made) = self.made.get(&backend) {
            self.note_warning();
            return made.clone();
        }
        let entry = *self.sessions.get(&backend)?;
        let written = entry.spec.session_persistence.as_ref()?;
        let made = self.make(entry.doc, written, &format!("backend {}/{}", backend.0, backend.1), report);
        self.made.insert(backend, made.clone());
        made
    }

    /// Without a secret the first one warns, whichever that is.
    fn note_warning(&self) {
        if self.secret.is_none() {
            self.trace.note_volatile();
        }
    }

    /// Compiles sessions. `owner` gives them a name when none is written.
    pub(crate) fn make(
        &mut self,
        doc: &Doc,
        written: &SessionPersistence,
        owner: &str,
        report: &mut Report,
    ) -> Option<Arc<Session>> {
        if written.broken {
            return None;
        }
        self.note_warning();
        if self.secret.is_none() && !self.has_warned {
            self.has_warned = true;
            let what = "the tokens of sessions are sealed without a secret";
            let diag = Diag::warning(Rule::NoEffect, doc.origin(written.span), what)
                .why("whoever knows this program can find out addresses of endpoints by trying")
                .fix("write `sessionKey: file:PATH` into the ProxyConfig, with what `openssl rand -base64 24` prints");
            report.push(diag);
        }
        let name = match &written.session_name {
            Some(name) => name.value.0.clone(),
            None => format!("rhumb-{:016x}", hash::key(owner.as_bytes())).into(),
        };
        let carrier = match *written.kind {
            SessionKind::Cookie => {
                let cookie = written.cookie_config.as_ref();
                let is_permanent =
                    cookie.is_some_and(|cookie| *cookie.lifetime_type == LifetimeKind::Permanent);
                Carrier::Cookie { name, is_permanent }
            }
            SessionKind::Header => Carrier::Field(FieldName::parse(name.as_bytes()).ok()?),
        };
        let absolute = written.absolute_timeout.as_ref().map(|limit| limit.get());
        let idle = written.idle_timeout.as_ref().map(|limit| limit.get());
        Session::new(carrier, absolute, idle, self.secret.unwrap_or_default()).map(Arc::new)
    }
}

fn put<'a>(
    policies: &mut HashMap<Key<'a>, Entry<'a, BackendTrafficPolicy>>,
    backend: Key<'a>,
    entry: Entry<'a, BackendTrafficPolicy>,
    (field, span): (&str, rhumb_model::Span),
    report: &mut Report,
) {
    let Some(first) = policies.get(&backend) else {
        policies.insert(backend, entry);
        return;
    };
    let diag = Diag::warning(Rule::NoEffect, entry.doc.origin(span), format!("this `{field}` has no effect"))
        .why(format!("{} holds for the same Backend, and comes first", first.doc.id))
        .fix("remove one of them")
        .related(first.doc.origin(first.doc.span), "this one holds");
    report.push(diag);
}

fn budget(written: &RetryConstraint) -> BudgetLimits {
    let mut limits = BudgetLimits { min_retries: MIN_RETRIES_WRITTEN, ..BudgetLimits::default() };
    let whole = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let time = |time: &Option<rhumb_model::Spanned<rhumb_model::scalar::Duration>>, default: Duration| {
        time.as_ref().map_or(default, |time| time.get())
    };
    if let Some(share) = &written.budget {
        limits.percent = share.percent.as_ref().map_or(limits.percent, |percent| whole(percent.get()));
        limits.interval = time(&share.interval, limits.interval);
    }
    if let Some(rate) = &written.min_retry_rate {
        limits.min_retries = rate.count.as_ref().map_or(limits.min_retries, |count| whole(count.get()));
        limits.min_interval = time(&rate.interval, limits.min_interval);
    }
    limits
}
