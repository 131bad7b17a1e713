//! What a policy sees of the exchange around the message, and the replies it can make.

use std::any::Any;
use std::cell::RefCell;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rhumb_base::failure::Cause;
use rhumb_base::rng::Rng;
use rhumb_codec::field::Fields;
use rhumb_codec::head::{ResponseHead, Scheme};

use crate::call::Out;
use crate::credential::Challenge;
use crate::member::Member;
use crate::policy::Edit;
use crate::principal::{Certificate, Principal};
use crate::trail::Trail;

/// The exchange as policies see it.
pub struct Exchange<'a> {
    /// The client's address: the peer's, or what a trusted proxy said.
    pub client: IpAddr,
    /// The client's TLS certificate, verified; `None` when it showed none.
    pub certificate: Option<Arc<Certificate>>,
    /// Scheme the client used.
    pub scheme: Scheme,
    /// Port of the listener.
    pub port: u16,
    /// Where a connection leads that leaves the mesh here: a name in lower case or an address, and a port.
    pub destination: Option<(&'a str, u16)>,
    /// Length of the path prefix that the route matched; `None` when it matched otherwise.
    pub matched_prefix: Option<usize>,
    /// The request's id.
    pub request_id: &'a str,
    /// The time, in nanoseconds since 1970: when the request came, and up to a second ago where that is longer ago.
    pub unix_nanos: u64,
    /// Chance. `None` when a request is only thought through: then nothing happens that need not happen.
    pub rng: Option<&'a RefCell<Rng>>,
    /// What policies ask of the engine.
    pub effects: Effects,
    /// The rule that decided whether the request may pass, for the access log.
    pub decision: Option<Arc<str>>,
    /// When the exchange began; `None` when a request is only thought through.
    pub began: Option<Instant>,
    /// What policies found out, and left behind for each other.
    pub found: Findings,
    /// The beginning of the request's content, once a policy asked for it.
    pub content: Option<Ahead<'a>>,
    /// The way to other services. `None` when a request is only thought through: what would be asked is not known then.
    pub out: Option<&'a Out>,
    /// This process as a member of the mesh. `None` when a request is only thought through.
    pub member: Option<&'a dyn Member>,
}

/// Request content that was read before a backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead<'a> {
    /// As much as was asked for, or a little more.
    pub bytes: &'a [u8],
    /// There is no more.
    pub is_whole: bool,
}

/// What policies found out about one exchange, from its first hook to its last. Dropped with the exchange.
#[derive(Default)]
pub struct Findings {
    /// Who asks.
    pub principal: Option<Arc<Principal>>,
    /// Who asks, as policies in shadow mode found: seen by policies in shadow mode only.
    pub(crate) rehearsed: Option<Arc<Principal>>,
    /// Requests for a refusal, in order; one that was not in shadow mode is the last.
    pub refusals: Vec<Refusal>,
    /// What authentications would have asked for that found nothing: values of WWW-Authenticate.
    pub(crate) challenges: Vec<Challenge>,
    /// A later policy decides about requests without credentials.
    pub(crate) is_decided_later: bool,
    /// Lives as long as the exchange, however it ends: a place in a queue, a share of a limit.
    pub guards: Vec<Box<dyn Any>>,
    /// What the response to the client gets, whoever makes it, behind all response hooks.
    pub response_edits: Vec<Edit>,
    /// A policy knew as many keys as it may and had no room for the one of this request.
    pub keys_full: bool,
    /// What policies decide and change, where somebody asked for it.
    pub trail: Option<Box<Trail>>,
    /// Content of the response shares its [`Effects::bytes_per_second`] with others.
    pub shared_pace: Option<SharedPace>,
}

/// A narrow line that several responses share.
#[derive(Clone, Debug)]
pub struct SharedPace {
    /// Until when what has passed is paid for. **Unit**: nanoseconds, on a clock of the engine's.
    pub paid_until: Arc<AtomicU64>,
}

/// A policy's wish to answer instead of a backend because the request may not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of the policy.
    pub policy: &'static str,
    /// What became of the wish.
    pub mode: Mode,
    /// Why.
    pub cause: Option<Cause>,
}

/// What becomes of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The request was refused.
    Enforce,
    /// In shadow mode: the request passed.
    Shadow,
    /// What the policy needs was away, and it is told to let requests pass then.
    FailOpen,
}

impl Mode {
    /// The word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::FailOpen => "fail_open",
        }
    }
}

/// What policies ask of the engine beyond changing messages. Outlives the [`Exchange`] that it was set in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The request was made to wait.
    pub delayed: bool,
    /// A fault was answered instead of the backend.
    pub aborted: bool,
    /// Content of the backend's response passes no faster than this. **Unit**: bytes per second.
    pub bytes_per_second: Option<NonZeroU64>,
    /// The response is reset when so many bytes of its content have passed.
    pub reset_after: Option<NonZeroU64>,
    /// Chooses among the rule's backends instead of chance: the same number makes the same choice.
    pub cohort: Option<u64>,
    /// The pace is that of a limit, not of a fault.
    pub is_limited: bool,
    /// Content of the request may be so long, if that is less than otherwise. **Unit**: bytes.
    pub max_content: Option<u64>,
}

