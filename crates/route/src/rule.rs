//! What a rule of a route asks for, and what decides between rules.

use rhumb_base::name::RouteName;
use rhumb_codec::head::{Method, RequestHead};

use crate::field::{FieldMatch, MATCHES_LIMIT, QueryMatch};
use crate::host::Host;
use crate::path::PathMatch;

/// One match of a rule (Gateway API `HTTPRouteMatch`, `GRPCRouteMatch`): all of its conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatch {
    path: PathMatch,
    method: Option<Method>,
    fields: Box<[FieldMatch]>,
    query: Box<[QueryMatch]>,
}

/// More conditions than a match may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a match has at most {MATCHES_LIMIT} field and {MATCHES_LIMIT} query conditions")]
pub struct TooManyConditions;

impl RequestMatch {
    /// A match. `None` means every method, [`Method::Other`] every method without a name of its own. Of several
    /// conditions on one field, or one query parameter, the first counts and the others are dropped (Gateway API).
    ///
    /// # Errors
    /// [`TooManyConditions`].
    pub fn new(
        path: PathMatch,
        method: Option<Method>,
        mut fields: Vec<FieldMatch>,
        mut query: Vec<QueryMatch>,
    ) -> Result<Self, TooManyConditions> {
        if fields.len() > MATCHES_LIMIT || query.len() > MATCHES_LIMIT {
            return Err(TooManyConditions);
        }
        keep_first(&mut fields, FieldMatch::is_about_the_same);
        keep_first(&mut query, |a, b| a.name() == b.name());
        Ok(Self { path, method, fields: fields.into(), query: query.into() })
    }

    /// What it asks of the path; its `Display` is the route's template for metrics and logs.
    pub fn path(&self) -> &PathMatch {
        &self.path
    }

    /// The method; `None` for all.
    pub fn method(&self) -> Option<Method> {
        self.method
    }

    /// What it asks of fields.
    pub fn fields(&self) -> &[FieldMatch] {
        &self.fields
    }

    /// What it asks of the query.
    pub fn query(&self) -> &[QueryMatch] {
        &self.query
    }

    /// True when there are conditions beside path and method.
    pub(crate) fn is_conditional(&self) -> bool {
        !self.fields.is_empty() || !self.query.is_empty()
    }

    /// True when the conditions on fields and query hold.
    #[inline]
    pub(crate) fn conditions_hold(&self, head: &RequestHead) -> bool {
        self.fields.iter().all(|field| field.matches(head))
            && (self.query.is_empty() || {
                let query = head.query().unwrap_or_default();
                self.query.iter().all(|parameter| parameter.matches(query))
            })
    }
}

fn keep_first<T>(items: &mut Vec<T>, same: impl Fn(&T, &T) -> bool) {
    let mut kept: Vec<T> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        if !kept.iter().any(|other| same(other, &item)) {
            kept.push(item);
        }
    }
    *items = kept;
}

/// One rule of a route and what to do with its requests.
#[derive(Clone, Debug)]
pub struct Rule<T> {
    /// The route that it belongs to.
    pub route: RouteName,
    /// When the route was created. **Unit**: seconds since 1970. 0 when unknown (files have no creation time), which is
    /// older than any.
    pub created: u64,
    /// Its place among the rules of its route.
    pub index: u32,
    /// Hostnames of the route; none means every host.
    pub hosts: Box<[Host]>,
    /// One of them must hold: `RequestMatch::default()` for every request. A rule without any gets no request.
    pub matches: Box<[RequestMatch]>,
    /// What to do with the requests.
    pub value: T,
}

impl<T> Rule<T> {
    /// True when both ask for the same requests with the same precedence.
    pub(crate) fn asks_as(&self, other: &Self) -> bool {
        (self.created, self.index) == (other.created, other.index)
            && self.route == other.route
            && self.hosts == other.hosts
            && self.matches == other.matches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::ValueMatch;
    use rhumb_codec::field::FieldName;

    #[test]
    fn the_first_condition_on_a_name_counts() {
        let field = |name: &str, value: &str| {
            FieldMatch::new(FieldName::parse(name.as_bytes()).unwrap(), ValueMatch::exact(value)).unwrap()
        };
        let query = |name: &str, value: &str| QueryMatch::new(name, ValueMatch::exact(value));
        let matched = RequestMatch::new(
            PathMatch::default(),
            None,
            vec![field("a", "1"), field("b", "2"), field("A", "3")],
            vec![query("a", "1"), query("A", "2"), query("a", "3")],
        )
        .unwrap();
        assert_eq!(matched.fields(), [field("a", "1"), field("b", "2")]);
        assert_eq!(matched.query(), [query("a", "1"), query("A", "2")]);
        let many = (0..65).map(|i| query(&i.to_string(), "")).collect();
        assert_eq!(RequestMatch::new(PathMatch::default(), None, vec![], many), Err(TooManyConditions));
    }
}
