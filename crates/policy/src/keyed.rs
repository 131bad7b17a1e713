//! What is counted by whom: keys that expressions choose, and tables of what is known of each key.
//!
//! A table is shared by all workers. It is divided into shards, each with a lock that is held for the few nanoseconds in
//! which one key's state is read and written. It is bounded: when a shard is full of keys that still matter, further keys
//! share one state, so that whoever makes up keys gains nothing by it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use rhumb_cel::{Kind, Object, Program, Value};

use crate::attributes::SCHEMA;
use crate::exchange::Exchange;
use crate::policy::Invalid;

/// Keys of one table when nothing is written.
pub(crate) const KEYS_DEFAULT: usize = 65_536;

/// Most keys of one table that can be asked for.
pub(crate) const KEYS_LIMIT: usize = 16 << 20;

/// Parts of a table. Each has a lock of its own.
const SHARDS: usize = 32;

/// Longest key that goes to other processes as it is, in bytes.
const NAME_MAX: usize = 96;

/// Who something is counted for.
pub(crate) enum Keyed {
    /// The client's address; of IPv6 its /64 network, which one client has to itself.
    Address,
    /// The consumer, else the principal, else the client's address.
    Caller,
    /// The value of an expression.
    By(Program),
}

impl Keyed {
    /// Reads an expression whose value is a key.
    pub(crate) fn read(field: &str, text: Option<&str>, default: Self) -> Result<Self, Invalid> {
        let Some(text) = text else { return Ok(default) };
        let program = Program::compile(text, &SCHEMA)
            .map_err(|error| Invalid::new(field, error.tell(text), error.fix))?;
        if matches!(program.kind(), Kind::List(_) | Kind::Map(_) | Kind::Object(_)) {
            let why = format!("a key is one value, this is {}", program.kind().tell());
            return Err(Invalid::new(field, why, "name a field of it, or join several: `a + \"/\" + b`"));
        }
        Ok(Self::By(program))
    }

    /// Calls `each` with the parts of the key: a tag and its octets. Requests without a value share a key.
    fn parts(&self, attributes: &dyn Object, cx: &Exchange<'_>, each: &mut dyn FnMut(u8, &[u8])) {
        match self {
            Self::Address => address(cx.client, each),
            Self::Caller => match cx.principal() {
                Some(principal) => match &principal.consumer {
                    Some(consumer) => each(b'c', consumer.name.as_bytes()),
                    None => {
                        each(b'i', principal.issuer.as_bytes());
                        each(b'p', principal.subject.as_bytes());
                    }
                },
                None => address(cx.client, each),
            },
            Self::By(program) => match program.eval(attributes) {
                Ok(Value::Text(text)) => each(b't', text.as_bytes()),
                Ok(Value::Ip(ip)) => match ip.to_canonical() {
                    IpAddr::V4(ip) => each(b'4', &ip.octets()),
                    IpAddr::V6(ip) => each(b'6', &ip.octets()),
                },
                Ok(Value::Int(int)) => each(b'n', &int.to_le_bytes()),
                Ok(Value::Bytes(bytes)) => each(b'b', &bytes),
                Ok(value) => each(b'v', format!("{value:?}").as_bytes()),
                Err(_) => each(b'-', b""),
            },
        }
    }

    /// The key as a number that means something in this table only.
    pub(crate) fn hash(&self, attributes: &dyn Object, cx: &Exchange<'_>, seed: &RandomState) -> u64 {
        let mut hasher = seed.build_hasher();
        self.parts(attributes, cx, &mut |tag, bytes| (tag, bytes).hash(&mut hasher));
        hasher.finish()
    }

    /// The key as text that means the same in every process: short ones as they are.
    pub(crate) fn name(&self, attributes: &dyn Object, cx: &Exchange<'_>) -> String {
        let mut name = String::new();
        self.parts(attributes, cx, &mut |tag, bytes| {
            if !name.is_empty() {
                name.push('|');
            }
            name.push(char::from(tag));
            name.push(':');
            match (tag, std::str::from_utf8(bytes)) {
                (b'4', _) => name.extend(<[u8; 4]>::try_from(bytes).map(|ip| IpAddr::from(ip).to_string())),
                (b'6', _) => name.extend(<[u8; 16]>::try_from(bytes).map(|ip| IpAddr::from(ip).to_string())),
                (b'n', _) => {
                    name.extend(<[u8; 8]>::try_from(bytes).map(|int| i64::from_le_bytes(int).to_string()));
                }
                (_, Ok(text)) if text.len() <= NAME_MAX && text.bytes().all(|b| b.is_ascii_graphic()) => {
                    name.push_str(text);
                }
                _ => {
                    // Two independent hashes with known keys: the same everywhere, and too long to be met by chance.
                    for salt in [0x5157_u64, 0xa9c3] {
                        let known = BuildHasherDefault::<std::hash::DefaultHasher>::default();
                        let _ = write!(name, "{:016x}", known.hash_one((salt, bytes)));
                    }
                }
            }
        });
        name
    }
}

