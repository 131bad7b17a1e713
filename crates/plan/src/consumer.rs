//! What holds for the requests of a consumer, wherever they go.

use std::collections::HashMap;
use std::sync::Arc;

use rhumb_policy::Chain;

/// Consumers with policies of their own, by `namespace/name`.
pub type ByConsumer = HashMap<Box<str>, Arc<ConsumerPolicies>>;

/// Policies that are attached to a consumer.
pub struct ConsumerPolicies {
    /// They run behind the policies of the rule, once it is known who asks.
    pub chain: Chain,
    /// Set when one of them cannot be given: the consumer's requests are refused (DESIGN.md D2).
    pub invalid: Option<Arc<str>>,
}
