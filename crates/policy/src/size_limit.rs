//! How large a request may be.
//!
//! Stands before authentication: what is too large is not worth asking who sent it. Content whose length is not announced is
//! counted as it passes, and the exchange is refused or cut when there is too much; so is content that is larger than was
//! announced. Only ever narrows what the listener allows (`limits.bodyBytes`, `limits.headerBytes`).
//!
//! Costs a few comparisons per request; `fieldBytes` one pass over the fields.

use rhumb_base::failure::Cause;
use rhumb_codec::head::{Content, RequestHead};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::quantity::Size;

/// Limits how large requests may be.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Content: a size such as 10Mi. More is answered with 413.
    #[serde(default)]
    pub content: Option<Size>,
    /// Names and values of all fields together: a size. More is answered with 431.
    #[serde(default)]
    pub field_bytes: Option<Size>,
    /// Number of field lines. More are answered with 431.
    #[serde(default)]
    pub fields: Option<usize>,
    /// Path and query: a size. More is answered with 414.
    #[serde(default)]
    pub target: Option<Size>,
    /// Refuse content whose length is not announced with 411. Default: false.
    #[serde(default)]
    pub require_length: bool,
}

/// Compiled limits.
pub struct SizeLimit {
    content: Option<u64>,
    field_bytes: u64,
    fields: usize,
    target: u64,
    require_length: bool,
}

impl HttpPolicy for SizeLimit {
    const KIND: &'static str = "sizeLimit";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND).or(Attach::CONSUMER);
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        let read = |field: &str, size: &Option<Size>| size.as_ref().map(|size| size.read(field)).transpose();
        let Spec { content, field_bytes, fields, target, require_length } = &spec;
        if content.is_none()
            && field_bytes.is_none()
            && fields.is_none()
            && target.is_none()
            && !require_length
        {
            return Err(Invalid::new("", "limits nothing", "write `content: 10Mi`, or remove the policy"));
        }
        Ok(Self {
            content: read("content", content)?,
            field_bytes: read("fieldBytes", field_bytes)?.unwrap_or(u64::MAX),
            fields: fields.unwrap_or(usize::MAX),
            target: read("target", target)?.unwrap_or(u64::MAX),
            require_length: *require_length,
        })
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        if self.target != u64::MAX {
            let length = req.path().len() + req.query().map_or(0, |query| query.len() + 1);
            if length as u64 > self.target {
                return Verdict::Respond(Reply::refuse(Cause::UriTooLong));
            }
        }
        if req.fields.len() > self.fields {
            return Verdict::Respond(Reply::refuse(Cause::FieldsTooLarge));
        }
        if self.field_bytes != u64::MAX {
            let bytes: usize = req.fields.iter().map(|line| line.name.len() + line.value.len()).sum();
            if bytes as u64 > self.field_bytes {
                return Verdict::Respond(Reply::refuse(Cause::FieldsTooLarge));
            }
        }
        match req.content {
            Content::Length(length) if self.content.is_some_and(|most| length > most) => {
                return Verdict::Respond(Reply::refuse(Cause::ContentTooLarge));
            }
            Content::Length(_) => {}
            _ if req.content.is_empty() => {}
            _ if self.require_length => return Verdict::Respond(Reply::refuse(Cause::LengthRequired)),
            _ => {
                if let Some(most) = self.content {
                    cx.effects.max_content =
                        Some(cx.effects.max_content.map_or(most, |known| known.min(most)));
                }
            }
        }
        Verdict::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::field::Known;
    use rhumb_codec::head::Scheme;
    use serde_json::json;

    #[test]
    fn what_is_too_large_is_refused_by_what_it_is() {
        let body = json!({ "content": "1Ki", "fieldBytes": 40, "fields": 3, "target": 10 });
        let policy = compile_alone::<SizeLimit>(serde_json::from_value(body).unwrap()).unwrap();
        let ask = |change: &dyn Fn(&mut RequestHead)| {
            let mut req = RequestHead::new();
            req.set_target(b"/a?b");
            change(&mut req);
            let mut cx = Exchange::new([127, 0, 0, 1].into(), Scheme::Http, 80);
            match policy.on_request(&mut req, &mut (), &mut cx) {
                Verdict::Continue => Ok(cx.effects.max_content),
                Verdict::Respond(reply) => Err(reply.head.status),
                _ => panic!("neither passes nor is answered"),
            }
        };
        assert_eq!(ask(&|_| ()), Ok(None));
        assert_eq!(ask(&|req| req.content = Content::Length(1024)), Ok(None));
        assert_eq!(ask(&|req| req.content = Content::Length(1025)), Err(413));
        assert_eq!(ask(&|req| req.content = Content::Streamed), Ok(Some(1024)));
        assert_eq!(ask(&|req| req.set_target(b"/abcdef?xyz")), Err(414));
        assert_eq!(ask(&|req| req.fields.append(Known::Cookie, &[b'x'; 40])), Err(431));
        assert_eq!(ask(&|req| (0..4).for_each(|_| req.fields.append(Known::Cookie, b"a"))), Err(431));
    }

    #[test]
    fn a_length_can_be_required() {
        let body = json!({ "requireLength": true });
        let policy = compile_alone::<SizeLimit>(serde_json::from_value(body).unwrap()).unwrap();
        let mut req = RequestHead::new();
        let mut cx = Exchange::new([127, 0, 0, 1].into(), Scheme::Http, 80);
        assert!(matches!(policy.on_request(&mut req, &mut (), &mut cx), Verdict::Continue));
        req.content = Content::Streamed;
        let Verdict::Respond(reply) = policy.on_request(&mut req, &mut (), &mut cx) else { panic!("passes") };
        assert_eq!(reply.head.status, 411);
        assert!(compile_alone::<SizeLimit>(serde_json::from_value(json!({})).unwrap()).is_err());
    }
}