impl Exchange<'_> {
    /// An exchange without a request id, a matched prefix or chance.
    pub fn new(client: IpAddr, scheme: Scheme, port: u16) -> Self {
        Self {
            client,
            certificate: None,
            scheme,
            port,
            destination: None,
            matched_prefix: None,
            request_id: "",
            unix_nanos: 0,
            rng: None,
            effects: Effects::default(),
            decision: None,
            began: None,
            found: Findings::default(),
            content: None,
            out: None,
            member: None,
        }
    }

    /// Time since the exchange began.
    pub fn elapsed(&self, now: Instant) -> Duration {
        self.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began))
    }

    /// Who asks.
    pub fn principal(&self) -> Option<&Principal> {
        self.found.principal.as_deref()
    }

    /// Takes down who asks, or what else was proven of who asks.
    pub fn prove(&mut self, proven: Arc<Principal>) {
        match &mut self.found.principal {
            Some(principal) => Arc::make_mut(principal).join(&proven),
            none => *none = Some(proven),
        }
    }

    /// True in the given share of cases. Without chance only what is certain is true.
    pub fn rolls(&self, share: Share) -> bool {
        match (share.0, self.rng) {
            (0, _) => false,
            (Share::WHOLE, _) => true,
            (_, None) => false,
            (millionths, Some(rng)) => rng.borrow_mut().below(Share::WHOLE) < millionths,
        }
    }
}

/// A share of requests in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    const WHOLE: u32 = 1_000_000;

    /// Every request.
    pub const ALL: Self = Self(Self::WHOLE);

    /// `numerator` of `denominator`, rounded down to a millionth, but not to nothing; `None` when it is more than all.
    pub fn of(numerator: u32, denominator: u32) -> Option<Self> {
        let share = u64::from(numerator) * u64::from(Self::WHOLE);
        let share = u32::try_from(share.checked_div(u64::from(denominator))?).ok()?;
        (share <= Self::WHOLE).then_some(Self(share.max(u32::from(numerator > 0))))
    }

    /// A percentage from 0 to 100 with at most four decimal places; `None` for other numbers.
    pub fn percent(percent: f64) -> Option<Self> {
        const PER_PERCENT: f64 = 10_000.0;
        let millionths = (percent * PER_PERCENT).round();
        let is_exact = (percent * PER_PERCENT - millionths).abs() < 1e-6;
        // Checked to be from 0 to a million: the conversion loses nothing.
        ((0.0..=100.0).contains(&percent) && is_exact).then_some(Self(millionths as u32))
    }

    /// The share in percent.
    pub fn as_percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// True in this share of cases.
    pub fn rolls(self, rng: &mut Rng) -> bool {
        rng.below(Self::WHOLE) < self.0
    }

    /// The share in millionths.
    pub fn millionths(self) -> u32 {
        self.0
    }
}

/// A response that a policy makes instead of a backend.
#[derive(Debug, Default)]
pub struct Reply {
    /// Status and fields; content framing is set by the engine.
    pub head: ResponseHead,
    /// Content. With a `cause` and no content, the engine writes a problem document (RFC 9457).
    pub content: Vec<u8>,
    /// Why, when the reply is a refusal.
    pub cause: Option<Cause>,
    /// What to tell the client instead of the cause's own sentence.
    pub detail: Option<Box<str>>,
    /// Without content it stays without: no problem document is written.
    pub is_complete: bool,
}

impl Reply {
    /// A reply with a status and nothing else.
    pub fn with_status(status: u16) -> Box<Self> {
        Box::new(Self { head: ResponseHead::with_status(status), ..Self::default() })
    }

    /// A refusal: status and problem document follow from the cause.
    pub fn refuse(cause: Cause) -> Box<Self> {
        Box::new(Self {
            head: ResponseHead::with_status(cause.facts().status),
            cause: Some(cause),
            ..Self::default()
        })
    }

    /// The reply's fields.
    pub fn fields(&mut self) -> &mut Fields {
        &mut self.head.fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_four_decimal_places() {
        for (percent, expected) in [
            (0.0, Some(0)),
            (0.0001, Some(1)),
            (0.00005, None),
            (12.5, Some(125_000)),
            (33.3333, Some(333_333)),
            (99.9999, Some(999_999)),
            (100.0, Some(1_000_000)),
            (100.1, None),
            (-1.0, None),
            (f64::NAN, None),
        ] {
            assert_eq!(Share::percent(percent).map(Share::millionths), expected, "{percent}");
        }
        assert_eq!(Share::of(1, 3).map(Share::millionths), Some(333_333));
        assert_eq!(Share::of(1, 100_000_000).map(Share::millionths), Some(1));
        assert_eq!((Share::of(1, 0), Share::of(2, 1)), (None, None));
    }

    #[test]
    fn a_share_is_met() {
        let rng = RefCell::new(Rng::new(7));
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        let cx = Exchange { rng: Some(&rng), ..Exchange::new(client, Scheme::Http, 80) };
        let hits = |share| (0..1_000_000).filter(|_| cx.rolls(share)).count();
        assert_eq!((hits(Share::default()), hits(Share::ALL)), (0, 1_000_000));
        // Five standard deviations.
        assert!((249_000 - 1_200..251_000 + 1_200).contains(&hits(Share::of(1, 4).unwrap())));
        assert!((60..140).contains(&hits(Share::percent(0.01).unwrap())));
    }
}