fn address(client: IpAddr, each: &mut dyn FnMut(u8, &[u8])) {
    match client.to_canonical() {
        IpAddr::V4(ip) => each(b'4', &ip.octets()),
        IpAddr::V6(ip) => each(b'6', &Ipv6Addr::from(u128::from(ip) >> 64 << 64).octets()),
    }
}

/// What is known of one key.
pub(crate) trait Entry: Default {
    /// True when it says no more than a new one would.
    fn is_over(&self, now: Now) -> bool;
}

/// The time, on two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Now {
    /// Since some point in time, never going back. **Unit**: nanoseconds.
    pub(crate) steady: u64,
    /// Since 1970. **Unit**: nanoseconds.
    pub(crate) unix: u64,
}

/// The point in time that [`Now::steady`] counts from.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

impl Now {
    /// When an exchange began; `None` when a request is only thought through.
    pub(crate) fn of(cx: &Exchange<'_>) -> Option<Self> {
        Some(Self { steady: steady(cx.began?), unix: cx.unix_nanos })
    }

    /// The time now, of an exchange that waited.
    pub(crate) fn late(cx: &Exchange<'_>) -> Self {
        let began = Self::of(cx).unwrap_or_default();
        let unix = cx.out.map_or(began.unix, |out| out.unix_nanos());
        Self { steady: began.steady.saturating_add(unix.saturating_sub(began.unix)), unix }
    }
}

/// A point in time on the clock of [`Now::steady`].
pub(crate) fn steady(at: Instant) -> u64 {
    // Not from zero: what is new lies before every request, and so do permits that were saved up for long.
    const BASE: u64 = 1 << 62;
    let origin = *ORIGIN.get_or_init(|| at);
    match at.checked_duration_since(origin) {
        Some(time) => BASE.saturating_add(nanos(time)),
        None => BASE.saturating_sub(nanos(origin.saturating_duration_since(at))),
    }
}

/// **Unit**: nanoseconds. More than 584 years are that long.
pub(crate) fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What is known of each key.
pub(crate) struct Table<E> {
    seed: RandomState,
    shards: [Mutex<Shard<E>>; SHARDS],
    most: AtomicUsize,
}

struct Shard<E> {
    entries: HashMap<u64, E, BuildHasherDefault<Same>>,
    /// For all keys that found no room.
    others: E,
    /// When what is over was looked for. **Unit**: [`Now::steady`].
    swept: u64,
}

/// How often a full shard is looked through. **Unit**: nanoseconds.
const SWEEP: u64 = 100_000_000;

impl<E: Entry> Table<E> {
    pub(crate) fn new() -> Self {
        let shard = |_| Mutex::new(Shard { entries: HashMap::default(), others: E::default(), swept: 0 });
        Self {
            seed: RandomState::new(),
            shards: std::array::from_fn(shard),
            most: AtomicUsize::new(KEYS_DEFAULT),
        }
    }

    /// Holds at most about so many keys from here on.
    pub(crate) fn set_most(&self, keys: usize) {
        self.most.store(keys, Relaxed);
    }

    /// What keys of this table are hashed with.
    pub(crate) fn seed(&self) -> &RandomState {
        &self.seed
    }

    /// Does something with what is known of a key. The flag is true when the key found no room.
    pub(crate) fn with<T>(&self, key: u64, now: Now, work: impl FnOnce(&mut E, bool) -> T) -> T {
        // The map in a shard looks at the same bits from the other end.
        let at = usize::try_from(key >> 32).unwrap_or(0) % SHARDS;
        let Some(shard) = self.shards.get(at) else { return work(&mut E::default(), true) };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let shard = &mut *shard;
        if let Some(entry) = shard.entries.get_mut(&key) {
            return work(entry, false);
        }
        let most = self.most.load(Relaxed).div_ceil(SHARDS);
        let len = shard.entries.len();
        if (len >= most || len == shard.entries.capacity()) && now.steady >= shard.swept.saturating_add(SWEEP)
        {
            shard.swept = now.steady;
            shard.entries.retain(|_, entry| !entry.is_over(now));
        }
        if shard.entries.len() >= most {
            return work(&mut shard.others, true);
        }
        work(shard.entries.entry(key).or_default(), false)
    }

