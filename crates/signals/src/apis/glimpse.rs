//! What is told of requests of one shape: a sighting of whose contents the names of fields alone are left.

use std::collections::BTreeMap;

use rhumb_telemetry::sightings::Sighting;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::seen::{VALUES, note};

/// The longest text of a glimpse, and the longest name of a field. Unit: bytes.
const TEXT: usize = 512;
const NAME: usize = 128;

/// What is written of one takes at most. Unit: bytes.
pub(super) const WRITTEN: usize = 16 << 10;

/// Requests of one shape that anybody counts at a time.
const COUNT: u64 = 1 << 32;

/// Requests of one shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Glimpse {
    pub(super) host: String,
    pub(super) method: String,
    /// Path of the first of them.
    pub(super) path: String,
    pub(super) status: u16,
    /// When the last one began. Unit: seconds since 1970; on its way, how many seconds ago, since clocks of machines differ.
    pub(super) at: u64,
    pub(super) count: u64,
    /// Names of query parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) query: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) request_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) response_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) caller: String,
    /// `NAMESPACE/NAME:PORT` of the service that was asked; empty outside of a mesh.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) service: String,
    /// Who tells answers for that service.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_served: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) route: String,
    /// The template of the rule.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) rule: String,
    /// Of contents of requests.
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub(super) sent: Fields,
    /// Of contents of responses.
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub(super) answered: Fields,
}

/// Names of the fields of JSON contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    /// How many objects were looked at.
    pub(super) objects: u64,
    /// How many contents were lists.
    pub(super) lists: u64,
    /// In how many objects each name stood.
    pub(super) names: BTreeMap<String, u64>,
}

impl Fields {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Of the content of a request: an object as a whole.
    fn of_request(content: &[u8]) -> Self {
        let mut fields = Self::default();
        if let Ok(object @ Value::Object(_)) = serde_json::from_slice(content) {
            fields.look_into(&object);
        }
        fields
    }

    /// Of the content of a response: an object, or what stands in a list.
    fn of_response(content: &[u8]) -> Self {
        let mut fields = Self::default();
        match serde_json::from_slice(content) {
            Ok(Value::Array(all)) => {
                fields.lists = 1;
                all.iter().filter(|one| one.is_object()).take(VALUES).for_each(|one| fields.look_into(one));
            }
            Ok(one) => fields.look_into(&one),
            Err(_) => {}
        }
        fields
    }

    fn look_into(&mut self, value: &Value) {
        let Some(object) = value.as_object() else { return };
        self.objects += 1;
        for name in object.keys().filter(|name| name.len() <= NAME) {
            note(&mut self.names, name, 1);
        }
    }

    fn join(&mut self, other: &Self) {
        self.objects += other.objects;
        self.lists += other.lists;
        other.names.iter().for_each(|(name, count)| note(&mut self.names, name, *count));
    }

    fn is_possible(&self) -> bool {
        self.objects < COUNT
            && self.lists < COUNT
            && self.names.len() <= VALUES
            && self.names.iter().all(|(name, count)| is_text(name, NAME) && *count < COUNT)
    }
}

impl Glimpse {
    /// What is left of a sighting.
    pub(super) fn of(sighting: &Sighting) -> Self {
        Self {
            host: sighting.host.to_ascii_lowercase(),
            method: sighting.method.to_string(),
            path: sighting.path.to_string(),
            status: sighting.status,
            at: sighting.at,
            count: sighting.count,
            query: sighting.query.iter().map(ToString::to_string).collect(),
            request_type: sighting.request_type.to_string(),
            response_type: sighting.response_type.to_string(),
            caller: sighting.caller.to_string(),
            service: sighting.service.to_string(),
            is_served: sighting.is_served,
            route: sighting.route.0.to_string(),
            rule: sighting.route.1.to_string(),
            sent: sighting.content.as_deref().map(Fields::of_request).unwrap_or_default(),
            answered: sighting.response.as_deref().map(Fields::of_response).unwrap_or_default(),
        }
    }

    /// RFC 9110 §15.5.5, §15.5.6, §15.6.2: that is what there is none of.
    pub(super) fn is_of_nothing(&self) -> bool {
        matches!(self.status, 404 | 405 | 501)
    }

