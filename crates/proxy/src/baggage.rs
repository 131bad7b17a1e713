//! Baggage: what callers along a trace tell each other in the field `baggage` (W3C Baggage). It passes through, bounded; chosen
//! members are told in spans and in the access log.

use std::borrow::Cow;

use rhumb_codec::field::{Fields, Known};
use rhumb_telemetry::record::Member;

/// W3C Baggage §3.3.2: what a platform has to propagate of it at least is the most that is propagated here. Unit: bytes.
const BYTES_MAX: usize = 8192;

/// The same of list members.
const MEMBERS_MAX: usize = 180;

/// Leaves out members beyond what is propagated. True when there were such.
pub(crate) fn bound(fields: &mut Fields) -> bool {
    let (mut members, mut bytes) = (0, 0);
    for line in fields.get_all(Known::Baggage) {
        members += line.split(|&byte| byte == b',').count();
        bytes += line.len() + 1;
    }
    if members <= MEMBERS_MAX && bytes <= BYTES_MAX + 1 {
        return false;
    }
    let mut kept = Vec::with_capacity(BYTES_MAX);
    for member in members_of(fields).take(MEMBERS_MAX) {
        // One that is left out does not keep the shorter ones behind it from passing.
        if kept.len() + usize::from(!kept.is_empty()) + member.len() > BYTES_MAX {
            continue;
        }
        if !kept.is_empty() {
            kept.push(b',');
        }
        kept.extend_from_slice(member);
    }
    if kept.is_empty() {
        fields.remove(Known::Baggage);
    } else {
        fields.set(Known::Baggage, &kept);
    }
    true
}

/// The members with these keys, in their order.
pub(crate) fn chosen<'f>(fields: &'f Fields, keys: &'f [Box<str>]) -> Vec<Member<'f>> {
    let find = |key: &'f str| {
        members_of(fields).find_map(|member| {
            // Properties of a member stand behind its value.
            let pair = member.split(|&byte| byte == b';').next().unwrap_or_default();
            let at = pair.iter().position(|&byte| byte == b'=')?;
            let (name, value) = pair.split_at_checked(at)?;
            (name.trim_ascii() == key.as_bytes())
                .then(|| decoded(value.get(1..).unwrap_or_default().trim_ascii()))
        })
    };
    keys.iter().filter_map(|key| Some(Member { key, value: find(key)? })).collect()
}

fn members_of(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    let lines = fields.get_all(Known::Baggage);
    lines
        .flat_map(|line| line.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// A value without percent-encoding (W3C Baggage §3.3.1.3).
fn decoded(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.contains(&b'%') {
        return Cow::Borrowed(value);
    }
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, after @ ..] = rest {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, after) {
            (b'%', [high, low, tail @ ..]) if digit(high).is_some() && digit(low).is_some() => {
                plain.push(digit(high).unwrap_or(0) << 4 | digit(low).unwrap_or(0));
                rest = tail;
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[&[u8]]) -> Fields {
        let mut fields = Fields::default();
        for line in lines {
            fields.append(Known::Baggage, line);
        }
        fields
    }

    #[test]
    fn what_is_within_the_bounds_stays_as_it_is() {
        let lines: [&[u8]; 2] = [b"a=1;p=2 , b = x%20y", b"c=3"];
        let mut within = fields(&lines);
        assert!(!bound(&mut within));
        assert_eq!(within.get_all(Known::Baggage).collect::<Vec<_>>(), lines);
    }

    #[test]
    fn what_is_over_is_left_out() {
        let many: Vec<String> = (0..200).map(|n| format!("k{n}=v")).collect();
        let mut over = fields(&[many.join(",").as_bytes()]);
        assert!(bound(&mut over));
        assert_eq!(members_of(&over).count(), MEMBERS_MAX);
        let long = format!("a=1,big={},z=2", "x".repeat(BYTES_MAX));
        let mut over = fields(&[long.as_bytes()]);
        assert!(bound(&mut over));
        assert_eq!(over.get(Known::Baggage), Some(&b"a=1,z=2"[..]));
        let mut over = fields(&[format!("big={}", "x".repeat(BYTES_MAX)).as_bytes()]);
        assert!(bound(&mut over) && !over.has(Known::Baggage));
    }

    #[test]
    fn chosen_members_are_told_without_their_encoding_and_properties() {
        let fields = fields(&[b"tenant=acme%20corp;ttl=1, broken, other=2", b" tier = gold , bad=%zz%4"]);
        let keys: [Box<str>; 4] = ["tier".into(), "tenant".into(), "none".into(), "bad".into()];
        let told = chosen(&fields, &keys);
        let told: Vec<_> = told.iter().map(|member| (member.key, member.value.as_ref())).collect();
        assert_eq!(told, [("tier", &b"gold"[..]), ("tenant", b"acme corp"), ("bad", b"%zz%4")]);
    }
}
