//! Services that gRPC clients without a proxy are not offered, since they could not do what documents ask for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Services and clients that are remembered at most.
const MAX: usize = 256;

/// Why, by service and client.
type Reasons = BTreeMap<(Box<str>, Arc<str>), String>;

/// Who is not offered what, and why.
#[derive(Debug, Default)]
pub(crate) struct Withheld {
    why: Mutex<Reasons>,
}

/// A service that is not offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotOffered {
    /// What the client asked for.
    pub name: Box<str>,
    /// The first of the clients.
    pub client: Arc<str>,
    /// How many clients there are.
    pub clients: usize,
    /// Why.
    pub why: String,
}

/// What one client is not offered, forgotten when this is dropped.
pub(crate) struct Client {
    withheld: Arc<Withheld>,
    name: Arc<str>,
}

impl Withheld {
    pub(crate) fn client(self: &Arc<Self>, name: &str) -> Client {
        Client { withheld: Arc::clone(self), name: name.into() }
    }

    /// Each service once.
    pub(crate) fn all(&self) -> Vec<NotOffered> {
        let mut all: Vec<NotOffered> = Vec::new();
        for ((name, client), why) in self.lock().iter() {
            match all.last_mut().filter(|last| last.name == *name) {
                Some(last) => last.clients += 1,
                None => all.push(NotOffered {
                    name: name.clone(),
                    client: client.clone(),
                    clients: 1,
                    why: why.clone(),
                }),
            }
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, Reasons> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// A service is not offered from here on, for a reason; without one it is.
    pub(crate) fn note(&self, service: &str, why: &str) {
        let mut all = self.withheld.lock();
        let key = (service.into(), Arc::clone(&self.name));
        if why.is_empty() {
            all.remove(&key);
        } else if all.len() < MAX || all.contains_key(&key) {
            all.insert(key, why.to_owned());
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.withheld.lock().retain(|(_, client), _| *client != self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_withheld_for_as_long_as_a_client_is_there_that_cannot_have_it() {
        let withheld = Arc::<Withheld>::default();
        let (one, other) = (withheld.client("a"), withheld.client("b"));
        one.note("orders.shop", "a policy");
        other.note("orders.shop", "a policy");
        other.note("stock.shop", "a policy");
        other.note("stock.shop", "");
        let all = withheld.all();
        assert_eq!((all.len(), all[0].clients, &*all[0].client), (1, 2, "a"));
        drop(one);
        assert_eq!(withheld.all()[0].clients, 1);
        drop(other);
        assert_eq!(withheld.all(), []);
    }
}