    /// Takes over more requests of the same shape.
    pub(super) fn join(&mut self, more: &Self) {
        self.count += more.count;
        self.at = self.at.max(more.at);
        self.sent.join(&more.sent);
        self.answered.join(&more.answered);
    }

    /// As bytes, for somebody whose clock may differ. `now`: seconds since 1970.
    pub(super) fn write(&self, now: u64) -> Vec<u8> {
        let told = Self { at: now.saturating_sub(self.at), ..self.clone() };
        // Texts and numbers alone are always JSON.
        serde_json::to_vec(&told).unwrap_or_default()
    }

    /// Reads what was written, by whoever it was; nothing where it cannot be one. `now`: seconds since 1970.
    pub(super) fn read(bytes: &[u8], now: u64) -> Option<Self> {
        if bytes.len() > WRITTEN {
            return None;
        }
        let mut read: Self = serde_json::from_slice(bytes).ok()?;
        read.at = now.saturating_sub(read.at);
        read.host.make_ascii_lowercase();
        read.is_possible().then_some(read)
    }

    fn is_possible(&self) -> bool {
        let texts = [
            &self.host,
            &self.method,
            &self.path,
            &self.request_type,
            &self.response_type,
            &self.caller,
            &self.service,
            &self.route,
            &self.rule,
        ];
        texts.into_iter().chain(&self.query).all(|text| is_text(text, TEXT))
            && self.query.len() <= VALUES
            && !self.method.is_empty()
            && self.path.starts_with('/')
            && (100..1000).contains(&self.status)
            && (1..COUNT).contains(&self.count)
            && self.sent.is_possible()
            && self.answered.is_possible()
    }
}

fn is_text(text: &str, most: usize) -> bool {
    text.len() <= most && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting() -> Sighting {
        Sighting {
            host: "Shop.example".into(),
            method: "POST".into(),
            path: "/orders".into(),
            query: vec!["page".into()],
            status: 201,
            content: Some(br#"{"item": 1, "secret": "s3cret"}"#.as_slice().into()),
            response: Some(br#"[{"id": 1}, {"id": 2, "late": true}]"#.as_slice().into()),
            at: 1_000,
            count: 3,
            ..Sighting::default()
        }
    }

    #[test]
    fn what_is_written_is_read_by_another_clock_and_no_value_of_a_content_is_in_it() {
        let glimpse = Glimpse::of(&sighting());
        let written = glimpse.write(1_007);
        let read = Glimpse::read(&written, 5_000).unwrap();
        assert_eq!(read, Glimpse { at: 4_993, ..glimpse });
        assert_eq!(
            (read.host.as_str(), read.answered.lists, read.answered.names["id"]),
            ("shop.example", 1, 2)
        );
        assert!(!String::from_utf8(written.clone()).unwrap().contains("s3cret"));
        for length in 0..written.len() {
            assert_eq!(Glimpse::read(&written[..length], 5_000), None);
        }
    }

    #[test]
    fn what_no_proxy_would_tell_is_not_read() {
        let told = |change: &dyn Fn(&mut Glimpse)| {
            let mut glimpse = Glimpse::of(&sighting());
            change(&mut glimpse);
            Glimpse::read(&glimpse.write(1_000), 1_000)
        };
        assert!(told(&|_| {}).is_some());
        assert_eq!(told(&|glimpse| glimpse.path = "x".repeat(TEXT + 1)), None);
        assert_eq!(told(&|glimpse| glimpse.path = "orders".to_owned()), None);
        assert_eq!(told(&|glimpse| glimpse.caller = "a\nb".to_owned()), None);
        assert_eq!(told(&|glimpse| glimpse.count = COUNT), None);
        assert_eq!(told(&|glimpse| glimpse.status = 7), None);
        assert_eq!(told(&|glimpse| glimpse.query = vec![String::new(); VALUES + 1]), None);
        assert_eq!(told(&|glimpse| glimpse.sent.names = [("x".repeat(NAME + 1), 1)].into()), None);
        assert_eq!(Glimpse::read(&[b' '; WRITTEN + 1], 1_000), None);
    }
}
