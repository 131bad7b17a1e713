//! How fast responses pass.
//!
//! Each response for itself, or all of one key together: then whoever sends a piece has it paid for before the next, on all
//! workers. Costs nothing per request beyond the key; content that is paced is copied once, and not spliced.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rhumb_cel::Program;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::attributes::{Attributes, SCHEMA};
use crate::context::Context;
use crate::exchange::{Exchange, SharedPace};
use crate::keyed::{Entry, KEYS_DEFAULT, Keyed, Now, Table};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::quantity::Size;

/// Limits how fast responses pass.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Content of responses: a size per second, such as 1Mi.
    pub response: Size,
    /// Whose responses share it: a CEL expression with one value. Default: each response has it for itself.
    #[serde(default)]
    pub per: Option<String>,
    /// Which requests: a CEL condition. One without a value is limited. Default: all.
    #[serde(default)]
    pub when: Option<String>,
}

/// A compiled limit.
pub struct Bandwidth {
    response: NonZeroU64,
    shared: Option<(Keyed, Arc<Table<Line>>)>,
    when: Option<Program>,
}

/// The line of a key. As long as some response holds it, it is the same for all.
#[derive(Default)]
struct Line(Arc<AtomicU64>);

impl Entry for Line {
    fn is_over(&self, _: Now) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl HttpPolicy for Bandwidth {
    const KIND: &'static str = "bandwidth";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT.or(Attach::CONSUMER);
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let response = NonZeroU64::new(spec.response.read("response")?)
            .ok_or_else(|| Invalid::new("response", "nothing ever passes", "write a size per second: 1Mi"))?;
        let shared = match &spec.per {
            None => None,
            Some(_) => {
                let lines = cx.keep("lines", Table::new);
                lines.set_most(KEYS_DEFAULT);
                Some((Keyed::read("per", spec.per.as_deref(), Keyed::Address)?, lines))
            }
        };
        let when = spec.when.as_ref().map(|text| {
            Program::condition(text, &SCHEMA)
                .map_err(|error| Invalid::new("when", error.tell(text), error.fix))
        });
        Ok(Self { response, shared, when: when.transpose()? })
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let Some(now) = Now::of(cx) else { return Verdict::Continue };
        let attributes = Attributes::new(req, cx);
        if self.when.as_ref().is_some_and(|when| !when.holds(&attributes).unwrap_or(true)) {
            return Verdict::Continue;
        }
        cx.found.shared_pace = None;
        if let Some((per, lines)) = &self.shared {
            let key = per.hash(&attributes, cx, lines.seed());
            let (line, is_full) = lines.with(key, now, |line, is_full| (Arc::clone(&line.0), is_full));
            cx.found.keys_full |= is_full;
            cx.found.shared_pace = Some(SharedPace { paid_until: line });
        }
        let known = cx.effects.bytes_per_second;
        cx.effects.bytes_per_second = Some(known.map_or(self.response, |known| known.min(self.response)));
        cx.effects.is_limited = known.is_none();
        Verdict::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;
    use serde_json::json;

    fn ask(policy: &Bandwidth, path: &str) -> (Option<u64>, Option<SharedPace>) {
        let mut req = RequestHead::new();
        req.set_target(path.as_bytes());
        let mut cx = Exchange {
            began: Some(std::time::Instant::now()),
            ..Exchange::new([127, 0, 0, 1].into(), Scheme::Http, 80)
        };
        assert!(matches!(policy.on_request(&mut req, &mut (), &mut cx), Verdict::Continue));
        (cx.effects.bytes_per_second.map(NonZeroU64::get), cx.found.shared_pace)
    }

    #[test]
    fn responses_of_one_key_share_a_line() {
        let body = json!({ "response": "64Ki", "per": "request.path", "when": "request.path != '/free'" });
        let policy = compile_alone::<Bandwidth>(serde_json::from_value(body).unwrap()).unwrap();
        let line = |path: &str| ask(&policy, path).1.unwrap().paid_until;
        let first = line("/a");
        assert!(Arc::ptr_eq(&first, &line("/a")) && !Arc::ptr_eq(&first, &line("/b")));
        assert_eq!(ask(&policy, "/a").0, Some(65_536));
        assert!(ask(&policy, "/free").0.is_none());
    }

    #[test]
    fn without_a_key_each_response_has_a_line_of_its_own() {
        let policy =
            compile_alone::<Bandwidth>(serde_json::from_value(json!({ "response": 1000 })).unwrap()).unwrap();
        let (rate, line) = ask(&policy, "/a");
        assert!(rate == Some(1000) && line.is_none());
        assert!(
            compile_alone::<Bandwidth>(serde_json::from_value(json!({ "response": 0 })).unwrap()).is_err()
        );
    }
}
