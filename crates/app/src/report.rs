//! What this proxy tells its control plane: how it stands, what it counted, what happened.
//!
//! Every ten seconds, and nothing where there is nothing new. Nobody waits for it: what does not get there in time is lost,
//! and counted.

use std::sync::Arc;
use std::time::Duration;

use rhumb_agent::ads::report::{
    Certificate, Check, Event, MAX_ITEMS, MAX_REPORT, MAX_SEEN, Report, SPAN, Span, Standing,
};
use rhumb_agent::{Agent, NoReports, Reports};
use rhumb_base::rng::Rng;
use rhumb_signals::{History, Level};
use rhumb_telemetry::Metric;
use tokio::time::Instant;

use crate::admin::v1::{Finding, Level as Severity};
use crate::admin::{Admin, VERSION};
use crate::health::unix_ms;
use watched::Watched;

mod watched;

/// How long after ten seconds are over they are told, at the least: what came in them is counted by then.
const AFTER: Duration = Duration::from_millis(2_300);

/// Proxies do not tell all at once. Unit: milliseconds.
const SPREAD: u64 = 1_500;

/// How long after a failure the next attempt is made, and how much more by chance. Unit: seconds.
const AGAIN: (u64, u64) = (5, 5);

/// How long a control plane that hears no reports is left alone.
const UNHEARD: Duration = Duration::from_secs(300);

/// How long requests that somebody looks at are put together for.
const TOGETHER: Duration = Duration::from_millis(50);

/// Requests that are told of in one report take at most. **Unit**: bytes.
const SEEN_BYTES: usize = MAX_REPORT / 2;

/// How often findings are told again whose details alone have changed, in spans.
const DETAILS: u32 = 6;

/// Who tells.
pub(crate) struct Reporter {
    agent: Arc<Agent>,
    /// What this proxy is called there.
    node: String,
    admin: Arc<Admin>,
    rng: Rng,
    /// What was told of how it stands.
    told: Standing,
    spans: u32,
}

impl Reporter {
    /// Tells over the connection of an agent.
    pub(crate) fn new(agent: Arc<Agent>, node: String, admin: Arc<Admin>) -> Self {
        // What is seen before a control plane is there is told when it is.
        if let Some(history) = &admin.history {
            history.finder().share();
        }
        Self { agent, node, admin, rng: Rng::from_os(), told: Standing::default(), spans: 0 }
    }

