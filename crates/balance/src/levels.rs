//! Who is first: levels of priority, and within each the endpoints of our own zone before the others.
//!
//! A level gets as many of the requests as its usable part can carry, where it is assumed that each endpoint can carry
//! [`OVERPROVISIONED`] times its share; the rest goes on to the next level (Envoy's overprovisioning factor).

use crate::set::Member;

/// How much more than its share an endpoint is assumed to carry.
pub const OVERPROVISIONED: f64 = 1.4;

/// Parts that the share of a level is divided into, as weights are whole numbers.
const PARTS: f64 = 1000.0;

/// Endpoints that are asked alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tier {
    priority: u32,
    is_remote: bool,
}

struct Level {
    tier: Tier,
    total: u64,
    usable: u64,
    share: f64,
}

/// The weight of each member by which it is drawn, in the order of the set. `is_usable` says who can take requests.
pub(crate) fn weights(
    members: &[Member],
    zone: Option<&str>,
    is_usable: impl Fn(usize, &Member) -> bool,
) -> Vec<u32> {
    let tier_of = |member: &Member| Tier {
        priority: member.priority(),
        // Who has no zone is as near as anybody else.
        is_remote: zone.is_some_and(|zone| member.zone().is_some_and(|other| other != zone)),
    };
    let mut levels: Vec<Level> = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let tier = tier_of(member);
        let at = match levels.binary_search_by_key(&tier, |level| level.tier) {
            Ok(at) => at,
            Err(at) => {
                levels.insert(at, Level { tier, total: 0, usable: 0, share: 0.0 });
                at
            }
        };
        if let Some(level) = levels.get_mut(at) {
            let weight = u64::from(member.weight());
            level.total += weight;
            level.usable += if is_usable(index, member) { weight } else { 0 };
        }
    }
    if levels.len() < 2 {
        return members.iter().map(Member::weight).collect();
    }
    let zones = zones(members, zone);
    share_out(&mut levels, &zones);
    let weight = |member: &Member| {
        let tier = tier_of(member);
        let level = levels.binary_search_by_key(&tier, |level| level.tier).ok().and_then(|at| levels.get(at));
        let Some(level) = level.filter(|level| level.share > 0.0) else { return 0 };
        // When nobody is usable all of the level are asked, as the share says.
        let whole = if level.usable > 0 { level.usable } else { level.total };
        let all: u64 = levels.iter().map(|level| level.total).sum();
        let scaled = f64::from(member.weight()) * level.share * PARTS * all as f64 / whole.max(1) as f64;
        if member.weight() == 0 { 0 } else { (scaled.round() as u32).max(1) }
    };
    members.iter().map(weight).collect()
}

/// For each priority the number of zones that its endpoints are in.
fn zones(members: &[Member], zone: Option<&str>) -> Vec<(u32, usize)> {
    if zone.is_none() {
        return Vec::new();
    }
    let mut seen: Vec<(u32, &str)> =
        members.iter().filter_map(|member| Some((member.priority(), member.zone()?))).collect();
    seen.sort_unstable();
    seen.dedup();
    let mut counts: Vec<(u32, usize)> = Vec::new();
    for (priority, _) in seen {
        match counts.last_mut() {
            Some((last, count)) if *last == priority => *count += 1,
            _ => counts.push((priority, 1)),
        }
    }
    counts
}

/// The share of each level, of 1 in total.
fn share_out(levels: &mut [Level], zones: &[(u32, usize)]) {
    let totals: Vec<(u32, u64)> = levels.iter().map(|level| (level.tier.priority, level.total)).collect();
    let mut left = 1.0;
    // What the levels of the priority have left to those behind them.
    for level in levels.iter_mut() {
        let of_priority: u64 = totals
            .iter()
            .filter(|(priority, _)| *priority == level.tier.priority)
            .map(|(_, total)| total)
            .sum();
        let usable = level.usable as f64 / level.total.max(1) as f64;
        let mut carries = (usable * OVERPROVISIONED).min(1.0);
        let count =
            zones.iter().find(|(priority, _)| *priority == level.tier.priority).map_or(1, |(_, n)| *n);
        if !level.tier.is_remote && count > 1 {
            // Each zone's proxies send it 1/count of all requests; a zone with fewer endpoints than that is overrun.
            let size = level.total as f64 / of_priority.max(1) as f64 * count as f64;
            carries *= size.min(1.0);
        }
        level.share = carries.min(left);
        left -= level.share;
    }
    let sum: f64 = levels.iter().map(|level| level.share).sum();
    if sum > 0.0 {
        levels.iter_mut().for_each(|level| level.share /= sum);
    } else {
        // Nobody is usable: the first level is asked as if it were.
        if let Some(first) = levels.first_mut() {
            first.share = 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Algorithm, EndpointSet, EndpointSpec};

    /// Shares in percent of the members with these priorities and zones, of which some are out.
    fn shares(members: &[(u32, &str)], zone: Option<&str>, out: &[usize]) -> Vec<u32> {
        let specs = (0u16..).zip(members).map(|(i, (priority, zone))| EndpointSpec {
            priority: *priority,
            zone: Some((*zone).into()),
            ..EndpointSpec::new(([127, 0, 0, 1], 1000 + i).into())
        });
        let set = EndpointSet::new(specs.collect(), Algorithm::Random);
        let weights = weights(set.members(), zone, |i, _| !out.contains(&i));
        let usable = |i: usize| out.len() == members.len() || !out.contains(&i);
        let total: u64 =
            weights.iter().enumerate().filter(|(i, _)| usable(*i)).map(|(_, &w)| u64::from(w)).sum();
        weights.iter().map(|&weight| ((u64::from(weight) * 100 + total / 2) / total) as u32).collect()
    }

    #[test]
    fn a_backup_is_for_when_the_first_are_not_enough() {
        let members = [(0, "a"), (0, "a"), (0, "a"), (0, "a"), (1, "a")];
        assert_eq!(shares(&members, None, &[]), [25, 25, 25, 25, 0]);
        // Three quarters carry 105 %.
        assert_eq!(shares(&members, None, &[0])[4], 0);
        // Half carries 70 %.
        assert_eq!(shares(&members, None, &[0, 1])[2..], [35, 35, 30]);
        assert_eq!(shares(&members, None, &[0, 1, 2, 3])[4], 100);
        assert_eq!(shares(&members, None, &[0, 1, 2, 3, 4]), [25, 25, 25, 25, 0]);
    }

    #[test]
    fn a_zone_is_asked_first_as_far_as_it_can_carry() {
        let even = [(0, "a"), (0, "a"), (0, "b"), (0, "b")];
        assert_eq!(shares(&even, Some("a"), &[]), [50, 50, 0, 0]);
        assert_eq!(shares(&even, Some("b"), &[]), [0, 0, 50, 50]);
        assert_eq!(shares(&even, Some("elsewhere"), &[]), [25, 25, 25, 25]);
        assert_eq!(shares(&even, None, &[]), [25, 25, 25, 25]);
        assert_eq!(shares(&even, Some("a"), &[0])[1..], [70, 15, 15]);
        // A quarter of the endpoints for half of the requests.
        let small = [(0, "a"), (0, "b"), (0, "b"), (0, "b")];
        assert_eq!(shares(&small, Some("a"), &[]), [50, 17, 17, 17]);
        // Priority before zone.
        let both = [(0, "b"), (1, "a")];
        assert_eq!(shares(&both, Some("a"), &[]), [100, 0]);
    }
}
