//! Limits as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::RateSpec;
use crate::store::{StoreSpec, WhenStoreIsAway};

/// Limits how fast requests may come.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Limits that hold at once, at most 8. When one refuses, nothing is taken from any.
    pub limits: Vec<LimitSpec>,
    /// Tell clients what is left, in the fields `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    /// `Retry-After` is told in any case. Default: true.
    #[serde(default = "yes")]
    pub fields: bool,
    /// Keys of each limit that are known at a time. When all of them matter, further keys share one state. Default: 65536.
    #[serde(default)]
    pub keys: Option<usize>,
    /// Count together with other proxies. Default: this proxy counts alone.
    #[serde(default)]
    pub store: Option<StoreSpec>,
    /// What to do while the store cannot be reached. Default: `Local`.
    #[serde(default)]
    pub when_store_is_away: WhenStoreIsAway,
}

fn yes() -> bool {
    true
}

/// One limit.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitSpec {
    /// Its name in fields, logs and answers. Default: its place, `limit-0`.
    #[serde(default)]
    pub name: Option<String>,
    /// How many in how long: `100/m`, or `{requests: 100, per: 1m}`.
    pub limit: RateSpec,
    /// How many may come at once (`Gcra`). Default: as many as in the whole period.
    #[serde(default)]
    pub burst: Option<u64>,
    /// For whom it is counted: a CEL expression with one value. Requests without a value share one count. Default: the
    /// client's address, of IPv6 its /64 network.
    #[serde(default)]
    pub per: Option<String>,
    /// Which requests are counted: a CEL condition. One without a value counts. Default: all.
    #[serde(default)]
    pub when: Option<String>,
    /// What a request costs: a number, a CEL expression, or `{responseField: NAME}`, which is charged when the response
    /// comes. Default: 1.
    #[serde(default)]
    pub cost: Option<CostSpec>,
    /// How it is counted. Default: `Gcra`.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How long a request may be held back so that it need not be refused (`Gcra`): a duration, at most 60s. Default: not
    /// at all.
    #[serde(default)]
    pub delay: Option<String>,
}

/// What a request costs.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CostSpec {
    /// Always so much.
    Number(u64),
    /// The value of a CEL expression. Without one: 1. A negative one: 0.
    Expression(String),
    /// What the backend says that it cost. Without a number there: 1.
    #[serde(rename_all = "camelCase")]
    Response {
        /// A field of the response.
        response_field: String,
    },
}

/// How a limit counts.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Algorithm {
    /// A bucket of `burst` that fills evenly.
    #[default]
    Gcra,
    /// In no period of the length, wherever it begins, more than the limit.
    SlidingWindow,
    /// In no period by the clock more than the limit.
    FixedWindow,
}
