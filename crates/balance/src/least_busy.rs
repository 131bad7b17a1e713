//! Two random endpoints, the less busy one gets the request (Mitzenmacher 2001; load as in Finagle).

use rhumb_base::rng::Rng;

use crate::load::Nanos;
use crate::sample::Sampler;
use crate::set::Member;

/// Loads that differ by less than this factor are equal, and chance decides: small differences between equal endpoints
/// would otherwise send everything to one of them.
const NEARLY_EQUAL: f64 = 1.25;

/// The less busy of two random members that `accepts`; `None` after [`TRIES`] pairs without one. What is accepted while
/// `is_settled` is the choice.
#[inline]
pub(crate) fn pick(
    members: &[Member],
    sampler: &Sampler,
    now: Nanos,
    rng: &mut Rng,
    is_settled: impl Fn() -> bool,
    accepts: impl Fn(u32, &Member) -> bool,
) -> Option<u32> {
    for _ in 0..TRIES {
        let (a, b) = sampler.draw_two(rng);
        let first = members.get(a as usize).filter(|member| accepts(a, member));
        if first.is_some() && is_settled() {
            return Some(a);
        }
        let second = members.get(b as usize).filter(|member| accepts(b, member));
        match (first, second) {
            (_, Some(_)) if is_settled() => return Some(b),
            (Some(first), Some(second)) => return Some(if is_busier(first, second, now) { b } else { a }),
            (Some(_), None) => return Some(a),
            (None, Some(_)) => return Some(b),
            (None, None) => {}
        }
    }
    None
}

const TRIES: usize = 4;

/// Load: latency times (requests under way, for a member of mean weight, plus this one). Weight decides who is drawn and
/// how many requests are many, so an idle set follows the weights and a busy one too.
#[inline]
fn is_busier(a: &Member, b: &Member, now: Nanos) -> bool {
    let queue = |member: &Member| f64::from(member.endpoint().in_flight()) * member.mean_over_weight() + 1.0;
    let (mut load_a, mut load_b) = (queue(a), queue(b));
    // Where one latency is not known yet the queues alone decide: zero would attract every request until the first answer.
    if let (Some(latency_a), Some(latency_b)) = (a.endpoint().latency_ns(now), b.endpoint().latency_ns(now)) {
        load_a *= latency_a as f64;
        load_b *= latency_b as f64;
    }
    load_a > load_b * NEARLY_EQUAL
}
