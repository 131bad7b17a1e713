//! Who uses a change, and who does not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Those whom a change concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Proxies that use it.
    pub live: usize,
    /// Proxies that do not, by name.
    pub waiting: Vec<Waiting>,
}

/// A proxy that does not use a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub proxy: String,
    /// Why.
    pub why: Why,
}

/// Why a proxy does not use a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has not answered.
    Pending,
    /// It is not connected.
    Disconnected,
    /// It cannot use it, and says this about it.
    Refused(String),
}

/// How proxies stand to a change, as one control plane sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Those whom it concerns: why each does not use it, if it does not.
    pub proxies: BTreeMap<String, Option<Why>>,
    /// All who are connected.
    pub connected: BTreeSet<String>,
}

impl Standing {
    /// What another control plane sees too. Who is connected there is not missing here.
    pub fn add(&mut self, other: Self) {
        for (proxy, why) in other.proxies {
            match self.proxies.get_mut(&proxy) {
                None => drop(self.proxies.insert(proxy, why)),
                Some(known) => {
                    let is_better = match (&*known, &why) {
                        (Some(Why::Disconnected), _) => true,
                        (_, Some(Why::Disconnected)) => false,
                        _ => rank(&why) > rank(known),
                    };
                    if is_better {
                        *known = why;
                    }
                }
            }
        }
        self.connected.extend(other.connected);
        let connected = &self.connected;
        self.proxies.retain(|proxy, why| *why != Some(Why::Disconnected) || !connected.contains(proxy));
    }

    /// As one control plane tells it to another.
    pub fn to_json(&self) -> Value {
        let why = |why: &Option<Why>| match why {
            None => json!("live"),
            Some(Why::Pending) => json!("pending"),
            Some(Why::Disconnected) => json!("disconnected"),
            Some(Why::Refused(why)) => json!({ "refused": why }),
        };
        let proxies: serde_json::Map<String, Value> =
            self.proxies.iter().map(|(proxy, state)| (proxy.clone(), why(state))).collect();
        json!({ "proxies": proxies, "connected": self.connected })
    }

    /// Reads what [`to_json`](Self::to_json) writes.
    pub fn from_json(value: &Value) -> Self {
        let why = |value: &Value| match value.as_str() {
            Some("live") => None,
            Some("disconnected") => Some(Why::Disconnected),
            Some(_) => Some(Why::Pending),
            None => Some(Why::Refused(value["refused"].as_str().unwrap_or_default().to_owned())),
        };
        let proxies = value["proxies"].as_object().into_iter().flatten();
        let connected = value["connected"].as_array().into_iter().flatten();
        Self {
            proxies: proxies.map(|(proxy, state)| (proxy.clone(), why(state))).collect(),
            connected: connected.filter_map(|proxy| Some(proxy.as_str()?.to_owned())).collect(),
        }
    }
}

/// What is told of a proxy that two control planes know as connected: the worst.
fn rank(why: &Option<Why>) -> u8 {
    match why {
        Some(Why::Disconnected) => 0,
        None => 1,
        Some(Why::Pending) => 2,
        Some(Why::Refused(_)) => 3,
    }
}

impl From<Standing> for Audience {
    fn from(standing: Standing) -> Self {
        let mut audience = Self::default();
        for (proxy, why) in standing.proxies {
            match why {
                None => audience.live += 1,
                Some(why) => audience.waiting.push(Waiting { proxy, why }),
            }
        }
        audience
    }
}

impl Audience {
    /// Nothing more will come without a change: nobody is waited for but those who refused it.
    pub fn is_settled(&self) -> bool {
        self.waiting.iter().all(|waiting| matches!(waiting.why, Why::Refused(_)))
    }

    /// Connected proxies that have not answered.
    pub fn pending(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(|waiting| waiting.why == Why::Pending)
    }

    /// Proxies that refused it.
    pub fn refused(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(|waiting| matches!(waiting.why, Why::Refused(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_went_to_another_control_plane_is_not_missing() {
        let standing = |proxies: &[(&str, Option<Why>)], connected: &[&str]| Standing {
            proxies: proxies.iter().map(|(proxy, why)| ((*proxy).to_owned(), why.clone())).collect(),
            connected: connected.iter().map(|proxy| (*proxy).to_owned()).collect(),
        };
        let mut one = standing(
            &[
                ("moved", Some(Why::Disconnected)),
                ("gone", Some(Why::Disconnected)),
                ("unsubscribed", Some(Why::Disconnected)),
                ("here", None),
                ("slow", Some(Why::Pending)),
            ],
            &["here", "slow"],
        );
        let other = standing(
            &[
                ("moved", None),
                ("here", Some(Why::Disconnected)),
                ("other", Some(Why::Refused("no".to_owned()))),
            ],
            &["moved", "other", "unsubscribed"],
        );
        assert_eq!(Standing::from_json(&other.to_json()), other);
        one.add(other);
        let audience = Audience::from(one);
        assert_eq!(audience.live, 2);
        let waiting: Vec<&str> = audience.waiting.iter().map(|waiting| &*waiting.proxy).collect();
        assert_eq!(waiting, ["gone", "other", "slow"]);
    }
}
