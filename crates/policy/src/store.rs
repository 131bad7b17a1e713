//! Where counts are kept that several proxies share.

use std::ffi::OsString;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rhumb_store::{Client, Disk, Redis, RedisUrl};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::{Context, SecretValue};
use crate::policy::Invalid;
use crate::quantity;

/// How long a round trip may take when nothing is written.
const TIMEOUT: Duration = Duration::from_millis(250);

/// The longest time that can be written for a round trip.
const TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// Before every key when nothing is written.
const PREFIX: &str = "rhumb:";

/// Longest prefix, in bytes.
const PREFIX_MAX: usize = 64;

/// Where counts are kept.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoreSpec {
    /// A server of Redis (5 or later) or Valkey.
    pub redis: RedisSpec,
}

/// A server of Redis or Valkey.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisSpec {
    /// `redis://[USER@]HOST[:PORT][/DATABASE]`.
    pub url: String,
    /// Its password: as written, or `{secretRef: {name, key}}`. Default: none.
    #[serde(default)]
    pub password: Option<SecretValue>,
    /// How long a round trip may take, connecting included, and how long a request waits for one. At most 5s. Default: 250ms.
    #[serde(default)]
    pub timeout: Option<String>,
    /// Before every key. Proxies with the same prefix count together. Default: `rhumb:`.
    #[serde(default)]
    pub prefix: Option<String>,
}

/// Where a quota is kept: one of the two.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaStoreSpec {
    /// A directory of this machine: counts of this proxy alone, which outlive it. Default.
    #[serde(default)]
    pub disk: Option<DiskSpec>,
    /// A server of Redis (5 or later) or Valkey: proxies count together.
    #[serde(default)]
    pub redis: Option<RedisSpec>,
}

/// A directory with counts.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskSpec {
    /// Its path. Default: `$STATE_DIRECTORY` (systemd), else `$XDG_STATE_HOME/rhumb`, else `~/.local/state/rhumb`, else
    /// `/var/lib/rhumb`. It is made when it is not there.
    #[serde(default)]
    pub directory: Option<String>,
}

/// How long a request waits for the disk, and for a predecessor that has it.
const DISK_TIMEOUT: Duration = Duration::from_secs(2);

/// What to do while the store cannot be reached.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
pub enum WhenStoreIsAway {
    /// Each proxy allows its share: the limit divided by the number of proxies that were there last.
    #[default]
    Local,
    /// Refuse with 503.
    Refuse,
}

/// An opened store.
pub(crate) struct Opened {
    pub(crate) client: Arc<Client>,
    pub(crate) timeout: Duration,
    /// Other proxies may use it too.
    pub(crate) is_shared: bool,
}

/// Names this process among those that use a store.
fn this_process() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("{}-{:016x}", std::process::id(), RandomState::new().hash_one(0)))
}

impl StoreSpec {
    /// The way to it: one for all policies that name the same.
    pub(crate) fn open(&self, field: &str, cx: &mut Context<'_>) -> Result<Opened, Invalid> {
        self.redis.open(&format!("{field}.redis"), cx)
    }
}

impl QuotaStoreSpec {
    /// The way to it: one for all policies that name the same.
    pub(crate) fn open(&self, field: &str, cx: &mut Context<'_>) -> Result<Opened, Invalid> {
        match (&self.disk, &self.redis) {
            (Some(_), Some(_)) => {
                Err(Invalid::new(field, "has both `disk` and `redis`", "remove one of them"))
            }
            (None, Some(redis)) => redis.open(&format!("{field}.redis"), cx),
            (disk, None) => {
                let written = disk.as_ref().and_then(|disk| disk.directory.as_deref());
                if written.is_some_and(str::is_empty) {
                    let field = format!("{field}.disk.directory");
                    return Err(Invalid::new(field, "is empty", "leave it out for the default"));
                }
                let directory = written.map_or_else(default_directory, PathBuf::from);
                let client = cx.share(&format!("disk {}", directory.display()), || {
                    Client::new(|health| Box::new(Disk::new(directory, DISK_TIMEOUT, health)))
                });
                Ok(Opened { client, timeout: DISK_TIMEOUT, is_shared: false })
            }
        }
    }
}

/// Where counts are kept when nothing is written.
fn default_directory() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    // systemd names several, separated by colons.
    let systemd = variable("STATE_DIRECTORY").and_then(|all| {
        let first = all.to_string_lossy().split(':').next().map(PathBuf::from);
        first.filter(|first| first.is_absolute())
    });
    systemd
        .or_else(|| variable("XDG_STATE_HOME").map(|home| PathBuf::from(home).join("rhumb")))
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/state/rhumb")))
        .unwrap_or_else(|| PathBuf::from("/var/lib/rhumb"))
}

impl RedisSpec {
    fn open(&self, field: &str, cx: &mut Context<'_>) -> Result<Opened, Invalid> {
        let redis = self;
        let field = |name: &str| format!("{field}.{name}");
        let mut url = RedisUrl::parse(&redis.url).map_err(|why| {
            // It may have a password in it.
            Invalid::new(field("url"), format!("the URL {why}"), "write redis://HOST:PORT/DATABASE")
        })?;
        if let Some(password) = &redis.password {
            let password = cx.secret(&field("password"), password)?;
            let Ok(password) = String::from_utf8(password.into_vec()) else {
                return Err(Invalid::new(field("password"), "is no UTF-8", ""));
            };
            url.password = Some(password);
        }
        let timeout = quantity::positive(&field("timeout"), redis.timeout.as_deref())?.unwrap_or(TIMEOUT);
        if timeout > TIMEOUT_MAX {
            let fix = "requests would wait for it";
            return Err(Invalid::new(field("timeout"), format!("is longer than {TIMEOUT_MAX:?}"), fix));
        }
        let prefix = redis.prefix.clone().unwrap_or_else(|| PREFIX.to_owned());
        if prefix.len() > PREFIX_MAX || !prefix.bytes().all(|b| b.is_ascii_graphic()) {
            let why = format!("has more than {PREFIX_MAX} characters, or others than visible ASCII");
            return Err(Invalid::new(field("prefix"), why, ""));
        }
        // The name is in no log, and says nothing of the password.
        let mut hasher = DefaultHasher::new();
        (&url.host, url.port, &url.user, &url.password, url.database, timeout, &prefix).hash(&mut hasher);
        let client = cx.share(&format!("redis {:016x}", hasher.finish()), || {
            let user = this_process().to_owned();
            Client::new(|health| Box::new(Redis::new(url, timeout, prefix, user, health)))
        });
        Ok(Opened { client, timeout, is_shared: true })
    }
}
