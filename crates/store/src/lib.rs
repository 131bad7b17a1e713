//! Counts that several processes share, or that outlive one.
//!
//! Nobody asks a store per request. Permits are leased: [`Client::ask`] hands a wish to the thread that owns the connection,
//! which puts all wishes that have come into one round trip, and calls back with what was granted. What is granted is
//! counted as used at once, so whatever happens to a lease, there are never more permits than the rule allows; what was not
//! used is given back with a later wish. Knows nothing of requests. Start with [`Rule`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod client;
mod disk;
mod redis;
mod resp;

pub use client::{Attend, Client, Health, each_store};
pub use disk::{Disk, Journal};
pub use redis::{Redis, RedisUrl};

/// How permits come into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One every `interval`, at most `burst` of them saved up (GCRA).
    Paced {
        /// **Unit**: nanoseconds, at least 1000.
        interval: u64,
        /// How many may be saved up.
        burst: u64,
        /// Permits of so much of the future may be granted; each is good from its time on. **Unit**: nanoseconds.
        ahead: u64,
    },
    /// At most `limit` in the latest `parts` parts of time.
    Counted {
        /// Number of the part that is now. Grows.
        part: u64,
        /// How many parts count, this one included.
        parts: u64,
        /// Permits in all of them.
        limit: u64,
        /// How long the count is of use. **Unit**: seconds.
        keep: u64,
        /// At most this fraction of what is left is granted at a time, but one permit in any case: `4` is a quarter.
        fraction: u64,
    },
}

/// A wish for permits.
pub struct Ask {
    /// For whom: the same in every process.
    pub key: String,
    /// What is allowed.
    pub rule: Rule,
    /// How many are wanted.
    pub want: u64,
    /// How many of an earlier grant were not used.
    pub back: u64,
    /// Of which part of time they are.
    pub back_part: u64,
    /// How many were used without a grant.
    pub debt: u64,
    /// Nothing of the key is held any more.
    pub is_last: bool,
    /// Told the answer, on the thread of the store.
    pub done: Done,
}

/// What to do with an answer.
pub type Done = Box<dyn FnOnce(Result<Grant, Away>) + Send>;

/// What was granted.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// How many. All of them are used up as far as the store is concerned.
    pub permits: u64,
    /// When the first is good, from now on; of a [`Rule::Paced`] the others follow in its interval. Negative: since then.
    /// Without permits: when the next one would be. **Unit**: nanoseconds.
    pub first: i64,
    /// What is left in the store.
    pub room: u64,
    /// Where to write how many were used, before they are.
    pub journal: Option<Journal>,
}

/// The store cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

impl std::fmt::Display for Away {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the store cannot be reached")
    }
}

impl std::error::Error for Away {}

/// Something that answers wishes.
pub trait Store: Send {
    /// Answers all of them, in order. Blocks no longer than a bound that it knows.
    fn answer(&mut self, asks: Vec<Ask>);

    /// Called about once a second: whether it can be asked, and by how many processes it is used.
    fn look(&mut self) -> Result<u32, Away>;

    /// Called when nothing was asked for a while.
    fn rest(&mut self) {}

    /// What it is, for logs: without secrets.
    fn name(&self) -> String;
}