    /// Tells until the process ends. **Cancel**: what was not told is lost.
    pub(crate) async fn run(mut self) {
        loop {
            let agent = Arc::clone(&self.agent);
            let opened = agent.reports(|| self.first()).await;
            let wait = match opened {
                Ok(reports) => {
                    self.tell(reports).await;
                    self.patience()
                }
                Err(NoReports::Unheard) => UNHEARD,
                Err(NoReports::Failed(why)) => {
                    tracing::debug!(why, "the control plane is told nothing");
                    self.patience()
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn patience(&mut self) -> Duration {
        Duration::from_secs(AGAIN.0 + self.rng.next_u64() % AGAIN.1)
    }

    fn history(&self) -> Option<&Arc<History>> {
        self.admin.history.as_ref()
    }

    fn first(&mut self) -> Report {
        if let Some(history) = self.history() {
            history.share();
        }
        self.told = self.standing();
        Report { standing: Some(self.told.clone()), ..Report::default() }
    }

    async fn tell(&mut self, mut reports: Reports) {
        let mut due = self.next();
        let mut watched = Watched::new(self.admin.taps.clone());
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {
                    let report = self.report();
                    due = self.next();
                    if report != Report::default() {
                        self.send(&reports, report);
                    }
                    self.tell_seen(&reports);
                }
                question = reports.question() => match question {
                    Some(question) => watched.take(question),
                    None => return,
                },
                told = watched.told() => {
                    // Where it finds no room it is lost: who looks is not waited for.
                    let _ = reports.send(Report { told, ..Report::default() });
                    tokio::time::sleep(TOGETHER).await;
                }
            }
        }
    }

    /// Sends a report; false when that is lost.
    fn send(&self, reports: &Reports, report: Report) -> bool {
        let is_sent = prost::Message::encoded_len(&report) <= MAX_REPORT && reports.send(report);
        let result = if is_sent { "sent" } else { "dropped" };
        self.admin.registry.counter(Metric::Reports, &[result]).add(1);
        is_sent
    }

    /// Tells of requests by which it is found out which APIs there are; what finds no room waits.
    fn tell_seen(&self, reports: &Reports) {
        let Some(finder) = self.history().map(|history| history.finder()) else { return };
        let mut untold = finder.take_untold(unix_ms() / 1000);
        while !untold.is_empty() {
            let (mut seen, mut length) = (Vec::new(), 0);
            for one in untold.iter().take(MAX_SEEN) {
                let written = one.write();
                length += written.len();
                if length > SEEN_BYTES && !seen.is_empty() {
                    break;
                }
                seen.push(written.into());
            }
            let rest = untold.split_off(seen.len());
            if !self.send(reports, Report { seen, ..Report::default() }) {
                untold.extend(rest);
                return finder.put_back(untold);
            }
            untold = rest;
        }
    }

    /// A while after the next ten seconds are over.
    fn next(&mut self) -> Instant {
        let span = SPAN * 1000;
        let until = span - unix_ms() % span;
        Instant::now()
            + Duration::from_millis(until)
            + AFTER
            + Duration::from_millis(self.rng.next_u64() % SPREAD)
    }

    /// What is new.
    fn report(&mut self) -> Report {
        self.spans = self.spans.wrapping_add(1);
        let mut report = Report::default();
        let standing = self.standing();
        if is_other(&standing, &self.told) || (standing != self.told && self.spans.is_multiple_of(DETAILS)) {
            self.told = standing.clone();
            report.standing = Some(standing);
        }
        let Some(history) = self.history() else { return report };
        let now = unix_ms();
        for ten in history.take_tens(now / 1000) {
            let ended = (ten.since + SPAN) * 1000;
            let age_ms = u32::try_from(now.saturating_sub(ended)).unwrap_or(u32::MAX);
            report.spans.push(Span { age_ms, series: ten.write().into() });
        }
        report.events = history.take_events().into_iter().take(MAX_ITEMS).map(event).collect();
        report
    }

    fn standing(&self) -> Standing {
        let process = self.admin.process();
        let mut certificates = self.admin.certificates();
        certificates.sort_by_key(|certificate| certificate.not_after);
        Standing {
            node: self.node.clone(),
            kind: process.kind.to_owned(),
            version: VERSION.to_owned(),
            state: process.state.to_owned(),
            started_at: process.started_at,
            checks: self.admin.own_checks().checks.iter().take(MAX_ITEMS).map(check).collect(),
            certificates: (certificates.into_iter().take(MAX_ITEMS))
                .map(|one| Certificate {
                    purpose: one.r#use.to_owned(),
                    name: one.name,
                    not_before: one.not_before,
                    not_after: one.not_after,
                    origin: one.origin,
                })
                .collect(),
        }
    }
}

/// Whether it stands otherwise; numbers in details move all the time.
fn is_other(one: &Standing, other: &Standing) -> bool {
    let found = |of: &Standing| {
        let found = of.checks.iter();
        found.map(|one| (one.code.clone(), one.about_name.clone(), one.is_critical)).collect::<Vec<_>>()
    };
    one.state != other.state || one.certificates != other.certificates || found(one) != found(other)
}

fn check(finding: &Finding) -> Check {
    Check {
        code: finding.code.to_string(),
        is_critical: finding.level == Severity::Critical,
        title: finding.title.to_string(),
        about_kind: finding.about.kind.to_string(),
        about_name: finding.about.name.clone(),
        detail: finding.detail.clone(),
        fix: finding.fix.clone(),
        docs: finding.docs.to_string(),
    }
}

fn event(event: rhumb_signals::Event) -> Event {
    let level = match event.level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    Event { at: event.at, kind: event.kind, level: level.to_owned(), about: event.about, text: event.text }
}
