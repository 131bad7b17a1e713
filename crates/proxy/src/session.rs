//! Sessions of a request: found before a backend is chosen, told in the response.

use std::sync::Arc;
use std::time::Instant;

use rhumb_balance::Endpoint;
use rhumb_codec::field::{FieldValue, Known};
use rhumb_codec::head::{RequestHead, Scheme};
use rhumb_plan::session::{Carrier, Resumed, Session};
use rhumb_plan::{Backend, Rule, WeightedBackend};
use rhumb_telemetry::Note;

use crate::exchange::Exchange;

/// The session that a request belongs to, and the backendRef that it is at. One with weight 0 has none any more.
pub(crate) fn resume<'r>(
    rule: &'r Rule,
    req: &RequestHead,
    now: u64,
) -> Option<(Resumed, &'r WeightedBackend)> {
    let mut opened: Option<(&Arc<Session>, Option<Resumed>)> = None;
    for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
        let (Some(session), Some(target)) = (&backend.session, &backend.backend) else { continue };
        // The backends of one rule share its session: then its token is opened once.
        let resumed = match opened {
            Some((before, resumed)) if Arc::ptr_eq(before, session) => resumed,
            _ => session.resume(req, now),
        };
        opened = Some((session, resumed));
        if let Some(resumed) = resumed.filter(|resumed| resumed.is_of(target)) {
            return Some((resumed, backend));
        }
    }
    None
}

impl Exchange<'_> {
    /// The endpoint of a session, if requests may go there.
    pub(crate) fn session_endpoint(&mut self, backend: &Backend, resumed: &Resumed) -> Option<Arc<Endpoint>> {
        let endpoint = backend.endpoints.find(resumed.endpoint).filter(|endpoint| endpoint.is_eligible());
        if endpoint.is_none() {
            self.outcome.notes.insert(Note::SessionMoved);
        }
        endpoint
    }

    /// Gives the client the token of its session.
    pub(crate) fn tell_session(
        &mut self,
        session: &Session,
        resumed: Option<&Resumed>,
        backend: &Backend,
        endpoint: &Endpoint,
    ) {
        let now = self.worker.unix_nanos(Instant::now()) / 1_000_000_000;
        let Some((token, lasts)) = session.token(resumed, backend, endpoint.identity(), now) else { return };
        match &session.carrier {
            Carrier::Cookie { name, is_permanent } => {
                let mut cookie = format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax");
                if let Some(lasts) = lasts.filter(|_| *is_permanent) {
                    cookie.push_str(&format!("; Max-Age={}", lasts.as_secs()));
                }
                // RFC 6265 §4.1.2.5: not over plain text what came over TLS.
                if self.connection.scheme == Scheme::Https {
                    cookie.push_str("; Secure");
                }
                self.rsp.fields.append(Known::SetCookie, cookie.as_bytes());
            }
            Carrier::Field(name) => {
                if let Ok(value) = FieldValue::parse(token.as_bytes()) {
                    self.rsp.fields.set_named(name, &value);
                }
            }
        }
    }
}