    /// Does something with what is known of the keys that found no room in the shard of this one.
    pub(crate) fn with_others<T: Default>(&self, key: u64, work: impl FnOnce(&mut E) -> T) -> T {
        let at = usize::try_from(key >> 32).unwrap_or(0) % SHARDS;
        let Some(shard) = self.shards.get(at) else { return T::default() };
        work(&mut shard.lock().unwrap_or_else(PoisonError::into_inner).others)
    }

    /// Looks at everything that is known, and forgets that for which `keep` is false.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&mut E) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.entries.retain(|_, entry| keep(entry));
            keep(&mut shard.others);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().entries.len()).sum()
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::Attributes;
    use crate::principal::{Consumer, Principal};
    use rhumb_codec::head::{RequestHead, Scheme};
    use std::sync::Arc;

    #[derive(Default)]
    struct Until(u64, u32);

    impl Entry for Until {
        fn is_over(&self, now: Now) -> bool {
            self.0 <= now.steady
        }
    }

    #[test]
    fn keys_without_room_share_one_state_until_others_are_over() {
        let table: Table<Until> = Table::new();
        table.set_most(64);
        let seconds = |s: u64| Now { steady: s * 1_000_000_000, unix: 0 };
        let hash = |n: u64| table.seed().hash_one(n);
        let full = (0..10_000).filter(|n| {
            table.with(hash(*n), seconds(1), |entry, is_full| {
                entry.0 = seconds(5).steady;
                is_full
            })
        });
        assert!(full.count() >= 10_000 - 64);
        assert_eq!(table.len(), 64);
        table.with(hash(20_000), seconds(2), |entry, is_full| {
            assert!(is_full);
            entry.1 += 1;
        });
        // All are over by then: there is room again.
        assert!(!table.with(hash(20_000), seconds(6), |_, is_full| is_full));
    }

    #[test]
    fn one_client_of_ipv6_has_a_network_to_itself() {
        let head = RequestHead::new();
        let seed = RandomState::new();
        let hash = |client: &str, keyed: &Keyed| {
            let cx = Exchange::new(client.parse().unwrap(), Scheme::Http, 80);
            (
                keyed.hash(&Attributes::new(&head, &cx), &cx, &seed),
                keyed.name(&Attributes::new(&head, &cx), &cx),
            )
        };
        let (first, name) = hash("2001:db8::1", &Keyed::Address);
        assert_eq!((first, name.as_str()), (hash("2001:db8::2", &Keyed::Caller).0, "6:2001:db8::"));
        assert_ne!(first, hash("2001:db8:0:1::1", &Keyed::Address).0);
        let written = Keyed::read("per", Some("source.address"), Keyed::Address).unwrap();
        assert_ne!(hash("2001:db8::1", &written).0, hash("2001:db8::2", &written).0);
        assert_eq!(hash("192.0.2.7", &written).1, "4:192.0.2.7");
    }

    #[test]
    fn callers_are_told_apart_by_what_is_proven() {
        let head = RequestHead::new();
        let mut cx = Exchange::new([192, 0, 2, 7].into(), Scheme::Http, 80);
        let name = |cx: &Exchange<'_>| Keyed::Caller.name(&Attributes::new(&head, cx), cx);
        assert_eq!(name(&cx), "4:192.0.2.7");
        cx.prove(Arc::new(Principal {
            subject: "ann".into(),
            issuer: "https://id".into(),
            ..Principal::default()
        }));
        assert_eq!(name(&cx), "i:https://id|p:ann");
        let consumer = Arc::new(Consumer { name: "default/acme".into(), ..Consumer::default() });
        cx.prove(Arc::new(Principal { consumer: Some(consumer), ..Principal::default() }));
        assert_eq!(name(&cx), "c:default/acme");
    }

    #[test]
    fn a_key_is_one_value() {
        let invalid = Keyed::read("per", Some("request.headers"), Keyed::Address).err().unwrap();
        assert!(invalid.to_string().contains("one value"), "{invalid}");
        let long = Keyed::read("per", Some("request.path"), Keyed::Address).unwrap();
        let mut head = RequestHead::new();
        head.set_target(format!("/{}", "x".repeat(500)).as_bytes());
        let cx = Exchange::new([192, 0, 2, 7].into(), Scheme::Http, 80);
        assert_eq!(long.name(&Attributes::new(&head, &cx), &cx).len(), 2 + 32);
    }
}
